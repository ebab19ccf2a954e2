"""A bookinfo application: answers as it should, or misbehaves as it is told."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qs, urlsplit

from meshscope.demo.stage.control_plane import grpc_server
from meshscope.demo.stage.http import HEAD_LIMIT, Head, read_body, read_head
from meshscope.demo.stage.network import Json, Network

_PROPAGATED = (
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "authorization",
    "user",
)
_WELL: Json = {"kind": "ok", "status": 200, "delay_ms": 0}


class Application:
    """One port of one pod's application."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._wanted: Json = {}
        self._server: Any = None  # asyncio's or gRPC's
        self._full: list[socket.socket] = []
        self._connections: set[asyncio.StreamWriter] = set()
        self._count = itertools.count(1)

    async def apply(self, wanted: Json) -> None:
        self._wanted = wanted
        kind = wanted["behaviour"]["kind"]
        if kind in ("refuse", "drop"):
            await self.stop()
        if kind == "drop":
            self._full = _full_backlog(wanted["address"], wanted["port"])
        elif kind != "refuse" and not self._server:
            self._drain()
            self._server = await self._listen(wanted["address"], wanted["port"])

    async def _listen(self, address: str, port: int) -> Any:
        if self._wanted["protocol"] == "ratelimit":
            server = _rate_limiter()
            server.add_insecure_port(f"{address}:{port}")
            await server.start()
            return server
        return await asyncio.start_server(self._serve, address, port, limit=HEAD_LIMIT, backlog=512)

    async def stop(self) -> None:
        self._drain()
        if isinstance(self._server, asyncio.Server):
            self._server.close()
        elif self._server:
            await self._server.stop(grace=None)
        self._server = None
        for writer in list(self._connections):
            writer.transport.abort()

    def _drain(self) -> None:
        for end in self._full:
            end.close()
        self._full = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            if self._wanted["protocol"] == "http":
                while await self._answer(reader, writer):
                    await writer.drain()
            else:
                await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # The peer left or spoke nonsense: nothing to answer any more.
        finally:
            self._connections.discard(writer)
            writer.close()

    def _misbehaves(self) -> bool:
        """Evenly spread: of N requests, N x share."""
        share = self._wanted["behaviour"]["share"]
        number = next(self._count)
        return int(number * share) != int((number - 1) * share)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behaviour = self._wanted["behaviour"]
        if self._wanted["protocol"] == "tcp-server-first":
            writer.write(b"hello\n")
        bad = self._misbehaves()
        while data := await reader.read(65536):
            if bad and behaviour["kind"] in ("close", "reset"):
                if behaviour["kind"] == "reset":
                    _reset_on_close(writer)
                return
            if bad and behaviour["kind"] == "silent":
                continue
            if behaviour["delay_ms"]:
                await asyncio.sleep(behaviour["delay_ms"] / 1000)
            writer.write(data)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection goes on."""
        first = await reader.readexactly(1)
        # Servers refuse at the first byte that can't begin a method: a TLS hello never ends in an empty line.
        head = await read_head(reader, first) if first.isalpha() else Head([], {})
        if len(head.first) != 3 or not head.first[2].startswith("HTTP/1."):
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return False
        await read_body(reader, head.headers, response=False)
        behaviour = self._wanted["behaviour"] if self._misbehaves() else _WELL
        query = parse_qs(urlsplit(head.first[1]).query)
        delay = behaviour["delay_ms"] + int(query.get("delay_ms", ["0"])[0])
        if delay:
            await asyncio.sleep(delay / 1000)
        kind = behaviour["kind"]
        if kind == "close":
            return False
        if kind == "reset":
            _reset_on_close(writer)
            return False
        if kind == "silent":
            await reader.read()
            return False
        if kind == "garbage":
            writer.write(b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n")
            return False
        body = json.dumps(await self._body(head), separators=(",", ":"), sort_keys=True).encode() + b"\n"
        status = behaviour["status"] if kind == "ok" else 200
        promised = len(body) + (1000 if kind in ("die-mid-body", "stall-body") else 0)
        fields = [
            f"HTTP/1.1 {status} {'OK' if status == 200 else 'Status'}",
            "content-type: application/json",
        ]
        fields.append(f"content-length: {promised}")
        if kind == "huge-headers":
            fields.append(f"x-huge: {'h' * 131072}")
        writer.write("\r\n".join([*fields, "", ""]).encode("latin-1") + body)
        if kind == "stall-body":
            await reader.read()
        return bool(kind == "ok")

    async def _body(self, head: Head) -> Json:
        wanted = self._wanted
        headers = {name: value for name, value in head.headers.items() if name in _PROPAGATED}
        hosts = [urlsplit(url).hostname or "" for url in wanted["calls"]]
        calls: list[Coroutine[Any, Any, Json]] = [
            self._network.call(wanted["via"], url, headers) for url in wanted["calls"]
        ]
        answers = dict(zip(hosts, await asyncio.gather(*calls), strict=True))
        return {"service": wanted["service"], "version": wanted["version"], "pod": wanted["pod"], **answers}


def _full_backlog(address: str, port: int) -> list[socket.socket]:
    """A listening socket whose queue is full: the kernel drops every further SYN."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(0)
    ends = [listener]
    for _ in range(3):
        caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        caller.setblocking(False)
        caller.connect_ex((address, port))
        ends.append(caller)
    return ends


def _rate_limiter() -> Any:
    """Envoy's rate limit service, which always answers OVER_LIMIT (RateLimitResponse.overall_code = 2)."""
    import grpc  # type: ignore[import-untyped]  # heavy, and only few meshes need it

    async def should_rate_limit(_request: bytes, _context: Any) -> bytes:
        return b"\x08\x02"

    handler = grpc.unary_unary_rpc_method_handler(should_rate_limit)
    return grpc_server("envoy.service.ratelimit.v3.RateLimitService", {"ShouldRateLimit": handler})


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Lingering for zero seconds makes the kernel send RST."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
