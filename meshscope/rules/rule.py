"""What a rule declares, and what it claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

from meshscope.model.findings import CausedBy, Edge, Evidence, Fix, RuledOut, Severity, Unknown
from meshscope.model.names import ObjectRef
from meshscope.walk.hops import Stage

if TYPE_CHECKING:
    from meshscope.rules.facts import Facts


class Rule(msgspec.Struct, frozen=True):
    """The declaration of a rule.

    `code` is stable and never reused (MS-I… Istio, MS-L… Linkerd, MS-C… common); `cause` is the public id;
    `inputs` are the facts that `check` reads, and tests hold it to them; `verified_on` names the versions it
    was seen on.
    """

    code: str
    cause: str
    title: str
    severity: Severity
    mesh: Literal["istio", "linkerd", "common"]
    inputs: tuple[str, ...]
    since: str
    verified_on: tuple[str, ...]
    also_known_as: tuple[str, ...] = ()


class Claim(msgspec.Struct, frozen=True):
    """What a rule says of one edge or object: this cause explains these symptoms.

    `stage` is the hop of the walk that decided; `explains` are ids of symptoms; `subject` is the object to blame
    (a policy, else the owning workload); `discriminator` tells two findings on one subject apart; `confidence` is
    0 to 1, where 1 is a decision read from the deciding proxy together with its observed effect.
    """

    rule: Rule
    subject: ObjectRef
    stage: Stage
    explanation: str
    evidence: tuple[Evidence, ...]
    fix: tuple[Fix, ...]
    confidence: float
    affected: tuple[Edge | str, ...] = ()
    explains: tuple[str, ...] = ()
    discriminator: str = ""
    caused_by: tuple[CausedBy, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    title: str = ""
    """A title for this very case; the rule's own where it is empty."""
    severity: Severity | None = None

    def also(self, *evidence: Evidence) -> Claim:
        """The claim with more evidence."""
        return msgspec.structs.replace(self, evidence=(*self.evidence, *evidence))


Check = Callable[["Facts"], Iterable[Claim | Unknown]]


class LoadedRule(msgspec.Struct, frozen=True):
    """A rule with its documentation and its check, as the catalogue holds it."""

    rule: Rule
    documentation: str
    check: Check
