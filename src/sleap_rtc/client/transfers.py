"""What this machine pushed, pulled and stored, and what of it isn't finished (CLI-13).

::

    <home>/transfers/<uuid7>/
        transfer.json     what is moved, where to, how it was asked for, how it stands
        lock              held by the process that moves it

    going ──► done                 it is there
      │  └──► cut                  it can go on: the network, a full disk, Ctrl-C
      │  └──► failed               the same again would fail again
      └─ its process is gone: cut

    cut, failed ──► going again · cancelled: what has arrived here is removed

The content itself is not here: what has arrived of a pull is in the library's
``.incoming``, of a push in the worker's, of what is stored in the storage. Asking for
the same again is what goes on with it; this only remembers what there is to ask for.
What is on its way for a job is in ``job_transfers.py``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, Self

from loguru import logger
from msgspec import Meta
from msgspec.structs import replace

from sleap_rtc.client.submitted import LocalPath
from sleap_rtc.config import Transport
from sleap_rtc.domain.ids import MODEL_ID, ModelId, RoomId, is_uuid7, make_uuid7
from sleap_rtc.domain.models import Id, Line, Package, Utc
from sleap_rtc.domain.packages import MAX_SIZE
from sleap_rtc.domain.values import Document, decode, encode_pretty
from sleap_rtc.errors import (
    AmbiguousName,
    Busy,
    Cancelled,
    DataError,
    NetworkError,
    NotFound,
    OutOfSpace,
    SleapRtcError,
)
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.jobs.datasets import MAX_DATASETS

Direction = Literal["push", "pull", "store"]
State = Literal["going", "done", "cut", "failed", "cancelled"]
IfExistsWish = Literal["ask", "skip", "overwrite", "keep-both"]

FILE: Final = "transfer.json"
KEPT_DAYS: Final = 30
"""Days that a finished transfer is remembered; an unfinished one stays until it is cancelled."""
KEPT_MOST: Final = 500
"""Finished transfers that are remembered."""
MIN_NAME: Final = 4
"""Characters by which a transfer is named, at least."""
SHOWN: Final = 8

_FINISHED: Final = frozenset({"done", "cancelled"})
_GOES_ON: Final = (NetworkError, OutOfSpace, Busy, Cancelled)


class Transfer(Document, frozen=True):
    """One model, or what a job brings, on its way.

    Attributes:
        id: UUIDv7.
        direction: ``push`` to the worker, ``pull`` from it, ``store`` before a job is submitted.
        model: The model's id where it comes from; empty for a job's inputs.
        label: What it is called there; what a job is called.
        model_type: The head; empty for what is stored.
        package: Its content.
        size: Bytes of its files.
        worker: The worker's name; empty for what is stored.
        room: The room's id.
        begun_at: When it was asked for first, UTC.
        changed_at: When the state was written, UTC.
        if_exists: What becomes of another model with its id, as it was asked for.
        trust: Whether a person said yes to files that could run something.
        state: Where it stands, as far as it was written down.
        done: Bytes that were there when that was written.
        attempts: How often it was begun.
        why: Why it isn't done.
        result: The model's id where it went, once it is there.
        beside: More workers from which it is pulled.
        transport: The way that was asked for.
        files: Of what is stored: path in the package → path on this machine.
    """

    id: Annotated[str, Meta(max_length=36)]
    direction: Direction
    model: Annotated[ModelId, Meta(pattern=rf"{MODEL_ID}|\A\Z")]
    label: Line
    model_type: Annotated[str, Meta(pattern=r"\A([a-z][a-z0-9_]{0,63})?\Z")]
    package: Package
    size: Annotated[int, Meta(ge=0, le=MAX_SIZE)]
    worker: Line
    room: RoomId
    begun_at: Utc
    changed_at: Utc
    if_exists: IfExistsWish = "ask"
    trust: bool = False
    state: State = "going"
    done: Annotated[int, Meta(ge=0, le=MAX_SIZE)] = 0
    attempts: Annotated[int, Meta(ge=1)] = 1
    why: Line = ""
    result: Id | None = None
    beside: Annotated[tuple[Line, ...], Meta(max_length=64)] = ()
    transport: Transport = "auto"
    files: Annotated[dict[str, LocalPath], Meta(max_length=MAX_DATASETS)] = {}

    @property
    def short(self) -> str:
        """What people are shown of its id: the last eight digits."""
        return self.id[-SHOWN:]

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state in _FINISHED

    def same(self, other: Transfer) -> bool:
        """Whether both move the same content the same way."""
        fields = ("direction", "model", "package", "worker", "room")
        return all(getattr(self, name) == getattr(other, name) for name in fields)


class Going:
    """A transfer that this process is at. Use it as a context manager.

    However its block ends, the file says so; when the process is killed, its lock does.

    Attributes:
        transfer: As it was last written.
        done: Bytes that are there now.
    """

    def __init__(self, transfers: Transfers, transfer: Transfer, claim: Claim) -> None:
        self.transfer = transfer
        self.done = 0
        self._transfers = transfers
        self._claim = claim

    def finish(self, result: str | None = None) -> None:
        """Say that it is there, a model under an id."""
        self._write(state="done", why="", done=self.transfer.size, result=result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None and self.transfer.state == "going":
                # What isn't ours is Ctrl-C, or a fault: both leave what has arrived.
                final = isinstance(error, SleapRtcError) and not isinstance(error, _GOES_ON)
                why = " ".join(str(error).split())[:1_000] or "interrupted"
                self._write(state="failed" if final else "cut", why=why, done=self.done)
        except (SleapRtcError, OSError) as fault:
            logger.warning("a transfer's end was not written: {}", fault)
        finally:
            self._claim.release()

    def _write(self, **changes: object) -> None:
        now = self._transfers.now()
        self.transfer = replace(self.transfer, changed_at=now, **changes)
        self._transfers.write(self.transfer)
        _log(self.transfer)


class Transfers:
    """All that this machine knows of.

    Args:
        root: The folder; made with the first one.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def now(self) -> datetime:
        """The time, UTC."""
        return datetime.now(UTC)

    def begin(self, wanted: Transfer) -> Going:
        """Begin a transfer, or go on with the one that moves the same.

        Args:
            wanted: The transfer; its id, its times and its state are set here.

        Raises:
            Busy: Another process of this machine is at it.
            OutOfSpace: The disk is full.
        """
        self._forget_old()
        now = self.now()
        known = next(
            (each for each in self._read_all() if each.same(wanted) and not each.finished), None
        )
        identifier = known.id if known else _new_id()
        attempts = known.attempts + 1 if known else 1
        begun = known.begun_at if known else now
        done = known.done if known else 0
        what = f"The {wanted.direction} of {wanted.label}"
        claim = Claim(self._root / identifier, what=what)
        transfer = replace(
            wanted,
            id=identifier,
            begun_at=begun,
            changed_at=now,
            attempts=attempts,
            state="going",
            done=done,
        )
        try:
            self.write(transfer)
        except BaseException:
            claim.release()
            raise
        _log(transfer)
        return Going(self, transfer, claim)

    def fulfilled(self, wanted: Transfer, result: ModelId) -> None:
        """Write down that what is wanted is there already: whoever began it was killed at its end.

        Args:
            wanted: As for :meth:`begin`.
            result: The model's id where it is.
        """
        for each in self._read_all():
            if each.same(wanted) and not each.finished:
                with contextlib.suppress(SleapRtcError, OSError), self.claimed(each):
                    done = {"state": "done", "done": each.size, "why": "", "result": result}
                    self.write(replace(each, changed_at=self.now(), **done))

    def all(self) -> list[Transfer]:
        """Every transfer as it stands, the newest first."""
        found = [self._as_it_is(each) for each in self._read_all()]
        return sorted(found, key=lambda each: each.id, reverse=True)

    def get(self, name: str) -> Transfer:
        """The transfer whose id is, or ends or begins with, what a person typed.

        Raises:
            NotFound: There is none.
            AmbiguousName: There are several.
        """
        known = self.all() if len(name) >= MIN_NAME else []
        found = [each for each in known if each.id.endswith(name)]
        found = found or [each for each in known if each.id.startswith(name)]
        if not found:
            raise NotFound(
                message=f"This machine knows no transfer {name[:80]!r}.",
                hint="sleap-rtc transfers shows them, with their ids.",
            )
        if len(found) > 1:
            raise AmbiguousName(
                name=name,
                candidates=", ".join(each.short for each in found),
                hint="Give more of the id.",
            )
        return found[0]

    @contextlib.contextmanager
    def claimed(self, transfer: Transfer) -> Iterator[None]:
        """See that nobody is at a transfer, until the block ends.

        Raises:
            Busy: Somebody is.
        """
        with Claim(self._root / transfer.id, what=f"The transfer {transfer.short}"):
            yield

    def cancel(self, transfer: Transfer) -> Transfer:
        """Write down that a transfer is given up; to be called within :meth:`claimed`."""
        given_up = replace(transfer, state="cancelled", changed_at=self.now(), why="")
        self.write(given_up)
        return given_up

    def write(self, transfer: Transfer) -> None:
        """Keep a transfer as it stands."""
        write_replacing(self._root / transfer.id / FILE, encode_pretty(transfer))

    def _as_it_is(self, transfer: Transfer) -> Transfer:
        """A transfer whose process was killed is cut."""
        if transfer.state != "going":
            return transfer
        try:
            with self.claimed(transfer):
                return replace(transfer, state="cut", why="its process ended")
        except (Busy, OSError, SleapRtcError):
            return transfer

    def _read_all(self) -> Iterator[Transfer]:
        try:
            names = sorted(os.listdir(self._root), reverse=True)  # noqa: PTH208 - names are wanted
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            path = self._root / name / FILE
            if not is_uuid7(name):
                continue
            try:
                transfer = decode(Transfer, path.read_bytes(), what=str(path))
            except (OSError, DataError) as error:
                logger.debug("a transfer can't be read: {}", error)
                continue
            if transfer.id == name:
                yield transfer

    def _forget_old(self) -> None:
        oldest = self.now() - timedelta(days=KEPT_DAYS)
        finished = [each for each in self._read_all() if each.finished]
        for number, each in enumerate(finished):
            if number < KEPT_MOST and each.changed_at > oldest:
                continue
            with (
                contextlib.suppress(SleapRtcError, OSError),
                Claim(self._root / each.id, what=each.id) as claim,
            ):
                claim.remove()


def _log(transfer: Transfer) -> None:
    about = {"package": transfer.package, "size": transfer.size, "done": transfer.done}
    bound = logger.bind(transfer=transfer.id, worker=transfer.worker, model=transfer.model, **about)
    bound.info(
        "{} of {}: {}, attempt {}{}",
        *(transfer.direction, transfer.label, transfer.state, transfer.attempts),
        f": {transfer.why}" if transfer.why else "",
    )


def _new_id() -> str:
    return make_uuid7(unix_ms=time.time_ns() // 1_000_000, randomness=os.urandom(10))
