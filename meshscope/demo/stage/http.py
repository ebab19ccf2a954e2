"""As much HTTP/1.1 as the demo's applications need, on asyncio streams."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

HEAD_LIMIT = 1 << 20


@dataclass
class Head:
    first: list[str]
    headers: dict[str, str]


async def read_head(reader: asyncio.StreamReader, begun: bytes = b"") -> Head:
    """The first line and the headers; `begun` is what was read of them already."""
    raw = begun + await reader.readuntil(b"\r\n\r\n")
    lines = raw.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name:
            headers[name.strip().lower()] = value.strip()
    return Head(lines[0].split(" ", 2), headers)


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str], *, response: bool) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read() if response else b""
