"""Both sides of a handshake at once, with something between them that may tamper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sleap_rtc.auth.handshake import Authenticated, Done, Effect, Handshake, Refuse, Send, Setup
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.protocol.handshake import HandshakeMessage, handshake_codec
from sleap_rtc.testing.made_room import MadeRoom

Tamper = Callable[[str, HandshakeMessage], HandshakeMessage | None]


class Ends:
    """Both machines and what came out of them; messages cross the wire as bytes.

    Args:
        offerer: What one side brings.
        answerer: What the other brings.
        tamper: Sees each message with its sender, and returns what arrives; None loses it.
    """

    def __init__(self, offerer: Setup, answerer: Setup, tamper: Tamper | None = None) -> None:
        self.machines = {"offerer": Handshake(offerer), "answerer": Handshake(answerer)}
        self.effects: dict[str, list[Effect]] = {"offerer": [], "answerer": []}
        self._tamper = tamper
        wire: list[tuple[str, bytes]] = []
        for side, machine in self.machines.items():
            self._take(side, machine.start(), wire)
        while wire:
            side, data = wire.pop(0)
            message = handshake_codec.decode(data, peer="the other side")
            self._take(side, self.machines[side].receive(message), wire)

    def _take(self, side: str, effects: tuple[Effect, ...], wire: list[tuple[str, bytes]]) -> None:
        other = "answerer" if side == "offerer" else "offerer"
        self.effects[side] += effects
        for effect in effects:
            if isinstance(effect, Send):
                message = self._tamper(side, effect.message) if self._tamper else effect.message
                if message is not None:
                    wire.append((other, handshake_codec.encode(message)))

    def of(self, side: str, kind: type) -> list[Any]:
        """What came out of a side, of one kind."""
        return [effect for effect in self.effects[side] if isinstance(effect, kind)]

    def result(self, side: str) -> Authenticated:
        """What a side holds for proven."""
        done: Done = self.of(side, Done)[0]
        return done.result

    def error(self, side: str) -> SleapRtcError:
        """Why a side refused."""
        refuse: Refuse = self.of(side, Refuse)[0]
        return refuse.error

    def proven(self) -> bool:
        """Whether both hold the other for proven."""
        return all(self.of(side, Done) and not self.of(side, Refuse) for side in self.effects)

    def nobody_is_fooled(self) -> bool:
        """Whether neither does."""
        return not any(self.of(side, Done) for side in self.effects)


def run(
    house: MadeRoom,
    *,
    tamper: Tamper | None = None,
    offerer: dict[str, Any] | None = None,
    answerer: dict[str, Any] | None = None,
) -> Ends:
    """A handshake between a room's owner and a worker, with changes to what they bring."""
    worker = house.key(3)
    return Ends(
        house.setup(house.owner, house.owner_chain, "offerer", **(offerer or {})),
        house.setup(worker, house.joined(worker), "answerer", **(answerer or {})),
        tamper,
    )
