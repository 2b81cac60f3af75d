"""Brings an external service in, and takes it out again: what has to change in Consul, and the changing of it."""
