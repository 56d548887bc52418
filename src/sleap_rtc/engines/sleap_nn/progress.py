"""Progress from, and commands to, a training of sleap-nn, over ZMQ on 127.0.0.1.

The trainer connects; we bind, on fresh ports, before it is started. It says::

    train_begin, then for each epoch
      epoch_begin{epoch}  (batch_start{batch}  batch_end{epoch, batch, logs.loss})…
      epoch_end{epoch, logs}
    train_end

as JSON in which a number may be ``NaN``. Some things are not as they look:
``train/loss`` in the logs is that of the epoch before, so the mean of the batches'
losses is taken; and at ``epoch_end`` the checkpoint isn't on the disk yet: what
comes next (``epoch_begin``, ``train_end``) means that it is. The learning rate is
that of the epoch before as well; of the first epoch it is the configured one.

:class:`Reading` is the pure part; :class:`Channel` the sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable
from typing import Any, Final

from sleap_rtc.engines.base import Began, CheckpointWritten, EngineEvent, EpochDone, Stepped

_ADDRESS: Final = "tcp://127.0.0.1"
_MAX_MESSAGE: Final = 1024 * 1024
_QUIET_S: Final = 0.3
"""Seconds without a message after the trainer's end that mean there is none left."""


class Reading:
    """What the trainer's messages mean.

    Attributes:
        epochs: Whole epochs in the last checkpoint, over all attempts; None when there is none.
        finished: Whether ``train_end`` was said.
        train_losses: Mean training loss by epoch.
    """

    def __init__(
        self, *, planned: int | None, batches: int | None, rate: float | None = None
    ) -> None:
        self.epochs: int | None = None
        self.finished = False
        self.train_losses: dict[int, float | None] = {}
        self._planned = planned
        self._batches = batches
        self._rate = rate
        self._has_begun = False
        self._losses: list[float] = []
        self._written: int | None = None
        """The epoch whose checkpoint will be there when the next message comes."""

    def feed(self, message: dict[str, Any]) -> list[EngineEvent]:
        """The events that a message stands for."""
        epoch = _count(message.get("epoch"))
        logs = message.get("logs")
        logs = logs if isinstance(logs, dict) else {}
        match message.get("event"):
            case "epoch_begin":
                return [*self._checkpoint(), *self._begin(epoch or 0)]
            case "batch_end" if epoch is not None:
                return [self._step(epoch, _count(message.get("batch")) or 0, logs)]
            case "epoch_end" if epoch is not None:
                return [self._end(epoch, logs)]
            case "train_end":
                self.finished = True
                return self._checkpoint()
            case _:
                return []

    def _begin(self, epoch: int) -> list[EngineEvent]:
        self._losses = []
        if self._has_begun:
            return []
        self._has_begun = True
        if epoch:  # Gone on from a checkpoint, which has a rate of its own.
            self.epochs, self._rate = epoch, None
        return [Began(epochs=self._planned, first_epoch=epoch, batches=self._batches)]

    def _step(self, epoch: int, batch: int, logs: dict[str, Any]) -> EngineEvent:
        loss = _finite(logs.get("loss"))
        if loss is not None:
            self._losses.append(loss)
        return Stepped(done=batch + 1, epoch=epoch, total=self._batches, loss=loss)

    def _end(self, epoch: int, logs: dict[str, Any]) -> EngineEvent:
        mean = sum(self._losses) / len(self._losses) if self._losses else None
        self.train_losses[epoch] = mean
        self._written = epoch
        self._rate = _finite(logs.get("train/lr")) or self._rate
        return EpochDone(
            epoch=epoch,
            train_loss=mean,
            val_loss=_finite(logs.get("val/loss")),
            learning_rate=self._rate,
        )

    def _checkpoint(self) -> list[EngineEvent]:
        if self._written is None:
            return []
        self.epochs, self._written = self._written + 1, None
        return [CheckpointWritten(epochs=self.epochs)]


def parse(data: bytes) -> dict[str, Any]:
    """A message as the trainer wrote it; what can't be read says nothing."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _count(value: Any) -> int | None:
    found = _finite(value)
    return int(found) if found is not None and 0 <= found < 1e9 else None


class Channel:
    """The two sockets. Needs pyzmq (extra ``worker``)."""

    def __init__(self) -> None:
        import zmq  # noqa: PLC0415 - not part of the base install
        import zmq.asyncio  # noqa: PLC0415

        self._context = zmq.asyncio.Context()
        self._progress = self._context.socket(zmq.SUB)
        self._progress.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE)
        self._progress.setsockopt(zmq.RCVHWM, 100_000)
        self._progress.setsockopt(zmq.SUBSCRIBE, b"")
        self._control = self._context.socket(zmq.PUB)
        self._control.setsockopt(zmq.LINGER, 0)
        self.publish_port: int = self._progress.bind_to_random_port(_ADDRESS)
        self.controller_port: int = self._control.bind_to_random_port(_ADDRESS)
        self._reader: asyncio.Task[None] | None = None

    def listen(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        """Hand every message that comes from now on to ``on_message``."""
        self._reader = asyncio.create_task(self._read(on_message))

    async def _read(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        while True:
            on_message(parse(await self._progress.recv()))

    async def stop_training(self) -> None:
        """Ask for an early end. It is lost if the trainer doesn't listen yet; say it again then."""
        await self._control.send(b'{"command": "stop"}')

    async def drain(self) -> None:
        """Read what is left, and close."""
        try:
            while self._reader is not None and not self._reader.done():
                if not await self._progress.poll(int(_QUIET_S * 1000)):
                    break
                await asyncio.sleep(0)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close both sockets."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        self._progress.close(linger=0)
        self._control.close(linger=0)
        self._context.term()
