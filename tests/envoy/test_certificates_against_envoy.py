"""Our verdicts on certificate chains are those of a real Envoy."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from meshscope.envoy.certificates import verify
from tests.differential.envoy import RunningEnvoy, envoy_binary, free_ports
from tests.envoy.chains import LEAF, NOW, ROOT, Scenario, issue, scenarios

BINARY = envoy_binary()
pytestmark = pytest.mark.skipif(BINARY is None, reason="needs a real Envoy (extra meshscope[demo])")


@pytest.fixture(scope="module")
def reasons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What Envoy says of each scenario's client certificate, by the scenario's name; "" where it takes it."""
    assert BINARY is not None
    directory = tmp_path_factory.mktemp("chains")
    log = directory / "access.log"
    ports = dict(zip((s.name for s in scenarios()), free_ports(Random(), len(scenarios())), strict=True))
    server = issue(LEAF, by=issue(ROOT))
    listeners = [_listener(s, ports[s.name], server.pem, server.key_pem, log) for s in scenarios()]
    with RunningEnvoy(BINARY, directory, {"listeners": listeners}):
        for scenario in scenarios():
            _connect(scenario, ports[scenario.name], directory)
        yield _read(log, len(ports))


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_envoy_says_the_same(scenario: Scenario, reasons: dict[str, str]) -> None:
    faults = verify(scenario.shown(), scenario.trusted(), NOW)
    expected = f"depth_{faults[0].depth}:_{faults[0].why.replace(' ', '_')}" if faults else ""
    if expected:
        assert expected in reasons[scenario.name]
    else:
        assert reasons[scenario.name] == "-"


def _listener(scenario: Scenario, port: int, chain: str, key: str, log: Path) -> dict[str, Any]:
    roots = "".join(root.pem for root in scenario.roots)
    context = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
            ],
            "validation_context": {"trusted_ca": {"inline_string": roots}},
        },
    }
    echo = {"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}
    file_log = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    line = {
        "text_format_source": {"inline_string": f"{scenario.name} %DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n"}
    }
    return {
        "name": scenario.name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "access_log": [
            {"name": "file", "typed_config": {"@type": file_log, "path": str(log), "log_format": line}}
        ],
        "filter_chains": [
            {
                "filters": [{"name": "echo", "typed_config": echo}],
                "transport_socket": {"name": "tls", "typed_config": context},
            }
        ],
    }


def _connect(scenario: Scenario, port: int, directory: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    chain, key = directory / "chain.pem", directory / "key.pem"
    chain.write_text("".join(found.pem for found in scenario.chain))
    key.write_text(scenario.chain[0].key_pem)
    context.load_cert_chain(chain, key)
    # With TLS 1.3 the handshake is over here before the server has judged the certificate.
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain) as secured,
    ):
        secured.sendall(b"anybody?")
        secured.recv(10)


def _read(log: Path, lines: int) -> dict[str, str]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        text = log.read_text() if log.exists() else ""
        if text.count("\n") >= lines:
            break
        time.sleep(0.05)
    return dict(line.split(" ", 1) for line in text.splitlines())
