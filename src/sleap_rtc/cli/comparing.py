"""What ``compare-models`` does: models side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from sleap_rtc.cli.app import App
from sleap_rtc.cli.curves import Curve, draw_together, letter
from sleap_rtc.cli.describing import curve_of, short, training, validation
from sleap_rtc.cli.listing import when, where
from sleap_rtc.cli.model_documents import (
    CompareDocument,
    ComparedShown,
    EpochShown,
    best_loss,
    model_shown,
)
from sleap_rtc.cli.text import Cell, Column, cut, loss
from sleap_rtc.domain.models import ModelRecord, safety_of
from sleap_rtc.domain.units import format_bytes, format_duration
from sleap_rtc.errors import UnknownModel, UsageError
from sleap_rtc.library.entries import Entry, Group

MAX_MODELS: Final = 26
MAX_CURVE: Final = 110
_NAMES: Final = 24
_VALUES: Final = 14
"""Columns that a name, and each model's values, have at least."""

Better = Literal["low", "high"]
# Which end of a measure is the better one, by the last part of its name.
_BETTER: Final[dict[str, Better]] = {
    "best val loss": "low",
    "last val loss": "low",
    "last train loss": "low",
    "mean_error_px": "low",
    "median_error_px": "low",
    "oks_mAP": "high",
    "mOKS": "high",
    "mPCK": "high",
}
_ALWAYS: Final = frozenset({"where", "best val loss"})
"""Lines that are shown though they don't differ."""


def compare(app: App, names: Sequence[str], *, everything: bool, csv: bool) -> None:
    """Show models side by side.

    Args:
        app: The invocation.
        names: Ids, prefixes, aliases or paths; a pair's alias is both of its models.
        everything: Whether what is the same is shown too.
        csv: Whether as CSV.

    Raises:
        UsageError: Fewer than 2 models, or more than 26.
        UnknownModel: One isn't in the library.
    """
    entries = _entries(app, names)
    lines = tuple(_lines(entries))
    curves = tuple(curve_of(entry) for entry in entries)
    models = tuple(model_shown(entry) for entry in entries)
    document = CompareDocument(models=models, lines=lines, curves=curves)
    shown = [line for line in lines if everything or line.differs or line.name in _ALWAYS]
    if csv and not app.out.as_json:
        app.out.raw(_csv([model.id for model in models], shown))
        return

    def human() -> None:
        if app.out.quiet:
            for entry in entries:
                app.out.data(entry.label)
            return
        with app.out.paged():
            _print(app, entries, shown)
            _print_curves(app, curves)
        if any(line.best for line in shown):
            app.out.say("* is the best.")
        hidden = len(lines) - len(shown)
        if hidden:
            app.out.say(f"{hidden} more are the same; --all shows them.")

    app.out.show(document, human)


def _entries(app: App, names: Sequence[str]) -> list[Entry]:
    library = app.library()
    found: dict[str, Entry] = {}
    for name in names:
        one = library.resolve(name)
        if isinstance(one, Path):
            hint = f"{one} is in no library; import-model takes it in."
            raise UnknownModel(name=name, hint=hint)
        for entry in one.entries if isinstance(one, Group) else (one,):
            found[entry.id] = entry
    if not 2 <= len(found) <= MAX_MODELS:
        raise UsageError(message=f"2 to {MAX_MODELS} models can be compared, not {len(found)}.")
    return list(found.values())


def _lines(entries: Sequence[Entry]) -> Iterator[ComparedShown]:
    records = [entry.record for entry in entries]
    facts = [_facts(entry) for entry in entries]
    for name in facts[0]:
        yield _line("model", name, [each[name] for each in facts])
    measured = [record.metrics.evaluation for record in records]
    for name in sorted({name for each in measured for name in each}):
        yield _line("evaluation", name, [each.get(name) for each in measured])
    chosen = [record.training.hyperparameters for record in records]
    for name in sorted({name for each in chosen for name in each}):
        yield _line("hyperparameters", name, [each.get(name) for each in chosen])


