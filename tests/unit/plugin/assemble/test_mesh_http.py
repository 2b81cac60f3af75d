"""``HTTP`` of the mesh entry: nothing that anybody writes by mistake weakens the default."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plugin.assemble.mesh_http import mesh_http
from proxy.rules import EscapedSlashes, Normalization
from tests.unit.plugin.assemble.test_plugin_permissions import JSON

FIELDS = (
    "InsecureDisablePathNormalization",
    "MergeSlashes",
    "PathWithEscapedSlashesAction",
    "HeadersWithUnderscoresAction",
)


@given(JSON | st.fixed_dictionaries({"Incoming": JSON | st.fixed_dictionaries({"RequestNormalization": JSON})}))
def test_any_json_is_read_and_the_default_stays(http: object) -> None:
    assert mesh_http(http).normalization == Normalization()


@given(st.fixed_dictionaries({}, optional={name: JSON for name in FIELDS}))
def test_only_the_words_that_consul_knows_weaken_it(given_fields: dict[str, object]) -> None:
    read = mesh_http({"Incoming": {"RequestNormalization": given_fields}})
    insecure = given_fields.get("InsecureDisablePathNormalization") is True
    assert read.normalization.dot_segments is not insecure
    assert read.normalization.merge_slashes or insecure
    unset = given_fields.get("PathWithEscapedSlashesAction") in (None, "")
    assert read.normalization.escaped_slashes is (EscapedSlashes.KEEP if unset else EscapedSlashes.REJECT)
