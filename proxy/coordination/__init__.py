"""Who may do what, when: one fetch per person, the gate, and limits on a process."""
