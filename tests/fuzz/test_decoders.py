"""No decoder ever raises, whatever it is given: arbitrary bytes, arbitrary JSON, mutilated real answers."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshscope.envoy import config_dump as dump
from meshscope.envoy.access_log import AccessLogEntry, ProxyLog, read_log
from meshscope.envoy.certificates import LoadedCertificate, read_certs, read_chain, read_pem, verify
from meshscope.envoy.clusters import ClusterStatuses, read_clusters
from meshscope.envoy.config_dump import ConfigDump, ConfigDumpError, DataSource, DecodeProblem
from meshscope.envoy.server_info import ServerInfo, read_server_info
from meshscope.envoy.stats import Stats, moved, read_exposition, read_prometheus, read_text
from meshscope.istio.names import node_info
from meshscope.istio.syncz import SyncAnswer, read_syncz
from tests.recordings import files, proxies

FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
SOME = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


# --- what each decoder must hold to -------------------------------------------------------------------------


def _log(raw: bytes) -> None:
    found = read_log(raw)
    assert isinstance(found, ProxyLog)
    for entry in found.entries:
        assert entry == _typed(AccessLogEntry, entry)
        assert entry.start_time is None or entry.start_time.tzinfo is UTC
    for message in found.messages:
        assert message.time is None or message.time.tzinfo is UTC
    numbers = [entry.number for entry in found.entries] + [message.number for message in found.messages]
    assert all(1 <= number <= raw.count(b"\n") + 1 for number in numbers)


def _stats(raw: bytes) -> None:
    for read in (read_text, read_prometheus):
        stats = read(raw)
        for scope, name, stat, value in stats:
            assert all(isinstance(part, str) for part in (scope, name, stat))
            assert isinstance(value, float)
        assert isinstance(moved(stats, stats), Stats)
        assert all(value == 0 or value != value for *_, value in moved(stats, stats))
    for sample in read_exposition(raw):
        assert isinstance(sample.value, float)


def _clusters(raw: bytes) -> None:
    found = read_clusters(raw)
    assert isinstance(found, ClusterStatuses | DecodeProblem)
    if isinstance(found, ClusterStatuses):
        assert found == _typed(ClusterStatuses, found)
        assert all(isinstance(host.healthy, bool) for cluster in found for host in cluster.hosts)


def _server_info(raw: bytes) -> None:
    found = read_server_info(raw)
    assert isinstance(found, ServerInfo | DecodeProblem)
    if isinstance(found, ServerInfo):
        assert isinstance(found.envoy_version, str)
        node_info(found.node)


def _certs(raw: bytes) -> None:
    found = read_certs(raw)
    if not isinstance(found, DecodeProblem):
        assert all(isinstance(certificate, LoadedCertificate) for certificate in found)


def _syncz(raw: bytes) -> None:
    found = read_syncz(raw)
    assert isinstance(found, SyncAnswer)
    assert all(proxy.proxy and proxy.worst() for proxy in found)


def _config_dump(raw: bytes) -> None:
    try:
        found = ConfigDump(raw)
    except ConfigDumpError:
        return
    for kind in (found.clusters, found.listeners, found.routes, found.endpoints, found.secrets):
        assert all(isinstance(resource, msgspec.Struct) for resource in kind)
    assert isinstance(found.rejected, tuple)
    node_info(found.bootstrap.node)
    for cluster in found.clusters:
        _cluster(cluster)
    for listener in found.listeners:
        _listener(listener)
    for assignment in found.endpoints:
        assert all(
            isinstance(endpoint.tls_mode(), str) and endpoint.workload() is not None
            for endpoint in assignment.all()
        )
    for entry in found.secrets:
        if entry.secret.validation_context and entry.secret.validation_context.trusted_ca:
            read_chain(entry.secret.validation_context.trusted_ca)


def _cluster(cluster: dump.Cluster) -> None:
    assert isinstance(cluster.thresholds(), dump.Thresholds)
    dump.seconds(cluster.connect_timeout)
    cluster.metadata.istio()
    for match in cluster.transport_socket_matches:
        if match.transport_socket:
            _extension(match.transport_socket, dump.UpstreamTlsContext)


def _listener(listener: dump.Listener) -> None:
    assert all(isinstance(address.port_value, int) for address in listener.addresses())
    for chain in listener.filter_chains:
        for network_filter in chain.filters:
            assert isinstance(network_filter.type_url, str)
            _extension(network_filter, dump.HttpConnectionManager)


def _extension(extension: dump.TypedExtension, as_type: type[msgspec.Struct]) -> None:
    with contextlib.suppress(msgspec.DecodeError):
        assert isinstance(extension.decode(as_type), as_type)


def _typed(as_type: type[Any], value: Any) -> Any:
    """The value, once more checked against its own type."""
    return msgspec.convert(msgspec.to_builtins(value, builtin_types=(datetime,)), as_type)


DECODERS: dict[str, tuple[str, Callable[[bytes], None]]] = {
    "log": ("proxy.log", _log),
    "text": ("stats.txt", _stats),
    "prometheus": ("metrics.prom", _stats),
    "clusters": ("clusters.json", _clusters),
    "certs": ("certs.json", _certs),
    "server_info": ("server_info.json", _server_info),
    "config_dump": ("config_dump.json", _config_dump),
    "syncz": ("syncz.json", _syncz),
}
decoders = pytest.mark.parametrize("name", DECODERS)


# --- what they are given --------------------------------------------------------------------------------------


@decoders
@given(raw=st.binary(max_size=400))
@SOME
def test_arbitrary_bytes(name: str, raw: bytes) -> None:
    DECODERS[name][1](raw)


_words = st.sampled_from(
    [
        *["configs", "cluster_statuses", "certificates", "resources", "node", "id", "metadata", "name"],
        *["address", "socket_address", "port_value", "bootstrap", "static_clusters", "cluster", "@type"],
        *["host_statuses", "stats", "value", "health_status", "proxy", "sent", "acked", "genericXdsConfigs"],
        *["typeUrl", "version", "uptime_current_epoch", "start_time", "msg", "time", "response_code"],
        *["response_flags", "ca_cert", "cert_chain", "subject_alt_names", "dynamic_listeners"],
        *["active_state", "listener", "filter_chains", "filters", "typed_config", "endpoint_config"],
        *["endpoints", "lb_endpoints"],
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | _words,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_words | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)


@decoders
@given(document=_json)
@SOME
def test_arbitrary_json_in_the_words_of_envoy(name: str, document: Any) -> None:
    raw = json.dumps(document).encode()
    DECODERS[name][1](raw)
    DECODERS[name][1](b'{"configs":[' + raw + b"]}")


@decoders
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 6))
@FEW
def test_mutilated_real_answers(name: str, seed: int, changes: int) -> None:
    chance = random.Random(seed)
    raw = bytearray(chance.choice(_real(DECODERS[name][0])))
    for _ in range(changes):
        _mutilate(raw, chance)
    DECODERS[name][1](bytes(raw))


@pytest.mark.parametrize("name", [name for name, (file, _) in DECODERS.items() if file.endswith(".json")])
@given(seed=st.integers(0, 2**32))
@FEW
def test_real_answers_with_other_types_in_them(name: str, seed: int) -> None:
    """A value somewhere in a real JSON answer becomes one of another type, as another version might send it."""
    file, decode = DECODERS[name]
    chance = random.Random(seed)
    document = json.loads(chance.choice(_real(file)))
    for _ in range(3):
        _retype(document, chance)
    decode(json.dumps(document).encode())


@decoders
@pytest.mark.parametrize(
    "opening", [b"[", b'{"a":', b'{"configs":[{"bootstrap":', b'[{"resources":', b"\xef\xbb\xbf{"]
)
def test_deep_nesting(name: str, opening: bytes) -> None:
    for depth in (1000, 100_000):
        DECODERS[name][1](opening * depth)
        DECODERS[name][1](b'{"configs":[{"bootstrap":' + opening * depth)
        closing = b"]" if opening.startswith(b"[") and b"{" not in opening else b"}"
        DECODERS[name][1](b'{"configs":[' + opening * depth + b"1" + closing * depth + b"]}")


@given(raw=st.binary(max_size=300), text=st.text(max_size=50), prefix=st.booleans())
@SOME
def test_certificates(raw: bytes, text: str, prefix: bool) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + raw + b"\n-----END CERTIFICATE-----\n" if prefix else raw
    assert isinstance(read_pem(pem), tuple | DecodeProblem)
    assert isinstance(read_chain(DataSource(inline_bytes=text)), tuple | DecodeProblem)
    assert isinstance(read_chain(DataSource(inline_string=text)), tuple | DecodeProblem)


@given(seed=st.integers(0, 2**32))
@FEW
def test_mutilated_certificates(seed: int) -> None:
    """A certificate with changed bytes is read or is a problem, and can be judged either way."""
    chance = random.Random(seed)
    good = _chain()
    der = bytearray(good[0].der)
    for _ in range(chance.randint(1, 3)):
        der[chance.randrange(len(der))] = chance.randrange(256)
    found = read_pem(_pem(bytes(der)))
    if not isinstance(found, DecodeProblem):
        assert isinstance(verify(found, good, datetime.now(UTC)), tuple)
        assert isinstance(verify(good, found, datetime.now(UTC)), tuple)


@cache
def _real(file: str) -> tuple[bytes, ...]:
    """Real answers, one a recording; statistics are shortened, their lines being all alike."""
    if file == "syncz.json":
        return tuple(
            raw for proxy in proxies() for path, raw in files(proxy.recording).items() if path.endswith(file)
        )[:1]
    found = [proxy.read(file) for proxy in proxies() if proxy.pod.startswith(("client", "ratings"))]
    return tuple(raw if file.endswith(".json") else raw[:20_000] for raw in found if raw)


def _mutilate(raw: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(raw) + 1)
    match chance.randrange(5):
        case 0:
            del raw[at:]
        case 1:
            del raw[at : at + chance.randrange(200)]
        case 2:
            raw[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 8)))
        case 3:
            raw[at:at] = raw[: chance.randrange(300)]
        case _:
            raw[at : at + 1] = chance.choice(
                [b'"', b"{", b"}", b"\n", b"\\", b"null", b"-1", b"1e999", b"\xff"]
            )
    if not raw:
        raw += b" "


def _retype(document: Any, chance: random.Random) -> None:
    places = list(_places(document))
    container, key = chance.choice(places)
    container[key] = chance.choice([None, True, -1, 2**70, 1.5, "", "x", [], {}, [[]], {"a": {}}, [None]])


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    keys = (
        document.keys()
        if isinstance(document, dict)
        else range(len(document))
        if isinstance(document, list)
        else ()
    )
    for key in list(keys):
        yield document, key
        yield from _places(document[key])


@cache
def _chain() -> tuple[Any, ...]:
    entry = ConfigDump(_real("config_dump.json")[0]).secrets.get("default")
    assert entry is not None
    assert entry.secret.tls_certificate is not None
    assert entry.secret.tls_certificate.certificate_chain is not None
    found = read_chain(entry.secret.tls_certificate.certificate_chain)
    assert not isinstance(found, DecodeProblem)
    return found


def _pem(der: bytes) -> bytes:

    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"
