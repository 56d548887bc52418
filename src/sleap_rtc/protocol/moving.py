"""Moving models to a worker, and what names mean there: the bodies of the feature ``push``.

::

    client                                              worker
      │ ── name_models (name) ───────────────────────►   │  which models this name stands for:
      │ ◄── models_named ─────────────────────────────   │  one, or the two of a pair
      │ ── weigh_model (record, package) ────────────►   │  is it there? would it be in the way?
      │ ◄── model_weighed (verdict) ──────────────────   │  nothing is changed by asking
      │ ── push_model (record, package, if_exists) ──►   │  fetches what it lacks of the package
      │ ◄──────────────── get_block … ────────────────   │  from here, over a block connection,
      │ ◄── push_moved (progress) ────────────────────   │  looks into it, and takes it in
      │ ◄── model_pushed ─────────────────────────────   │
      │ ── call_models (alias, models) ──────────────►   │  a free name, for models without one
      │ ◄── accepted ─────────────────────────────────   │

``push_model`` is answered when the model is in the library, and lasts as long as
its content takes to arrive. Withdrawn, or with its connection gone, it ends; what
has arrived is kept, and the same request goes on from there. Nothing of it is in
the library before all of it is. Only owners and members may weigh, push and call.

A pull needs none of this: ``find_model`` and ``want_files``, which every member
of the room may ask.

Where both sides are one user's on one machine, files are read where they are, in a
folder that whoever has them names. The reader gives a challenge, in ``want_files``
or ``model_weighed``, and believes a mark (``files/nearby.py``).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from sleap_rtc.domain.models import Hex64, Id, Line, ModelRecord, Package, Tier
from sleap_rtc.domain.packages import MAX_PATH, MAX_SIZE, PackageRef
from sleap_rtc.domain.values import Value
from sleap_rtc.protocol.codec import MAX_MESSAGE, Body
from sleap_rtc.protocol.library import Name, PathTold, fit_record

FEATURE: Final = "push"
"""What a peer that answers these names in its handshake."""

MAX_CAME: Final = 64
"""Ways and sources that content came by, as it is told."""
MAX_FLAGGED: Final = 64
"""Files of a model that are named as suspicious before they are sent."""
MAX_STORED: Final = 128
"""Files of a model that is fetched from storage: each of them takes questions of its own."""
Challenge = Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
"""64 hex digits that a mark is to say; empty where none is wanted."""
RECORD_ROOM: Final = MAX_MESSAGE - 16 * 1024
"""Bytes of a record that is sent, with room for the rest of the message."""

Verdict = Literal["new", "same", "bare", "other"]
"""What there is of a model that would come:

