"""All that is known of Meta."""
