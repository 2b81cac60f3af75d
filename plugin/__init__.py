"""The control plane: watches a Consul agent and drives the workers of :mod:`proxy`.

The path of a fact: ``consul/watch.py`` (when to ask) -> ``consul/client.py`` (asks) -> ``facts.py`` (what is known)
-> ``assemble.py`` (what a service needs to be served) -> ``workers.py`` (hands it to the workers).
"""
