"""Which filter chain takes a connection: one property after the other, never back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshscope.envoy.config_dump import Listener
from meshscope.envoy.listeners import FilterChainsNotUnderstood, filter_chain, server_names

Json = dict[str, Any]


def listener(default: bool = False, **matches: Json) -> Listener:
    chains = [{"name": name, "filter_chain_match": match} for name, match in matches.items()]
    return msgspec.convert(
        {"filter_chains": chains, **({"default_filter_chain": {"name": "default"}} if default else {})},
        Listener,
    )


def chain(it: Listener, **connection: Any) -> str | None:
    asked: Json = {
        "destination_address": "10.0.0.2",
        "destination_port": 9080,
        "transport_protocol": "tls",
        "server_name": "",
        "application_protocols": (),
        **connection,
    }
    found = filter_chain(it, **asked)
    return found.name if found else None


def test_absent_conditions_match_all() -> None:
    assert chain(listener(it={})) == "it"


def test_no_chain_is_none_or_the_default() -> None:
    assert chain(listener(it={"destination_port": 80})) is None
    assert chain(listener(default=True, it={"destination_port": 80})) == "default"


def test_a_port_that_is_named_is_not_left_again() -> None:
    it = listener(port={"destination_port": 9080, "transport_protocol": "raw_buffer"}, rest={})
    assert chain(it) is None
    assert chain(it, destination_port=80) == "rest"


def test_the_narrowest_range_wins_even_if_it_fits_no_further() -> None:
    it = listener(
        wide={"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
        narrow={
            "prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 24}],
            "application_protocols": ["h2"],
        },
        rest={},
    )
    assert chain(it, application_protocols=("h2",)) == "narrow"
    assert chain(it) is None
    assert chain(it, destination_address="10.9.0.1") == "wide"
    assert chain(it, destination_address="192.0.2.1") == "rest"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.example.com", "exact"),
        ("A.EXAMPLE.com", "exact"),
        ("b.example.com", "near"),
        ("x.b.example.com", "near"),
        ("example.com", "far"),
        ("com", "rest"),
        ("", "rest"),
    ],
)
def test_server_names(name: str, expected: str) -> None:
    it = listener(
        far={"server_names": ["*.com"]},
        near={"server_names": ["*.example.com"]},
        exact={"server_names": ["A.example.com"]},
        rest={},
    )
    assert chain(it, server_name=name) == expected


def test_what_a_server_name_is_looked_up_as() -> None:
    assert server_names("a.b.c") == ("a.b.c", "*.b.c", "*.c")
    assert server_names(".b.c") == (".b.c", "*.c")
    assert server_names("a.") == ("a.",)


def test_istios_permissive_chains() -> None:
    it = listener(
        mtls={"transport_protocol": "tls", "application_protocols": ["istio", "istio-http/1.1"]},
        tls={"transport_protocol": "tls"},
        plain={"transport_protocol": "raw_buffer"},
    )
    assert chain(it, application_protocols=("istio-peer-exchange", "istio")) == "mtls"
    assert chain(it, application_protocols=("h2",)) == "tls"
    assert chain(it, transport_protocol="raw_buffer") == "plain"


def test_a_strict_server_has_no_chain_for_plaintext() -> None:
    it = listener(mtls={"transport_protocol": "tls", "application_protocols": ["istio"]})
    assert chain(it, transport_protocol="raw_buffer") is None
    assert chain(it, application_protocols=("h2",)) is None


def test_the_callers_first_protocol_that_any_chain_names_wins() -> None:
    it = listener(a={"application_protocols": ["h2"]}, b={"application_protocols": ["istio"]})
    assert chain(it, application_protocols=("x", "istio", "h2")) == "b"


@pytest.mark.parametrize(
    ("source", "expected"),
    [("127.0.0.1", "local"), ("10.0.0.2", "local"), ("127.0.0.2", "external"), ("10.9.9.9", "external")],
)
def test_loopback_is_127_0_0_1_alone(source: str, expected: str) -> None:
    it = listener(local={"source_type": "SAME_IP_OR_LOOPBACK"}, external={"source_type": "EXTERNAL"})
    assert chain(it, source_address=source) == expected


def test_source_addresses_and_ports() -> None:
    near: Json = {"source_prefix_ranges": [{"address_prefix": "10.9.0.0", "prefix_len": 16}]}
    it = listener(port={**near, "source_ports": [4000]}, near=near, rest={})
    assert chain(it, source_address="10.9.1.1", source_port=4000) == "port"
    assert chain(it, source_address="10.9.1.1", source_port=4001) == "near"
    assert chain(it) == "rest"


def test_a_match_tree_is_not_understood() -> None:
    with pytest.raises(FilterChainsNotUnderstood):
        chain(Listener(name="tree", filter_chain_matcher={}))
