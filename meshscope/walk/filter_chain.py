"""Whether the server's side takes what the client offers: by its filter chains, else by the policy meant for it.

Details of the FILTER_CHAIN hops: `endpoint` (IP:PORT), `mode` (the PeerAuthentication in force), `offer`, `chain` (its
name), `intended` (read off Kubernetes because the proxy wasn't read), `skipped` (the annotation by which the port
bypasses the sidecar), `server_names` (those that chains of the port take).
"""

from __future__ import annotations

from typing import Any

from meshscope.envoy.config_dump import (
    ConfigDump,
    DownstreamTlsContext,
    FilterChain,
    HttpConnectionManager,
    Listener,
)
from meshscope.envoy.listeners import filter_chain
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio.injection import skipped_by
from meshscope.istio.peer_authentication import effective
from meshscope.model.findings import Evidence, Unavailable
from meshscope.model.names import ObjectRef
from meshscope.sources.source import Part
from meshscope.walk.hops import Hop, Outcome, Stage
from meshscope.walk.transport import (
    MESH_ALPN,
    Offer,
    client_only,
    handshake,
    never_delivered,
    server_secret,
)
from meshscope.walk.upstream import Target


def inbound_listener(config: ConfigDump) -> Listener | None:
    """The listener that takes everything for the pod."""
    found = config.listeners.get("virtualInbound")
    if found is not None:
        return found
    return next((listener for listener in config.listeners if listener.traffic_direction == "INBOUND"), None)


def chain(target: Target, made: Offer, client: Proxy | None = None) -> FilterChain | None:
    """The server's filter chain that takes the offer; None where there is none or nothing is known."""
    if target.server is None or isinstance(target.server.config, Unavailable):
        return None
    listener = inbound_listener(target.server.config)
    return _match(listener, target, made, client) if listener is not None else None


def skipped(mesh: Mesh, target: Target) -> str:
    """The annotation by which traffic of the target's port bypasses its sidecar; "" where it doesn't."""
    if target.pod is not None:
        if mesh.objects.has_proxy(target.pod) not in {"istio", "both"}:
            return ""
        return skipped_by(target.pod.metadata.annotations, target.port)
    return skipped_by(target.server.node.annotations, target.port) if target.server is not None else ""


def accept(mesh: Mesh, client: Proxy | None, target: Target, made: Offer) -> list[Hop]:
    """The server's hops FILTER_CHAIN and TLS_ACCEPT; the last one fails where the connection can't come about."""
    annotation = skipped(mesh, target)
    if annotation:
        return [_past_the_sidecar(target, made, annotation)]
    server = target.server
    if server is None or isinstance(server.config, Unavailable):
        hops = _by_policy(mesh, target, made)
        failing = any(hop.outcome == "fail" for hop in hops)
        return hops if failing else [*hops, *client_only(mesh, client, made)]
    listener = inbound_listener(server.config)
    if listener is None:
        waiting = never_delivered(server)
        if waiting is not None:
            return [server_secret(server, waiting, "no inbound listener yet")]
        return [Hop(Stage.FILTER_CHAIN, "unknown", "the server's dump has no inbound listener", server.id)]
    found = _match(listener, target, made, client)
    if found is None or (made.kind == "plaintext" and _ends_tls(found)):
        return [_no_chain(mesh, server, client, target, made, listener)]
    return _taken(mesh, server, client, target, made, listener, found)


def _told(target: Target, made: Offer) -> dict[str, Any]:
    return {"endpoint": f"{target.address}:{target.port}", "offer": made}


def _taken(
    mesh: Mesh,
    server: Proxy,
    client: Proxy | None,
    target: Target,
    made: Offer,
    listener: Listener,
    found: FilterChain,
) -> list[Hop]:
    where = f"listener {listener.name} / filter chain {found.name or '(unnamed)'}"
    policy, mode = _policy(mesh, target)
    detail = {**_told(target, made), "mode": mode, "chain": found.name}

    def hop(outcome: Outcome, decision: str, cause: str = "", evidence: tuple[Evidence, ...] = ()) -> Hop:
        return Hop(Stage.FILTER_CHAIN, outcome, decision, server.id, where, policy, cause, evidence, detail)

    if made.kind == "plaintext":
        return [hop("pass", f"{where} takes it")]
    if found.transport_socket is None or not _ends_tls(found):
        if found.filter_chain_match.transport_protocol == "tls":
            words = "the sidecar passes this TLS on to the application: it isn't the mesh's own"
            return [hop("unknown", words, "tls-without-istio-alpn")]
        words = "the server's port takes plaintext only, the client speaks TLS"
        evidence = _held(server, where, mode)
        return [hop("fail", words, "client-mtls-server-disable", evidence)]
    context = found.transport_socket.decode(DownstreamTlsContext)
    return [hop("pass", f"{where} takes it"), handshake(mesh, client, target, made, context, where)]


