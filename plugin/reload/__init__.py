"""Replacing every process of a running gateway by a new generation: other flags, other code, the same sockets.

``door.py`` hears the request, ``rehearsal.py`` tries the new generation beside the old one, ``inheritance.py`` is what
goes through exec(2) when it has proved itself.
"""
