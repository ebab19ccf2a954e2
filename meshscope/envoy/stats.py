"""Reads Envoy's statistics, /stats as text and as Prometheus exposition, into one and the same set of keys.

A key is (scope, name, stat). The scope is a branch of Envoy's own tree (`cluster`, `http`, `listener`, `tcp`,
`sds`, `server`, `cluster_manager`, …). The name is the cluster, HTTP stat prefix, listener address, TCP stat
prefix or secret, "" for the other scopes. The stat has every character that Prometheus doesn't allow replaced
by `_`: the text's `http.inbound_0.0.0.0_9080;.rbac.denied` and
`envoy_http_rbac{authz_enforce_result="denied", …}` are both ("http", "inbound_0.0.0.0_9080", "rbac_denied").
Histograms are left out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from msgspec import Struct


class Sample(Struct, frozen=True):
    """One line of a Prometheus exposition; `type` is that of its # TYPE line, "" where there is none."""

    name: str
    labels: dict[str, str]
    value: float
    type: str = ""


class Stats:
    """Counters and gauges by (scope, name, stat). In Envoy's text, without types, gauges are told by name."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], dict[str, float]] = {}
        self._gauges: dict[tuple[str, str], set[str]] = {}

    def __len__(self) -> int:
        return sum(len(stats) for stats in self._values.values())

    def __iter__(self) -> Iterator[tuple[str, str, str, float]]:
        for (scope, name), stats in self._values.items():
            for stat, value in stats.items():
                yield scope, name, stat, value

    def get(self, scope: str, name: str, stat: str) -> float | None:
        """The value, or None where this proxy doesn't show the stat (which isn't 0)."""
        return self._values.get((scope, name), {}).get(stat)

    def scope(self, scope: str, name: str = "") -> dict[str, float]:
        """All stats of one name; empty where there are none."""
        return dict(self._values.get((scope, name), {}))

    def names(self, scope: str) -> list[str]:
        """The names that have stats in a scope, sorted."""
        return sorted(name for found, name in self._values if found == scope)

    def find(self, scope: str, stat: str) -> dict[str, float]:
        """One stat of every name in a scope."""
        return {
            name: stats[stat]
            for (found, name), stats in self._values.items()
            if found == scope and stat in stats
        }

    def is_gauge(self, scope: str, name: str, stat: str) -> bool:
        return stat in self._gauges.get((scope, name), ())

    def put(self, scope: str, name: str, stat: str, value: float, *, gauge: bool) -> None:
        self._values.setdefault((scope, name), {})[stat] = value
        if gauge:
            self._gauges.setdefault((scope, name), set()).add(stat)


def moved(before: Stats, now: Stats) -> Stats:
    """By how much each counter rose from one sample to the next; gauges are left out, unmoved counters are 0.

    A counter that Envoy made only after the first sample counts from 0. A proxy that started again in between
    (its uptime or the counter itself fell) has counted everything it shows since.
    """
    restarted = _uptime(now) < _uptime(before)
    found = Stats()
    for scope, name, stat, value in now:
        if now.is_gauge(scope, name, stat) or before.is_gauge(scope, name, stat):
            continue
        earlier = 0.0 if restarted else before.get(scope, name, stat) or 0.0
        found.put(scope, name, stat, value - earlier if value >= earlier else value, gauge=False)
    return found


def moved_between(before: bytes, now: bytes) -> Stats:
    """`moved` of two Prometheus answers, decoding only the lines that differ: most of an answer never does.

    Counters that didn't move are absent.
    """
    earlier, later = before.splitlines(), now.splitlines()
    in_both = set(earlier) & set(later)
    return moved(read_prometheus(_without(earlier, in_both)), read_prometheus(_without(later, in_both)))


def _without(lines: list[bytes], same: set[bytes]) -> bytes:
    return b"\n".join(line for line in lines if line.startswith(b"# TYPE") or line not in same)


def _uptime(stats: Stats) -> float:
    return stats.get("server", "", "uptime") or 0.0


# --- the two readers --------------------------------------------------------------------------------------


def read_text(raw: bytes) -> Stats:
    """Reads /stats; lines that aren't `name: number` (histograms, text, anything else) are left out."""
    stats = Stats()
    for line in io.BytesIO(raw):
        name, colon, value = line.decode("utf-8", "replace").rstrip().rpartition(": ")
        if colon and value.isascii() and value.isdigit() and len(value) < 40:
            scope, of, stat = _text_key(name)
            stats.put(scope, of, stat, float(value), gauge=_GAUGE.search(stat) is not None)
    return stats


