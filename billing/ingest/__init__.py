"""From the stream of usage events to PostgreSQL, exactly once."""
