from __future__ import annotations

from types import SimpleNamespace

import pytest

from sleap_rtc.client.outcome import failure
from sleap_rtc.errors import Cancelled, OutOfSpace, SleapRtcError, TrainingFailed
from sleap_rtc.jobs.events import ErrorTold
from sleap_rtc.jobs.lifecycle import JobView

JOB = SimpleNamespace(id="01900000-0000-7000-8000-0000cafe1234", worker="gpu-1")


@pytest.mark.parametrize("state", [None, "queued", "running", "completed"])
def test_what_may_still_be_or_is_well_is_no_error(state):
    assert failure(JOB, JobView(state=state)) is None


def test_the_workers_own_error_is_raised_again():
    told = ErrorTold(code=OutOfSpace.code, message="The disk is full.", hint="Make room.")
    error = failure(JOB, JobView(state="failed", error=told))
    assert isinstance(error, OutOfSpace)
    assert (str(error), error.hint_text) == ("The disk is full.", "Make room.")


@pytest.mark.parametrize(
    ("state", "reason", "kind", "said"),
    [
        ("failed", "it broke", TrainingFailed, "it broke"),
        ("failed", "", TrainingFailed, "didn't say why"),
        ("cancelled", "", Cancelled, "Job cafe1234"),
        ("interrupted", "killed", SleapRtcError, "interrupted: killed. Its checkpoint is on gpu-1"),
        ("interrupted", "", SleapRtcError, "was interrupted. Its"),
    ],
)
def test_other_ends_say_what_happened(state, reason, kind, said):
    error = failure(JOB, JobView(state=state, reason=reason))
    assert type(error) is kind
    assert said in str(error)