def read_prometheus(raw: bytes) -> Stats:
    """Reads /stats/prometheus (or the merged answer of Istio's agent: only Envoy's own series are taken)."""
    stats = Stats()
    for sample in read_exposition(raw):
        if sample.name.startswith("envoy_") and sample.type not in ("histogram", "summary"):
            scope, name, stat = _sample_key(sample)
            stats.put(scope, name, stat, sample.value, gauge=sample.type == "gauge")
    return stats


_SAMPLE = re.compile(
    r'([A-Za-z_:][A-Za-z0-9_:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+'
    r"([+-]?(?:[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+|Inf|NaN))(?:[ \t]+-?[0-9]+)?\s*\Z"
)
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_HISTOGRAM_PART = re.compile(r"_(?:bucket|sum|count)\Z")


def read_exposition(raw: bytes) -> list[Sample]:
    """Reads Prometheus' text format 0.0.4; lines that can't be read are left out."""
    samples: list[Sample] = []
    types: dict[str, str] = {}
    for line in io.BytesIO(raw):
        text = line.decode("utf-8", "replace")
        if text.startswith("#"):
            words = text.split()
            if len(words) == 4 and words[1] == "TYPE":
                types[words[2]] = words[3]
            continue
        match = _SAMPLE.match(text)
        if match is None:
            continue
        name, labels, value = match.groups()
        try:
            number = float(value)
        except ValueError:
            continue
        kind = types.get(name) or types.get(_HISTOGRAM_PART.sub("", name), "")
        samples.append(Sample(name, _labels(labels) if labels else {}, number, kind))
    return samples


def _labels(text: str) -> dict[str, str]:
    return {name: _unescape(value) if "\\" in value else value for name, value in _LABEL.findall(text)}


def _unescape(value: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], value)


# --- keys ---------------------------------------------------------------------------------------------------

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_]")

# The first words of the stats below each scope. They say where a name ends when nothing else does: without
# Istio's `;` (older versions, and Envoy's own listeners and connection managers) a name runs into its stat.
_FIRST_WORDS = {
    "cluster": (
        "upstream_|lb_|membership_|circuit_breakers|ssl|http[123]|outlier_detection|update_|assignment_|version|"
        "internal|external|canary|default|bind_errors|original_dst_|max_host_weight|retry_or_shadow_|warming_state|"
        "health_check|zone|tlsMode|client_ssl_socket_factory|init_fetch_timeout|ext_authz|ratelimit|vcluster|"
        "config_reload|load_stats|tcp_proxy|grpc"
    ),
    "http": (
        "downstream_|rq_|rs_too_large|no_route|no_cluster|passthrough_internal_redirect_|rbac|fault|cors|tracing|"
        "jwt_authn|ext_authz|ext_proc|ratelimit|rate_limit|local_rate_limit|compressor|decompressor|gzip|buffer|"
        "user_agent|health_check|http[123]|csrf|dynamic_forward_proxy|tap|grpc|wasm|lua|oauth"
    ),
    "listener": (
        "downstream_|no_filter_chain_match|ssl|http|worker_|main_thread|connections_accepted_|extension_config_|"
        "network_extension_config_|server_ssl_socket_factory|update_|tls_inspector|rbac|tcp|connection_limit"
    ),
    "sds": "update_|init_fetch_timeout|key_rotation_failed|version|control_plane|config_reload",
}
_TEXT_SPLIT = {
    scope: re.compile(rf"(?P<name>.+?);?\.(?P<stat>(?:{words}).*)\Z") for scope, words in _FIRST_WORDS.items()
}
_FLAT_SPLIT = {
    scope: re.compile(rf"(?P<name>.+?)_(?P<stat>(?:{words}).*)\Z") for scope, words in _FIRST_WORDS.items()
}

# Scopes that have no names, the longer ones first.
_PLAIN = re.compile(
    r"(thread_local_cluster_manager|cluster_manager|listener_manager|control_plane|http_inspector|tls_inspector|"
    r"main_thread|filesystem|overload|runtime|workers|server|http1|http2|dns)_(.+)\Z"
)

# Gauges among the text's untyped stats; the names are those of Envoy's documentation (counters are the rest).
_GAUGE = re.compile(
    r"_active\Z|_open\Z|(?:bytes|total)_buffered\Z|(?:\A|_)version\Z|membership_(?:healthy|degraded|excluded|total)\Z|"
    r"update_time\Z|(?:\A|_)state\Z|remaining_|max_host_weight\Z|_unix_time_seconds\Z|_pressure\Z|uptime\Z|"
    r"pending_requests\Z|concurrency\Z|days_until_|seconds_until_|epoch\Z|\Alive\Z|\Amemory_|parent_connections\Z|"
    r"\Atotal_connections\Z|\Atotal_(?:listeners|filter_chains)_|active_clusters\Z|warming_clusters\Z|"
    r"workers_started\Z|num_(?:keys|layers)\Z|admin_overrides_active\Z|fips_mode\Z|pending_send_bytes\Z|"
    r"_frames_active\Z|config_reload_time_ms\Z|lb_subsets_active\Z|ejections_active\Z|_since_process_start\Z|"
    r"clusters_inflated\Z|soft_drain\Z|active_faults\Z|queue_overloaded\Z|deferred_stream_close\Z|"
    r"workers_pinned\Z|recent_lookups\Z"
)


