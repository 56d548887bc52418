"""What ``tag-model``, ``list-aliases``, ``update-model`` and ``delete-model`` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from sleap_rtc.cli.app import App
from sleap_rtc.cli.care_documents import UpdateDocument, UpdatedShown, WordsShown
from sleap_rtc.cli.listing import day
from sleap_rtc.cli.model_documents import (
    AliasesDocument,
    AliasShown,
    DeletedDocument,
    DeletedShown,
    TagDocument,
)
from sleap_rtc.cli.several import Several
from sleap_rtc.cli.text import Cell, Column, count
from sleap_rtc.domain import aliases as rules
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import AliasTaken, Cancelled, SleapRtcError, UnknownModel, UsageError
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Group, Query
from sleap_rtc.library.registry import Registry

MAX_TAG: Final = 64
MAX_TAGS: Final = 100
MAX_NOTES: Final = 1_000


# ── aliases ──────────────────────────────────────────────────────────────────


def tag(app: App, names: Sequence[str], *, take: bool) -> None:
    """Give one model, or a top-down pair, an alias.

    Args:
        app: The invocation.
        names: The models, then the alias.
        take: Whether it is taken from another model without asking.

    Raises:
        AliasTaken: Another model has it, and nobody could be asked.
        Cancelled: The answer was no.
        UnknownModel: There is no such model.
        InvalidName: Not a valid alias.
    """
    *wanted, alias = names
    if not 1 <= len(wanted) <= 2:
        raise UsageError(
            message="An alias names one model, or the two of a top-down pair.",
            hint="sleap-rtc tag-model MODEL ALIAS; sleap-rtc tag-model CENTROID INSTANCE ALIAS",
        )
    rules.check(alias)
    library = app.library()
    entries = [_one(library, name) for name in wanted]
    former = entries[0].alias if len(entries) == 1 else None
    ids = [entry.id for entry in entries]
    try:
        change = library.set_alias(alias, *ids, force=take)
    except AliasTaken as taken:
        if take or not app.out.interactive:
            raise
        app.out.say(taken.message)
        if not app.out.ask(f"Let it name {_called(entries)} from now on?", default=False):
            raise Cancelled(what="The change", hint=taken.hint_text) from None
        change = library.set_alias(alias, *ids, force=True)
    if former is not None and (former == alias or ":" in former):  # a pair's stays
        former = None
    document = TagDocument(
        alias=change.alias.name, before=change.before, now=change.alias.models, former=former
    )
    before = " and ".join(change.before) if change.before else "no model"
    if change.before == change.alias.models:
        told = f"{alias} names {' and '.join(ids)} already."
    else:
        told = f"{alias} named {before}; it names {' and '.join(ids)} now."
    app.out.show(document, lambda: app.out.data(alias if app.out.quiet else told))
    if former is not None:
        app.out.say(f"{ids[0]} is no longer called {former}.")


def untag(app: App, name: str) -> None:
    """Remove an alias.

    Args:
        app: The invocation.
        name: The alias, or a model that has one.

    Raises:
        UnknownModel: There is neither.
        UsageError: The model has no alias of its own.
    """
    library = app.library()
    alias = None if rules.fault(name) else library.get_alias(name)
    if alias is None:
        entry = _one(library, name)
        own = entry.alias if entry.alias is not None and ":" not in entry.alias else None
        if own is None:
            hint = "" if entry.alias is None else f"It is one of the pair {entry.alias}."
            raise UsageError(message=f"{entry.id} has no alias of its own.", hint=hint)
        name = own
    removed = library.remove_alias(name)
    document = TagDocument(alias=removed.name, before=removed.models, now=(), former=None)
    told = f"{removed.name} named {' and '.join(removed.models)}; it names no model now."
    app.out.show(document, lambda: app.out.data(removed.name if app.out.quiet else told))


def aliases(app: App) -> None:
    """List every alias."""
    library = app.library()
    found = library.list_aliases()
    document = AliasesDocument(
        aliases=tuple(
            AliasShown(alias=one.name, models=one.models, changed_at=one.changed_at)
            for one in found
        )
    )

    def human() -> None:
        if not found:
            app.out.say("No model has an alias; sleap-rtc tag-model MODEL ALIAS gives it one.")
            return
        rows: list[list[Cell | str]] = [
            [
                Cell(one.name, "name"),
                " + ".join(one.models),
                ", ".join(_type_of(library, model) for model in one.models),
                day(one.changed_at),
            ]
            for one in found
        ]
        columns = [
            Column("alias", least=16, last=True),
            Column("model", whole=True),
            Column("type"),
            Column("since", whole=True),
        ]
        with app.out.paged():
            app.out.table(columns, rows)

    app.out.show(document, human)


def _type_of(library: Registry, model: ModelId) -> str:
    try:
        return library.get(model).record.model_type
    except SleapRtcError:
        return "unreadable"


# ── notes and tags ───────────────────────────────────────────────────────────


def update(
    app: App,
    names: Sequence[str],
    *,
    notes: str | None,
    tags: str | None,
    add: Sequence[str],
    remove: Sequence[str],
) -> None:
    """Change what people wrote of models; one that fails doesn't keep the others.

    Args:
        app: The invocation.
        names: The models; a pair's alias is both.
        notes: In place of their notes.
        tags: In place of their tags, with commas between.
        add: Tags that they get as well.
        remove: Tags that they lose.

    Raises:
        UsageError: Nothing is to be changed, or a text is too long.
        UnknownModel: The only one that was named isn't there.
    """
    if notes is None and tags is None and not add and not remove:
        raise UsageError(
            message="Nothing is to be changed.",
            hint="Give --notes TEXT, --tags A,B, --add-tag TAG or --remove-tag TAG.",
        )
    if notes is not None and len(notes) > MAX_NOTES:
        raise UsageError(
            message=f"Notes have up to {MAX_NOTES:,} characters, and these have {len(notes):,}."
        )
    instead = None if tags is None else [tag.strip() for tag in tags.split(",") if tag.strip()]
    for each in (*(instead or ()), *add):
        _check_tag(each)
    library = app.library()
    several = Several(app)
    changed: dict[str, UpdatedShown] = {}
    for name in names:
        with several.one(name):
            for entry in _all_of(library, name):
                if entry.id not in changed:
                    changed[entry.id] = _update(
                        library, entry, notes=notes, instead=instead, add=add, remove=remove
                    )
                    done = count(len(changed), "model is", "models are")
                    app.goes_on = f"{done} changed, the others aren't."
    several.check()
    document = UpdateDocument(models=tuple(changed.values()), failed=several.failed)
    app.out.show(document, lambda: _show_updated(app, document.models))
    for one in changed.values():
        for tag in remove:
            if tag not in one.before.tags:
                app.out.warn(f"{one.alias or one.model} had no tag {tag!r}.")
    several.end()


def _update(
    library: Registry,
    entry: Entry,
    *,
    notes: str | None,
    instead: Sequence[str] | None,
    add: Sequence[str],
    remove: Sequence[str],
) -> UpdatedShown:
    before = _words(entry.record)

    def change(old: ModelRecord) -> ModelRecord:
        nonlocal before
        before = _words(old)
        kept = set(old.tags if instead is None else instead) | set(add)
        kept -= set(remove)
        if len(kept) > MAX_TAGS:
            raise UsageError(message=f"A model has up to {MAX_TAGS} tags, not {len(kept)}.")
        return replace(old, tags=tuple(sorted(kept)), notes=old.notes if notes is None else notes)

    entry = library.update(entry.id, change)
    return UpdatedShown(model=entry.id, alias=entry.alias, before=before, now=_words(entry.record))


def _show_updated(app: App, models: Sequence[UpdatedShown]) -> None:
    for one in models:
        if app.out.quiet:
            app.out.data(one.alias or one.model)
            continue
        app.out.title(f"{one.model} ({one.alias})" if one.alias else one.model)
        for what, old, new in (
            ("tags", ", ".join(one.before.tags), ", ".join(one.now.tags)),
            ("notes", one.before.notes, one.now.notes),
        ):
            if old != new:
                app.out.fields([(f"{what} were", old or "none"), (f"{what} are", new or "none")])
        if one.before == one.now:
            app.out.say("It said so already.")


def _check_tag(tag: str) -> None:
    if not tag.strip() or len(tag) > MAX_TAG or not tag.isprintable() or "," in tag:
        raise UsageError(
            message=f"{tag[:80]!r} is no tag: a tag has 1 to {MAX_TAG} characters in one line, "
            "and no comma."
        )


def _words(record: ModelRecord) -> WordsShown:
    return WordsShown(notes=record.notes, tags=record.tags)


# ── deleting ─────────────────────────────────────────────────────────────────


def delete(app: App, names: Sequence[str], *, files: bool, yes: bool) -> None:
    """Delete models: their records, and with ``files`` what is in their directories.

    One that can't be deleted doesn't keep the others.

    Args:
        app: The invocation.
        names: The models; a pair's alias is both.
        files: Whether files go to the trash; else they stay where they are.
        yes: Whether nothing is asked.

    Raises:
        UsageError: Nobody can be asked.
        Cancelled: The answer was no.
        UnknownModel: One isn't there; nothing was deleted.
    """
    library = app.library()
    entries = {entry.id: entry for name in names for entry in _all_of(library, name)}
    for entry in entries.values():
        _tell(app, library, entry, files=files)
    for name in names:
        if rules.fault(name) == "" and isinstance(library.resolve(name), Group):
            app.out.say(f"The pair {name} ends with them.")
    if not yes:
        if not app.out.interactive:
            raise UsageError(
                message="Nobody can be asked whether to delete.", hint="Add --yes to delete."
            )
        own = sum(_own_size(entry.record) for entry in entries.values()) if files else 0
        what = count(len(entries), "model") + (f" and {format_bytes(own)}" if own else "")
        if not app.out.ask(f"Delete {what}?", default=False):
            raise Cancelled(what="The deletion", hint="Nothing was deleted.")
    owned = {str(entry.id): _own_size(entry.record) for entry in entries.values()}
    deleted: list[DeletedShown] = []
    several = Several(app)
    for entry in entries.values():
        with several.one(entry.label):
            trash = library.delete(entry.id, files=files)
            deleted.append(
                DeletedShown(
                    id=entry.id,
                    alias=entry.alias,
                    size=entry.record.size,
                    trash=None if trash is None else str(trash),
                    path=str(entry.directory),
                )
            )
            gone = count(len(deleted), "model is", "models are")
            app.goes_on = f"{gone} deleted. {_way_back(deleted)}"
    several.check()

    def human() -> None:
        for one in deleted:
            if app.out.quiet:
                app.out.data(one.id)  # by which it can be brought back
                continue
            own = one.trash and owned[one.id]
            place = f"its files are in {one.trash} for 30 days" if own else "its files stay"
            app.out.data(f"{one.alias or one.id} is deleted; {place}")
        if deleted:
            app.out.say(_way_back(deleted))

    document = DeletedDocument(models=tuple(deleted), failed=several.failed)
    app.out.show(document, human)
    several.end()


def _way_back(deleted: Sequence[DeletedShown]) -> str:
    ids = " ".join(one.id for one in deleted)
    return f"sleap-rtc restore-model {ids} brings {'it' if len(deleted) == 1 else 'them'} back."


def _own_size(record: ModelRecord) -> int:
    """Bytes of its files that are the library's own, and not linked to."""
    return sum(file.size for file in record.files if file.link is None)


