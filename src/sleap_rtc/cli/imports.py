"""What ``import-model`` does: asks, shows how far it is, and tells what became of each model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from sleap_rtc.cli.app import App
from sleap_rtc.cli.documents import ErrorShown
from sleap_rtc.cli.import_documents import ImportDocument, ImportedShown, NotImportedShown
from sleap_rtc.cli.listing import SAFETY_STYLES
from sleap_rtc.cli.model_documents import model_shown
from sleap_rtc.cli.text import Cell, Column, bar, count
from sleap_rtc.client.approvals import Approvals
from sleap_rtc.domain import aliases
from sleap_rtc.domain.models import Safety, safety_of
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import AliasTaken, OutOfSpace, SleapRtcError
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.importing.examining import Examined
from sleap_rtc.library.importing.finding import Skipped
from sleap_rtc.library.importing.importer import (
    Imported,
    Importer,
    Questions,
    Result,
    Stage,
)
from sleap_rtc.library.importing.wishes import Wishes, check_type, check_wishes
from sleap_rtc.library.layout import KNOWN_TYPES

QUIET_S: Final = 1.0
"""Seconds of work before its progress is shown."""

_STAGES: Final[dict[Stage, str]] = {
    "looking": "looking at",
    "unpacking": "unpacking",
    "reading": "reading",
    "copying": "copying",
}


def import_all(app: App, paths: Sequence[Path], *, yes: bool, **wishes: Any) -> None:
    """Import everything that the paths hold.

    Args:
        app: The invocation.
        paths: As the person named them.
        yes: Whether nothing is asked.
        wishes: Fields of `Wishes`.

    Raises:
        SleapRtcError: Nothing was imported, with the first reason.
    """
    wanted = Wishes(**wishes)
    check_wishes(wanted, paths)
    client = app.client()
    results: list[Result] = []
    many = len(paths) > 1 or wanted.recursive
    progress = Progress(app)
    app.goes_on = "Nothing was imported."
    importer = Importer(
        client.library,
        wanted,
        cache=client.cache,
        drive=client.settings.drive,
        questions=Person(app, many=many) if app.out.interactive and not yes else Questions(),
        progress=progress,
    )
    try:
        for result in importer.run(paths):
            app.out.live.clear()
            results.append(result)
            done = sum(isinstance(each, Imported) for each in results)
            progress.models = len(results)
            if done:
                there = count(done, "model is", "models are")
                app.goes_on = f"{there} imported; nothing is half done."
            if isinstance(result, Imported) and result.entry.record.trust is not None:
                _approve(client.settings.home, result.entry)
    except OutOfSpace as full:
        if not results:
            raise
        app.out.live.clear()
        _show(app, results, paths)
        app.fail(full)
    app.out.live.clear()
    _tell(app, results, paths)


class Person(Questions):
    """Asks whoever sits at the terminal.

    Args:
        app: The invocation.
        many: Whether there may be many models: then nothing is asked, and each is called as
            proposed.
    """

    def __init__(self, app: App, *, many: bool) -> None:
        self._app = app
        self._many = many

    def model_type(self, examined: Examined) -> str | None:
        """The head of a model whose files don't tell it; an empty answer skips the model."""
        if self._many:
            return None
        out = self._app.out
        out.say(f"Nothing tells what type of model {examined.candidate.path} is.")
        out.say(f"The trainer's types are {', '.join(KNOWN_TYPES)}.")
        while answer := out.prompt("Type (empty skips it):"):
            try:
                check_type(answer)
            except SleapRtcError as error:
                out.warn(error.message)
            else:
                return answer
        return None

    def alias(self, entry: Entry, proposed: str) -> str | None:
        """The alias for a model; an empty answer takes the proposed one, ``-`` none."""
        if self._many:
            return proposed or None
        out = self._app.out
        offered = f"[Enter: {proposed}; -: none]" if proposed else "[Enter: none]"
        while True:
            answer = out.prompt(f"Alias of {entry.record.model_type} {entry.id} {offered}:")
            if not answer:
                return proposed or None
            if answer == "-":
                return None
            why = aliases.fault(answer)
            if not why:
                return answer
            out.warn(f"{answer!r} can't be an alias: {why}.")


