"""Hits before Flask: the one part of HTTP that reads the codec of storage."""