def _ends_tls(found: FilterChain) -> bool:
    return found.transport_socket is not None and not found.transport_socket.type_url.endswith("RawBuffer")


def _match(listener: Listener, target: Target, made: Offer, client: Proxy | None) -> FilterChain | None:
    return _match_tls(listener, target, made.kind != "plaintext", made.sni, _alpn(client, made))


def _match_tls(
    listener: Listener, target: Target, tls: bool, sni: str, alpn: tuple[str, ...]
) -> FilterChain | None:
    return filter_chain(
        listener,
        destination_address=target.address,
        destination_port=target.port,
        transport_protocol="tls" if tls else "raw_buffer",
        server_name=sni if tls else "",
        application_protocols=alpn if tls else (),
    )


def _alpn(client: Proxy | None, made: Offer) -> tuple[str, ...]:
    """The ALPN on the wire: with Istio's ALPN filter, mesh TLS of an HTTP request names the protocol too."""
    if "istio" in made.alpn and client is not None and _has_alpn_filter(client):
        return ("istio-http/1.1", "istio-http/1.0", "istio-h2", *made.alpn)
    return made.alpn


def _has_alpn_filter(client: Proxy) -> bool:
    config = client.config
    if isinstance(config, Unavailable):
        return False
    for listener in config.listeners:
        for candidate in listener.filter_chains:
            manager = candidate.network_filter("HttpConnectionManager")
            if manager is not None:
                filters = manager.decode(HttpConnectionManager).http_filters
                return any(f.name == "istio.alpn" for f in filters)
    return False


def _policy(mesh: Mesh, target: Target) -> tuple[ObjectRef | None, str]:
    if target.pod is None:
        return None, ""
    found = effective(mesh.objects, target.pod, target.port)
    return found.decided_by, found.mode


def _held(server: Proxy, where: str, mode: str) -> tuple[Evidence, ...]:
    said = f"PeerAuthentication in force: {mode}" if mode else "no chain takes it"
    return (Evidence(f"proxy {server.id}", f"{server.path(Part.CONFIG_DUMP)}: {where}", said),)


def _no_chain(
    mesh: Mesh, server: Proxy, client: Proxy | None, target: Target, made: Offer, listener: Listener
) -> Hop:
    policy, mode = _policy(mesh, target)
    cause, why = _why_no_chain(client, target, made, listener)
    where = f"listener {listener.name}"
    evidence = _held(server, where, mode)
    names = sorted({name for one in listener.filter_chains for name in one.filter_chain_match.server_names})
    detail = {**_told(target, made), "mode": mode, "server_names": names}
    return Hop(Stage.FILTER_CHAIN, "fail", why, server.id, where, policy, cause, evidence, detail)


def _why_no_chain(client: Proxy | None, target: Target, made: Offer, listener: Listener) -> tuple[str, str]:
    if made.kind == "plaintext":
        return _plaintext_refused(made)
    if _match_tls(listener, target, True, made.sni, MESH_ALPN) is not None:
        offered = ",".join(made.alpn) or "none"
        why = f"the server's chains for TLS want Istio's ALPN, the client offers {offered}"
        return "tls-without-istio-alpn", why
    if any(
        _match_tls(listener, target, True, name, _alpn(client, made)) is not None
        for candidate in listener.filter_chains
        for name in candidate.filter_chain_match.server_names
    ):
        return "sni-matches-no-filter-chain", f"no filter chain takes the server name {made.sni or '(none)'}"
    return "client-mtls-server-disable", "the server's port takes plaintext only, the client speaks TLS"


def _plaintext_refused(made: Offer) -> tuple[str, str]:
    """Why a client sends plaintext to a server that demands mTLS."""
    if made.origin == "no sidecar":
        return "client-without-sidecar-server-strict", f"{made.why}, the server demands mutual TLS"
    if made.origin == "automatic":
        why = (
            "the server demands mutual TLS, but its endpoint lacks the label security.istio.io/tlsMode=istio, "
            "so the client's auto mTLS sends plaintext"
        )
        return "auto-mtls-endpoint-not-labelled", why
    why = "the client is told to send plaintext, the server demands mutual TLS"
    return "client-plaintext-server-strict", why


