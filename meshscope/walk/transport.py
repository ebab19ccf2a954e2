"""Between two proxies: what the client offers (plaintext, mesh TLS), and whether both take the other's certificate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal, TypeVar

import msgspec

from meshscope.envoy.certificates import Certificate, ChainFault, read_chain, san_fault, trust_domain, verify
from meshscope.envoy.config_dump import (
    CertificateValidationContext,
    Cluster,
    CommonTlsContext,
    DecodeProblem,
    DownstreamTlsContext,
    SecretEntry,
    StringMatcher,
    TypedExtension,
    UpstreamTlsContext,
)
from meshscope.envoy.request import Connection
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.istio.destination_rule import Caller, auto_mtls, client_tls
from meshscope.istio.names import ClusterName, metadata_object, sni_name
from meshscope.model.findings import Evidence, Unavailable
from meshscope.model.names import ObjectRef, WorkloadId
from meshscope.sources.source import Part
from meshscope.walk.hops import Hop, Stage
from meshscope.walk.upstream import Target

MESH_ALPN = ("istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2")
"""The protocols by which Istio's server chains know mesh TLS."""


class Offer(msgspec.Struct, frozen=True):
    """How the client opens the connection, and why so."""

    kind: Literal["plaintext", "mtls", "tls"]
    why: str
    alpn: tuple[str, ...] = ()
    sni: str = ""
    context: UpstreamTlsContext | None = None
    object: ObjectRef | None = None
    origin: Literal["configured", "automatic", "no sidecar"] = "configured"
    """Whether a rule says so, auto mTLS decided it endpoint by endpoint, or the caller has nothing that could."""


def offer(mesh: Mesh, client: Proxy, cluster: Cluster, target: Target) -> tuple[Offer, Hop]:
    """What the cluster's transport socket for this endpoint offers."""
    socket, why = _socket(cluster, target)
    behind = metadata_object(cluster.metadata.istio())
    where = f"cluster {cluster.name} / {why}"
    origin: Literal["configured", "automatic"] = (
        "automatic" if cluster.transport_socket_matches else "configured"
    )
    if socket is None or socket.type_url.endswith("RawBuffer"):
        made = Offer("plaintext", why, object=behind, origin=origin)
        return made, Hop(
            Stage.TLS_OFFER,
            "pass",
            f"offers plaintext ({why})",
            client.id,
            where,
            behind,
            detail={"offer": made},
        )
    try:
        context = socket.decode(UpstreamTlsContext)
    except msgspec.DecodeError as error:
        made = Offer("plaintext", why)
        return made, Hop(
            Stage.TLS_OFFER, "unknown", f"the transport socket can't be read: {error}", client.id, where
        )
    common = context.common_tls_context
    certificate = bool(common.tls_certificate_sds_secret_configs or common.tls_certificates)
    kind: Literal["mtls", "tls"] = "mtls" if certificate else "tls"
    made = Offer(kind, why, common.alpn_protocols, context.sni, context, behind, origin)
    detail = {"offer": made}
    missing = missing_secret(client, common)
    if missing is not None:
        return made, Hop(
            Stage.TLS_OFFER,
            "fail",
            f"the proxy never got its secret {missing}",
            client.id,
            where,
            behind,
            "client-secret-not-delivered",
            (_secret_evidence(client, missing),),
            {**detail, "secret": missing, "blame": client.id},
        )
    words = "mutual TLS" if certificate else "TLS without a client certificate"
    return made, Hop(
        Stage.TLS_OFFER,
        "pass",
        f"offers {words}, SNI {context.sni or '-'}, ALPN {','.join(made.alpn) or '-'}",
        client.id,
        where,
        behind,
        detail=detail,
    )