def _tell(app: App, library: Registry, entry: Entry, *, files: bool) -> None:
    """What a model is, who uses it, and what would become of its files."""
    record = entry.record
    size = format_bytes(record.size) if record.size else "no files"
    app.out.say(f"{entry.label}: {record.model_type}, {record.status}, {size}", "name")
    if entry.alias is not None and ":" in entry.alias:
        app.out.say(f"  The pair {entry.alias.partition(':')[0]} ends with it.")
    elif entry.alias is not None:
        app.out.say(f"  The alias {entry.alias} will be free.")
    children = library.list(Query(text=f"parent:{entry.id}", limit=MAX_LIMIT)).entries
    if children:
        app.out.say(f"  Made from it: {', '.join(child.label for child in children[:10])}")
    for place in record.locations:
        app.out.say(f"  {place.kind} {place.name} still has it.")
    if record.files and any(file.link for file in record.files):
        app.out.say("  It is imported by link: the files themselves are not touched.")
    elif record.files and not files:
        app.out.say(f"  Its files stay in {entry.directory}; --files moves them to the trash.")


def _all_of(library: Registry, name: str) -> tuple[Entry, ...]:
    found = library.resolve(name)
    if isinstance(found, Path):
        raise UnknownModel(name=name, hint=f"{found} is in no library.")
    return found.entries if isinstance(found, Group) else (found,)


def _one(library: Registry, name: str) -> Entry:
    """The one model of a name.

    Raises:
        UsageError: It names a pair.
        UnknownModel: It names none.
    """
    found = _all_of(library, name)
    if len(found) > 1:
        members = " and ".join(f"{name}:{entry.record.model_type}" for entry in found)
        raise UsageError(message=f"{name} names a pair.", hint=f"Name one of it: {members}.")
    return found[0]


def _called(entries: Sequence[Entry]) -> str:
    return " and ".join(entry.label for entry in entries)
