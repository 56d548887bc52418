"""What happens to a download, and what is to be done: all that its machine and its shell say.

::

    shell ── SourceAdded, SourceLost, SourceLeaves, SourceRefused ──►
             Arrived, Stored, Rejected, Rotten                         machine
          ◄── Request, Withdraw, Store, Drop, Blame, Complete, Fail ──

What follows from which is in ``machine.py``.
"""

from __future__ import annotations

from typing import Final, NewType

import msgspec

from sleap_rtc.errors import SleapRtcError

SourceId = NewType("SourceId", int)

WINDOW: Final = 12 * 1024 * 1024
"""Bytes that may be under way from one source."""
MAX_ASKED: Final = 256
"""Blocks that may be under way from one source that gives one for each question: small files have
small blocks."""
MAX_SEVERAL: Final = 2_048
"""The same where one question is for several."""


# ── events ───────────────────────────────────────────────────────────────────


class SourceAdded(msgspec.Struct, frozen=True):
    """A source is there. Its id was never used before.

    Attributes:
        source: Its id.
        window: Bytes that may be under way from it.
        run: Bytes of neighbouring blocks that it is asked for at a time, where a question costs
            much; it is asked again once there is room for so many.
        peer: Whose connection it is, if it has several.
        most: Blocks that may be under way from it.
    """

    source: SourceId
    window: int = WINDOW
    run: int = 0
    peer: str = ""
    most: int = MAX_ASKED


class SourceLost(msgspec.Struct, frozen=True):
    """A source is gone, through no fault of the package."""

    source: SourceId


class SourceLeaves(msgspec.Struct, frozen=True):
    """A source is to be asked for nothing more; it ends the answers that it has begun."""

    source: SourceId


class SourceRefused(msgspec.Struct, frozen=True):
    """A source answered with an error instead of a block."""

    source: SourceId
    error: SleapRtcError


class Arrived(msgspec.Struct, frozen=True):
    """A source sent a block; it is not checked yet."""

    source: SourceId
    block: int


class Stored(msgspec.Struct, frozen=True):
    """A block that arrived had the right hash and was written."""

    block: int


class Rejected(msgspec.Struct, frozen=True):
    """A block that arrived had the wrong hash or length."""

    block: int


class Rotten(msgspec.Struct, frozen=True):
    """Blocks that were stored are wrong on the disk."""

    blocks: tuple[int, ...]


Event = (
    SourceAdded | SourceLost | SourceLeaves | SourceRefused | Arrived | Stored | Rejected | Rotten
)


# ── effects ──────────────────────────────────────────────────────────────────


class Request(msgspec.Struct, frozen=True):
    """Ask the source for the block."""

    source: SourceId
    block: int


class Withdraw(msgspec.Struct, frozen=True):
    """The source needn't answer for the block any more: another one has."""

    source: SourceId
    block: int


class Store(msgspec.Struct, frozen=True):
    """Check the block that this source sent, write it, and say `Stored` or `Rejected`."""

    source: SourceId
    block: int


class Drop(msgspec.Struct, frozen=True):
    """Use the source no more; what it still sends is ignored."""

    source: SourceId
    error: SleapRtcError


class Blame(msgspec.Struct, frozen=True):
    """This source sent the block wrong; whoever runs it may want to look into that."""

    source: SourceId
    block: int


class Complete(msgspec.Struct, frozen=True):
    """Every block is stored: check them all, and say `Rotten` if some are wrong."""


class Fail(msgspec.Struct, frozen=True):
    """The download has failed. What is stored stays useful for another attempt."""

    error: SleapRtcError


Effect = Request | Withdraw | Store | Drop | Blame | Complete | Fail
