"""The handshake of one connection: its rules, without the connection.

::

    state         on             then                                      next
    ------------  -------------  ----------------------------------------  ------------
    idle          start          own standing checked, hello sent          hello
    hello         hello          checked; sends the newer list, if any;    proof
                                 sends the proof
    hello         hello, with a  waits for the list                        membership
                  newer list
    membership    membership     adopted and saved; sends the proof        proof
    proof         proof          verified: the connection is proven        done
    any           anything else  refused, and the other side told why      refused

Messages go in, effects come out, in the order in which the shell must carry
them out: what is to be saved is saved before what follows is sent. The shell
feeds every frame of the connection to :meth:`Handshake.receive` until it gets
:class:`Done`; after :class:`Refuse` it closes the connection. A deadline
(``HANDSHAKE_SECONDS``) is the shell's too.

A machine is for one connection. One that is rebuilt gets a new machine, with a
new nonce.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from sleap_rtc.auth.certificates import Member, verify_chain
from sleap_rtc.auth.keys import SigningKey, verify
from sleap_rtc.auth.membership import Membership, adopt, check_member, compare
from sleap_rtc.auth.transcript import CONTEXTS, Party, Transcript
from sleap_rtc.domain.ids import DeviceId, RoomId, fingerprint
from sleap_rtc.errors import (
    NotPermitted,
    NotTrusted,
    ProtocolError,
    SleapRtcError,
    VersionMismatch,
    WorkerChanged,
)
from sleap_rtc.protocol.handshake import (
    HANDSHAKE_VERSION,
    MAX_REFUSAL,
    HandshakeMessage,
    Hello,
    MembershipOffer,
    Proof,
    Purpose,
    Refusal,
    Side,
)
from sleap_rtc.protocol.signed import Chain

NONCE: Final = 32
FINGERPRINT: Final = 32

State = Literal["idle", "hello", "membership", "proof", "done", "refused"]


class Setup(msgspec.Struct, frozen=True):
    """Everything that a device brings to a handshake.

    Attributes:
        key: Its own key.
        chain: Its own chain.
        side: Its part in making this connection.
        room: The room.
        membership: The newest list that it holds; number 0 without one.
        session: The link's id.
        purpose: What the connection is for.
        versions: Link versions that it speaks.
        features: Optional abilities that it has.
        nonce: 32 random bytes, made for this connection alone.
        own_fingerprint: SHA-256 from the local description that is in use, 32 bytes.
        peer_fingerprint: SHA-256 from the remote description that is in use, 32 bytes.
        now: UTC.
        seen_invites: Single-use invites that were seen before, with the device that joined.
        expected: The device that must be at the other end; None accepts any member.
        name: What this device is called in the room now; empty without a name there.
        expected_worker: The worker's name that the other end must have; None accepts any.
        known_worker: The device that had this name when it was met before.
    """

    key: SigningKey
    chain: Chain
    side: Side
    room: RoomId
    membership: Membership
    session: str
    purpose: Purpose
    versions: tuple[int, ...]
    features: tuple[str, ...]
    nonce: bytes
    own_fingerprint: bytes
    peer_fingerprint: bytes
    now: datetime
    seen_invites: Mapping[DeviceId, DeviceId] = {}
    expected: DeviceId | None = None
    name: str = ""
    expected_worker: str | None = None
    known_worker: DeviceId | None = None

    def __post_init__(self) -> None:
        """Catch a shell's mistakes: these never come from a peer."""
        if len(self.nonce) != NONCE:
            raise ValueError(f"a nonce has {NONCE} bytes")
        if len(self.own_fingerprint) != FINGERPRINT or len(self.peer_fingerprint) != FINGERPRINT:
            raise ValueError(f"a SHA-256 fingerprint has {FINGERPRINT} bytes")
        if self.membership.room != self.room:
            raise ValueError("the membership list belongs to another room")


