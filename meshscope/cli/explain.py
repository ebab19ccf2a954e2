"""`meshscope explain`: what a code or a cause means and how to fix it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import stdout_style, write_stdout

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext


def _names(context: CompletionContext) -> dict[str, str]:
    """What can be explained, with a word on each, for the shell's completion."""
    from meshscope.rules.catalogue import catalogue
    from meshscope.rules.causes import CAUSES

    codes = {loaded.rule.code: loaded.rule.title for loaded in catalogue()}
    return codes | {cause: meaning.title for cause, meaning in CAUSES.items()}


def explain(
    name: Annotated[
        str,
        Parameter(
            name="CODE|CAUSE",
            completer=_names,
            help="A code (MS-I021, or one known from another tool), or the id of a cause.",
        ),
    ],
    /,
    *,
    no_color: Annotated[bool, Parameter(negative=(), help="No colours, as with NO_COLOR set.")] = False,
) -> int:
    """What a code or a cause means, how meshscope knows, and how to fix it."""
    from meshscope.report.catalogue import explain as explanation
    from meshscope.rules.catalogue import by_code_or_cause, catalogue
    from meshscope.rules.causes import CAUSES

    rules = by_code_or_cause(name)
    causes = sorted({loaded.rule.cause for loaded in rules} | ({name.lower()} & CAUSES.keys()))
    if not causes:
        known = [*CAUSES, *(loaded.rule.code for loaded in catalogue())]
        close = difflib.get_close_matches(name.lower(), known, 3) or difflib.get_close_matches(
            name.upper(), known, 3
        )
        suggestion = f" Did you mean {' or '.join(close)}?" if close else " 'meshscope rules' lists both."
        raise CommandError(f"{name!r} is neither a code nor a cause.{suggestion}")
    style = stdout_style(no_color=no_color)
    write_stdout(explanation(causes, rules, width=style.width, color=style.color))
    return Exit.OK
