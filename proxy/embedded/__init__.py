"""The embedded engine: a Redis-compatible server as a child process of its owner."""
