"""What is decided about a request: its one form, permissions, tokens. Pure."""
