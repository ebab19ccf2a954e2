"""The JSON schemas of the documents that commands print, made from their types."""

from __future__ import annotations

from typing import Any

import msgspec

from meshscope.model.findings import Report
from meshscope.report.documents import SCHEMA, Faults, Rules, Trace
from meshscope.report.proxy_status import ProxyDrift, ProxyStatuses

DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "report": Report,
    "trace": Trace,
    "rules": Rules,
    "faults": Faults,
    "proxy-status": ProxyStatuses,
    "proxy-drift": ProxyDrift,
}
_TITLES = {
    "report": "What `meshscope diagnose -o json` answers",
    "trace": "What `meshscope trace -o json` answers",
    "rules": "What `meshscope rules -o json` answers",
    "faults": "What `meshscope demo --list -o json` answers",
    "proxy-status": "What `meshscope proxy-status -o json` answers",
    "proxy-drift": "What `meshscope proxy-status POD -o json` answers",
}


def schema(name: str) -> dict[str, Any]:
    """The JSON schema (2020-12) of one of DOCUMENTS. Documents may gain fields within a version."""
    # Defaults come as tuples: through JSON they become the arrays that they are there.
    made = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(DOCUMENTS[name])))
    definitions = made["$defs"]
    definitions[DOCUMENTS[name].__name__]["properties"]["schema"] = {"const": SCHEMA}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:meshscope:{name}:{SCHEMA}",
        "title": _TITLES[name],
        **made,
    }
