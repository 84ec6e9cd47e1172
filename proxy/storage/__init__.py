"""Redis: connections, entries, the near cache. `coordination` adds its own keys."""
