"""How a model's status changes: one table.

::

                  train         complete     interrupt      fail
    training      training      completed    interrupted    failed
    interrupted   training      completed    interrupted    failed
    failed        training      ·            ·              failed
    completed     ·             completed    ·              ·
    imported      ·             ·            ·              ·
    missing       ·             ·            ·              ·

Saying the same thing twice is allowed: whoever crashed after saying it says it
again. An interrupted model may turn out to be complete, since a client that
lost sight of a worker hears of the end later. Training a completed model
further makes a new model with this one as parent.
"""

from __future__ import annotations

from typing import Final, Literal

from sleap_rtc.domain.models import Status
from sleap_rtc.errors import IllegalTransition

Event = Literal["train", "complete", "interrupt", "fail"]

TRANSITIONS: Final[dict[tuple[Status, Event], Status]] = {
    ("training", "train"): "training",
    ("training", "complete"): "completed",
    ("training", "interrupt"): "interrupted",
    ("training", "fail"): "failed",
    ("interrupted", "train"): "training",
    ("interrupted", "complete"): "completed",
    ("interrupted", "interrupt"): "interrupted",
    ("interrupted", "fail"): "failed",
    ("failed", "train"): "training",
    ("failed", "fail"): "failed",
    ("completed", "complete"): "completed",
}

_WORDS: Final[dict[Event, str]] = {
    "train": "training it",
    "complete": "completing it",
    "interrupt": "interrupting it",
    "fail": "failing it",
}


def after(status: Status, event: Event, *, what: str) -> Status:
    """The status after an event.

    Args:
        status: The status now.
        event: What happened.
        what: Names the model in the error.

    Raises:
        IllegalTransition: The table has no such step.
    """
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise IllegalTransition(what=what, state=status, event=_WORDS[event]) from None
