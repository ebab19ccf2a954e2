"""Faults of authorization: policies, tokens and external authorizers that refuse."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Behaviour, Flow, MeshSpec, Port, Workload

_ISSUER = "https://issuer.example"
_RATINGS = "http://ratings:9080/ratings/0"


@fault("deny-policy", "a DENY policy on ratings refuses GET from reviews")
def deny_policy(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: ratings-deny, namespace: bookinfo}
        spec:
          action: DENY
          selector: {matchLabels: {app: ratings}}
          rules:
          - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-reviews]}}]
            to: [{operation: {methods: [GET]}}]
    """)


@fault("implicit-deny-by-allow-policy", "an ALLOW policy lets only reviews call ratings; the client isn't it")
def implicit_deny_by_allow_policy(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: ratings-readers, namespace: bookinfo}
        spec:
          action: ALLOW
          selector: {matchLabels: {app: ratings}}
          rules:
          - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-reviews]}}]
            to: [{operation: {methods: [GET]}}]
    """)


@fault("allow-nothing", "an ALLOW policy without rules selects ratings")
def allow_nothing(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: ratings-nobody, namespace: bookinfo}
        spec:
          selector: {matchLabels: {app: ratings}}
    """)


@fault("dry-run", "a DENY policy in dry run would refuse the client's calls to ratings")
def dry_run(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata:
          name: ratings-try
          namespace: bookinfo
          annotations: {istio.io/dry-run: "true"}
        spec:
          action: DENY
          selector: {matchLabels: {app: ratings}}
          rules:
          - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/client]}}]
    """)


@fault("jwt-invalid", "a tenth of the calls to ratings bring a token that expired an hour ago")
def jwt_invalid(spec: MeshSpec) -> None:
    _require_issuer(spec)
    token = _token(spec.started - timedelta(hours=1))
    headers = {"authorization": f"Bearer {token}"}
    spec.flows.append(Flow("ratings-expired", "bookinfo/client", _RATINGS, rate=3, headers=headers))


@fault("jwt-missing", "a policy on details demands a token, and nobody sends one")
def jwt_missing(spec: MeshSpec) -> None:
    _require_issuer(spec, "details")
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: details-token, namespace: bookinfo}
        spec:
          selector: {matchLabels: {app: details}}
          rules:
          - from: [{source: {requestPrincipals: ["*"]}}]
    """)


@fault("ext-authz-denied", "the external authorizer that ratings asks refuses every request")
def ext_authz_denied(spec: MeshSpec) -> None:
    _authorizer(spec, Behaviour(status=403))


@fault("ext-authz-unreachable", "nothing listens at the external authorizer that ratings asks")
def ext_authz_unreachable(spec: MeshSpec) -> None:
    _authorizer(spec, Behaviour("refuse"))


def _authorizer(spec: MeshSpec, behaviour: Behaviour) -> None:
    """An HTTP authorizer in a namespace without injection, and a CUSTOM policy that has ratings ask it."""
    spec.namespaces["platform"] = {}
    authorizer = Workload("authorizer", "platform", "authorizer", sidecar=False, behaviour=behaviour)
    authorizer.ports = [Port(8000)]
    spec.add_workload(authorizer)
    spec.mesh_config["extensionProviders"] = [
        {
            "name": "demo-authorizer",
            "envoyExtAuthzHttp": {
                "service": "authorizer.platform.svc.cluster.local",
                "port": 8000,
                "timeout": "2s",
            },
        }
    ]
    spec.add("""
        apiVersion: v1
        kind: Service
        metadata: {name: authorizer, namespace: platform, labels: {app: authorizer}}
        spec:
          selector: {app: authorizer}
          ports: [{name: http, port: 8000, targetPort: 8000, protocol: TCP}]
    """)
    spec.add("""
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: ratings-ask, namespace: bookinfo}
        spec:
          action: CUSTOM
          provider: {name: demo-authorizer}
          selector: {matchLabels: {app: ratings}}
          rules:
          - to: [{operation: {paths: ["/ratings/*"]}}]
    """)


def _require_issuer(spec: MeshSpec, app: str = "ratings") -> None:
    """Tokens of one issuer are accepted, and requests without a token; any other token is refused."""
    numbers = _key().public_key().public_numbers()
    key = {
        "kty": "RSA",
        "alg": "RS256",
        "use": "sig",
        "kid": "demo",
        "n": _big(numbers.n),
        "e": _big(numbers.e),
    }
    spec.add(f"""
        apiVersion: security.istio.io/v1
        kind: RequestAuthentication
        metadata: {{name: {app}-tokens, namespace: bookinfo}}
        spec:
          selector: {{matchLabels: {{app: {app}}}}}
          jwtRules:
          - issuer: {_ISSUER}
            jwks: '{json.dumps({"keys": [key]})}'
    """)


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _token(expires: datetime) -> str:
    """A signed token of the demo's issuer."""
    header = {"alg": "RS256", "typ": "JWT", "kid": "demo"}
    claims = {"iss": _ISSUER, "sub": "reader", "exp": int(expires.timestamp())}
    signed = f"{_text(json.dumps(header).encode())}.{_text(json.dumps(claims).encode())}"
    return f"{signed}.{_text(_key().sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _big(number: int) -> str:
    return _text(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
