"""Decodes Envoy's /config_dump straight from bytes into the fields that meshscope reads.

Names are those of Envoy's protobuf messages (v3, JSON mapping: durations as "10s", wrappers bare, defaults
absent). Each resource is decoded on its own, when it is asked for, so that one that can't be read (another
version of Envoy, a truncated dump) costs itself alone and becomes a `DecodeProblem`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

T = TypeVar("T")


class DecodeProblem(Struct, frozen=True):
    """A part of an answer that can't be read: where it is and the decoder's words."""

    where: str
    why: str


def decode_json(raw: bytes | Raw, as_type: type[T]) -> T:
    """JSON as `as_type`, leniently (`"5"` is 5); whatever is wrong with it is a msgspec.DecodeError."""
    try:
        return msgspec.json.decode(raw, type=as_type, strict=False)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error


# --- addresses and small things -------------------------------------------------------------------------


class SocketAddress(Struct, frozen=True):
    address: str = ""
    port_value: int = 0
    named_port: str = ""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port_value}"


class Pipe(Struct, frozen=True):
    path: str = ""


class Address(Struct, frozen=True):
    socket_address: SocketAddress | None = None
    pipe: Pipe | None = None
    envoy_internal_address: dict[str, Any] | None = None

    def __str__(self) -> str:
        if self.socket_address:
            return str(self.socket_address)
        if self.pipe:
            return f"unix://{self.pipe.path}"
        return str(self.envoy_internal_address or "")


class Metadata(Struct, frozen=True):
    filter_metadata: dict[str, Any] = {}

    def istio(self) -> dict[str, Any]:
        found = self.filter_metadata.get("istio")
        return found if isinstance(found, dict) else {}


class TypedExtension(Struct, frozen=True):
    """A named extension: a filter, a transport socket, an access logger; `typed_config` undecoded."""

    name: str = ""
    typed_config: Raw | UnsetType = UNSET
    config_discovery: dict[str, Any] | None = None
    disabled: bool = False

    @property
    def type_url(self) -> str:
        if isinstance(self.typed_config, UnsetType):
            return ""
        try:
            found = decode_json(self.typed_config, _Typed)
        except msgspec.DecodeError:
            return ""
        return (found.type_url if found.wraps else found.type).rpartition("/")[2]

    def decode(self, as_type: type[T]) -> T:
        """The extension's configuration as `as_type`; raises msgspec.DecodeError where it can't be read."""
        if isinstance(self.typed_config, UnsetType):
            return as_type()
        found = decode_json(self.typed_config, _Typed)
        if not found.wraps:
            return decode_json(self.typed_config, as_type)
        return as_type() if isinstance(found.value, UnsetType) else decode_json(found.value, as_type)


class _Typed(Struct, frozen=True):
    """A message's type; xds (or udpa) TypedStruct, in which EnvoyFilters come, wraps `value` of `type_url`."""

    type: str = field(name="@type", default="")
    type_url: str = ""
    value: Raw | UnsetType = UNSET

    @property
    def wraps(self) -> bool:
        return self.type.endswith(".TypedStruct")


class Percent(Struct, frozen=True):
    value: float = 0.0


# --- clusters ---------------------------------------------------------------------------------------------


class Thresholds(Struct, frozen=True):
    """Circuit breaker limits; absent means Envoy's own default (1024, 1024, 1024, 3)."""

    priority: str = "DEFAULT"
    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    retry_budget: dict[str, Any] | None = None
    track_remaining: bool = False
    max_connection_pools: int | None = None


class CircuitBreakers(Struct, frozen=True):
    thresholds: tuple[Thresholds, ...] = ()
    per_host_thresholds: tuple[Thresholds, ...] = ()


class OutlierDetection(Struct, frozen=True):
    """Envoy's outlier detection; the defaults are those of the v3 message."""

    consecutive_5xx: int = 5
    interval: str = "10s"
    base_ejection_time: str = "30s"
    max_ejection_percent: int = 10
    enforcing_consecutive_5xx: int = 100
    enforcing_success_rate: int = 100
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_gateway_failure: int = 0
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int = 5
    always_eject_one_host: bool = False


class EdsClusterConfig(Struct, frozen=True):
    service_name: str = ""


class CommonLbConfig(Struct, frozen=True):
    healthy_panic_threshold: Percent | None = None
    """None is Envoy's default of 50 %; an empty message is 0: panic is off."""


