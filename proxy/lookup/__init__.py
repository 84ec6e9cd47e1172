"""The use cases: find, fetch, refresh and forget what is known of a Page's people."""
