"""The server around granian: parent, workers, and each trick in a file of its own."""
