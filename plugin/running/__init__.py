"""One running gateway: what it consists of, and how all of it starts, goes on and ends.

``data_plane.py`` is the workers, what they were told, and the logs they write; ``knowledge.py`` turns what Consul,
files and names say into that; ``reception.py`` is where operators are answered; ``upkeep.py`` is what has to be done
now and then; ``supervisor.py`` puts them together, and starts and ends them in order.
"""
