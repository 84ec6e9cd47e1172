"""The command line: each command acts on the store and the Graph of the settings."""
