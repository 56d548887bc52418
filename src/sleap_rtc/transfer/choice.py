"""Which ways content takes, in which order, and why: a pure function of what is known.

The ways, as ``--transport`` names them:

==========  ====================================================================
``local``   a Unix socket: both sides are on one machine
``direct``  TLS over TCP: the peers can reach each other
``s3``      object storage, which both reach
``webrtc``  the peers' link, through whatever is between them
==========  ====================================================================

A plan puts each of them on one of two lists, with its reason: those that are
used, the first of them before all others, and those that are not. A way that
fails is replaced by the next one. While a direct way is being made content
already goes over the link: a plan never means waiting, unless the user asked
for just that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

Kind = Literal["local", "direct", "s3", "webrtc"]
Wish = Literal["auto", "webrtc", "s3", "direct", "local"]
Reach = Literal["open", "untried", "failed", "refused", "old"]

KINDS: Final[tuple[Kind, ...]] = ("local", "direct", "s3", "webrtc")
"""The order without any other reason: the quicker one first."""

SMALL: Final = 4 * 1024 * 1024
"""Bytes that are over the link before a direct connection would be made."""
LARGE: Final = 256 * 1024 * 1024
"""Bytes from which storage is asked before the link, which is slower and another's upload."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when content is to be moved.

    Attributes:
        size: Bytes to move.
        what: What they are, as it is told to people.
        wish: What the user asked for.
        online: Whether the peer can be linked to.
        reach: How it stands with direct connections to it: one is ``open``, none was tried yet,
            none came about, the peer or the user wants none, or the peer is too old for them.
        same_machine: Whether both sides are on one machine; None while that isn't known.
        stored: Bytes of it that object storage has; None where there is no storage.
        sends: Whether this side has the content and the other wants it.
    """

    size: int
    what: str = "the files"
    wish: Wish = "auto"
    online: bool = True
    reach: Reach = "untried"
    same_machine: bool | None = None
    stored: int | None = None
    sends: bool = False


class Way(msgspec.Struct, frozen=True):
    """One way, and why it is on its list."""

    kind: Kind
    why: str


class Plan(msgspec.Struct, frozen=True):
    """What is used, in this order, and what isn't."""

    ways: tuple[Way, ...]
    without: tuple[Way, ...]

    def uses(self, kind: Kind) -> bool:
        """Whether a way is used."""
        return any(way.kind == kind for way in self.ways)

    def explain(self) -> str:
        """The plan for people, a line for each way."""
        lines = [f"{n}. {way.kind}: {way.why}" for n, way in enumerate(self.ways, 1)]
        lines += [f"-  {way.kind}: not used, {way.why}" for way in self.without]
        return "\n".join(lines if self.ways else ["No way leads there.", *lines])


def plan(given: Situation) -> Plan:
    """The ways to use, best first, and the others, each with its reason."""
    ways, without = [], []
    for kind in KINDS:
        against = next(_against(kind, given), None)
        if against is None:
            ways.append(Way(kind, _for(kind, given)))
        else:
            without.append(Way(kind, against))
    ways.sort(key=lambda way: _rank(way.kind, given))
    return Plan(ways=tuple(ways), without=tuple(without))


def _rank(kind: Kind, given: Situation) -> tuple[bool, bool, int]:
    """The smaller, the better: the user's wish, then what has the content, then the quicker one."""
    late = kind == "s3" and given.online and (given.size < LARGE or given.stored != given.size)
    return kind != given.wish, late, KINDS.index(kind)


def _against(kind: Kind, given: Situation) -> Iterator[str]:
    """Reasons not to use a way, the plainest first."""
    match kind:
        case "webrtc":
            if not given.online:
                yield "the other side is not online"
        case "s3":
            if given.stored is None:
                yield "there is no object storage"
            elif not given.sends and given.stored < given.size:
                yield "storage doesn't have all of it"
            elif given.wish in ("webrtc", "direct", "local") and given.online:
                yield f"{given.wish} was asked for"
        case _:
            yield from _against_direct(kind, given)


def _against_direct(kind: Kind, given: Situation) -> Iterator[str]:
    if not given.online:
        yield "the other side is not online"
    if given.wish not in ("auto", kind):
        yield f"{given.wish} was asked for"
    if given.reach == "old":
        yield "the other side is too old for it"
    if given.reach == "refused":
        yield "the other side wants no direct connections"
    if given.reach == "failed":
        yield "neither side reached the other"
    if kind == "local" and given.same_machine is False:
        yield "the other side is on another machine"
    if kind == "direct" and given.same_machine and given.wish != "direct":
        yield "both sides are on one machine"
    if given.wish == "auto" and given.reach != "open" and given.size < SMALL:
        yield f"{given.what} are over the link sooner than it is made"


def _for(kind: Kind, given: Situation) -> str:
    asked = "it was asked for" if kind == given.wish else ""
    match kind:
        case "local":
            known = given.same_machine is True
            why = "both sides are on one machine" if known else "tried: both may be on one machine"
        case "direct":
            known = given.reach == "open"
            why = "the peers reach each other" if known else "tried: the peers may reach each other"
        case "s3" if given.sends and not given.online:
            why = "it is kept there until the other side is online"
        case "s3" if given.sends:
            why = "it can be kept there for others"
        case "s3":
            why = "storage has all of it"
        case _:
            why = "the link is there, whatever is between the peers"
    return f"{asked}; {why}" if asked else why
