"""What is known of a person and for how long it may be used; no I/O, and no clock."""
