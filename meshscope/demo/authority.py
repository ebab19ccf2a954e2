"""The throwaway certificate authorities of a demo mesh and the SPIFFE certificates they sign."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshscope.demo.spec import CLUSTER_DOMAIN, Authority, Certificate, MeshSpec


@dataclass(frozen=True)
class Issued:
    """PEM texts: the leaf with its issuer, and the leaf's key."""

    chain: str
    key: str


@dataclass(frozen=True)
class _Root:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


class Authorities:
    """Signs for one mesh; roots and leaves are made once and kept, elliptic curve keys for speed."""

    def __init__(self, started: datetime) -> None:
        self._started = started
        self._roots: dict[str, tuple[Authority, _Root]] = {}
        self._leaves: dict[tuple[str, str], tuple[Certificate, Authority, Issued]] = {}

    def roots(self, spec: MeshSpec, certificate: Certificate) -> str:
        """The PEM of the roots that a proxy with this certificate trusts."""
        return "".join(self._root(spec, name).pem for name in certificate.roots)

    def leaf(self, spec: MeshSpec, pod: str, identity: str, certificate: Certificate) -> Issued:
        """A chain and key for a pod; `identity` is the SPIFFE id's part after the trust domain."""
        authority = spec.authorities[certificate.issuer]
        kept = self._leaves.get((pod, identity))
        if kept and kept[0] == certificate and kept[1] == authority:
            return kept[2]
        issued = self._sign(self._root(spec, certificate.issuer), identity, certificate)
        # Copies: a fault may alter either in place while the mesh runs.
        self._leaves[(pod, identity)] = (replace(certificate), replace(authority), issued)
        return issued

    def _root(self, spec: MeshSpec, name: str) -> _Root:
        authority = spec.authorities[name]
        kept = self._roots.get(name)
        if kept and kept[0] == authority:
            return kept[1]
        key = ec.generate_private_key(ec.SECP256R1())
        organization = CLUSTER_DOMAIN if name == "mesh" else f"{CLUSTER_DOMAIN} {name}"
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._started + authority.not_before)
            .not_valid_after(self._started + authority.not_after)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        root = _Root(certificate, key)
        self._roots[name] = (Authority(authority.not_before, authority.not_after), root)
        return root

    def _sign(self, root: _Root, identity: str, wanted: Certificate) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        spiffe = x509.UniformResourceIdentifier(f"spiffe://{wanted.trust_domain}/{identity}")
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(root.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._started + wanted.not_before)
            .not_valid_after(self._started + wanted.not_after)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False
            )
            # Critical, as the subject is empty (RFC 5280, 4.1.2.6).
            .add_extension(x509.SubjectAlternativeName([spiffe]), critical=True)
            .sign(root.key, hashes.SHA256())
        )
        chain = certificate.public_bytes(serialization.Encoding.PEM).decode() + root.pem
        encoded = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Issued(chain, encoded.decode())


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
