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
fails is replaced by the next one; storage that was asked for, too, by the
quickest one that there is. While a direct way is being made content
already goes over the link: a plan never means waiting, unless the user asked
for just that way.

A job's data is another matter (:func:`plan_data`): the worker fetches it, perhaps
when whoever submitted the job is away. There ``local`` is a path on a disk that
both see, and storage is written to before anybody reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from sleap_rtc.domain.units import format_bytes

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
        stored: Bytes of it that object storage has; None where it can't be used.
        no_storage: Why not, as it follows "not used".
        large: Bytes from which storage is asked beside the link.
        sends: Whether this side has the content and the other wants it.
    """

    size: int
    what: str = "the files"
    wish: Wish = "auto"
    online: bool = True
    reach: Reach = "untried"
    same_machine: bool | None = None
    stored: int | None = None
    no_storage: str = "there is no object storage"
    large: int = LARGE
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


def leaves_open(wish: Wish, kind: Kind) -> bool:
    """Whether what a user asked for leaves a way between the peers open.

    Who names one of these wants no other one of them. Who names storage says nothing about them:
    they are for what it can't do.
    """
    return wish in ("auto", "s3", kind)


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
    late = (
        kind == "s3" and given.online and (given.size < given.large or given.stored != given.size)
    )
    return kind != given.wish, late, KINDS.index(kind)


def _against(kind: Kind, given: Situation) -> Iterator[str]:
    """Reasons not to use a way, the plainest first."""
    match kind:
        case "webrtc":
            if not given.online:
                yield "the other side is not online"
        case "s3":
            if given.stored is None:
                yield given.no_storage
            elif not given.sends and given.stored < given.size:
                yield "storage doesn't have all of it"
            elif given.wish in ("webrtc", "direct", "local") and given.online:
                yield f"{given.wish} was asked for"
        case "local" | "direct":
            yield from _against_direct(kind, given)


def _against_direct(kind: Literal["local", "direct"], given: Situation) -> Iterator[str]:
    if not given.online:
        yield "the other side is not online"
    if not leaves_open(given.wish, kind):
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
    # Who is sent files looks whether it can read them where they are, however few they are.
    there = kind == "local" and (given.same_machine or given.sends)
    if given.wish != kind and given.reach != "open" and given.size < SMALL and not there:
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


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when a job's data is to get to a worker that is online.

    Attributes:
        size: Bytes of all its files.
        what: What they are, as it is told to people.
        wish: What the user asked for.
        threshold: Bytes from which storage is taken rather than the link.
        stored: Bytes that storage has; None where it can't be used.
        no_storage: Why not, as it follows "not used".
        here: Bytes that the worker has; None where it wasn't asked.
        seen: Bytes that the worker sees where they are; None where it wasn't asked.
        leaves: Whether this side lets go as soon as the job is submitted.
        reach: How it stands with direct connections, as in :class:`Situation`.
    """

    size: int
    what: str = "the files"
    wish: Wish = "auto"
    threshold: int = LARGE
    stored: int | None = None
    no_storage: str = "there is no object storage"
    here: int | None = None
    seen: int | None = None
    leaves: bool = False
    reach: Reach = "untried"

    @property
    def asks(self) -> bool:
        """Whether it matters what worker and storage have: else the link is quick enough."""
        if self.wish == "auto":
            return self.leaves or self.size >= self.threshold
        return self.wish in ("s3", "local")

    @property
    def rest(self) -> int:
        """Bytes that somebody has to bring."""
        seen = self.seen if self.seen is not None and self.wish in ("auto", "local") else 0
        return max(0, self.size - seen - (self.here or 0))


def plan_data(given: Data) -> Plan:
    """The ways that a job's data takes, best first, and the others, each with its reason.

    Files that the worker sees are read where they are, if that way is used; the others take the
    next way. Over the link they come in any case, if the others fail.
    """
    ways: list[Way] = []
    without: list[Way] = []
    link = plan(Situation(size=given.size, what=given.what, wish=given.wish, reach=given.reach))
    direct = next(way for way in (*link.ways, *link.without) if way.kind == "direct")
    for kind in KINDS:
        if kind == "direct":
            (ways if link.uses("direct") else without).append(direct)
            continue
        against = next(_against_data(kind, given), None)
        if against is None:
            ways.append(Way(kind, _for_data(kind, given)))
        else:
            without.append(Way(kind, against))
    ways.sort(key=lambda way: (way.kind != given.wish, _DATA_ORDER.index(way.kind)))
    return Plan(ways=tuple(ways), without=tuple(without))


_DATA_ORDER: Final[tuple[Kind, ...]] = ("local", "s3", "direct", "webrtc")


def _against_data(kind: Kind, given: Data) -> Iterator[str]:
    whole = given.here is not None and given.here >= given.size
    if kind == "webrtc":
        return
    if given.wish not in ("auto", kind):
        yield f"{given.wish} was asked for"
    if whole and given.wish == "auto":
        yield "the worker has all of it"
    if kind == "local":
        if given.seen is None:
            yield "the worker wasn't asked whether it sees them"
        elif not given.seen:
            yield f"the worker doesn't see {given.what} where they are"
    else:
        if given.stored is None:
            yield given.no_storage
        if given.wish == "auto" and not given.leaves and given.rest < given.threshold:
            yield f"it is for {format_bytes(given.threshold)} and more"


def _for_data(kind: Kind, given: Data) -> str:
    stored = given.stored or 0
    match kind:
        case "local":
            why = f"the worker reads {format_bytes(given.seen or 0)} of it where it is"
        case "s3" if stored >= given.size:
            why = "storage has all of it already"
        case "s3":
            kept = f", {format_bytes(stored)} of it is there already" if stored else ""
            why = f"the worker fetches it from there, also while this machine is away{kept}"
        case _ if given.here is not None and given.here >= given.size:
            why = "the worker has all of it: nothing is sent"
        case _:
            why = "the link is there, whatever is between the peers"
    return f"it was asked for; {why}" if kind == given.wish else why
