"""Every error that sleap-rtc raises on purpose.

::

    SleapRtcError                     exit 1   http 500
    ├── UsageError                         2        400   the request itself is wrong
    │   ├── InvalidName                                   an alias, room or worker name
    │   ├── InvalidConfig                                 a setting or a training configuration
    │   ├── InvalidLabels                                 a label file
    │   ├── InvalidCode                                   an invite link, a recovery code
    │   ├── InvalidSearch                                 words and conditions to find models by
    │   ├── UnsafeStorage                                 a store that loses concurrent changes
    │   └── AmbiguousName                                 a prefix that fits several models
    ├── NotFound                           3        404
    │   ├── UnknownModel
    │   ├── UnknownJob
    │   ├── UnknownRoom
    │   ├── UnknownWorker
    │   ├── UnknownUpload                                 expired, completed or given up
    │   └── FilesMissing                                  a model whose files are gone
    ├── Conflict                           4        409
    │   ├── AliasTaken
    │   ├── AlreadyExists
    │   ├── Busy                                          claimed by another process
    │   ├── QueueFull                                     a worker takes no more jobs for now
    │   ├── PartsMissing                                  an upload can't be completed yet
    │   └── IllegalTransition                             a state machine refused an event
    ├── NetworkError                       5        502
    │   ├── ServerUnreachable
    │   ├── PeerUnreachable
    │   ├── LinkLost
    │   ├── StorageUnreachable                            or too busy, or failing for now
    │   ├── HostUnreachable                               a hub, a web page; or it fails for now
    │   ├── Offline                                       nobody is to be asked
    │   ├── TooManyRequests                               of one device, or one network
    │   └── DeadlineExceeded
    ├── NotPermitted                       6        403
    │   ├── NotSignedIn
    │   ├── NotTrusted                                    signatures, invites, membership
    │   │   └── WorkerChanged                             a known name, with another device's key
    │   ├── StorageRefused                                object storage says no
    │   ├── StorageOff                                    a server that keeps no files
    │   └── PathNotPermitted
    ├── ProtocolError                      5        400   what a peer sent breaks the rules
    │   ├── VersionMismatch
    │   └── FeatureMissing                                an older peer can't do it
    ├── DataError                          1        422   what a file says breaks the rules
    │   ├── Damaged                                       a checksum differs
    │   ├── SourceChanged                                 a file changed while it was sent
    │   ├── NoLibrary                                     a worker can't read its own
    │   ├── NewerFormat                                   written by a later sleap-rtc
    │   ├── UnsafePath                                    a path that would leave its root
    │   └── UnsafeUrl                                     a URL that isn't asked
    ├── OutOfSpace                         1        507
    │   └── QuotaExceeded                                 of a room on a server
    ├── EngineError                        1        500
    │   ├── EngineMissing
    │   └── TrainingFailed
    └── Cancelled                        130        499

The first line of a class's docstring is the sentence that the user reads; the
names in braces are the keyword arguments it is raised with. ``code`` is stable
and travels on the wire, so that the other side raises the same class again.
A class that adds no sentence of its own is raised with ``message=``.
"""

from __future__ import annotations

import string
from typing import Any, ClassVar, Final, TypedDict

MAX_DETAIL: Final = 2_000
"""Characters of one detail that are kept; what a peer or a file says may be longer."""


class SleapRtcError(Exception):
    """{message}"""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    hint: ClassVar[str] = ""
    sentence: ClassVar[str] = "{message}"

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Take the sentence from the docstring."""
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            cls.sentence = cls.__doc__.strip().splitlines()[0]

    def __init__(self, /, *, hint: str | None = None, **details: object) -> None:
        self.details = {name: str(value)[:MAX_DETAIL] for name, value in details.items()}
        # A hint that is given is text, maybe a peer's, and no template.
        self.hint_text = _fill(self.hint, self.details) if hint is None else hint[:MAX_DETAIL]
        super().__init__(_fill(self.sentence, self.details))

    @property
    def message(self) -> str:
        """The sentence, with its details filled in."""
        return str(self.args[0])


def _fill(template: str, details: dict[str, str]) -> str:
    """Fill ``{name}`` from details; an unknown name stays as it is rather than raising."""

    class Kept(dict[str, str]):
        def __missing__(self, key: str) -> str:
            return "{" + key + "}"

    return string.Formatter().vformat(template, (), Kept(details))


class UsageError(SleapRtcError):
    """{message}"""

    code, exit_code, http_status = "usage", 2, 400


class InvalidName(UsageError):
    """{kind} {name!r} is not valid: {why}."""

    code = "invalid_name"


class InvalidConfig(UsageError):
    """{where}: {why}."""

    code = "invalid_config"


class InvalidLabels(UsageError):
    """{path} is not a usable label file: {why}."""

    code = "invalid_labels"
    hint = "Save it from SLEAP as .pkg.slp (File > Export labels package)."


class InvalidCode(UsageError):
    """{kind} can't be used: {why}."""

    code = "invalid_code"


