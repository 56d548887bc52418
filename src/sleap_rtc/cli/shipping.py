"""What ``push-model`` and ``pull-model`` do: move, ask about what is in the way, name, and tell.

A person is only asked between two connections, so that nobody waits on a silent one::

    connect, move what can be moved ─► clashes? ask ─► connect, move the rest ─► names? ask
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Final, Literal

from msgspec.structs import replace

from sleap_rtc.cli.app import App
from sleap_rtc.cli.moving_documents import (
    CameShown,
    MoveBenchmarkShown,
    MovedShown,
    MoveFailedShown,
    MovePlanShown,
    MovesDocument,
    OfferShown,
    WayShown,
)
from sleap_rtc.cli.text import bar, count
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.moving import Choice, Clash, Moved, Planned
from sleap_rtc.client.pushing import call_there
from sleap_rtc.client.shipping import (
    Offer,
    OnModel,
    Shipped,
    Wish,
    call_here,
    check_known,
    pull_models,
    push_models,
)
from sleap_rtc.client.transfers import IfExistsWish
from sleap_rtc.config import Transport
from sleap_rtc.domain import aliases
from sleap_rtc.domain.units import format_bytes, format_duration, format_rate
from sleap_rtc.errors import Conflict, NetworkError, SleapRtcError
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.connection import Packets

GOES_ON: Final = "What has arrived is kept: the same command goes on from there."
BAR: Final = 24

_PHASES: Final = {
    "waiting": "waiting",
    "copying": "copying what is there already",
    "verifying": "checking",
}
_CHOICES: Final[dict[str, Choice]] = {"s": "skip", "o": "overwrite", "k": "keep-both"}


def move(
    app: App,
    direction: Literal["push", "pull"],
    names: tuple[str, ...],
    *,
    workers: tuple[str, ...],
    room: str | None,
    if_exists: IfExistsWish,
    alias: str | None,
    benchmark: bool,
    explain: bool,
    trust: bool = False,
) -> None:
    """Push or pull models, and tell what became of them.

    Args:
        app: The invocation.
        direction: Which way.
        names: The models, as they are called where they come from.
        workers: The worker; for a pull perhaps several. None for the only one that is online, or
            that has the models.
        room: The room; by default the only one.
        if_exists: What becomes of other models with their ids.
        alias: What they are called on the other side.
        benchmark: Whether to tell how quick it was.
        explain: Whether only to tell by which ways they would move.
        trust: For a pull: take files that could run something.

    Raises:
        SleapRtcError: Nothing could be moved; or, with what could be told, the first error.
    """
    wish = Wish(names=names, if_exists=if_exists, alias=alias, trust=trust, explain=explain)
    mover = _Move(app, app.client(), direction, workers, room)
    document, shipped = mover.all(wish, benchmark=benchmark)
    app.out.show(document, lambda: tell(app, document))
    end(app, shipped)


def tell(app: App, document: MovesDocument) -> None:
    """Print what became of the models of one command; with ``--quiet`` where they are alone."""
    if app.out.quiet:
        for one in document.models:
            if one.how != "skipped":
                app.out.data(one.result)
        return
    for one in document.models:
        _tell_model(app, one, document.worker)
    for planned in document.plans:
        _tell_plan(app, planned)
    for offer in document.aliases:
        _tell_alias(app, offer, document)
    measured = document.benchmark
    if measured is not None:
        rate = format_rate(measured.rate) if measured.rate else "-"
        came = _by_way(document)
        app.out.fields(
            [
                ("Throughput", f"{rate}, {format_bytes(measured.sent)} moved"),
                *(("By way" if not number else "", each) for number, each in enumerate(came)),
                ("Handshake", f"{measured.handshake_s * 1e3:.0f} ms"),
                ("Sent again", _again(measured)),
                ("Moving", f"{measured.moving_s:.2f} s, with checking and placing"),
                ("Processor", f"{measured.cpu_s:.2f} s of this process"),
            ]
        )


def end(app: App, shipped: Shipped) -> None:
    """Say what wasn't moved, and end with the first error if there is one."""
    cut = shipped.cut
    for failed in shipped.failed[0 if cut else 1 :]:
        if failed.error is not cut:
            app.out.warn(f"{failed.label}: {failed.error.message}")
    if cut is not None:
        left = ", ".join(each.label for each in shipped.failed if each.error is cut)
        done = f"{count(len(shipped.moved), 'model')} done before the network failed"
        app.out.warn(f"{done}; not done: {left or 'the alias'}. {GOES_ON}")
        app.fail(cut)
    if shipped.failed:
        app.fail(shipped.failed[0].error)
    for offer in shipped.offers:
        if offer.why:
            app.fail(Conflict(message=f"The alias {offer.alias!r} was not given: {offer.why}"))


