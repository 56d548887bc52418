"""What ``model-info`` does: everything about a model, on a page."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from sleap_rtc.cli.app import App
from sleap_rtc.cli.curves import Curve, draw
from sleap_rtc.cli.listing import LAST_SEEN, SAFETY_STYLES, STATUS_STYLES, places_of, when
from sleap_rtc.cli.model_documents import (
    EpochShown,
    FileShown,
    ModelInfoDocument,
    ModelInfoShown,
    ModelShown,
    SafetyShown,
    best_loss,
    is_local,
    model_shown,
    plain_record,
)
from sleap_rtc.cli.text import Cell, Column, count, loss
from sleap_rtc.client.composing import engine_of
from sleap_rtc.domain.models import ModelRecord, safety_of
from sleap_rtc.domain.units import format_bytes, format_duration
from sleap_rtc.errors import UnknownModel
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library.checking import looks_like, state_of
from sleap_rtc.library.entries import Entry, Group
from sleap_rtc.library.history import losses
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.sums import with_sha256

MAX_CURVE: Final = 110
"""Columns of a curve: a wider one says no more."""


def show_info(app: App, name: str, *, verify: bool, sha256: bool = False) -> None:
    """Show everything about a model, or about both of a pair.

    Args:
        app: The invocation.
        name: Id, prefix, alias or path.
        verify: Whether files are read and hashed; else their sizes are compared.
        sha256: Whether their SHA-256 is shown; what the record lacks of it is computed and kept.

    Raises:
        FilesMissing: A file whose SHA-256 is to be computed isn't there.
        Damaged: It isn't the one that the record lists.
        UnknownModel: There is none, or it is a folder that no library knows.
        AmbiguousName: Several fit.
    """
    client = app.client()
    found = client.library.resolve(name)
    if isinstance(found, Path):
        raise UnknownModel(name=name, hint=f"{found} is in no library; import-model takes it in.")
    entries = found.entries if isinstance(found, Group) else (found,)
    if sha256:
        entries = tuple(_summed(app, client.library, entry) for entry in entries)
    infos = [_info(app, entry, client.cache if verify else None, found) for entry in entries]
    document = ModelInfoDocument(models=tuple(infos))

    def human() -> None:
        if app.out.quiet:
            for entry in entries:
                app.out.data(entry.label)
            return
        right = "all as recorded" if verify else "all there (--verify reads them)"
        with app.out.paged():
            for number, (entry, info) in enumerate(zip(entries, infos, strict=True)):
                if number:
                    app.out.data("")
                print_info(app, entry, info, right=right)
                if sha256:
                    _print_sums(app, entry)
            if infos[0].commands:
                app.out.title("Commands")
                app.out.fields(list(infos[0].commands.items()), indent=2)

    app.out.show(document, human)
    if app.offline and any(info.model.locations for info in infos):
        app.out.say(LAST_SEEN)


def _info(app: App, entry: Entry, cache: HashCache | None, named: Entry | Group) -> ModelInfoShown:
    files = []
    for file in entry.record.files:
        if cache is None:
            state = looks_like(entry.directory, file)
        else:
            app.out.live.update([f"checking {file.path}"])
            state = state_of(entry.directory, file, cache)
        files.append(FileShown(path=file.path, size=file.size, blake3=file.blake3, state=state))
    app.out.live.clear()
    broken = entry.label if any(file.state != "ok" for file in files) else ""
    shown = model_shown(entry)
    if files and all(file.state == "missing" for file in files):
        shown = replace(shown, local=False)  # its record knows nothing of that yet
    safety = safety_of(entry.record)
    return ModelInfoShown(
        model=shown,
        record=plain_record(entry.record),
        files=tuple(files),
        verified=cache is not None,
        commands=commands(named, broken=broken),
        safety=SafetyShown(tier=safety.tier, why=safety.why, trusted=safety.trusted),
        curve=curve_of(entry),
    )


def _summed(app: App, library: Registry, entry: Entry) -> Entry:
    """The model with the SHA-256 of all its files in its record."""
    done: dict[str, int] = {}

    def told(path: str, more: int) -> None:
        done[path] = done.get(path, 0) + more
        app.out.live.update([f"SHA-256 of {path}: {format_bytes(done[path])}"])

    app.goes_on = "What was computed is kept: the same command goes on."
    try:
        return with_sha256(library, entry, progress=told)
    finally:
        app.out.live.clear()


def _print_sums(app: App, entry: Entry) -> None:
    """As ``sha256sum`` prints them, to be compared with what others say."""
    app.out.title("SHA-256")
    for file in entry.record.files:
        app.out.data(f"{file.sha256}  {file.path}")


def curve_of(entry: Entry) -> tuple[EpochShown, ...]:
    """The losses of a model's epochs, as documents have them."""
    return tuple(
        EpochShown(epoch=one.epoch, train_loss=one.train_loss, val_loss=one.val_loss)
        for one in losses(entry)
    )


