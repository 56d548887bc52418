"""Challenges and tokens of the HTTP API.

A challenge is in this process's memory, and good once; a token is a random
secret of which the database keeps the hash, so that it outlives a restart and
nobody who reads the database can use it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

import msgspec

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import NotSignedIn, NotTrusted
from sleap_rtc.protocol.http import CHALLENGE_SECONDS, TOKEN_SECONDS
from sleap_rtc.storage.sqlite import Database

MAX_CHALLENGES: Final = 10_000
"""Challenges that wait for an answer; the oldest go first."""
MAX_TOKENS: Final = 32
"""Tokens of one device that are good at a time; the oldest go first."""
MAX_TOKEN: Final = 200
"""Characters of the longest text that is looked at as a token."""


class Session(msgspec.Struct, frozen=True):
    """Whose a token is.

    Attributes:
        device: The device.
        dialled: ``host:port`` by which it reaches this server.
    """

    device: DeviceId
    dialled: str


class Challenges:
    """What was given out to be signed. For one thread; time is handed in."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def issue(self, now: float) -> str:
        """A new one.

        Args:
            now: Seconds on a clock that never goes back.
        """
        nonce = secrets.token_hex(32)
        self._until[nonce] = now + CHALLENGE_SECONDS
        if len(self._until) > MAX_CHALLENGES:
            self._until.popitem(last=False)
        return nonce

    def use(self, nonce: str, now: float) -> None:
        """Take one back that was signed.

        Raises:
            NotTrusted: It is none of ours, was used, or is too old.
        """
        until = self._until.pop(nonce, None)
        if until is None or now >= until:
            raise NotTrusted(
                who="This device",
                why="the challenge that it signed is none that was given, or is too old",
                hint="The same command asks for a new one.",
            )


class Tokens:
    """Who may use the API, in the server's database.

    Args:
        database: The server's.
        server: What the server is called, in errors.
    """

    def __init__(self, database: Database, *, server: str) -> None:
        self._database, self._server = database, server

    def issue(self, session: Session, *, now: datetime) -> tuple[str, datetime]:
        """A new token for a device that has proven itself.

        Returns:
            The token, which is nowhere else, and when it expires.
        """
        token = secrets.token_urlsafe(32)
        expires = now + timedelta(seconds=TOKEN_SECONDS)
        with self._database.write() as writer:
            writer.execute("DELETE FROM tokens WHERE expires <= ?", (now.timestamp(),))
            writer.execute(
                "DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens WHERE device = ? "
                "ORDER BY expires DESC LIMIT -1 OFFSET ?)",
                (session.device, MAX_TOKENS - 1),
            )
            writer.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?)",
                (_hash(token), session.device, session.dialled, expires.timestamp()),
            )
        return token, expires

    def find(self, token: str, *, now: datetime) -> Session:
        """Whose a token is.

        Raises:
            NotSignedIn: It is none of ours, or has expired.
        """
        row = None
        if len(token) <= MAX_TOKEN:
            with self._database.read() as reader:
                row = reader.execute(
                    "SELECT device, dialled FROM tokens WHERE hash = ? AND expires > ?",
                    (_hash(token), now.timestamp()),
                ).fetchone()
        if row is None:
            raise NotSignedIn(
                server=self._server, hint="Its token is wrong or has expired; sign in again."
            )
        return Session(device=row[0], dialled=row[1])


def _hash(token: str) -> bytes:
    """A token's hash; 256 random bits need no salt."""
    return hashlib.sha256(b"sleap-rtc token\0" + token.encode("utf-8", "replace")).digest()
