"""A stand-in for Meta's Graph API, for local use and end-to-end tests.

It knows Meta's side of the protocol by its own means and imports nothing of the
rest of the package: two sides that share code share its mistakes too.
"""
