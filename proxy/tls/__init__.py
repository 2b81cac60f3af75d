"""TLS, both sides: contexts, sessions without sockets, handshakes, whom a certificate convinces."""
