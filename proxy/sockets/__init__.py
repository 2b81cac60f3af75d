"""Sockets and the time they take: readiness, accepting, connecting, copying."""
