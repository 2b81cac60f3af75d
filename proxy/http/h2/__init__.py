"""HTTP/2, both sides (RFC 9113)."""
