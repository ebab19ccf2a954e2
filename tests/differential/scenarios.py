"""What is compared: for each kind a configuration, questions to ask, Envoy's answer and ours."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Self
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from meshscope.envoy import listeners, paths, rbac, routes
from meshscope.envoy.config_dump import ConfigDump, HttpConnectionManager, Listener
from meshscope.envoy.request import Connection, HttpRequest
from tests.differential import generate, wire
from tests.differential.certificates import IDENTITIES, Authority

Json = dict[str, Any]
_TYPE = "type.googleapis.com/"
_PRINCIPALS = {identity.name: identity.principals for identity in IDENTITIES}


class Comparison(Struct, frozen=True):
    """One decision: the question, Envoy's answer and ours in words, and whether they agree.

    `agrees` is None where Envoy refused the question before deciding (its codec did), so nothing is compared.
    """

    question: Any
    envoys: str
    ours: str
    agrees: bool | None


class Client(Struct, frozen=True):
    """Where and as whom a client connects; `tls` None is plaintext. `address` is an index of ADDRESSES."""

    address: str = "127.0.0.1"
    source: str = "127.0.0.1"
    tls: wire.TlsClient | None = None

    def connection(self, port: int) -> Connection:
        """What Envoy sees of it."""
        tls = self.tls or wire.TlsClient()
        return Connection(
            source_address=self.source,
            destination_address=self.address,
            destination_port=port,
            server_name=tls.server_name.lower(),
            peer_principals=_PRINCIPALS.get(tls.identity, ()),
            mtls=bool(tls.identity),
            tls=self.tls is not None,
        )


def _client(rng: Random) -> Client:
    tls: wire.TlsClient | None = None
    if rng.random() < 0.75:
        identity = rng.choice(("", *_PRINCIPALS))
        tls = wire.TlsClient(identity, rng.choice(generate.SERVER_NAMES))
    return Client(rng.choice(generate.ADDRESSES), rng.choice(generate.SOURCES), tls)


@dataclass(frozen=True)
class Setting:
    """What a scenario meets: the running Envoy's own configuration, its port's certificates and files."""

    dump: ConfigDump
    authority: Authority
    directory: Path


@dataclass(frozen=True)
class Scenario(ABC):
    """A configuration under test, and the questions; `name` and `ports` are its own within one Envoy."""

    kind: ClassVar[str]
    name: str
    ports: tuple[int, ...]
    config: Json
    questions: tuple[Any, ...]

    @classmethod
    @abstractmethod
    def generated(cls, rng: Random, name: str, ports: tuple[int, ...]) -> Self: ...

    @abstractmethod
    def listener(self, authority: Authority, directory: Path) -> Json:
        """The Envoy listener that carries the configuration."""

    @abstractmethod
    def compare(self, setting: Setting) -> Iterator[Comparison]: ...

    def narrowed(self, config: Json, question: Any) -> Scenario:
        return replace(self, config=config, questions=(question,))


# --- parts of listeners -----------------------------------------------------------------------------------


def _any(kind: str, **fields: Any) -> Json:
    return {"@type": _TYPE + kind, **fields}


def _addresses(ports: tuple[int, ...]) -> Json:
    pairs = [(address, port) for port in ports for address in generate.ADDRESSES]
    sockets = [{"socket_address": {"address": address, "port_value": port}} for address, port in pairs]
    return {"address": sockets[0], "additional_addresses": [{"address": each} for each in sockets[1:]]}


def _inspector(name: str) -> Json:
    kind = f"envoy.extensions.filters.listener.{name}.v3.{name.title().replace('_', '')}"
    return {"name": name, "typed_config": _any(kind)}


def _permissive_chains(authority: Authority, network_filters: list[Json]) -> list[Json]:
    """A chain for TLS, where a client certificate is welcome but not needed, and one for plaintext."""
    source = {"filename": authority.certificate("server")}
    context = {
        "tls_certificates": [
            {"certificate_chain": source, "private_key": {"filename": authority.key("server")}}
        ],
        "validation_context": {"trusted_ca": {"filename": authority.certificate("ca")}},
    }
    kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    downstream = _any(kind, common_tls_context=context, require_client_certificate=False)
    socket = {"name": "tls", "typed_config": downstream}
    return [
        {
            "name": "tls",
            "filter_chain_match": {"transport_protocol": "tls"},
            "transport_socket": socket,
            "filters": network_filters,
        },
        {"name": "plain", "filter_chain_match": {}, "filters": network_filters},
    ]


_SHADOW = "envoy.filters.http.rbac:shadow_effective_policy_id"
_BODY = f"%ROUTE_NAME%\n%UPSTREAM_CLUSTER%\n%RESPONSE_CODE_DETAILS%\n%DYNAMIC_METADATA({_SHADOW})%\n%REQ(:PATH)%\n"
"""Every answer in this test is Envoy's own; its body says how it came about."""