class TransportSocketMatch(Struct, frozen=True):
    name: str = ""
    match: dict[str, Any] = {}
    transport_socket: TypedExtension | None = None


class EndpointAddress(Struct, frozen=True):
    address: Address = Address()
    hostname: str = ""


class LbEndpoint(Struct, frozen=True):
    endpoint: EndpointAddress = EndpointAddress()
    health_status: str = "UNKNOWN"
    metadata: Metadata = Metadata()
    load_balancing_weight: int = 1

    def tls_mode(self) -> str:
        """The value of `tlsMode` that picks the transport socket ("" where the endpoint has none)."""
        match = self.metadata.filter_metadata.get("envoy.transport_socket_match")
        return str(match.get("tlsMode", "")) if isinstance(match, dict) else ""

    def workload(self) -> tuple[str, ...]:
        """Istio's `workload;namespace;canonical;revision;cluster` of the endpoint, split; () where absent."""
        value = self.metadata.istio().get("workload")
        return tuple(str(value).split(";")) if value else ()


class Locality(Struct, frozen=True):
    region: str = ""
    zone: str = ""
    sub_zone: str = ""


class LocalityLbEndpoints(Struct, frozen=True):
    locality: Locality = Locality()
    lb_endpoints: tuple[LbEndpoint, ...] = ()
    load_balancing_weight: int | None = None
    priority: int = 0


class ClusterLoadAssignment(Struct, frozen=True):
    cluster_name: str = ""
    endpoints: tuple[LocalityLbEndpoints, ...] = ()
    policy: dict[str, Any] = {}

    def all(self) -> Iterator[LbEndpoint]:
        for locality in self.endpoints:
            yield from locality.lb_endpoints


class Cluster(Struct, frozen=True):
    name: str = ""
    type: str = "STATIC"
    cluster_type: dict[str, Any] | None = None
    eds_cluster_config: EdsClusterConfig | None = None
    connect_timeout: str = "5s"
    lb_policy: str = "ROUND_ROBIN"
    circuit_breakers: CircuitBreakers = CircuitBreakers()
    outlier_detection: OutlierDetection | None = None
    metadata: Metadata = Metadata()
    transport_socket: TypedExtension | None = None
    transport_socket_matches: tuple[TransportSocketMatch, ...] = ()
    load_assignment: ClusterLoadAssignment | None = None
    common_lb_config: CommonLbConfig = CommonLbConfig()
    typed_extension_protocol_options: dict[str, Raw] = {}
    http2_protocol_options: dict[str, Any] | None = None
    max_requests_per_connection: int | None = None
    alt_stat_name: str = ""
    health_checks: tuple[dict[str, Any], ...] = ()
    warming: bool = False

    def thresholds(self) -> Thresholds:
        """The limits in force for ordinary (DEFAULT priority) requests."""
        for found in self.circuit_breakers.thresholds:
            if found.priority == "DEFAULT":
                return found
        return Thresholds()


NO_LIMIT = 2**32 - 1
"""What Istio writes into a circuit breaker for a limit that isn't set."""


def in_words(limit: int) -> str:
    """A circuit breaker's limit for people."""
    return "any number of" if limit >= NO_LIMIT else str(limit)


# --- listeners --------------------------------------------------------------------------------------------


class CidrRange(Struct, frozen=True):
    address_prefix: str = ""
    prefix_len: int = 0


class FilterChainMatch(Struct, frozen=True):
    destination_port: int | None = None
    prefix_ranges: tuple[CidrRange, ...] = ()
    direct_source_prefix_ranges: tuple[CidrRange, ...] = ()
    source_prefix_ranges: tuple[CidrRange, ...] = ()
    source_type: str = "ANY"
    source_ports: tuple[int, ...] = ()
    server_names: tuple[str, ...] = ()
    transport_protocol: str = ""
    application_protocols: tuple[str, ...] = ()


class FilterChain(Struct, frozen=True):
    name: str = ""
    filter_chain_match: FilterChainMatch = FilterChainMatch()
    filters: tuple[TypedExtension, ...] = ()
    transport_socket: TypedExtension | None = None
    metadata: Metadata = Metadata()
    transport_socket_connect_timeout: str = ""

    def network_filter(self, type_suffix: str) -> TypedExtension | None:
        for found in self.filters:
            if found.type_url.endswith(type_suffix):
                return found
        return None


class AdditionalAddress(Struct, frozen=True):
    address: Address = Address()


