"""What ``transfers`` does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from sleap_rtc.cli.app import App
from sleap_rtc.cli.moving_documents import (
    MovesDocument,
    ResumedDocument,
    TransferDocument,
    TransfersDocument,
    TransferShown,
)
from sleap_rtc.cli.shipping import end, move_again, tell
from sleap_rtc.cli.text import Cell, Column
from sleap_rtc.client.pulling import arrived_of, drop_arrived
from sleap_rtc.client.shipping import Shipped, Wish
from sleap_rtc.client.transfers import Transfer
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import Conflict, SleapRtcError
from sleap_rtc.library.cleaning import measure

STYLES: Final = {"going": "good", "done": "", "cut": "warning", "failed": "bad", "cancelled": "dim"}


def list_transfers(app: App, *, everything: bool) -> None:
    """List them.

    Args:
        app: The invocation.
        everything: Whether finished ones, too.
    """
    found = [each for each in app.client().transfers.all() if everything or not each.finished]
    document = TransfersDocument(transfers=tuple(_shown(app, each) for each in found))
    app.out.show(document, lambda: _print(app, document))


def show_transfer(app: App, name: str) -> None:
    """Show one.

    Raises:
        NotFound: There is none.
    """
    one = _shown(app, app.client().transfers.get(name))

    def human() -> None:
        app.out.fields(
            [
                ("Transfer", one.id),
                ("Model", f"{one.label}, {one.model_type}, id {one.model}"),
                ("Way", _way(one)),
                ("State", Cell(one.state, STYLES[one.state])),
                ("Why", one.why),
                ("Size", format_bytes(one.size)),
                ("Done", format_bytes(one.done) if one.done else ""),
                ("Kept here", format_bytes(one.kept) if one.kept else ""),
                ("Begun", f"{one.begun_at.astimezone():%Y-%m-%d %H:%M}"),
                ("Last", f"{one.changed_at.astimezone():%Y-%m-%d %H:%M}, attempt {one.attempts}"),
                ("There as", one.result or ""),
                ("Goes on", one.resume),
            ]
        )

    app.out.show(TransferDocument(transfer=one), human)


def resume_transfers(app: App, names: Sequence[str]) -> None:
    """Go on with some, or with all that were cut.

    Raises:
        Conflict: One is finished, or another process is at it.
        SleapRtcError: One can't go on; the others did.
    """
    known = app.client().transfers
    chosen = [known.get(name) for name in names] or [t for t in known.all() if t.state == "cut"]
    for transfer in chosen:
        if transfer.finished or transfer.state == "going":
            raise Conflict(message=f"The transfer {transfer.short} is {transfer.state}.")
    done: list[tuple[MovesDocument, Shipped]] = []
    errors: list[SleapRtcError] = []
    for transfer in chosen:
        wish = Wish(names=(transfer.model,), if_exists=transfer.if_exists, trust=transfer.trust)
        try:
            done.append(
                move_again(
                    app,
                    transfer.direction,
                    wish,
                    worker=transfer.worker,
                    room=transfer.room,
                )
            )
        except SleapRtcError as error:
            errors.append(error)
    document = ResumedDocument(moves=tuple(moves for moves, _ in done))

    def human() -> None:
        for moves in document.moves:
            tell(app, moves)

    app.out.show(document, human)
    if not chosen:
        app.out.say("No transfer was cut.")
    for other in errors[1:]:
        app.out.warn(other.message)
    if errors:
        app.fail(errors[0])
    every = [shipped for _, shipped in done]
    end(app, Shipped(failed=tuple(itertools.chain(*(shipped.failed for shipped in every)))))


def cancel_transfers(app: App, names: Sequence[str]) -> None:
    """Give some up, or all that aren't finished.

    Raises:
        Busy: A process is at one; nothing happens to it.
    """
    client = app.client()
    known = client.transfers
    chosen = [known.get(name) for name in names]
    if not names:
        chosen = [each for each in known.all() if not each.finished and each.state != "going"]
    given_up = []
    for transfer in chosen:
        if transfer.finished:
            raise Conflict(message=f"The transfer {transfer.short} is {transfer.state}.")
        with known.claimed(transfer):
            if transfer.direction == "pull":
                drop_arrived(client.library, transfer)
            given_up.append(known.cancel(transfer))
    document = TransfersDocument(transfers=tuple(_shown(app, each) for each in given_up))

    def human() -> None:
        for one in document.transfers:
            app.out.data(f"{one.id[-8:]}: the {one.direction} of {one.label} is given up")

    app.out.show(document, human)
    if not chosen:
        app.out.say("Every transfer is finished.")


def _shown(app: App, transfer: Transfer) -> TransferShown:
    client = app.client()
    kept = None
    if transfer.direction == "pull" and not transfer.finished:
        kept = arrived_of(client.library, transfer)
    goes_on = transfer.state in ("cut", "failed")
    rooms = {entry.room: entry.name for entry in client.rooms()}
    return TransferShown(
        id=transfer.id,
        direction=transfer.direction,
        model=transfer.model,
        label=transfer.label,
        model_type=transfer.model_type,
        worker=transfer.worker,
        room=rooms.get(transfer.room, transfer.room),
        state=transfer.state,
        size=transfer.size,
        done=transfer.done,
        kept=0 if kept is None else measure(kept).size,
        begun_at=transfer.begun_at,
        changed_at=transfer.changed_at,
        attempts=transfer.attempts,
        why=transfer.why,
        result=transfer.result,
        resume=f"sleap-rtc transfers resume {transfer.short}" if goes_on else "",
    )


def _way(one: TransferShown) -> str:
    way = "to" if one.direction == "push" else "from"
    return f"{way} {one.worker} in {one.room}"


def _print(app: App, document: TransfersDocument) -> None:
    if not document.transfers:
        app.out.say("No transfer is unfinished.")
        return
    app.out.table(
        [
            Column("id", whole=True),
            Column("model", least=12),
            Column("way"),
            Column("state", whole=True),
            Column("size", right=True, whole=True),
            Column("last", whole=True),
            Column("why"),
        ],
        [
            [
                one.id[-8:],
                Cell(one.label, "name"),
                _way(one),
                Cell(one.state, STYLES[one.state]),
                format_bytes(one.size),
                f"{one.changed_at.astimezone():%Y-%m-%d %H:%M}",
                one.why,
            ]
            for one in document.transfers
        ],
    )
    if any(one.resume for one in document.transfers):
        app.out.say("sleap-rtc transfers resume goes on with what was cut.")
