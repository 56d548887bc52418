"""Which block is asked of which source, and what happens when it doesn't come.

A download knows its missing blocks and its sources. Every event gives effects, which the shell
carries out in their order (``events.py``). Blocks go by their numbers
(:class:`~sleap_rtc.domain.layout.Layout`)::

    missing ──Request──► asked ──Arrived──► storing ──Stored──► done
       ▲                   │                   │                 │
       └───── SourceLost ──┘                   │                 │
       └───────────────────── Rejected ────────┴──── Rotten ─────┘

A rejected block is asked again, of another source where there is one: not of another connection of
the peer that sent it wrong. The third time the download fails. A source that sent three wrong
blocks, or says that its file changed, is used no more while there is another one.

A slow source doesn't hold up the end. When nothing is missing any more, a source that is idle is
asked for half of what another one still owes, from behind, where that one gets last. The first
answer counts, and the others are withdrawn; of three at most, and what is asked more than once at a
time is a window at most::

    slow   1 2 3 4 5 6 7 8          slow   1 2 3 4 5
    idle                 ──────►    idle         8 7 6 5 …   until they meet

A source that leaves in good order is asked for nothing more. What it has begun to send still comes;
the rest is withdrawn, and asked of others.

Connections of one peer don't help each other so: they share its line, and the first of what one of
them owes lies in its queue there already. Instead each is asked for less at a time, and one that is
idle takes over half of the rest: nothing is asked for twice.

The phase follows:

===========  ============================================  ==============================
phase        event                                         next
===========  ============================================  ==============================
waiting      SourceAdded                                   receiving
receiving    the last source is lost, or has left          waiting
receiving    the last source refuses                       failed, with its reason
receiving    a block is rejected for the third time        failed, naming file and block
any          the last block is stored                      complete
complete     Rotten                                        receiving, or waiting
failed       anything                                      failed, without effects
===========  ============================================  ==============================

A source has a window of bytes that are asked or being stored, so that neither side's memory grows
with the package. Every event costs what it changes, not what the package holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import Final, assert_never

from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import Damaged, DataError, SleapRtcError
from sleap_rtc.transfer.events import (
    WINDOW,
    Arrived,
    Blame,
    Complete,
    Drop,
    Effect,
    Event,
    Fail,
    Rejected,
    Request,
    Rotten,
    SourceAdded,
    SourceId,
    SourceLeaves,
    SourceLost,
    SourceRefused,
    Store,
    Stored,
    Withdraw,
)

MOST_PARTS: Final = 4
"""Into so many parts the window goes at most that a peer's connections have."""
BEGUN: Final = 2
"""Blocks, and large ones' bytes, that a connection which owes several is taken to be sending."""
MAX_FAILURES: Final = 3


class Phase(StrEnum):
    """What a download is doing."""

    WAITING = "waiting"
    RECEIVING = "receiving"
    COMPLETE = "complete"
    FAILED = "failed"


class _Block(IntEnum):
    MISSING = 0
    SUSPECT = 1  # missing, and was rejected before
    ASKED = 2
    STORING = 3
    DONE = 4


class _Source:
    """A source that is in use."""

    def __init__(self, added: SourceAdded) -> None:
        self.window = added.window
        self.run = added.run
        self.peer = added.peer
        self.most = added.most
        self.used = 0
        self.blocks: set[int] = set()
        self.rejected = 0
        self.leaves = False


