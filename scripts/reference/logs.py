"""Fields of the lines of the access log and the audit log, from the structures that they are made of."""

from __future__ import annotations

from proxy.records.access_record import AccessRecord
from proxy.records.audit_log import AuditRecord
from scripts.reference.fields import described, in_json
from scripts.reference.text import code, table

_HEAD = """\
# Fields of log lines

NOTICE
Events of the log itself, each with its fields and what to do: [reasons.md](../reasons.md#log-events).

"""
_ACCESS = """\
## Access log

The built-in line ([access-log.md](../access-log.md)). Fields without a value are left out.

"""
_AUDIT = """\
## Audit log

Decisions of the workers. Lines of the control process, and when a line is written: [audit-log.md](../audit-log.md).

"""


def page() -> str:
    return (_HEAD + _ACCESS + _fields(AccessRecord) + _AUDIT + _fields(AuditRecord)).rstrip() + "\n"


def _fields(kind: type) -> str:
    rows = ((code(name), in_json(type_), text) for name, type_, text in described(kind))
    return table(("Field", "Type", ""), rows)