def intended_offer(
    mesh: Mesh, caller: WorkloadId, host: str, port: int, target: Target, server_name: str | None
) -> tuple[Offer, Hop]:
    """What a sidecar that wasn't read is meant to offer, by its DestinationRules and auto mTLS.

    `server_name` is what the server's log says of the connection; "" says that no TLS was recognized.
    """
    pods = mesh.objects.pods_of(caller)
    asked = sni_name(server_name or "")
    tls = client_tls(
        mesh.objects,
        Caller(caller.namespace, pods[0].metadata.labels if pods else {}),
        host,
        port,
        asked.subset if asked else "",
    )
    sni = server_name or tls.sni or ClusterName("outbound", port, "", host).sni
    made = Offer("mtls", "Istio's default", MESH_ALPN, sni, origin="automatic")
    if tls.mode == "AUTO":
        able = target.pod is None or auto_mtls(mesh.objects, target.pod, target.port)
        if not server_name and (server_name == "" or not able):
            made = Offer("plaintext", "auto mTLS doesn't use TLS here", origin="automatic")
    elif tls.mode == "DISABLE":
        made = Offer("plaintext", "it is told so", object=tls.decided_by)
    elif tls.mode == "ISTIO_MUTUAL":
        made = Offer("mtls", "it is told so", MESH_ALPN, sni, object=tls.decided_by)
    else:
        kind: Literal["tls", "mtls"] = "tls" if tls.mode == "SIMPLE" else "mtls"
        made = Offer(kind, "it is told so", (), server_name or tls.sni, object=tls.decided_by)
    by = f"{tls.decided_by}: tls.mode {tls.mode}" if tls.decided_by else f"auto mTLS ({made.why})"
    shown = (Evidence("kubernetes", str(tls.decided_by), f"tls.mode: {tls.mode}"),) if tls.decided_by else ()
    return made, Hop(
        Stage.TLS_OFFER,
        "pass",
        f"is meant to offer {_IN_WORDS[made.kind]} by {by}; its proxy wasn't read",
        kubernetes=tls.decided_by,
        evidence=shown,
        detail={"offer": made, "intended": True},
    )


_IN_WORDS = {"plaintext": "plaintext", "mtls": "mutual TLS", "tls": "TLS without a client certificate"}


def _socket(cluster: Cluster, target: Target) -> tuple[TypedExtension | None, str]:
    for match in cluster.transport_socket_matches:
        wanted = match.match.get("tlsMode")
        if wanted is None or wanted == target.tls_mode:
            return match.transport_socket, f"transport socket {match.name}"
    return (
        cluster.transport_socket,
        "the cluster's transport socket" if cluster.transport_socket else "no transport socket",
    )


def missing_secret(proxy: Proxy, common: CommonTlsContext) -> str | None:
    """The name of a secret that the context needs and the proxy hasn't got; None where all are there or unknown."""
    config = proxy.config
    if isinstance(config, Unavailable):
        return None
    needed = [secret.name for secret in common.tls_certificate_sds_secret_configs]
    combined = common.combined_validation_context
    for sds in (
        combined.validation_context_sds_secret_config if combined else None,
        common.validation_context_sds_secret_config,
    ):
        if sds is not None:
            needed.append(sds.name)
    # A secret that the dump doesn't list at all wasn't asked for, or the section wasn't read: nothing is known of it.
    found = ((name, config.secrets.get(name)) for name in needed)
    return next(
        (name for name, entry in found if entry is not None and (entry.warming or _empty(entry))), None
    )


def _empty(entry: SecretEntry) -> bool:
    return entry.secret.tls_certificate is None and entry.secret.validation_context is None


def _secret_evidence(proxy: Proxy, name: str) -> Evidence:
    return Evidence(
        f"proxy {proxy.id}",
        f"{proxy.path(Part.CONFIG_DUMP)}: secrets / {name}",
        f"{name}: asked for, never arrived (warming)",
    )


# --- the handshake ----------------------------------------------------------------------------------------

_VERSIONS = {"TLSv1_0": 10, "TLSv1_1": 11, "TLSv1_2": 12, "TLSv1_3": 13}


