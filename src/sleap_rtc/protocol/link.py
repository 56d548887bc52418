"""The link: what two peers say to each other, end to end.

A link is one session over one or more connections: one for *control*, one or
more for *blocks*. Each connection begins with the handshake of
``protocol/handshake.py``; until that has succeeded nothing else is accepted.
Then, on every connection, JSON text frames with the messages below; on block
connections also the binary frames of ``protocol/frames.py``::

    either side                                        the other
      │ ── request (id, within_s, body) ──────────────►  │  one answer each;
      │ ◄──── reply (id, body) | failure (id, code) ───  │  the same id is the same request
      │ ── withdraw (id) ─────────────────────────────►  │  the answer isn't wanted any more
      │ ◄──────────────── notice (body) ───────────────  │  events of what is followed
      │ ◄─────────────── ping · pong ──────────────────► │  every second, both ways
      │ ── bye (reason) ──────────────────────────────►  │  the last message

The bodies:

================  ================================  ==========================================
request           answered by                       meaning
================  ================================  ==========================================
``describe``      ``description``                   hardware, engines, counts
``submit_job``    ``job``                           do this; the inputs are offered with it
``list_jobs``     ``jobs``                          newest first
``follow_job``    ``job``, then ``job_event``s      every event after number ``since``
``unfollow_job``  ``accepted``                      no more events
``command_job``   ``accepted``                      stop, cancel, pause, resume
``retry_job``     ``accepted``                      go on with an interrupted job
``find_model``    ``model``                         record and package of one model
``offer_files``   ``accepted``                      this package can be fetched from me
``want_files``    ``accepted``, ``files_near``      let me fetch this package of a model or job
``list_models`` …                                   the library: see ``protocol/library.py``
``push_model`` …                                    moving models: see ``protocol/moving.py``
``weigh_data``    ``data_weighed``                  a job's data: see ``protocol/datasets.py``
================  ================================  ==========================================

A block connection answers one request by itself: ``open_direct``, see ``protocol/direct.py``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from sleap_rtc.domain.ids import JobId
from sleap_rtc.domain.models import Id, Line, ModelRecord, Utc
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.domain.values import Value
from sleap_rtc.jobs.events import Command, JobEvent, JobState
from sleap_rtc.jobs.spec import UUID7, JobSpec
from sleap_rtc.protocol import datasets, direct, library, moving
from sleap_rtc.protocol.codec import Body, Codec, Message
from sleap_rtc.protocol.frames import FEATURE as SEVERAL

LINK_VERSIONS: Final = (1,)
"""Versions of this protocol that we speak, oldest first."""
FEATURES: Final = (
    "blocks",
    "jobs",
    "models",
    library.FEATURE,
    moving.FEATURE,
    direct.FEATURE,
    datasets.FEATURE,
    SEVERAL,
)
"""What we can do within version 1; both sides use the features that both name."""

PING_EVERY_S: Final = 1.0
FIRST_PINGS: Final = 3
"""Pings that a connection begins with, close together: how far the peer is, is then known."""
OFTEN_S: Final = 1.0
"""Seconds for which pings go with every tick, once that was asked for."""
QUICKEST_PINGS: Final = 1_200
"""The last pings, of which the quickest tells how long the line is: no more than of five minutes of
a transfer, since a machine may move to another network."""
RECENT_PINGS: Final = 2
"""The last pings, of which the quicker tells how long the line takes now: one may be chance."""
SILENT_AFTER_S: Final = 5.0
"""Nothing heard for so long: the peer counts as silent, and people are told."""
DEAD_AFTER_S: Final = 20.0
"""Nothing heard for so long: the connection is given up and built anew."""
MAX_REQUESTS: Final = 256
"""Requests of one peer that may be unanswered at a time."""

RequestId = Annotated[str, Meta(min_length=1, max_length=64)]
Job = Annotated[JobId, Meta(pattern=UUID7)]


# ── requests ─────────────────────────────────────────────────────────────────


class Describe(Body, frozen=True, tag="describe"):
    """What do you have?"""


class SubmitJob(Body, frozen=True, tag="submit_job"):
    """Do this. The sender can be asked for the inputs' blocks from now on."""

    spec: JobSpec


