"""Where a verdict can't be certain under a condition: which causes must then be named, and why no more can be known."""

from __future__ import annotations

import msgspec


class Undecidable(msgspec.Struct, frozen=True):
    """`causes` must all be named with a confidence of at most 0.6; none: the report must say what is unknown."""

    reason: str
    causes: frozenset[str] = frozenset()


_REFUSED_CLIENT = Undecidable(
    "the server counts refused certificates and doesn't say whose, nor whether they were expired or of a foreign root; "
    "that is only in the secrets of the caller's proxy, which is the one that couldn't be read",
    frozenset({"client-cert-expired", "client-cert-untrusted-by-server"}),
)

UNDECIDABLE: dict[tuple[str, str], Undecidable] = {
    ("client-cert-expired", "no-client-proxy"): _REFUSED_CLIENT,
    ("client-cert-untrusted-by-server", "no-client-proxy"): _REFUSED_CLIENT,
    ("client-secret-not-delivered", "no-client-proxy"): Undecidable(
        "without its certificate the client's proxy fails every request itself and opens no connection: nobody else "
        "sees anything, and that proxy is the one that couldn't be read",
    ),
    ("server-root-bundle-outdated", "no-server-proxy"): Undecidable(
        "the server closes after the handshake and only its own proxy knows why; the caller's certificate is good for "
        "everybody else, which makes the server's trust bundle the likeliest",
        frozenset({"server-root-bundle-outdated"}),
    ),
    ("server-secret-not-delivered", "no-server-proxy"): Undecidable(
        "a reset handshake is all that a caller sees of a server that has no certificate, of one that takes no mTLS and "
        "of a connection limit alike; what tells them apart is in the server's proxy, which couldn't be read",
        frozenset({"server-secret-not-delivered"}),
    ),
}
"""By (cause, condition). A condition not listed here must give the cause first, as with everything there."""
