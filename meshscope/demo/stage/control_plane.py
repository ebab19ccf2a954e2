"""The control plane's sockets: resources over long-polled REST discovery, and the ADS stream to be seen.

Envoy fetches every resource with a POST of its own (`/v3/discovery:KIND`), which is held until there is
something new. Files watched by Envoy would do too, but each takes an inotify instance, and a host has 128.
The next request for a resource carries the version the proxy runs: that is its acknowledgement.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from meshscope.demo.stage.http import HEAD_LIMIT, read_body, read_head
from meshscope.demo.stage.network import Json

_HOLD_SECONDS = 50.0
_KINDS = {
    "listeners": "listener",
    "clusters": "cluster",
    "routes": "route",
    "endpoints": "endpoint",
    "secrets": "secret",
}


class Discovery:
    """Serves the files under `directory` (NAMESPACE/POD/KIND/NAME.json) to the proxies that own them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._sent: dict[str, tuple[str, float]] = {}  # file → version and when
        self.acknowledged: dict[str, str] = {}  # file → version
        self.frozen: set[str] = set()  # NAMESPACE/POD that get nothing new

    async def start(self, path: str) -> None:
        if not self._server:
            self._server = await asyncio.start_unix_server(self._serve, path, limit=HEAD_LIMIT, backlog=512)

    def wake(self) -> None:
        """The files may have changed: look again for everybody who waits."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await read_head(reader)
                request = json.loads(await read_body(reader, head.headers, response=False))
                body = await self._answer(head.first[1].rpartition(":")[2], request)
                status = "200 OK" if body else "304 Not Modified"
                lines = [f"HTTP/1.1 {status}", "content-type: application/json"]
                lines.append(f"content-length: {len(body)}")
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        writer.close()

    async def _answer(self, kind: str, request: Json) -> bytes:
        """The file's content once it is newer than what the proxy has; empty after a while without news."""
        pod, _, namespace = request["node"]["id"].split("~")[2].rpartition(".")
        name = request.get("resource_names", ["all"])[0].replace("/", "_")
        relative = f"{namespace}/{pod}/{_KINDS[kind]}/{name}.json"
        running = request.get("version_info", "")
        self.acknowledged[relative] = running
        deadline = time.monotonic() + _HOLD_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            changed = self._changed
            found = self._news(relative, running)
            if found:
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left)
        return b""

    def _news(self, relative: str, running: str) -> bytes:
        if relative.rsplit("/", 2)[0] in self.frozen:
            return b""
        try:
            content = (self._directory / relative).read_bytes()
        except FileNotFoundError:
            return b""
        version = json.loads(content)["version_info"]
        sent, when = self._sent.get(relative, ("", 0.0))
        # Sent and not taken: the proxy refused it, and would again.
        refused = sent == version and running not in ("", version) and time.monotonic() - when < _HOLD_SECONDS
        if version == running or refused:
            return b""
        self._sent[relative] = (version, time.monotonic())
        return content


def grpc_server(service: str, methods: Json) -> Any:
    """A gRPC server that deals in bytes; `methods` are handlers by name."""
    import grpc  # type: ignore[import-untyped]  # heavy, and not everything here needs it

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    return server


class ControlPlane:
    """A gRPC server that accepts the proxies' ADS streams and sends nothing: the connection is what counts."""

    def __init__(self) -> None:
        self._server: Any = None

    async def apply(self, path: str, *, up: bool) -> None:
        if up and not self._server:
            await self._start(path)
        elif not up and self._server:
            await self._server.stop(grace=None)
            self._server = None
            Path(path).unlink(missing_ok=True)

    async def _start(self, path: str) -> None:
        import grpc

        async def hold(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
            async for _request in requests:
                continue
            if False:  # What makes this a generator: one that yields nothing.
                yield b""

        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        methods = {
            name: grpc.stream_stream_rpc_method_handler(hold)
            for name in ("DeltaAggregatedResources", "StreamAggregatedResources")
        }
        self._server = grpc_server(service, methods)
        self._server.add_insecure_port(f"unix:{path}")
        await self._server.start()
