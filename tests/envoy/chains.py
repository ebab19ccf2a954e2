"""Certificate chains of every kind that a verifier must tell apart, made with real keys."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from meshscope.envoy.certificates import Certificate, read_chain
from meshscope.envoy.config_dump import DataSource, DecodeProblem

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@dataclass(frozen=True)
class Wish:
    """What a certificate shall be."""

    name: str = "cluster.local"
    ca: bool = False
    start: timedelta = -DAY
    end: timedelta = 30 * DAY
    key_ids: bool = True
    may_sign: bool = True
    basic_constraints: bool = True
    uri: str = ""
    dns: str = ""


ROOT = Wish(name="root", ca=True)
LEAF = Wish(name="leaf", uri="spiffe://cluster.local/ns/bookinfo/sa/reviews", dns="reviews.bookinfo")


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def issue(
    wish: Wish,
    by: Issued | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
    signed_with: Issued | None = None,
) -> Issued:
    """A certificate of `by`, self-signed without; `signed_with` signs in place of the issuer it names."""
    own = key or new_key()
    signer = signed_with or by
    issuer_key = by.key if by else own
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, wish.name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + wish.start)
        .not_valid_after(NOW + wish.end)
    )
    if wish.basic_constraints:
        builder = builder.add_extension(x509.BasicConstraints(ca=wish.ca, path_length=None), critical=True)
    if wish.ca:
        builder = builder.add_extension(_usage(wish.may_sign), critical=True)
    if wish.key_ids:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False
        )
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(authority, critical=False)
    names: list[x509.GeneralName] = []
    if wish.uri:
        names.append(x509.UniformResourceIdentifier(wish.uri))
    if wish.dns:
        names.append(x509.DNSName(wish.dns))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Issued(builder.sign(signer.key if signer else own, hashes.SHA256()), own)


def _usage(may_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=may_sign,
        crl_sign=may_sign,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True)
class Scenario:
    """A chain that a peer shows, the roots that the other side trusts, and what comes of it ("" is accepted)."""

    name: str
    chain: tuple[Issued, ...]
    roots: tuple[Issued, ...]
    kind: str = ""
    depth: int = 0

    def shown(self) -> tuple[Certificate, ...]:
        return certificates(self.chain)

    def trusted(self) -> tuple[Certificate, ...]:
        return certificates(self.roots)


def certificates(issued: tuple[Issued, ...]) -> tuple[Certificate, ...]:
    """The certificates as a config dump would hold them, read back."""
    if not issued:
        return ()
    pem = "".join(found.pem for found in issued)
    read = read_chain(DataSource(inline_bytes=base64.b64encode(pem.encode()).decode()))
    assert not isinstance(read, DecodeProblem), read
    return read


@cache
def scenarios() -> tuple[Scenario, ...]:
    return (*_plain(), *_several_roots(), *_odd())


def _plain() -> tuple[Scenario, ...]:
    root, other = issue(ROOT), issue(replace(ROOT, name="another root"))
    old = issue(replace(ROOT, end=-DAY / 2))
    early = issue(replace(ROOT, start=DAY))
    middle = issue(replace(ROOT, name="intermediate"), by=root)
    old_middle = issue(replace(ROOT, name="intermediate", end=-DAY / 2), by=root)
    leaf, below = issue(LEAF, by=root), issue(LEAF, by=middle)
    expired, future = replace(LEAF, end=-DAY / 2), replace(LEAF, start=DAY)
    return (
        Scenario("healthy", (leaf,), (root,)),
        Scenario("healthy-root-sent-too", (leaf, root), (root,)),
        Scenario("leaf-expired", (issue(expired, by=root),), (root,), "expired"),
        Scenario("leaf-not-yet-valid", (issue(future, by=root),), (root,), "not_yet_valid"),
        Scenario("root-expired", (issue(LEAF, by=old),), (old,), "root_expired", 1),
        Scenario("root-not-yet-valid", (issue(LEAF, by=early),), (early,), "not_yet_valid", 1),
        Scenario("root-and-leaf-expired", (issue(expired, by=old),), (old,), "root_expired", 1),
        Scenario("another-root", (leaf,), (other,), "untrusted"),
        Scenario("another-root-with-root-sent", (leaf, root), (other,), "untrusted", 1),
        Scenario("another-root-and-expired", (issue(expired, by=root),), (other,), "untrusted"),
        Scenario("intermediate", (below, middle), (root,)),
        Scenario("intermediate-missing", (below,), (root,), "untrusted"),
        Scenario("intermediate-expired", (issue(LEAF, by=old_middle), old_middle), (root,), "expired", 1),
        Scenario("intermediate-of-another-root", (below, middle), (other,), "untrusted", 1),
        Scenario("intermediate-is-the-anchor", (below,), (middle,)),
        Scenario("intermediate-in-bundle-with-root", (below,), (middle, root)),
        Scenario("chain-out-of-order", (below, root, middle), (root,)),
    )


def _several_roots() -> tuple[Scenario, ...]:
    first, second = issue(ROOT), issue(ROOT)
    key = new_key()
    old, renewed = issue(replace(ROOT, end=-DAY / 2), key=key), issue(ROOT, key=key)
    crossed = issue(ROOT, by=first, key=second.key)
    crossed_once = issue(replace(ROOT, end=-DAY / 2), by=first, key=second.key)
    nameless_first, nameless_second = (issue(replace(ROOT, key_ids=False)) for _ in range(2))
    of_second, of_renewed = issue(LEAF, by=second), issue(LEAF, by=renewed)
    nameless = issue(replace(LEAF, key_ids=False), by=nameless_second)
    return (
        Scenario("two-roots-of-one-name", (of_second,), (first, second)),
        Scenario("two-roots-of-one-name-turned", (of_second,), (second, first)),
        Scenario("same-name-another-key", (of_second,), (first,), "untrusted"),
        Scenario("same-name-another-key-without-key-ids", (nameless,), (nameless_first,), "bad_signature"),
        Scenario("cross-signed-sent", (of_second, crossed), (first,)),
        Scenario("cross-signed-in-bundle", (of_second,), (crossed, second)),
        Scenario("cross-signature-expired-but-not-needed", (of_second, crossed_once), (first, second)),
        Scenario(
            "same-name-without-key-ids-wrong-first",
            (nameless,),
            (nameless_first, nameless_second),
            "bad_signature",
        ),
        Scenario("same-name-without-key-ids-right-first", (nameless,), (nameless_second, nameless_first)),
        Scenario("renewed-root", (of_renewed,), (renewed,)),
        Scenario("renewed-root-before-old", (of_renewed,), (renewed, old)),
        Scenario("renewed-root-after-old", (of_renewed,), (old, renewed), "root_expired", 1),
        Scenario("renewed-root-only-old-trusted", (of_renewed,), (old,), "root_expired", 1),
        Scenario("renewed-root-sent-old-trusted", (of_renewed, renewed), (old,), "root_expired", 1),
        Scenario("old-root-sent-renewed-trusted", (of_renewed, old), (renewed,)),
        Scenario(
            "unrelated-expired-root", (of_second,), (issue(replace(ROOT, name="gone", end=-DAY / 2)), second)
        ),
    )


def _odd() -> tuple[Scenario, ...]:
    root = issue(ROOT)
    alone = issue(LEAF)
    forger = issue(ROOT)
    forged = issue(LEAF, by=root, signed_with=forger)
    powerless = issue(replace(ROOT, may_sign=False))
    no_ca, vague = (
        replace(ROOT, name="middle", ca=False),
        replace(ROOT, name="middle", basic_constraints=False),
    )
    middle, vague_middle = issue(no_ca, by=root), issue(vague, by=root)
    plain_root = issue(replace(ROOT, name="plain", ca=False))
    ended = issue(replace(LEAF, end=-DAY / 2))
    return (
        Scenario("self-signed-leaf", (alone,), (root,), "untrusted"),
        Scenario("self-signed-leaf-in-bundle", (alone,), (alone,)),
        Scenario("self-signed-leaf-in-bundle-expired", (ended,), (ended,), "expired"),
        Scenario("intermediate-is-no-ca", (issue(LEAF, by=middle), middle), (root,), "untrusted", 1),
        Scenario(
            "intermediate-without-constraints",
            (issue(LEAF, by=vague_middle), vague_middle),
            (root,),
            "untrusted",
            1,
        ),
        Scenario("root-is-no-ca", (issue(LEAF, by=plain_root),), (plain_root,)),
        Scenario("forged-signature", (forged,), (root,), "bad_signature"),
        Scenario("root-may-not-sign", (issue(LEAF, by=powerless),), (powerless,), "untrusted"),
    )
