"""The reference of the command line, made from the commands themselves.

::

    docs/reference/
      cli.md             every command with its options, and the exit codes
      json.md            what --json prints, command by command, and the columns of CSV
      search.md          what a search for models may say
      schemas/NAME.json  the same as JSON Schema
      schemas/NAME.csv.json  the columns of --format csv, as a Table Schema
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec

from sleap_rtc.cli.app import App
from sleap_rtc.cli.care_documents import CARE
from sleap_rtc.cli.commands import cli
from sleap_rtc.cli.documents import ERRORS, Shown
from sleap_rtc.cli.import_documents import IMPORTS
from sleap_rtc.cli.job_documents import JOBS
from sleap_rtc.cli.keep_documents import KEEPING
from sleap_rtc.cli.machine_documents import MACHINES
from sleap_rtc.cli.model_documents import MODELS, ComparedShown, ModelShown
from sleap_rtc.cli.moving_documents import MOVING
from sleap_rtc.cli.room_documents import ROOMS
from sleap_rtc.cli.storage_documents import STORAGE
from sleap_rtc.cli.table import SECTIONS
from sleap_rtc.library.rows import MAX_RANKED
from sleap_rtc.library.search import conditions

_BASIC: Final = ERRORS | ROOMS | MACHINES | MODELS | JOBS
ALL: Final = dict(sorted(_BASIC.items())) | CARE | IMPORTS | KEEPING | MOVING | STORAGE
"""Name of the schema's file → the document, of every command."""
CSV: Final[dict[str, type[Shown]]] = {
    "compare-models": ComparedShown,
    "list-models": ModelShown,
    "worker-list-models": ModelShown,
}
"""Name of the schema's file → what one line is of, of every command with ``--format csv``."""
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
    schemas |= {f"schemas/{name}.csv.json": csv_schema(name) for name in CSV}
    pages = {"cli.md": commands_page(), "json.md": json_page(), "search.md": search_page()}
    return pages | schemas


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
    lines += [
        "",
        "## CSV",
        "",
        "`--format csv` prints a line of headings, and a line of each model or fact. Several",
        "values in one are joined by commas, and what isn't known is empty. New columns come last;",
        "none is renamed, moved or taken away. `compare-models` has one of each model besides,",
        "under its id; its lines are those of `compare-models --json`.",
        "",
        "| command | Table Schema | columns |",
        "|---|---|---|",
    ]
    for name in CSV:
        columns = ", ".join(f"`{field['name']}`" for field in _csv_fields(name))
        lines.append(f"| {name} | [{name}.csv.json](schemas/{name}.csv.json) | {columns} |")
    lines += ["", "## An example", "", "`sleap-rtc workers --json | jq -r '.workers[].name'`", ""]
    return "\n".join(lines)


def search_page() -> str:
    """What a search may say."""
    lines = ["# Searching", "", "Made from the code; `make docs` makes it anew.", ""]
    lines += [
        "Words are looked for in all that a model says of itself, whatever their case and",
        "accents; the last one of a search may be a beginning, and so may one that ends in `*`.",
        "Words between quotation marks stand side by side. A `-` before anything finds what",
        "doesn't fit it. All of a search has to fit. What fits best comes first: of up to",
        f"{MAX_RANKED} models each word is weighed, by where and how often it is and how rare; of",
        "more, those with all the words in alias or name come first, then in type, tags and",
        "family too, then anywhere, each time the newest first. In a shell, put a search between",
        "`'` `'`, since",
        "`<`, `>` and `*` mean something there:",
        "`sleap-rtc list-models 'fly tag:night loss<0.01 -status:failed'`.",
        "",
        "| field | takes | what it is |",
        "|---|---|---|",
    ]
    for name, field in conditions.FIELDS.items():
        takes = ", ".join(f"`{choice}`" for choice in field.choices) or _TAKES[field.kind]
        lines.append(f"| `{name}` | {takes} | {field.help} |")
    others = ", ".join(f"`{one}` is `{name}`" for one, name in conditions.SYNONYMS.items())
    lines += [
        "",
        "Several values, with commas between, are alternatives: `tag:flies,mice`. A model of",
        "which something isn't known is not compared by it: without a loss it doesn't fit",
        f"`loss>0`, and fits `-loss>0`. Also understood: {others}.",
    ]
    return "\n".join(lines) + "\n"


_TAKES: Final = {
    "words": "`:` and words in it",
    "exact": "`:` and the whole of it, or its beginning and `*`",
    "number": "`<` `<=` `=` `>=` `>` and a number",
    "count": "`<` `<=` `=` `>=` `>` and a whole number",
    "size": "`<` `<=` `=` `>=` `>` and bytes: `500KB`, `1.5GB`, `2GiB`",
    "date": "`<` `<=` `=` `>=` `>` and a year, a month or a day; after a month is after its end",
}


def schema(kind: type[Shown]) -> str:
    """A document's JSON Schema."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(kind)
    for part in made["$defs"].values():
        part["description"] = inspect.cleandoc(part["description"]).replace("``", "`")
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def csv_schema(name: str) -> str:
    """The columns of a command's CSV, as a Table Schema (Frictionless Data)."""
    made = {
        "$schema": "https://datapackage.org/profiles/2.0/tableschema.json",
        "missingValues": [""],
        "fields": _csv_fields(name),
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _csv_fields(name: str) -> list[dict[str, object]]:
    kind = CSV[name]
    about = dict(_ATTRIBUTE.findall(inspect.getdoc(kind) or ""))
    plain = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    columns = list(plain) if kind is ModelShown else ["group", "name"]
    return [
        {
            "name": column,
            "type": _table_type(plain[column]),
            "description": " ".join(about[column].split()).replace("``", "`"),
        }
        for column in columns
    ]


_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def _table_type(plain: dict[str, Any]) -> str:
    """What a value of a JSON Schema is in a table: lists are joined by commas."""
    kinds = [each for each in plain.get("anyOf", [plain]) if each.get("type") != "null"]
    (kind,) = kinds
    if kind.get("format") == "date-time":
        return "datetime"
    return kind["type"] if kind.get("type") in ("boolean", "integer", "number") else "string"
