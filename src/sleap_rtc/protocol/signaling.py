"""Signaling: what a device and the server say to each other over one WebSocket.

::

    device                                   server
      │ ◄───────────── challenge ─────────────  │   a nonce and the server's address
      │ ── sign_in (signature over both) ─────► │   with a set-up code the first time,
      │ ◄───────────── signed_in ─────────────  │   or with an invite's chain
      │                                         │
      │ ── create_room | join_room ───────────► │   each request has an id,
      │ ◄──────── done | refused ─────────────  │   each gets one answer
      │ ── enter_room (chain, name) ──────────► │
      │ ◄───────────── entered ───────────────  │   who else is online
      │ ◄──────── present | absent ───────────  │   from now on, as they come and go
      │                                         │
      │ ── relay (to, payload) ───────────────► │   offers, answers, candidates:
      │ ◄──────── relayed (from, payload) ────  │   passed on, never read
      │                                         │
      │ ── put_membership | get_membership ───► │   the owners' signed list
      │ ◄────────── membership_news ──────────  │   a newer one, to all who are in the room
      │ ── get_members | put_chain ───────────► │   an owner renews certificates,
      │ ── get_chain ─────────────────────────► │   a member fetches its own

Messages are JSON text frames of at most 64 KiB. The server is trusted to pass
messages on and to count uses of invites, not to say who anybody is: peers prove
that to each other (see ``docs/trust.md``).
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from sleap_rtc.domain.models import Line, Utc
from sleap_rtc.domain.places import DeviceKind, Name, Presence, WorkerInfo
from sleap_rtc.domain.values import Value
from sleap_rtc.errors import SleapRtcError, from_wire, to_wire
from sleap_rtc.protocol.codec import Codec, Message
from sleap_rtc.protocol.signed import KeyId as Device
from sleap_rtc.protocol.signed import RoomName as Room

SIGNALING_VERSION: Final = 1
SIGN_IN_CONTEXT: Final = "sign-in"
"""Signature context of a sign-in; see :func:`sign_in_payload`."""
PATH: Final = "/api/v1/signaling"
"""Where the server speaks signaling."""

RequestId = Annotated[int, Meta(ge=0, le=2**53)]
ConnectionId = Annotated[str, Meta(min_length=1, max_length=64)]
Blob = Annotated[str, Meta(max_length=48 * 1024)]
"""JSON text of a signed document; the server keeps and passes it on as it is."""
Chain = Annotated[tuple[Blob, ...], Meta(max_length=8)]


def sign_in_payload(*, nonce: str, server: str, device: str) -> bytes:
    """What a device signs to sign in.

    Args:
        nonce: The challenge, as received.
        server: The address that the *device* dialled, ``host:port``: a server in the middle that
            passes on another server's challenge gets a signature that is good for nothing.
        device: The device's own id.
    """
    return f"{nonce}\n{server}\n{device}".encode()


class IceServer(Value, frozen=True):
    """A STUN or TURN server, as WebRTC wants it."""

    urls: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=8)]
    username: Annotated[str, Meta(max_length=512)] = ""
    credential: Annotated[str, Meta(max_length=512)] = ""

    def __repr__(self) -> str:
        return f"IceServer(urls={self.urls!r})"


# ── server to device ─────────────────────────────────────────────────────────


class Challenge(Message, frozen=True, tag="challenge"):
    """The first message. ``versions`` are the signaling versions that the server speaks."""

    nonce: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    versions: Annotated[tuple[int, ...], Meta(min_length=1, max_length=16)]


class SignedIn(Message, frozen=True, tag="signed_in"):
    """The device is signed in; it is ``connection`` from now on."""

    version: int
    connection: ConnectionId
    ice_servers: Annotated[tuple[IceServer, ...], Meta(max_length=16)] = ()
    may_create_rooms: bool = False


class Done(Message, frozen=True, tag="done"):
    """Request ``id`` succeeded."""

    id: RequestId


class Joined(Message, frozen=True, tag="joined"):
    """Request ``id`` succeeded: the invite was used. ``name`` is what the room is called."""

    id: RequestId
    name: Name


class Entered(Message, frozen=True, tag="entered"):
    """Request ``id`` succeeded; these devices are online in the room, this one not included.

    What doesn't fit this message, by number or by size, follows as ``present`` messages.
    """

    id: RequestId
    present: Annotated[tuple[Presence, ...], Meta(max_length=100)] = ()


class MembershipTold(Message, frozen=True, tag="membership"):
    """The newest list that the server has for the room, None when there is none."""

    id: RequestId
    signed: Blob | None = None


class KeptMember(Value, frozen=True):
    """The newest certificates that the server has of a member, and when it was there last."""

    device: Device
    chain: Chain
    seen: Utc


class MembersTold(Message, frozen=True, tag="members"):
    """Members of the room, by device; ``more`` when others come behind them."""

    id: RequestId
    members: Annotated[tuple[KeptMember, ...], Meta(max_length=32)] = ()
    more: bool = False


class ChainTold(Message, frozen=True, tag="chain"):
    """The newest certificates that the server has of the asking device, None without any."""

    id: RequestId
    chain: Chain | None = None


class MembershipNews(Message, frozen=True, tag="membership_news"):
    """The room has a newer list, as its owner signed it: to be checked like any other."""

    room: Room
    signed: Blob


class Refused(Message, frozen=True, tag="refused"):
    """Request ``id`` failed; without ``id`` it is the connection that failed, and it is closed."""

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=4_000)]
    hint: Line = ""
    details: Annotated[dict[str, str], Meta(max_length=16)] = {}
    id: RequestId | None = None

    @classmethod
    def because(cls, error: SleapRtcError, request: int | None = None) -> Refused:
        """The message that carries an error, cut to what a message may hold."""
        return cls(**to_wire(error), id=request)

    @property
    def error(self) -> SleapRtcError:
        """The error, to be raised again."""
        return from_wire(self.code, self.details, message=self.message, hint=self.hint)


class Present(Message, frozen=True, tag="present"):
    """A device came online in a room, or said something new of itself."""

    presence: Presence


class Absent(Message, frozen=True, tag="absent"):
    """A device went offline in a room."""

    room: Room
    connection: ConnectionId


class Relayed(Message, frozen=True, tag="relayed"):
    """Another device's words, passed on."""

    room: Room
    sender: ConnectionId
    device: Device
    payload: Blob


