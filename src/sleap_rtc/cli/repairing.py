"""What ``repair-model`` does: looks, proposes, asks, mends, and looks again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from sleap_rtc.cli.app import App
from sleap_rtc.cli.care_documents import RepairDocument, RepairedFileShown, RepairedShown
from sleap_rtc.cli.several import Several
from sleap_rtc.cli.text import Cell, Column, bar, count
from sleap_rtc.client.mending import fetch_missing
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import FilesMissing, NotFound, SleapRtcError
from sleap_rtc.library import repair as mend
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.repair import Fault
from sleap_rtc.transfer.progress import Progress

_WORDS: Final = {
    "missing": ("is not there", "are not there"),
    "changed": ("is another", "are others"),
    "broken-link": ("leads nowhere", "lead nowhere"),
}
_SHOWN: Final = 3
"""Files that a line names."""
_BAR: Final = 24


def repair(
    app: App,
    names: Sequence[str],
    *,
    path: Path | None,
    worker: str | None,
    room: str | None,
    yes: bool,
) -> None:
    """Mend models; what fails of one doesn't keep the others.

    Args:
        app: The invocation.
        names: Their names; none for every model.
        path: Where their files are now, if that was said.
        worker: The worker to bring files from, if one was named.
        room: The worker's room.
        yes: Whether to go on without asking.

    Raises:
        NotFound: There is nothing at the path.
        UnknownModel: The only one that was named isn't there.
    """
    if path is not None and not path.exists():
        raise NotFound(message=f"There is nothing at {path}.")
    several = Several(app)
    chosen = _chosen(app, names, several)
    app.goes_on = "What was mended so far stays so: the same command goes on."
    done: list[_Repair] = []
    for directory in chosen:
        with several.one(directory.name):
            done.append(_Repair(app, directory, yes=yes))
            done[-1].run(path, worker, room)
    seen = [one for one in done if one.seen is not None]
    if not seen:
        several.check()
    document = RepairDocument(
        models=tuple(one.seen for one in seen if one.seen is not None), failed=several.failed
    )
    app.out.show(document, lambda: _print(app, seen, brief=not names))
    several.end()


def _chosen(app: App, names: Sequence[str], several: Several) -> dict[Path, None]:
    """The directories of the models that are named, each once; of all without a name."""
    library = app.library()
    if not names:
        return dict.fromkeys(
            library.models_dir / one.directory.name
            if isinstance(one, Entry)
            else library.models_dir / one.directory
            for one in sorted(library.walk(), key=lambda one: str(one.directory))
        )
    chosen: dict[Path, None] = {}
    for name in names:
        with several.one(name):
            chosen |= dict.fromkeys(mend.directories_of(library, name))
    return chosen


def _print(app: App, seen: Sequence[_Repair], *, brief: bool) -> None:
    """Say what became of each; of all, only of those of which there is something to say."""
    for one in seen:
        if not brief or one.touched:
            one.print()
    if brief:
        good = sum(not one.touched for one in seen)
        app.out.say(f"{count(good, 'model')} of {len(seen):,}: nothing was wrong.")


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - _SHOWN
    if more > 0:
        return f"{', '.join(paths[:_SHOWN])} and {more:,} more"
    return " and ".join(filter(None, (", ".join(paths[:-1]), paths[-1])))


def _where(found: Mapping[str, Path]) -> Iterator[str]:
    """Where files were found: in one folder, or each by itself."""
    folders = {str(place).removesuffix(f"/{path}") for path, place in found.items()}
    folder = folders.pop() if len(folders) == 1 and len(found) > 1 else ""
    if folder and all(str(place) == f"{folder}/{path}" for path, place in found.items()):
        yield f"{_named(list(found))} are in {folder}."
        return
    for path, place in list(found.items())[:_SHOWN]:
        yield f"{path} is at {place}."
    if len(found) > _SHOWN:
        yield f"{len(found) - _SHOWN:,} more were found."


class _Repair:
    """Mends one model.

    Attributes:
        seen: What became of it; None before all of it was looked at.
    """

    def __init__(self, app: App, directory: Path, *, yes: bool) -> None:
        self._app, self._yes = app, yes
        self._client = app.client()
        self._library = self._client.library
        self._directory = directory
        self._came: dict[str, str] = {}
        self._found_more = False
        self.seen: RepairedShown | None = None

    def run(self, path: Path | None, worker: str | None, room: str | None) -> None:
        """Mend it.

        Raises:
            FilesMissing: Files of it are still not as they should be; the rest is mended.
        """
        record = mend.mend_record(self._library, self._directory)
        if record is not None:
            where = f"revision {record.source}" if record.source else "model.json"
            self._say(f"{self._directory.name}: its record was damaged; it is as in {where} again.")
        entry = self._entry()
        aliases = mend.mend_aliases(self._library, entry.id)
        if aliases:
            self._say(f"It had another alias too, which is removed: {', '.join(aliases)}.")
        faults = self._examine()
        if faults:
            self._app.out.say(f"{entry.label}:", "name")
        for state, (one, many) in _WORDS.items():
            paths = [fault.file.path for fault in faults if fault.state == state]
            if paths:
                self._say(f"{_named(paths)} {one if len(paths) == 1 else many}.")
        left = faults
        if left:
            left = self._from_here(left, path)
        if left:
            self._from_worker(left, worker, room)
            left = self._examine()
        entry = self._entry()
        if not left:
            entry = mend.found_again(self._library, entry)
        self.seen = self._shown(entry, record is not None, aliases, faults, left)
        if left:
            files = ", ".join(fault.file.path for fault in left)
            hint = "Say where they are with --path, or --from-worker WORKER."
            if self._found_more:
                hint = "Add --yes to use what there is."
            raise FilesMissing(name=entry.label, files=files, hint=hint)

    def _entry(self) -> Entry:
        found = self._library.resolve(str(self._directory))
        assert isinstance(found, Entry)  # noqa: S101 - its record was just mended
        return found

    def _examine(self) -> tuple[Fault, ...]:
        live = self._app.out.live
        try:
            return mend.examine(
                self._entry(),
                self._client.cache,
                on_file=lambda path: live.update([f"checking {path}"]),
            )
        finally:
            live.clear()

    # ── on this machine ──────────────────────────────────────────────────────

    def _from_here(self, faults: tuple[Fault, ...], path: Path | None) -> tuple[Fault, ...]:
        left = self._look(faults, path, asked=path is None)
        while left and path is None and any(f.state == "broken-link" for f in left):
            if not self._app.out.interactive or self._yes:
                break
            told = self._app.out.prompt("Where are they now? A folder or a file; empty to go on:")
            if not told:
                break
            place = Path(told).expanduser()
            if not place.exists():
                self._say(f"There is nothing at {place}.")
                continue
            left = self._look(left, place, asked=False)
        return left

    def _look(
        self, faults: tuple[Fault, ...], near: Path | None, *, asked: bool
    ) -> tuple[Fault, ...]:
        """Look for the right content, and take it; ``asked`` where nobody said where to look."""
        live = self._app.out.live
        live.update(["looking for the files"])
        entry = self._entry()
        try:
            found = mend.find_nearby(entry, faults, self._client.cache, near=near)
        finally:
            live.clear()
        if near is not None and not found:
            self._say(f"None of them is at {near}: nothing there has their content.")
        if not found:
            return faults
        for sentence in _where(found):
            self._say(sentence)
        if asked and not self._agree("Use that?" if len(found) == 1 else "Use those?"):
            return faults
        links = {
            fault.file.path: found[fault.file.path]
            for fault in faults
            if fault.file.link is not None and fault.file.path in found
        }
        copies = {path: place for path, place in found.items() if path not in links}
        if links:
            entry = mend.relink(self._library, entry, links)
        if copies:
            mend.copy_in(self._library, entry, copies)
        self._came |= {path: str(place) for path, place in found.items()}
        return self._examine()

    # ── from a worker ────────────────────────────────────────────────────────

    def _from_worker(self, faults: tuple[Fault, ...], worker: str | None, room: str | None) -> None:
        entry = self._entry()
        named = (
            [worker]
            if worker
            else [at.name for at in reversed(entry.record.locations) if at.kind == "worker"]
        )
        size = format_bytes(sum(fault.file.size for fault in faults))
        for name in named:
            what = f"{count(len(faults), 'file')}, {size}, from {name}"
            if worker is None and not self._agree(f"Bring {what}?"):
                continue
            try:
                mended = self._app.run(self._fetch(entry, faults, name, room))
            except SleapRtcError as error:
                if worker is not None:
                    raise
                self._app.out.warn(f"Not from {name}: {error.message}")
                continue
            self._came |= dict.fromkeys(mended, f"worker:{name}")
            faults = tuple(fault for fault in faults if fault.file.path not in mended)
            if not faults:
                return

    async def _fetch(
        self, entry: Entry, faults: Sequence[Fault], worker: str, room: str | None
    ) -> tuple[str, ...]:
        live = self._app.out.live

        def progress(now: Progress) -> None:
            share = now.done / now.total if now.total else 1.0
            text = f"{now.phase} {format_bytes(now.done)} of {format_bytes(now.total)}"
            live.update([f"{bar(share, _BAR)} {text}"], plain=text)

        self._app.goes_on = "What has arrived is kept: the same command takes it up."
        try:
            async with self._client.library_of(worker, room=room) as library:
                return await fetch_missing(
                    library, self._library, entry, faults, on_progress=progress
                )
        finally:
            live.clear()

    # ── words ────────────────────────────────────────────────────────────────

    def _say(self, text: str) -> None:
        self._app.out.say(text)

    def _agree(self, question: str) -> bool:
        if self._yes:
            return True
        if not self._app.out.interactive:
            self._say(f"{question} Add --yes to do so.")
            self._found_more = True
            return False
        return self._app.out.ask(question, default=True)

    def _shown(
        self,
        entry: Entry,
        record: bool,
        aliases: tuple[str, ...],
        faults: tuple[Fault, ...],
        left: tuple[Fault, ...],
    ) -> RepairedShown:
        now = {fault.file.path: fault.state for fault in left}
        return RepairedShown(
            id=entry.id,
            alias=entry.alias,
            whole=not left,
            record="mended" if record else "good",
            aliases=aliases,
            files=tuple(
                RepairedFileShown(
                    path=fault.file.path,
                    was=fault.state,
                    now=now.get(fault.file.path, "ok"),
                    source=self._came.get(fault.file.path),
                )
                for fault in faults
            ),
        )

    @property
    def touched(self) -> bool:
        """Whether there was something to mend."""
        seen = self.seen
        return seen is not None and bool(seen.files or seen.aliases or seen.record == "mended")

    def print(self) -> None:
        """Say what became of it."""
        seen = self.seen
        assert seen is not None  # noqa: S101 - the caller looked
        if seen.files:
            self._app.out.table(
                [
                    Column("file", least=16),
                    Column("was", whole=True),
                    Column("now", whole=True),
                    Column("from"),
                ],
                [
                    [
                        Cell(file.path, "name"),
                        file.was,
                        Cell(file.now, "good" if file.now == "ok" else "bad"),
                        file.source or "",
                    ]
                    for file in seen.files
                ],
            )
        entry = self._entry()
        if not entry.record.files:
            self._say(f"{entry.label} has no files on this machine: there is nothing to compare.")
        elif seen.whole:
            files = count(len(entry.record.files), "file")
            as_it_was = "" if self.touched else "Nothing was wrong: "
            self._say(f"{as_it_was}{entry.label} is whole: {files}, all as recorded.")