class Authenticated(msgspec.Struct, frozen=True):
    """A proven connection.

    Attributes:
        peer: Who is at the other end, with the role that holds now.
        session: The link's id.
        purpose: What the connection is for.
        version: The link version to speak.
        features: Abilities that both have.
        membership: The list that both hold.
        own: The key by which this side has proven itself.
    """

    peer: Member
    own: DeviceId
    session: str
    purpose: Purpose
    version: int
    features: frozenset[str]
    membership: Membership


class Send(msgspec.Struct, frozen=True):
    """Send this message."""

    message: HandshakeMessage


class SaveMembership(msgspec.Struct, frozen=True):
    """Keep this list: it is newer than the one that was held."""

    membership: Membership


class SaveInvite(msgspec.Struct, frozen=True):
    """Remember which device joined by this single-use invite; refuse if it was another."""

    invite: DeviceId
    device: DeviceId


class SaveWorker(msgspec.Struct, frozen=True):
    """Remember that this device is the worker of this name; refuse if it was another.

    ``instead_of`` had the name, and was removed from the room since.
    """

    name: str
    device: DeviceId
    instead_of: DeviceId | None = None


class Done(msgspec.Struct, frozen=True):
    """The connection is proven; what follows is the link's own protocol."""

    result: Authenticated


class Refuse(msgspec.Struct, frozen=True):
    """Close the connection; this is why."""

    error: SleapRtcError


Effect = Send | SaveMembership | SaveInvite | SaveWorker | Done | Refuse


def choose(ours: tuple[int, ...], theirs: tuple[int, ...], *, peer: str) -> int:
    """The highest version that both speak.

    Raises:
        VersionMismatch: There is none.
    """
    common = set(ours) & set(theirs)
    if not common:
        raise VersionMismatch(peer=peer, theirs=_numbers(theirs), ours=_numbers(ours))
    return max(common)


def _numbers(versions: tuple[int, ...]) -> str:
    return ", ".join(str(version) for version in sorted(set(versions)))