# ── device to server ─────────────────────────────────────────────────────────


class SignIn(Message, frozen=True, tag="sign_in"):
    """Proves the device key.

    Attributes:
        version: The signaling version to speak, one of the server's.
        device: The device's id.
        signature: 128 hex digits over :func:`sign_in_payload`.
        name: What the device calls itself.
        program: Name and version of the program.
        instance: Made once by each process. A connection takes the place of an earlier one of the
            same device and instance, which the server may not have noticed to be dead.
        setup_code: Registers the device, the first time.
        invite: A join chain, which registers the device for that room alone.
    """

    version: int
    device: Device
    signature: Annotated[str, Meta(pattern=r"\A[0-9a-f]{128}\Z")]
    name: Name
    program: Annotated[str, Meta(max_length=100)] = ""
    instance: Annotated[str, Meta(max_length=64)] = ""
    setup_code: Annotated[str, Meta(max_length=64)] | None = None
    invite: Chain | None = None

    def __repr__(self) -> str:
        return f"SignIn(device={self.device!r}, name={self.name!r})"


class CreateRoom(Message, frozen=True, tag="create_room"):
    """Make a room known. ``chain`` proves that the room's key named this device its owner."""

    id: RequestId
    room: Room
    name: Name
    chain: Chain


class JoinRoom(Message, frozen=True, tag="join_room"):
    """Use an invite: the server checks the chain and counts the use. Twice is once."""

    id: RequestId
    room: Room
    chain: Chain


class EnterRoom(Message, frozen=True, tag="enter_room"):
    """Be online in a room. A worker's name is unique among the living workers of the room."""

    id: RequestId
    room: Room
    chain: Chain
    name: Name
    kind: DeviceKind
    worker: WorkerInfo | None = None


class LeaveRoom(Message, frozen=True, tag="leave_room"):
    """Be no longer online in a room."""

    id: RequestId
    room: Room


class UpdateWorker(Message, frozen=True, tag="update_worker"):
    """Say anew what this worker has."""

    id: RequestId
    room: Room
    worker: WorkerInfo


class Relay(Message, frozen=True, tag="relay"):
    """Pass ``payload`` on to a connection in the same room."""

    id: RequestId
    room: Room
    to: ConnectionId
    payload: Blob


class PutMembership(Message, frozen=True, tag="put_membership"):
    """Keep this signed list; a lower number than the one kept is refused."""

    id: RequestId
    room: Room
    signed: Blob


class GetMembership(Message, frozen=True, tag="get_membership"):
    """Ask for the newest list."""

    id: RequestId
    room: Room


class GetMembers(Message, frozen=True, tag="get_members"):
    """Ask for the members of a room that one owns, those behind ``after`` by device.

    With ``due`` only those who want to be renewed: their certificates end soon, or have ended not
    long ago, and they were there not long ago.
    """

    id: RequestId
    room: Room
    after: Device | None = None
    due: bool = False


class PutChain(Message, frozen=True, tag="put_chain"):
    """Keep a member's renewed certificates, for the member to fetch. Who brings them is all one."""

    id: RequestId
    room: Room
    chain: Chain


class GetChain(Message, frozen=True, tag="get_chain"):
    """Ask for this device's own renewed certificates, also when the old ones have ended."""

    id: RequestId
    room: Room


FromServer = (
    Challenge
    | SignedIn
    | Done
    | Joined
    | Entered
    | MembershipTold
    | MembershipNews
    | MembersTold
    | ChainTold
    | Refused
    | Present
    | Absent
    | Relayed
)
Request = (
    CreateRoom
    | JoinRoom
    | EnterRoom
    | LeaveRoom
    | UpdateWorker
    | Relay
    | PutMembership
    | GetMembership
    | GetMembers
    | PutChain
    | GetChain
)
FromDevice = SignIn | Request

from_server: Final = Codec[FromServer](FromServer)
from_device: Final = Codec[FromDevice](FromDevice)
