"""Follows one request hop by hop through what the proxies hold."""

from __future__ import annotations

import msgspec

from meshscope.envoy.listeners import FilterChainsNotUnderstood
from meshscope.envoy.request import Connection, HttpRequest
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio.kubernetes import pod_ips
from meshscope.model.findings import Unavailable
from meshscope.model.names import OUTSIDE, WorkloadId
from meshscope.walk import filter_chain, gateway, inbound, outbound, transport, upstream
from meshscope.walk.hops import Branch, Hop, Stage, Walk
from meshscope.walk.upstream import Target


class Call(msgspec.Struct, frozen=True):
    """What is asked: who calls, through which proxy (None: it has none), which host and port, with what.

    `request` is None for plain TCP. `server_name` is what the server's log says of the connection where the caller's
    proxy can't be read: the SNI, "" for plaintext, None where no log tells.
    """

    workload: WorkloadId
    proxy: Proxy | None
    host: str
    port: int
    request: HttpRequest | None = None
    server_name: str | None = None
    served: tuple[Proxy, int] | None = None
    """The proxy that logged such calls as their server, and the port they came to; None where none did."""
    entered: int = 0
    """Where `proxy` is a gateway: the port of its own that such calls came to; 0 where that isn't known."""


def walk(mesh: Mesh, call: Call) -> Walk:
    """Every way the call can go. The hops of a branch end with the first that fails, or at the application."""
    branches = _captured(mesh, call) if call.proxy is not None else _uncaptured(mesh, call)
    return Walk(
        str(call.workload), call.request or HttpRequest("", call.host, ""), call.host, call.port, branches
    )


def _uncaptured(mesh: Mesh, call: Call) -> tuple[Branch, ...]:
    """A caller without a proxy, or with one that wasn't read."""
    pods = mesh.objects.pods_of(call.workload)
    past = outbound.past_the_sidecar(pods[0], call.port) if pods else None
    if past is not None:
        return _in_plaintext(mesh, call, past)
    if call.server_name or _has_sidecar(mesh, call.workload):
        return _unread_caller(mesh, call)
    who = "a caller outside the mesh" if call.workload == OUTSIDE else str(call.workload)
    capture = Hop(
        Stage.CAPTURE,
        "pass",
        f"{who} has no sidecar: it calls in plaintext, and no route of the mesh applies",
    )
    return _in_plaintext(mesh, call, capture)


def _in_plaintext(mesh: Mesh, call: Call, capture: Hop) -> tuple[Branch, ...]:
    """What becomes of a call that no sidecar of the caller's takes."""
    targets, endpoint = _targets(mesh, call)
    if not targets:
        return (Branch(1.0, (capture, endpoint)),)
    past = "excluded" in capture.detail
    why = "the call leaves past the caller's sidecar" if past else "the caller has no sidecar"
    offer = transport.Offer("plaintext", why, origin="no sidecar")
    share = 1.0 / len(targets)
    return tuple(
        Branch(share, (capture, endpoint, *_at_server(mesh, call, None, target, offer))) for target in targets
    )


def _targets(mesh: Mesh, call: Call) -> tuple[tuple[Target, ...], Hop]:
    """Where a call goes whose own proxy isn't known: by Kubernetes, else to the proxy that logged it."""
    targets, hop = upstream.kubernetes_targets(mesh, call.host, call.port)
    if targets or call.served is None or hop.outcome == "fail":
        return targets, hop
    server, port = call.served
    address = next(iter(mesh.ips(server)), "")
    found = Target(address, port, pod=mesh.pod_at(address), server=server)
    return (found,), Hop(Stage.ENDPOINT, "pass", f"{server.id} serves it, by its own log")


def _has_sidecar(mesh: Mesh, workload: WorkloadId) -> bool:
    return any(mesh.objects.has_proxy(pod) in {"istio", "both"} for pod in mesh.objects.pods_of(workload))


def _unread_caller(mesh: Mesh, call: Call) -> tuple[Branch, ...]:
    """What the server makes of a call through a sidecar that wasn't read: by its DestinationRules and the server's log."""
    capture = Hop(
        Stage.CAPTURE, "unknown", f"the proxy of {call.workload} wasn't read: its own part isn't known"
    )
    targets, endpoint = _targets(mesh, call)
    if not targets:
        return (Branch(1.0, (capture, endpoint)),)
    share = 1.0 / len(targets)
    branches = []
    for target in targets:
        offer, offered = transport.intended_offer(
            mesh, call.workload, call.host, call.port, target, call.server_name
        )
        hops = (capture, endpoint, offered, *_at_server(mesh, call, None, target, offer))
        branches.append(Branch(share, hops))
    return tuple(branches)


