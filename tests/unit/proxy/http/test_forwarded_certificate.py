"""Who is calling is read from one element of one line that the mesh gateway wrote itself, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http.forward import client_certificate_element
from proxy.http.forwarded_certificate import Unreadable, forwarded_uri
from proxy.http.message import Headers

GATEWAY = "spiffe://11111111-2222-3333-4444-555555555555.consul/gateway/mesh/dc/dc1"
WEB = "spiffe://22222222-2222-3333-4444-555555555555.consul/ns/default/dc/dc2/svc/web"
ADMIN = WEB.replace("web", "admin")
BY = f"By={GATEWAY}"
PLAIN = f'{BY};Hash=ab12;Cert="-----BEGIN%20CERTIFICATE-----%0AMIIB";Subject="";URI={WEB}'


def lines(*values: str) -> Headers:
    return [(b"host", b"db"), *((b"x-forwarded-client-cert", value.encode("latin-1")) for value in values)]


@pytest.mark.parametrize(
    "line",
    [
        PLAIN,
        f"{BY};URI={WEB}",
        f"URI={WEB};{BY}",
        f"{BY};URI={WEB};DNS=web.example;DNS=other",
        # What a caller may have for a subject stays within its quotation marks.
        f'{BY};Subject="CN=\\"a\\",O=b;URI={ADMIN}";URI={WEB}',
        f'{BY};Subject="\\\\";URI={WEB}',
        f"{BY};Hash=;Subject=;URI={WEB}",
    ],
)
def test_as_a_mesh_gateway_writes_it(line: str) -> None:
    assert forwarded_uri(lines(line), GATEWAY) == WEB


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        (PLAIN, PLAIN),
        (PLAIN, ""),
        (f"{PLAIN},{PLAIN}",),
        (f"{PLAIN},By={WEB};URI={ADMIN}",),
        (f"URI={ADMIN},{PLAIN}",),
        (f"{PLAIN};URI={WEB}",),
        (f"{PLAIN};URI={ADMIN}",),
        (f"{PLAIN};DNS=x;URI={ADMIN}",),
        (f"{BY};Subject=\"\";DNS=a.example",),
        (f"URI={WEB}",),
        (f"By={ADMIN};URI={WEB}",),
        (f"{BY};{BY};URI={WEB}",),
        (f'By="{GATEWAY}";URI={WEB}',),
        (f"{PLAIN};",),
        (f";{PLAIN}",),
        (f"{BY};;URI={WEB}",),
        (f" {PLAIN}",),
        (f"{PLAIN} ",),
        (f"{BY}; URI={WEB}",),
        (f"{BY};uri={WEB}",),
        (f"{BY};URI ={WEB}",),
        (f"{BY};URI={WEB};Other=1",),
        (f'{BY};Subject="a;URI={WEB}',),
        (f'{BY};Subject="a"b;URI={WEB}',),
        (f'{BY};Subject="a\\";URI={WEB}',),
        (f'{BY};Subject=a"b;URI={WEB}',),
        (f'{BY};Subject="\u00e4";URI={WEB}',),
        (f"{BY};Subject=\u00e4;URI={WEB}",),
        (f'{BY};Subject="\t";URI={WEB}',),
        (f"{BY};Hash=a\\b;URI={WEB}",),
        (f"{BY};URI",),
        (WEB,),
    ],
)  # fmt: skip
def test_anything_else_names_nobody(values: tuple[str, ...]) -> None:
    with pytest.raises(Unreadable):
        forwarded_uri(lines(*values), GATEWAY)


def test_a_name_that_looks_like_the_header_is_none() -> None:
    with pytest.raises(Unreadable, match="no x-forwarded"):
        forwarded_uri([(b"x_forwarded_client_cert", PLAIN.encode())], GATEWAY)


def test_a_quoted_uri_is_no_spiffe_id() -> None:
    assert forwarded_uri(lines(f'{BY};URI="{WEB}"'), GATEWAY) == f'"{WEB}"'


@given(st.text(), st.lists(st.text(), max_size=3))
@example('\\";URI=' + ADMIN + ';Subject="', [])
def test_nothing_that_a_caller_chose_speaks_for_another(subject: str, names: list[str]) -> None:
    element = client_certificate_element(
        by=GATEWAY, leaf_der=b"der", chain_pem=("pem\n",), subject=subject, uris=(WEB,), names=tuple(names)
    )
    try:
        assert forwarded_uri([(b"x-forwarded-client-cert", element)], GATEWAY) == WEB
    except Unreadable:
        pass


_PIECES = ("By=", "URI=", "Subject=", '"', "\\", ";", ",", "=", " ", "x", GATEWAY, WEB, ADMIN)


@given(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join))
@example(f'{BY};Subject="\\"";URI={WEB}')
def test_what_is_read_is_all_that_stands_outside_of_quotation_marks(line: str) -> None:
    """Against a reader that goes one character at a time."""
    try:
        found = forwarded_uri(lines(line), GATEWAY)
    except Unreadable:
        return
    fields, quoted, escaped = [""], False, False
    for character in line:
        if quoted:
            quoted = escaped or character != '"'
            escaped = not escaped and character == "\\"
        else:
            assert character != ","
            quoted = character == '"'
        if character == ";" and not quoted:
            fields.append("")
        else:
            fields[-1] += character
    assert [one for one in fields if one.startswith("URI=")] == [f"URI={found}"]
    assert f"By={GATEWAY}" in fields