def _versions(common: CommonTlsContext, *, client: bool) -> tuple[int, int]:
    """The TLS versions in use; TLS_AUTO is 1.2 at least, and at most 1.2 for Envoy's clients, 1.3 for servers."""
    low = _VERSIONS.get(common.tls_params.tls_minimum_protocol_version, 12)
    high = _VERSIONS.get(common.tls_params.tls_maximum_protocol_version, 12 if client else 13)
    return low, high


def handshake(
    mesh: Mesh, client: Proxy | None, target: Target, made: Offer, wanted: DownstreamTlsContext, where: str
) -> Hop:
    """Whether both sides accept each other, computed from the certificates in the two dumps at the capture's time."""
    server = target.server
    assert server is not None
    if made.context is None and made.kind == "tls" and wanted.require_client_certificate:
        return _no_client_certificate(server, where)
    if made.context is None:
        return Hop(Stage.TLS_ACCEPT, "unknown", "nothing is known of the client's TLS", server.id, where)
    offered = made.context.common_tls_context
    missing = missing_secret(server, wanted.common_tls_context)
    if missing is not None:
        return server_secret(server, missing, where)
    ours, theirs = _versions(offered, client=True), _versions(wanted.common_tls_context, client=False)
    if max(ours[0], theirs[0]) > min(ours[1], theirs[1]):
        return _no_common_version(server, client, where, ours, theirs)
    problem = _server_certificate(mesh, client, server, made, wanted) or _client_certificate(
        mesh, client, server, made, wanted, where
    )
    if problem is not None:
        return problem
    return Hop(Stage.TLS_ACCEPT, "pass", "both accept the other's certificate", server.id, where)


def _no_common_version(
    server: Proxy, client: Proxy | None, where: str, ours: tuple[int, int], theirs: tuple[int, int]
) -> Hop:
    sides = [("client", client, ours), ("server", server, theirs)]
    said = tuple(
        Evidence(f"proxy {proxy.id}", proxy.path(Part.CONFIG_DUMP), f"the {side} speaks {_span(versions)}")
        for side, proxy, versions in sides
        if proxy is not None
    )
    words = f"the client speaks {_span(ours)}, the server {_span(theirs)}: no TLS version in common"
    return Hop(
        Stage.TLS_ACCEPT,
        "fail",
        words,
        server.id,
        where,
        cause="tls-version-mismatch",
        evidence=said,
        detail={
            "client": _span(ours),
            "server": _span(theirs),
            "older": "client" if ours < theirs else "server",
        },
    )


def _span(versions: tuple[int, int]) -> str:
    low, high = (f"1.{version - 10}" for version in versions)
    return f"TLS {low}" if low == high else f"TLS {low} to {high}"


def server_secret(server: Proxy, name: str, where: str) -> Hop:
    return Hop(
        Stage.TLS_ACCEPT,
        "fail",
        f"the server's proxy never got its secret {name}",
        server.id,
        where,
        cause="server-secret-not-delivered",
        evidence=(_secret_evidence(server, name),),
        detail={"secret": name, "blame": server.id},
    )


def never_delivered(proxy: Proxy) -> str | None:
    """The name of a secret that the proxy asked for and never got; None where there is none such, or nothing is known."""
    config = proxy.config
    if isinstance(config, Unavailable):
        return None
    arrived = {entry.name for entry in config.secrets if not entry.warming and not _empty(entry)}
    return next((e.name for e in config.secrets if e.warming and e.name not in arrived), None)


