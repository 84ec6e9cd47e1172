"""A caching profile proxy in front of Meta's User Profile API for Instagram."""