def _manager(route_config: Json, options: Json, http_filters: list[Json]) -> Json:
    router = {"name": "router", "typed_config": _any("envoy.extensions.filters.http.router.v3.Router")}
    body = {"body_format": {"text_format_source": {"inline_string": _BODY}}}
    kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    manager = _any(
        kind,
        stat_prefix="http",
        route_config={**route_config, "validate_clusters": False},
        http_filters=[*http_filters, router],
        local_reply_config=body,
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        **options,
    )
    return {"name": "http", "typed_config": manager}


def _decoded_manager(setting: Setting, listener: str) -> HttpConnectionManager:
    """The connection manager as meshscope decodes it from Envoy's config dump."""
    chain = _listener(setting, listener).filter_chains[0]
    found = chain.network_filter("HttpConnectionManager")
    assert found is not None
    return found.decode(HttpConnectionManager)


def _listener(setting: Setting, name: str) -> Listener:
    found = setting.dump.listeners.get(name)
    assert found is not None, f"listener {name} isn't in the dump"
    return found


class HttpAnswer(Struct, frozen=True):
    """What an Envoy's answer says of its decision; "-" where there is nothing to say."""

    status: int
    route: str = "-"
    cluster: str = "-"
    details: str = ""
    shadow_policy: str = "-"
    path: str = "-"


def _http_answer(response: wire.Response | None) -> HttpAnswer | None:
    """None where Envoy's codec refused the request."""
    if response is None:
        return None
    body = response.body or unquote(response.grpc_message, encoding="latin-1")
    lines = body.split("\n")
    if len(lines) < 5 or lines[2].startswith("http1."):
        return None
    return HttpAnswer(0 if response.grpc_message else response.status, *lines[:5])


def _http_answers(
    setting: Setting, port: int, questions: tuple[tuple[Client, HttpRequest], ...]
) -> Iterator[tuple[Client, HttpRequest, HttpAnswer | None]]:
    """The answers, asked over one connection a client."""
    by_client: dict[Client, list[HttpRequest]] = {}
    for client, request in questions:
        by_client.setdefault(client, []).append(request)
    for client, requests in by_client.items():
        endpoint = wire.Endpoint(client.address, port, client.source)
        answers = wire.exchange(endpoint, client.tls, setting.authority, requests)
        for request, response in zip(requests, answers, strict=True):
            yield client, request, _http_answer(response)


# --- routes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RouteScenario(Scenario):
    """A route table behind a connection manager with path and host options."""

    kind = "routes"

    @classmethod
    def generated(cls, rng: Random, name: str, ports: tuple[int, ...]) -> Self:
        config = {"manager": generate.manager_options(rng), "routes": generate.route_configuration(rng)}
        clients = [Client(), _client(rng)]
        requests = [generate.request_for(rng, config["routes"]) for _ in range(40)]
        return cls(name, ports, config, tuple((rng.choice(clients), request) for request in requests))

    def listener(self, authority: Authority, directory: Path) -> Json:
        manager = _manager(self.config["routes"], self.config["manager"], [])
        return {
            "name": self.name,
            **_addresses(self.ports),
            "listener_filters": [_inspector("tls_inspector")],
            "filter_chains": _permissive_chains(authority, [manager]),
        }

    def compare(self, setting: Setting) -> Iterator[Comparison]:
        manager = _decoded_manager(setting, self.name)
        for client, request, answer in _http_answers(setting, self.ports[0], self.questions):
            question = (client, request)
            if answer is None:
                yield Comparison(question, "", "", None)
                continue
            action = paths.sanitized(manager, request.path).action
            if action != "continue":
                agrees = answer.status == {"reject": 400, "redirect": 307}[action]
                # A gRPC caller can't be redirected: Envoy refuses it then.
                agrees = agrees or (not answer.status and answer.details.startswith("path_normalization"))
                yield Comparison(question, str(answer), action, agrees)
                continue
            assert manager.route_config is not None
            connection = client.connection(self.ports[0])
            seen = routes.normalized(manager, request, connection)
            outcomes = routes.route(manager.route_config, seen, connection)
            agrees = any(fits(outcome, answer) for outcome in outcomes) and _adds_up(outcomes)
            yield Comparison(question, str(answer), "; ".join(map(outcome_words, outcomes)), agrees)


