"""The data plane: raw asyncio workers that carry connections out of the mesh.

A worker knows TLS, identities, intentions and bytes. It holds no Consul token, resolves no names, opens no
files and imports nothing of ``plugin``; everything it may do arrives as :class:`proxy.messages.Update`.

Start reading at ``worker.py`` (wiring), then follow one connection: ``sockets/listener.py`` -> ``carrier.py`` ->
``tls/`` -> ``policy/`` -> ``upstream/`` -> ``sockets/relay.py``, or ``http/`` for a service of layer 7.
"""
