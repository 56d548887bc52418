"""Several models at once, to a worker or from it, and the names that they are offered.

All names are looked up before anything moves. One model that can't be moved
doesn't keep the others; a worker that is away ends it all, and what had moved by
then is told. An alias is set on the
other side only if that was asked for, and only if it is free there: otherwise it
is told which of the models' names are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from sleap_rtc.client.moving import Choice, Clash, Decide, Moved, Mover, Planned
from sleap_rtc.client.pulling import named_there, plan_pull, pull_model
from sleap_rtc.client.pushing import AliasState, alias_there, call_there, plan_push, push_model
from sleap_rtc.client.tracking import resolve_names
from sleap_rtc.client.transfers import IfExistsWish
from sleap_rtc.domain import aliases
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.errors import (
    AliasTaken,
    Cancelled,
    Conflict,
    NetworkError,
    SleapRtcError,
    UnknownModel,
    UsageError,
)
from sleap_rtc.library.entries import Entry, Group
from sleap_rtc.library.registry import Registry
from sleap_rtc.transfer.progress import Progress

OnModel = Callable[[int, int, str, Progress | None], None]
"""Told of the model that moves: its number from 0, how many there are, its name, how far it is."""

_PAIR: Final = 2


class Failed(msgspec.Struct, frozen=True):
    """A model that wasn't moved, and why."""

    model: str
    label: str
    error: SleapRtcError


class Offer(msgspec.Struct, frozen=True):
    """A name for models that were moved.

    Attributes:
        alias: The name.
        models: The models where they are now, in order.
        state: Whether it is free there, is theirs, or another's.
        given: Whether it was given now.
        why: Why it was not given although it was asked for.
    """

    alias: str
    models: tuple[ModelId, ...]
    state: AliasState
    given: bool = False
    why: str = ""