def _adds_up(outcomes: tuple[routes.RouteOutcome, ...]) -> bool:
    return abs(sum(outcome.share for outcome in outcomes) - 1) < 1e-9


def fits(outcome: routes.RouteOutcome, answer: HttpAnswer) -> bool:
    """Whether the answer is what Envoy gives when that outcome comes about."""
    if answer.route != ((outcome.route and outcome.route.name) or "-"):
        return False
    if outcome.kind in ("no_vhost", "no_route"):
        return answer.details == "route_not_found"
    if outcome.kind in ("redirect", "direct_response"):
        return answer.details == "direct_response" and answer.status in (0, outcome.status)
    if outcome.kind == "non_forwarding":
        return answer.details == "cluster_not_found"
    if outcome.kind in ("cluster", "cluster_header"):
        exists = outcome.cluster in generate.CLUSTERS
        return answer.cluster == outcome.cluster if exists else answer.details == "cluster_not_found"
    return False


def outcome_words(outcome: routes.RouteOutcome) -> str:
    route = outcome.route.name if outcome.route else "-"
    extra = outcome.cluster or outcome.status or outcome.why or ""
    return f"{outcome.share:.4f} {outcome.kind} {route} {extra}".strip()


@dataclass(frozen=True)
class ShareScenario(RouteScenario):
    """Fractions and weights alone: how often each outcome comes about, against our shares."""

    kind = "shares"

    @classmethod
    def generated(cls, rng: Random, name: str, ports: tuple[int, ...]) -> Self:
        config = {"manager": {}, "routes": generate.chancy_routes(rng)}
        return cls(name, ports, config, (((Client()), HttpRequest(authority="all")),) * 200)

    def narrowed(self, config: Json, question: Any) -> Scenario:
        return replace(self, config=config)

    def compare(self, setting: Setting) -> Iterator[Comparison]:
        manager = _decoded_manager(setting, self.name)
        assert manager.route_config is not None
        outcomes = routes.route(manager.route_config, HttpRequest(authority="all"))
        seen: Counter[int | None] = Counter()
        for client, request, answer in _http_answers(setting, self.ports[0], self.questions):
            at = next((i for i, each in enumerate(outcomes) if answer and fits(each, answer)), None)
            seen[at] += 1
            words = "; ".join(map(outcome_words, outcomes))
            yield Comparison((client, request), str(answer), words, at is not None and _adds_up(outcomes))
        number = len(self.questions)
        for at, outcome in enumerate(outcomes):
            # Six standard deviations: once in a billion by chance.
            margin = 6 * sqrt(outcome.share * (1 - outcome.share) / number) + 3 / number
            if abs(seen[at] / number - outcome.share) > margin:
                words = outcome_words(outcome)
                yield Comparison(self.questions[0], f"{seen[at]} of {number} requests", words, False)