class Progress:
    """Shows how far it is, once it takes longer than a second.

    It may be called from several threads.

    Attributes:
        models: How many models are done.
    """

    def __init__(self, app: App) -> None:
        self.models = 0
        self._out = app.out
        self._since = time.monotonic()

    def __call__(self, stage: Stage, name: str, done: int, total: int) -> None:
        """Take in how far it is."""
        if time.monotonic() - self._since < QUIET_S:
            return
        before = f"{count(self.models, 'model')} done, " if self.models else ""
        words = f"{before}{_STAGES[stage]} {name}"
        amount = format_bytes(done) if done else ""
        if total:
            amount += f" of {format_bytes(total)}"
        drawn = f" {bar(done / total, 20)}" if total else ""
        self._out.live.update(
            [f"{words}{drawn} {amount}"], plain=f"{words}: {amount}" if amount else words
        )


def _approve(home: Path, entry: Entry) -> None:
    """A yes at import is a yes to running it here: the same person, the same machine."""
    trust = entry.record.trust
    approvals = Approvals(home / "trusted")
    for file in entry.record.files:
        if trust is not None and file.path in trust.files and not approvals.has(file.blake3):
            approvals.approve(file.blake3, f"{file.path} of model {entry.id}: {file.found}")


# ── what became of it ────────────────────────────────────────────────────────


def _tell(app: App, results: Sequence[Result], paths: Sequence[Path]) -> None:
    """Show the results, and end with the exit code that they have."""
    imported = [result for result in results if isinstance(result, Imported)]
    if len(results) == 1 and isinstance(results[0], Skipped):
        raise results[0].error
    _show(app, results, paths)
    failed = _failed(results, paths)
    if not imported and failed:
        app.out.failure(failed[0].message, failed[0].hint_text)
    codes = {error.exit_code for error in failed}
    codes |= {AliasTaken.exit_code for result in imported if result.wanted}
    if codes:
        raise click.exceptions.Exit(codes.pop() if len(codes) == 1 else 1)


def _show(app: App, results: Sequence[Result], paths: Sequence[Path]) -> None:
    """Show what became of each."""
    imported = [result for result in results if isinstance(result, Imported)]
    document = ImportDocument(
        imported=tuple(_imported(result) for result in imported),
        skipped=tuple(_skipped(each) for each in results if isinstance(each, Skipped)),
    )
    app.out.show(document, lambda: _print(app, results, paths))
    for result in imported:
        _warn(app, result)


def _failed(results: Sequence[Result], paths: Sequence[Path]) -> list[SleapRtcError]:
    """Why of paths that were named nothing came; what a tree holds besides models is no failure."""
    errors = []
    for path in dict.fromkeys(each.absolute() for each in paths):
        of = [result for result in results if result.path.is_relative_to(path)]
        skipped = [result.error for result in of if isinstance(result, Skipped)]
        if skipped and len(skipped) == len(of):
            errors.append(skipped[0])
    return errors