class ListJobs(Body, frozen=True, tag="list_jobs"):
    """Which jobs do you know? At most ``limit``, newest first."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 50


class FollowJob(Body, frozen=True, tag="follow_job"):
    """Send me every event of the job after number ``since``, and those to come."""

    job: Job
    since: Annotated[int, Meta(ge=0)] = 0


class UnfollowJob(Body, frozen=True, tag="unfollow_job"):
    """Send me no more events of the job."""

    job: Job


class CommandJob(Body, frozen=True, tag="command_job"):
    """Command the job. The request's id is the command's: asking twice is asking once."""

    job: Job
    command: Command


class RetryJob(Body, frozen=True, tag="retry_job"):
    """Go on with an interrupted job, from its last checkpoint."""

    job: Job


class FindModel(Body, frozen=True, tag="find_model"):
    """Which model has this id, id prefix or alias?"""

    name: Annotated[str, Meta(min_length=1, max_length=200)]


class OfferFiles(Body, frozen=True, tag="offer_files"):
    """This package can be fetched from me while we are linked."""

    package: PackageRef


class WantFiles(Body, frozen=True, tag="want_files"):
    """Let me fetch this package: the files of ``model``, or what ``job`` has put out.

    Attributes:
        package: Its content.
        model: The model whose files it is.
        job: The job whose output it is.
        challenge: To be said by a mark, if the model's files can be read where they are.
    """

    package: PackageRef
    model: Id | None = None
    job: Job | None = None
    challenge: moving.Challenge = ""


# ── replies ──────────────────────────────────────────────────────────────────


class Description(Body, frozen=True, tag="description"):
    """What this worker has."""

    worker: WorkerInfo


class JobSummary(Value, frozen=True):
    """One line about a job.

    Attributes:
        id: The job.
        name: What people call it.
        kind: ``train`` or ``track``.
        engine: The trainer.
        state: Where it stands.
        submitted_at: When the worker took it, UTC.
        last_event: Number of its newest event.
        mine: Whether the asking device submitted it.
    """

    id: Job
    name: Line
    kind: Literal["train", "track"]
    engine: Line
    state: JobState
    submitted_at: Utc
    last_event: Annotated[int, Meta(ge=0)] = 0
    mine: bool = False


class JobTold(Body, frozen=True, tag="job"):
    """The job as it stands."""

    job: JobSummary
    spec: JobSpec


class JobsTold(Body, frozen=True, tag="jobs"):
    """The jobs that were asked for."""

    jobs: Annotated[tuple[JobSummary, ...], Meta(max_length=100)]


class ModelTold(Body, frozen=True, tag="model"):
    """The model, the name it goes by, and its files as a package where they are all there."""

    record: ModelRecord
    alias: Line = ""
    package: PackageRef | None = None


class Accepted(Body, frozen=True, tag="accepted"):
    """It is done, or will be."""


# ── notices ──────────────────────────────────────────────────────────────────


class JobHappened(Body, frozen=True, tag="job_event"):
    """The next event of a job that is followed."""

    job: Job
    event: JobEvent


RequestBody = (
    Describe
    | SubmitJob
    | ListJobs
    | FollowJob
    | UnfollowJob
    | CommandJob
    | RetryJob
    | FindModel
    | OfferFiles
    | WantFiles
    | library.ListModels
    | library.AskModel
    | library.CheckModels
    | library.WantPart
    | library.WatchLibrary
    | moving.NameModels
    | moving.WeighModel
    | moving.PushModel
    | moving.CallModels
    | datasets.WeighData
)
ReplyBody = (
    Description
    | JobTold
    | JobsTold
    | ModelTold
    | Accepted
    | library.ModelsTold
    | library.ModelInfoTold
    | library.ModelsChecked
    | library.PartTold
    | moving.ModelsNamed
    | moving.ModelWeighed
    | moving.ModelPushed
    | moving.FilesNear
    | datasets.DataWeighed
)
AnyRequest = RequestBody | direct.OpenDirect
"""With what a connection answers by itself, whoever uses it."""
AnyReply = ReplyBody | direct.DirectOpened
NoticeBody = JobHappened | library.LibraryChanged | moving.PushMoved

NEEDS: Final[dict[type[Body], str]] = {
    library.ListModels: library.FEATURE,
    library.AskModel: library.FEATURE,
    library.CheckModels: library.FEATURE,
    library.WantPart: library.FEATURE,
    library.WatchLibrary: library.FEATURE,
    moving.NameModels: moving.FEATURE,
    moving.WeighModel: moving.FEATURE,
    moving.PushModel: moving.FEATURE,
    moving.CallModels: moving.FEATURE,
    datasets.WeighData: datasets.FEATURE,
    direct.OpenDirect: direct.FEATURE,
}
"""Request → the feature that it may only be sent with; the others every peer understands."""
CANNOT: Final = {
    library.FEATURE: "tell what is in its library",
    moving.FEATURE: "be sent models",
    direct.FEATURE: "be reached directly",
    datasets.FEATURE: "take a job's data from storage or a shared disk",
}
"""Feature → what a peer can't do that lacks it, as the end of a sentence."""


# ── frames ───────────────────────────────────────────────────────────────────


class Request(Message, frozen=True, tag="request"):
    """Asks; wants an answer within ``within_s`` seconds."""

    id: RequestId
    within_s: Annotated[float, Meta(gt=0, le=3600)]
    body: AnyRequest


class Reply(Message, frozen=True, tag="reply"):
    """Answers request ``id``."""

    id: RequestId
    body: AnyReply


class Failure(Message, frozen=True, tag="failure"):
    """Refuses request ``id``; see ``errors.from_wire``."""

    id: RequestId
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=4_000)]
    hint: Line = ""
    details: Annotated[dict[str, str], Meta(max_length=16)] = {}


class Withdraw(Message, frozen=True, tag="withdraw"):
    """The answer to ``id`` isn't wanted any more."""

    id: RequestId


class Notice(Message, frozen=True, tag="notice"):
    """Tells what was asked to be told."""

    body: NoticeBody


class Ping(Message, frozen=True, tag="ping"):
    """Are you there? ``n`` comes back."""

    n: Annotated[int, Meta(ge=0, le=2**53)]


class Pong(Message, frozen=True, tag="pong"):
    """I am here."""

    n: Annotated[int, Meta(ge=0, le=2**53)]


class Bye(Message, frozen=True, tag="bye"):
    """The last message of a connection."""

    reason: Line = ""


Frame = Request | Reply | Failure | Withdraw | Notice | Ping | Pong | Bye

frames: Final = Codec[Frame](Frame)
