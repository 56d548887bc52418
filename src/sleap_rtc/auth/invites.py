"""Invite links and recovery codes: the secrets that people pass on.

An invite link::

    https://lab.example.org/join/<room id>#v1.<base64url of the body>
    └──────── server ─────┘                   never sent to the server

    body    = checksum (4 bytes) | zlib of msgpack [secret, certificates]
    secret  = 32 bytes, the secret half of the one-time key
    certificates = [[context, payload, signer, signature], …], ending in the invite

The checksum (SHA-256 over the room id and the rest) notices a link that was cut
or mistyped; what counts is the signatures in it. Links stay under 1,000
characters: a terminal may cut a pasted line at 1,024.

A recovery code is a room key's secret in groups that can be typed by hand::

    4F7K-9QZM-…-02HD        56 characters; the last ones are a checksum

in Crockford's base32: no I, L, O or U; those and lower case are understood.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from datetime import datetime, timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from sleap_rtc.auth.certificates import INVITE_LIFETIME, OpenInvite, verify_invite
from sleap_rtc.auth.issue import invite, join
from sleap_rtc.auth.keys import SEED, SigningKey
from sleap_rtc.domain.ids import DeviceId, RoomId, room_id
from sleap_rtc.domain.places import Role
from sleap_rtc.errors import DataError, InvalidCode, InvalidName, NotTrusted
from sleap_rtc.protocol.signed import MAX_CHAIN, Bytes32, Chain, Context, Signature, Signed

MAX_LINK: Final = 4_096
"""Characters of the longest link that is looked at."""

_PASTE: Final = "Copy the whole link again, from https:// to its last character."
_MAX_BODY: Final = 16 * 1024
"""Bytes that a body may unpack to."""
_CHECKSUM: Final = 4
_VERSION: Final = "v1"
_FRAGMENT: Final = re.compile(r"(v[0-9]{1,4})\.([A-Za-z0-9_-]*)")

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_STANDARD: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_CROCKFORD: Final = str.maketrans(_STANDARD, _CROCKFORD)
_FROM_CROCKFORD: Final = str.maketrans(_CROCKFORD, _STANDARD)
_MISREAD: Final = str.maketrans({"O": "0", "I": "1", "L": "1", "U": "V", "-": None, " ": None})
_CODE_LENGTH: Final = 56
_CODE_CHECKSUM: Final = 3
_GROUP: Final = 4


class Invite(msgspec.Struct, frozen=True):
    """What an invite link carries. Its ``repr`` doesn't show the secret.

    Attributes:
        server: The server's origin, ``https://host[:port]``.
        room: The room.
        chain: From the room's key to the invite.
        secret: The one-time key.
    """

    server: str
    room: RoomId
    chain: Chain
    secret: SigningKey

    def join(self, device: DeviceId, *, name: str, now: datetime) -> Chain:
        """The chain of a device that joins by this invite.

        Raises:
            NotTrusted: The invite has ended.
            InvalidName: The name isn't one.
        """
        return join(self.secret, self.chain, device=device, name=name, now=now)


class _Link(msgspec.Struct, frozen=True, array_like=True):
    context: Context
    payload: Annotated[bytes, Meta(max_length=4_096)]
    signer: Bytes32
    signature: Signature


class _Body(msgspec.Struct, frozen=True, array_like=True):
    secret: Bytes32
    chain: Annotated[tuple[_Link, ...], Meta(min_length=1, max_length=MAX_CHAIN)]


def create_invite(
    signer: SigningKey,
    chain: Chain,
    *,
    server: str,
    room: RoomId,
    role: Role,
    now: datetime,
    secret: SigningKey,
    uses: int = 1,
    lasts: timedelta = INVITE_LIFETIME,
) -> Invite:
    """Make an invite, as an owner.

    Args:
        signer: The owner's device, or the room's key.
        chain: The signer's own; empty for the room's key.
        server: The server's origin.
        room: The room.
        role: What a device that joins may do; ``owner`` only if the room's key signs.
        now: UTC.
        secret: A new one-time key.
        uses: How many devices may join by it, 1 to 1,000.
        lasts: How long it can be used, at most 30 days.

    Raises:
        InvalidCode: The server isn't an http or https origin.
        NotTrusted: The signer may not make this invite.
        ValueError: ``uses`` or ``lasts`` is out of range.
    """
    made = invite(
        signer,
        chain,
        room=room,
        invite_key=secret.device,
        role=role,
        now=now,
        uses=uses,
        lasts=lasts,
    )
    return Invite(server=_origin(server), room=room, chain=made, secret=secret)


def encode_link(made: Invite) -> str:
    """The link of an invite. Whoever has it can join: it is a secret until it has ended."""
    body = msgspec.msgpack.encode(
        _Body(
            secret=made.secret.seed,
            chain=tuple(
                _Link(
                    context=link.context,
                    payload=link.payload,
                    signer=bytes.fromhex(link.signer),
                    signature=link.signature,
                )
                for link in made.chain
            ),
        )
    )
    packed = zlib.compress(body, 9)
    text = base64.urlsafe_b64encode(_checksum(made.room, packed) + packed).decode("ascii")
    return f"{made.server}/join/{made.room}#{_VERSION}.{text.rstrip('=')}"


def parse_link(text: str, *, now: datetime) -> tuple[Invite, OpenInvite]:
    """Read an invite link.

    Args:
        text: As pasted; white space around it, and in it from a wrapped line, is taken out.
        now: UTC.

    Returns:
        The invite, and what it lets a device do.

    Raises:
        InvalidCode: Cut short, mistyped, of another version, ended, or no invite at all.
    """
    if len(text) > MAX_LINK:
        raise _unusable(f"it has {len(text)} characters, far more than a link has")
    address, mark, fragment = "".join(text.split()).partition("#")
    server, room = _address(address)
    if not mark or not fragment:
        raise _unusable("the part after # is missing", hint=_PASTE)
    found = _FRAGMENT.fullmatch(fragment)
    if found is None:
        raise _unusable("the part after # is not an invite", hint=_PASTE)
    version, data = found.groups()
    if version != _VERSION:
        raise _unusable(
            f"it is of version {version}, and this sleap-rtc reads {_VERSION}",
            hint="Update sleap-rtc on this machine, or on the one that made the link.",
        )
    secret, chain = _unpack(room, data)
    try:
        open_invite = verify_invite(chain, room=room, now=now, who="It")
    except (NotTrusted, DataError) as error:
        why = error.details.get("why", error.message)
        raise _unusable(why, hint=error.hint_text) from None
    if open_invite.invite != secret.device:
        raise _unusable("its secret belongs to another invite")
    return Invite(server=server, room=room, chain=chain, secret=secret), open_invite


def _unusable(why: str, *, hint: str = "") -> InvalidCode:
    return InvalidCode(kind="The invite link", why=why, hint=hint)


def _address(address: str) -> tuple[str, RoomId]:
    server, slash, room = address.rpartition("/join/")
    if not slash:
        raise _unusable("it has no /join/ in it", hint=_PASTE)
    try:
        return _origin(server), room_id(room)
    except InvalidName:
        raise _unusable("what follows /join/ is not a room id", hint=_PASTE) from None


def _origin(server: str) -> str:
    """The origin in its one spelling: scheme and host in lower case, no path, no default port."""
    try:
        parts = urlsplit(server.rstrip("/"))
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    plain = re.fullmatch(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}", host or "") is not None
    if parts.scheme not in ("http", "https") or not plain or parts.username is not None:
        raise _unusable("it doesn't begin with a server's address", hint=_PASTE)
    if parts.path or parts.query or parts.fragment or port == 0:
        raise _unusable("it doesn't begin with a server's address", hint=_PASTE)
    shown = f"[{host}]" if ":" in str(host) else str(host)
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{shown}" + ("" if port in (None, usual) else f":{port}")


def _unpack(room: RoomId, data: str) -> tuple[SigningKey, Chain]:
    try:
        raw = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
    except binascii.Error:
        raise _unusable("it is cut short", hint=_PASTE) from None
    checksum, packed = raw[:_CHECKSUM], raw[_CHECKSUM:]
    if checksum != _checksum(room, packed):
        raise _unusable("it is cut short, or mistyped", hint=_PASTE)
    try:
        unpacker = zlib.decompressobj()
        body = msgspec.msgpack.decode(unpacker.decompress(packed, _MAX_BODY), type=_Body)
        chain = tuple(
            Signed(
                context=link.context,
                payload=link.payload,
                signer=DeviceId(link.signer.hex()),
                signature=link.signature,
            )
            for link in body.chain
        )
        return SigningKey.from_seed(body.secret), chain
    except (zlib.error, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _unusable("what it carries is not an invite") from None


def _checksum(room: RoomId, packed: bytes) -> bytes:
    return hashlib.sha256(b"sleap-rtc invite\0" + room.encode("ascii") + packed).digest()[
        :_CHECKSUM
    ]


def recovery_code(room_key: SigningKey) -> str:
    """The room key's secret, for paper: 14 groups of 4 characters."""
    data = room_key.seed + _code_checksum(room_key.seed)
    text = base64.b32encode(data).decode("ascii").translate(_TO_CROCKFORD)
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def parse_recovery_code(text: str) -> SigningKey:
    """The room's key, from the code that was printed when the room was created.

    Raises:
        InvalidCode: Too short, too long, or mistyped.
    """
    if len(text) > MAX_LINK:
        raise InvalidCode(kind="The recovery code", why="it is far too long")
    plain = "".join(text.split()).upper().translate(_MISREAD)
    strange = next((c for c in plain if c not in _CROCKFORD), None)
    if strange is not None:
        raise InvalidCode(kind="The recovery code", why=f"{strange!r} does not occur in such codes")
    if len(plain) != _CODE_LENGTH:
        raise InvalidCode(
            kind="The recovery code",
            why=f"it has {len(plain)} letters and digits, and {_CODE_LENGTH} are needed",
        )
    data = base64.b32decode(plain.translate(_FROM_CROCKFORD))
    seed, checksum = data[:SEED], data[SEED:]
    if checksum != _code_checksum(seed):
        raise InvalidCode(kind="The recovery code", why="at least one character is wrong")
    return SigningKey.from_seed(seed)


def _code_checksum(seed: bytes) -> bytes:
    return hashlib.sha256(b"sleap-rtc recovery code\0" + seed).digest()[:_CODE_CHECKSUM]
