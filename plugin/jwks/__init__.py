"""``jwt-provider`` entries: what they say, and the keys that they name."""
