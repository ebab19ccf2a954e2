"""`meshscope rules`, `meshscope explain` and the completion scripts."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from meshscope.cli.exits import Exit
from meshscope.report.schema import schema
from meshscope.rules.catalogue import catalogue
from meshscope.rules.causes import CAUSES

from .conftest import Meshscope


def test_rules_lists_every_rule(meshscope: Meshscope) -> None:
    ran = meshscope("rules")
    assert ran.code == Exit.OK
    assert len(ran.stdout.splitlines()) == len(catalogue())


def test_rules_as_json(meshscope: Meshscope) -> None:
    document = json.loads(meshscope("rules", "-o", "json").stdout)
    jsonschema.validate(document, schema("rules"))
    assert [entry["code"] for entry in document["rules"]] == [loaded.rule.code for loaded in catalogue()]


def test_rules_of_one_mesh(meshscope: Meshscope) -> None:
    document = json.loads(meshscope("rules", "-o", "json", "--mesh", "istio").stdout)
    assert {entry["mesh"] for entry in document["rules"]} == {"istio"}


def test_a_mesh_without_rules_is_told(meshscope: Meshscope) -> None:
    ran = meshscope("rules", "--mesh", "linkerd")
    assert ran.code == Exit.OK
    assert ran.stdout == ""
    assert "no rules for linkerd" in ran.stderr


def test_prose_keeps_to_the_width(meshscope: Meshscope) -> None:
    said = meshscope("explain", "deny-policy").stdout.partition("Symptom")[2]
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_can_be_explained(meshscope: Meshscope, cause: str) -> None:
    ran = meshscope("explain", cause)
    assert ran.code == Exit.OK
    assert CAUSES[cause].title in ran.stdout


@pytest.mark.parametrize("code", [loaded.rule.code for loaded in catalogue()])
def test_every_code_is_explained_from_its_docstring(meshscope: Meshscope, code: str) -> None:
    said = meshscope("explain", code.lower()).stdout
    for heading in ("Symptom", "Why it fails", "How meshscope knows", "Fix", "References"):
        assert heading in said.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_commands(meshscope: Meshscope, shell: str) -> None:
    ran = meshscope("completion", shell)
    assert ran.code == Exit.OK
    assert "diagnose" in ran.stdout
    assert "--fail-on" in ran.stdout or "-l fail-on" in ran.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_sound(meshscope: Meshscope, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed")
    script = meshscope("completion", shell).stdout
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_the_completion_is_installed_where_bash_looks(
    meshscope: Meshscope, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = meshscope("--install-completion", "--shell", "bash")
    assert ran.code == Exit.OK
    (installed,) = tmp_path.rglob("completions/meshscope")
    assert str(installed) in ran.stderr
