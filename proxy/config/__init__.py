"""The settings: read from the environment and from the files that they name, once."""
