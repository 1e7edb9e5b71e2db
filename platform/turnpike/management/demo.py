"""The demo that `manage.py bootstrap` makes, and where its credentials are kept."""

DEMO_FILE = "demo.json"