class Listener(Struct, frozen=True):
    name: str = ""
    address: Address = Address()
    additional_addresses: tuple[AdditionalAddress, ...] = ()
    filter_chains: tuple[FilterChain, ...] = ()
    default_filter_chain: FilterChain | None = None
    listener_filters: tuple[TypedExtension, ...] = ()
    listener_filters_timeout: str = "15s"
    continue_on_listener_filters_timeout: bool = False
    traffic_direction: str = "UNSPECIFIED"
    use_original_dst: bool = False
    bind_to_port: bool = True
    filter_chain_matcher: dict[str, Any] | None = None
    stat_prefix: str = ""
    metadata: Metadata = Metadata()
    warming: bool = False

    def addresses(self) -> Iterator[SocketAddress]:
        for address in (self.address, *(more.address for more in self.additional_addresses)):
            if address.socket_address:
                yield address.socket_address


class Rds(Struct, frozen=True):
    route_config_name: str = ""


class HttpConnectionManager(Struct, frozen=True):
    stat_prefix: str = ""
    rds: Rds | None = None
    route_config: RouteConfiguration | None = None
    http_filters: tuple[TypedExtension, ...] = ()
    codec_type: str = "AUTO"
    stream_idle_timeout: str = ""
    request_timeout: str = ""
    max_request_headers_kb: int | None = None
    common_http_protocol_options: dict[str, Any] = {}
    http_protocol_options: dict[str, Any] = {}
    http2_protocol_options: dict[str, Any] = {}
    normalize_path: bool = False
    merge_slashes: bool = False
    path_with_escaped_slashes_action: str = ""
    use_remote_address: bool = False
    access_log: tuple[TypedExtension, ...] = ()
    server_name: str = ""
    strip_any_host_port: bool = False
    strip_matching_host_port: bool = False
    strip_trailing_host_dot: bool = False


class TcpWeightedCluster(Struct, frozen=True):
    name: str = ""
    weight: int = 0


class TcpWeightedClusters(Struct, frozen=True):
    clusters: tuple[TcpWeightedCluster, ...] = ()


class TcpProxy(Struct, frozen=True):
    stat_prefix: str = ""
    cluster: str = ""
    weighted_clusters: TcpWeightedClusters | None = None
    idle_timeout: str = ""
    max_connect_attempts: int | None = None
    access_log: tuple[TypedExtension, ...] = ()


# --- routes -----------------------------------------------------------------------------------------------


class VirtualHost(Struct, frozen=True):
    name: str = ""
    domains: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    require_tls: str = "NONE"
    typed_per_filter_config: dict[str, Raw] = {}
    retry_policy: RetryPolicy | None = None
    matcher: dict[str, Any] | None = None


class RouteConfiguration(Struct, frozen=True):
    name: str = ""
    virtual_hosts: tuple[VirtualHost, ...] = ()
    ignore_port_in_host_matching: bool = False
    ignore_path_parameters_in_path_matching: bool = False
    typed_per_filter_config: dict[str, Raw] = {}


class RouteMatch(Struct, frozen=True):
    """One path specifier, and conditions that all must hold. See meshscope.envoy.routes for the meaning."""

    prefix: str | None = None
    path: str | None = None
    safe_regex: RegexMatcher | None = None
    path_separated_prefix: str | None = None
    connect_matcher: dict[str, Any] | None = None
    path_match_policy: TypedExtension | None = None
    case_sensitive: bool = True
    runtime_fraction: RuntimeFraction | None = None
    headers: tuple[HeaderMatcher, ...] = ()
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    cookies: tuple[CookieMatcher, ...] = ()
    grpc: dict[str, Any] | None = None
    tls_context: dict[str, Any] | None = None
    dynamic_metadata: tuple[MetadataMatcher, ...] = ()
    filter_state: tuple[dict[str, Any], ...] = ()


class RegexMatcher(Struct, frozen=True):
    regex: str = ""


class FractionalPercent(Struct, frozen=True):
    numerator: int = 0
    denominator: str = "HUNDRED"

    @property
    def share(self) -> float:
        """The fraction as a ratio 0 to 1."""
        return self.numerator / {"TEN_THOUSAND": 10_000, "MILLION": 1_000_000}.get(self.denominator, 100)


class RuntimeFraction(Struct, frozen=True):
    default_value: FractionalPercent = FractionalPercent()
    runtime_key: str = ""


