"""The table of a proxy's secrets, their certificates judged at a moment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec import Struct

from meshscope.envoy.certificates import Certificate, read_chain, trust_domain
from meshscope.envoy.config_dump import ConfigDump, DataSource, DecodeProblem, Message, Secret
from meshscope.istio.tables.table import Row, Table, decoded

_COLUMNS = ("RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE")
_FURTHER = ("TRUST DOMAIN", "IDENTITY", "PROBLEM")


class _TrustDomain(Struct, frozen=True):
    name: str = ""
    trust_bundle: DataSource | None = None


class _SpiffeValidator(Struct, frozen=True):
    trust_domains: tuple[_TrustDomain, ...] = ()


class _Held(NamedTuple):
    """Certificates in a secret: those of a trust domain where they are a SPIFFE bundle's."""

    source: DataSource | None
    domain: str = ""


def secret_table(config: ConfigDump, at: datetime) -> Table:
    """A row for each secret, and for each trust domain of one that holds several; the first certificate counts."""
    found, problems = decoded(config, "secret", Secret)
    return Table(
        "secret",
        _COLUMNS,
        _FURTHER,
        tuple(row for message, secret in found for row in _rows(message, secret, at)),
        tuple(message.raw for message, _ in found),
        problems,
    )


def _rows(message: Message, secret: Secret, at: datetime) -> Iterator[Row]:
    name = message.name or secret.name
    for held in _held(secret):
        yield Row(name, (name, *_cells(message, held, at)))


def _held(secret: Secret) -> list[_Held]:
    if secret.tls_certificate is not None and secret.tls_certificate.certificate_chain is not None:
        return [_Held(secret.tls_certificate.certificate_chain)]
    context = secret.validation_context
    if context is None:
        return [_Held(None)]
    bundles = []
    if context.custom_validator_config is not None:
        try:
            validator = context.custom_validator_config.decode(_SpiffeValidator)
        except msgspec.DecodeError:
            validator = _SpiffeValidator()
        bundles = [_Held(found.trust_bundle, found.name) for found in validator.trust_domains]
    return bundles or [_Held(context.trusted_ca)]


def _cells(message: Message, held: _Held, at: datetime) -> tuple[str, ...]:
    chain = read_chain(held.source) if held.source else DecodeProblem("certificate", "none has come")
    if isinstance(chain, DecodeProblem):
        return ("", message.state, "false", "", "", "", held.domain, "", chain.why)
    if not chain:
        return ("", message.state, "false", "", "", "", held.domain, "", "no certificate in it")
    first = chain[0]
    return (
        "CA" if first.is_ca else "Cert Chain",
        message.state,
        "true" if first.not_before < at < first.not_after else "false",
        first.serial.zfill(len(first.serial) + len(first.serial) % 2),
        _time(first.not_after),
        _time(first.not_before),
        held.domain or next(filter(None, map(trust_domain, first.uri_sans)), ""),
        ", ".join(first.uri_sans),
        _problem(chain, at),
    )


def _problem(chain: tuple[Certificate, ...], at: datetime) -> str:
    """What is wrong with any of the certificates by their dates: a bundle of roots has several."""
    for certificate in chain:
        if at > certificate.not_after:
            return f"expired at {_time(certificate.not_after)}"
        if at < certificate.not_before:
            return f"not valid before {_time(certificate.not_before)}"
    return ""


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
