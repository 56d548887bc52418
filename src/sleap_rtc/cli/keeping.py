"""What ``export-registry``, ``import-registry``, ``backup`` and ``restore`` do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sleap_rtc.cli.app import App
from sleap_rtc.cli.keep_documents import (
    BackupDocument,
    ExportDocument,
    LeftOutShown,
    MergeDocument,
    OutcomeShown,
)
from sleap_rtc.cli.progress import Progress
from sleap_rtc.cli.text import Cell, Column, count
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import AlreadyExists, NotFound
from sleap_rtc.library import backup, manifest, migration, portable, unpacking
from sleap_rtc.library.entries import Query
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.merging import Fate, Kind, Outcome, Report
from sleap_rtc.library.registry import Registry

MAX_OUTCOMES: Final = 10_000
_SHOWN: Final = 20
_STYLES: Final[dict[Fate, str]] = {
    "added": "good",
    "renamed": "warning",
    "known": "dim",
    "deleted": "warning",
    "taken": "warning",
    "refused": "bad",
}
_WORDS: Final[dict[Fate, str]] = {
    "added": "new here",
    "renamed": "new, under another id",
    "known": "here already",
    "deleted": "deleted here",
    "taken": "name in use",
    "refused": "not usable",
}


def export(app: App, path: Path, *, replacing: bool) -> None:
    """Write the library's manifest to a file."""
    with _forced(path):
        written = portable.export(
            app.library(),
            path,
            as_of=datetime.now(UTC),
            replacing=replacing,
            told=Progress(app.out, "writing", _number),
        )
    left_out = _left_out(written.unreadable)
    document = ExportDocument(
        path=str(path), models=written.models, aliases=written.aliases, left_out=left_out
    )
    app.out.show(document, lambda: app.out.data(str(path)))
    app.out.say(f"{count(written.models, 'model')} and {_aliases(written.aliases)} written.")
    _warn_left_out(app, written.unreadable)


def import_(app: App, path: Path, *, revive: bool) -> None:
    """Merge a manifest, or a registry of the public sleap-rtc, into the library."""
    library = app.library()
    app.goes_on = "The models that were taken in are whole; the same command goes on."
    progress = Progress(app.out, "taking in", _number)
    with _missing(path):
        old = path.suffix in (".yaml", ".yml")
        opening = Progress(app.out, "opening", format_bytes)
        contents = None if old else manifest.read(path, told=opening)
        if contents is None or contents.version.partition(".")[0] in ("0", "1", ""):
            report = Report(str(path))
            migration.take_over(
                library, migration.read(path), report, source=path.absolute(), told=progress
            )
        else:
            report = portable.take_in(
                library,
                contents,
                source=str(path),
                revive=revive,
                told=progress,
                named=Progress(app.out, "naming", _number),
            )
    show_report(app, report)
    _tell_missing(app, library)


def back_up(app: App, path: Path, *, contents: bool, replacing: bool) -> None:
    """Save the library to an archive."""
    with _forced(path):
        saved = backup.save(
            app.library(),
            path,
            now=datetime.now(UTC),
            contents=contents,
            replacing=replacing,
            moved=Progress(app.out, "saving", format_bytes),
            told=Progress(app.out, "reading", _number),
        )
    document = BackupDocument(
        path=str(path),
        size=path.stat().st_size,
        models=saved.models,
        aliases=saved.aliases,
        files_size=saved.size,
        left_out=_left_out(saved.left_out),
    )
    app.out.show(document, lambda: app.out.data(str(path)))
    app.out.say(
        f"{count(saved.models, 'model')} and {_aliases(saved.aliases)} saved, "
        f"{format_bytes(document.size)}."
    )
    _warn_left_out(app, saved.left_out)
    if saved.linked:
        app.out.warn(
            f"{count(saved.linked, 'model is', 'models are')} linked to, and saved without files: "
            "--with-linked saves those, too."
        )


