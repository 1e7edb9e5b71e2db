"""Pages of the operator console."""
