"""What was seen of a server's proxy refusing requests by itself: to its caller that is only `via_upstream`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshscope.envoy.rbac import ConditionMismatch, PolicyMismatch
from meshscope.envoy.request import Connection
from meshscope.facts.symptoms import Symptom, is_tcp
from meshscope.istio.names import denied_by
from meshscope.model.findings import CausedBy, Evidence, Fix
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import CERTAIN, LIKELY, PREDICTED, SEEN, Matches, Shown
from meshscope.rules.facts import EdgeFacts, Facts, Moved, Predicted

INTENDED = 0.75
"""The policies in Kubernetes make it so and the caller saw it; what the server's proxy holds wasn't read."""

RBAC_BODY = frozenset({len("RBAC: access denied")})
JWT_BODIES = frozenset(
    map(
        len,
        (
            "Jwt is missing",
            "Jwt is expired",
            "Jwt not yet valid",
            "Jwt verification fails",
            "Jwt issuer is not configured",
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            "Audiences in Jwt are not allowed",
            "Jwks remote fetch is failed",
            "Jwks doesn't have key to match kid or alg from Jwt",
        ),
    )
)
LOCAL_LIMIT_BODY = frozenset({len("local_rate_limited")})
NO_BODY = frozenset({0})
"""Sizes of the bodies that Envoy itself sends with a refusal; another size speaks for another author."""

NONE_CAUSES = (
    "allow-nothing",
    "jwt-missing",
    "no-peer-identity-for-principal-policy",
    "implicit-deny-by-allow-policy",
)
"""The causes that all read `matched_policy[none]`."""

RBAC_STATS = (("http", "rbac_denied"), ("tcp", "rbac_denied"))


class Refused(msgspec.Struct, frozen=True):
    """What shows a refusal on one edge. `told`: a proxy named it in its log; else only the caller's status speaks."""

    shown: Shown
    told: bool
    body_fits: bool | None
    """Whether the body that the caller got has a size that such a refusal has; None where no log tells."""

    def at_most(self, found: Predicted | None) -> float:
        """How sure a claim may be that rests on this and on a decision (held, intended or none)."""
        if self.told:
            return CERTAIN if found is not None else SEEN
        if found is None:
            return LIKELY
        guess = found.hop.outcome == "unknown" or found.hop.detail.get("intended")
        if self.shown.moved and guess and not found.hop.detail.get("intended"):
            # The proxy's own counter says that it refused; only what in the request made it do so isn't known.
            return INTENDED
        if self.body_fits is False:
            return LIKELY if guess else INTENDED
        if not guess:
            return CERTAIN
        return INTENDED if self.body_fits or found.hop.outcome == "fail" else PREDICTED


def refused(
    edge: EdgeFacts,
    *,
    refusal: Matches,
    codes: tuple[int, ...],
    stats: tuple[tuple[str, str], ...],
    bodies: frozenset[int],
    moved: tuple[Moved, ...] | None = None,
) -> Refused:
    """What shows it: lines of a proxy that says so (`refusal`), the caller's status codes, the refusing proxy's counters.

    The caller's side counts only as far as the server's doesn't say otherwise: with the server's log there, a status
    that it doesn't explain is another's; with its counters there and unmoved, it refused nothing. `moved` stands for
    `stats` where those can't be named.
    """
    tcp = _speaks_tcp(edge)
    if moved is None:
        moved = tuple(found for scope, stat in stats for found in edge.server_moved(scope, stat))
    told = [s for s in edge.symptoms if s.from_log and refusal(s)]
    codes = (*codes, *(s.code for s in told if s.side == "server" and s.code))
    counted = edge.server_counts(*stats)
    innocent = not told and (edge.server_seen or (counted and not moved))
    fitting = list(told)
    if not innocent:
        fitting += [s for s in edge.on("client") if s not in told and _passed_on(s, codes, tcp)]
    caller_counts = edge.client_seen or any(proxy.moved is not None for proxy in edge.client_proxies)
    # The server's counters are of all its callers: those whose own side shows nothing aren't meant.
    counters = moved if fitting or tcp or not (caller_counts or edge.server_seen) else ()
    blind = not edge.observable and not counted and not caller_counts
    return Refused(Shown(tuple(fitting), counters, blind), bool(told), _body_fits(fitting, bodies))


def _speaks_tcp(edge: EdgeFacts) -> bool:
    """Whether the server's proxy takes the edge's traffic for plain TCP: a refusal then leaves no status."""
    if any(s.example is not None and is_tcp(s.example) for s in edge.symptoms):
        return True
    return any(hop.detail.get("tcp") for one in edge.walks for branch in one.branches for hop in branch.hops)


def _passed_on(symptom: Symptom, codes: tuple[int, ...], tcp: bool) -> bool:
    if symptom.stat is not None:
        wanted = {f"upstream_rq_{code}" for code in codes}
        return symptom.stat[2] in wanted | ({"upstream_rq_5xx"} if any(c >= 500 for c in codes) else set())
    if symptom.flags:
        return False
    if symptom.example is not None and is_tcp(symptom.example):
        return tcp and not symptom.termination and symptom.example.bytes_sent == 0
    return symptom.code in codes and symptom.details == "via_upstream"


