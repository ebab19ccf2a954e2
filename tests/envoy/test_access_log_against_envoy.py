"""Istio's text format as a real Envoy writes it, hostile requests included."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from random import Random

import pytest

from meshscope.envoy.access_log import AccessLogEntry, read_log
from tests.differential.envoy import RunningEnvoy, envoy_binary, free_ports

BINARY = envoy_binary()
pytestmark = pytest.mark.skipif(BINARY is None, reason="needs a real Envoy (extra meshscope[demo])")

ISTIO_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" '
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" '
    "%UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
REQUESTS = (
    ("/", "curl/8"),
    ("/?q=1", 'say "hello" agent'),
    ('/a"b', '" "id" "host" "1.1.1.1:1" c l d r s route'),
    ("/%22", 'HTTP/1.1" 200 - via_upstream - "-" 0 0 0 - "-" "'),
)


def test_what_was_sent_is_what_is_read(tmp_path: Path) -> None:
    assert BINARY is not None
    (port,) = free_ports(Random(), 1)
    log = tmp_path / "access.log"
    with RunningEnvoy(BINARY, tmp_path, {"listeners": [_listener(port, log)]}):
        for path, agent in REQUESTS:
            _send(port, path, agent)
        entries = _entries(log)
    assert [(entry.path, entry.user_agent) for entry in entries] == list(REQUESTS)
    for entry in entries:
        assert (entry.method, entry.protocol, entry.authority) == ("GET", "HTTP/1.1", "reviews:9080")
        assert (entry.response_code, entry.response_code_details) == (418, "direct_response")
        assert entry.route_name == "teapot"
        assert entry.downstream_local_address == f"127.0.0.1:{port}"


def _listener(port: int, log: Path) -> dict[str, object]:
    extensions = "type.googleapis.com/envoy.extensions"
    file_log = {
        "@type": f"{extensions}.access_loggers.file.v3.FileAccessLog",
        "path": str(log),
        "log_format": {"text_format_source": {"inline_string": ISTIO_FORMAT}},
    }
    route = {"name": "teapot", "match": {"prefix": "/"}, "direct_response": {"status": 418}}
    router = {"@type": f"{extensions}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound",
        "access_log": [{"name": "file", "typed_config": file_log}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": router}],
    }
    return {
        "name": "inbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _send(port: int, path: str, agent: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nhost: reviews:9080\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request.encode())
        connection.recv(4096)


def _entries(log: Path) -> tuple[AccessLogEntry, ...]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = read_log(log.read_bytes()) if log.exists() else read_log(b"")
        if len(found.entries) + found.unreadable >= len(REQUESTS):
            break
        time.sleep(0.05)
    assert found.unreadable == 0
    return found.entries
