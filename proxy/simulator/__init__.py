"""A stand-in for Meta's Graph API, for local use and end-to-end tests.

It implements Meta's side of the protocol by itself and imports nothing of the rest
of the package, because two sides that share code would share its mistakes too.
"""