class Handshake:
    """One side of one connection's handshake.

    Args:
        setup: What this device brings.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._state: State = "idle"
        self._membership = setup.membership
        self._hello: Hello | None = None
        self._transcript: Transcript | None = None
        self._peer: Member | None = None

    @property
    def state(self) -> State:
        """Where the handshake stands."""
        return self._state

    def start(self) -> tuple[Effect, ...]:
        """Check this device's own standing and say hello; the first call, once."""
        if self._state != "idle":
            raise RuntimeError("a handshake starts once")
        return self._run(self._start)

    def receive(self, message: HandshakeMessage) -> tuple[Effect, ...]:
        """Take one message from the other side."""
        if isinstance(message, Refusal):
            self._state = "refused"
            return (Refuse(_refused_by_peer(message)),)
        step = _TRANSITIONS.get((self._state, type(message)))
        if step is None:
            return self._refuse(
                ProtocolError(peer="the other side", why=_misplaced(self._state, message))
            )
        return self._run(lambda effects: step(self, message, effects))

    def refuse(self, error: SleapRtcError) -> tuple[Effect, ...]:
        """End it from outside: the deadline, or a frame that is no handshake message."""
        return self._refuse(error)

    # ── steps ────────────────────────────────────────────────────────────────

    def _run(self, step: Callable[[list[Effect]], State]) -> tuple[Effect, ...]:
        """Carry out one step. What it had to save before it failed is saved all the same."""
        effects: list[Effect] = []
        try:
            self._state = step(effects)
        except SleapRtcError as error:
            kept = [effect for effect in effects if not isinstance(effect, Send)]
            return (*kept, *self._refuse(error))
        return tuple(effects)

    def _refuse(self, error: SleapRtcError) -> tuple[Effect, ...]:
        told = self._state not in ("refused", "idle")
        self._state = "refused"
        refusal = Refusal(code=error.code, why=error.message[:MAX_REFUSAL])
        return (Send(refusal), Refuse(error)) if told else (Refuse(error),)

    def _start(self, effects: list[Effect]) -> State:
        setup = self._setup
        self._check_self()
        if setup.own_fingerprint == setup.peer_fingerprint:
            raise NotTrusted(who="The other side", why="it shows this device's own certificate")
        effects.append(
            Send(
                Hello(
                    device=setup.key.device,
                    chain=setup.chain,
                    side=setup.side,
                    room=setup.room,
                    session=setup.session,
                    purpose=setup.purpose,
                    nonce=setup.nonce,
                    versions=setup.versions,
                    features=setup.features,
                    membership=setup.membership.number,
                    membership_digest=setup.membership.digest,
                    name=setup.name,
                )
            )
        )
        return "hello"

    def _on_hello(self, hello: Hello, effects: list[Effect]) -> State:
        setup, held = self._setup, self._membership
        self._check_connection(hello)
        version = choose(setup.versions, hello.versions, peer="the other side")
        self._hello = hello
        self._peer = self._check_chain(hello)
        compare(held, hello.membership, hello.membership_digest)
        self._transcript = self._make_transcript(hello, version)
        if hello.membership > held.number:
            return "membership"  # what the newer list says of the other side counts, not this one
        self._peer = check_member(self._peer, held)
        if hello.membership < held.number and held.signed is not None:
            effects.append(Send(MembershipOffer(membership=held.signed)))
        return self._prove(effects)

    def _on_membership(self, offer: MembershipOffer, effects: list[Effect]) -> State:
        setup, hello, peer = self._setup, self._hello, self._peer
        assert hello is not None and peer is not None  # noqa: S101, PT018 - the state says so
        adopted = adopt(self._membership, offer.membership, room=setup.room, now=setup.now)
        if (adopted.number, adopted.digest) != (hello.membership, hello.membership_digest):
            raise NotTrusted(
                who="The other side", why="it sent another membership list than it claimed to have"
            )
        self._membership = adopted
        effects.append(SaveMembership(adopted))
        self._check_self()
        self._peer = check_member(peer, adopted)
        return self._prove(effects)

    def _on_proof(self, proof: Proof, effects: list[Effect]) -> State:
        setup, peer, transcript = self._setup, self._peer, self._transcript
        assert peer is not None and transcript is not None  # noqa: S101, PT018 - the state says so
        side = _other(setup.side)
        verify(
            peer.device,
            CONTEXTS[side],
            transcript.signed_by(side),
            proof.signature,
            who=f"{peer.name} ({peer.device[:12]})",
            why="its signature doesn't fit this connection, so the server, or something between "
            "the two, may have changed what passed through it",
        )
        effects += [SaveInvite(invite, device) for invite, device in peer.single_uses]
        if setup.expected_worker is not None:
            effects.append(self._name_known(setup.expected_worker, peer.device))
        effects.append(
            Done(
                Authenticated(
                    peer=peer,
                    own=setup.key.device,
                    session=setup.session,
                    purpose=setup.purpose,
                    version=transcript.version,
                    features=frozenset(transcript.features),
                    membership=self._membership,
                )
            )
        )
        return "done"

    # ── checks ───────────────────────────────────────────────────────────────

    def _check_self(self) -> None:
        setup = self._setup
        own = verify_chain(setup.chain, room=setup.room, now=setup.now, who="This device")
        if own.device != setup.key.device:
            raise NotTrusted(who="This device", why="its chain is for another key")
        check_member(own, self._membership)

    def _check_connection(self, hello: Hello) -> None:
        setup = self._setup
        if hello.handshake != HANDSHAKE_VERSION:
            raise VersionMismatch(
                peer="the other side",
                theirs=f"{hello.handshake} of the handshake",
                ours=str(HANDSHAKE_VERSION),
            )
        if hello.device == setup.key.device or hello.nonce == setup.nonce:
            raise NotTrusted(who="The other side", why="it answers with this device's own words")
        for what, theirs, ours in (
            ("side of the connection", hello.side, _other(setup.side)),
            ("room", hello.room, setup.room),
            ("session", hello.session, setup.session),
            ("purpose", hello.purpose, setup.purpose),
        ):
            if theirs != ours:
                raise NotTrusted(
                    who="The other side", why=f"it names the {what} {theirs}, not {ours}"
                )
        if setup.expected is not None and hello.device != setup.expected:
            raise NotTrusted(
                who=f"Device {hello.device[:12]}",
                why=f"the connection was meant for device {setup.expected[:12]}",
            )

    def _check_chain(self, hello: Hello) -> Member:
        """Whom the other side's chain proves, before any list is asked."""
        setup = self._setup
        who = f"Device {hello.device[:12]}"
        member = verify_chain(hello.chain, room=setup.room, now=setup.now, who=who)
        if member.device != hello.device:
            raise NotTrusted(who=who, why="its chain is for another key")
        for invite, device in member.single_uses:
            if setup.seen_invites.get(invite, device) != device:
                raise NotTrusted(
                    who=who,
                    why="the invite it came by is for one device, and another one has used it",
                    hint="Ask an owner of the room for a new invite.",
                )
        return member

    def _check_name(self) -> None:
        """Whether the other side is the worker that was meant, and the one that was met before.

        The server says which device a worker is. The worker says so too, and signs it; and a name
        keeps its device, so that no other member takes the place of one that is known.
        """
        setup, hello = self._setup, self._hello
        assert hello is not None  # noqa: S101 - the state says so
        meant = setup.expected_worker
        if meant is None:
            return
        if hello.name.casefold() != meant.casefold():
            raise NotTrusted(
                who=f"Device {fingerprint(hello.device)}",
                why=f"the server gives it as the worker {meant}, and it calls itself "
                f"{hello.name or 'nothing'}",
            )
        known = setup.known_worker
        if known is None or known == hello.device or known in self._membership.revoked:
            return
        raise WorkerChanged(name=meant, before=fingerprint(known), now=fingerprint(hello.device))

    def _name_known(self, name: str, device: DeviceId) -> SaveWorker:
        known = self._setup.known_worker
        return SaveWorker(name, device, instead_of=None if known == device else known)

    def _make_transcript(self, hello: Hello, version: int) -> Transcript:
        setup = self._setup
        own = Party(
            device=setup.key.device,
            nonce=setup.nonce,
            fingerprint=setup.own_fingerprint,
            versions=setup.versions,
            features=setup.features,
            name=setup.name,
        )
        peer = Party(
            device=hello.device,
            nonce=hello.nonce,
            fingerprint=setup.peer_fingerprint,
            versions=hello.versions,
            features=hello.features,
            name=hello.name,
        )
        offering = setup.side == "offerer"
        newer = hello.membership > setup.membership.number
        return Transcript(
            room=setup.room,
            offerer=own if offering else peer,
            answerer=peer if offering else own,
            version=version,
            features=tuple(sorted(set(setup.features) & set(hello.features))),
            membership=hello.membership if newer else setup.membership.number,
            membership_digest=hello.membership_digest if newer else setup.membership.digest,
            session=setup.session,
            purpose=setup.purpose,
        )

    def _prove(self, effects: list[Effect]) -> State:
        setup, transcript = self._setup, self._transcript
        assert transcript is not None  # noqa: S101 - the state says so
        self._check_name()
        signature = setup.key.sign(CONTEXTS[setup.side], transcript.signed_by(setup.side))
        effects.append(Send(Proof(signature=signature)))
        return "proof"


_TRANSITIONS: Final[dict[tuple[State, type], Callable[..., State]]] = {
    ("hello", Hello): Handshake._on_hello,
    ("membership", MembershipOffer): Handshake._on_membership,
    ("proof", Proof): Handshake._on_proof,
}
"""The one table: whatever isn't in it is refused."""


def _other(side: Side) -> Side:
    return "answerer" if side == "offerer" else "offerer"


def _misplaced(state: State, message: HandshakeMessage) -> str:
    kind = str(type(message).__struct_config__.tag)
    if state in ("done", "refused"):
        return f"a {kind} after the handshake is over"
    return f"a {kind} where the handshake expects a {state}"


def _refused_by_peer(refusal: Refusal) -> SleapRtcError:
    shown = "".join(c if c.isprintable() else " " for c in refusal.why).rstrip(". ")
    return NotPermitted(message=f"The other side refused this connection: {shown}.")
