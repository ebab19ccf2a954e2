"""Reads istiod's answer on which configuration each proxy has got: /debug/syncz, in both of its shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from meshscope.envoy.config_dump import DecodeProblem, decode_json

SyncState = Literal["SYNCED", "STALE", "ERROR", "NOT SENT", "IGNORED"]

_SHORT = {
    "Cluster": "CDS",
    "Listener": "LDS",
    "RouteConfiguration": "RDS",
    "ClusterLoadAssignment": "EDS",
    "TypedExtensionConfig": "ECDS",
    "Secret": "SDS",
    "NameTable": "NDS",
    "ProxyConfig": "PCDS",
    "Bootstrap": "BTDS",
    "Address": "WDS",
    "Authorization": "WADS",
}
TYPES = ("CDS", "LDS", "EDS", "RDS", "ECDS")


class TypeSync(Struct, frozen=True):
    """How far one type of resources came; `last_error` is the proxy's own words where it refused the last one."""

    state: SyncState
    sent_time: datetime | None = None
    last_error: str = ""


class ProxySync(Struct, frozen=True):
    """One proxy (`POD.NAMESPACE`) as its istiod sees it; types that it didn't subscribe are IGNORED."""

    proxy: str
    cluster_id: str = ""
    version: str = ""
    proxy_type: str = ""
    types: dict[str, TypeSync] = {}

    def of(self, short: str) -> TypeSync:
        """The state of CDS, LDS, RDS, EDS, ECDS, …"""
        return self.types.get(short, TypeSync("IGNORED"))

    def worst(self) -> SyncState:
        """The worst state among the types that were asked for."""
        states = {found.state for found in self.types.values()}
        order: tuple[SyncState, ...] = ("ERROR", "STALE", "NOT SENT", "SYNCED")
        return next((state for state in order if state in states), "IGNORED")


class SyncAnswer(Struct, frozen=True):
    """What one istiod knows; entries that can't be read are in `problems`."""

    proxies: tuple[ProxySync, ...] = ()
    problems: tuple[DecodeProblem, ...] = ()

    def __iter__(self) -> Iterator[ProxySync]:
        return iter(self.proxies)

    def __len__(self) -> int:
        return len(self.proxies)


def read_syncz(raw: bytes) -> SyncAnswer:
    """Reads the HTTP answer (a list of proxies) or the xDS one (`ClientConfig` messages, alone or in `resources`)."""
    try:
        answer = decode_json(raw, Any)
    except msgspec.DecodeError as error:
        return SyncAnswer(problems=(DecodeProblem("syncz", str(error)),))
    entries = _entries(answer)
    if entries is None:
        return SyncAnswer(problems=(DecodeProblem("syncz", "neither shape of istiod's syncz"),))
    proxies: list[ProxySync] = []
    problems: list[DecodeProblem] = []
    for position, entry in enumerate(entries):
        found = _proxy(entry)
        if found is None:
            problems.append(DecodeProblem(f"syncz[{position}]", "names no proxy"))
        else:
            proxies.append(found)
    return SyncAnswer(tuple(proxies), tuple(problems))


def _entries(answer: Any) -> list[Any] | None:
    if isinstance(answer, list):
        return answer
    if isinstance(answer, dict):
        if isinstance(answer.get("resources"), list):
            return list(answer["resources"])
        if "node" in answer:
            return [answer]
    return None


def _proxy(entry: Any) -> ProxySync | None:
    if not isinstance(entry, dict):
        return None
    return _from_client_config(entry) if isinstance(entry.get("node"), dict) else _from_http(entry)


# --- HTTP /debug/syncz --------------------------------------------------------------------------------------

_OLD_FIELDS = {
    "cluster": "CDS",
    "listener": "LDS",
    "route": "RDS",
    "endpoint": "EDS",
    "extensionconfig": "ECDS",
}


def _from_http(entry: Mapping[str, Any]) -> ProxySync | None:
    proxy = _text(entry, "proxy")
    if not proxy:
        return None
    types: dict[str, TypeSync] = {}
    for old, short in _OLD_FIELDS.items():
        sent, acked = _text(entry, f"{old}_sent"), _text(entry, f"{old}_acked")
        if sent or acked:
            types[short] = TypeSync(_state(sent, acked, ""))
    resources = entry.get("resources")
    for type_url, status in (resources if isinstance(resources, dict) else {}).items():
        if isinstance(status, dict):
            types[_short(str(type_url))] = _resource(status)
    return ProxySync(
        proxy, _text(entry, "cluster_id"), _text(entry, "istio_version"), _text(entry, "proxy_type"), types
    )


def _resource(status: Mapping[str, Any]) -> TypeSync:
    error = _text(status, "lastError")
    state = _state(_text(status, "sent"), _text(status, "acked"), error)
    return TypeSync(state, _time(_text(status, "sentTime")), error)


def _state(sent: str, acked: str, error: str) -> SyncState:
    if error:
        return "ERROR"
    if not sent:
        return "NOT SENT"
    return "SYNCED" if sent == acked else "STALE"


# --- xDS istio.io/debug/syncz ---------------------------------------------------------------------------------

_STATES: dict[str, SyncState] = {
    "SYNCED": "SYNCED",
    "STALE": "STALE",
    "ERROR": "ERROR",
    "NOT_SENT": "NOT SENT",
    "UNKNOWN": "IGNORED",
}


def _from_client_config(entry: Mapping[str, Any]) -> ProxySync | None:
    node = entry["node"]
    proxy = _node_proxy(_text(node, "id"))
    if not proxy:
        return None
    metadata = node.get("metadata")
    meta: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
    types: dict[str, TypeSync] = {}
    for config in _dicts(entry.get("genericXdsConfigs") or entry.get("generic_xds_configs")):
        type_url = _text(config, "typeUrl") or _text(config, "type_url")
        types[_short(type_url)] = _client_state(config)
    for config in _dicts(entry.get("xdsConfig") or entry.get("xds_config")):
        for field, short in _XDS_FIELDS.items():
            if field in config:
                types.setdefault(short, _client_state(config))
    node_type = _text(node, "id").partition("~")[0]
    return ProxySync(proxy, _text(meta, "CLUSTER_ID"), _text(meta, "ISTIO_VERSION"), node_type, types)


_XDS_FIELDS = {
    "clusterConfig": "CDS",
    "listenerConfig": "LDS",
    "routeConfig": "RDS",
    "endpointConfig": "EDS",
}


def _client_state(config: Mapping[str, Any]) -> TypeSync:
    error_state = config.get("errorState") or config.get("error_state")
    error = _text(error_state, "details") if isinstance(error_state, dict) else ""
    named = _text(config, "configStatus") or _text(config, "config_status") or _text(config, "status")
    state = "ERROR" if error else _STATES.get(named, "IGNORED")
    return TypeSync(state, _time(_text(config, "lastUpdated") or _text(config, "last_updated")), error)


def _node_proxy(node_id: str) -> str:
    """`POD.NAMESPACE` of `sidecar~IP~POD.NAMESPACE~DOMAIN`; istiod may answer with that alone."""
    parts = node_id.split("~")
    return parts[2] if len(parts) == 4 else node_id


# --- parts ----------------------------------------------------------------------------------------------------


def _short(type_url: str) -> str:
    """`type.googleapis.com/envoy.config.cluster.v3.Cluster` is CDS; others keep their message's name."""
    name = type_url.rpartition(".")[2] or type_url
    return _SHORT.get(name, name)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [found for found in value if isinstance(found, dict)] if isinstance(value, list) else []


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
