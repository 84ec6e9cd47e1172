"""Coordination: one fetch per person, the gate to Meta, and limits on a process."""
