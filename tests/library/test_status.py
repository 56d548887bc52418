from typing import get_args

import pytest

from sleap_rtc.domain.models import STATUSES
from sleap_rtc.errors import IllegalTransition
from sleap_rtc.library import status
from sleap_rtc.library.status import Event

EVENTS = get_args(Event)


def drawn() -> dict[tuple[str, str], str]:
    """The table as the module's docstring draws it."""
    assert status.__doc__ is not None
    lines = [line.split() for line in status.__doc__.splitlines() if line.startswith("    ")]
    heads, *rows = lines
    return {
        (row[0], event): cell
        for row in rows
        for event, cell in zip(heads, row[1:], strict=True)
        if cell != "·"
    }


def test_the_drawing_is_the_table() -> None:
    assert drawn() == status.TRANSITIONS


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("now", STATUSES)
def test_every_step_is_taken_or_refused_by_name(now: status.Status, event: Event) -> None:
    if (now, event) in status.TRANSITIONS:
        after = status.after(now, event, what="model x")
        assert after == status.TRANSITIONS[now, event]
        assert status.after(after, event, what="model x") == after
    else:
        with pytest.raises(IllegalTransition, match=f"model x is {now}; .* is not possible then"):
            status.after(now, event, what="model x")
