"""The use cases: find, fetch, refresh and invalidate entries about a Page's people."""
