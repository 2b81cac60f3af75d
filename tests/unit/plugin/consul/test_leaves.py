"""Leaf certificates: order, checks, and when the next one is due."""

from __future__ import annotations

import datetime
import itertools
import time

import pytest

from plugin.consul.api import LeafCertificate, Root, Roots
from plugin.dev.pki import Authority, KeyPair
from plugin.errors import ConsulUnavailable
from plugin.observe.leaves import KnownLeaf, convert

TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
URI = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/db"
END = "-----END CERTIFICATE-----\n"


def certificates(pem: str) -> list[str]:
    return [part + END for part in pem.split(END)[:-1]]


def answer(pair: KeyPair, *, chain: str = "", uri: str = URI, key_pem: str = "") -> LeafCertificate:
    return LeafCertificate(
        serial_number="0b",
        cert_pem=chain or pair.certificate_pem,
        private_key_pem=key_pem or pair.private_key_pem,
        service="db",
        service_uri=uri,
        valid_after="",
        valid_before="",
    )


def known(pair: KeyPair) -> KnownLeaf:
    return convert(answer(pair), index=7, now_s=time.time())


def roots(signing_key_id: str) -> Roots:
    old = Root(id="b", root_cert="", active=False, signing_key_id="00:11")
    active = Root(id="a", root_cert="", active=True, signing_key_id=signing_key_id)
    return Roots(active_root_id="a", trust_domain=TRUST_DOMAIN, roots=(old, active))


def test_leaf_is_taken_as_it_is() -> None:
    pair = Authority().leaf(TRUST_DOMAIN, "db", valid=datetime.timedelta(days=3))
    leaf = known(pair).leaf
    assert leaf.certificate_chain_pem == pair.certificate_pem
    assert leaf.private_key_pem == pair.private_key_pem
    assert (leaf.spiffe_id, leaf.serial_number) == (URI, "0b")
    assert leaf.not_before_s < time.time() < leaf.not_after_s
    assert pair.private_key_pem not in repr(known(pair))


def test_chain_of_a_secondary_datacenter_is_put_in_order_and_freed_of_duplicates() -> None:
    root = Authority("root")
    primary = Authority("primary", parent=root)
    secondary = Authority("secondary", parent=primary)
    pair = secondary.leaf(TRUST_DOMAIN, "db")
    leaf, *issuers = certificates(pair.certificate_pem)
    assert len(issuers) == 2
    for order in itertools.permutations([*issuers, issuers[0]]):
        chain = convert(answer(pair, chain=leaf + "".join(order)), index=1, now_s=time.time()).leaf
        assert certificates(chain.certificate_chain_pem) == [leaf, *issuers]


def test_certificate_that_does_not_belong_to_the_chain_goes_last() -> None:
    root = Authority("root")
    intermediate = Authority("intermediate", parent=root)
    stranger = Authority("stranger")
    pair = intermediate.leaf(TRUST_DOMAIN, "db")
    leaf, issuer = certificates(pair.certificate_pem)
    chain = convert(answer(pair, chain=leaf + stranger.certificate_pem + issuer), index=1, now_s=time.time()).leaf
    assert certificates(chain.certificate_chain_pem) == [leaf, issuer, stranger.certificate_pem]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"uri": URI.replace("svc/db", "svc/other")}, "it names"),
        ({"key_pem": Authority().leaf(TRUST_DOMAIN, "db").private_key_pem}, "private key"),
        ({"key_pem": "-----BEGIN EC PRIVATE KEY-----\nhush\n"}, "cannot be read"),
        ({"chain": "-----BEGIN CERTIFICATE-----\nhush\n"}, "cannot be read"),
    ],
)
def test_leaf_that_cannot_be_served_is_refused_without_quoting_it(change: dict[str, str], why: str) -> None:
    pair = Authority().leaf(TRUST_DOMAIN, "db")
    with pytest.raises(ConsulUnavailable, match=why) as caught:
        convert(answer(pair, **change), index=1, now_s=time.time())
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_expired_leaf_is_refused() -> None:
    pair = Authority().leaf(TRUST_DOMAIN, "db")
    with pytest.raises(ConsulUnavailable, match="expired"):
        convert(answer(pair), index=1, now_s=time.time() + 4 * 86400)


def test_identity_that_is_no_service_is_refused() -> None:
    uri = f"spiffe://{TRUST_DOMAIN}/gateway/mesh/dc/dc1"
    with pytest.raises(ConsulUnavailable, match="cannot be served"):
        convert(answer(Authority().identity(uri), uri=uri), index=1, now_s=time.time())


def test_change_of_the_signing_key_makes_a_leaf_stale() -> None:
    leaf = known(Authority().leaf(TRUST_DOMAIN, "db"))
    assert leaf.signed_by_active(roots(leaf.authority_key_id.upper()))
    assert not leaf.signed_by_active(roots("aa:bb"))
    assert leaf.signed_by_active(None)
    assert leaf.signed_by_active(roots(""))


def test_renewal_is_due_between_60_and_75_percent_of_the_life() -> None:
    leaf = known(Authority().leaf(TRUST_DOMAIN, "db", valid=datetime.timedelta(hours=72)))
    life_s = leaf.leaf.not_after_s - leaf.leaf.not_before_s
    shares = [(leaf.renewal_due_s(fraction) - leaf.leaf.not_before_s) / life_s for fraction in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.60, 0.675, 0.75])
    assert leaf.recheck_s() == pytest.approx(life_s * 0.03)
