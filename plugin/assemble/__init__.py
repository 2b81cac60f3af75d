"""From facts to what a worker is told. Pure: facts in, a service or the reasons why not out.

``assembler.py`` is the entry; every other module decides one part.
"""
