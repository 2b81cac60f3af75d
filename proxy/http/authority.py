"""The authority of a request: whom the client says it is calling (``Host``, ``:authority``).

It is forwarded, and matched by permissions and by virtual hosts behind the gateway: what two readers could read
differently is refused.
"""

from __future__ import annotations

import functools
import ipaddress
import re

from proxy.http.errors import BadRequest

_LONGEST = 300
"""Bytes: a name of DNS has 253 at most, and there is a port."""
_FORM = re.compile(
    rb"(?:\[(?P<literal>[0-9A-Fa-f:.]{2,45})\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::(?P<port>[0-9]{0,5}))?"
)
"""``uri-host [ ":" port ]`` (RFC 9110 section 7.2, RFC 3986 section 3.2.2), without a comma, which would make two
hosts of one where lines are joined; neither user information nor zones (RFC 9110 section 4.2.4)."""


def check_authority(value: bytes) -> None:
    """:raises BadRequest: when it is not a host with or without a port."""
    if not _valid(value):
        raise BadRequest(400, "the Host, or :authority, is not a host with or without a port")


@functools.lru_cache(maxsize=1_024)
def _valid(value: bytes) -> bool:
    if len(value) > _LONGEST or (form := _FORM.fullmatch(value)) is None:
        return False
    port, literal = form["port"], form["literal"]
    if port and int(port) > 65_535:
        return False
    if literal is None:
        return True
    try:
        ipaddress.IPv6Address(literal.decode())
    except ValueError:
        return False
    return True
