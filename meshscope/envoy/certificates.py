"""Judges certificates by computing, as Envoy's BoringSSL does: chains, signatures, validity, names."""

from __future__ import annotations

import base64
import binascii
import hashlib
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from msgspec import Struct

from meshscope.envoy.config_dump import DataSource, DecodeProblem, StringMatcher, decode_json
from meshscope.envoy.matching import any_of, string_matches

FaultKind = Literal["expired", "not_yet_valid", "root_expired", "untrusted", "bad_signature"]

# The depth at which BoringSSL gives up (X509_VERIFY_PARAM's default).
_MAX_DEPTH = 100

# What reading a certificate's parts may raise (the library parses them lazily).
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


class Certificate(Struct, frozen=True):
    """One X.509 certificate. Times are aware and in UTC, `serial` and key ids hex, `spki` is Envoy's (base64 SHA-256)."""

    subject: str
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    uri_sans: tuple[str, ...]
    dns_sans: tuple[str, ...]
    other_sans: tuple[str, ...]
    """E-mail and IP address names, as text."""
    is_ca: bool
    fingerprint_sha256: str
    spki: str
    subject_key_id: str
    authority_key_id: str
    der: bytes
    raw_subject: bytes
    raw_issuer: bytes
    may_sign: bool
    """Whether its key usage allows signing certificates; a certificate without key usage may."""

    @property
    def sans(self) -> tuple[str, ...]:
        return (*self.uri_sans, *self.dns_sans, *self.other_sans)

    @property
    def identity(self) -> Identity | None:
        """The workload identity among its names."""
        return next((found for uri in self.uri_sans if (found := identity(uri))), None)

    @property
    def is_self_issued(self) -> bool:
        return self.raw_subject == self.raw_issuer


class ChainFault(Struct, frozen=True):
    """Why a chain isn't accepted: the certificate concerned and its depth (0 is the leaf); `why` is BoringSSL's text."""

    kind: FaultKind
    certificate: Certificate | None
    depth: int
    why: str


class SanFault(Struct, frozen=True):
    """No name of a certificate is one that the peer demands."""

    actual: tuple[str, ...]
    expected: tuple[StringMatcher, ...]


class Identity(NamedTuple):
    """A workload's SPIFFE identity, in parts."""

    trust_domain: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


# --- names --------------------------------------------------------------------------------------------------


def trust_domain(spiffe: str) -> str:
    """The trust domain of `spiffe://DOMAIN/…`; "" where it is no SPIFFE id."""
    scheme, _, rest = spiffe.partition("://")
    return rest.partition("/")[0] if scheme == "spiffe" else ""


def identity(spiffe: str) -> Identity | None:
    """The parts of `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`; None for any other name."""
    scheme, _, rest = spiffe.partition("://")
    parts = rest.split("/")
    if scheme != "spiffe" or len(parts) != 5 or parts[1] != "ns" or parts[3] != "sa" or not parts[0]:
        return None
    return Identity(parts[0], parts[2], parts[4])


def san_fault(certificate: Certificate, matchers: Sequence[StringMatcher]) -> SanFault | None:
    """Why none of the names that a peer demands is the certificate's; None where one is, or none is demanded."""
    if not matchers:
        return None
    matched = any_of(string_matches(matcher, san) for matcher in matchers for san in certificate.sans)
    return SanFault(certificate.sans, tuple(matchers)) if matched is False else None


# --- reading ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def read_chain(source: DataSource) -> tuple[Certificate, ...] | DecodeProblem:
    """The certificates of a PEM in a config dump, in its order (leaf first, or a bundle of roots)."""
    if source.inline_bytes:
        try:
            pem = base64.b64decode(source.inline_bytes, validate=True)
        except (binascii.Error, ValueError) as error:
            return DecodeProblem("certificate", f"inline_bytes: {error}")
    elif source.inline_string:
        pem = source.inline_string.encode("utf-8", "replace")
    elif source.filename:
        return DecodeProblem("certificate", f"the dump only names the file {source.filename}")
    else:
        return DecodeProblem("certificate", "empty")
    return read_pem(pem)


