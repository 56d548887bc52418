"""What became of a job, as an error where it isn't completed."""

from __future__ import annotations

from sleap_rtc.client.submitted import SubmittedJob, short
from sleap_rtc.errors import Cancelled, SleapRtcError, TrainingFailed, from_wire
from sleap_rtc.jobs.lifecycle import JobView


def failure(job: SubmittedJob, view: JobView) -> SleapRtcError | None:
    """Why a job that is settled isn't completed; None while it may still become so."""
    what = f"Job {short(job.id)}"
    name = short(job.id)
    match view.state:
        case "failed" if view.error is not None:
            told = view.error
            return from_wire(told.code, {}, message=told.message, hint=told.hint)
        case "failed":
            return TrainingFailed(what=what, why=view.reason or "the worker didn't say why")
        case "cancelled":
            return Cancelled(what=what)
        case "interrupted":
            why = f": {view.reason}" if view.reason else ""
            return SleapRtcError(
                message=f"{what} was interrupted{why}. Its checkpoint is on {job.worker}.",
                hint=f"It goes on with: sleap-rtc jobs retry {name}",
            )
    return None