class _Move:
    """One direction, with one worker or, for a pull, several.

    Args:
        app: The invocation.
        client: The API.
        direction: Which way.
        workers: The workers; the first is the one that is asked what there is. None for the only
            one that is online, or that has the models.
        room: The room.
    """

    def __init__(
        self,
        app: App,
        client: AsyncClient,
        direction: Literal["push", "pull"],
        workers: tuple[str, ...],
        room: str | None,
    ) -> None:
        self._app, self._client = app, client
        self._direction: Literal["push", "pull"] = direction
        self._worker = workers[0] if workers else ""
        self._beside = workers[1:]
        self._room = room
        self._handshake_s = 0.0
        self._packets: Packets | None = None

    def all(self, wish: Wish, *, benchmark: bool = False) -> tuple[MovesDocument, Shipped]:
        """Move everything that can be, asking where there is somebody to ask."""
        if wish.alias is not None:
            aliases.check(wish.alias)
        if self._direction == "push":
            check_known(self._client.library, wish.names)
        self._app.goes_on = GOES_ON
        cpu = time.process_time()
        shipped = self._app.run(self._ship(wish))
        if shipped.clashes and shipped.cut is None and self._app.out.interactive:
            choices = {model: self._ask(clash) for model, clash in shipped.clashes.items()}
            try:
                again = self._app.run(self._ship(replace(wish, choices=choices)))
            except NetworkError as error:
                left = tuple(replace(each, error=error) for each in shipped.failed)
                again = Shipped(failed=left, cut=error)
            shipped = _both(shipped, again)
        cpu = time.process_time() - cpu
        shipped = replace(shipped, offers=tuple(self._name(wish, o) for o in shipped.offers))
        seconds = sum(each.seconds for each in shipped.moved)
        sent = sum(max(each.sent, sum(c.size for c in each.came)) for each in shipped.moved)
        blocks = [each.again for each in shipped.moved if each.again is not None]
        document = MovesDocument(
            worker=self._worker,
            room=self._client.room(self._room).name,
            models=tuple(_moved_shown(each) for each in shipped.moved),
            failed=tuple(
                MoveFailedShown(
                    model=each.model,
                    label=each.label,
                    code=each.error.code,
                    message=each.error.message,
                    hint=each.error.hint_text,
                )
                for each in shipped.failed
            ),
            aliases=tuple(
                OfferShown(
                    alias=each.alias,
                    models=each.models,
                    state=each.state,
                    given=each.given,
                    why=each.why,
                )
                for each in shipped.offers
            ),
            plans=tuple(_plan_shown(each) for each in shipped.plans),
            benchmark=MoveBenchmarkShown(
                handshake_s=self._handshake_s,
                moving_s=seconds,
                sent=sent,
                rate=sent / seconds if sent and seconds else 0.0,
                packets_sent=None if self._packets is None else self._packets.sent,
                packets_again=None if self._packets is None else self._packets.again,
                blocks_again=sum(blocks) if blocks else None,
                cpu_s=cpu,
            )
            if benchmark
            else None,
        )
        return document, shipped

    async def _ship(self, wish: Wish) -> Shipped:
        live = self._app.out.live
        live.update([f"connecting to {self._worker or 'a worker'}"])
        try:
            async with self._client.mover(
                self._worker or None,
                room=self._room,
                beside=self._beside,
                wanted=wish.names if self._direction == "pull" else (),
                say=self._app.out.warn,
            ) as mover:
                if mover.why:
                    self._app.out.say(f"Using worker {mover.worker}: {mover.why}.")
                self._worker = mover.worker
                self._handshake_s = mover.handshake_s
                ship = push_models if self._direction == "push" else pull_models
                shipped = await ship(mover, wish, on_model=self._watch())
                if self._direction == "push" and "webrtc" in _ways_of(shipped):
                    sent = await mover.link.packets()
                    self._packets = sent + self._packets if sent and self._packets else sent
                return shipped
        finally:
            live.clear()

    def _watch(self) -> OnModel:
        live = self._app.out.live
        way = f"to {self._worker}" if self._direction == "push" else f"from {self._worker}"

        def on_model(number: int, models: int, label: str, progress: Progress | None) -> None:
            which = f" ({number + 1} of {models} models)" if models > 1 else ""
            if progress is None:
                live.update([f"{label}{which}: reading and comparing"])
                return
            head = f"{label} {way}{which}"
            live.update(drawn(head, progress), plain=f"{head}: {_words(progress)}")

        return on_model

    # ── questions ────────────────────────────────────────────────────────────

    def _ask(self, clash: Clash) -> Choice:
        out = self._app.out
        there = "there" if clash.where == self._worker else "here"
        out.say(
            f"{clash.label}: on {clash.where} the id {clash.model} is another model's, "
            f"{clash.other}, made {clash.created_at}, {format_bytes(clash.size)}."
        )
        words = f"[s]kip, [o]verwrite it (it goes to the trash {there}), or [k]eep both?"
        known = dict(_CHOICES)
        if clash.locked:
            out.say(f"It can't be overwritten: {clash.locked}")
            words = "[s]kip, or [k]eep both?"
            del known["o"]
        while True:
            answer = out.prompt(words).casefold()
            if answer[:1] in known and known[answer[:1]].startswith(answer.replace(" ", "-")):
                return known[answer[:1]]

    def _name(self, wish: Wish, offer: Offer) -> Offer:
        """Ask whether a free name is given on the other side."""
        if wish.alias is not None or offer.state != "free" or not self._app.out.interactive:
            return offer
        where = f"on {self._worker}" if self._direction == "push" else "here"
        it = "it" if len(offer.models) == 1 else "them"
        if not self._app.out.ask(f"Call {it} {offer.alias!r} {where}, too?", default=True):
            return offer
        if self._direction == "pull":
            return call_here(self._client.library, offer)
        try:
            self._app.run(self._call(offer))
        except SleapRtcError as error:
            return replace(offer, why=error.message)
        return replace(offer, state="ours", given=True)

    async def _call(self, offer: Offer) -> None:
        async with self._client.mover(self._worker, room=self._room) as mover:
            await call_there(mover, offer.alias, offer.models)


