"""Counts, and how Prometheus gets to see them."""
