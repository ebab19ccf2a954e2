"""`meshscope rules`: the catalogue of rules."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from meshscope.cli.exits import Exit
from meshscope.cli.output import say, stdout_style, write_stdout


def rules(
    *,
    mesh: Annotated[
        Literal["istio", "linkerd", "common"] | None, Parameter(help="The rules for one mesh only.")
    ] = None,
    output: Annotated[
        Literal["text", "json", "yaml"], Parameter(name=("--output", "-o"), help="The form of the answer.")
    ] = "text",
    no_color: Annotated[bool, Parameter(negative=(), help="No colours, as with NO_COLOR set.")] = False,
) -> int:
    """The catalogue of rules: code, cause, severity and title of each."""
    from meshscope.report import catalogue as text
    from meshscope.report.documents import rules_of
    from meshscope.rules.catalogue import catalogue

    document = rules_of(loaded for loaded in catalogue() if mesh in (None, loaded.rule.mesh))
    if not document.rules:
        say(f"this version has no rules for {mesh}")
    match output:
        case "json":
            from meshscope.report import json

            write_stdout(json.render(document))
        case "yaml":
            from meshscope.report import yaml

            write_stdout(yaml.render(document))
        case _:
            write_stdout(text.render(document, color=stdout_style(no_color=no_color).color))
    return Exit.OK
