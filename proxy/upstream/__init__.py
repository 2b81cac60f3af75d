"""Which endpoint of an external service is dialled, and what is learned from it."""
