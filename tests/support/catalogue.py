"""What the code says to operators, read from its syntax tree: names of log events with their fields, and sentences.

A sentence is shown as operators see it, with ``...`` in place of what differs from time to time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EVENT = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")
_MAKE_EVENTS = frozenset({"Reminder", "LineBudget", "SinkKind", "LogKind", "_report"})
"""Calls that are given the name of an event that is logged later."""
_SAYING = {
    "plugin/check.py": frozenset({"Finding"}),
    "plugin/health.py": frozenset({"append"}),
    "plugin/registration.py": frozenset({"_failed"}),
}
"""By file, the calls whose arguments are shown to operators."""


def _trees(folders: Iterable[str] = ("plugin", "proxy")) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def events() -> dict[str, set[str]]:
    """Fields by name of event. Those that are given as a mapping are not seen here."""
    found: dict[str, set[str]] = {}
    for path, tree in _trees():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if _called(call) == "emit" and len(call.args) >= 4:
                names = _names(call.args[2], tree)
                assert names or not isinstance(call.args[2], ast.Constant), (path, ast.unparse(call))
                for name in names:
                    found.setdefault(name, set()).update(one.arg for one in call.keywords if one.arg)
            elif _called(call) in _MAKE_EVENTS:
                for argument in call.args:
                    for name in _names(argument, tree):
                        found.setdefault(name, set())
        if path == "proxy/logs.py":
            found.setdefault("log.lines_dropped", set()).add("count")
        if path == "proxy/overload.py":
            found.update({name: set() for name in _defaults(tree) if name not in found})
    return found


def _names(expression: ast.expr, tree: ast.Module) -> set[str]:
    """Event names that ``expression`` may be; a variable is looked for among the assignments of its module."""
    if isinstance(expression, ast.Name):
        values = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and expression.id in (getattr(one, "id", "") for one in node.targets)
        ]
        return {name for value in values for name in _names(value, ast.Module([], []))}
    constants = (node.value for node in ast.walk(expression) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and EVENT.fullmatch(value)}


def _defaults(tree: ast.Module) -> set[str]:
    """Names of events that are defaults of parameters."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {name for one in functions for value in one.args.defaults for name in _names(value, tree)}


def sentences() -> dict[str, str]:
    """What ``check``, the agent's check and the registration say when something is wrong: the file by sentence."""
    found: dict[str, str] = {}
    for path, calls in _SAYING.items():
        tree = ast.parse((ROOT / path).read_text())
        texts: dict[str, list[str]] = {}
        said: list[ast.expr] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                texts.setdefault(node.targets[0].id, []).extend(_shown(node.value))
            elif isinstance(node, ast.Return) and path == "plugin/health.py" and node.value is not None:
                said.append(node.value)
            elif isinstance(node, ast.Call) and _called(node) in calls and getattr(node.args[0], "value", "") != "ok":
                said += node.args
        names = {name.id for one in said for name in ast.walk(one) if isinstance(name, ast.Name)}
        shown = [text for one in said for text in _shown(one)]
        shown += [text for name in sorted(names) for text in texts.get(name, ())]
        found.update(dict.fromkeys((text for text in shown if _is_sentence(text)), path))
    return found


def _is_sentence(text: str) -> bool:
    """Not a rule in Consul's language, and not only what differs."""
    return "{" not in text and len(text.replace("...", "").split()) >= 3


def _shown(expression: ast.expr) -> list[str]:
    if isinstance(expression, ast.IfExp):
        return [*_shown(expression.body), *_shown(expression.orelse)]
    if isinstance(expression, ast.Tuple):
        return [text for value in expression.elts for text in _shown(value)]
    if isinstance(expression, ast.BoolOp):
        return [text for value in expression.values for text in _shown(value)]
    if isinstance(expression, ast.Constant):
        return [expression.value] if isinstance(expression.value, str) else []
    if isinstance(expression, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "..." for part in expression.values)
        return ["".join(str(part) for part in parts)]
    return []