def _body_fits(fitting: Iterable[Symptom], bodies: frozenset[int]) -> bool | None:
    lines = [
        e for s in fitting if s.side == "client" for e in s.entries if e.method != "HEAD" and not is_tcp(e)
    ]
    return any(entry.bytes_sent in bodies for entry in lines) if lines else None


def token_may_be_there(edge: EdgeFacts, found: Predicted) -> bool:
    """Whether the requests that a policy on tokens refuses may have had one that isn't the right one.

    Where any valid token would do, none was there. Else the JWT filter's counters tell: it looks every token up.
    """
    if found.hop.detail.get("any_token"):
        return False
    if not edge.server_moved("http", "jwt_authn_allowed"):
        return True
    return bool(edge.server_moved("http", "jwt_authn_jwt_cache_miss", "jwt_authn_jwt_cache_hit"))


# --- RBAC ---------------------------------------------------------------------------------------------------


def denied_by_none(symptom: Symptom) -> bool:
    """Whether the server's proxy says that no ALLOW policy matched."""
    return "none" in (denied_by(symptom.details), denied_by(symptom.termination))


def none_refused(edge: EdgeFacts) -> Refused:
    """What shows that no ALLOW policy matched."""
    return refused(edge, refusal=denied_by_none, codes=(403,), stats=RBAC_STATS, bodies=RBAC_BODY)


def held(edge: EdgeFacts, *causes: str) -> tuple[Predicted, ...]:
    """Where the walk fails for one of these causes, or would if what isn't known of the request is so."""
    return tuple(found for cause in causes for found in (*edge.predicted(cause), *edge.passing(cause)))


def mismatches(found: Predicted) -> tuple[PolicyMismatch, ...]:
    """Why each ALLOW policy didn't match."""
    return tuple(found.hop.detail.get("mismatches") or ())


def nearest(found: Predicted) -> PolicyMismatch | None:
    """The ALLOW policy that came nearest to matching."""
    return min(mismatches(found), key=lambda each: len(each.conditions), default=None)


def condition_in_words(condition: ConditionMismatch) -> str:
    subject = condition.subject
    if subject.startswith("envoy.filters.http.jwt_authn"):
        subject = f"the token's {subject.rpartition('.')[2]}"
    if condition.undecided:
        return f"{subject} (not in the log) would have to be {condition.wanted}"
    return f"{subject} is {condition.actual}, it wants {condition.wanted}"


def drift(found: Predicted | None) -> tuple[CausedBy, ...]:
    """What Kubernetes says, where the proxy holds otherwise."""
    said = found.hop.detail.get("drift") if found is not None else None
    if found is None or not said:
        return ()
    return (
        CausedBy(
            "proxy-config-stale", str(said), (Evidence(f"proxy {found.hop.proxy}", found.hop.object, said),)
        ),
    )


def connection_of(found: Predicted) -> Connection | None:
    connection = found.hop.detail.get("connection")
    return connection if isinstance(connection, Connection) else None


def identity_in_words(connection: Connection | None) -> str:
    if connection is None or "peer" in connection.unknown:
        return "the caller"
    return ", ".join(connection.peer_principals) or "a caller without identity"


def blamed(edge: EdgeFacts, ref: ObjectRef | None) -> ObjectRef:
    """The object behind a decision as a finding's subject, else what is called."""
    called = edge.server_subject
    return ref if ref is not None else called


def edit(ref: ObjectRef, effect: str) -> Fix:
    """The command that opens an object of Istio's in an editor."""
    kind = f"{ref.kind.lower()}.{ref.group}" if ref.group else ref.kind.lower()
    return Fix("command", f"kubectl edit {kind} {ref.name} -n {ref.namespace}", effect)


# --- those who are asked ------------------------------------------------------------------------------------


def asked_about(edge: EdgeFacts) -> Predicted | None:
    """The hop that asks an external authorizer about this edge's requests, held or intended; None where none does.

    Where no request was seen, any hop that asks about some requests will do.
    """
    guessed = not edge.client_seen and not edge.server_seen
    for one in edge.walks:
        for branch in one.branches:
            for hop in branch.hops:
                if hop.detail.get("external") and (hop.outcome != "pass" or guessed):
                    return Predicted(one, branch, hop)
    return None


def asking(facts: Facts, edge: EdgeFacts, cluster: str) -> tuple[Symptom, ...]:
    """What fails in the calls by which the server asks: they have the same cause."""
    servers = set(edge.server_proxies)
    return tuple(
        symptom
        for other in facts.edges
        if cluster and cluster in other.clusters and servers & set(other.client_proxies)
        for symptom in other.symptoms
    )


def with_asking(facts: Facts, edge: EdgeFacts, seen: Shown, cluster: str) -> Shown:
    """What was seen, together with the failing calls to whom the server asks."""
    symptoms = (*seen.symptoms, *asking(facts, edge, cluster))
    return msgspec.structs.replace(
        seen, symptoms=symptoms, moved=(*seen.moved, *failing_calls(edge, cluster))
    )


def failing_calls(edge: EdgeFacts, cluster: str) -> tuple[Moved, ...]:
    """How the server's own calls to whom it asks fail, by its counters."""
    stats = (
        "upstream_cx_connect_fail",
        "upstream_cx_connect_timeout",
        "upstream_rq_timeout",
        "upstream_cx_none_healthy",
    )
    return tuple(found for found in edge.server_moved("cluster", *stats) if cluster and found.name == cluster)
