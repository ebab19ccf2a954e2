"""What `trace` says of calls that lead out of the mesh's knowledge, or that a person mistyped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshscope.facts.mesh import Mesh
from meshscope.sources.bundle import open_bundle
from meshscope.walk.hops import Stage
from meshscope.walk.trace import parse_url, trace

RECORDING = Path(__file__).parent.parent / "data" / "istio" / "authz-deny.tar.gz"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    source = open_bundle(RECORDING)
    yield Mesh(source)
    source.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://nope:9080/", "no Service is called nope"),
        ("http://ratings:9081/", "the Service ratings has no port 9081, only 9080"),
    ],
)
def test_a_mistyped_name_or_port_is_told(mesh: Mesh, url: str, said: str) -> None:
    (walk,) = trace(mesh, "reviews-v2", "GET", url)
    hop = walk.branches[0].at(Stage.ENDPOINT)
    assert hop is not None
    assert hop.outcome == "unknown"
    assert said in hop.decision


def test_https_is_the_application_s_own_tls_and_no_http_to_the_mesh(mesh: Mesh) -> None:
    (walk,) = trace(mesh, "reviews-v2", "GET", "https://ratings:9080/")
    listener = walk.branches[0].at(Stage.OUTBOUND_LISTENER)
    assert listener is not None
    assert listener.detail["http"] is False


def test_a_service_stands_for_every_workload_behind_it(mesh: Mesh) -> None:
    walks = trace(mesh, "svc/reviews", "GET", "http://ratings:9080/")
    assert [walk.source for walk in walks] == [
        "reviews-v1.bookinfo",
        "reviews-v2.bookinfo",
        "reviews-v3.bookinfo",
    ]


@pytest.mark.parametrize("url", ["ftp://a/", "tcp://a", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"scheme|port|host"):
        parse_url(url)
