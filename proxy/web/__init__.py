"""All that is known of our own wire."""