def read_pem(pem: bytes) -> tuple[Certificate, ...] | DecodeProblem:
    """All certificates in PEM text; text around them (keys, comments) is skipped."""
    with warnings.catch_warnings(category=CryptographyDeprecationWarning, action="ignore"):
        try:
            return tuple(_certificate(found) for found in x509.load_pem_x509_certificates(pem))
        except _UNREADABLE as error:
            return DecodeProblem("certificate", str(error))


def _certificate(found: x509.Certificate) -> Certificate:
    extensions = _extensions(found)
    names = extensions.get(x509.SubjectAlternativeName)
    key_id = extensions.get(x509.SubjectKeyIdentifier)
    authority = extensions.get(x509.AuthorityKeyIdentifier)
    basic = extensions.get(x509.BasicConstraints)
    usage = extensions.get(x509.KeyUsage)
    der = found.public_bytes(Encoding.DER)
    public = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Certificate(
        subject=found.subject.rfc4514_string(),
        issuer=found.issuer.rfc4514_string(),
        serial=f"{found.serial_number:x}",
        not_before=found.not_valid_before_utc,
        not_after=found.not_valid_after_utc,
        uri_sans=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
        dns_sans=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
        other_sans=_other_names(names) if names else (),
        is_ca=bool(basic and basic.ca),
        fingerprint_sha256=hashlib.sha256(der).hexdigest(),
        spki=base64.b64encode(hashlib.sha256(public).digest()).decode(),
        subject_key_id=key_id.digest.hex() if key_id else "",
        authority_key_id=authority.key_identifier.hex() if authority and authority.key_identifier else "",
        der=der,
        raw_subject=found.subject.public_bytes(),
        raw_issuer=found.issuer.public_bytes(),
        may_sign=usage.key_cert_sign if usage else True,
    )


def _extensions(found: x509.Certificate) -> dict[type[Any], Any]:
    return {type(extension.value): extension.value for extension in found.extensions}


def _other_names(names: x509.SubjectAlternativeName) -> tuple[str, ...]:
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.RFC822Name), *addresses)


# --- chains -------------------------------------------------------------------------------------------------


def verify(
    chain: Sequence[Certificate],
    roots: Sequence[Certificate],
    at: datetime,
    *,
    allow_expired: bool = False,
) -> tuple[ChainFault, ...]:
    """What is wrong with a chain (leaf first) for somebody who trusts `roots`, at a moment; () where it is accepted.

    The first fault is the one that Envoy names in its log: first whether a path to a trusted certificate can be
    built at all, then whether those in between are CAs, then, from the root down, signatures and validity. Any
    certificate of the bundle is an anchor, an intermediate one too, and the bundle is asked before the chain that
    the peer sent. `allow_expired` is Envoy's `allow_expired_certificate`.
    """
    if not chain:
        return (ChainFault("untrusted", None, 0, "peer did not return a certificate"),)
    path, trusted = _path(chain, roots)
    faults: list[ChainFault] = []
    if not trusted:
        faults.append(ChainFault("untrusted", path[-1], len(path) - 1, _untrusted(path)))
    for depth, certificate in enumerate(path):
        if depth > 0 and not certificate.is_ca and certificate not in roots:
            faults.append(ChainFault("untrusted", certificate, depth, "invalid CA certificate"))
    for depth in range(len(path) - 1, -1, -1):
        faults += _own_faults(path, depth, at, trusted, allow_expired)
    return tuple(faults)


def _own_faults(
    path: Sequence[Certificate], depth: int, at: datetime, trusted: bool, allow_expired: bool
) -> Iterable[ChainFault]:
    certificate = path[depth]
    if depth + 1 < len(path) and not _signed_by(certificate, path[depth + 1]):
        yield ChainFault("bad_signature", certificate, depth, "certificate signature failure")
    if allow_expired:
        return
    if at < certificate.not_before:
        yield ChainFault("not_yet_valid", certificate, depth, "certificate is not yet valid")
    if at > certificate.not_after:
        is_root = trusted and depth == len(path) - 1 and depth > 0
        yield ChainFault(
            "root_expired" if is_root else "expired", certificate, depth, "certificate has expired"
        )


def _untrusted(path: Sequence[Certificate]) -> str:
    if not path[-1].is_self_issued:
        return "unable to get local issuer certificate"
    return "self signed certificate" if len(path) == 1 else "self signed certificate in certificate chain"