def _print(app: App, results: Sequence[Result], paths: Sequence[Path]) -> None:
    imported = [result for result in results if isinstance(result, Imported)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    if app.out.quiet:
        for result in imported:
            app.out.data(result.entry.id)
        for one in skipped:
            app.out.warn(f"{one.path} is not imported: {_why(one)}")
        return
    if len(results) == 1 and imported:
        _print_one(app, imported[0])
        return
    # Whoever imports a tree knows where it is: below it, paths are short.
    top = paths[0].absolute() if len(paths) == 1 else None
    if imported:
        _print_table(app, imported, top)
    if skipped:
        app.out.title("Not imported")
        for one in skipped:
            app.out.data(f"  {_below(one.path, top)}")
            app.out.data(f"    {_why(one)}")
    known = sum(result.known and not result.mended for result in imported)
    mended = sum(bool(result.mended) for result in imported)
    parts = [f"{count(len(imported) - known - mended, 'model')} imported"]
    parts += [f"{mended} mended"] if mended else []
    parts += [f"{known} here already"] if known else []
    parts += [f"{len(skipped)} not imported"] if skipped else []
    app.out.say(", ".join(parts) + ".")


def _print_table(app: App, imported: Sequence[Imported], top: Path | None) -> None:
    rows: list[list[Cell | str]] = []
    for result in imported:
        record = result.entry.record
        rows.append(
            [
                Cell(result.entry.label, "name"),
                record.model_type,
                format_bytes(record.size),
                _safety(safety_of(record)),
                _what(result),
                _below(result.path, top),
            ]
        )
    different = len({_what(result) for result in imported}) > 1
    columns = [
        Column("model", least=16, last=True),
        Column("type"),
        Column("size", right=True, whole=True),
        Column("safety", whole=True, spare=True),
        Column("what", whole=True, spare=not different),
        Column("from", least=16, spare=True),
    ]
    app.out.table(columns, rows)


def _safety(safety: Safety, more: str = "") -> Cell:
    return Cell(f"{safety.tier}{more}", SAFETY_STYLES[safety.tier])


def _what(result: Imported) -> Cell:
    if result.mended:
        return Cell("mended", "good")
    return Cell("here already", "dim") if result.known else Cell("imported", "good")


def _below(path: Path, top: Path | None) -> str:
    """A path as a person would say it: from the folder that was named."""
    if top is None or path == top or not path.is_relative_to(top):
        return str(path)
    return str(path.relative_to(top))


def _why(result: Skipped) -> str:
    why = result.error.message.removeprefix(f"{result.path}: ")
    return f"{why} {result.error.hint_text}".rstrip()


def _print_one(app: App, result: Imported) -> None:
    record = result.entry.record
    if app.out.quiet:
        app.out.data(record.id)
        return
    ways = {
        "link": "links to where they are",
        "copy": "copied into the library",
        "move": "unpacked into the library",
        "adopt": "they were in the library",
    }
    safety = safety_of(record)
    why = f": {safety.why}" if safety.why else ""
    trusted = ", trusted by you" if safety.trusted else ""
    known = "Here already, nothing was added"
    if result.mended:
        known = f"Here already; files of it were mended: {result.mended}"
    app.out.title(known if result.known else "Imported")
    app.out.fields(
        [
            ("Id", record.id),
            ("Alias", Cell(result.entry.alias or "", "name")),
            ("Type", record.model_type),
            ("Size", f"{format_bytes(record.size)}, {count(len(record.files), 'file')}"),
            ("Files", "" if result.known else ways[result.way]),
            ("Safety", _safety(safety, f"{why}{trusted}")),
            ("Points", ", ".join(record.skeleton)),
            ("From", str(result.path)),
            ("Folder", str(result.entry.directory)),
        ],
        indent=2,
    )
    app.out.say(f"sleap-rtc model-info {result.entry.label} shows everything about it.", "dim")


def _warn(app: App, result: Imported) -> None:
    for note in result.notes[:5]:
        app.out.warn(f"{result.path.name}: {note}")
    if len(result.notes) > 5:
        app.out.warn(f"{result.path.name}: {len(result.notes) - 5} more things; --json shows all.")
    if result.wanted:
        free = " or ".join(result.suggestions)
        hint = f" Free is {free}: sleap-rtc tag-model {result.entry.id} ALIAS" if free else ""
        app.out.warn(f"The alias {result.wanted!r} names another model; this one has none.{hint}")


def _imported(result: Imported) -> ImportedShown:
    safety = safety_of(result.entry.record)
    return ImportedShown(
        model=model_shown(result.entry),
        source=str(result.path),
        added=not result.known,
        way=result.way,
        safety=safety.tier,
        found=safety.why,
        trusted=safety.trusted,
        wanted_alias=result.wanted,
        suggestions=result.suggestions,
        notes=result.notes,
    )


def _skipped(result: Skipped) -> NotImportedShown:
    error = result.error
    return NotImportedShown(
        source=str(result.path),
        error=ErrorShown(
            code=error.code,
            message=error.message,
            hint=error.hint_text,
            exit_code=error.exit_code,
        ),
    )
