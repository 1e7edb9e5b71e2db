"""Pages that need more than one app, and what every page shares."""
