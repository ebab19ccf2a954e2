"""Raw clients for the differential test: HTTP/1.1 on one connection, bytes for an echo over TCP, a bare TLS ClientHello."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from functools import lru_cache
from io import BufferedReader

from msgspec import Struct

from meshscope.envoy.request import HttpRequest
from tests.differential.certificates import Authority

_TIMEOUT_SECONDS = 10
_HELLO = b"hello, echo"
"""Long enough for Envoy's TLS inspector to tell that it isn't TLS."""


class Endpoint(Struct, frozen=True):
    """Where a client connects, and from which loopback address."""

    address: str
    port: int
    source: str = "127.0.0.1"


class TlsClient(Struct, frozen=True):
    """How a client speaks TLS: with which identity's certificate ("" for none) and SNI."""

    identity: str = ""
    server_name: str = ""


class Response(Struct, frozen=True):
    """`grpc_message` stands in for the body where Envoy answers a gRPC caller."""

    status: int
    body: str
    grpc_message: str = ""


def connected(endpoint: Endpoint, tls: TlsClient | None, authority: Authority) -> socket.socket:
    """A connection to the endpoint, its TLS handshake done."""
    plain = socket.socket()
    plain.settimeout(_TIMEOUT_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.bind((endpoint.source, 0))
    plain.connect((endpoint.address, endpoint.port))
    if tls is None:
        return plain
    return _context(authority, tls.identity).wrap_socket(plain, server_hostname=tls.server_name or None)


@lru_cache(maxsize=64)
def _context(authority: Authority, identity: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity:
        context.load_cert_chain(authority.certificate(identity), authority.key(identity))
    return context


def request_bytes(request: HttpRequest) -> bytes:
    """The request as HTTP/1.1, latin-1 where it isn't ASCII."""
    target = request.authority if request.method == "CONNECT" else request.path
    lines = [f"{request.method} {target} HTTP/1.1", f"host: {request.authority}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def exchange(
    endpoint: Endpoint, tls: TlsClient | None, authority: Authority, requests: list[HttpRequest]
) -> Iterator[Response | None]:
    """Sends the requests one by one and gives the answers in order; None where there is none.

    Envoy closes a connection after what its codec refuses, and one that carried a CONNECT is used up; the
    rest then goes over a new one. (Envoy leaves pipelined requests lying after an answer of its own.)
    """
    position = 0
    while position < len(requests):
        answered = 0
        with connected(endpoint, tls, authority) as stream:
            for response in _one_by_one(stream, requests[position:]):
                answered += 1
                yield response
        if not answered:
            answered = 1
            yield None
        position += answered


def _one_by_one(stream: socket.socket, requests: list[HttpRequest]) -> Iterator[Response]:
    reader = stream.makefile("rb")
    try:
        for request in requests:
            stream.sendall(request_bytes(request))
            response, goes_on = _read_response(reader)
            if response is None:
                return
            yield response
            if not goes_on or request.method == "CONNECT":
                return
    except OSError:
        return
    finally:
        reader.close()


def _read_response(stream: BufferedReader) -> tuple[Response | None, bool]:
    """The next response, and whether the connection goes on after it."""
    status_line = stream.readline()
    if not status_line.endswith(b"\n"):
        return None, False
    headers: dict[str, str] = {}
    while (line := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0"))).decode("latin-1")
    response = Response(int(status_line.split()[1]), body, headers.get("grpc-message", ""))
    return response, headers.get("connection", "").lower() != "close"


def echoed(endpoint: Endpoint, tls: TlsClient | None, authority: Authority) -> tuple[bool, int]:
    """Whether bytes come back from an echo behind the endpoint, and the client's port."""
    with connected(endpoint, tls, authority) as stream:
        port: int = stream.getsockname()[1]
        try:
            stream.sendall(_HELLO)
            return stream.recv(1) == _HELLO[:1], port
        except OSError:
            return False, port


def client_hello(server_name: str, application_protocols: tuple[str, ...]) -> bytes:
    """The first bytes of a TLS handshake that offers these."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if application_protocols:
        context.set_alpn_protocols(list(application_protocols))
    outgoing = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name or None)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


def first_answer(endpoint: Endpoint, first: bytes) -> str:
    """What comes back after the first bytes, until the other side closes; "" for nothing."""
    received = b""
    with socket.socket() as stream:
        stream.settimeout(_TIMEOUT_SECONDS)
        stream.bind((endpoint.source, 0))
        stream.connect((endpoint.address, endpoint.port))
        try:
            stream.sendall(first)
            while piece := stream.recv(4096):
                received += piece
        except OSError:
            pass
    return received.decode("latin-1")
