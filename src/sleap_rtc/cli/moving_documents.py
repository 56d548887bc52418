"""What ``--json`` prints of the commands that move models; see ``documents.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from sleap_rtc.cli.documents import Shown
from sleap_rtc.domain.models import Tier


class CameShown(Shown, frozen=True):
    """Bytes of content that came one way (``webrtc``, ``direct``, ``local``, ``s3``), from whom."""

    way: str
    source: str
    size: int


class MovedShown(Shown, frozen=True):
    """A model that was to be moved.

    Attributes:
        direction: ``push`` or ``pull``.
        model: Its id where it came from.
        label: What it is called there.
        model_type: The head.
        how: ``added``; ``renamed`` (under another id: its own is another model's there);
            ``completed`` (its record was there already); ``replaced`` (in place of another model);
            ``known`` (it was there already, nothing moved); ``skipped`` (another model has its
            id, and stays).
        result: Its id where it is now; that of the other model, if it was skipped.
        path: Its directory there.
        size: Bytes of its files.
        sent: Bytes that travelled.
        came: What came, by way and source, as the receiver saw it; what it read where it was, too.
        seconds: How long its content took.
        safety: The tier of the worst of its files, as the receiver found it.
        trash: Where the model is for 30 days that was replaced; empty if none was.
    """

    direction: Literal["push", "pull"]
    model: str
    label: str
    model_type: str
    how: Literal["added", "renamed", "completed", "replaced", "known", "skipped"]
    result: str
    path: str
    size: int
    sent: int
    came: tuple[CameShown, ...]
    seconds: float
    safety: Tier
    trash: str


class WayShown(Shown, frozen=True):
    """A way that content takes, or doesn't, and why."""

    way: Literal["local", "direct", "s3", "webrtc"]
    used: bool
    why: str


class MovePlanShown(Shown, frozen=True):
    """By which ways a model would move: those that are used, best first, then the others."""

    model: str
    label: str
    size: int
    ways: tuple[WayShown, ...]


class MoveFailedShown(Shown, frozen=True):
    """A model that wasn't moved, and why; ``code`` is the error's, for programs."""

    model: str
    label: str
    code: str
    message: str
    hint: str


class OfferShown(Shown, frozen=True):
    """A name for models that were moved.

    Attributes:
        alias: The name.
        models: The models' ids on the other side, in order.
        state: ``free`` there, ``ours`` (it names them), or ``taken`` by others.
        given: Whether it was given now.
        why: Why it was not, although it was asked for.
    """

    alias: str
    models: tuple[str, ...]
    state: Literal["free", "ours", "taken"]
    given: bool
    why: str


class MoveBenchmarkShown(Shown, frozen=True):
    """What ``--benchmark`` measured.

    Attributes:
        handshake_s: From looking for the worker to the proven connection.
        moving_s: While content moved, checked and placed.
        sent: Bytes that travelled.
        rate: Bytes per second of these, 0 where none did.
        packets_sent: Packets that this machine sent over WebRTC, with those that were sent again.
            Only who sends content can count them: null for a pull, where none came by ``webrtc``,
            and without the fast WebRTC library. Other ways tell none.
        packets_again: How many of these carried something a second time.
        blocks_again: Blocks that were under way more than once: what came was wrong, a connection
            was lost, or another source was asked as well. A push counts what the worker read from
            this machine block by block; null where it read nothing so, and where nothing moved.
        cpu_s: Processor seconds of this process, all in all.
    """

    handshake_s: float
    moving_s: float
    sent: int
    rate: float
    packets_sent: int | None
    packets_again: int | None
    blocks_again: int | None
    cpu_s: float


class MovesDocument(Shown, frozen=True):
    """``push-model`` and ``pull-model``.

    ``benchmark`` is null unless it was asked for; ``plans`` are what ``--explain`` tells, which
    moves nothing.
    """

    worker: str
    room: str
    models: tuple[MovedShown, ...]
    failed: tuple[MoveFailedShown, ...]
    aliases: tuple[OfferShown, ...]
    plans: tuple[MovePlanShown, ...]
    benchmark: MoveBenchmarkShown | None


class TransferShown(Shown, frozen=True):
    """Something on its way from or to this machine.

    Attributes:
        id: For ``transfers show``, ``resume`` and ``cancel``; of a job's data the job's.
        direction: ``push`` or ``pull`` of a model; ``store`` of what a job brings, before it is
            submitted; ``send`` of a job's data to its worker, ``fetch`` of what the job made.
        model: The model's id where it comes from; empty for a job's data.
        label: What it is called there; what a job is called.
        model_type: The head; empty for a job's data.
        worker: The worker; empty for ``store``.
        beside: More workers from which it is pulled.
        transport: The way that was asked for.
        room: The room.
        state: ``going`` (a process is at it), ``cut`` (it can go on), ``failed``, ``done`` or
            ``cancelled``.
        size: Bytes of its files; 0 for what a job made.
        done: Bytes that were there when it was last written down.
        kept: Bytes of this machine's disk that it holds: what has arrived, and the room that is
            held for the rest.
        begun_at: When it was asked for first.
        changed_at: When its state was written.
        attempts: How often it was begun.
        why: Why it isn't done.
        result: The model's id where it went, null before it is there.
        resume: What goes on with it; empty if nothing does.
    """

    id: str
    direction: Literal["push", "pull", "store", "send", "fetch"]
    model: str
    label: str
    model_type: str
    worker: str
    beside: tuple[str, ...]
    transport: str
    room: str
    state: Literal["going", "done", "cut", "failed", "cancelled"]
    size: int
    done: int
    kept: int
    begun_at: datetime
    changed_at: datetime
    attempts: int
    why: str
    result: str | None
    resume: str


class TransfersDocument(Shown, frozen=True):
    """``transfers`` and ``transfers cancel``: the newest first."""

    transfers: tuple[TransferShown, ...]


class TransferDocument(Shown, frozen=True):
    """``transfers show``."""

    transfer: TransferShown


class ResumedDocument(Shown, frozen=True):
    """``transfers resume``: what became of each; with a job's id, what ``jobs attach`` prints.

    Attributes:
        moves: Pushes and pulls, by worker.
        stored: What is stored now; the job is submitted by its own command.
    """

    moves: tuple[MovesDocument, ...]
    stored: tuple[TransferShown, ...]


MOVING: Final[dict[str, type[Shown]]] = {
    "pull-model": MovesDocument,
    "push-model": MovesDocument,
    "transfers": TransfersDocument,
    "transfers-cancel": TransfersDocument,
    "transfers-resume": ResumedDocument,
    "transfers-show": TransferDocument,
}
"""Name of the schema's file → the document."""
