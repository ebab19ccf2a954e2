"""Which filter chain of a listener takes a connection.

Envoy matches one property after the other and never goes back: the most specific value that any of the
remaining chains names is taken, and chains that name none are for the rest (FilterChainMatch in
envoy.config.listener.v3, "the following order applies").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Literal

from meshscope.envoy import matching
from meshscope.envoy.config_dump import CidrRange, FilterChain, FilterChainMatch, Listener

_Chains = list[FilterChain]
_NO_ADDRESS = "255.255.255.255"
"""What Envoy takes for a peer without an IP address: only chains without address conditions match it."""


class FilterChainsNotUnderstood(Exception):
    """The listener picks its filter chain by a match tree, which isn't evaluated here."""


def filter_chain(
    listener: Listener,
    *,
    destination_address: str,
    destination_port: int,
    transport_protocol: Literal["tls", "raw_buffer"],
    server_name: str,
    application_protocols: tuple[str, ...],
    source_address: str = "",
    source_port: int = 0,
) -> FilterChain | None:
    """The chain that takes such a connection, else the default chain, else None (Envoy closes it).

    `application_protocols` are those the caller offers (ALPN; for plaintext what the HTTP inspector detects:
    `http/1.0`, `http/1.1`, `h2c`), in its order. Raises FilterChainsNotUnderstood for a match tree.
    """
    if listener.filter_chain_matcher is not None:
        raise FilterChainsNotUnderstood(listener.name)
    names = server_names(server_name)
    source_types = ("SAME_IP_OR_LOOPBACK" if _is_local(source_address, destination_address) else "EXTERNAL",)
    chains: _Chains = list(listener.filter_chains)
    chains = _first_named(chains, _ports, (str(destination_port),))
    chains = _longest_prefix(chains, lambda match: match.prefix_ranges, destination_address)
    chains = _first_named(chains, _server_names, names)
    chains = _first_named(chains, _transport_protocols, (transport_protocol,))
    chains = _first_named(chains, lambda match: match.application_protocols, application_protocols)
    chains = _longest_prefix(chains, lambda match: match.direct_source_prefix_ranges, source_address)
    chains = _first_named(chains, _source_types, source_types)
    chains = _longest_prefix(chains, lambda match: match.source_prefix_ranges, source_address)
    chains = _first_named(chains, lambda match: tuple(map(str, match.source_ports)), (str(source_port),))
    return chains[0] if chains else listener.default_filter_chain


def server_names(server_name: str) -> tuple[str, ...]:
    """What an SNI is looked up as, best first: itself, then `*.` with ever shorter parents."""
    name = matching.ascii_lower(server_name)
    if not name:
        return ()
    labels = name[1:].split(".")
    labels[0] = name[0] + labels[0]
    return (name, *("*." + ".".join(labels[start:]) for start in range(1, len(labels)) if labels[-1]))


def _first_named(
    chains: _Chains, named: Callable[[FilterChainMatch], tuple[str, ...]], values: Iterable[str]
) -> _Chains:
    """The chains that name the first of `values` that any chain names, else those that name nothing."""
    for value in values:
        found = [chain for chain in chains if value in named(chain.filter_chain_match)]
        if found:
            return found
    return [chain for chain in chains if not named(chain.filter_chain_match)]


def _longest_prefix(
    chains: _Chains, ranges: Callable[[FilterChainMatch], tuple[CidrRange, ...]], address: str
) -> _Chains:
    """The chains with the narrowest range around `address`; no range at all is the widest one."""
    ip = _ip(address)
    best = -1
    found: _Chains = []
    for chain in chains:
        listed = ranges(chain.filter_chain_match)
        length = max((_length_around(ip, cidr) for cidr in listed), default=0)
        if length > best:
            best, found = length, []
        if length == best and length >= 0:
            found.append(chain)
    return found


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return ipaddress.ip_address(_NO_ADDRESS)


def _length_around(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, cidr: CidrRange) -> int:
    block = matching.network(cidr)
    return block.prefixlen if block is not None and ip in block else -1


def _ports(match: FilterChainMatch) -> tuple[str, ...]:
    return (str(match.destination_port),) if match.destination_port else ()


def _server_names(match: FilterChainMatch) -> tuple[str, ...]:
    return tuple(map(matching.ascii_lower, match.server_names))


def _transport_protocols(match: FilterChainMatch) -> tuple[str, ...]:
    return (match.transport_protocol,) if match.transport_protocol else ()


def _source_types(match: FilterChainMatch) -> tuple[str, ...]:
    return () if match.source_type == "ANY" else (match.source_type,)


def _is_local(source_address: str, destination_address: str) -> bool:
    """Envoy's "same IP or loopback", for which 127.0.0.1 and ::1 alone are loopback."""
    return source_address in ("127.0.0.1", "::1") or (
        bool(source_address) and source_address == destination_address
    )