@dataclass(frozen=True)
class PathScenario(Scenario):
    """What the connection manager makes of odd paths."""

    kind = "paths"

    @classmethod
    def generated(cls, rng: Random, name: str, ports: tuple[int, ...]) -> Self:
        questions = tuple(generate.odd_path(rng) for _ in range(60))
        return cls(name, ports, generate.manager_options(rng), questions)

    def listener(self, authority: Authority, directory: Path) -> Json:
        route = {"match": {"prefix": ""}, "direct_response": {"status": 200}}
        host = {"name": "all", "domains": ["*"], "routes": [route]}
        manager = _manager({"name": "routes", "virtual_hosts": [host]}, self.config, [])
        return {"name": self.name, **_addresses(self.ports), "filter_chains": [{"filters": [manager]}]}

    def compare(self, setting: Setting) -> Iterator[Comparison]:
        manager = _decoded_manager(setting, self.name)
        asked = tuple((Client(), HttpRequest(authority="x", path=path)) for path in self.questions)
        answers = _http_answers(setting, self.ports[0], asked)
        for path, (_, _, answer) in zip(self.questions, answers, strict=True):
            if answer is None:
                yield Comparison(path, "", "", None)
                continue
            ours = paths.sanitized(manager, path)
            status = {"reject": 400, "redirect": 307, "continue": 200}[ours.action]
            agrees = answer.status == status and (ours.action == "reject" or answer.path == ours.path)
            yield Comparison(path, f"{answer.status} {answer.path}", f"{status} {ours.path}", agrees)


# --- RBAC -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HttpRbacScenario(Scenario):
    """The HTTP RBAC filter, with identities from client certificates and metadata from filters before it.

    The same rules shadow themselves, because only a shadow engine tells the policy that allowed.
    """

    kind = "http rbac"

    @classmethod
    def generated(cls, rng: Random, name: str, ports: tuple[int, ...]) -> Self:
        clients = [_client(rng) for _ in range(4)]
        questions = tuple((rng.choice(clients), generate.http_request(rng)) for _ in range(40))
        questions = tuple((client, request) for client, request in questions if request.method != "CONNECT")
        return cls(name, ports, generate.rbac_rules(rng, ports[0], http=True), questions)

    def listener(self, authority: Authority, directory: Path) -> Json:
        route = {"name": "allowed", "match": {"prefix": "/"}, "direct_response": {"status": 200}}
        host = {"name": "all", "domains": ["*"], "routes": [route]}
        manager = _manager({"name": "routes", "virtual_hosts": [host]}, {}, self._filters())
        return {
            "name": self.name,
            **_addresses(self.ports),
            "listener_filters": [_inspector("tls_inspector")],
            "filter_chains": _permissive_chains(authority, [manager]),
        }

    def _filters(self) -> list[Json]:
        static = _any(
            "envoy.extensions.filters.http.set_metadata.v3.Config",
            metadata=[{"metadata_namespace": "test.static", "value": generate.METADATA}],
        )
        claim = {"metadata_namespace": "test.header", "key": "claim", "type": "STRING"}
        by_header = _any(
            "envoy.extensions.filters.http.header_to_metadata.v3.Config",
            request_rules=[{"header": "x-claim", "on_header_present": claim}],
        )
        access = _any(
            "envoy.extensions.filters.http.rbac.v3.RBAC", rules=self.config, shadow_rules=self.config
        )
        return [
            {"name": "static", "typed_config": static},
            {"name": "header", "typed_config": by_header},
            {"name": "rbac", "typed_config": access},
        ]

    def compare(self, setting: Setting) -> Iterator[Comparison]:
        manager = _decoded_manager(setting, self.name)
        found = next(each for each in manager.http_filters if each.type_url.endswith("rbac.v3.RBAC"))
        rules = found.decode(rbac.HttpRbac).rules
        assert rules is not None
        for client, request, answer in _http_answers(setting, self.ports[0], self.questions):
            question = (client, request)
            if answer is None:
                yield Comparison(question, "", "", None)
                continue
            connection = msgspec.structs.replace(
                client.connection(self.ports[0]), dynamic_metadata=_metadata(request)
            )
            seen = routes.normalized(manager, request, connection)
            decision = rbac.evaluate(rules, seen, connection)
            denied, policy = _access(answer)
            agrees = decision.allowed is (not denied) and decision.policy == policy
            agrees = agrees and _explained(rules, decision, seen, connection)
            words = f"{'denied' if denied else 'allowed'}, policy {policy!r}"
            yield Comparison(question, words, str(decision), agrees)


