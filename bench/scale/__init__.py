"""What many services, connections and intentions cost, beside Envoy's gateway: ``python -m bench.scale``."""
