"""The control plane: watches a Consul agent and drives the workers of :mod:`proxy`.

The path of a fact: ``consul`` (when and how to ask) -> ``observe`` (who asks, and the store of what is known) ->
``assemble`` (what each service needs to be served) -> ``gateway.py`` (what changed) -> ``workers`` (tells each worker).
"""