def _path(chain: Sequence[Certificate], roots: Sequence[Certificate]) -> tuple[tuple[Certificate, ...], bool]:
    """The path from the leaf upwards, and whether it reached a certificate of the bundle."""
    path = [chain[0]]
    trusted = chain[0] in roots
    while len(path) <= _MAX_DEPTH:
        last = path[-1]
        if last.is_self_issued and _issued(last, last):
            break
        anchor = _issuer(last, roots, path)
        if anchor is not None:
            path.append(anchor)
            trusted = True
            continue
        sent = None if trusted else _issuer(last, chain[1:], path)
        if sent is None:
            break
        path.append(sent)
    # A self-signed certificate that the peer sent is trusted where the bundle holds it, too.
    return tuple(path), trusted or path[-1] in roots


def _issuer(
    certificate: Certificate, candidates: Sequence[Certificate], path: Sequence[Certificate]
) -> Certificate | None:
    """Who issued a certificate, by name and key id; of several the first, as BoringSSL never goes back."""
    return next((found for found in candidates if found not in path and _issued(certificate, found)), None)


def _issued(certificate: Certificate, by: Certificate) -> bool:
    """Whether a certificate names another as its issuer (BoringSSL's X509_check_issued: no signatures)."""
    if certificate.raw_issuer != by.raw_subject or not by.may_sign:
        return False
    wanted = certificate.authority_key_id
    return not wanted or not by.subject_key_id or wanted == by.subject_key_id


@lru_cache(maxsize=4096)
def _signed_by(certificate: Certificate, by: Certificate) -> bool:
    with warnings.catch_warnings(category=CryptographyDeprecationWarning, action="ignore"):
        try:
            issuer = x509.load_der_x509_certificate(by.der)
            x509.load_der_x509_certificate(certificate.der).verify_directly_issued_by(issuer)
        except (InvalidSignature, *_UNREADABLE):
            return False
    return True


# --- /certs -------------------------------------------------------------------------------------------------


class LoadedCertificate(Struct, frozen=True):
    """A certificate that Envoy has loaded, as /certs tells of it: of a trust bundle (`ca`) or its own (`chain`)."""

    role: Literal["ca", "chain"]
    path: str
    serial: str
    uri_sans: tuple[str, ...]
    dns_sans: tuple[str, ...]
    not_before: datetime | None
    not_after: datetime | None


class _San(Struct, frozen=True):
    uri: str = ""
    dns: str = ""


class _Loaded(Struct, frozen=True):
    path: str = ""
    serial_number: str = ""
    subject_alt_names: tuple[_San, ...] = ()
    valid_from: str = ""
    expiration_time: str = ""


class _Entry(Struct, frozen=True):
    ca_cert: tuple[_Loaded, ...] = ()
    cert_chain: tuple[_Loaded, ...] = ()


class _Certs(Struct, frozen=True):
    certificates: tuple[_Entry, ...] | None = None


def read_certs(raw: bytes) -> tuple[LoadedCertificate, ...] | DecodeProblem:
    """Reads /certs, each certificate once (Envoy repeats it for every TLS context).

    `days_until_expiration` isn't read: it is 0 for a healthy certificate of 24 hours.
    """
    try:
        answer = decode_json(raw, _Certs)
    except msgspec.DecodeError as error:
        return DecodeProblem("certs", str(error))
    if answer.certificates is None:
        return DecodeProblem("certs", "no `certificates`: not an answer of /certs")
    found: dict[LoadedCertificate, None] = {}
    for entry in answer.certificates:
        found.update(dict.fromkeys(_loaded("ca", certificate) for certificate in entry.ca_cert))
        found.update(dict.fromkeys(_loaded("chain", certificate) for certificate in entry.cert_chain))
    return tuple(found)


def _loaded(role: Literal["ca", "chain"], certificate: _Loaded) -> LoadedCertificate:
    return LoadedCertificate(
        role=role,
        path=certificate.path,
        serial=certificate.serial_number.lstrip("0") or certificate.serial_number,
        uri_sans=tuple(san.uri for san in certificate.subject_alt_names if san.uri),
        dns_sans=tuple(san.dns for san in certificate.subject_alt_names if san.dns),
        not_before=_time(certificate.valid_from),
        not_after=_time(certificate.expiration_time),
    )


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