class StringMatcher(Struct, frozen=True):
    exact: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    contains: str | None = None
    safe_regex: RegexMatcher | None = None
    custom: dict[str, Any] | None = None
    ignore_case: bool = False


class Int64Range(Struct, frozen=True):
    start: int = 0
    end: int = 0


class HeaderMatcher(Struct, frozen=True):
    """A condition on one header; the `*_match` fields outside `string_match` are Envoy's older spellings."""

    name: str = ""
    string_match: StringMatcher | None = None
    exact_match: str | None = None
    prefix_match: str | None = None
    suffix_match: str | None = None
    contains_match: str | None = None
    safe_regex_match: RegexMatcher | None = None
    range_match: Int64Range | None = None
    present_match: bool | None = None
    invert_match: bool = False
    treat_missing_header_as_empty: bool = False


class QueryParameterMatcher(Struct, frozen=True):
    name: str = ""
    string_match: StringMatcher | None = None
    present_match: bool | None = None


class CookieMatcher(Struct, frozen=True):
    name: str = ""
    string_match: StringMatcher | None = None
    invert_match: bool = False


class DoubleRange(Struct, frozen=True):
    start: float = 0.0
    end: float = 0.0


class DoubleMatcher(Struct, frozen=True):
    range: DoubleRange | None = None
    exact: float | None = None


class ListMatcher(Struct, frozen=True):
    one_of: ValueMatcher | None = None


class OrMatcher(Struct, frozen=True):
    value_matchers: tuple[ValueMatcher, ...] = ()


class ValueMatcher(Struct, frozen=True):
    """A condition on one value of dynamic metadata."""

    null_match: dict[str, Any] | None = None
    double_match: DoubleMatcher | None = None
    string_match: StringMatcher | None = None
    bool_match: bool | None = None
    present_match: bool | None = None
    list_match: ListMatcher | None = None
    or_match: OrMatcher | None = None


class PathSegment(Struct, frozen=True):
    key: str = ""


class MetadataMatcher(Struct, frozen=True):
    filter: str = ""
    path: tuple[PathSegment, ...] = ()
    value: ValueMatcher = ValueMatcher()
    invert: bool = False


class WeightedCluster(Struct, frozen=True):
    name: str = ""
    cluster_header: str = ""
    weight: int = 0
    typed_per_filter_config: dict[str, Raw] = {}


class WeightedClusters(Struct, frozen=True):
    clusters: tuple[WeightedCluster, ...] = ()
    total_weight: int | None = None
    header_name: str = ""
    use_hash_policy: bool = False
    runtime_key_prefix: str = ""


class RetryPolicy(Struct, frozen=True):
    retry_on: str = ""
    num_retries: int = 1
    per_try_timeout: str = ""
    per_try_idle_timeout: str = ""
    retriable_status_codes: tuple[int, ...] = ()
    host_selection_retry_max_attempts: int | None = None


class MaxStreamDuration(Struct, frozen=True):
    max_stream_duration: str = ""
    grpc_timeout_header_max: str = ""


class RequestMirrorPolicy(Struct, frozen=True):
    cluster: str = ""
    runtime_fraction: RuntimeFraction | None = None


class RouteAction(Struct, frozen=True):
    """Where a matched request goes. `timeout` "" is Envoy's default of 15 s, "0s" is none."""

    cluster: str | None = None
    cluster_header: str | None = None
    weighted_clusters: WeightedClusters | None = None
    cluster_specifier_plugin: str = ""
    inline_cluster_specifier_plugin: dict[str, Any] | None = None
    cluster_not_found_response_code: str = "SERVICE_UNAVAILABLE"
    timeout: str = ""
    idle_timeout: str = ""
    retry_policy: RetryPolicy | None = None
    max_stream_duration: MaxStreamDuration | None = None
    prefix_rewrite: str = ""
    regex_rewrite: dict[str, Any] | None = None
    host_rewrite_literal: str = ""
    request_mirror_policies: tuple[RequestMirrorPolicy, ...] = ()
    max_grpc_timeout: str = ""
    rate_limits: tuple[dict[str, Any], ...] = ()


class RedirectAction(Struct, frozen=True):
    https_redirect: bool = False
    scheme_redirect: str = ""
    host_redirect: str = ""
    port_redirect: int | None = None
    path_redirect: str = ""
    prefix_rewrite: str = ""
    response_code: str = "MOVED_PERMANENTLY"
    strip_query: bool = False


