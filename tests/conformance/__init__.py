"""The same case against Envoy's terminating gateway and against this one, on the same real Consul.

A case is written once and run twice, each time with services of its own; what it observed must be what it says on
both sides. ``make conformance`` writes the table in ``docs/conformance.md``.
"""
