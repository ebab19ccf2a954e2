"""How the demo's applications reach each other: through a sidecar, or as one outside the mesh."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import random
from typing import Any
from urllib.parse import urlsplit

from meshscope.demo.stage.http import HEAD_LIMIT, read_body, read_head

Json = dict[str, Any]
_CALL_TIMEOUT = 10.0
_NOWHERE = "203.0.113.10"  # what DNS says of a host outside the mesh (TEST-NET-3, RFC 5737)


class _FailedError(Exception):
    """A call that got no answer; the text is the kind of failure."""


class Network:
    """How a workload's application reaches others: through its sidecar, or as one outside the mesh."""

    def __init__(self) -> None:
        self.names: dict[str, dict[str, str]] = {}
        self.endpoints: dict[str, list[str]] = {}

    async def connect(
        self, via: Json, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection for a workload; through a sidecar it starts with a PROXY line in the redirect's place."""
        address = self._resolve(via["namespace"], host)
        if via["sidecar"]:
            reader, writer = await asyncio.open_connection(via["address"], 15001, limit=HEAD_LIMIT)
            source_port = writer.get_extra_info("sockname")[1]
            writer.write(f"PROXY TCP4 {via['address']} {address} {source_port} {port}\r\n".encode())
            return reader, writer
        behind = self.endpoints.get(f"{address}:{port}")
        if behind is not None:
            if not behind:
                raise ConnectionRefusedError
            address, _, chosen = random.choice(behind).partition(":")
            port = int(chosen)
        return await asyncio.open_connection(address, port, local_addr=(via["address"], 0), limit=HEAD_LIMIT)

    def _resolve(self, namespace: str, host: str) -> str:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(host))
        known = self.names.get(namespace, {}).get(host)
        return known or _NOWHERE

    async def call(self, via: Json, url: str, headers: dict[str, str], flow: Json | None = None) -> Json:
        """One request or TCP exchange; what came back as {"status", "body"} or {"error"}."""
        flow = flow or {}
        timeout = flow.get("give_up_ms", _CALL_TIMEOUT * 1000) / 1000
        try:
            async with asyncio.timeout(timeout):
                parts = urlsplit(url)
                reader, writer = await self.connect(via, parts.hostname or "", parts.port or 80)
                try:
                    if parts.scheme == "tcp":
                        return await _exchange(reader, writer)
                    return await _request(reader, writer, url, headers, flow)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            return {"error": "timeout"}
        except ConnectionRefusedError:
            return {"error": "refused"}
        except (ConnectionResetError, BrokenPipeError):
            return {"error": "reset"}
        except (asyncio.IncompleteReadError, _FailedError, OSError) as error:
            return {"error": "closed" if isinstance(error, asyncio.IncompleteReadError) else str(error)}


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Json:
    writer.write(b"ping\n")
    line = await reader.readline()
    if not line:
        raise _FailedError("closed")
    return {"status": "ok", "body": line.decode("latin-1").strip()}


async def _request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str, headers: dict[str, str], flow: Json
) -> Json:
    parts = urlsplit(url)
    if flow.get("raw"):
        writer.write(flow["raw"].encode("latin-1"))
    else:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {
            "host": parts.netloc,
            "user-agent": "meshscope-demo",
            "accept": "*/*",
            "connection": "close",
            **headers,
        }
        size = flow.get("body_bytes", 0)
        if size:
            fields["content-length"] = str(size)
        lines = [f"{flow.get('method', 'GET')} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + b"x" * size)
    head = await read_head(reader)
    body = await read_body(reader, head.headers, response=True)
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        return {"status": int(head.first[1]), "body": json.loads(text)}
    return {"status": int(head.first[1]), "body": text[:200]}
