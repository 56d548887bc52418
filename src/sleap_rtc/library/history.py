"""How a model's losses went, epoch by epoch, from the log among its files."""

from __future__ import annotations

import msgspec

from sleap_rtc.library.checking import looks_like, place_of
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.inspection.logs import (
    LOG,
    in_step,
    read_log,
    training_loss,
    validation_loss,
)


class Epoch(msgspec.Struct, frozen=True):
    """The losses of one epoch.

    Attributes:
        epoch: Counted from 0.
        train_loss: Mean training loss, None where it wasn't logged.
        val_loss: Validation loss, None where it wasn't logged.
    """

    epoch: int
    train_loss: float | None
    val_loss: float | None


def losses(entry: Entry) -> tuple[Epoch, ...]:
    """The losses of a model, in the order of epochs; none where its log isn't here or is damaged.

    Only a log that its record lists is read, of at most 64 MB.
    """
    listed = [file for file in entry.record.files if file.path.rpartition("/")[2] == LOG]
    for file in sorted(listed, key=lambda file: file.path.count("/")):
        if looks_like(entry.directory, file) == "ok":
            rows = in_step(read_log(place_of(entry.directory, file)))
            return tuple(
                Epoch(epoch, training_loss(row), validation_loss(row))
                for epoch, row in sorted(rows.items())
            )
    return ()
