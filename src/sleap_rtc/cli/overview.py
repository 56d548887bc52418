"""``sleap-rtc --help``: the page that people ask for most, without click.

Importing click takes longer than all the rest of it. The page is made from the
table of commands and the options below, which the real options take their
texts from; a test compares it with the page that click makes, at every width.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from sleap_rtc.cli.table import ABOUT, EPILOG, SECTIONS

OPTIONS: Final = {
    "--json": ("--json", "Print the result as JSON, alone, on standard output."),
    "--quiet": ("-q, --quiet", "Print the result's names alone, and no progress."),
    "--home": ("--home DIRECTORY", "Keys, rooms, library and settings."),
    "--log-level": ("--log-level [debug|info|warning|error]", "The least that is logged."),
    "--insecure": (
        "--insecure",
        "Speak without TLS beyond this machine, on a trusted network.",
    ),
    "--offline": (
        "--offline",
        "Ask nobody: what is known here is shown, the rest fails at once.",
    ),
    "--benchmark": ("--benchmark", "Say how long the library's operations took."),
    "--debug": ("--debug", "Log everything."),
    "--version": ("--version", "Show the version and exit."),
    "--help": ("-h, --help", "Show this message and exit."),
}
"""Option of every command → how it is written, and what it does."""

_USAGE: Final = "Usage: sleap-rtc "
_INDENT: Final = "  "
_WIDEST: Final = 30
"""Columns of names; a longer one has a line of its own."""
_NARROWEST: Final = 10
_GAP: Final = 2


def overview(width: int) -> str:
    """The page.

    Args:
        width: Columns, 40 or more.
    """
    usage = textwrap.wrap(
        "[OPTIONS] COMMAND [ARGS]...",
        width,
        initial_indent=_USAGE,
        subsequent_indent=" " * len(_USAGE),
    )
    lines = [*usage, "", *_paragraph(ABOUT, width)]
    lines += ["", "Options:", *_definitions(list(OPTIONS.values()), width)]
    for title, rows in SECTIONS.items():
        shown = [(row.name, row.help) for row in rows if not row.hidden]
        lines += ["", f"{title}:", *_definitions(shown, width)]
    return "\n".join([*lines, "", *_paragraph(EPILOG, width)]) + "\n"


def _paragraph(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=_INDENT, subsequent_indent=_INDENT)


def _definitions(rows: Sequence[tuple[str, str]], width: int) -> Iterable[str]:
    column = min(max(len(name) for name, _ in rows), _WIDEST) + _GAP
    for name, about in rows:
        first, *rest = textwrap.wrap(about, max(width - column - _GAP, _NARROWEST))
        if len(name) <= column - _GAP:
            yield f"{_INDENT}{name:<{column}}{first}"
        else:
            yield f"{_INDENT}{name}"
            yield f"{_INDENT}{'':<{column}}{first}"
        for line in rest:
            yield f"{_INDENT}{'':<{column}}{line}"
