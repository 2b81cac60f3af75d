"""The bill of materials of what a gateway is installed from: CycloneDX, the same bytes for the same lock.

cyclonedx-py reads the lock and knows the format. What it adds that is not in the lock is taken out: addresses of a
package index, and the whole requirement line as a description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_NOT_OURS = ("description", "externalReferences")


def cleaned(document: Mapping[str, Any], licences: Mapping[str, str], version: str) -> dict[str, Any]:
    """``document``, as cyclonedx-py wrote it, for ``version`` of the gateway, with ``licences`` (SPDX) by package."""
    components = sorted((_component(each, licences) for each in document["components"]), key=lambda each: each["purl"])
    gateway = {"bom-ref": "consul-tgw", "name": "consul-tgw", "type": "application", "version": version}
    references = [each["bom-ref"] for each in components]
    metadata = document["metadata"]
    tools = [{key: tool[key] for key in ("type", "name", "version")} for tool in metadata["tools"]["components"]]
    return {
        "$schema": document["$schema"],
        "bomFormat": document["bomFormat"],
        "specVersion": document["specVersion"],
        "version": 1,
        "metadata": {"component": gateway, "tools": {"components": tools}},
        "components": components,
        # The lock is flat: it says what belongs to the gateway, not which package asked for which.
        "dependencies": [
            {"ref": "consul-tgw", "dependsOn": references},
            *({"ref": reference} for reference in references),
        ],
    }


def written(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _component(component: Mapping[str, Any], licences: Mapping[str, str]) -> dict[str, Any]:
    kept = {key: value for key, value in component.items() if key not in _NOT_OURS}
    kept["bom-ref"] = kept["purl"]
    expression = licences.get(component["name"])
    if expression is not None:
        kept["licenses"] = [{"expression": expression}]
    return kept
