"""Sending a file to a store: in parts, several at once, and on from where it stopped.

::

    <state>/<32 hex of the path and the key>.sleap-upload-state/
        lock       held by the process that sends it
        journal    first the upload and the file as it was, then each part that is there

For each part: take its checksum, ask for a link that is good for that, send it, note
what the store answered. A failure that passes is tried again after a growing,
random wait and with a fresh link; when the store is too busy every sender waits.
What a killed process had sent is told by the store's own list and the journal
together: a part counts when both have it with the same ETag, or when the store tells the
SHA-256 that the file's part has. What somebody else sent in its place doesn't, and is
replaced. So a power cut, which may take the journal's last lines, costs no more than
sending those parts again, and nobody waits for the disk. An upload that isn't there any
more starts anew. A file that changes while it is sent is `SourceChanged`, and isn't tried
again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import (
    Damaged,
    DataError,
    NetworkError,
    PartsMissing,
    SleapRtcError,
    SourceChanged,
    StorageUnreachable,
    UnknownUpload,
)
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.hashing import FileStamp, stamp_of
from sleap_rtc.files.journal import Journal, read
from sleap_rtc.storage import xml
from sleap_rtc.storage.checksums import encoded, header_of
from sleap_rtc.storage.objects import (
    Part,
    StoredObject,
    StoredPart,
    Upload,
    UploadStore,
    etag_of,
    part_size_for,
)
from sleap_rtc.storage.pausing import ANEW, REFUSED, Patience, Pauses, failure_of, side_by_side
from sleap_rtc.storage.slices import checksum_of_slice
from sleap_rtc.storage.wire import Answer, Connections, FileSlice, Pace

IN_FLIGHT: Final = 10
"""Parts that are sent at once, unless set otherwise (``max_concurrent_parts``)."""
SUFFIX: Final = ".sleap-upload-state"

Progress = Callable[[int], None]
"""Called with the bytes that are there in all; after a failure they may be fewer than before."""


class _Began(msgspec.Struct, frozen=True):
    """The first line of a journal."""

    upload: Upload
    stamp: FileStamp


class _Sent(msgspec.Struct, frozen=True):
    """Each further line: a part that the store took."""

    part: Part
    etag: str

    @property
    def named(self) -> Part:
        """The part as it is named to complete the upload."""
        return msgspec.structs.replace(self.part, etag=self.etag)


_Line = TypeVar("_Line", _Began, _Sent)


def upload_file(
    store: UploadStore,
    path: Path,
    key: str,
    *,
    state: Path,
    entry: FileEntry | None = None,
    part_size: int | None = None,
    in_flight: int = IN_FLIGHT,
    pace: Pace | None = None,
    progress: Progress | None = None,
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
    connections: Connections | None = None,
) -> StoredObject:
    """Send a file to a store, which may have parts of it, or all, already.

    Args:
        store: A store, or the server in front of one.
        path: The file.
        key: What it will be called: a name made of its content, as what is there under it with the
            same size counts as the same.
        state: Folder where unfinished uploads are noted; made when it isn't there.
        entry: The file's blocks, where they are known: each is compared before it is sent.
        part_size: Bytes of a part; by the file's size as a rule.
        in_flight: Parts that are sent at once.
        pace: Called before bytes move, from any thread; it may wait, or raise to end this.
        progress: Told of how far it is, from any thread; what it raises ends this.
        patience: With a store that fails.
        connections: To be shared with other uploads, which then needn't make their own; who gives
            up this one ends what they do with them.

    Returns:
        What is there now.

    Raises:
        SourceChanged: The file changed while it was sent, or isn't what ``entry`` says.
        Busy: Another process of this machine is sending the same.
        StorageUnreachable: The store fails longer than patience lasts; what it has is kept.
        StorageRefused: It says no.
        OutOfSpace: It is full.
        Damaged: It keeps other bytes than it gets.
        OSError: The file can't be read.
    """
    path = path.resolve()
    name = blake3(f"{path}\0{key}".encode("utf-8", "surrogateescape")).hexdigest(length=16)
    fd = open_file(path)
    own = Connections() if connections is None else connections
    try:
        with Claim(state / f"{name}{SUFFIX}", what=f"The upload of {path}") as claim:
            sending = _Sending(
                store,
                fd,
                str(path),
                key,
                claim=claim,
                entry=entry,
                part_size=part_size or part_size_for(os.fstat(fd).st_size),
                in_flight=in_flight,
                pace=pace,
                progress=progress,
                patience=patience,
                connections=own,
            )
            done = sending.run()
            claim.remove()
            return done
    finally:
        if connections is None:
            own.close()
        os.close(fd)


class _Sending:
    """One file on its way."""

    def __init__(
        self,
        store: UploadStore,
        fd: int,
        path: str,
        key: str,
        *,
        claim: Claim,
        entry: FileEntry | None,
        part_size: int,
        in_flight: int,
        pace: Pace | None,
        progress: Progress | None,
        patience: Patience,
        connections: Connections,
    ) -> None:
        self._store = store
        self._fd = fd
        self._path = path
        self._key = key
        self._journal_path = claim.directory / "journal"
        self._entry = entry
        self._part_size = part_size
        self._in_flight = in_flight
        self._pace = pace
        self._progress = progress
        self._pauses = Pauses(patience)
        self._connections = connections
        self._stamp = stamp_of(fd)
        self._lock = threading.Lock()
        self._under_way: dict[int, int] = {}
        self._parts: dict[int, Part] = {}
        self._whole = 0
        if entry is not None and entry.size != self._stamp.size:
            raise SourceChanged(path=path)

    def run(self) -> StoredObject:
        """Send what is missing, and complete it."""
        for _ in range(ANEW):
            there = self._pauses.patiently(lambda: self._store.head(self._key))
            if there is not None and there.size == self._stamp.size:
                self._tell(there.size)
                return there
            with contextlib.suppress(UnknownUpload):
                return self._once()
            # It expired, or somebody gave it up: nothing of it is left.
            self._journal_path.unlink(missing_ok=True)
        raise StorageUnreachable(store="there", why="it loses uploads as soon as they are begun")

    def _once(self) -> StoredObject:
        journal = Journal(self._journal_path)
        try:
            upload = self._taken_up(journal)
            if upload is not None:
                try:
                    return self._finished(upload, journal)
                except (Damaged, SourceChanged):
                    raise
                except DataError as error:
                    # Its journal doesn't say what it is, as where another version has written it.
                    self._give_up(upload)
                    raise UnknownUpload(key=self._key) from error
            # A new file, as an old one may speak of another upload.
            journal.close()
            self._journal_path.unlink()
            journal = Journal(self._journal_path)
            return self._finished(self._begun(journal), journal)
        finally:
            journal.close()

    def _finished(self, upload: Upload, journal: Journal) -> StoredObject:
        """What becomes of an upload when its parts are there."""
        for _ in range(ANEW):
            self._send_missing(upload, journal)
            parts = [self._parts[number] for number in sorted(self._parts)]
            complete = functools.partial(self._store.complete, upload, parts)
            try:
                return self._pauses.patiently(complete)
            except PartsMissing:
                self._forget_lost(upload)
        raise Damaged(what=f"the upload to {self._key}", why="the store keeps losing parts")

    def _give_up(self, upload: Upload) -> None:
        with contextlib.suppress(SleapRtcError):
            self._store.abort(upload)

    def _taken_up(self, journal: Journal) -> Upload | None:
        """The upload that an earlier run began, and its parts; None when there is none."""
        try:
            records = iter(journal.records)
            began = _read(next(records, b""), _Began)
            sent = {found.part.number: found for found in (_read(each, _Sent) for each in records)}
        except msgspec.DecodeError:
            return None
        upload = began.upload
        same = (upload.key, upload.size, upload.part_size) == (
            self._key,
            self._stamp.size,
            self._part_size,
        )
        if not same or not began.stamp.same_content(self._stamp):
            self._give_up(upload)
            return None
        try:
            listed = self._pauses.patiently(lambda: self._store.parts(upload))
        except UnknownUpload:
            return None
        self._parts = {}
        for stored in listed:
            part = self._known(upload, stored, sent.get(stored.number))
            if part is not None:
                self._parts[part.number] = part
        return upload

    def _known(self, upload: Upload, stored: StoredPart, sent: _Sent | None) -> Part | None:
        """The part that the store has, if it is the file's."""
        if stored.number > upload.part_count or stored.size != upload.length(stored.number):
            return None
        if sent is not None and sent.named.is_there(stored):
            return sent.named
        if stored.sha256 is not None and upload.checksum == "sha256":
            part = self._hashed(upload, stored.number)
            if part.is_there(stored):
                return msgspec.structs.replace(part, etag=stored.etag)
        return None

    def _begun(self, journal: Journal) -> Upload:
        upload = self._pauses.patiently(
            lambda: self._store.begin(self._key, size=self._stamp.size, part_size=self._part_size)
        )
        self._parts = {}
        journal.append(msgspec.json.encode(_Began(upload=upload, stamp=self._stamp)))
        if upload.part_count > 1:  # a single part is sent again as quickly
            journal.sync()
        return upload

    def _forget_lost(self, upload: Upload) -> None:
        """Keep of the parts only those that the store still has as they were sent."""
        listed = self._pauses.patiently(lambda: self._store.parts(upload))
        there = {part.number: part for part in listed}
        for number, part in list(self._parts.items()):
            if not part.is_there(there.get(number)):
                del self._parts[number]

    def _send_missing(self, upload: Upload, journal: Journal) -> None:
        """Send the parts that aren't there, several at once; the first that fails ends all."""
        missing = [n for n in range(1, upload.part_count + 1) if n not in self._parts]
        self._under_way = {}
        self._whole = sum(part.size for part in self._parts.values())
        self._report()
        if len(missing) == 1:  # no threads for what one can do
            self._send(upload, missing[0], journal)
            return
        numbers = iter(missing)

        def work() -> None:
            while True:
                with self._lock:
                    number = next(numbers, None)
                if number is None or self._pauses.stopped:
                    return
                self._send(upload, number, journal)

        senders = min(self._in_flight, len(missing))
        if not senders:
            return

        def abort() -> None:
            self._pauses.stop()
            self._connections.abort()

        failure = side_by_side(work, senders, name="upload", stop=self._pauses.stop, abort=abort)
        self._pauses.resume()
        if failure is not None:
            raise failure

    def _send(self, upload: Upload, number: int, journal: Journal) -> None:
        """Send one part, as often as it takes."""
        part = self._hashed(upload, number)
        refused = 0
        for attempt in range(1, self._pauses.patience.attempts + 1):
            self._pauses.hold_back()
            try:
                request = self._store.part_requests(upload, [part])[0]
                answer = self._connections.send(
                    request,
                    FileSlice(fd=self._fd, offset=upload.offset(number), size=part.size),
                    pace=lambda size: self._moving(number, size),
                )
                self._unchanged()
                if answer.ok and (etag := _etag(upload, part, answer)):
                    self._note(_Sent(part=part, etag=etag), journal)
                    return
                failure = self._failure(answer, number)
            except NetworkError as error:
                self._unchanged()
                answer, failure = None, error
            if not isinstance(failure, NetworkError):
                # A link that ran out, or bytes that were damaged on the way, happen by chance.
                refused += 1
                if refused >= REFUSED:
                    raise failure
            if attempt == self._pauses.patience.attempts:
                raise failure
            with self._lock:
                self._under_way.pop(number, None)
            self._pauses.back_off(attempt, answer)
            if isinstance(failure, Damaged):
                part = self._hashed(upload, number)

    def _hashed(self, upload: Upload, number: int) -> Part:
        """A part with its checksum; its blocks are compared with those that are known."""
        checksum = checksum_of_slice(
            FileSlice(fd=self._fd, offset=upload.offset(number), size=upload.length(number)),
            upload.checksum,
            name=self._path,
            entry=self._entry if upload.part_size % BLOCK == 0 else None,
            going_on=self._pauses.check,
        )
        self._unchanged()
        return Part.of(upload, number, checksum)

    def _failure(self, answer: Answer, number: int) -> SleapRtcError:
        what = f"part {number} of {self._key}"
        if answer.ok:
            return Damaged(what=what, why="the store answers with another checksum, or none")
        if answer.status == 404 and xml.error(answer.body) != "NoSuchBucket":
            raise UnknownUpload(key=self._key)
        return failure_of(answer, what)

    def _note(self, sent: _Sent, journal: Journal) -> None:
        with self._lock:
            journal.append(msgspec.json.encode(sent))
            self._parts[sent.part.number] = sent.named
            self._whole += sent.part.size
            self._under_way.pop(sent.part.number, None)
        self._report()

    def _moving(self, number: int, size: int) -> None:
        """Before bytes of a part go out."""
        self._pauses.check()
        if self._pace is not None:
            self._pace(size)
        with self._lock:
            self._under_way[number] = self._under_way.get(number, 0) + size
        self._report()

    def _report(self) -> None:
        with self._lock:
            done = self._whole + sum(self._under_way.values())
        self._tell(done)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done)

    def _unchanged(self) -> None:
        if not stamp_of(self._fd).same_content(self._stamp):
            raise SourceChanged(path=self._path)