def restore(app: App, path: Path, *, revive: bool) -> None:
    """Bring back what an archive holds."""
    app.goes_on = "The models that were restored are whole; the same command goes on."
    library = app.library()
    with _missing(path):
        report = unpacking.restore(
            library,
            path,
            revive=revive,
            opening=Progress(app.out, "opening", format_bytes),
            told=Progress(app.out, "reading", _number),
            moved=Progress(app.out, "restoring", format_bytes),
            taken=Progress(app.out, "taking in", _number),
            named=Progress(app.out, "naming", _number),
        )
    show_report(app, report)
    _tell_missing(app, library)


def show_report(app: App, report: Report) -> None:
    """What became of models and aliases: a table of what needs a look, and the numbers."""
    outcomes = report.outcomes[:MAX_OUTCOMES]
    document = MergeDocument(
        source=report.source,
        models=_counts(report, "model"),
        aliases=_counts(report, "alias"),
        outcomes=tuple(
            OutcomeShown(kind=o.kind, name=o.name, fate=o.fate, now=o.now, why=o.why)
            for o in outcomes
        ),
        more=report.counts.total() - len(outcomes),
    )
    app.out.show(document, lambda: _table(app, report))
    for kind in ("model", "alias"):
        numbers = [f"{number:,} {_WORDS[fate]}" for fate, number in _fates(report, kind)]
        if numbers:
            app.out.say(f"{'Models' if kind == 'model' else 'Aliases'}: {', '.join(numbers)}.")
    if not report.counts:
        app.out.say("There is no model in it.")


def _tell_missing(app: App, library: Registry) -> None:
    """What to do of models that came without their files."""
    lacking = library.count(Query(statuses=("missing",)))
    if lacking:
        which = count(lacking, "model of the library lacks", "models of the library lack")
        app.out.say(
            f"{which} files: "
            "list-models --status missing shows which. sleap-rtc repair-model NAME --path FOLDER "
            "takes them from where they are, --from-worker WORKER from a worker that has them."
        )


def _table(app: App, report: Report) -> None:
    """Whatever has something to say; the rest is in the numbers."""
    telling = [o for o in report.outcomes if o.why or o.fate not in ("added", "known")]
    if not telling:
        return
    columns = [
        Column("name", least=16),
        Column("what"),
        Column("fate", whole=True),
        Column("why"),
    ]
    app.out.table(columns, [_row(outcome) for outcome in telling[:_SHOWN]])
    if len(telling) > _SHOWN:
        app.out.say(f"{len(telling) - _SHOWN:,} more; --json lists them.")


def _row(outcome: Outcome) -> list[Cell | str]:
    return [
        Cell(outcome.name, "name"),
        outcome.kind,
        Cell(_WORDS[outcome.fate], _STYLES[outcome.fate]),
        outcome.why,
    ]


def _fates(report: Report, kind: Kind) -> Iterator[tuple[Fate, int]]:
    for fate in _WORDS:
        number = report.counts[kind, fate]
        if number:
            yield fate, number


def _counts(report: Report, kind: Kind) -> dict[str, int]:
    return {str(fate): number for fate, number in _fates(report, kind)}


def _number(value: int) -> str:
    return f"{value:,}"


def _aliases(number: int) -> str:
    return f"{number:,} alias{'' if number == 1 else 'es'}"


def _left_out(found: Iterable[Unreadable]) -> tuple[LeftOutShown, ...]:
    return tuple(LeftOutShown(directory=each.directory, why=each.why) for each in found)


def _warn_left_out(app: App, left_out: tuple[Unreadable, ...]) -> None:
    for each in left_out[:_SHOWN]:
        app.out.warn(f"{each.directory}: {each.why}")
    if len(left_out) > _SHOWN:
        app.out.warn(f"{len(left_out) - _SHOWN:,} more; --json lists them.")


@contextlib.contextmanager
def _forced(path: Path) -> Iterator[None]:
    try:
        with _missing(path.parent):
            yield
    except AlreadyExists as error:
        raise AlreadyExists(what=str(path), hint="--force replaces it.") from error


@contextlib.contextmanager
def _missing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if path.exists():
            raise
        raise NotFound(message=f"There is no {path}.") from error
