"""How the program speaks with the worker: one JSON object a line on standard output.

==============  ===============================================================
``event``       further fields
==============  ===============================================================
``began``       ``epochs``, ``first_epoch``, ``batches`` (as in ``engines.base``)
``step``        ``done``, ``total``, ``epoch``, ``loss``, ``rate``
``epoch``       ``epoch``, ``train_loss``, ``val_loss``, ``learning_rate``
``checkpoint``  ``epochs``
``result``      ``metrics`` of the model, or of the predictions
``error``       ``code`` and ``message``, one sentence; the exit code is 2
==============  ===============================================================

Anything else it writes is a line for people. On standard input it takes the line
``stop``; the end of standard input means that nobody listens any more, and ends it.
"""

from __future__ import annotations

import json
import select
import sys
from typing import Any


def tell(event: str, **fields: Any) -> None:
    """Say something to the worker; a number that isn't finite is null."""
    plain = {key: _finite(value) for key, value in fields.items()}
    sys.stdout.write(json.dumps({"event": event, **plain}, allow_nan=False) + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Say something to people."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value


class Ears:
    """Listens to standard input without waiting."""

    def __init__(self) -> None:
        self._stopped = False

    def stop_asked(self) -> bool:
        """Whether ``stop`` was said by now.

        Raises:
            SystemExit: Nobody listens any more.
        """
        while not self._stopped and select.select([sys.stdin], [], [], 0)[0]:
            line = sys.stdin.readline()
            if not line:
                raise SystemExit(3)
            self._stopped = line.strip() == "stop"
        return self._stopped
