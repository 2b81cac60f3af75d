"""Real parts on one machine: Consul, Envoy, PostgreSQL and small external services, started and ended on demand.

``consul-tgw dev``, the tests and the benchmark run on these launchers. Nothing here is part of a gateway in
production, and everything binds loopback only.
"""
