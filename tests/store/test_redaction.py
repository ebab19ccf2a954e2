"""Secrets are taken out wherever they stand, and what is none stays as it is."""

from __future__ import annotations

import base64
import json
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from meshscope.store.redaction import (
    redact_bytes,
    redact_document,
    redact_json,
    redact_object,
    redact_text,
    redact_variables,
)

SECRET = "hunter2Hunter2hunter2"
KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    .decode()
)
KEY_BODY = KEY.splitlines()[1]
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"RS256","typ":"JWT"}', b'{"sub":"alice@example.com"}', b"signature-bytes")
)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


CONFIGURATIONS: list[Any] = [
    {"private_key": {"inline_bytes": encoded(SECRET)}},
    {"private_key": {"inline_string": SECRET}},
    {
        "tls_certificates": [
            {"password": {"inline_string": SECRET}, "certificate_chain": {"inline_bytes": "eA=="}}
        ]
    },
    {"session_ticket_keys": {"keys": [{"inline_string": SECRET}]}},
    {"generic_secret": {"secret": {"inline_string": SECRET}}},
    {"generic_secret": {"secrets": {"a": {"inline_string": SECRET}}}},
    {"privateKey": SECRET},
    {"client_secret": SECRET},
    {"request_headers_to_add": [{"header": {"key": "Authorization", "value": f"Bearer {SECRET}"}}]},
    {"request_headers_to_add": [{"header": {"key": "x-api-key", "raw_value": SECRET}}]},
    {"headers": {"request": {"set": {"authorization": SECRET, "cookie": f"a={SECRET}"}}}},
    {"match": [{"headers": {"authorization": {"exact": SECRET}}}]},
    {"headers": [{"name": "cookie", "string_match": {"exact": f"session={SECRET}"}}]},
    {"headers": [{"name": "authorization", "exact_match": SECRET}]},
    {"env": [{"name": "DB_PASSWORD", "value": SECRET}, {"name": "GITHUB_TOKEN", "value": SECRET}]},
    {"url": f"postgres://app:{SECRET}@db:5432/app"},
    {"path": f"/login?user=a&access_token={SECRET}&b=c"},
    {"jwks": json.dumps({"keys": [{"kty": "oct", "k": SECRET}]})},
    {"note": KEY},
    {"note": encoded(KEY)},
    {"note": JWT},
    {"note": f"curl -H 'Authorization: Bearer {SECRET}'"},
    {"note": f"Authorization: Basic {encoded('user:' + SECRET)}"},
    {"args": [f"--header=authorization: {SECRET}"]},
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda value: json.dumps(value)[:40])
def test_configurations(configuration: Any) -> None:
    written = orjson.dumps(redact_json(configuration)).decode()
    for secret in (
        SECRET,
        encoded(SECRET),
        KEY_BODY,
        encoded(KEY)[60:100],
        JWT.split(".")[2],
        encoded("user:" + SECRET),
    ):
        assert secret not in written


LINES = [
    f'[2026-01-01T00:00:00Z] "GET /a?token={SECRET} HTTP/1.1" 200',
    f'{{"path": "/", "authorization": "Bearer {SECRET}", "cookie": "a={SECRET}; b=c"}}',
    f"':path', '/'\n'authorization', 'Bearer {SECRET}'\n'cookie', 'a={SECRET}'",
    f"Set-Cookie: session={SECRET}; HttpOnly",
    f'authorization="Bearer {SECRET}" path="/"',
    f"cookie={SECRET}",
    f"jwt {JWT} is expired",
    KEY,
    KEY.replace("\n", "\\n"),
    KEY[:100],
    f'{{\\"authorization\\": \\"{SECRET}\\"}}',
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:30])
def test_log_lines(line: str) -> None:
    redacted = redact_text(line)
    assert SECRET not in redacted
    assert KEY_BODY[:20] not in redacted
    assert JWT not in redacted
    assert redact_text(redacted) == redacted