# Envoy's own names that Prometheus' alphabet changes and no label keeps.
_FLATTENED_NAMES = {"async_client": "async-client"}


def _flat(text: str) -> str:
    return _NOT_ALLOWED.sub("_", text)


def _text_key(name: str) -> tuple[str, str, str]:
    scope, _, rest = name.partition(".")
    if scope == "tcp":
        return _tcp_key(rest)
    if scope in _TEXT_SPLIT:
        found = _text_split(scope, rest)
        if found is not None:
            return scope, *found
    return _unnamed_key(_flat(name))


def _text_split(scope: str, rest: str) -> tuple[str, str] | None:
    head, end, stat = rest.partition(";.")
    # A listener's address comes without `;`; the first one is that of a connection manager within it.
    if end and scope != "listener":
        return head, _flat(stat)
    match = _LISTENER_ADDRESS.match(rest) if scope == "listener" else None
    match = match or _TEXT_SPLIT[scope].match(rest)
    if match is None:
        return None
    of = match["name"]
    return (_flat(of) if scope == "sds" else of), _flat(match["stat"])


_LISTENER_ADDRESS = re.compile(r"(?P<name>[\[\]0-9A-Fa-f_.:]+_[0-9]+);?\.(?P<stat>.+)\Z")


def _tcp_key(rest: str) -> tuple[str, str, str]:
    if rest.startswith("rbac."):
        return "tcp", "", _flat(rest)
    name, end, stat = rest.partition(";.")
    if not end:
        name, _, stat = rest.rpartition(".")
    return "tcp", name, _flat(stat)


_NAME_LABELS = (
    ("cluster", "cluster_name"),
    ("listener", "listener_address"),
    ("http", "http_conn_manager_prefix"),
    ("tcp", "tcp_prefix"),
)


def _sample_key(sample: Sample) -> tuple[str, str, str]:
    # Envoy's own tag names have an `envoy_` in front, Istio's haven't.
    labels = {name.removeprefix("envoy_"): value for name, value in sample.labels.items()}
    flat = sample.name.removeprefix("envoy_")
    if flat.endswith("_xx"):
        # Envoy's own tags leave `_xx` in the name and have the class as one digit.
        flat = f"{flat[:-3]}_{labels.pop('response_code_class', '')}xx"
    flat += _folded(labels)
    worker = f"worker_{labels['worker_id']}_" if "worker_id" in labels else ""
    for scope, label in _NAME_LABELS:
        if label in labels and flat.startswith(f"{scope}_"):
            return _named_key(scope, labels[label].rstrip(";."), worker + flat[len(scope) + 1 :])
    if "thread_name" in labels and flat.startswith("server_"):
        return "server", "", f"{_flat(labels['thread_name'])}_{flat.removeprefix('server_')}"
    return _unnamed_key(flat)


def _named_key(scope: str, name: str, stat: str) -> tuple[str, str, str]:
    # TCP's RBAC filter has no connection manager; Istio's tag takes its own first words for the prefix.
    if scope == "tcp" and name.partition(".")[0] == "rbac":
        return "tcp", "", f"rbac_{stat}"
    return scope, name, stat


def _folded(labels: dict[str, str]) -> str:
    """What Istio's and Envoy's tag extraction took out of the end of a name."""
    found = ""
    for label in ("response_code", "response_code_class"):
        if label in labels:
            found += f"_{labels[label]}"
    if "authz_dry_run_action" in labels:
        found += f"_istio_dry_run_{labels['authz_dry_run_action']}_"
    if "authz_dry_run_result" in labels:
        found += f"_shadow_{labels['authz_dry_run_result']}"
    if "authz_enforce_result" in labels:
        found += f"_{labels['authz_enforce_result']}"
    return _flat(found)


def _unnamed_key(flat: str) -> tuple[str, str, str]:
    plain = _PLAIN.match(flat)
    if plain:
        return plain[1], "", plain[2]
    scope, _, rest = flat.partition("_")
    if scope in _FLAT_SPLIT:
        match = _FLAT_SPLIT[scope].match(rest)
        if match:
            return scope, _FLATTENED_NAMES.get(match["name"], match["name"]), match["stat"]
    return "", "", flat
