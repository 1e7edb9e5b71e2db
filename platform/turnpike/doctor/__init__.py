"""What `manage.py doctor` looks at: each module has one subject and yields findings."""