class DirectResponse(Struct, frozen=True):
    status: int = 0
    body: dict[str, Any] | None = None


class Route(Struct, frozen=True):
    name: str = ""
    match: RouteMatch = RouteMatch()
    route: RouteAction | None = None
    redirect: RedirectAction | None = None
    direct_response: DirectResponse | None = None
    non_forwarding_action: dict[str, Any] | None = None
    metadata: Metadata = Metadata()
    typed_per_filter_config: dict[str, Raw] = {}
    decorator: dict[str, Any] | None = None


# --- TLS --------------------------------------------------------------------------------------------------


class DataSource(Struct, frozen=True):
    """Certificate bytes as the dump has them: inline (base64 or text) or a file's name."""

    inline_bytes: str = ""
    inline_string: str = ""
    filename: str = ""


class SubjectAltNameMatcher(Struct, frozen=True):
    san_type: str = ""
    matcher: StringMatcher = StringMatcher()


class CertificateValidationContext(Struct, frozen=True):
    trusted_ca: DataSource | None = None
    match_subject_alt_names: tuple[StringMatcher, ...] = ()
    match_typed_subject_alt_names: tuple[SubjectAltNameMatcher, ...] = ()
    verify_certificate_spki: tuple[str, ...] = ()
    verify_certificate_hash: tuple[str, ...] = ()
    allow_expired_certificate: bool = False
    trust_chain_verification: str = "VERIFY_TRUST_CHAIN"
    custom_validator_config: TypedExtension | None = None

    def san_matchers(self) -> tuple[StringMatcher, ...]:
        return (*self.match_subject_alt_names, *(m.matcher for m in self.match_typed_subject_alt_names))


class SdsSecretConfig(Struct, frozen=True):
    name: str = ""


class CombinedValidationContext(Struct, frozen=True):
    default_validation_context: CertificateValidationContext = CertificateValidationContext()
    validation_context_sds_secret_config: SdsSecretConfig | None = None


class TlsParams(Struct, frozen=True):
    tls_minimum_protocol_version: str = "TLS_AUTO"
    tls_maximum_protocol_version: str = "TLS_AUTO"


class TlsCertificate(Struct, frozen=True):
    certificate_chain: DataSource | None = None


class CommonTlsContext(Struct, frozen=True):
    tls_params: TlsParams = TlsParams()
    alpn_protocols: tuple[str, ...] = ()
    tls_certificates: tuple[TlsCertificate, ...] = ()
    tls_certificate_sds_secret_configs: tuple[SdsSecretConfig, ...] = ()
    validation_context: CertificateValidationContext | None = None
    validation_context_sds_secret_config: SdsSecretConfig | None = None
    combined_validation_context: CombinedValidationContext | None = None


class UpstreamTlsContext(Struct, frozen=True):
    common_tls_context: CommonTlsContext = CommonTlsContext()
    sni: str = ""
    auto_host_sni: bool = False


class DownstreamTlsContext(Struct, frozen=True):
    common_tls_context: CommonTlsContext = CommonTlsContext()
    require_client_certificate: bool = False
    require_sni: bool = False


class Secret(Struct, frozen=True):
    name: str = ""
    tls_certificate: TlsCertificate | None = None
    validation_context: CertificateValidationContext | None = None


# --- the dump ---------------------------------------------------------------------------------------------


class ErrorState(Struct, frozen=True):
    """Why Envoy refused an update: its own words, and when."""

    details: str = ""
    last_update_attempt: str = ""
    version_info: str = ""


class _ClusterEntry(Struct, frozen=True):
    cluster: Raw | UnsetType = UNSET
    version_info: str = ""
    last_updated: str = ""
    error_state: ErrorState | None = None


class _ListenerState(Struct, frozen=True):
    listener: Raw | UnsetType = UNSET
    version_info: str = ""
    last_updated: str = ""


class _ListenerEntry(Struct, frozen=True):
    name: str = ""
    active_state: _ListenerState | None = None
    warming_state: _ListenerState | None = None
    draining_state: _ListenerState | None = None
    error_state: ErrorState | None = None
    listener: Raw | UnsetType = UNSET
    last_updated: str = ""


class _RouteEntry(Struct, frozen=True):
    route_config: Raw | UnsetType = UNSET
    version_info: str = ""
    last_updated: str = ""
    error_state: ErrorState | None = None


