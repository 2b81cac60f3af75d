"""Asks the gateway's own listening socket whether a worker is behind it."""

from __future__ import annotations

import asyncio
import contextlib
import errno

from plugin.addresses import HostPort

_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""What keeps this process from asking says nothing about the workers."""


async def silence(address: HostPort, timeout_s: float) -> str:
    """Why ``address`` does not answer; empty when it does.

    The kernel accepts into its queue by itself, so a connection proves nothing. Only a worker that runs its event loop
    takes it from there, sees that we have nothing to send, and closes it: that end is waited for.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, address.port)
            writer.write_eof()
            await reader.read()
    except TimeoutError:
        return f"no worker answers on {address} within {timeout_s:g} s"
    except ConnectionResetError:
        return ""
    except OSError as error:
        if error.errno in _OURS:
            return ""
        return f"{address} does not accept connections: {error.strerror or error}"
    finally:
        if writer is not None:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return ""