def _facts(entry: Entry) -> dict[str, Any]:
    record = entry.record
    metrics, made = record.metrics, record.training
    return {
        "type": record.model_type,
        "status": record.status,
        "where": where(model_shown(entry)),
        "best val loss": best_loss(record),
        "best epoch": None if metrics.best_epoch is None else metrics.best_epoch + 1,
        "last val loss": metrics.final_val_loss,
        "last train loss": metrics.final_train_loss,
        "epochs": metrics.epochs,
        "size": record.size or None,
        "duration": made.duration_s,
        "labels": made.dataset_name,
        "labels' hash": None if made.dataset_hash is None else made.dataset_hash[:12],
        "engine": _engine(record),
        "device": made.device,
        "worker": made.worker,
        "points": ", ".join(record.skeleton) or None,
        "safety": safety_of(record).tier,
        "tags": ", ".join(record.tags) or None,
        "notes": record.notes or None,
        "made": record.created_at,
    }


def _engine(record: ModelRecord) -> str | None:
    made = record.training
    return f"{made.engine} {made.engine_version or ''}".strip() if made.engine else None


def _line(
    group: Literal["model", "evaluation", "hyperparameters"], name: str, values: Sequence[Any]
) -> ComparedShown:
    differs = any(value != values[0] for value in values[1:])
    better = _BETTER.get(name) or _BETTER.get(name.rpartition(".")[2])
    numbers = [value for value in values if isinstance(value, (int, float))]
    best: tuple[int, ...] = ()
    if better and differs and numbers:
        first = min(numbers) if better == "low" else max(numbers)
        best = tuple(n for n, value in enumerate(values) if value == first)
    return ComparedShown(group=group, name=name, values=tuple(values), differs=differs, best=best)


def _told(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "size":
        return format_bytes(value)
    if name == "duration":
        return format_duration(value)
    if name == "made":
        return when(value)
    return loss(value) if name.endswith("loss") else short(value)


def _print(app: App, entries: Sequence[Entry], lines: Sequence[ComparedShown]) -> None:
    """One table, or several below each other where the models don't fit one line."""
    beside = max((app.out.width() - _NAMES) // _VALUES, 1)
    for first in range(0, len(entries), beside):
        numbers = range(first, min(first + beside, len(entries)))
        if first:
            app.out.data("")
        columns = [Column("", least=20, last=True)]
        room = max((app.out.width() - _NAMES) // len(numbers), _VALUES) - 2
        columns += [
            Column(cut(f"{letter(n)} {entries[n].label}", room), least=_VALUES - 2) for n in numbers
        ]
        rows: list[list[Cell | str]] = []
        group = "model"
        for line in lines:
            if line.group != group:
                rows.append([Cell(line.group, "heading"), *("" for _ in numbers)])
                group = line.group
            rows.append([Cell(line.name, "dim"), *(_cell(line, n) for n in numbers)])
        app.out.table(columns, rows)


def _cell(line: ComparedShown, number: int) -> Cell:
    text = _told(line.name, line.values[number])
    return Cell(f"{text} *", "good") if number in line.best else Cell(text)


def _print_curves(app: App, curves: Sequence[tuple[EpochShown, ...]]) -> None:
    points = [validation(curve) for curve in curves]
    title = "Validation loss"
    if not any(points):
        points, title = [training(curve) for curve in curves], "Training loss"
    width = min(app.out.width(), MAX_CURVE)
    lines = draw_together(
        [Curve(each) for each in points], width=width - 2, height=8 if width < 100 else 12
    )
    if lines:
        app.out.data("")
        app.out.title(title)
        app.out.drawing(lines, indent=2)


def _csv(ids: Sequence[str], lines: Sequence[ComparedShown]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "name", *ids])
    for line in lines:
        writer.writerow([line.group, line.name, *map(_plain, line.values)])
    return text.getvalue()


def _plain(value: Any) -> Any:
    """A value as other programs read it: times by ISO 8601, lists as JSON."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, (dict, list, tuple)):
        return msgspec.json.encode(plain).decode()
    return "" if plain is None else plain
