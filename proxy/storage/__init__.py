"""All that is known of Redis."""
