"""Certificates are judged by computing: chains, validity, names, at a given time."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from meshscope.envoy.certificates import (
    Identity,
    SanFault,
    identity,
    read_certs,
    read_chain,
    read_pem,
    san_fault,
    trust_domain,
    verify,
)
from meshscope.envoy.config_dump import ConfigDump, DataSource, DecodeProblem, RegexMatcher, StringMatcher
from tests.envoy.chains import DAY, LEAF, NOW, ROOT, Scenario, certificates, issue, scenarios
from tests.recordings import RecordedProxy, proxies


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_a_chain_is_judged_by_its_first_fault(scenario: Scenario) -> None:
    faults = verify(scenario.shown(), scenario.trusted(), NOW)
    assert [(fault.kind, fault.depth) for fault in faults[:1]] == (
        [(scenario.kind, scenario.depth)] if scenario.kind else []
    )


def test_validity_is_judged_at_the_given_time_not_now() -> None:
    root = issue(replace(ROOT, end=400 * DAY))
    chain, roots = certificates((issue(LEAF, by=root),)), certificates((root,))
    assert verify(chain, roots, NOW) == ()
    assert [fault.kind for fault in verify(chain, roots, NOW + 31 * DAY)] == ["expired"]
    assert [fault.kind for fault in verify(chain, roots, NOW - 2 * DAY)] == ["not_yet_valid", "not_yet_valid"]
    assert [fault.kind for fault in verify(chain, roots, NOW + 401 * DAY)] == ["root_expired", "expired"]
    assert verify(chain, roots, NOW + 401 * DAY, allow_expired=True) == ()


def test_the_last_second_of_a_certificate_still_counts() -> None:
    root = issue(ROOT)
    chain, roots = certificates((issue(LEAF, by=root),)), certificates((root,))
    end = chain[0].not_after
    assert verify(chain, roots, end) == ()
    assert verify(chain, roots, end + timedelta(seconds=1))


def test_no_certificate_and_no_roots_are_faults_not_errors() -> None:
    leaf = certificates((issue(LEAF),))
    assert verify((), leaf, NOW)[0].kind == "untrusted"
    assert verify(leaf, (), NOW)[0].kind == "untrusted"


def test_a_fault_names_the_certificate_concerned() -> None:
    old = issue(replace(ROOT, end=-DAY / 2))
    (fault,) = verify(certificates((issue(LEAF, by=old),)), certificates((old,)), NOW)
    assert fault.certificate is not None
    assert fault.certificate.subject == "O=root"
    assert fault.certificate.not_after.tzinfo is UTC


def test_names_ids_and_key_are_read() -> None:
    (leaf,) = certificates((issue(LEAF),))
    assert leaf.uri_sans == ("spiffe://cluster.local/ns/bookinfo/sa/reviews",)
    assert leaf.dns_sans == ("reviews.bookinfo",)
    assert leaf.identity == Identity("cluster.local", "bookinfo", "reviews")
    assert not leaf.is_ca
    assert len(base64.b64decode(leaf.spki)) == 32
    assert len(leaf.fingerprint_sha256) == 64
    assert leaf.subject_key_id == leaf.authority_key_id


def test_a_san_fits_by_any_matcher() -> None:
    (leaf,) = certificates((issue(LEAF),))
    other = StringMatcher(exact="spiffe://cluster.local/ns/bookinfo/sa/ratings")
    assert san_fault(leaf, ()) is None
    assert san_fault(leaf, (other, StringMatcher(prefix="spiffe://cluster.local/"))) is None
    assert san_fault(leaf, (StringMatcher(safe_regex=RegexMatcher("spiffe://.*/sa/reviews")),)) is None
    fault = san_fault(leaf, (other,))
    assert isinstance(fault, SanFault)
    assert fault.actual[0] == "spiffe://cluster.local/ns/bookinfo/sa/reviews"


@pytest.mark.parametrize(
    ("name", "domain", "parts"),
    [
        ("spiffe://td/ns/a/sa/b", "td", ("td", "a", "b")),
        ("spiffe://td", "td", None),
        ("spiffe://td/ns/a", "td", None),
        ("https://td/ns/a/sa/b", "", None),
        ("", "", None),
    ],
)
def test_spiffe_names_are_taken_apart(name: str, domain: str, parts: tuple[str, str, str] | None) -> None:
    assert trust_domain(name) == domain
    assert identity(name) == parts


@pytest.mark.parametrize(
    "source",
    [
        DataSource(),
        DataSource(inline_bytes="not base64!"),
        DataSource(inline_bytes=base64.b64encode(b"[redacted]").decode()),
        DataSource(inline_string="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        DataSource(filename="/etc/certs/cert-chain.pem"),
    ],
)
def test_what_is_no_certificate_is_a_problem(source: DataSource) -> None:
    assert isinstance(read_chain(source), DecodeProblem)


def test_text_around_certificates_is_skipped() -> None:
    root = issue(ROOT)
    read = read_pem(f"# our root\n{root.pem}\n{root.key_pem}\n{root.pem}".encode())
    assert not isinstance(read, DecodeProblem)
    assert len(read) == 2


@pytest.mark.parametrize("recorded", proxies(), ids=str)
def test_recorded_secrets_are_whole_and_valid_when_they_were_recorded(recorded: RecordedProxy) -> None:
    secrets = ConfigDump(recorded.read("config_dump.json")).secrets
    own, trusted = secrets.get("default"), secrets.get("ROOTCA")
    assert own is not None
    assert own.secret.tls_certificate is not None
    assert own.secret.tls_certificate.certificate_chain is not None
    assert trusted is not None
    assert trusted.secret.validation_context is not None
    assert trusted.secret.validation_context.trusted_ca is not None
    chain = read_chain(own.secret.tls_certificate.certificate_chain)
    roots = read_chain(trusted.secret.validation_context.trusted_ca)
    assert not isinstance(chain, DecodeProblem)
    assert not isinstance(roots, DecodeProblem)
    assert verify(chain, roots, recorded.captured_at) == ()
    assert chain[0].identity is not None
    assert chain[0].identity.namespace == "bookinfo"
    loaded = read_certs(recorded.read("certs.json"))
    assert not isinstance(loaded, DecodeProblem)
    assert [(c.role, c.serial) for c in loaded] == [("ca", roots[0].serial), ("chain", chain[0].serial)]
    assert loaded[1].not_after == chain[0].not_after


def test_certs_repeat_and_are_read_once() -> None:
    entry = {"path": "<inline>", "serial_number": "0a", "expiration_time": "2026-11-24T12:39:45Z"}
    context = {"cert_chain": [entry], "ca_cert": []}
    read = read_certs(json.dumps({"certificates": [context, context]}).encode())
    assert not isinstance(read, DecodeProblem)
    assert [(c.serial, c.not_after) for c in read] == [("a", datetime(2026, 11, 24, 12, 39, 45, tzinfo=UTC))]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"certificates": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_certs_answer_is_a_problem(raw: bytes) -> None:
    assert isinstance(read_certs(raw), DecodeProblem)
