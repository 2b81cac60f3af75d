"""From the files of a link to a TLS session, and sentences about what is wrong."""

from __future__ import annotations

import datetime

import pytest

from plugin.assemble.upstream_tls import Material, upstream_material
from plugin.consul.api import LinkedService
from plugin.dev.pki import Authority
from plugin.errors import FileUnreadable
from plugin.facts import Fact
from tests.support.goldens import fact, material

LINK = LinkedService(name="db", ca_file="/ca", cert_file="/cert", key_file="/key", sni="db.example")
FILES = {
    "/ca": fact(material()["ca.pem"].encode()),
    "/cert": fact(material()["client.pem"].encode()),
    "/key": fact(material()["client.key"].encode()),
}


def using(path: str, content: Fact[bytes] | str) -> Material:
    return upstream_material(LINK, {**FILES, path: fact(content.encode()) if isinstance(content, str) else content})


def test_all_of_it() -> None:
    result = upstream_material(LINK, FILES)
    assert result.tls is not None
    assert (result.tls.ca_pem, result.tls.server_name) == (material()["ca.pem"], "db.example")
    assert result.tls.private_key_pem == material()["client.key"]
    assert (result.problems, result.warnings) == ((), ())


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("/ca", "", "CAFile /ca holds no certificate (it is empty)"),
        ("/ca", material()["client.key"], "CAFile /ca holds no certificate (only "),
        ("/cert", "-----BEGIN CERTIFICATE-----\n", "CertFile /cert has a block that starts at line 1"),
        ("/cert", material()["other-ca.pem"], "KeyFile /key is not the key of the first certificate in CertFile /cert"),
        ("/key", material()["other.key"], "KeyFile /key is not the key of the first certificate in CertFile /cert"),
        ("/key", material()["ca.pem"], "KeyFile /key holds no private key (only CERTIFICATE)"),
        ("/key", Fact[bytes](), "KeyFile /key has not been read yet"),
        ("/ca", Fact[bytes]().failed(FileUnreadable("/ca does not exist")), "CAFile: /ca does not exist"),
    ],
)
def test_what_is_wrong_names_the_file(path: str, content: Fact[bytes] | str, problem: str) -> None:
    result = using(path, content)
    assert result.tls is None
    assert len(result.problems) == 1
    assert result.problems[0].startswith(problem)


def test_no_problem_shows_a_key() -> None:
    for name, pem in material().items():
        for path in FILES:
            result = using(path, pem)
            assert "BEGIN" not in " ".join((*result.problems, *result.warnings)), (name, path)


def test_a_whole_bundle_is_trusted() -> None:
    result = using("/ca", material()["other-ca.pem"] + material()["ca.pem"])
    assert result.tls is not None
    assert result.tls.ca_pem == material()["other-ca.pem"] + material()["ca.pem"]


def test_the_expiry_that_counts_is_the_clients_else_that_of_the_last_authority() -> None:
    authority = Authority("Ends later")
    short = authority.client("gateway", valid=datetime.timedelta(days=3))
    files = {
        "/ca": fact(authority.certificate_pem.encode()),
        "/cert": fact(short.certificate_pem.encode()),
        "/key": fact(short.private_key_pem.encode()),
    }
    now_s = datetime.datetime.now(datetime.UTC).timestamp()
    (warning,) = upstream_material(LINK, files, now_s=now_s).warnings
    assert "CertFile /cert expires in" in warning
    without = LinkedService(name="db", ca_file="/ca", sni="db.example")
    assert upstream_material(without, files, now_s=now_s).warnings == ()
    (expired,) = upstream_material(without, files, now_s=now_s + 400 * 86_400).warnings
    assert "CAFile /ca has expired" in expired


def test_earlier_material_outlives_broken_files() -> None:
    good = upstream_material(LINK, FILES).good
    assert good is not None
    result = upstream_material(LINK, {**FILES, "/key": fact(b"junk")}, good=good)
    assert result.tls == good.tls
    assert result.problems == ()
    assert "the certificates read before stay in use" in result.warnings[0]
    assert result.good == good


def test_what_cannot_be_read_of_a_bundle_is_left_out_and_told_for_as_long_as_it_is_used() -> None:
    junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    result = using("/ca", junk + material()["ca.pem"] + junk)
    assert result.tls is not None
    assert result.tls.ca_pem == material()["ca.pem"]
    assert result.problems == ()
    (warning,) = result.warnings
    assert warning.startswith("CAFile /ca has an unreadable certificate at line 1")
    assert "(and 1 more)" in warning
    later = upstream_material(LINK, {**FILES, "/key": fact(b"junk")}, good=result.good)
    assert warning in later.warnings


def test_another_server_name_applies_although_the_files_are_broken() -> None:
    good = upstream_material(LINK, FILES).good
    renamed = LinkedService(name="db", ca_file="/ca", cert_file="/cert", key_file="/key", sni="other.example")
    result = upstream_material(renamed, {**FILES, "/ca": fact(b"")}, good=good)
    assert result.tls is not None
    assert result.tls.server_name == "other.example"