def _read(record: bytes, kind: type[_Line]) -> _Line:
    """A line of a journal.

    Raises:
        msgspec.DecodeError: It is none, or says more than this version knows: who wrote that may
            have meant another thing by the rest.
    """
    line = msgspec.json.decode(record, type=kind)
    if _says_more(msgspec.json.decode(record), msgspec.to_builtins(line)):
        raise msgspec.DecodeError("another version has written this")
    return line


def _says_more(said: object, known: object) -> bool:
    """Whether a document, or one in it, has fields that aren't known."""
    if not isinstance(said, dict) or not isinstance(known, dict):
        return False
    return any(name not in known or _says_more(said[name], known[name]) for name in said)


def unfinished(state: Path) -> Iterator[Path]:
    """The folders of uploads that were begun and not completed, to show or to remove."""
    if state.is_dir():
        yield from sorted(path for path in state.iterdir() if path.name.endswith(SUFFIX))


def forget_uploads(state: Path, paths: Iterable[Path]) -> int:
    """Forget what was begun of files, wherever it was to go. What a process is at stays.

    A store isn't told: it gives up by itself what nobody goes on with.

    Args:
        state: As for `upload_file`.
        paths: The files.

    Returns:
        How many uploads that were.
    """
    files: set[tuple[int, int]] = set()
    for path in paths:
        with contextlib.suppress(OSError):
            found = path.stat()
            files.add((found.st_dev, found.st_ino))
    count = 0
    for folder in unfinished(state):
        with contextlib.suppress(OSError, IndexError, msgspec.MsgspecError, SleapRtcError):
            records, _ = read((folder / "journal").read_bytes())
            began = msgspec.json.decode(records[0], type=_Began)
            if (began.stamp.device, began.stamp.inode) in files:
                Claim(folder, what=f"The upload {folder.name}").remove()
                count += 1
    return count


def _etag(upload: Upload, part: Part, answer: Answer) -> str:
    """The store's mark of a part; empty when it says something that can't be."""
    told = answer.headers.get(header_of(upload.checksum))
    if told is not None and told != encoded(part.pinned_by(upload.checksum) or b""):
        return ""
    return etag_of(answer.headers.get("etag", ""))
