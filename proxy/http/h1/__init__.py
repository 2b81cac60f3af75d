"""HTTP/1.1, both sides (RFC 9112)."""
