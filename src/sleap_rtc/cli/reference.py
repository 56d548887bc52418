"""The reference of the command line, made from the commands themselves.

::

    docs/reference/
      cli.md             every command with its options, and the exit codes
      json.md            what --json prints, command by command
      schemas/NAME.json  the same as JSON Schema
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Final

import click
import msgspec

from sleap_rtc.cli.app import App
from sleap_rtc.cli.care_documents import CARE
from sleap_rtc.cli.commands import cli
from sleap_rtc.cli.documents import DOCUMENTS, Shown
from sleap_rtc.cli.import_documents import IMPORTS
from sleap_rtc.cli.keep_documents import KEEPING
from sleap_rtc.cli.main import SECTIONS

ALL: Final = DOCUMENTS | CARE | IMPORTS | KEEPING
"""Name of the schema's file → the document, of every command."""
WIDTH: Final = 90
EXIT_CODES: Final = {
    0: "done",
    1: "it failed: a training, an engine, a full disk, damaged data, something broken (`doctor`)",
    2: "the command line, a setting, a configuration or a label file is wrong",
    3: "there is no such model, job, room, worker or file",
    4: "something is in the way: a name that is taken, a file that exists, another process",
    5: "the network, the server or the other side",
    6: "not permitted: not signed in, not trusted, no rights on a file",
    130: "interrupted by Ctrl-C, or cancelled",
}


def files() -> dict[str, str]:
    """Path below ``docs/reference`` → content, of everything that is made here."""
    schemas = {f"schemas/{name}.json": schema(kind) for name, kind in ALL.items()}
    return {"cli.md": commands_page(), "json.md": json_page()} | schemas


def commands_page() -> str:
    """Every command with its help, and the exit codes."""
    lines = ["# Commands", "", "Made from the commands; `make docs` makes it anew.", ""]
    lines += ["Ways to give settings besides flags are in [settings](../settings.md).", ""]
    with _context(cli, "sleap-rtc") as ctx:
        lines += _block(ctx)
        for title, rows in SECTIONS.items():
            lines += [f"## {title}", ""]
            for row in rows:
                command = cli.get_command(ctx, row.name)
                if command is not None and not row.hidden:
                    for below in _family(command, row.name, ctx):
                        lines += [f"### {below.command_path}", "", *_block(below)]
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    lines += ["", "[Errors](../errors.md) has the exit code of each error."]
    return "\n".join(lines) + "\n"


def _context(
    command: click.Command, name: str, parent: click.Context | None = None
) -> click.Context:
    return click.Context(
        command,
        info_name=name,
        parent=parent,
        obj=App(),
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )


def _family(command: click.Command, name: str, parent: click.Context) -> Iterator[click.Context]:
    ctx = _context(command, name, parent)
    yield ctx
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            yield _context(command.commands[below], below, ctx)


def _block(ctx: click.Context) -> list[str]:
    text = ctx.command.get_help(ctx)
    return ["```", *(line.rstrip() for line in text.splitlines()), "```", ""]


def json_page() -> str:
    """What ``--json`` prints."""
    about = inspect.getdoc(inspect.getmodule(Shown)) or ""
    promise = about.partition("\n\n")[2]
    lines = ["# What `--json` prints", "", "Made from the code; `make docs` makes it anew.", ""]
    lines += [
        "One document, alone, on standard output; words, progress and logs go to standard error.",
        "A command that fails before it has a result prints `error`, and exits with its code.",
        "",
        " ".join(promise.split()),
        "",
        "| document | schema | what it is |",
        "|---|---|---|",
    ]
    for name, kind in ALL.items():
        said = (inspect.getdoc(kind) or "").partition("\n\n")[0]
        what = " ".join(said.split()).replace("``", "`")
        lines.append(f"| {name} | [{name}.json](schemas/{name}.json) | {what} |")
    lines += ["", "## An example", "", "`sleap-rtc workers --json | jq -r '.workers[].name'`", ""]
    return "\n".join(lines)


def schema(kind: type[Shown]) -> str:
    """A document's JSON Schema."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(kind)
    for part in made["$defs"].values():
        part["description"] = inspect.cleandoc(part["description"]).replace("``", "`")
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"