def client_only(mesh: Mesh, client: Proxy | None, made: Offer) -> list[Hop]:
    """What the client's own certificate tells where the server's proxy can't be read: what most others say of it."""
    if client is None or made.context is None or made.kind != "mtls":
        return []
    chain_ = certificates(client, made.context.common_tls_context)
    if not chain_:
        return []
    fault = judged_by_others(mesh, chain_, (client,))
    if fault is not None:
        cause = _time_cause(fault, _CLIENT_CAUSES, "client-cert-untrusted-by-server")
        return [_rejected_client(mesh, client, client, chain_, fault, cause, "secret default", ())]
    for server, names in _servers_wishes(mesh, client):
        if san_fault(chain_[0], names) is not None:
            return [_wrong_client(client, server, chain_[0], names, "secret default")]
    return []


def _servers_wishes(mesh: Mesh, client: Proxy) -> Iterator[tuple[Proxy, tuple[StringMatcher, ...]]]:
    """The names that others' inbound listeners demand of callers."""
    for server in [proxy for proxy in mesh.proxies.values() if proxy is not client][:JURY]:
        config = server.config
        listeners = () if isinstance(config, Unavailable) else config.listeners
        inbound = [listener for listener in listeners if listener.traffic_direction == "INBOUND"]
        for candidate in (chain_ for listener in inbound for chain_ in listener.filter_chains):
            socket = candidate.transport_socket
            wanted = _decoded(socket, DownstreamTlsContext)
            if wanted is not None:
                yield server, validation(server, wanted.common_tls_context).names
                break


def certificates(proxy: Proxy, common: CommonTlsContext) -> tuple[Certificate, ...]:
    """The chain a context shows: from its SDS secret, else inline; () where it can't be read."""
    config = proxy.config
    if isinstance(config, Unavailable):
        return ()
    sources = [c.certificate_chain for c in common.tls_certificates]
    for sds in common.tls_certificate_sds_secret_configs:
        entry = config.secrets.get(sds.name)
        if entry is not None and entry.secret.tls_certificate is not None:
            sources.append(entry.secret.tls_certificate.certificate_chain)
    for source in sources:
        if source is not None:
            found = read_chain(source)
            return () if isinstance(found, DecodeProblem) else found
    return ()


class Trust(msgspec.Struct, frozen=True):
    """Whom a TLS context accepts. `readable`: its roots could be read; without roots it verifies nothing."""

    roots: tuple[Certificate, ...]
    names: tuple[StringMatcher, ...]
    readable: bool
    verifies: bool = True
    allows_expired: bool = False


def validation(proxy: Proxy, common: CommonTlsContext) -> Trust:
    """Whom a context accepts, inline and from its secrets together."""
    contexts: list[CertificateValidationContext] = []
    names: list[str] = []
    if common.validation_context is not None:
        contexts.append(common.validation_context)
    if common.combined_validation_context is not None:
        contexts.append(common.combined_validation_context.default_validation_context)
        if common.combined_validation_context.validation_context_sds_secret_config is not None:
            names.append(common.combined_validation_context.validation_context_sds_secret_config.name)
    if common.validation_context_sds_secret_config is not None:
        names.append(common.validation_context_sds_secret_config.name)
    config = proxy.config
    for name in names:
        entry = None if isinstance(config, Unavailable) else config.secrets.get(name)
        if entry is not None and entry.secret.validation_context is not None:
            contexts.append(entry.secret.validation_context)
    read = [read_chain(context.trusted_ca) for context in contexts if context.trusted_ca is not None]
    roots = [root for found in read if not isinstance(found, DecodeProblem) for root in found]
    return Trust(
        roots=tuple(roots),
        names=tuple(matcher for context in contexts for matcher in context.san_matchers()),
        readable=bool(roots) and all(context.custom_validator_config is None for context in contexts),
        verifies=all(context.trust_chain_verification == "VERIFY_TRUST_CHAIN" for context in contexts),
        allows_expired=any(context.allow_expired_certificate for context in contexts),
    )


def certificate_evidence(proxy: Proxy, certificate: Certificate, name: str = "default") -> Evidence:
    identity = ", ".join(certificate.uri_sans) or certificate.subject
    return Evidence(
        f"proxy {proxy.id}",
        f"{proxy.path(Part.CONFIG_DUMP)}: secrets / {name}",
        f"{identity}, serial {certificate.serial}, valid {_day(certificate.not_before)} to {_day(certificate.not_after)}, "
        f"issued by {certificate.issuer}",
    )


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


