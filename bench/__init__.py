"""What the data plane costs, against nginx in the same run. `make bench`."""
