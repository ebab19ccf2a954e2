"""A report that has everything, and golden files: MESHSCOPE_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from meshscope.envoy.request import HttpRequest
from meshscope.model.findings import CausedBy, Edge, Evidence, Finding, Fix, Report, RuledOut, Unknown
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.walk.hops import Branch, Hop, Stage, Walk

POLICY = ObjectRef("AuthorizationPolicy", "ratings-deny", "bookinfo", "security.istio.io")


@pytest.fixture
def report() -> Report:
    denied = Finding(
        code="MS-I031",
        cause="deny-policy",
        severity="error",
        confidence=0.97,
        subject=str(POLICY),
        affected=tuple(Edge(f"caller-{number}.bookinfo", "ratings.bookinfo", 9080) for number in range(40)),
        title="reviews-v2.bookinfo → ratings:9080 is denied by AuthorizationPolicy bookinfo/ratings-deny (rule 0)",
        explanation="rule 0 of the DENY policy bookinfo/ratings-deny matches these requests; "
        "DENY is evaluated first, so no ALLOW policy can admit them",
        caused_by=(CausedBy("plaintext-traffic-allowed", "the policy was meant for plaintext callers", ()),),
        evidence=(
            Evidence(
                "proxies/bookinfo/ratings-v1-7d9c/proxy.log",
                "line 12",
                '[2026-01-02T10:11:12.123Z] "GET /ratings/0 HTTP/1.1" 403 - '
                'rbac_access_denied_matched_policy[ns[bookinfo]-policy[ratings-deny]-rule[0]] - "-" 0 19 0 - "-" '
                '"python-requests/2.31" "c0ffee00-0000-4000-8000-000000000000" "ratings:9080" "-"',
            ),
            Evidence(
                "ratings-v1-7d9c /config_dump", "listener virtualInbound", "ns[bookinfo]-policy[ratings-deny]"
            ),
        ),
        fix=(
            Fix("advice", "Narrow the rule, or delete the policy if it isn't wanted."),
            Fix(
                "command",
                "kubectl delete authorizationpolicy.security.istio.io ratings-deny --namespace bookinfo --wait=true",
                "what it denied is then decided by the ALLOW policies alone",
            ),
            Fix(
                "patch",
                "kubectl apply -f - <<'EOF'\nspec:\n  action: AUDIT\nEOF",
                "nothing is refused any more",
            ),
        ),
        also_known_as=("IST0101",),
        fingerprint="0123456789abcdef",
    )
    permitted = Finding(
        code="MS-I020",
        cause="plaintext-traffic-allowed",
        severity="info",
        confidence=0.6,
        subject="Deployment.apps/bookinfo/details-v1",
        affected=(Edge("outside", "details.bookinfo", 9080),),
        title="details.bookinfo takes plaintext",
        explanation="PERMISSIVE is in force",
        caused_by=(),
        evidence=(),
        fix=(),
        also_known_as=(),
        fingerprint="fedcba9876543210",
    )
    return Report(
        schema=1,
        tool={"name": "meshscope", "version": "0.0.0"},
        captured_at="2026-01-02T10:12:00Z",
        scope={"from": "", "to": "", "cluster": "c-1", "meshes": ["istio"], "proxies": 6, "window_s": 300.0},
        findings=(denied, permitted),
        ruled_out=(RuledOut("client-cert-expired", "it is valid until 2026-01-03T10:00:00Z"),),
        unknown=(Unknown("the log of reviews-v3", "it isn't in the bundle", "capture it with proxy.log"),),
    )


@pytest.fixture
def healthy(report: Report) -> Report:
    return Report(
        report.schema, report.tool, report.captured_at, report.scope, findings=(), ruled_out=(), unknown=()
    )


@pytest.fixture
def walk() -> Walk:
    client, server = ProxyId("bookinfo", "reviews-v2-5b"), ProxyId("bookinfo", "ratings-v1-7d")
    shared = (
        Hop(Stage.OUTBOUND_LISTENER, "pass", "0.0.0.0_9080 takes it", client, "0.0.0.0_9080"),
        Hop(
            Stage.ROUTE,
            "pass",
            "the default route",
            client,
            "9080 ratings.bookinfo.svc.cluster.local:9080 default",
            ObjectRef("VirtualService", "ratings", "bookinfo", "networking.istio.io"),
        ),
    )
    denied = Hop(
        Stage.AUTHORIZATION,
        "fail",
        "denied by policy ns[bookinfo]-policy[ratings-deny]-rule[0]",
        server,
        "virtualInbound envoy.filters.http.rbac",
        POLICY,
        "deny-policy",
        (Evidence("/config_dump", "virtualInbound", "action: DENY"),),
    )
    return Walk(
        source="reviews-v2.bookinfo",
        request=HttpRequest(
            "GET",
            "ratings:9080",
            "/ratings/0",
            (("end-user", "jason"), ("authorization", "Bearer abcdefghijkl")),
        ),
        host="ratings.bookinfo.svc.cluster.local",
        port=9080,
        branches=(
            Branch(0.75, (*shared, denied)),
            Branch(0.25, (*shared, Hop(Stage.APPLICATION, "pass", "the application answers", server))),
        ),
    )


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Asserts that a text is the golden file of that name."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if os.environ.get("MESHSCOPE_UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text()

    return compare