_SERVER_CAUSES = {
    "expired": "server-cert-expired",
    "not_yet_valid": "server-cert-not-yet-valid",
    "root_expired": "root-ca-expired",
}
_CLIENT_CAUSES = {
    "expired": "client-cert-expired",
    # The catalogue has no word of its own for a client's certificate that isn't valid yet: it isn't within its time.
    "not_yet_valid": "client-cert-expired",
    "root_expired": "root-ca-expired",
}


def _time_cause(fault: ChainFault, causes: dict[str, str], otherwise: str) -> str:
    """The cause that a chain's fault is; an authority's expiry is the same whether it is a root or an intermediate."""
    if fault.kind == "expired" and fault.depth > 0:
        return "root-ca-expired"
    return causes.get(fault.kind, otherwise)


def _server_certificate(
    mesh: Mesh, client: Proxy | None, server: Proxy, made: Offer, wanted: DownstreamTlsContext
) -> Hop | None:
    """Why the client rejects the server's certificate, if it does."""
    if client is None or made.context is None:
        return None
    chain_ = certificates(server, wanted.common_tls_context)
    trust = validation(client, made.context.common_tls_context)
    if not chain_ or not trust.readable:
        return None
    found = rejected_server(mesh, client, server, chain_, trust)
    if found is not None:
        return found
    return _wrong_server(client, server, chain_[0], trust.names)


def rejected_server(
    mesh: Mesh, client: Proxy, server: Proxy, chain_: tuple[Certificate, ...], trust: Trust
) -> Hop | None:
    """Why a client with this trust doesn't accept the server's chain, names apart."""
    fault = _first_fault(chain_, trust, mesh.captured_at)
    if fault is None:
        return None
    cause = _time_cause(fault, _SERVER_CAUSES, "server-cert-untrusted-by-client")
    blamed = server
    if cause == "server-cert-untrusted-by-client" and _most_trust(mesh, chain_, (client, server)):
        # Everybody else takes this certificate: the client's own trust bundle is the odd one.
        blamed = client
    return Hop(
        Stage.TLS_ACCEPT,
        "fail",
        f"the client rejects the server's certificate: {fault.why} (depth {fault.depth})",
        client.id,
        "cluster TLS context / validation",
        cause=cause,
        evidence=(certificate_evidence(server, chain_[0]), *_roots_evidence(client, trust.roots)),
        detail={"fault": fault, "blame": blamed.id, "certificate": chain_[0]},
    )


def _first_fault(chain_: tuple[Certificate, ...], trust: Trust, at: datetime) -> ChainFault | None:
    faults = verify(chain_, trust.roots, at, allow_expired=trust.allows_expired)
    return faults[0] if faults and trust.verifies else None


def _roots_evidence(proxy: Proxy, roots: tuple[Certificate, ...]) -> tuple[Evidence, ...]:
    return tuple(certificate_evidence(proxy, root, "ROOTCA") for root in roots[:3])


def _wrong_server(
    client: Proxy, server: Proxy, leaf: Certificate, names: tuple[StringMatcher, ...]
) -> Hop | None:
    """Why the server isn't who the client wants to talk to."""
    if san_fault(leaf, names) is None:
        return None
    expected, actual = wanted_names(names), shown_name(leaf)
    return Hop(
        Stage.TLS_ACCEPT,
        "fail",
        f"the server is {actual}, the client wants {', '.join(expected)}",
        client.id,
        "cluster TLS context / validation",
        cause=san_cause(actual, expected),
        evidence=(
            certificate_evidence(server, leaf),
            Evidence(
                f"proxy {client.id}",
                f"{client.path(Part.CONFIG_DUMP)}: cluster TLS context",
                f"match_subject_alt_names {', '.join(expected)}",
            ),
        ),
        detail={"expected": expected, "actual": actual, "blame": server.id, "certificate": leaf},
    )