``new``    nothing
``same``   its content, whole, perhaps under another id: nothing has to move
``bare``   its record, or some of its files: what lacks is brought in
``other``  its id belongs to a model with other content
"""
IfExists = Literal["refuse", "overwrite", "keep-both"]
"""What becomes of ``other``: an error; the one there goes to the trash; this one gets another
id."""
How = Literal["added", "renamed", "completed", "replaced", "known"]
"""How it came in: new; under another id; as the files of a record that was there; in place of
another one; or not at all, because it was there."""


# ── requests ─────────────────────────────────────────────────────────────────


class NameModels(Body, frozen=True, tag="name_models"):
    """Which models have this id, id prefix or alias? The alias of a pair names two."""

    name: Name


class WeighModel(Body, frozen=True, tag="weigh_model"):
    """What would become of this model if it were pushed?

    Attributes:
        record: Without its files.
        package: Its content.
        flagged: BLAKE3 of those of its files that may run something when they are loaded.
    """

    record: ModelRecord
    package: PackageRef
    flagged: Annotated[tuple[Hex64, ...], Meta(max_length=MAX_FLAGGED)] = ()


class Near(Value, frozen=True):
    """A folder on this machine, and the mark that proves its owner; see ``files/nearby.py``."""

    mark: PathTold
    folder: PathTold


class PushModel(Body, frozen=True, tag="push_model"):
    """Take this model; its content can be fetched from the sender while the request lasts.

    Attributes:
        record: Without its files.
        package: Its content.
        if_exists: What becomes of another model with its id.
        stored: The BLAKE3 of each of its files, in the package's order, if the room's storage has
            them all: then they are fetched from there.
        near: Where its files are, if the worker can read them there.
    """

    record: ModelRecord
    package: PackageRef
    if_exists: IfExists = "refuse"
    stored: Annotated[tuple[Hex64, ...], Meta(max_length=MAX_STORED)] = ()
    near: Near | None = None


class CallModels(Body, frozen=True, tag="call_models"):
    """Give models an alias that is free; they have none of their own yet."""

    alias: Annotated[str, Meta(min_length=1, max_length=64)]
    models: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=2)]


# ── replies ──────────────────────────────────────────────────────────────────


class ModelsNamed(Body, frozen=True, tag="models_named"):
    """The models, in the order in which they run, and the alias if the name is one."""

    models: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=2)]
    alias: Line = ""


class ModelWeighed(Body, frozen=True, tag="model_weighed"):
    """What there is of it.

    Attributes:
        verdict: What there is.
        model: Its id there, or that of the model in its way; None for ``new``.
        label: What that one is called.
        path: Its directory there.
        created_at: When that one was made, as a person would tell it.
        size: Bytes of that one's files.
        locked: Why the asker may not overwrite that one, empty if it may.
        code: The stable code of that error.
        challenge: To be said by a mark, if the files can be read where they are.
    """

    verdict: Verdict
    model: Id | None = None
    label: Line = ""
    path: PathTold = ""
    created_at: Line = ""
    size: Annotated[int, Meta(ge=0, le=MAX_SIZE)] = 0
    locked: Line = ""
    code: Annotated[str, Meta(max_length=64)] = ""
    challenge: Challenge = ""


class FilesNear(Body, frozen=True, tag="files_near"):
    """They may be fetched; who can read them where they are needn't."""

    near: Near


class CameBy(Value, frozen=True):
    """Content that came one way: ``webrtc``, ``direct``, ``local`` or ``s3``; from whom; bytes."""

    way: Annotated[str, Meta(max_length=16)]
    source: Line
    size: Annotated[int, Meta(ge=0, le=MAX_SIZE)]


class ModelPushed(Body, frozen=True, tag="model_pushed"):
    """It is in the library.

    Attributes:
        model: Its id there.
        how: How it came in.
        path: Its directory there.
        safety: The tier of the worst of its files, as the worker found it.
        trash: Where the one is that was there, for 30 days; empty if none was.
        came: What of its content travelled, by way and source.
    """

    model: Id
    how: How
    path: PathTold = ""
    safety: Tier = "unknown"
    trash: PathTold = ""
    came: Annotated[tuple[CameBy, ...], Meta(max_length=MAX_CAME)] = ()


# ── notices ──────────────────────────────────────────────────────────────────


class PushMoved(Body, frozen=True, tag="push_moved"):
    """How far a push is, as the worker sees it; a few times a second.

    Attributes:
        package: The content.
        phase: ``waiting``, ``copying``, ``receiving``, ``verifying`` or ``done``.
        done: Bytes that are there; while verifying, bytes that were checked.
        total: Bytes of all.
        rate: Bytes per second.
        eta_s: Seconds until this phase ends, None while that can't be told.
        file: Path of the file that something came of last, empty while nothing has.
        file_done: Bytes of it that are there.
        file_size: Bytes of all of it.
    """

    package: Package
    phase: Line
    done: Annotated[int, Meta(ge=0, le=MAX_SIZE)]
    total: Annotated[int, Meta(ge=0, le=MAX_SIZE)]
    rate: Annotated[float, Meta(ge=0)] = 0.0
    eta_s: Annotated[float, Meta(ge=0)] | None = None
    file: Annotated[str, Meta(max_length=MAX_PATH)] = ""
    file_done: Annotated[int, Meta(ge=0, le=MAX_SIZE)] = 0
    file_size: Annotated[int, Meta(ge=0, le=MAX_SIZE)] = 0


def sendable(record: ModelRecord) -> ModelRecord:
    """A record as ``push_model`` carries it: without its files, which are the package's."""
    return fit_record(record, RECORD_ROOM, canonical=True)[0]
