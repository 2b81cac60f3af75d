"""The arrows between the packages, checked on the syntax trees: what a reader may rely on without looking."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

PURE = {
    "proxy.model",
    "proxy.rules",
    "proxy.messages",
    "proxy.frames",
    "proxy.policy.identity",
    "proxy.policy.decision",
    "proxy.policy.intention_index",
    "proxy.policy.intentions",
    "proxy.errors",
    "proxy.logs",
    "proxy.http.policy.asked",
    "proxy.http.errors",
    "proxy.http.message",
    "proxy.http.policy.normalization",
    "proxy.http.policy.permissions",
    "proxy.http.policy.readings",
    "proxy.http.policy.request_rules",
    "proxy.http.policy.told",
    "proxy.http.policy.token_keys",
    "proxy.http.policy.token_places",
    "proxy.http.policy.tokens",
}
"""What the control plane may share with the data plane: it decides and describes, and touches nothing."""
FINDER = "proxy.compiled"
"""Says in which form a worker runs: to the worker, and to whoever starts one or tells people."""
IMPURE = {
    "aiohttp", "asyncio", "cryptography", "http", "multiprocessing", "os", "OpenSSL", "pathlib", "random", "select",
    "selectors", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uvloop",
}  # fmt: skip

# Written so that this file does not name what it looks for.
REGISTRY_HOSTS = re.compile(
    r"(files\.python" r"hosted\.org|pypi" r"\.org|registry\.npm" r"js\.org|proxy\.golang" r"\.org"
    r"|sum\.golang" r"\.org|deb\.deb" r"ian\.org|repo1?\.maven" r"\.|crates" r"\.io)"
)  # fmt: skip

SEAL = "proxy.policy.decision.SEAL"

OPENSSL = {
    "proxy.tls.client_trust",
    "proxy.tls.material",
    "proxy.tls.openssl",
    "proxy.tls.session",
    "proxy.tls.context",
}
"""Bytes in, bytes out: whoever else needs TLS gets it from these."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, anywhere in it, for types or not; ``from a import b`` is ``a.b``, since
    ``b`` may be a module of ``a``."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import: write it in full"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def of(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(package + ".")


def shared(imported: str) -> bool:
    # The package itself holds a docstring only, see below.
    return imported in ("proxy", FINDER) or any(of(imported, pure) for pure in PURE)


@pytest.mark.parametrize("path", modules("plugin"), ids=module_name)
def test_control_plane_uses_only_the_pure_modules_of_the_data_plane(path: Path) -> None:
    assert [name for name in imports(path) if of(name, "proxy") and not shared(name)] == []


@pytest.mark.parametrize("path", modules("proxy"), ids=module_name)
def test_data_plane_knows_neither_the_control_plane_nor_http_clients(path: Path) -> None:
    forbidden = ("plugin", "aiohttp", "consul", "tests", "bench")
    assert [name for name in imports(path) if any(of(name, package) for package in forbidden)] == []


@pytest.mark.parametrize("path", modules("proxy"), ids=module_name)
def test_only_the_tls_modules_know_openssl(path: Path) -> None:
    if module_name(path) not in OPENSSL:
        assert [imported for imported in imports(path) if of(imported, "OpenSSL") or of(imported, "ssl")] == []


@pytest.mark.parametrize("path", [path for path in modules("proxy") if module_name(path) in PURE], ids=module_name)
def test_pure_modules_touch_nothing(path: Path) -> None:
    for imported in imports(path):
        assert imported.partition(".")[0] not in IMPURE, imported
        assert not of(imported, "proxy") or shared(imported), imported


def test_only_the_policy_makes_permits() -> None:
    importing = {module_name(path) for path in [*modules("proxy"), *modules("plugin")] if SEAL in imports(path)}
    assert importing == {"proxy.policy.intentions", "proxy.http.policy.request_rules"}


def test_importing_a_package_imports_nothing_else() -> None:
    assert list(imports(ROOT / "proxy" / "__init__.py")) == []
    assert list(imports(ROOT / "plugin" / "__init__.py")) == []


@pytest.mark.parametrize("path", [*modules("plugin"), *modules("proxy")], ids=module_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no module docstring"


def tracked_texts() -> Iterator[tuple[Path, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        try:
            yield path, path.read_text()
        except (UnicodeDecodeError, FileNotFoundError):
            # A picture, or a file whose removal is not committed yet.
            continue


def test_tracked_files_name_no_registry_host_and_no_path_of_this_machine() -> None:
    found = []
    for path, text in tracked_texts():
        for number, line in enumerate(text.splitlines(), 1):
            if REGISTRY_HOSTS.search(line) or f"{ROOT}/" in line:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert found == []
