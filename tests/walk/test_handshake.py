"""The walk judges handshakes in a real Istio's dumps as the certificates in them say: here with other certificates."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from meshscope.envoy.request import HttpRequest
from meshscope.facts.mesh import Mesh
from meshscope.model.names import ProxyId, WorkloadId
from meshscope.sources.bundle import open_bundle
from meshscope.walk.hops import Hop
from meshscope.walk.walk import Call, walk
from tests.envoy.chains import DAY, NOW, Issued, Wish, issue
from tests.recordings import files

HOUR = timedelta(hours=1)
RECORDING = "healthy-fullstats"
CLIENT, SERVER = "productpage-v1", "details-v1"
ACCOUNTS = {CLIENT: "bookinfo-productpage", SERVER: "bookinfo-details"}


@cache
def root(name: str = "mesh", *, expired: bool = False) -> Issued:
    return issue(Wish(name=name, ca=True, start=-30 * DAY, end=-HOUR if expired else 30 * DAY))


@dataclass(frozen=True)
class Held:
    """What a proxy holds: its certificate's parts, and the roots it trusts. No certificate: it never arrived."""

    start: timedelta = -HOUR
    end: timedelta = DAY
    issuer: Issued | None = None
    domain: str = "cluster.local"
    account: str = ""
    roots: tuple[Issued, ...] = ()
    delivered: bool = True

    def secrets(self, account: str) -> dict[str, Any]:
        by = self.issuer or root()
        uri = f"spiffe://{self.domain}/ns/bookinfo/sa/{self.account or account}"
        leaf = issue(Wish(name="", start=self.start, end=self.end, uri=uri), by)
        chain = {"certificate_chain": {"inline_bytes": encoded(leaf.pem + by.pem)}}
        trusted = {"inline_bytes": encoded("".join(one.pem for one in self.roots or (root(),)))}
        default = {"name": "default", "secret": {"name": "default", "tls_certificate": chain}}
        roots = {
            "name": "ROOTCA",
            "secret": {"name": "ROOTCA", "validation_context": {"trusted_ca": trusted}},
        }
        if self.delivered:
            return {"dynamic_active_secrets": [default, roots]}
        waiting = {"name": "default", "version_info": "uninitialized", "secret": {"name": "default"}}
        return {"dynamic_active_secrets": [roots], "dynamic_warming_secrets": [waiting]}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def bundle(target: Path, held: Callable[[str], Held], *, without: str = "") -> Path:
    """The recording with other secrets in every proxy, captured now."""
    for path, raw in files(RECORDING).items():
        if path.startswith("proxies/"):
            _, _, pod, name = path.split("/")
            workload = pod.rsplit("-", 2)[0]
            if workload == without or name != "config_dump.json":
                continue
            raw = with_secrets(raw, held(workload).secrets(ACCOUNTS.get(workload, workload)))
        elif path == "bundle.json":
            raw = json.dumps({**json.loads(raw), "captured_at": NOW.isoformat()}).encode()
        elif not path.startswith("kubernetes/"):
            continue
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(raw)
    return target


def with_secrets(raw: bytes, secrets: dict[str, Any]) -> bytes:
    dump = json.loads(raw)
    for section in dump["configs"]:
        if section["@type"].endswith("SecretsConfigDump"):
            kind = section["@type"]
            section.clear()
            section.update({"@type": kind, **secrets})
    return json.dumps(dump).encode()


def failure(path: Path) -> Hop | None:
    """The hop at which productpage's call to details fails."""
    mesh = Mesh(open_bundle(path))
    caller = next(p for p in mesh.proxies.values() if p.id.pod.startswith(CLIENT))
    request = HttpRequest("GET", "details:9080", "/details/0")
    call = Call(WorkloadId("bookinfo", CLIENT), caller, "details.bookinfo.svc.cluster.local", 9080, request)
    (branch,) = walk(mesh, call).branches
    return branch.failure


def holds(**by_workload: Held) -> Callable[[str], Held]:
    """What each workload holds, by `client`, `server`; all others hold `others`."""
    names = {CLIENT: "client", SERVER: "server"}
    others = by_workload.get("others", Held())
    return lambda workload: by_workload.get(names.get(workload, ""), others)


NEW = "rotated"
BOTH = (root(), root(NEW))

CASES: dict[str, tuple[Callable[[str], Held], str, str]] = {
    "the client's expired": (holds(client=Held(start=-DAY, end=-HOUR)), "client-cert-expired", CLIENT),
    "the server's expired": (holds(server=Held(start=-DAY, end=-HOUR)), "server-cert-expired", SERVER),
    "the server's begins later": (holds(server=Held(start=HOUR)), "server-cert-not-yet-valid", SERVER),
    "the root expired": (
        holds(
            others=Held(issuer=root("old", expired=True), roots=(root("old", expired=True),)),
        ),
        "root-ca-expired",
        SERVER,
    ),
    "the client's of a foreign root": (
        holds(client=Held(issuer=root("foreign"))),
        "client-cert-untrusted-by-server",
        CLIENT,
    ),
    "the server's of a foreign root": (
        holds(server=Held(issuer=root("foreign"))),
        "server-cert-untrusted-by-client",
        SERVER,
    ),
    "the client lacks a new root": (
        holds(server=Held(issuer=root(NEW), roots=BOTH), client=Held(), others=Held(roots=BOTH)),
        "server-cert-untrusted-by-client",
        CLIENT,
    ),
    "the server lacks a new root": (
        holds(client=Held(issuer=root(NEW), roots=BOTH), server=Held(), others=Held(roots=BOTH)),
        "server-root-bundle-outdated",
        SERVER,
    ),
    "the server's of another account": (
        holds(server=Held(account="default")),
        "san-mismatch-service-account",
        SERVER,
    ),
    "the server's of another domain": (
        holds(server=Held(domain="old.example")),
        "san-mismatch-trust-domain",
        SERVER,
    ),
    "the client's of another domain": (
        holds(client=Held(domain="old.example")),
        "san-mismatch-trust-domain",
        CLIENT,
    ),
    "the client's never came": (holds(client=Held(delivered=False)), "client-secret-not-delivered", CLIENT),
    "the server's never came": (holds(server=Held(delivered=False)), "server-secret-not-delivered", SERVER),
}


@pytest.mark.parametrize("name", CASES)
def test_the_deciding_hop_names_the_cause_and_whom_to_blame(name: str, tmp_path: Path) -> None:
    held, cause, blamed = CASES[name]
    found = failure(bundle(tmp_path, held))
    assert found is not None
    assert found.cause == cause
    blame = found.detail["blame"]
    assert isinstance(blame, ProxyId)
    assert blame.pod.startswith(blamed)


def test_good_certificates_pass(tmp_path: Path) -> None:
    assert failure(bundle(tmp_path, holds())) is None


def test_a_rotation_in_which_everybody_trusts_both_roots_passes(tmp_path: Path) -> None:
    held = holds(client=Held(issuer=root(NEW), roots=BOTH), others=Held(roots=BOTH))
    assert failure(bundle(tmp_path, held)) is None


@pytest.mark.parametrize(
    "name",
    ["the client's expired", "the client's of a foreign root", "the client's of another domain"],
)
def test_a_bad_client_is_known_without_its_server(name: str, tmp_path: Path) -> None:
    held, cause, _ = CASES[name]
    found = failure(bundle(tmp_path, held, without=SERVER))
    assert found is not None
    assert found.cause == cause


def test_a_good_client_is_not_blamed_without_its_server(tmp_path: Path) -> None:
    assert failure(bundle(tmp_path, holds(), without=SERVER)) is None
