"""What ``list-models`` and ``model-info`` do."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc.cli.app import App
from sleap_rtc.cli.documents import (
    FileShown,
    ModelInfoDocument,
    ModelInfoShown,
    ModelsDocument,
    ModelShown,
    Shown,
    best_loss,
    is_local,
    model_shown,
    plain_record,
)
from sleap_rtc.cli.text import Cell, Column, count, loss
from sleap_rtc.client.composing import engine_of
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.units import format_bytes, format_duration
from sleap_rtc.errors import UnknownModel
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library.checking import state_of
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Group, Query
from sleap_rtc.library.registry import Registry

NONE_HERE: Final = "No model here fits. sleap-rtc train makes one."

STATUS_STYLES: Final = {
    "completed": "good",
    "imported": "good",
    "training": "",
    "interrupted": "warning",
    "missing": "warning",
    "failed": "bad",
}


def list_all(app: App, *, csv: bool, **filters: Any) -> None:
    """List models.

    Args:
        app: The invocation.
        csv: Whether as CSV.
        filters: As the command's options are called.
    """
    query = Query(
        statuses=filters["statuses"],
        types=filters["types"],
        sources=filters["sources"],
        tags=filters["tags"],
        where=filters["location"],
        at=filters["at"],
        text=filters["search"],
        sort=filters["sort_by"],
        reverse=filters["reverse"],
        limit=filters["limit"],
    )
    library = app.client().library
    page = library.list(query)
    more = _count_more(library, query, page.cursor)
    shown = tuple(model_shown(entry) for entry in page.entries)
    document = ModelsDocument(models=shown, more=more)
    show_models(app, document, shown, more=more, csv=csv, none=NONE_HERE)


def show_models(
    app: App, document: Shown, models: Sequence[ModelShown], *, more: int, csv: bool, none: str
) -> None:
    """Show a list of models, of this library or another.

    Args:
        app: The invocation.
        document: For ``--json``.
        models: The models.
        more: How many there are besides.
        csv: Whether as CSV.
        none: What is said of an empty list.
    """
    if csv and not app.out.as_json:
        app.out.raw(_csv(models))
    else:
        app.out.show(document, lambda: _table(app, models, none))
    if more:
        app.out.say(f"{more:,} more; --limit N shows them, --search and the filters find some.")


def _count_more(library: Registry, query: Query, cursor: str | None) -> int:
    more = 0
    while cursor is not None:
        page = library.list(msgspec.structs.replace(query, cursor=cursor, limit=MAX_LIMIT))
        more += len(page.entries)
        cursor = page.cursor
    return more


def _table(app: App, models: Sequence[ModelShown], none: str) -> None:
    if not models:
        app.out.say(none)
        return
    columns = [
        Column("model", least=24),
        Column("type"),
        Column("status", whole=True),
        Column("where"),
        Column("val loss", right=True, whole=True),
        Column("size", right=True, whole=True),
        Column("when", whole=True),
    ]
    rows: list[list[Cell | str]] = [
        [
            Cell(model.alias or model.id, "name"),
            model.model_type,
            Cell(model.status, STATUS_STYLES[model.status]),
            _where(model.local, _names(model)),
            loss(model.best_val_loss),
            format_bytes(model.size) if model.size else "-",
            day(model.created_at),
        ]
        for model in models
    ]
    app.out.table(columns, rows)


def _csv(shown: Sequence[ModelShown]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in msgspec.structs.fields(ModelShown)]
    writer.writerow(names)
    for one in shown:
        plain = msgspec.to_builtins(one)
        writer.writerow(
            [" ".join(v) if isinstance(v, (list, tuple)) else v for v in (plain[n] for n in names)]
        )
    return text.getvalue()


def where(record: ModelRecord) -> str:
    """Where a model's files are: ``local``, ``local + gpu-1``, ``gpu-1``, ``nowhere``."""
    return _where(is_local(record), (at.name for at in record.locations))


def _names(model: ModelShown) -> list[str]:
    return [place.partition(":")[2] for place in model.locations]


def _where(local: bool, others: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys((*(["local"] if local else []), *others))) or "nowhere"


