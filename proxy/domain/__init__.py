"""Facts about people, how long they may be used, and failures. No I/O, no clock."""