NO_SECRETS: list[Any] = [
    {"private_key": {"filename": "/etc/certs/key.pem"}},
    {"private_key": {"environment_variable": "KEY"}},
    {"private_key": {"inline_bytes": encoded("[redacted]")}},
    {"token_secret": {"name": "token", "sds_config": {"path_config_source": {"path": "/etc/token.yaml"}}}},
    {"certificate_chain": {"inline_bytes": encoded("-----BEGIN CERTIFICATE-----\n" + "A" * 64)}},
    {"json_format": {"authorization": "%REQ(AUTHORIZATION)%", "cookie": "%REQ(COOKIE):10%"}},
    {"from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}]},
    {"fromHeaders": [{"name": "x-jwt-token", "prefix": "Bearer "}]},
    {"headers": [{"name": "cookie", "string_match": {"safe_regex": {"regex": "^(.*;)?user=jason(;.*)?$"}}}]},
    {"headers": {"cookie": {"regex": "^(.*?;)?(user=jason)(;.*)?$"}}},
    {"headers": [{"name": "authorization", "present_match": True}]},
    {"allow_headers": "authorization,content-type,cookie,x-grpc-web"},
    {"name": "istio.authorization.dry_run.allow_policy.name", "tag": "istio.authorization.dry_run"},
    {
        "name": "envoy.http.stateful_session.cookie",
        "typed_config": {"cookie": {"name": "session", "path": "/"}},
    },
    {"env": [{"name": "TOKEN_FILE", "value": "/var/run/secrets/token"}, {"name": "A", "value": "b"}]},
    {"env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]},
    {"imagePullSecrets": [{"name": "registry"}]},
    {"url": "http://127.0.0.1:15000/x@y", "spiffe": "spiffe://cluster.local/ns/a/sa/b"},
    {"image": "registry.local:5000/app@sha256:0123456789abcdef"},
    {"jwks": json.dumps({"keys": [{"kty": "RSA", "kid": "a", "n": "A" * 40, "e": "AQAB"}]})},
    {"fractional_percent": {"runtime_key": "token", "numerator": 3}},
]


@pytest.mark.parametrize("configuration", NO_SECRETS, ids=lambda value: json.dumps(value)[:40])
def test_what_is_no_secret_stays(configuration: Any) -> None:
    assert redact_json(configuration) is configuration


@pytest.mark.parametrize(
    "line",
    [
        '[2026-01-01T00:00:00.000Z] "GET /a HTTP/1.1" 403 - rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]',
        "envoy_http_rbac{policy=\"istio.authorization\"} 1",
        "http.inbound.rbac.allowed: 7",
        "Jwt issuer is not configured",
        "www-authenticate: Bearer realm=\"http://a\"",
        "outbound|9080||details.bookinfo.svc.cluster.local",
    ],
)  # fmt: skip
def test_lines_without_a_secret_stay(line: str) -> None:
    assert redact_text(line) is line


def test_variables() -> None:
    env = {
        "LINKERD2_PROXY_IDENTITY_TOKEN_FILE": "/var/run/secrets/token",
        "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS": "-----BEGIN CERTIFICATE-----",
        "API_TOKEN": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    redacted = redact_variables(env)
    assert SECRET not in redacted.values()
    assert {name for name in env if redacted[name] != env[name]} == {"API_TOKEN", "AWS_SECRET_ACCESS_KEY"}


def test_objects() -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": SECRET, "other": "kept"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": encoded(SECRET)}}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"annotations": applied},
        "data": {"password": SECRET, "app.yaml": f"authorization: {SECRET}\nport: 80\n"},
    }
    for body in (secret, config):
        written = orjson.dumps(redact_object(body)).decode()
        assert SECRET not in written
        assert encoded(SECRET) not in written
    assert redact_object(config)["metadata"]["annotations"] == {"other": "kept"}
    assert "port: 80" in redact_object(config)["data"]["app.yaml"]


def test_documents_without_a_secret_are_kept_byte_by_byte() -> None:
    data = b'{ "a" : 1.50,\n  "b": [ ] }'
    assert redact_document(data) is data
    assert redact_document(b"") == b""
    assert redact_bytes(b"\xff\x00 text") == b"\xff\x00 text"


def test_documents_that_cant_be_searched_are_not_kept() -> None:
    assert redact_document(b'{"private_key": {"inline_string": "' + SECRET.encode()) is None
    assert redact_document(b"[" * 1000 + b"]" * 1000) is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(["name", "key", "value", "private_key", "cookie"]), inner
        )
    ),
    max_leaves=20,
)


@given(_json)
def test_any_document_keeps_its_shape(document: Any) -> None:
    once = redact_json(document)
    assert redact_json(once) == once


@given(st.text())
def test_any_text(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once
