"""Certificates and private keys in PEM text, with errors that say which line of which file is wrong.

It reads text that somebody else read from a file; it verifies no chain and no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


class PEMError(Exception):
    """What is wrong with the content of a file, as the end of a sentence that starts with its name."""


@dataclass(frozen=True, slots=True)
class Certificates:
    pem: str
    """The certificates alone, in the file's order, without the text around them."""
    first_public_key: bytes
    """SubjectPublicKeyInfo of the first certificate, DER."""
    not_after_s: tuple[float, ...]
    """The end of each certificate's life, Unix time in seconds."""
    unreadable: tuple[str, ...] = ()
    """What was left out, as the end of a sentence that starts with the file's name."""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    pem: str
    public_key: bytes
    """SubjectPublicKeyInfo, DER."""

    def __repr__(self) -> str:
        return "PrivateKey(<redacted>)"


@dataclass(frozen=True, slots=True)
class _Block:
    label: str
    line: int
    text: str


_BEGIN = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----[ \t]*")
_CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})


@lru_cache(maxsize=256)
def read_certificates(content: bytes) -> Certificates:
    """Read every certificate of a file. :raises PEMError: when there is none, or one is unreadable."""
    return _certificates([_certificate(block) for block in _certificate_blocks(content)])


@lru_cache(maxsize=256)
def read_authorities(content: bytes) -> Certificates:
    """Read the certificates of a file whose order means nothing, without those that are unreadable.

    A bundle of public authorities may hold one that only another library reads, and the others are still what the
    operator trusts. A block without its end is an error all the same: such a file is not written to its end yet.

    :raises PEMError: when there is none that can be read.
    """
    readable, unreadable = [], []
    for block in _certificate_blocks(content):
        try:
            readable.append(_certificate(block))
        except PEMError as error:
            unreadable.append(error)
    if not readable:
        raise unreadable[0]
    return _certificates(readable, tuple(map(str, unreadable)))


def _certificate_blocks(content: bytes) -> list[_Block]:
    blocks = [block for block in _blocks(content) if block.label in _CERTIFICATE_LABELS]
    if not blocks:
        raise PEMError(f"holds no certificate{_what_instead(content)}; it must be PEM with a CERTIFICATE block")
    return blocks


def _certificates(certificates: list[x509.Certificate], unreadable: tuple[str, ...] = ()) -> Certificates:
    key = certificates[0].public_key()
    return Certificates(
        pem="".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates),
        first_public_key=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        not_after_s=tuple(certificate.not_valid_after_utc.timestamp() for certificate in certificates),
        unreadable=unreadable,
    )


def read_private_key(content: bytes) -> PrivateKey:
    """Read the first private key of a file. :raises PEMError: when there is none, or it cannot be used."""
    block = next((block for block in _blocks(content) if block.label.endswith("PRIVATE KEY")), None)
    if block is None:
        raise PEMError(f"holds no private key{_what_instead(content)}; it must be PEM with a PRIVATE KEY block")
    if block.label == "ENCRYPTED PRIVATE KEY" or "Proc-Type: 4,ENCRYPTED" in block.text:
        raise PEMError(
            "is encrypted with a passphrase, which the gateway cannot ask for; "
            "store the key unencrypted, readable by the gateway's user alone"
        )
    try:
        key = load_pem_private_key(block.text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PEMError(f"has an unreadable private key at line {block.line}: {_first_line(error)}") from error
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PrivateKey(block.text, public_key)


def _blocks(content: bytes) -> Iterator[_Block]:
    """Yield the blocks of a file; text between them is a comment (RFC 7468, section 2)."""
    lines = content.decode("utf-8-sig", "replace").splitlines()
    at = 0
    while at < len(lines):
        begin = _BEGIN.fullmatch(lines[at])
        at += 1
        if begin is None:
            continue
        start, end = at, f"-----END {begin[1]}-----"
        while at < len(lines) and lines[at].rstrip() != end:
            if _BEGIN.fullmatch(lines[at]):
                break
            at += 1
        if at == len(lines) or lines[at].rstrip() != end:
            raise PEMError(f'has a block that starts at line {start} and has no "{end}"')
        at += 1
        yield _Block(begin[1], start, "\n".join(line.rstrip() for line in lines[start - 1 : at]) + "\n")


def _certificate(block: _Block) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(block.text.encode())
        certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise PEMError(f"has an unreadable certificate at line {block.line}: {_first_line(error)}") from error
    return certificate


def _what_instead(content: bytes) -> str:
    if not content.strip():
        return " (it is empty)"
    if content[:1] == b"\x30" and b"-----BEGIN" not in content:
        return " (it looks like DER: convert it with openssl, -inform der)"
    labels = sorted({block.label for block in _blocks(content)})
    return f" (only {', '.join(labels)})" if labels else ""


def _first_line(error: Exception) -> str:
    """Without what the library quotes of the text: it may be lines of a key."""
    return str(error).split("\n", 1)[0].partition('("')[0] or type(error).__name__