_DENIED = re.compile(r"rbac_access_denied_matched_policy\[(.*)\]")


def _access(answer: HttpAnswer) -> tuple[bool, str]:
    """Whether the request was denied, and the policy: the enforcing engine's details, else the shadow's."""
    found = _DENIED.fullmatch(answer.details)
    policy = found[1] if found else answer.shadow_policy
    return found is not None, "" if policy in ("none", "-") else policy.encode("latin-1").decode()


def _metadata(request: HttpRequest) -> Json:
    """What the filters before RBAC leave: the first value of the header, where it isn't empty."""
    claim = next(iter(request.values("x-claim")), "")
    return {"test.static": generate.METADATA, **({"test.header": {"claim": claim}} if claim else {})}


def _explained(
    rules: rbac.RbacRules, decision: rbac.Decision, request: HttpRequest | None, connection: Connection
) -> bool:
    """Whether every policy is either the one that matched, one after it, or has reasons not to match."""
    explained = rbac.explain(rules, request, connection)
    names = {mismatch.policy for mismatch in explained}
    before = [
        name for name in rules.policies if not decision.policy or name.encode() < decision.policy.encode()
    ]
    return names.issuperset(before) and all(mismatch.conditions for mismatch in explained)


@dataclass(frozen=True)
class TcpRbacScenario(Scenario):
    """The network RBAC filter before an echo; the listener's access log tells the policy."""

    kind = "tcp rbac"

    @classmethod
    def generated(cls, rng: Random, name: str, ports: tuple[int, ...]) -> Self:
        questions = tuple(_client(rng) for _ in range(8))
        return cls(name, ports, generate.rbac_rules(rng, ports[0], http=False), questions)

    def listener(self, authority: Authority, directory: Path) -> Json:
        access = _any(
            "envoy.extensions.filters.network.rbac.v3.RBAC",
            rules=self.config,
            shadow_rules=self.config,
            stat_prefix="tcp.",
        )
        echo = _any("envoy.extensions.filters.network.echo.v3.Echo")
        filters = [{"name": "rbac", "typed_config": access}, {"name": "echo", "typed_config": echo}]
        shadow = "%DYNAMIC_METADATA(envoy.filters.network.rbac:shadow_effective_policy_id)%"
        line = f"%DOWNSTREAM_REMOTE_PORT%\t{shadow}\t%CONNECTION_TERMINATION_DETAILS%\n"
        log = _any(
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            path=str(self._log(directory)),
            log_format={"text_format_source": {"inline_string": line}},
        )
        return {
            "name": self.name,
            **_addresses(self.ports),
            "listener_filters": [_inspector("tls_inspector")],
            "filter_chains": _permissive_chains(authority, filters),
            "access_log": [{"name": "file", "typed_config": log}],
        }

    def _log(self, directory: Path) -> Path:
        return directory / f"{self.name}.log"

    def compare(self, setting: Setting) -> Iterator[Comparison]:
        chain = _listener(setting, self.name).filter_chains[0]
        found = chain.network_filter("rbac.v3.RBAC")
        rules = found.decode(rbac.NetworkRbac).rules if found else None
        assert rules is not None
        asked: dict[int, tuple[Client, bool]] = {}
        for client in self.questions:
            endpoint = wire.Endpoint(client.address, self.ports[0], client.source)
            allowed, port = wire.echoed(endpoint, client.tls, setting.authority)
            asked[port] = (client, allowed)
        logged = self._logged(setting.directory, set(asked))
        for port, (client, allowed) in asked.items():
            connection = client.connection(self.ports[0])
            decision = rbac.evaluate(rules, None, connection)
            policy = logged.get(port, "not logged")
            agrees = decision.allowed is allowed and decision.policy == policy
            agrees = agrees and _explained(rules, decision, None, connection)
            words = f"{'allowed' if allowed else 'denied'}, policy {policy!r}"
            yield Comparison(client, words, str(decision), agrees)

    def _logged(self, directory: Path, ports: set[int]) -> dict[int, str]:
        """The policy of each connection, by the client's port; waits for Envoy to write the lines."""
        found: dict[int, str] = {}
        deadline = time.monotonic() + 5
        while not ports.issubset(found) and time.monotonic() < deadline:
            path = self._log(directory)
            for line in path.read_text().splitlines() if path.exists() else []:
                port, policy, _ = line.split("\t")
                found[int(port)] = "" if policy == "-" else policy
            time.sleep(0.005)
        return found