class Download:
    """The machine of one download.

    Args:
        layout: The package's blocks.
        done: One byte per block, not 0 for those that are here already.

    Attributes:
        phase: What it is doing.
        done_bytes: Bytes that are stored.
        newest: The block that was stored last; None before there was one.
    """

    def __init__(self, layout: Layout, done: bytes | bytearray) -> None:
        if len(done) != layout.count:
            raise ValueError(f"{len(done)} marks for {layout.count} blocks")
        self.phase = Phase.WAITING
        self._layout = layout
        self._states = bytearray(
            done.translate(bytes([_Block.MISSING]) + bytes([_Block.DONE]) * 255)
        )
        self._left = self._states.count(_Block.MISSING)
        self.done_bytes = layout.package.size - sum(map(layout.size, self._missing()))
        self.newest: int | None = None
        self._cursor = 0
        self._sources: dict[SourceId, _Source] = {}
        self._holders: dict[int, SourceId] = {}
        self._helpers: dict[int, list[SourceId]] = {}
        self._twice = 0
        self._failures: dict[int, int] = {}
        self._suspects: dict[int, set[SourceId | str]] = {}
        self._givers: dict[SourceId, SourceId | str] = {}
        self._free: set[SourceId] = set()

    def done_of(self, file: int) -> int:
        """Bytes of one file that are stored."""
        entry = self._layout.package.files[file]
        if not entry.block_count:
            return 0
        first = self._layout.number(file, 0)
        end = first + entry.block_count
        done = self._states.count(_Block.DONE, first, end) * BLOCK
        short = entry.block_count * BLOCK - entry.size
        return done - (short if self._states[end - 1] == _Block.DONE else 0)

    def begin(self) -> list[Effect]:
        """The first effects: none, unless nothing is missing."""
        return self._completed() if not self._left else []

    def handle(self, *events: Event) -> list[Effect]:
        """Take events in, of one moment: sources are asked for more when all of them are known.

        Events about sources and blocks that are not under way any more are ignored, so the shell
        needn't track what became pointless.
        """
        effects: list[Effect] = []
        for event in events:
            if self.phase is not Phase.FAILED:
                effects += self._take(event)
        free, self._free = self._free, set()
        for source in [source for source in self._sources if source in free]:
            effects += self._ask(source)
        return effects

    def _take(self, event: Event) -> list[Effect]:
        match event:
            case SourceAdded():
                return self._added(event)
            case SourceLost():
                return self._lost(event.source)
            case SourceLeaves():
                return self._leaves(event.source)
            case SourceRefused():
                return self._refused(event.source, event.error)
            case Arrived():
                return self._arrived(event.source, event.block)
            case Stored():
                return self._stored(event.block)
            case Rejected():
                return self._rejected(event.block)
            case Rotten():
                return self._rotten(event.blocks)
            case _:  # pragma: no cover
                assert_never(event)

    def _added(self, event: SourceAdded) -> list[Effect]:
        if event.source in self._sources:
            raise ValueError(f"source {event.source} is there already")
        self._sources[event.source] = _Source(event)
        # What one connection of a peer sends wrong the others would, too.
        self._givers[event.source] = event.peer or event.source
        if self.phase is Phase.WAITING:
            self.phase = Phase.RECEIVING
        self._free.add(event.source)
        return []

    def _lost(self, source: SourceId) -> list[Effect]:
        if self._forget(source):
            self._all_free()
        return []

    def _leaves(self, source: SourceId) -> list[Effect]:
        sender = self._sources.get(source)
        if sender is None or sender.leaves:
            return []
        sender.leaves = True
        owed = [block for block in sender.blocks if self._states[block] == _Block.ASKED]
        rest = [b for b in self._not_begun(owed) if self._asked_of(b) == [source]]
        for block in rest:
            del self._holders[block]
            self._miss_again(block)
            self._release(source, block)
        if not sender.blocks:
            self._forget(source)
        self._all_free()
        return [Withdraw(source, block) for block in rest]

    def _refused(self, source: SourceId, error: SleapRtcError) -> list[Effect]:
        if source not in self._sources:
            return []
        self._forget(source)
        # A file that changed there is that source's trouble: another one may have the right bytes.
        if not self._sources and self.phase is Phase.WAITING:
            return [Drop(source, error), *self._failed(error)]
        self._all_free()
        return [Drop(source, error)]

    def _arrived(self, source: SourceId, block: int) -> list[Effect]:
        if not 0 <= block < len(self._states) or self._states[block] != _Block.ASKED:
            return []
        asked = self._asked_of(block)
        if source not in asked:
            return []
        self._states[block] = _Block.STORING
        if helpers := self._helpers.pop(block, ()):
            self._twice -= self._layout.size(block) * len(helpers)
        self._holders[block] = source
        others = [other for other in asked if other != source]
        effects: list[Effect] = [Store(source, block)]
        for other in others:
            self._release(other, block)
            effects.append(Withdraw(other, block))
        self._free.update(others)
        return effects

    def _stored(self, block: int) -> list[Effect]:
        source = self._settle(block)
        if source is None:
            return []
        self._states[block] = _Block.DONE
        self.newest = block
        self._suspects.pop(block, None)
        self._left -= 1
        self.done_bytes += self._layout.size(block)
        if not self._left:
            return self._completed()
        # At the end all that becomes free may help those that aren't done.
        if self._cursor < len(self._states):
            self._free.add(source)
        else:
            self._all_free()
        return []

    def _rejected(self, block: int) -> list[Effect]:
        source = self._settle(block)
        if source is None:
            return []
        effects: list[Effect] = [Blame(source, block), *self._suspect(block, source)]
        if self.phase is Phase.FAILED:
            return effects
        sender = self._sources.get(source)
        if sender is not None:
            sender.rejected += 1
            # Alone it may go on until a block has failed three times, which is the clearer end.
            if sender.rejected >= MAX_FAILURES and len(self._sources) > 1:
                self._forget(source)
                why = f"{sender.rejected} of its blocks were damaged"
                effects.append(Drop(source, DataError(what="a source", why=why)))
        self._all_free()
        return effects

    def _rotten(self, blocks: Iterable[int]) -> list[Effect]:
        if self.phase is not Phase.COMPLETE:
            return []
        self.phase = Phase.RECEIVING if self._sources else Phase.WAITING
        for block in set(blocks):
            if self._states[block] == _Block.DONE:
                self._left += 1
                self.done_bytes -= self._layout.size(block)
                effects = self._suspect(block, None)
                if effects:
                    return effects
        if not self._left:
            return self._completed()
        self._all_free()
        return []

    def _suspect(self, block: int, source: SourceId | None) -> list[Effect]:
        """Count a failure of the block, and have it asked again unless it was the last."""
        failures = self._failures[block] = self._failures.get(block, 0) + 1
        if failures >= MAX_FAILURES:
            file, index = self._layout.locate(block)
            entry = self._layout.package.files[file]
            why = f"block {index + 1} of {entry.block_count} was wrong {failures} times"
            return self._failed(Damaged(what=entry.path, why=why))
        if source is None:
            self._miss(block)
        else:
            self._states[block] = _Block.SUSPECT
            self._suspects.setdefault(block, set()).add(self._givers[source])
        return []

    def _miss(self, block: int) -> None:
        self._states[block] = _Block.MISSING
        self._cursor = min(self._cursor, block)

    def _miss_again(self, block: int) -> None:
        """What was asked for doesn't come from there."""
        if block in self._suspects:
            self._states[block] = _Block.SUSPECT
        else:
            self._miss(block)

    def _settle(self, block: int) -> SourceId | None:
        """A block isn't under way any more: free its part of the window. None if it never was."""
        if not 0 <= block < len(self._states) or self._states[block] != _Block.STORING:
            return None
        source = self._holders.pop(block)
        self._release(source, block)
        return source

    def _release(self, source: SourceId, block: int) -> None:
        """Free a block's part of a source's window."""
        sender = self._sources.get(source)
        if sender is not None and block in sender.blocks:
            sender.blocks.discard(block)
            sender.used -= self._layout.size(block)
            if sender.leaves and not sender.blocks:
                self._forget(source)

    def _asked_of(self, block: int) -> list[SourceId]:
        """Who was asked for a block, the first one first."""
        return [self._holders[block], *self._helpers.get(block, ())]

    def _forget(self, source: SourceId) -> bool:
        """Remove a source; what it was asked for is missing again, what it sent is still stored."""
        sender = self._sources.pop(source, None)
        if sender is None:
            return False
        for block in sender.blocks:
            if self._states[block] == _Block.ASKED:
                left = [other for other in self._asked_of(block) if other != source]
                if left:
                    self._twice -= self._layout.size(block)
                    self._holders[block], *self._helpers[block] = left
                    continue
                del self._holders[block]
                self._miss_again(block)
        if not self._sources and self.phase is Phase.RECEIVING:
            self.phase = Phase.WAITING
        return True

    def _all_free(self) -> None:
        """Every source may have something else to do."""
        self._free.update(self._sources)

    def _ask(self, source: SourceId) -> list[Effect]:
        """Fill the source's window, or have it help when there is nothing else to do."""
        sender = self._sources.get(source)
        if sender is None or sender.leaves or self.phase is not Phase.RECEIVING:
            return []
        # One block always goes: a window smaller than a block would stop everything.
        window = self._window(sender)
        if sender.used and window - sender.used < sender.run:
            return []
        effects: list[Effect] = []
        while len(sender.blocks) < sender.most and (block := self._next(source)) is not None:
            size = self._layout.size(block)
            if sender.used and sender.used + size > window:
                break
            self._states[block] = _Block.ASKED
            self._holders[block] = source
            effects.append(self._request(source, block))
        return effects if sender.used else self._take_over(source) or self._help(source)

    def _window(self, sender: _Source) -> int:
        """Bytes that may be under way from a source: less if its peer has more connections."""
        if not sender.peer:
            return sender.window
        connections = sum(other.peer == sender.peer for other in self._sources.values())
        return sender.window // min(connections, MOST_PARTS)

    def _request(self, source: SourceId, block: int) -> Request:
        sender = self._sources[source]
        sender.blocks.add(block)
        sender.used += self._layout.size(block)
        return Request(source, block)

    def _take_over(self, source: SourceId) -> list[Effect]:
        """Have an idle connection asked for what another one of its peer hasn't begun to send."""
        idle = self._sources[source]
        others = [
            key
            for key, other in self._sources.items()
            if other is not idle and idle.peer and other.peer == idle.peer
        ]
        slowest = max(others, key=lambda key: self._sources[key].used, default=None)
        if slowest is None:
            return []
        rest = self._not_begun(self._owed(slowest, source, of=1))
        effects: list[Effect] = []
        window = self._window(idle)
        for block in rest[len(rest) // 2 :]:
            if idle.used and idle.used + self._layout.size(block) > window:
                break
            self._release(slowest, block)
            self._holders[block] = source
            effects += [Withdraw(slowest, block), self._request(source, block)]
        return effects

    def _not_begun(self, owed: Iterable[int]) -> list[int]:
        """Those that a connection hasn't begun to send: small ones come many in one answer."""
        rest = sorted(owed)
        size = 0
        for count, block in enumerate(rest):
            if count >= BEGUN and size >= BEGUN * BLOCK:
                return rest[count:]
            size += self._layout.size(block)
        return []

    def _help(self, source: SourceId) -> list[Effect]:
        """Ask an idle source for half of what another one owes, the last of it first."""
        helper = self._sources[source]
        others = [
            key
            for key, other in self._sources.items()
            if other is not helper and (not helper.peer or other.peer != helper.peer)
        ]
        owed = max((self._owed(other, source, of=1) for other in others), key=len, default=[])
        wanted = sorted(owed, reverse=True)[: -(-len(owed) // 2)]
        if not wanted:
            # All of it is asked of two, who may both be slow: one block of it, of this one, too.
            wanted = [b for other in others for b in self._owed(other, source, of=2)][:1]
        effects: list[Effect] = []
        window = self._window(helper)
        for block in wanted:
            size = self._layout.size(block)
            if self._twice + size > WINDOW or (helper.used and helper.used + size > window):
                break
            self._helpers.setdefault(block, []).append(source)
            self._twice += size
            effects.append(self._request(source, block))
        return effects

    def _owed(self, source: SourceId, helper: SourceId, *, of: int) -> list[int]:
        """Blocks that this source owes, among so many in all, and the helper may be asked for."""
        return [
            block
            for block in self._sources[source].blocks
            if self._states[block] == _Block.ASKED
            and len(asked := self._asked_of(block)) == of
            and helper not in asked
            and self._givers[helper] not in self._suspects.get(block, ())
        ]

    def _next(self, source: SourceId) -> int | None:
        """The block to ask this source for: a suspect one first, then the first that is missing."""
        for block, avoid in self._suspects.items():
            if self._states[block] == _Block.SUSPECT and (
                self._givers[source] not in avoid
                or all(self._givers[other] in avoid for other in self._sources)
            ):
                return block
        found = self._states.find(_Block.MISSING, self._cursor)
        self._cursor = found if found >= 0 else len(self._states)
        return None if found < 0 else found

    def _missing(self) -> Iterable[int]:
        at = self._states.find(_Block.MISSING)
        while at >= 0:
            yield at
            at = self._states.find(_Block.MISSING, at + 1)

    def _completed(self) -> list[Effect]:
        self.phase = Phase.COMPLETE
        return [Complete()]

    def _failed(self, error: SleapRtcError) -> list[Effect]:
        self.phase = Phase.FAILED
        return [Fail(error)]
