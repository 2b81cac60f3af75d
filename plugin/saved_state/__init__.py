"""The last good state on disk, for a start while Consul is away."""
