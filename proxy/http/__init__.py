"""HTTP for services of the protocols ``http``, ``http2`` and ``grpc``: decided and carried request by request.

``server`` files face the mesh, ``client`` files the external service; :mod:`proxy.http.streams` is the seam between
a protocol's version and everything else.
"""
