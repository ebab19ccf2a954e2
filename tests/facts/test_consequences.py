"""Which failures follow from which: down a chain of calls, not from one call to the one beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from meshscope.envoy.access_log import AccessLogEntry
from meshscope.facts.consequences import consequences
from meshscope.facts.edges import EdgeKey, ObservedEdge
from meshscope.facts.symptoms import Side, from_log
from meshscope.model.names import ProxyId, WorkloadId

START = datetime(2026, 1, 1, tzinfo=UTC)
MADE = {"UC": "upstream_reset_before_response_started{connection_termination}", "UT": "response_timeout"}


class Chain:
    """Edges between workloads named by letters, with one proxy each."""

    def __init__(self) -> None:
        self._edges: dict[str, ObservedEdge] = {}
        self._lines: dict[tuple[str, Side], list[AccessLogEntry]] = {}

    def line(
        self,
        edge: str,
        side: Side,
        ms: int,
        flag: str = "",
        *,
        request: str = "1",
        code: int = 503,
        took: int = 20,
    ) -> None:
        """A failing line `A>B` at a time; without a flag it is passed on."""
        details = MADE.get(flag, "downstream_remote_disconnect" if flag == "DC" else "via_upstream")
        entry = AccessLogEntry(
            start_time=START + timedelta(milliseconds=ms),
            method="GET",
            path=f"/{edge}",
            response_code=0 if flag == "DC" else code,
            response_flags=frozenset({flag} if flag else ()),
            response_code_details=details,
            duration_ms=took,
            request_id=request,
        )
        self._lines.setdefault((edge, side), []).append(entry)

    def follows(self) -> dict[str, set[str]]:
        """`A>B client` → what it follows from."""
        names = sorted({edge for edge, _ in self._lines})
        found = consequences(self._edge(name) for name in names)
        return {
            _short(key): {_short(source) for source in sources} for key, sources in found.items() if sources
        }

    def _edge(self, name: str) -> ObservedEdge:
        caller, _, callee = name.partition(">")
        key = EdgeKey(_workload(caller), f"{callee}.ns.svc.cluster.local", 80)
        symptoms: list[Any] = []
        for side in ("client", "server"):
            proxy = ProxyId("ns", caller if side == "client" else callee)
            symptoms += from_log(proxy, side, f"{name} {side}", self._lines.get((name, side), []))
        objects = SimpleNamespace(service_of_host=lambda host: None)
        mesh = SimpleNamespace(workload_of=lambda server: server, objects=objects)
        edge = SimpleNamespace(
            key=key,
            edge=key.edge,
            mesh=mesh,
            symptoms=symptoms,
            servers=(_workload(callee),),
            clients=(),
            client_lines={"proxy": self._lines.get((name, "client"), [])},
        )
        return cast("ObservedEdge", edge)


def _workload(name: str) -> WorkloadId:
    return WorkloadId("Deployment", "ns", name)


def _short(symptom: str) -> str:
    return symptom.split("|")[2]


def test_all_follows_from_the_deepest_that_a_proxy_made() -> None:
    chain = Chain()
    chain.line("a>b", "client", 0)
    chain.line("a>b", "server", 1)
    chain.line("b>c", "client", 2)
    chain.line("b>c", "server", 3, "UC")
    assert chain.follows() == {name: {"b>c server"} for name in ("a>b client", "a>b server", "b>c client")}


def test_an_answer_that_only_was_passed_on_is_the_deepest_applications() -> None:
    chain = Chain()
    for ms, (edge, side) in enumerate(
        [("a>b", "client"), ("a>b", "server"), ("b>c", "client"), ("b>c", "server")]
    ):
        chain.line(edge, cast("Side", side), ms, code=500)
    assert all(sources == {"b>c server"} for sources in chain.follows().values())


def test_calls_beside_each_other_explain_nothing_of_one_another() -> None:
    chain = Chain()
    chain.line("b>c", "client", 2)
    chain.line("b>c", "server", 3, "UC")
    chain.line("b>d", "client", 5)
    chain.line("b>d", "server", 6, "UC")
    assert chain.follows() == {"b>c client": {"b>c server"}, "b>d client": {"b>d server"}}


def test_who_is_left_follows_from_who_left() -> None:
    chain = Chain()
    chain.line("a>b", "client", 0, "UT", code=504)
    chain.line("a>b", "server", 1, "DC")
    chain.line("b>c", "client", 2, "DC")
    chain.line("b>c", "server", 3, "DC")
    follows = chain.follows()
    assert "a>b client" not in follows
    assert follows["b>c server"] == {"a>b client"}


def test_without_ids_passed_on_the_same_moments_join() -> None:
    chain = Chain()
    for number in range(5):
        chain.line("a>b", "server", number * 1000, request=f"in-{number}")
        chain.line("b>c", "client", number * 1000 + 5, "UC", request=f"out-{number}")
    assert chain.follows() == {"a>b server": {"b>c client"}}


def test_other_moments_do_not_join() -> None:
    chain = Chain()
    for number in range(5):
        chain.line("a>b", "server", number * 1000, request=f"in-{number}")
        chain.line("b>c", "client", number * 1000 + 500, "UC", request=f"out-{number}")
    assert chain.follows() == {}


def test_a_single_call_stands_for_itself() -> None:
    chain = Chain()
    chain.line("a>b", "server", 0, "UC")
    assert chain.follows() == {}
