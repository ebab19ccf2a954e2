"""The request and the connection that Envoy's matchers look at."""

from __future__ import annotations

from typing import Any

import msgspec


class HttpRequest(msgspec.Struct, frozen=True):
    """One HTTP request: `path` with its query, lower-case header names without the pseudo headers."""

    method: str = "GET"
    authority: str = ""
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    scheme: str = "http"
    partial: bool = False
    """Whether it was read off a log line: a header that isn't here may have been there all the same."""
    guessed: bool = False
    """Whether no request was seen at all: method and path are made up."""

    def values(self, name: str) -> tuple[str, ...]:
        """A header's values, each line's by itself, pseudo headers too; empty where it is absent."""
        pseudo = {
            ":method": self.method,
            ":authority": self.authority,
            ":path": self.path,
            ":scheme": self.scheme,
        }
        lowered = name.lower()
        if lowered == "host":
            lowered = ":authority"
        if lowered in pseudo:
            return (pseudo[lowered],)
        return tuple(value for key, value in self.headers if key.lower() == lowered)

    def header(self, name: str) -> str | None:
        """A header's values in one text, joined by comma; None where it is absent."""
        values = self.values(name)
        return ",".join(values) if values else None

    @property
    def path_without_query(self) -> str:
        return self.path.partition("#")[0].partition("?")[0]


class Connection(msgspec.Struct, frozen=True):
    """What the server's proxy knows of a connection. None and "" mean what Envoy would see, not ignorance."""

    source_address: str = ""
    source_port: int = 0
    destination_address: str = ""
    destination_port: int = 0
    server_name: str = ""
    """SNI of the TLS handshake, "" for plaintext."""
    peer_principals: tuple[str, ...] = ()
    """The names in the peer's verified certificate, all of which Envoy tries: URI SANs, DNS SANs, and the
    subject ("CN=…,O=…") where it isn't empty (Istio's is). Empty without mTLS."""
    mtls: bool = False
    """The peer showed a certificate and it was verified."""
    dynamic_metadata: dict[str, Any] = {}
    """filter_metadata that earlier filters set (`envoy.filters.http.jwt_authn`, `istio_authn`, …)."""
    tls: bool = False
    """TLS, with or without a client certificate; see `encrypted`."""
    unknown: frozenset[str] = frozenset()
    """What isn't known of it after all: `peer` (the principals), or the name of a filter (its metadata)."""

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS at all: said so, or implied by a certificate or an SNI."""
        return self.tls or self.mtls or bool(self.server_name)