class _EndpointEntry(Struct, frozen=True):
    endpoint_config: Raw | UnsetType = UNSET
    version_info: str = ""
    last_updated: str = ""
    error_state: ErrorState | None = None


class SecretEntry(Struct, frozen=True):
    """An SDS secret and how far it came: `warming` is one that was asked for and never arrived."""

    name: str = ""
    secret: Secret = Secret()
    version_info: str = ""
    last_updated: str = ""
    error_state: ErrorState | None = None
    warming: bool = False


class _ExtensionEntry(Struct, frozen=True):
    ecds_filter: Raw | UnsetType = UNSET
    version_info: str = ""
    last_updated: str = ""
    error_state: ErrorState | None = None


class _SecretMessage(Struct, frozen=True):
    name: str = ""
    secret: Raw | UnsetType = UNSET
    version_info: str = ""
    error_state: ErrorState | None = None


MessageKind = Literal["cluster", "listener", "route", "endpoint", "secret", "extension"]
MessageState = Literal["ACTIVE", "WARMING", "STATIC", "UNINITIALIZED"]


class Message(Struct, frozen=True):
    """One resource as Envoy printed it, and how far it came; `name` is the entry's own where it has one."""

    raw: Raw
    state: MessageState
    name: str = ""
    rejected: bool = False
    """Whether Envoy refused a newer version of it."""


class Node(Struct, frozen=True):
    id: str = ""
    cluster: str = ""
    metadata: dict[str, Any] = {}
    locality: Locality = Locality()
    user_agent_build_version: dict[str, Any] = {}


class Bootstrap(Struct, frozen=True):
    node: Node = Node()
    dynamic_resources: dict[str, Any] = {}
    overload_manager: dict[str, Any] | None = None
    layered_runtime: dict[str, Any] | None = None
    stats_config: dict[str, Any] | None = None


class _Section(Struct, frozen=True):
    """Any of the dump's sections: their fields' names differ, so one shape reads them all in one pass."""

    type: str = field(name="@type", default="")
    bootstrap: Raw | UnsetType = UNSET
    static_clusters: tuple[Raw, ...] = ()
    dynamic_active_clusters: tuple[Raw, ...] = ()
    dynamic_warming_clusters: tuple[Raw, ...] = ()
    static_listeners: tuple[Raw, ...] = ()
    dynamic_listeners: tuple[Raw, ...] = ()
    static_route_configs: tuple[Raw, ...] = ()
    dynamic_route_configs: tuple[Raw, ...] = ()
    static_endpoint_configs: tuple[Raw, ...] = ()
    dynamic_endpoint_configs: tuple[Raw, ...] = ()
    static_secrets: tuple[Raw, ...] = ()
    dynamic_active_secrets: tuple[Raw, ...] = ()
    dynamic_warming_secrets: tuple[Raw, ...] = ()
    ecds_filters: tuple[Raw, ...] = ()


class _Dump(Struct, frozen=True):
    configs: tuple[Raw, ...] = ()


class Rejected(Struct, frozen=True):
    """An update that this proxy refused: `kind` is listener, cluster or route; `name` may be unknown ("")."""

    kind: str
    name: str
    error: ErrorState


class Resources(Generic[T]):
    """The readable resources of one kind, by name, in the dump's order, and what couldn't be read."""

    def __init__(self) -> None:
        self.by_name: dict[str, T] = {}
        self.all: list[T] = []
        self.problems: list[DecodeProblem] = []

    def get(self, name: str) -> T | None:
        return self.by_name.get(name)

    def __iter__(self) -> Iterator[T]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def add(self, name: str, resource: T) -> None:
        self.all.append(resource)
        self.by_name.setdefault(name, resource)


class ConfigDumpError(ValueError):
    """The bytes are no config dump; the message says what they are instead."""


