"""Billing tests with real transactions end with a flush of tables that refuse TRUNCATE."""

from tests.support.flush import allow_flush

allow_flush()