# --- filter chains ----------------------------------------------------------------------------------------


class ChainQuestion(Struct, frozen=True):
    """A connection's first bytes: a TLS hello with SNI and ALPN, or plaintext (`plain`)."""

    address: str
    port: int
    source: str
    server_name: str = ""
    application_protocols: tuple[str, ...] = ()
    plain: str = ""


_PLAINTEXT: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "http/1.1": (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ("http/1.1",)),
    "http/1.0": (b"GET / HTTP/1.0\r\n\r\n", ("http/1.0",)),
    "h2c": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), ("h2c",)),
    "other": (b"\x00\x01\x02\x03 not http at all\r\n\r\n", ()),
}
"""First bytes, and what Envoy's HTTP inspector makes of them."""


@dataclass(frozen=True)
class FilterChainScenario(Scenario):
    """Filter chains that answer with their own name, whatever comes."""

    kind = "filter chains"

    @classmethod
    def generated(cls, rng: Random, name: str, ports: tuple[int, ...]) -> Self:
        config = {
            "matches": generate.filter_chain_matches(rng, list(ports)),
            "default": rng.random() < 0.5,
        }
        return cls(name, ports, config, tuple(cls._question(rng, ports) for _ in range(25)))

    @staticmethod
    def _question(rng: Random, ports: tuple[int, ...]) -> ChainQuestion:
        where = (rng.choice(generate.ADDRESSES), rng.choice(ports), rng.choice(generate.SOURCES))
        if rng.random() < 0.35:
            return ChainQuestion(*where, plain=rng.choice(list(_PLAINTEXT)))
        protocols = tuple(rng.sample(generate.PROTOCOLS, rng.randint(0, 3)))
        return ChainQuestion(*where, rng.choice(generate.CHAIN_SERVER_NAMES), protocols)

    def listener(self, authority: Authority, directory: Path) -> Json:
        chains = [
            {**self._chain(f"chain{number}"), "filter_chain_match": match}
            for number, match in enumerate(self.config["matches"])
        ]
        default = {"default_filter_chain": self._chain("default")} if self.config["default"] else {}
        return {
            "name": self.name,
            **_addresses(self.ports),
            "listener_filters": [_inspector("tls_inspector"), _inspector("http_inspector")],
            "filter_chains": chains,
            **default,
        }

    @staticmethod
    def _chain(name: str) -> Json:
        kind = "envoy.extensions.filters.network.direct_response.v3.Config"
        answer = _any(kind, response={"inline_string": name})
        return {"name": name, "filters": [{"name": "answer", "typed_config": answer}]}

    def compare(self, setting: Setting) -> Iterator[Comparison]:
        listener = _listener(setting, self.name)
        for question in self.questions:
            if question.plain:
                first, protocols = _PLAINTEXT[question.plain]
            else:
                protocols = question.application_protocols
                first = wire.client_hello(question.server_name, protocols)
            endpoint = wire.Endpoint(question.address, question.port, question.source)
            envoys = wire.first_answer(endpoint, first)
            chain = listeners.filter_chain(
                listener,
                destination_address=question.address,
                destination_port=question.port,
                transport_protocol="raw_buffer" if question.plain else "tls",
                server_name=question.server_name,
                application_protocols=protocols,
                source_address=question.source,
            )
            ours = chain.name if chain else ""
            yield Comparison(question, envoys or "none", ours or "none", envoys == ours)


KINDS: tuple[tuple[type[Scenario], int, int], ...] = (
    (RouteScenario, 12, 1),
    (ShareScenario, 1, 1),
    (PathScenario, 3, 1),
    (HttpRbacScenario, 14, 1),
    (TcpRbacScenario, 8, 1),
    (FilterChainScenario, 10, 2),
)
"""Each kind, how many of it one Envoy carries, and how many ports each needs."""