def wanted_names(matchers: tuple[StringMatcher, ...]) -> tuple[str, ...]:
    """The names (or how they begin) that matchers want, for people."""
    return tuple(m.exact or m.prefix or m.suffix or m.contains or str(m) for m in matchers)


def shown_name(leaf: Certificate) -> str:
    return leaf.sans[0] if leaf.sans else leaf.subject


def san_cause(actual: str, expected: tuple[str, ...]) -> str:
    """Whether a name fails by its trust domain (or by not being a SPIFFE id at all) or by what follows it."""
    domains = {trust_domain(name) for name in expected} - {""}
    same = not domains or trust_domain(actual) in domains
    return "san-mismatch-service-account" if same else "san-mismatch-trust-domain"


def _no_client_certificate(server: Proxy, where: str) -> Hop:
    words = "the server demands a client certificate, the client sends none"
    said = Evidence(
        f"proxy {server.id}", f"{server.path(Part.CONFIG_DUMP)}: {where}", "require_client_certificate: true"
    )
    return Hop(
        Stage.TLS_ACCEPT,
        "fail",
        words,
        server.id,
        where,
        cause="client-sends-no-certificate",
        evidence=(said,),
    )


def _client_certificate(
    mesh: Mesh, client: Proxy | None, server: Proxy, made: Offer, wanted: DownstreamTlsContext, where: str
) -> Hop | None:
    """Why the server rejects the client's certificate, if it does."""
    if made.kind == "tls":
        if not wanted.require_client_certificate:
            return None
        return _no_client_certificate(server, where)
    if client is None or made.context is None:
        return None
    chain_ = certificates(client, made.context.common_tls_context)
    trust = validation(server, wanted.common_tls_context)
    if not chain_ or not trust.readable:
        return None
    fault = _first_fault(chain_, trust, mesh.captured_at)
    if fault is not None:
        cause = _time_cause(fault, _CLIENT_CAUSES, "client-cert-untrusted-by-server")
        if cause == "client-cert-untrusted-by-server" and _most_trust(mesh, chain_, (client, server)):
            cause = "server-root-bundle-outdated"
        return _rejected_client(
            mesh, client, server, chain_, fault, cause, where, _roots_evidence(server, trust.roots)
        )
    if san_fault(chain_[0], trust.names) is None:
        return None
    return _wrong_client(client, server, chain_[0], trust.names, where)


def _wrong_client(
    client: Proxy, server: Proxy, leaf: Certificate, names: tuple[StringMatcher, ...], where: str
) -> Hop:
    expected, actual = wanted_names(names), shown_name(leaf)
    return Hop(
        Stage.TLS_ACCEPT,
        "fail",
        f"the client is {actual}, the server takes {', '.join(expected)}",
        server.id,
        where,
        cause=san_cause(actual, expected),
        evidence=(certificate_evidence(client, leaf),),
        detail={"expected": expected, "actual": actual, "blame": client.id, "certificate": leaf},
    )


def _rejected_client(
    mesh: Mesh,
    client: Proxy,
    judge: Proxy,
    chain_: tuple[Certificate, ...],
    fault: ChainFault,
    cause: str,
    where: str,
    trusted: tuple[Evidence, ...],
) -> Hop:
    blamed = judge if cause == "server-root-bundle-outdated" else client
    return Hop(
        Stage.TLS_ACCEPT,
        "fail",
        f"the server rejects the client's certificate: {fault.why} (depth {fault.depth})",
        judge.id,
        where,
        cause=cause,
        evidence=(certificate_evidence(client, chain_[0]), *trusted),
        detail={"fault": fault, "blame": blamed.id, "certificate": chain_[0]},
    )


