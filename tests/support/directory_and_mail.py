"""A directory and a mail relay that speak the exchanges of one client, curl, which speaks LDAP with OpenLDAP's library.

Handlers of :class:`plugin.dev.external.ExternalService`.
"""

from __future__ import annotations

import asyncio
import ssl

BIND, BIND_ANSWER, SEARCH, ENTRY, DONE, UNBIND = 0x60, 0x61, 0x63, 0x64, 0x65, 0x42
_SUCCESS = b"\x0a\x01\x00\x04\x00\x04\x00"
"""``LDAPResult`` (RFC 4511 4.1.9): resultCode 0, no matchedDN, no message."""


def ber(tag: int, content: bytes) -> bytes:
    """One value, its length in the short form (X.690 8.1.3.4)."""
    assert len(content) < 128
    return bytes([tag, len(content)]) + content


async def directory(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """LDAP (RFC 4511): every bind succeeds, and each search finds one person below its base."""
    while True:
        tag, length = await reader.readexactly(2)
        if length & 0x80:
            length = int.from_bytes(await reader.readexactly(length & 0x7F))
        message = await reader.readexactly(length)
        assert tag == 0x30, "an LDAPMessage is a SEQUENCE"
        assert message[0] == 0x02, "it begins with a messageID"
        number, operation = message[: 2 + message[1]], message[2 + message[1] :]
        if operation[0] == UNBIND:
            return
        if operation[0] == BIND:
            writer.write(ber(0x30, number + ber(BIND_ANSWER, _SUCCESS)))
        elif operation[0] == SEARCH:
            attribute = ber(0x30, ber(0x04, b"cn") + ber(0x31, ber(0x04, b"Alice")))
            found = ber(ENTRY, ber(0x04, b"uid=alice," + _base(operation)) + ber(0x30, attribute))
            writer.write(ber(0x30, number + found) + ber(0x30, number + ber(DONE, _SUCCESS)))
        await writer.drain()


def _base(search: bytes) -> bytes:
    """``baseObject``, the first field of a SearchRequest."""
    at = 2 + (search[1] & 0x7F if search[1] & 0x80 else 0)
    assert search[at] == 0x04
    return search[at + 2 : at + 2 + search[at + 1]]


class MailRelay:
    """SMTP (RFC 5321), the server's side of handing in messages; with ``starttls`` only over TLS (RFC 3207)."""

    def __init__(self, starttls: ssl.SSLContext | None = None) -> None:
        self.messages: list[str] = []
        self._starttls = starttls

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wanted = self._starttls
        answers = {"EHLO": "250 relay.mail.example", "MAIL": "250 2.1.0 Ok", "RCPT": "250 2.1.5 Ok"}
        writer.write(b"220 relay.mail.example ESMTP\r\n")
        while line := await reader.readline():
            verb = line[:4].decode().upper()
            if verb == "EHLO" and wanted is not None:
                writer.write(b"250-relay.mail.example\r\n250 STARTTLS\r\n")
            elif verb == "STAR" and wanted is not None:
                writer.write(b"220 2.0.0 Ready to start TLS\r\n")
                await writer.start_tls(wanted)
                wanted = None
            elif wanted is not None and verb != "QUIT":
                writer.write(b"530 5.7.0 Must issue a STARTTLS command first\r\n")
            elif verb == "DATA":
                writer.write(b"354 End data with <CR><LF>.<CR><LF>\r\n")
                self.messages.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                writer.write(b"250 2.0.0 Ok: queued\r\n")
            elif verb == "QUIT":
                writer.write(b"221 2.0.0 Bye\r\n")
                await writer.drain()
                return
            else:
                writer.write(answers.get(verb, "502 5.5.2 Command not recognized").encode() + b"\r\n")
            await writer.drain()
