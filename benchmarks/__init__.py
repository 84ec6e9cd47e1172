"""Measure the figures of docs/performance.md, beside nginx, Varnish and others."""
