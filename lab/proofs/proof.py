"""What a proof is made of."""

from __future__ import annotations


class Disproved(Exception):
    """The lab is not as it should be; the text says how it is."""


def holds(condition: object, otherwise: str) -> None:
    """:raises Disproved: unless ``condition`` is true."""
    if not condition:
        raise Disproved(otherwise)