def move_again(
    app: App,
    direction: Literal["push", "pull"],
    wish: Wish,
    *,
    workers: tuple[str, ...],
    room: str,
    transport: Transport,
) -> tuple[MovesDocument, Shipped]:
    """Go on with what was asked for before, the same way unless another one is asked for now."""
    client = app.client()
    if "transport" not in app.flags:
        settings = replace(client.settings, transport=transport)
        client = AsyncClient(settings, library=client.library)
    return _Move(app, client, direction, workers, room).all(wish)


def _both(first: Shipped, again: Shipped) -> Shipped:
    """What became of it all, when a part was tried again: what moved first was there then."""
    moved = {each.model: each for each in first.moved}
    told = {each.model for each in again.moved}
    return replace(
        again,
        moved=(
            *(moved.get(each.model, each) if each.how == "known" else each for each in again.moved),
            # It was cut before it came to these.
            *(each for each in first.moved if each.model not in told),
        ),
        failed=tuple(each for each in again.failed if each.model not in moved),
    )


def _ways_of(shipped: Shipped) -> set[str]:
    return {came.way for each in shipped.moved for came in each.came}


def drawn(head: str, progress: Progress) -> list[str]:
    """The lines of a model that moves, on a terminal: all of it, and the file of the moment."""
    lines = [f"{bar(progress.percent / 100, BAR)}  {head}", f"{'':{BAR}}  {_words(progress)}"]
    if (file := progress.file) is not None:
        lines.append(f"{'':{BAR}}  {file.path}: {_of(file.done, file.size)}")
    return lines


def _of(done: int, total: int) -> str:
    return f"{format_bytes(done)} of {format_bytes(total)}"


def _words(progress: Progress) -> str:
    phase = _PHASES.get(progress.phase, "")
    text = _of(progress.done, progress.total)
    if phase:
        return f"{phase}, {text}"
    if progress.phase == "storing":  # the worker fetches it afterwards, from nothing on
        text = f"storing, {text}"
    if progress.rate >= 1:
        text += f", {format_rate(progress.rate)}"
    if progress.eta_s is not None and progress.done < progress.total:
        text += f", {format_duration(progress.eta_s)} left"
    return text


