"""Pages for people: keys, members, audit log, settings; and the base of every tenant page."""