def _connection(
    mesh: Mesh, call: Call, client: Proxy | None, target: Target, offer: transport.Offer
) -> Connection:
    """The connection as the server sees it; of a caller whose proxy wasn't read, by its pods in Kubernetes."""
    made = transport.connection(mesh, client, call.workload, target, offer)
    if client is not None:
        return made
    pods = mesh.objects.pods_of(call.workload)
    address = next((ip for pod in pods for ip in pod_ips(pod)), "")
    if offer.kind == "plaintext":
        return msgspec.structs.replace(made, source_address=address)
    if not pods:
        return msgspec.structs.replace(made, mtls=True, unknown=frozenset({"peer"}))
    account = pods[0].spec.get("serviceAccountName") or "default"
    identity = f"spiffe://{mesh.objects.trust_domain}/ns/{call.workload.namespace}/sa/{account}"
    return msgspec.structs.replace(made, source_address=address, peer_principals=(identity,), mtls=True)


def _captured(mesh: Mesh, call: Call) -> tuple[Branch, ...]:
    client = call.proxy
    assert client is not None
    if isinstance(client.config, Unavailable):
        return _unread_caller(mesh, call)
    through = client.node.is_gateway
    capture = gateway.capture(client) if through else outbound.capture(mesh, client, call.port)
    if capture.outcome == "fail":
        return (Branch(1.0, (capture,)),)
    if "excluded" in capture.detail:
        return _in_plaintext(mesh, call, capture)
    branches: list[Branch] = []
    for way in (
        gateway.ways(mesh, client, call.host, call.port, call.request, call.entered)
        if through
        else outbound.ways(mesh, client, call.host, call.port, call.request)
    ):
        hops = (capture, *way.hops)
        if way.cluster is None or hops[-1].outcome == "fail":
            branches.append(Branch(way.share, hops))
            continue
        branches += _to_cluster(mesh, call, client, way.share, hops, way.cluster)
    return tuple(branches)


def _to_cluster(
    mesh: Mesh, call: Call, client: Proxy, share: float, hops: tuple[Hop, ...], cluster_name: str
) -> list[Branch]:
    cluster, hop = upstream.cluster(mesh, client, cluster_name)
    hops = (*hops, hop)
    if cluster is None:
        return [Branch(share, hops)]
    targets, hop = upstream.targets(mesh, client, cluster)
    if hop.detail.get("passthrough"):
        hop = upstream.to_a_stranger(mesh, hop, call.host, call.port)
    hops = (*hops, hop)
    if not targets or hop.outcome == "fail":
        return [Branch(share, hops)]
    total = sum(target.weight for target in targets) or 1
    found = []
    for target in upstream.representative(targets):
        stale = (upstream.stale_hop(client, target),) if target.stale else ()
        offer, offered = transport.offer(mesh, client, cluster, target)
        further = _at_server(mesh, call, client, target, offer) if offered.outcome != "fail" else ()
        found.append(Branch(share * target.weight / total, (*hops, *stale, offered, *further)))
    return found


def _at_server(
    mesh: Mesh, call: Call, client: Proxy | None, target: Target, offer: transport.Offer
) -> tuple[Hop, ...]:
    """The hops at the server's side, up to the first failure; what can't be read ends them as unknown."""
    hops: list[Hop] = []
    try:
        _follow(mesh, call, client, target, offer, hops)
    except (FilterChainsNotUnderstood, msgspec.DecodeError) as error:
        proxy = target.server.id if target.server is not None else None
        hops.append(
            Hop(Stage.FILTER_CHAIN, "unknown", f"the server's configuration can't be read: {error}", proxy)
        )
    return tuple(hops)


def _follow(
    mesh: Mesh, call: Call, client: Proxy | None, target: Target, offer: transport.Offer, hops: list[Hop]
) -> None:
    """Adds the server's hops to `hops`."""
    hops += filter_chain.accept(mesh, client, target, offer)
    if any(hop.outcome == "fail" or "skipped" in hop.detail for hop in hops):
        return
    connection = _connection(mesh, call, client, target, offer)
    if target.server is None or isinstance(target.server.config, Unavailable):
        unread = target.pod is not None and mesh.objects.has_proxy(target.pod) in {"istio", "both"}
        further = inbound.intended(mesh, target, call.request, connection) if unread else ()
    else:
        chain = filter_chain.chain(target, offer, client)
        further = inbound.hops(mesh, target, chain, call.request, connection) if chain is not None else ()
    for hop in further:
        hops.append(hop)
        if hop.outcome == "fail":
            break