CERTIFICATE_CAUSES = (
    "client-cert-expired",
    "server-cert-expired",
    "server-cert-not-yet-valid",
    "root-ca-expired",
    "client-cert-untrusted-by-server",
    "server-cert-untrusted-by-client",
    "server-root-bundle-outdated",
    "san-mismatch-service-account",
    "san-mismatch-trust-domain",
    "client-secret-not-delivered",
    "server-secret-not-delivered",
)
"""The causes that this module decides from certificates and secrets; their hops' detail has `blame`, a ProxyId."""


class Unsound(msgspec.Struct, frozen=True):
    """A proxy whose own certificate others won't take, whoever calls: why, and what shows it."""

    proxy: Proxy
    cause: str
    why: str
    evidence: tuple[Evidence, ...]
    certificate: Certificate | None = None


def unsound(mesh: Mesh, proxy: Proxy, *, refused: bool) -> Unsound | None:
    """What is wrong with the mesh certificate that a proxy holds (or never got); None where nothing is.

    `refused`: the others break off handshakes with it, so that what they trust and whom they expect is looked at, too.
    """
    serves = _serves(proxy)
    waiting = never_delivered(proxy)
    if waiting is not None:
        cause = "server-secret-not-delivered" if serves else "client-secret-not-delivered"
        return Unsound(
            proxy, cause, f"it never got its secret {waiting}", (_secret_evidence(proxy, waiting),)
        )
    chain_ = mesh_chain(proxy)
    if not chain_:
        return None
    own = Trust(mesh_roots(proxy), (), True)
    fault = _first_fault(chain_, own, mesh.captured_at) if own.roots else None
    if refused or (fault is not None and fault.kind == "untrusted"):
        fault = judged_by_others(mesh, chain_, (proxy,))
    if fault is not None:
        cause = (
            _time_cause(fault, _SERVER_CAUSES, "server-cert-untrusted-by-client")
            if serves
            else _time_cause(fault, _CLIENT_CAUSES, "client-cert-untrusted-by-server")
        )
        shown = (certificate_evidence(proxy, chain_[0]), *_roots_evidence(proxy, own.roots))
        return Unsound(proxy, cause, f"{fault.why} (depth {fault.depth})", shown, fault.certificate)
    if not (refused and serves):
        return None
    for client, names in _callers_wishes(mesh, proxy):
        wrong = _wrong_server(client, proxy, chain_[0], names)
        if wrong is not None:
            return Unsound(proxy, wrong.cause, wrong.decision, wrong.evidence, chain_[0])
    return None


def _serves(proxy: Proxy) -> bool:
    config = proxy.config
    return not isinstance(config, Unavailable) and any(c.name.startswith("inbound|") for c in config.clusters)


def _callers_wishes(mesh: Mesh, server: Proxy) -> Iterator[tuple[Proxy, tuple[StringMatcher, ...]]]:
    """The names that others' clusters with an endpoint at this proxy demand."""
    own = set(mesh.ips(server))
    for client in [proxy for proxy in mesh.proxies.values() if proxy is not server][:JURY]:
        config = client.config
        if isinstance(config, Unavailable):
            continue
        for assignment in config.endpoints:
            sockets = [endpoint.endpoint.address.socket_address for endpoint in assignment.all()]
            cluster = config.clusters.get(assignment.cluster_name)
            if cluster is None or not any(socket and socket.address in own for socket in sockets):
                continue
            yield client, names_demanded(client, cluster)


def names_demanded(client: Proxy, cluster: Cluster) -> tuple[StringMatcher, ...]:
    """The names that a client's cluster demands of servers by mesh TLS."""
    sockets = [match.transport_socket for match in cluster.transport_socket_matches]
    found: list[StringMatcher] = []
    for socket in (*sockets, cluster.transport_socket):
        context = _decoded(socket, UpstreamTlsContext)
        if context is not None:
            found += validation(client, context.common_tls_context).names
    return tuple(found)


