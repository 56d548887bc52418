"""What ``worker list-models`` and ``worker model-info`` do: show the library of a worker."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from msgspec.structs import replace

from sleap_rtc.cli.app import App
from sleap_rtc.cli.describing import commands, print_info
from sleap_rtc.cli.listing import asked, show_models
from sleap_rtc.cli.model_documents import (
    FileShown,
    ModelInfoShown,
    ModelShown,
    WorkerModelInfoDocument,
    WorkerModelsDocument,
    model_shown,
    plain_record,
)
from sleap_rtc.client.asking import RemoteModel, RemoteModels
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.errors import SleapRtcError, UnknownModel, from_wire
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import ListedModel, ListModels

T = TypeVar("T")


def list_remote(
    app: App, *, worker: str | None, room: str | None, csv: bool, **filters: Any
) -> None:
    """List a worker's models.

    Args:
        app: The invocation.
        worker: Its name; by default the only one that is online.
        room: The room; by default the only one.
        csv: Whether as CSV.
        filters: As the command's options are called.

    Raises:
        Offline: Nobody is to be asked, and it isn't known.
    """
    query, limit = ListModels(**asked(filters)), filters["limit"]
    client = app.client()
    entry = client.room(room)

    async def ask() -> tuple[str, RemoteModels]:
        async with client.library_of(worker, room=entry.room) as library:
            return library.name, await library.models(query, limit=limit)

    as_of = None
    if app.offline:
        name = worker or client.known.only_worker(entry)
        known = client.known.models(entry, name, query, limit)
        found, as_of = known.told, known.as_of
        app.tell_kept(as_of, f"these were the models of {name}")
    else:
        name, found = _asking(app, worker, ask())
        client.known.keep_models(entry, name, query, limit, found)
    shown = tuple(_listed(model, name, client.library) for model in found.models)
    document = WorkerModelsDocument(
        worker=name, room=entry.name, models=shown, more=found.more, as_of=as_of
    )
    narrowed = any(
        filters[each] for each in ("statuses", "types", "sources", "tags", "search", "at")
    )
    none = f"No model of {name} fits."
    if not narrowed and filters["location"] == "any":
        none = f"{name} has no models: it trains some, or sleap-rtc push-model puts them there."
    show_models(app, document, shown, more=found.more, csv=csv, none=none)


def _asking(app: App, worker: str | None, work: Coroutine[Any, Any, T]) -> T:
    """Ask a worker, and say so meanwhile: one that is silent is waited for half a minute."""
    app.out.live.update([f"asking {worker or 'the worker'}"])
    try:
        return app.run(work)
    finally:
        app.out.live.clear()


def show_remote_info(app: App, name: str, *, worker: str | None, room: str | None) -> None:
    """Show everything about a worker's model.

    Raises:
        Offline: Nobody is to be asked, and nothing is known of it.
        UnknownModel: The worker hasn't got it.
        UsageError: The name is a pair's.
    """
    client = app.client()
    of = client.room(room)

    async def ask() -> tuple[str, RemoteModel]:
        async with client.library_of(worker, room=of.room) as library:
            return library.name, await library.info(name)

    as_of = None
    if app.offline:
        at = worker or client.known.only_worker(of)
        known = client.known.model(of, at, name)
        model, as_of = known.told, known.as_of
        app.tell_kept(as_of, f"this was the model on {at}")
    else:
        try:
            at, model = _asking(app, worker, ask())
        except UnknownModel as error:
            # Its sentence is the worker's, whose "here" is there.
            there = worker or "the worker"
            message = f"There is no model {name!r} on {there}."
            named = f" --worker {worker}" if worker else ""
            hint = f"sleap-rtc worker list-models{named} shows what there is."
            raise from_wire(error.code, error.details, message=message, hint=hint) from None
        client.known.keep_model(of, at, name, model)
    entry = Entry(record=model.record, alias=model.alias or None, folder=model.path)
    here = is_here(client.library, model.record.id, model.record.package)
    shown = replace(
        model_shown(entry),
        local=here is not None,
        locations=_places(at, model_shown(entry).locations),
    )
    info = ModelInfoShown(
        model=shown,
        record=plain_record(model.record),
        files=tuple(
            FileShown(
                path=each.file.path,
                size=each.file.size,
                blake3=each.file.blake3,
                state="ok" if each.state == "there" else each.state,
            )
            for each in model.files
        ),
        commands={} if here is None else commands(here),
    )
    document = WorkerModelInfoDocument(
        worker=at, room=of.name, model=info, cut=model.cut, as_of=as_of
    )

    def human() -> None:
        if app.out.quiet:
            app.out.data(entry.label)
            return
        print_info(app, entry, info, right="all there, by their sizes")
        if model.cut:
            app.out.say("The record says more than one message could hold; some of it is left out.")
        if info.commands:
            app.out.title("Commands")
            app.out.fields(list(info.commands.items()), indent=2)

    app.out.show(document, human)


def is_here(library: Registry, model: ModelId, package: str | None) -> Entry | None:
    """The same content in this machine's library, with its files; by the id that it has there."""
    try:
        entry = library.get(model)
    except SleapRtcError:
        return None
    same = package is not None and entry.record.package == package and entry.record.files
    return entry if same else None


def _listed(model: ListedModel, worker: str, library: Registry) -> ModelShown:
    best, final = model.best_val_loss, model.final_val_loss
    return ModelShown(
        id=model.id,
        alias=model.alias or None,
        name=model.name,
        model_type=model.model_type,
        status=model.status,
        local=is_here(library, model.id, model.package) is not None,
        locations=_places(worker, (f"{at.kind}:{at.name}" for at in model.locations)),
        best_val_loss=final if best is None else best,
        epochs=model.epochs,
        size=model.size,
        created_at=model.created_at,
        path=model.path,
        package=model.package,
        tags=model.tags,
    )


def _places(worker: str, others: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((f"worker:{worker}", *others)))