def _past_the_sidecar(target: Target, made: Offer, annotation: str) -> Hop:
    pod = target.pod.ref if target.pod is not None else None
    detail = {**_told(target, made), "skipped": annotation}
    said_by = "kubernetes" if target.server is None or pod else f"proxy {target.server.id}"
    source = Evidence(said_by, f"{pod or 'bootstrap node metadata'}: annotations", annotation)
    if made.kind == "plaintext":
        words = f"port {target.port} bypasses the sidecar ({annotation}): no policy of the mesh applies"
        return Hop(Stage.FILTER_CHAIN, "pass", words, kubernetes=pod, evidence=(source,), detail=detail)
    words = f"port {target.port} bypasses the sidecar ({annotation}), so nothing there speaks mesh TLS"
    return Hop(
        Stage.FILTER_CHAIN,
        "fail",
        words,
        kubernetes=pod,
        cause="inbound-port-skipped",
        evidence=(source,),
        detail=detail,
    )


# --- where the server's proxy can't be asked ------------------------------------------------------------------


def _by_policy(mesh: Mesh, target: Target, made: Offer) -> list[Hop]:
    """What a server whose proxy wasn't read is meant to take, by the PeerAuthentication in force."""
    pod = target.pod
    detail = {**_told(target, made), "intended": True}
    if pod is None:
        unknown = f"nothing is known of {target.address}:{target.port}"
        return [Hop(Stage.FILTER_CHAIN, "unknown", unknown, detail=detail)]
    if mesh.objects.has_proxy(pod) not in {"istio", "both"}:
        return [_without_sidecar(target, made, pod.ref)]
    policy, mode = _policy(mesh, target)
    detail["mode"] = mode
    words = f"the proxy of {pod.metadata.name} wasn't read; {policy or 'by default it'} is {mode}"
    source = Evidence("kubernetes", str(policy or "PeerAuthentication"), f"in force for the port: {mode}")
    cause, why = _refused(made, mode)
    outcome: Outcome = "unknown" if not cause or cause == "tls-without-istio-alpn" else "fail"
    if cause == "tls-without-istio-alpn" and _is_http(mesh, target):
        outcome = "fail"
    stage = Stage.TLS_ACCEPT if cause == "client-sends-no-certificate" else Stage.FILTER_CHAIN
    decision = f"{why} ({words})" if why else words
    return [
        Hop(stage, outcome, decision, None, "PeerAuthentication", policy or pod.ref, cause, (source,), detail)
    ]


def _refused(made: Offer, mode: str) -> tuple[str, str]:
    """The cause by which a server of this mode refuses the offer, and why; "" where it takes it."""
    if made.kind == "plaintext":
        return _plaintext_refused(made) if mode == "STRICT" else ("", "")
    if mode == "DISABLE":
        return "client-mtls-server-disable", "the server's port takes plaintext only, the client speaks TLS"
    if mode == "PERMISSIVE" and not set(made.alpn) & set(MESH_ALPN):
        offered = ",".join(made.alpn) or "none"
        why = f"a server that takes plaintext too knows mesh TLS by Istio's ALPN, the client offers {offered}"
        return "tls-without-istio-alpn", why
    if made.kind == "tls":
        why = "the server demands a client certificate, the client sends none"
        return "client-sends-no-certificate", why
    return "", ""


def _is_http(mesh: Mesh, target: Target) -> bool:
    """Whether some Service names the protocol of the target's port as HTTP."""
    pod = target.pod
    for service in mesh.objects.services_selecting(pod) if pod is not None else ():
        for port in service.spec.get("ports") or ():
            if target.port in (port.get("targetPort"), port.get("port")):
                said = str(port.get("appProtocol") or port.get("name") or "").partition("-")[0].lower()
                if said in {"http", "http2", "grpc"}:
                    return True
    return False


def _without_sidecar(target: Target, made: Offer, pod: ObjectRef) -> Hop:
    if made.kind == "plaintext":
        words = f"{pod.name} has no sidecar and takes plaintext"
        return Hop(Stage.FILTER_CHAIN, "pass", words, kubernetes=pod)
    return Hop(
        Stage.FILTER_CHAIN,
        "fail",
        f"{pod.name} has no sidecar, so nothing there speaks mesh TLS",
        kubernetes=pod,
        cause="client-mtls-server-without-sidecar",
        evidence=(Evidence("kubernetes", str(pod), "no container istio-proxy"),),
        detail=_told(target, made),
    )