_Context = TypeVar("_Context", UpstreamTlsContext, DownstreamTlsContext)


def _decoded(socket: TypedExtension | None, kind: type[_Context]) -> _Context | None:
    """The TLS context of a transport socket; None where it is none, or can't be read."""
    if socket is None or not socket.type_url.endswith(kind.__name__):
        return None
    try:
        return socket.decode(kind)
    except msgspec.DecodeError:
        return None


JURY = 16
"""So many other proxies are asked what they think of a certificate; in a big mesh all have the same roots."""


def judged_by_others(
    mesh: Mesh, chain_: tuple[Certificate, ...], apart: tuple[Proxy, ...]
) -> ChainFault | None:
    """What is wrong with a chain for most of the other proxies' trust bundles; its owner's counts where there is no other."""
    bundles = _jury(mesh, apart) or [roots for proxy in apart[:1] if (roots := mesh_roots(proxy))]
    if not bundles:
        return None
    faults = verify(chain_, _most_common(bundles), mesh.captured_at)
    return faults[0] if faults else None


def lacking_roots(mesh: Mesh, proxy: Proxy) -> tuple[Certificate, ...]:
    """The roots that most others trust and this proxy doesn't."""
    bundles = _jury(mesh, (proxy,))
    own = mesh_roots(proxy)
    return tuple(root for root in _most_common(bundles) if root not in own) if bundles and own else ()


def _jury(mesh: Mesh, apart: tuple[Proxy, ...]) -> list[tuple[Certificate, ...]]:
    others = [proxy for proxy in mesh.proxies.values() if proxy not in apart][:JURY]
    return [roots for proxy in others if (roots := mesh_roots(proxy))]


def _most_common(bundles: list[tuple[Certificate, ...]]) -> tuple[Certificate, ...]:
    return max(bundles, key=bundles.count)


def _most_trust(mesh: Mesh, chain_: tuple[Certificate, ...], apart: tuple[Proxy, Proxy]) -> bool:
    """Whether most proxies but these two trust a chain; where there is no other, whether its owner does."""
    fault = judged_by_others(mesh, chain_, apart)
    return fault is None or fault.kind != "untrusted"


def mesh_chain(proxy: Proxy) -> tuple[Certificate, ...]:
    """The certificate by which a proxy is known in the mesh (secret default), with its chain."""
    config = proxy.config
    entry = None if isinstance(config, Unavailable) else config.secrets.get("default")
    shown = entry.secret.tls_certificate if entry is not None else None
    found = read_chain(shown.certificate_chain) if shown and shown.certificate_chain else ()
    return () if isinstance(found, DecodeProblem) else found


def mesh_roots(proxy: Proxy) -> tuple[Certificate, ...]:
    """The roots of a proxy's mesh trust bundle (secret ROOTCA)."""
    config = proxy.config
    if isinstance(config, Unavailable):
        return ()
    entry = config.secrets.get("ROOTCA")
    source = entry.secret.validation_context.trusted_ca if entry and entry.secret.validation_context else None
    found = read_chain(source) if source is not None else ()
    return () if isinstance(found, DecodeProblem) else found


def principals(client: Proxy, made: Offer) -> tuple[str, ...]:
    """The identities in the certificate that the client shows."""
    if made.context is None:
        return ()
    chain_ = certificates(client, made.context.common_tls_context)
    return chain_[0].uri_sans if chain_ else ()


def connection(
    mesh: Mesh, client: Proxy | None, workload: WorkloadId, target: Target, made: Offer
) -> Connection:
    """The connection as the server's proxy sees it."""
    address = next(iter(mesh.ips(client)), "") if client is not None else ""
    names = principals(client, made) if client is not None and made.kind == "mtls" else ()
    return Connection(
        source_address=address,
        destination_address=target.address,
        destination_port=target.port,
        server_name=made.sni if made.kind != "plaintext" else "",
        peer_principals=names,
        mtls=bool(names),
    )