class ConfigDump:
    """What one Envoy really holds. Kinds are decoded on first use; nothing is read twice."""

    def __init__(self, raw: bytes) -> None:
        """Raises ConfigDumpError where `raw` isn't an Envoy config dump at all."""
        self.problems: list[DecodeProblem] = []
        try:
            dump = decode_json(raw, _Dump)
        except msgspec.DecodeError as error:
            raise ConfigDumpError(str(error)) from error
        if not dump.configs:
            raise ConfigDumpError("no `configs`: this is not an Envoy config dump, or an empty one")
        self._sections: list[_Section] = []
        for position, section in enumerate(dump.configs):
            decoded = self._decode(section, _Section, f"configs[{position}]")
            if decoded is not None:
                self._sections.append(decoded)

    def _decode(self, raw: Raw, as_type: type[T], where: str) -> T | None:
        try:
            return decode_json(raw, as_type)
        except msgspec.DecodeError as error:
            self.problems.append(DecodeProblem(where, str(error)))
            return None

    def _entries(self, fields: tuple[str, ...], as_type: type[T]) -> Iterator[tuple[str, T]]:
        for section in self._sections:
            for name in fields:
                for position, raw in enumerate(getattr(section, name)):
                    entry = self._decode(raw, as_type, f"{name}[{position}]")
                    if entry is not None:
                        yield name, entry

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """The bootstrap; an empty one where the dump has none."""
        for section in self._sections:
            if not isinstance(section.bootstrap, UnsetType):
                found = self._decode(section.bootstrap, Bootstrap, "bootstrap")
                if found is not None:
                    return found
        return Bootstrap()

    @cached_property
    def bootstrap_message(self) -> Raw | None:
        """The bootstrap as Envoy printed it."""
        found = (section.bootstrap for section in self._sections)
        return next((raw for raw in found if not isinstance(raw, UnsetType)), None)

    def messages(self, kind: MessageKind) -> Iterator[Message]:
        """All resources of a kind as Envoy printed them: what came over xDS first, then the static ones."""
        for field_name, state in _MESSAGES[kind].items():
            for _, entry in self._entries((field_name,), _ENTRY_TYPES[kind]):
                found = _message(entry, state)
                if found is not None:
                    yield found

    def has(self, kind: MessageKind) -> bool:
        """Whether the dump has the section of a kind (a masked one hasn't): without, no resource means nothing."""
        return any(section.type.endswith(_SECTION_TYPES[kind]) for section in self._sections)

    @property
    def has_clusters(self) -> bool:
        """Whether the dump has a cluster section (a masked or refused one hasn't)."""
        return any(section.type.endswith("ClustersConfigDump") for section in self._sections)

    @property
    def has_listeners(self) -> bool:
        return any(section.type.endswith("ListenersConfigDump") for section in self._sections)

    @property
    def has_endpoints(self) -> bool:
        """Whether endpoints were asked for (`include_eds`); without, an absent one means nothing."""
        return any(section.type.endswith("EndpointsConfigDump") for section in self._sections)

    @cached_property
    def rejected(self) -> tuple[Rejected, ...]:
        """Updates this proxy refused, as far as the dump tells (a rejected CDS isn't in it)."""
        found: list[Rejected] = []
        for _, listener in self._entries(("dynamic_listeners",), _ListenerEntry):
            if listener.error_state:
                found.append(Rejected("listener", listener.name, listener.error_state))
        for _, cluster in self._entries(
            ("dynamic_active_clusters", "dynamic_warming_clusters"), _ClusterEntry
        ):
            if cluster.error_state:
                found.append(Rejected("cluster", "", cluster.error_state))
        for _, route in self._entries(("dynamic_route_configs",), _RouteEntry):
            if route.error_state:
                found.append(Rejected("route", "", route.error_state))
        return tuple(found)

    @cached_property
    def clusters(self) -> Resources[Cluster]:
        """Active clusters, static ones included; a warming one only where no active one has its name."""
        resources: Resources[Cluster] = Resources()
        fields = ("static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters")
        for where, entry in self._entries(fields, _ClusterEntry):
            if isinstance(entry.cluster, UnsetType):
                continue
            cluster = self._decode(entry.cluster, Cluster, where)
            if cluster is None:
                continue
            if where == "dynamic_warming_clusters":
                if cluster.name in resources.by_name:
                    continue
                cluster = msgspec.structs.replace(cluster, warming=True)
            resources.add(cluster.name, cluster)
        return resources

    @cached_property
    def listeners(self) -> Resources[Listener]:
        """Active listeners, static ones included; a warming one only where no active one has its name."""
        resources: Resources[Listener] = Resources()
        for where, entry in self._entries(("static_listeners", "dynamic_listeners"), _ListenerEntry):
            warming = entry.active_state is None and entry.warming_state is not None
            state = entry.active_state or entry.warming_state
            raw = state.listener if state else entry.listener
            if isinstance(raw, UnsetType):
                continue
            listener = self._decode(raw, Listener, where)
            if listener is None:
                continue
            if warming:
                listener = msgspec.structs.replace(listener, warming=True)
            resources.add(listener.name or entry.name, listener)
        return resources

    @cached_property
    def routes(self) -> Resources[RouteConfiguration]:
        """Route configurations from RDS, by name; inline ones live in their connection manager."""
        resources: Resources[RouteConfiguration] = Resources()
        for where, entry in self._entries(("dynamic_route_configs", "static_route_configs"), _RouteEntry):
            if isinstance(entry.route_config, UnsetType):
                continue
            routes = self._decode(entry.route_config, RouteConfiguration, where)
            if routes is not None:
                resources.add(routes.name, routes)
        return resources

    @cached_property
    def endpoints(self) -> Resources[ClusterLoadAssignment]:
        """Load assignments by cluster (or EDS service) name."""
        resources: Resources[ClusterLoadAssignment] = Resources()
        fields = ("static_endpoint_configs", "dynamic_endpoint_configs")
        for where, entry in self._entries(fields, _EndpointEntry):
            if isinstance(entry.endpoint_config, UnsetType):
                continue
            assignment = self._decode(entry.endpoint_config, ClusterLoadAssignment, where)
            if assignment is not None:
                resources.add(assignment.cluster_name, assignment)
        return resources

    @cached_property
    def secrets(self) -> Resources[SecretEntry]:
        """SDS secrets by name; keys are redacted by Envoy itself and never decoded here."""
        resources: Resources[SecretEntry] = Resources()
        fields = ("static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets")
        for where, entry in self._entries(fields, SecretEntry):
            if where == "dynamic_warming_secrets":
                if entry.name in resources.by_name:
                    continue
                entry = msgspec.structs.replace(entry, warming=True)
            resources.add(entry.name, entry)
        return resources