def _moved_shown(moved: Moved) -> MovedShown:
    fields = {name: getattr(moved, name) for name in MovedShown.__struct_fields__}
    came = tuple(CameShown(way=c.way, source=c.source, size=c.size) for c in moved.came)
    return MovedShown(**{**fields, "came": came})


def _plan_shown(planned: Planned) -> MovePlanShown:
    used = [WayShown(way=way.kind, used=True, why=way.why) for way in planned.plan.ways]
    others = [WayShown(way=way.kind, used=False, why=way.why) for way in planned.plan.without]
    return MovePlanShown(
        model=planned.model, label=planned.label, size=planned.size, ways=(*used, *others)
    )


def _tell_plan(app: App, planned: MovePlanShown) -> None:
    app.out.data(f"{planned.label}, {format_bytes(planned.size)}:")
    for number, way in enumerate(planned.ways, 1):
        if way.used:
            app.out.data(f"  {number}. {way.way}: {way.why}")
        else:
            app.out.data(f"  -  {way.way}: not used, {way.why}")


def _again(measured: MoveBenchmarkShown) -> str:
    """What was sent again, as far as this side knows; empty if it knows nothing."""
    told = []
    if measured.packets_sent is not None and measured.packets_again is not None:
        told.append(f"{measured.packets_again:,} of {measured.packets_sent:,} packets over WebRTC")
    if measured.blocks_again is not None:
        told.append(count(measured.blocks_again, "block"))
    return ", ".join(told)


def _by_way(document: MovesDocument) -> list[str]:
    """How much came by which way and from whom, the most first."""
    came: Counter[tuple[str, str]] = Counter()
    for one in document.models:
        for each in one.came:
            came[each.way, each.source] += each.size
    return [
        f"{format_bytes(size)} {way}, from {source}" for (way, source), size in came.most_common()
    ]


def _ways(one: MovedShown) -> str:
    """By which ways a model came, the one that brought most first; nothing where none is known."""
    came: Counter[str] = Counter()
    for each in one.came:
        came[each.way] += each.size
    return f", by {' and '.join(way for way, _ in came.most_common())}" if came else ""


def _tell_model(app: App, one: MovedShown, worker: str) -> None:
    there = f"on {worker}" if one.direction == "push" else "here"
    size = format_bytes(one.size)
    label = one.label if one.label == one.model else f"{one.label} ({one.model})"
    if one.how == "skipped":
        app.out.data(f"{label}: skipped, {one.result} {there} is another model")
        return
    moved = max(one.sent, sum(each.size for each in one.came))
    saved = f", {format_bytes(moved)} moved, the rest was there"
    if moved >= one.size or format_bytes(moved) == size:
        saved = ""
    came = f"{size}{_ways(one)}{saved}"
    what = {
        "added": f"is {there}, {came}",
        "renamed": f"is {there} as {one.result}, {came}: its id is another model's there",
        "completed": f"has its files {there}, {came}",
        "replaced": f"is {there}, {came}, in place of another model",
        "known": f"is {there} already, {size}: nothing moved",
    }[one.how]
    if one.how == "known" and one.result != one.model:
        what = f"is {there} already, as {one.result}, {size}: nothing moved"
    app.out.data(f"{label}: {what}")
    if one.path:
        app.out.data(f"  {one.path}")
    if one.trash:
        app.out.say(f"The other one is in the trash for 30 days: {one.trash}")
    if one.how != "known" and one.safety not in ("safe", "scanned"):
        app.out.warn(
            f"{label}: its safety is {one.safety}, as found {there}. A job runs it there only once "
            "that machine's owner says yes: sleap-rtc trust-model."
            if one.direction == "push"
            else f"{label}: its safety is {one.safety}. It runs here only with --trust-model."
        )


def _tell_alias(app: App, offer: OfferShown, document: MovesDocument) -> None:
    pushed = any(one.direction == "push" for one in document.models)
    where = f"on {document.worker}" if pushed else "here"
    if offer.given:
        app.out.say(f"It is called {offer.alias!r} {where}.")
    elif offer.state == "free" and not offer.why:
        app.out.say(f"{offer.alias!r} is free {where}: add --alias {offer.alias} to call it so.")
    elif offer.state == "taken" and not offer.why:
        app.out.say(f"{offer.alias!r} is another model's {where}; --alias names it otherwise.")
