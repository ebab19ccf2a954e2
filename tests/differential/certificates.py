"""A throwaway CA and the identities that the differential test's clients show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Identity:
    """What a client's certificate says of it: the names in it, and its subject as Envoy writes it."""

    name: str
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    subject: tuple[tuple[x509.ObjectIdentifier, str], ...] = ()

    @property
    def principals(self) -> tuple[str, ...]:
        """The names that Envoy tries, in its order; the subject in RFC 2253's, last part first."""
        labels = {NameOID.COMMON_NAME: "CN", NameOID.ORGANIZATION_NAME: "O"}
        subject = ",".join(f"{labels[oid]}={value}" for oid, value in reversed(self.subject))
        return (*self.uris, *self.dns, *([subject] if subject else []))


IDENTITIES = (
    Identity("productpage", ("spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage",)),
    Identity("reviews", ("spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews",)),
    Identity(
        "default",
        ("spiffe://cluster.local/ns/default/sa/default", "spiffe://other.domain/ns/shop/sa/cart"),
        ("default.example.com",),
        ((NameOID.COMMON_NAME, "default"),),
    ),
    Identity("by-dns", (), ("reviews.bookinfo.svc", "b.example.com"), ((NameOID.COMMON_NAME, "by-dns"),)),
    Identity("by-subject", subject=((NameOID.ORGANIZATION_NAME, "example"), (NameOID.COMMON_NAME, "legacy"))),
)


class Authority:
    """A CA that lives in a directory: `ca.pem`, and `NAME.pem` with `NAME.key` for each identity."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "throwaway")])
        ca = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self._write("ca", ca.sign(self._key, hashes.SHA256()), self._key)
        for identity in (*IDENTITIES, Identity("server", dns=("server.test",))):
            self._issue(identity)

    def certificate(self, name: str) -> str:
        return str(self.directory / f"{name}.pem")

    def key(self, name: str) -> str:
        return str(self.directory / f"{name}.key")

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
        )

    def _issue(self, identity: Identity) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in identity.subject])
        builder = self._builder(subject, key.public_key())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in identity.uris]
        names += [x509.DNSName(name) for name in identity.dns]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not identity.subject)
        self._write(identity.name, builder.sign(self._key, hashes.SHA256()), key)

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        pem = serialization.Encoding.PEM
        self.directory.joinpath(f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.directory.joinpath(f"{name}.key").write_bytes(key.private_bytes(pem, form, secret))
