"""The comparison with Envoy: the same Consul, the same client, the same machine, one run."""
