"""Hours of everything at once: real Consul, real gateway, checked traffic, random faults, invariants, one report."""
