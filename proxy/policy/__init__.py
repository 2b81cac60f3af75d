"""Who may do what: the caller's name, the intentions about it, the answer. Pure."""