class InvalidSearch(UsageError):
    """{why} (character {at} of the search)."""

    code = "invalid_search"
    hint = "sleap-rtc list-models --help shows what a search may say."


class UnsafeStorage(UsageError):
    """The storage {store} is not safe for a room with several writers: {why}."""

    code = "unsafe_storage"
    hint = "Use a store with atomic conditional writes, or the server's own folder."


class AmbiguousName(UsageError):
    """{name!r} fits more than one: {candidates}."""

    code = "ambiguous_name"
    hint = "Give more characters of the id, or an alias."


class NotFound(SleapRtcError):
    """{message}"""

    code, exit_code, http_status = "not_found", 3, 404


class UnknownModel(NotFound):
    """There is no model {name!r} here."""

    code = "unknown_model"
    hint = "sleap-rtc list-models shows what there is."


class UnknownJob(NotFound):
    """There is no job {name!r}."""

    code = "unknown_job"
    hint = "sleap-rtc jobs shows what there is."


class UnknownRoom(NotFound):
    """There is no room {name!r} on this machine."""

    code = "unknown_room"
    hint = "sleap-rtc room list shows your rooms; sleap-rtc room join LINK adds one."


class UnknownWorker(NotFound):
    """No worker {name!r} is online in room {room!r}."""

    code = "unknown_worker"
    hint = "sleap-rtc workers shows who is online."


class UnknownUpload(NotFound):
    """The upload to {key} is not there any more: it expired, was completed, or was given up."""

    code = "unknown_upload"
    hint = "The same command starts it anew."


class FilesMissing(NotFound):
    """Model {name!r} lacks files: {files}."""

    code = "files_missing"
    hint = "Bring the files back, or pull the model again."


class Conflict(SleapRtcError):
    """{message}"""

    code, exit_code, http_status = "conflict", 4, 409


class AliasTaken(Conflict):
    """The alias {alias!r} already names {owner}."""

    code = "alias_taken"
    hint = "Choose another, or add --force to move it."


class AlreadyExists(Conflict):
    """{what} already exists."""

    code = "already_exists"


class Busy(Conflict):
    """{what} is in use by another process{by}."""

    code = "busy"
    hint = "Wait for it to finish, or end that process."


class QueueFull(Conflict):
    """The worker takes no more {whose}: {count} wait there already."""

    code, http_status = "queue_full", 429
    hint = "Submit it again when some of them are done, or cancel those that nobody needs."


class PartsMissing(Conflict):
    """The upload to {key} lacks parts, or has others than were told: {parts}."""

    code = "parts_missing"
    hint = "Send these parts again; the rest is kept."


class IllegalTransition(Conflict):
    """{what} is {state}; {event} is not possible then."""

    code = "illegal_transition"


class NetworkError(SleapRtcError):
    """{message}"""

    code, exit_code, http_status = "network", 5, 502


class ServerUnreachable(NetworkError):
    """The server {url} cannot be reached: {why}."""

    code = "server_unreachable"
    hint = "Check the address and that the server runs; sleap-rtc doctor checks the rest."


class PeerUnreachable(NetworkError):
    """{peer} cannot be reached: {why}."""

    code = "peer_unreachable"
    hint = "sleap-rtc workers shows who is online; a TURN server may be needed between strict NATs."


class LinkLost(NetworkError):
    """The connection to {peer} was lost: {why}."""

    code = "link_lost"
    hint = "Nothing is lost: the same command takes up where this one stopped."


class StorageUnreachable(NetworkError):
    """The storage {store} can't be used now: {why}."""

    code = "storage_unreachable"
    hint = "Nothing is lost: the same command takes up where this one stopped."


class HostUnreachable(NetworkError):
    """{host} cannot be reached: {why}."""

    code = "host_unreachable"
    hint = "Check the network; what doesn't need that host works all the same."


class Offline(NetworkError):
    """{url} is not asked: sleap-rtc works offline."""

    code = "offline"
    hint = (
        "Leave out --offline, or unset SLEAP_RTC_OFFLINE, or take offline out of config.toml, and "
        "it is asked."
    )


class TooManyRequests(NetworkError):
    """{who} asks too often."""

    code, http_status = "too_many_requests", 429
    hint = "Try again in some seconds."


class DeadlineExceeded(NetworkError):
    """{what} took longer than {seconds} s."""

    code = "deadline_exceeded"


class NotPermitted(SleapRtcError):
    """{message}"""

    code, exit_code, http_status = "not_permitted", 6, 403


class NotSignedIn(NotPermitted):
    """This device is not signed in to {server}."""

    code, http_status = "not_signed_in", 401
    hint = "sleap-rtc login SERVER, with the set-up code that the server printed."


class NotTrusted(NotPermitted):
    """{who} is not trusted: {why}."""

    code = "not_trusted"


