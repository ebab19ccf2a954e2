"""Wrong usage gets one line that helps and exit code 2; nothing ends in a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meshscope.cli import help as cli_help
from meshscope.cli import main
from meshscope.cli.exits import Exit

from .conftest import Meshscope

_HEALTHY = str(Path(__file__).parents[1] / "data" / "istio" / "healthy-fullstats.tar.gz")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["diagnose", "--bundel", "x"], "Did you mean --bundle?"),
        (["diagnos"], 'Did you mean "diagnose"?'),
        (["diagnose", "-o", "jsn"], 'Did you mean "json"?'),
        (["diagnose", "--fail-on", "fatal"], "error"),
        (["diagnose", "--out", "json"], "FORMAT=PATH"),
        (["diagnose", "--out", "html=x"], "markdown"),
        (["diagnose", "--out", "json=/nowhere/at/all"], "doesn't exist"),
        (["diagnose", "--since", "soon"], "--since takes a duration like 90s, 5m or 1h30m"),
        (["diagnose", "--request-timeout", "1 minute"], "--request-timeout takes a duration"),
        (["diagnose", "a", "b", "c"], "c"),
        (["diagnose", "--bundle", "/nowhere"], "no such bundle"),
        (["diagnose", "--bundle", "/dev/null"], "not a bundle"),
        (["diagnose", "--bundle", "x", "--demo"], "two meshes"),
        (["diagnose", "--demo=seven"], "process id"),
        (["trace", "a"], "METHOD"),
        (["trace", "a", "GET"], "trace takes FROM METHOD URL"),
        (["trace", "a", "GET", "tcp://b:1"], "trace takes FROM METHOD URL"),
        (["trace", "a", "GET", "b/path"], "trace takes FROM METHOD URL"),
        (["trace", "a", "GET", "http:///path"], "must name a host"),
        (["trace", "a", "GET", "http://b/a path"], "without spaces"),
        (["trace", "a", "GET", "http://b:99999/"], "is no URL"),
        (["trace", "a", "GET", "http://[::1/"], "is no URL"),
        (["trace", "a", "tcp://b"], "and a port"),
        (["trace", "a", "GET", "http://b/", "-H", "nothing"], "NAME: VALUE"),
        (["capture"], "--output"),
        (["capture", "-o", "x.zip"], "a bundle is a directory, or"),
        (["demo", "--once", "--keep-bundle", "x.gz"], "a bundle is a directory, or"),
        (["demo", "deny-policy"], "Try 'meshscope demo --help'"),
        (["diagnose", "foo/a", "--bundle", _HEALTHY], "unknown kind 'foo'"),
        (["explain", "deny-polcy"], "Did you mean deny-policy?"),
        (["explain", "zzzzzzzz"], "meshscope rules"),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_wrong_usage(meshscope: Meshscope, arguments: list[str], says: str) -> None:
    ran = meshscope(*arguments)
    assert ran.code == Exit.USAGE
    assert ran.stdout == ""
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_hostile_arguments_are_quoted_harmlessly(meshscope: Meshscope) -> None:
    ran = meshscope("explain", "\x1b[2J\u202e")
    assert ran.code == Exit.USAGE
    assert "\x1b" not in ran.stderr
    assert "\u202e" not in ran.stderr


def test_a_name_that_nothing_has_is_answered_with_those_there_are(meshscope: Meshscope, denied: Path) -> None:
    ran = meshscope("diagnose", "review-v2", "--bundle", denied)
    assert ran.code == Exit.USAGE
    assert "nothing is called review-v2" in ran.stderr
    assert "  reviews-v2.bookinfo" in ran.stderr.splitlines()


def test_without_a_mesh_to_read_the_way_to_one_is_told(meshscope: Meshscope) -> None:
    ran = meshscope("diagnose")
    assert ran.code == Exit.UNREACHABLE
    assert ran.stdout == ""
    assert "--bundle PATH" in ran.stderr
    assert "meshscope demo" in ran.stderr


@pytest.mark.parametrize("arguments", [["--demo"], ["--demo", "4194305"]])
def test_a_demo_mesh_that_does_not_run_is_unreachable(meshscope: Meshscope, arguments: list[str]) -> None:
    ran = meshscope("diagnose", *arguments)
    assert ran.code == Exit.UNREACHABLE
    assert "meshscope demo" in ran.stderr


@pytest.mark.parametrize("flag", ["--context", "--kubeconfig"])
def test_a_live_cluster_is_refused_honestly(meshscope: Meshscope, flag: str) -> None:
    ran = meshscope("diagnose", flag, "prod")
    assert ran.code == Exit.UNREACHABLE
    assert "not live clusters yet" in ran.stderr


def test_an_interrupt_exits_with_130(meshscope: Meshscope, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("meshscope.cli.reach.Reach._open", interrupted)
    assert meshscope("diagnose").code == Exit.INTERRUPTED


def test_an_internal_error_is_one_line(meshscope: Meshscope, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise RuntimeError("two\nlines \x1b[2J")

    monkeypatch.setattr("meshscope.cli.reach.Reach._open", broken)
    ran = meshscope("diagnose")
    assert ran.code == Exit.USAGE
    assert ran.stderr.startswith(
        "meshscope: internal error: RuntimeError: two\\nlines \\x1b[2J; please report it"
    )
    assert len(ran.stderr.splitlines()) == 1


def test_an_internal_error_has_its_traceback_on_request(
    meshscope: Meshscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise RuntimeError("broken")

    monkeypatch.setattr("meshscope.cli.reach.Reach._open", broken)
    monkeypatch.setenv("MESHSCOPE_DEBUG", "1")
    with pytest.raises(RuntimeError, match="broken"):
        meshscope("diagnose")


@pytest.mark.parametrize("arguments", [[], ["--help"], *([name, "--help"] for name in cli_help.COMMANDS)])
def test_help(meshscope: Meshscope, arguments: list[str]) -> None:
    ran = meshscope(*arguments)
    assert ran.code == Exit.OK
    assert "Usage: meshscope" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80


EXAMPLES = [
    example
    for command in cli_help.COMMANDS.values()
    for example in command.examples
    if example.startswith("meshscope ")
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_in_help_parse(example: str) -> None:
    import shlex

    words = shlex.split(example.partition(" > ")[0])[1:]
    main.app.parse_args(main._with_bare_demo(words), print_error=False, exit_on_error=False)


def test_the_version(meshscope: Meshscope) -> None:
    from meshscope import __version__

    assert meshscope("--version").stdout == f"meshscope {__version__}\n"
    assert meshscope("version").stdout.startswith(f"meshscope {__version__} (Python ")


def test_a_reader_that_goes_away_leaves_no_noise(denied: Path) -> None:
    command = [sys.executable, "-m", "meshscope", "diagnose", "--verbose", "--bundle", str(denied)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == Exit.FINDINGS


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90.0), ("5m", 300.0), ("1h30m", 5400.0), ("250ms", 0.25), ("1.5h", 5400.0)]
)
def test_durations(text: str, expected: float) -> None:
    from meshscope.cli.durations import seconds

    assert seconds("--since", text) == expected
