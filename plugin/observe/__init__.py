"""Learning Consul's state: who asks what and when, and where the facts are kept.

``observer.py`` runs the readers; ``store.py`` holds what they learned and says what changed.
"""
