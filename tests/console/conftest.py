"""Fixtures of the consoles' tests."""

from tests.support.flush import allow_flush

# Tests with real transactions end with a flush of tables that refuse TRUNCATE.
allow_flush()
