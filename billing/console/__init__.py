"""Pages for people: overview, usage, limits, logs, money."""
