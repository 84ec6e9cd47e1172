"""What wraps granian: its parent, its workers, and each trick in a file of its own."""
