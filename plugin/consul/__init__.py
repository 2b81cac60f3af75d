"""Consul's HTTP API: the types of its answers, the client, and when to ask again."""
