"""Any file is certificates or a key that OpenSSL takes, or an error with a name, and no error quotes a key."""

from __future__ import annotations

from OpenSSL import SSL, crypto

from plugin.assemble.pem import PEMError, read_authorities, read_certificates, read_private_key
from proxy.errors import MaterialError
from proxy.tls.material import certificates_from_pem, present, trust

CODE = ("plugin.assemble.pem", "proxy.tls.material")


def run(data: bytes) -> None:
    for read in (read_certificates, read_authorities):
        try:
            certificates = read(data)
        except PEMError as error:
            _quotes_no_key(data, str(error))
            continue
        assert len(certificates.not_after_s) == len(certificates_from_pem(certificates.pem))
        _used(certificates.pem, data)
    text = data.decode("utf-8", "replace")
    _used(text, data)
    try:
        key = read_private_key(data)
    except PEMError as error:
        _quotes_no_key(data, str(error))
        return
    assert key.pem not in repr(key)


def _used(pem: str, data: bytes) -> None:
    try:
        trust(crypto.X509Store(), certificates_from_pem(pem))
        present(SSL.Context(SSL.TLS_SERVER_METHOD), pem, data.decode("utf-8", "replace"), "the leaf")
    except MaterialError as error:
        _quotes_no_key(data, str(error))


def _quotes_no_key(data: bytes, error: str) -> None:
    lines = data.decode("utf-8", "replace").splitlines()
    marks = [number for number, line in enumerate(lines) if line.endswith("PRIVATE KEY-----") and "BEGIN" in line]
    assert not any(len(line) >= 40 and line in error for number in marks for line in lines[number + 1 : number + 40])