def when(moment: datetime) -> str:
    """A time, by this machine's clock."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def day(moment: datetime) -> str:
    """A day, or of today the time."""
    local = moment.astimezone()
    today = local.date() == datetime.now().astimezone().date()
    return f"today {local:%H:%M}" if today else f"{local:%Y-%m-%d}"


# ── model-info ───────────────────────────────────────────────────────────────


def show_info(app: App, name: str) -> None:
    """Show everything about a model, or about both of a pair.

    Raises:
        UnknownModel: There is none, or it is a folder that no library knows.
        AmbiguousName: Several fit.
    """
    client = app.client()
    found = client.library.resolve(name)
    if isinstance(found, Path):
        raise UnknownModel(name=name, hint=f"{found} is in no library.")
    entries = found.entries if isinstance(found, Group) else (found,)
    infos = [_info(app, entry, client.cache, found) for entry in entries]
    document = ModelInfoDocument(models=tuple(infos))

    def human() -> None:
        for number, (entry, info) in enumerate(zip(entries, infos, strict=True)):
            if number:
                app.out.data("")
            print_info(app, entry, info)
        app.out.title("Commands")
        app.out.fields(list(infos[0].commands.items()), indent=2)

    app.out.show(document, human)


def _info(app: App, entry: Entry, cache: HashCache, named: Entry | Group) -> ModelInfoShown:
    files = []
    for file in entry.record.files:
        app.out.live.update([f"checking {file.path}"])
        files.append(
            FileShown(
                path=file.path,
                size=file.size,
                blake3=file.blake3,
                state=state_of(entry.directory, file, cache),
            )
        )
    app.out.live.clear()
    return ModelInfoShown(
        model=model_shown(entry),
        record=plain_record(entry.record),
        files=tuple(files),
        commands=commands(named),
    )


def commands(named: Entry | Group) -> dict[str, str]:
    """What to type to use a model, or a pair."""
    entries = named.entries if isinstance(named, Group) else (named,)
    label = named.alias if isinstance(named, Group) else named.label
    model = shlex.quote(label)
    found: dict[str, str] = {}
    record = entries[0].record
    if all(is_local(entry.record) for entry in entries):
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
    metrics, training = record.metrics, record.training
    app.out.title(entry.label)
    app.out.fields(
        [
            ("Id", record.id),
            ("Alias", entry.alias or ""),
            ("Type", record.model_type),
            ("Status", Cell(record.status, STATUS_STYLES[record.status])),
            ("Run", record.name),
            ("Where", _where(info.model.local, _names(info.model))),
            ("Folder", str(entry.directory)),
            ("Content", record.package or ""),
            ("Made", when(record.created_at)),
            ("Completed", when(record.completed_at) if record.completed_at else ""),
            ("Best val loss", _best(record)),
            ("Epochs", "" if metrics.epochs is None else str(metrics.epochs)),
            ("Trained by", _trainer(entry)),
            ("Labels", training.dataset_name or ""),
            ("Took", "" if training.duration_s is None else format_duration(training.duration_s)),
            ("Job", training.job or ""),
            ("Points", ", ".join(record.skeleton)),
            ("Tags", ", ".join(record.tags)),
            ("Notes", record.notes),
            ("Same recipe as", record.same_recipe_as or ""),
            ("Stopped at", _stopped(record)),
            ("Failed", Cell((record.failure or "").partition("\n")[0], "bad")),
        ],
        indent=2,
    )
    _print_mapping(app, "Evaluation", metrics.evaluation)
    _print_mapping(app, "Hyperparameters", training.hyperparameters)
    _print_files(app, info, right)


def _best(record: ModelRecord) -> str:
    best = best_loss(record)
    if best is None:
        return ""
    epoch = record.metrics.best_epoch
    return loss(best) + ("" if epoch is None else f", in epoch {epoch + 1}")


def _trainer(entry: Entry) -> str:
    training = entry.record.training
    parts = (
        f"{engine_of([entry])} {training.engine_version or ''}".strip(),
        f"on {training.worker}" if training.worker else "",
        f"({training.device})" if training.device else "",
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
        app.out.fields([(name, _short(value)) for name, value in sorted(values.items())], indent=2)


def _short(value: Any) -> str:
    return loss(value) if isinstance(value, float) else str(value)


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
