"""Every rule keeps to the catalogue's form, and to its cases: tests/rules/CODE/{fails,passes}_*, small bundles.

A case whose name ends in `_first` must have the rule's finding before all others.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest

from meshscope.diagnose.diagnose import diagnose, gather
from meshscope.facts.edges import DEFAULT_WINDOW_S
from meshscope.facts.mesh import Mesh
from meshscope.model.findings import Report
from meshscope.rules.catalogue import by_code_or_cause, catalogue
from meshscope.rules.causes import CAUSES
from meshscope.rules.documentation import HEADINGS, parse
from meshscope.rules.facts import Facts
from meshscope.rules.rule import LoadedRule
from meshscope.sources.bundle import open_bundle

CASES = Path(__file__).parent
RULES = {loaded.rule.code: loaded for loaded in catalogue()}

each_rule = pytest.mark.parametrize("loaded", RULES.values(), ids=RULES)


def cases(code: str, verdict: str) -> list[Path]:
    return sorted((CASES / code).glob(f"{verdict}_*"))


def all_cases(verdict: str) -> list[object]:
    return [
        pytest.param(code, case, id=f"{code}/{case.name}") for code in RULES for case in cases(code, verdict)
    ]


def report_of(bundle: Path) -> Report:
    source = open_bundle(bundle)
    try:
        return diagnose(Mesh(source))
    finally:
        source.close()


def touched(loaded: LoadedRule, bundle: Path) -> set[str]:
    """The inputs that a rule reads of a bundle."""
    source = open_bundle(bundle)
    try:
        facts = Facts(gather(Mesh(source), None, None, DEFAULT_WINDOW_S))
        list(loaded.check(facts))
        return facts.touched
    finally:
        source.close()


def test_codes_are_unique() -> None:
    counts = Counter(loaded.rule.code for loaded in catalogue())
    assert not [code for code, count in counts.items() if count > 1]


@each_rule
def test_the_code_tells_the_mesh(loaded: LoadedRule) -> None:
    letter = {"istio": "I", "linkerd": "L", "common": "C"}[loaded.rule.mesh]
    assert re.fullmatch(rf"MS-{letter}\d{{3}}", loaded.rule.code)


@each_rule
def test_the_module_is_named_for_code_and_cause(loaded: LoadedRule) -> None:
    name = f"{loaded.rule.code.replace('-', '_')}_{loaded.rule.cause.replace('-', '_')}".lower()
    assert loaded.check.__module__ == f"meshscope.rules.{name}"


@each_rule
def test_the_cause_is_a_known_one(loaded: LoadedRule) -> None:
    assert loaded.rule.cause in CAUSES


@each_rule
def test_the_documentation_has_every_heading_with_text_in_order(loaded: LoadedRule) -> None:
    documentation = parse(loaded.documentation)
    assert documentation.summary
    assert not documentation.missing
    assert tuple(heading for heading, _ in documentation.sections) == HEADINGS


@each_rule
def test_the_declaration_is_complete(loaded: LoadedRule) -> None:
    rule = loaded.rule
    assert rule.title
    assert rule.since
    assert rule.inputs
    assert rule.verified_on


@each_rule
def test_the_rule_is_found_by_code_cause_and_other_names(loaded: LoadedRule) -> None:
    for name in (loaded.rule.code, loaded.rule.code.lower(), loaded.rule.cause, *loaded.rule.also_known_as):
        assert loaded in by_code_or_cause(name)


@each_rule
def test_the_rule_has_a_failing_and_a_passing_case(loaded: LoadedRule) -> None:
    assert cases(loaded.rule.code, "fails")
    assert cases(loaded.rule.code, "passes")


def test_cases_belong_to_rules() -> None:
    folders = {path.name for path in CASES.glob("MS-*")}
    assert folders <= RULES.keys()


@pytest.mark.parametrize(("code", "case"), all_cases("fails"))
def test_a_failing_case_has_the_finding(code: str, case: Path) -> None:
    codes = [finding.code for finding in report_of(case).findings]
    assert code in codes
    if case.name.partition(".")[0].endswith("_first"):
        assert codes[0] == code


@pytest.mark.parametrize(("code", "case"), all_cases("passes"))
def test_a_passing_case_lacks_the_finding(code: str, case: Path) -> None:
    assert code not in [finding.code for finding in report_of(case).findings]


@each_rule
def test_declared_inputs_are_those_that_are_read(loaded: LoadedRule) -> None:
    code = loaded.rule.code
    read: set[str] = set()
    for case in cases(code, "fails") + cases(code, "passes"):
        read |= touched(loaded, case)
    assert read == set(loaded.rule.inputs)


def test_the_causes_of_a_section_stand_together() -> None:
    """The table of causes is made by walking them in order."""
    runs = [section for section, _ in groupby(cause.section for cause in CAUSES.values())]
    assert len(runs) == len(set(runs))


def test_the_generated_documentation_is_up_to_date(repository: Path) -> None:
    checked = subprocess.run(
        [sys.executable, repository / "scripts" / "docs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
