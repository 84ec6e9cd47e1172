"""What wraps granian, and each trick played on it in a file of its own."""