_SECTION_TYPES: dict[MessageKind, str] = {
    "cluster": "ClustersConfigDump",
    "listener": "ListenersConfigDump",
    "route": ".RoutesConfigDump",
    "endpoint": "EndpointsConfigDump",
    "secret": "SecretsConfigDump",
    "extension": "EcdsConfigDump",
}
_ENTRY_TYPES: dict[MessageKind, type[Any]] = {
    "cluster": _ClusterEntry,
    "listener": _ListenerEntry,
    "route": _RouteEntry,
    "endpoint": _EndpointEntry,
    "secret": _SecretMessage,
    "extension": _ExtensionEntry,
}
_MESSAGES: dict[MessageKind, dict[str, MessageState]] = {
    "cluster": {
        "dynamic_active_clusters": "ACTIVE",
        "dynamic_warming_clusters": "WARMING",
        "static_clusters": "STATIC",
    },
    "listener": {"dynamic_listeners": "ACTIVE", "static_listeners": "STATIC"},
    "route": {"dynamic_route_configs": "ACTIVE", "static_route_configs": "STATIC"},
    "endpoint": {"dynamic_endpoint_configs": "ACTIVE", "static_endpoint_configs": "STATIC"},
    "secret": {
        "dynamic_warming_secrets": "WARMING",
        "dynamic_active_secrets": "ACTIVE",
        "static_secrets": "STATIC",
    },
    "extension": {"ecds_filters": "ACTIVE"},
}


def _message(entry: Any, state: MessageState) -> Message | None:
    match entry:
        case (
            _ClusterEntry(cluster=raw)
            | _RouteEntry(route_config=raw)
            | _EndpointEntry(endpoint_config=raw)
            | _ExtensionEntry(ecds_filter=raw)
        ):
            name = ""
        case _SecretMessage(secret=raw, name=name, version_info=version):
            state = "UNINITIALIZED" if version == "uninitialized" and state == "ACTIVE" else state
        case _ListenerEntry(name=name):
            found = entry.active_state or entry.warming_state
            raw = found.listener if found else entry.listener
            state = "WARMING" if entry.active_state is None and entry.warming_state else state
        case _:
            return None
    return None if isinstance(raw, UnsetType) else Message(raw, state, name, entry.error_state is not None)


_DURATION_UNITS = {"ms": 0.001, "us": 1e-6, "ns": 1e-9, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float | None:
    """Seconds of a protobuf or Go duration ("10s", "0.25s", "500ms", "1m30s"); None where there is none."""
    if not duration:
        return None
    parts = re.findall(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|us|ns|s|m|h)", duration)
    if not parts:
        return None
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