def validation(curve: Iterable[EpochShown]) -> list[tuple[int, float]]:
    """The points of the validation losses."""
    return [(one.epoch, one.val_loss) for one in curve if one.val_loss is not None]


def training(curve: Iterable[EpochShown]) -> list[tuple[int, float]]:
    """The points of the training losses."""
    return [(one.epoch, one.train_loss) for one in curve if one.train_loss is not None]


def commands(named: Entry | Group, *, broken: str = "") -> dict[str, str]:
    """What to type to use a model, or a pair.

    Args:
        named: What was asked for.
        broken: The model of it whose files aren't as recorded, if there is one.
    """
    entries = named.entries if isinstance(named, Group) else (named,)
    label = named.alias if isinstance(named, Group) else named.label
    model = shlex.quote(label)
    found: dict[str, str] = {}
    record = entries[0].record
    if broken:
        found["mend it"] = f"sleap-rtc repair-model {shlex.quote(broken)}"
    elif all(is_local(entry.record) for entry in entries):
        found["track here"] = f"sleap-rtc track --model {model} VIDEO.mp4"
    workers = [at.name for at in record.locations if at.kind == "worker"]
    if workers and all(entry.record.package for entry in entries):
        found["track there"] = (
            f"sleap-rtc track --model {model} VIDEO.mp4 --remote --worker {workers[0]}"
        )
    if record.status == "interrupted":
        found["go on training"] = f"sleap-rtc train --resume {shlex.quote(entries[0].id)}"
    if record.training.job and not is_local(record) and record.status == "completed":
        found["bring home"] = f"sleap-rtc jobs attach {record.training.job} --download"
    return found


def print_info(
    app: App, entry: Entry, info: ModelInfoShown, *, right: str = "all as recorded"
) -> None:
    """Print everything about a model.

    Args:
        app: The invocation.
        entry: The model.
        info: What was found out about it.
        right: What is said of files that are all right.
    """
    record = entry.record
    metrics, made = record.metrics, record.training
    app.out.title(entry.label)
    app.out.fields(
        [
            ("Id", record.id),
            ("Alias", entry.alias or ""),
            ("Type", record.model_type),
            ("Status", Cell(record.status, STATUS_STYLES[record.status])),
            ("Run", record.name),
            ("Where", _where(info.model)),
            ("Folder", str(entry.directory)),
            ("Links to", _linked(record)),
            ("Content", record.package or ""),
            ("Safety", _safety(info.safety)),
            ("Imported" if record.source == "local-import" else "Made", when(record.created_at)),
            ("Completed", when(record.completed_at) if record.completed_at else ""),
            ("Best val loss", _best(record)),
            ("Epochs", "" if metrics.epochs is None else str(metrics.epochs)),
            ("Trained by", _trainer(entry)),
            ("Labels", made.dataset_name or ""),
            ("Took", "" if made.duration_s is None else format_duration(made.duration_s)),
            ("Job", made.job or ""),
            ("Points", ", ".join(record.skeleton)),
            ("Tags", ", ".join(record.tags)),
            ("Notes", record.notes),
            ("Same recipe as", record.same_recipe_as or ""),
            ("Stopped at", _stopped(record)),
            ("Failed", Cell((record.failure or "").partition("\n")[0], "bad")),
        ],
        indent=2,
    )
    _print_curve(app, info.curve)
    _print_mapping(app, "Evaluation", metrics.evaluation)
    _print_mapping(app, "Hyperparameters", made.hyperparameters)
    _print_files(app, info, right)