class WorkerChanged(NotTrusted):
    """Worker {name!r} is another device than before: it was {before}, and now it is {now}."""

    code = "worker_changed"
    hint = (
        "If it was set up anew: sleap-rtc workers --accept-new {name}. If not, somebody answers "
        "in its place."
    )


class StorageRefused(NotPermitted):
    """The storage {store} refused to {what}: {why}."""

    code = "storage_refused"
    hint = "Check the bucket's name, the credentials and the clocks of both machines."


class StorageOff(NotPermitted):
    """The server {server} keeps no files: its storage is switched off."""

    code, http_status = "storage_off", 501
    hint = "Models and data go straight between devices, as long as both are online."


class PathNotPermitted(NotPermitted):
    """{path}: {why}."""

    code = "path_not_permitted"


class ProtocolError(SleapRtcError):
    """What {peer} sent breaks the protocol: {why}."""

    code, exit_code, http_status = "protocol", 5, 400
    hint = "One side may be older: compare sleap-rtc --version on both."


class VersionMismatch(ProtocolError):
    """{peer} speaks protocol versions {theirs}; this sleap-rtc speaks {ours}."""

    code = "version_mismatch"
    hint = "Update the older side."


class FeatureMissing(ProtocolError):
    """{peer} runs an older sleap-rtc, which can't {what}."""

    code = "feature_missing"
    hint = "Update sleap-rtc on that machine."


class DataError(SleapRtcError):
    """{what}: {why}."""

    code, exit_code, http_status = "data", 1, 422


class Damaged(DataError):
    """{what} is damaged: {why}."""

    code = "damaged"


class SourceChanged(DataError):
    """{path} changed while it was being sent."""

    code = "source_changed"
    hint = "Start again when nothing writes to it any more."


class NoLibrary(DataError):
    """The worker can't read its library: {why}."""

    code = "no_library"
    hint = "On that machine, sleap-rtc doctor says more."


class NewerFormat(DataError):
    """{what} has format {found}; this sleap-rtc reads up to {known}, and leaves it as it is."""

    code = "newer_format"
    hint = "Update sleap-rtc on this machine."


class UnsafePath(DataError):
    """The path {path!r} is refused: {why}."""

    code = "unsafe_path"


class UnsafeUrl(DataError):
    """The URL {url!r} is refused: {why}."""

    code = "unsafe_url"


class OutOfSpace(SleapRtcError):
    """{path} has {free} free, and {need} are needed."""

    code, exit_code, http_status = "out_of_space", 1, 507
    hint = "Make room and give the same command again; what has arrived is kept."


class QuotaExceeded(OutOfSpace):
    """Room {room} may keep {limit} on the server and has {used}; {need} more are needed."""

    code = "quota_exceeded"
    hint = "Remove what the room doesn't need, or ask whoever runs the server for more."


class EngineError(SleapRtcError):
    """{message}"""

    code = "engine"


class EngineMissing(EngineError):
    """The engine {engine!r} is not installed on {where}."""

    code = "engine_missing"
    hint = "Run there: sleap-rtc engine install {engine}"


class TrainingFailed(EngineError):
    """{what} failed: {why}"""

    code = "training_failed"


class Cancelled(SleapRtcError):
    """{what} was cancelled."""

    code, exit_code, http_status = "cancelled", 130, 499


def _tree(root: type[SleapRtcError]) -> dict[str, type[SleapRtcError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_CODE: Final[dict[str, type[SleapRtcError]]] = _tree(SleapRtcError)
"""Stable code to class, for errors that arrive from the other side."""


class WireError(TypedDict):
    """What of an error a message carries."""

    code: str
    message: str
    hint: str
    details: dict[str, str]


def to_wire(error: SleapRtcError) -> WireError:
    """The error, cut to what a message of 64 KiB holds; :func:`from_wire` makes it again.

    At worst each character takes 6 bytes there: 10,000 of them fit, whatever they are.
    """
    details: dict[str, str] = {}
    left = 8_000
    for name, text in list(error.details.items())[:16]:
        details[name] = text[: max(left - len(name), 0)]
        left -= len(name) + len(details[name])
    return WireError(
        code=error.code,
        message=error.message[:1_000],
        hint=error.hint_text[:1_000],
        details=details,
    )


def from_wire(code: str, details: dict[str, Any], *, message: str, hint: str) -> SleapRtcError:
    """Rebuild the error that the other side raised.

    Args:
        code: The class's stable code; an unknown one (a newer peer's) gives the base class.
        details: The keyword arguments it was raised with.
        message: The sentence as the other side wrote it, which is kept.
        hint: The other side's hint, which is kept as it is.

    Returns:
        The error, ready to be raised.
    """
    known = BY_CODE.get(code)
    if known is None:
        return SleapRtcError(message=message, hint=hint)
    error = known(hint=hint, **{k: v for k, v in details.items() if k != "hint"})
    error.args = (message[:MAX_DETAIL],)
    return error