class Shipped(msgspec.Struct, frozen=True):
    """What became of it all.

    Attributes:
        moved: Models that are there now, or were skipped.
        failed: Those that aren't.
        cut: The failure of the network that ended it all: that of the model that was on its way and
            of those behind it, which are among ``failed``, or of the alias that was to be given.
        clashes: What a person could decide about some of these: model → clash.
        offers: Names.
        plans: By which ways models would move, where only that was asked for.
    """

    moved: tuple[Moved, ...] = ()
    failed: tuple[Failed, ...] = ()
    cut: NetworkError | None = None
    clashes: dict[str, Clash] = {}
    offers: tuple[Offer, ...] = ()
    plans: tuple[Planned, ...] = ()


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be moved, and how.

    Attributes:
        names: Ids, prefixes or aliases, where the models are.
        if_exists: What becomes of other models with their ids.
        choices: The same for single models, which counts more.
        alias: What they are called on the other side: one model, or a pair.
        trust: For a pull: take files that could run something.
        explain: Only say by which ways they would move.
    """

    names: tuple[str, ...]
    if_exists: IfExistsWish = "ask"
    choices: dict[str, Choice] = {}
    alias: str | None = None
    trust: bool = False
    explain: bool = False

    def decide(self, model: str, clashes: dict[str, Clash]) -> Decide:
        """Decides by what was said; what nobody said is noted in ``clashes``."""

        def by_what_was_said(clash: Clash) -> Choice | None:
            choice = self.choices.get(model)
            if choice is None and self.if_exists != "ask":
                choice = self.if_exists
            if choice is None:
                clashes[model] = clash
            return choice

        return by_what_was_said


class _Named(msgspec.Struct, frozen=True):
    """Models that go together under a name of theirs, if they have one."""

    models: tuple[ModelId, ...]
    alias: str


def check_known(registry: Registry, names: Sequence[str]) -> None:
    """See that a library knows all of some names, before anybody is connected to.

    Raises:
        UnknownModel: It doesn't know one.
        AmbiguousName: One fits several models.
    """
    for name in names:
        _group_here(registry, name)


async def push_models(mover: Mover, wish: Wish, *, on_model: OnModel = lambda *_: None) -> Shipped:
    """Push models of this library.

    Args:
        mover: To the worker.
        wish: What and how.
        on_model: Told how far it is.

    Raises:
        UnknownModel: One isn't here; nothing was moved.
        AliasTaken: The alias is another's there; nothing was moved.
        UsageError: An alias for what is neither one model nor a pair.
        NetworkError: The worker is away, and nothing has moved; otherwise see ``Shipped.cut``.
    """
    registry = mover.registry
    groups = [_group_here(registry, name) for name in wish.names]
    entries = {model: registry.get(model) for group in groups for model in group.models}
    if wish.alias is not None:
        _check_alias(wish.alias, list(entries))
        packages = [entry.record.package for entry in entries.values()]
        if await alias_there(mover, wish.alias, packages) == "taken":
            raise AliasTaken(alias=wish.alias, owner=f"another model on {mover.worker}")

    async def one(
        model: ModelId, decide: Decide, tell: Callable[[Progress], None]
    ) -> Moved | Planned:
        if wish.explain:
            return await plan_push(mover, entries[model])
        return await push_model(
            mover, entries[model], decide=decide, wish=wish.if_exists, on_progress=tell
        )

    labels = {model: entry.label for model, entry in entries.items()}
    shipped = await _each(labels, wish, one, on_model)
    if shipped.cut is not None:
        return shipped
    try:
        offers = await _offers_there(mover, wish, entries, _wanted(wish, groups, shipped.moved))
    except NetworkError as error:
        # What has moved has moved: a name that nobody asked for isn't missed.
        return shipped if wish.alias is None else msgspec.structs.replace(shipped, cut=error)
    return msgspec.structs.replace(shipped, offers=offers)


async def _offers_there(
    mover: Mover,
    wish: Wish,
    entries: dict[ModelId, Entry],
    wanted: Sequence[tuple[str, list[tuple[ModelId, ModelId]]]],
) -> tuple[Offer, ...]:
    offers: list[Offer] = []
    for alias, models in wanted:
        packages = [entries[model].record.package for model, _ in models]
        there = tuple(result for _, result in models)
        state = await alias_there(mover, alias, packages)
        offer = Offer(alias=alias, models=there, state=state)
        if wish.alias is not None and state != "ours":
            try:
                await call_there(mover, alias, there)
                offer = Offer(alias=alias, models=there, state="ours", given=True)
            except Conflict as error:
                offer = Offer(alias=alias, models=there, state=state, why=error.message)
        offers.append(offer)
    return tuple(offers)


async def pull_models(mover: Mover, wish: Wish, *, on_model: OnModel = lambda *_: None) -> Shipped:
    """Pull models of a worker.

    Args:
        mover: To the worker.
        wish: What and how.
        on_model: Told how far it is.

    Raises:
        UnknownModel: One isn't there; nothing was moved.
        AliasTaken: The alias is another's here; nothing was moved.
        UsageError: An alias for what is neither one model nor a pair.
        NetworkError: The worker is away, and nothing has moved; otherwise see ``Shipped.cut``.
    """
    groups = []
    for name in wish.names:
        named = await named_there(mover, name)
        groups.append(_Named(models=named.models, alias=named.alias))
    wanted = dict.fromkeys(model for group in groups for model in group.models)
    if wish.alias is not None:
        _check_alias(wish.alias, list(wanted))
        there = [(await mover.library.info(model)).record.package for model in wanted]
        if _alias_here(mover.registry, wish.alias, there) == "taken":
            owner = mover.registry.get_alias(wish.alias)
            by = " and ".join(owner.models) if owner else "another model"
            raise AliasTaken(alias=wish.alias, owner=by)

    async def one(
        model: ModelId, decide: Decide, tell: Callable[[Progress], None]
    ) -> Moved | Planned:
        if wish.explain:
            return await plan_pull(mover, model)
        return await pull_model(
            mover,
            model,
            decide=decide,
            wish=wish.if_exists,
            trust=wish.trust,
            on_progress=tell,
        )

    labels = {
        model: group.alias if len(group.models) == 1 and group.alias else model
        for group in groups
        for model in group.models
    }
    shipped = await _each(labels, wish, one, on_model)
    offers = [
        await asyncio.to_thread(
            _offer_here,
            *(mover.registry, alias, tuple(result for _, result in models)),
            asked=wish.alias is not None,
        )
        for alias, models in _wanted(wish, groups, shipped.moved)
    ]
    return msgspec.structs.replace(shipped, offers=tuple(offers))


async def _each(
    labels: dict[ModelId, str],
    wish: Wish,
    one: Callable[[ModelId, Decide, Callable[[Progress], None]], Awaitable[Moved | Planned]],
    on_model: OnModel,
) -> Shipped:
    """Move one after the other: each takes what the link gives.

    Raises:
        NetworkError: The worker is away, and there is nothing else to tell.
        Cancelled: Somebody doesn't want it any more.
    """
    moved: list[Moved] = []
    plans: list[Planned] = []
    failed: list[Failed] = []
    clashes: dict[str, Clash] = {}
    cut: NetworkError | None = None
    for number, (model, label) in enumerate(labels.items()):

        def tell(progress: Progress, number: int = number, label: str = label) -> None:
            on_model(number, len(labels), label, progress)

        on_model(number, len(labels), label, None)
        try:
            done = await one(model, wish.decide(model, clashes), tell)
        except NetworkError as error:
            if not (moved or failed or plans):
                raise
            left = list(labels.items())[number:]
            failed += [Failed(model=each, label=its, error=error) for each, its in left]
            cut = error
            break
        except Cancelled:
            raise
        except SleapRtcError as error:
            failed.append(Failed(model=model, label=label, error=error))
            continue
        if isinstance(done, Planned):
            plans.append(done)
        else:
            moved.append(done)
    return Shipped(
        moved=tuple(moved), failed=tuple(failed), cut=cut, clashes=clashes, plans=tuple(plans)
    )


# ── names ────────────────────────────────────────────────────────────────────


def _group_here(registry: Registry, name: str) -> _Named:
    found = registry.resolve(name)
    if isinstance(found, Group):
        return _Named(models=tuple(entry.id for entry in found.entries), alias=found.alias)
    [entry] = resolve_names(registry, (name,))
    alias = entry.alias or ""
    return _Named(models=(entry.id,), alias="" if ":" in alias else alias)


def _check_alias(alias: str, models: Sequence[ModelId]) -> None:
    aliases.check(alias)
    if len(models) > _PAIR:
        raise UsageError(
            message=f"{len(models)} models can't share one alias.",
            hint="An alias names one model, or the two of a top-down pair.",
        )


def _wanted(
    wish: Wish, groups: Sequence[_Named], moved: Sequence[Moved]
) -> list[tuple[str, list[tuple[ModelId, ModelId]]]]:
    """The names to offer, with the models where they came from and where they are now."""
    there = {each.model: each.result for each in moved if each.how != "skipped"}
    if wish.alias is not None:
        every = dict.fromkeys(model for group in groups for model in group.models)
        groups = [_Named(models=tuple(every), alias=wish.alias)]
    return [
        (group.alias, [(model, there[model]) for model in group.models])
        for group in dict.fromkeys(groups)
        if not aliases.fault(group.alias) and all(model in there for model in group.models)
    ]


def _alias_here(registry: Registry, alias: str, packages: Sequence[str | None]) -> AliasState:
    known = registry.get_alias(alias)
    if known is None:
        return "taken" if _differs_by_case(registry, alias) else "free"
    try:
        here = [registry.get(model).record.package for model in known.models]
    except UnknownModel:
        return "free"
    return "ours" if here == list(packages) else "taken"


def _differs_by_case(registry: Registry, alias: str) -> bool:
    key = aliases.key(alias)
    return any(key == other for other, _ in registry.read_aliases())


def _offer_here(
    registry: Registry, alias: str, models: tuple[ModelId, ...], *, asked: bool
) -> Offer:
    entries = [registry.get(model) for model in models]
    state = _alias_here(registry, alias, [entry.record.package for entry in entries])
    offer = Offer(alias=alias, models=models, state=state)
    if not asked or state == "ours":
        return offer
    why = _named_already(entries)
    if why:
        return msgspec.structs.replace(offer, why=why)
    return call_here(registry, offer)


def _named_already(entries: Sequence[Entry]) -> str:
    """Why a name isn't given to a model that has another one: that would take the other away."""
    if len(entries) == 1 and entries[0].alias is not None and ":" not in entries[0].alias:
        return f"It is called {entries[0].alias!r} already."
    return ""


def call_here(registry: Registry, offer: Offer) -> Offer:
    """Give models of this library the name that they are offered, if it is free."""
    try:
        registry.set_alias(offer.alias, *offer.models)
    except Conflict as error:
        return msgspec.structs.replace(offer, why=error.message)
    return msgspec.structs.replace(offer, state="ours", given=True)