def _linked(record: ModelRecord) -> str:
    """The folder that a model which was imported by link is kept in."""
    folders = {str(Path(file.link).parent) for file in record.files if file.link is not None}
    return os.path.commonpath(folders) if folders else ""


def _best(record: ModelRecord) -> str:
    best = best_loss(record)
    if best is None:
        return ""
    epoch = record.metrics.best_epoch
    return loss(best) + ("" if epoch is None else f", in epoch {epoch + 1}")


def _trainer(entry: Entry) -> str:
    made = entry.record.training
    parts = (
        f"{made.engine or engine_of([entry])} {made.engine_version or ''}".strip(),
        f"on {made.worker}" if made.worker else "",
        f"({made.device})" if made.device else "",
    )
    return " ".join(part for part in parts if part)


def _stopped(record: ModelRecord) -> str:
    if record.interruption is None:
        return ""
    why = f": {record.interruption.reason}" if record.interruption.reason else ""
    return f"{count(record.interruption.epoch, 'epoch')}{why}"


def _print_mapping(app: App, title: str, values: dict[str, Any]) -> None:
    if values:
        app.out.title(title)
        app.out.fields([(name, short(value)) for name, value in sorted(values.items())], indent=2)


def short(value: Any) -> str:
    """A setting or a measured value, as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        whole = math.isfinite(value) and abs(value) >= 1e4
        return f"{value:,.0f}" if whole else loss(value) if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(short(each) for each in value)
    return str(value)


def _where(model: ModelShown) -> str:
    there = [name if kind == "worker" else f"{kind} {name}" for kind, name in places_of(model)]
    return ", ".join([*(["here"] if model.local else []), *there]) or "nowhere"


def _safety(safety: SafetyShown | None) -> str | Cell:
    if safety is None:
        return ""
    trusted = ", trusted all the same" if safety.trusted else ""
    why = f": {safety.why}" if safety.why else ""
    return Cell(f"{safety.tier}{why}{trusted}", SAFETY_STYLES[safety.tier])


def _print_curve(app: App, curve: Sequence[EpochShown]) -> None:
    """The validation loss, and the training loss dotted; on wide terminals larger."""
    known = validation(curve)
    width = min(app.out.width(), MAX_CURVE)
    lines = draw(
        [Curve(training(curve), dotted=bool(known)), Curve(known)],
        width=width - 2,
        height=6 if width < 100 else 9,
    )
    if lines:
        app.out.title("Validation loss (training loss dotted)" if known else "Training loss")
        app.out.drawing(lines, indent=2)


def _print_files(app: App, info: ModelInfoShown, right: str) -> None:
    if not info.files:
        return
    bad = sum(file.state != "ok" for file in info.files)
    total = f"{count(len(info.files), 'file')}, {format_bytes(sum(f.size for f in info.files))}"
    app.out.title(f"Files: {total}" + (f", {bad} not as recorded" if bad else f", {right}"))
    styles = {"ok": "good", "missing": "bad", "changed": "bad"}
    app.out.table(
        [Column("file"), Column("size", right=True), Column("state", whole=True)],
        [
            [file.path, format_bytes(file.size), Cell(file.state, styles[file.state])]
            for file in info.files
        ],
    )
