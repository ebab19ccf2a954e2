"""The conditions under which a verdict must hold, as changes to a captured bundle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from meshscope.envoy.access_log import AccessLogEntry, read_log

STATS_FILES = ("stats.txt", "metrics.prom", "before.prom")

_HIDDEN_TEXT = re.compile(
    r"^(?:cluster\.(?:outbound|inbound|Passthrough|InboundPassthrough|BlackHole)|listener\.|http\.(?!.*\.rbac\.))"
)
_HIDDEN_PROMETHEUS = re.compile(
    r'^(?:# TYPE )?envoy_(?:cluster_(?!manager)(?!.*cluster_name="(?:xds|sds)-grpc)|listener_(?!manager)|http_(?!rbac))'
)


def proxies(bundle: Path) -> Iterable[Path]:
    return sorted(path for path in (bundle / "proxies").glob("*/*") if path.is_dir())


def unchanged(bundle: Path, edges: list[dict[str, str]]) -> None:
    """Everything there, the log in Istio's text format."""


def default_stats(bundle: Path, edges: list[dict[str, str]]) -> None:
    """Only what Istio's default stats inclusion leaves: no cluster.*, listener.* or http.* but RBAC's."""
    for proxy in proxies(bundle):
        for name in STATS_FILES:
            path = proxy / name
            if path.exists():
                hidden = _HIDDEN_TEXT if name == "stats.txt" else _HIDDEN_PROMETHEUS
                lines = path.read_text(errors="surrogateescape").splitlines(keepends=True)
                path.write_text(
                    "".join(line for line in lines if not hidden.match(line)), errors="surrogateescape"
                )


def json_log(bundle: Path, edges: list[dict[str, str]]) -> None:
    """The access log in Istio's JSON encoding: null where text has `-`."""
    for proxy in proxies(bundle):
        path = proxy / "proxy.log"
        if path.exists():
            log = read_log(path.read_bytes())
            by_number = {entry.number: entry for entry in log.entries}
            lines = path.read_text(errors="surrogateescape").splitlines()
            written = [_as_json(by_number[n]) if n in by_number else line for n, line in enumerate(lines, 1)]
            path.write_text("\n".join(written) + "\n", errors="surrogateescape")


def _as_json(entry: AccessLogEntry) -> str:
    fields = msgspec.structs.asdict(entry)
    for internal in ("line", "number"):
        del fields[internal]
    fields["duration"] = fields.pop("duration_ms")
    fields["response_flags"] = ",".join(sorted(entry.response_flags)) or "-"
    fields["start_time"] = (
        entry.start_time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" if entry.start_time else None
    )
    return json.dumps({name: None if value == "" else value for name, value in sorted(fields.items())})


def no_log(bundle: Path, edges: list[dict[str, str]]) -> None:
    """No proxy's log could be read."""
    for proxy in proxies(bundle):
        (proxy / "proxy.log").unlink(missing_ok=True)


def single_sample(bundle: Path, edges: list[dict[str, str]]) -> None:
    """Statistics were read once only, Istio's default ones, as `istioctl bug-report` would have them."""
    default_stats(bundle, edges)
    for proxy in proxies(bundle):
        for name in ("before.prom", "before.clusters.json"):
            (proxy / name).unlink(missing_ok=True)


def no_client_proxy(bundle: Path, edges: list[dict[str, str]]) -> None:
    """Nothing of the calling side's proxy could be read."""
    _remove(bundle, {edge["source"] for edge in edges})


def no_server_proxy(bundle: Path, edges: list[dict[str, str]]) -> None:
    """Nothing of the called side's proxies could be read."""
    _remove(bundle, {edge["destination"] for edge in edges})


def _remove(bundle: Path, names: set[str]) -> None:
    for proxy in proxies(bundle):
        for name in names:
            workload, _, namespace = name.partition(".")
            if proxy.parent.name == namespace and proxy.name.startswith(f"{workload}-"):
                shutil.rmtree(proxy)
                break


def no_kubernetes(bundle: Path, edges: list[dict[str, str]]) -> None:
    """Proxies only."""
    shutil.rmtree(bundle / "kubernetes", ignore_errors=True)


def a_day_later(bundle: Path, edges: list[dict[str, str]]) -> None:
    """Captured a day after the traffic stopped, once: logs and totals tell of yesterday."""
    for proxy in proxies(bundle):
        for name in ("before.prom", "before.clusters.json"):
            (proxy / name).unlink(missing_ok=True)
    described = json.loads((bundle / "bundle.json").read_text())
    described["captured_at"] = (
        datetime.fromisoformat(described["captured_at"]) + timedelta(hours=20)
    ).isoformat()
    described.pop("samples", None)
    (bundle / "bundle.json").write_text(json.dumps(described))


DIMENSIONS: dict[str, Callable[[Path, list[dict[str, str]]], None]] = {
    "full": unchanged,
    "default-stats": default_stats,
    "json-log": json_log,
    "no-log": no_log,
    "single-sample": single_sample,
    "no-client-proxy": no_client_proxy,
    "no-server-proxy": no_server_proxy,
    "no-kubernetes": no_kubernetes,
}
