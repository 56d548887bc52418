"""A disk that can be cut off: every change to files is seen, and may be the last one.

:class:`WatchedDisk` watches what this process does below a folder, through the
functions of ``os`` that change names and sync data. It serves two questions:

* *What if the process is killed before its n-th change?* With ``kill_at`` that
  change, and every later one, raises :class:`Killed`, so that no clean-up runs.
* *What if the power goes after the n-th change?* :meth:`WatchedDisk.after_power_cut`
  builds the folder as a disk would show it then.

========  ===================================================================
loses     what is there after a power cut
========  ===================================================================
`unsynced`   nothing but what was synced: a file's bytes by its own sync, a name
             by the sync of its directory
`data`       every name, as a journal keeps them; bytes only of synced files
========  ===================================================================

Linux alone: descriptors are traced to paths by ``/proc``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal
from unittest import mock

import msgspec

Loses = Literal["unsynced", "data"]

_CREATING: Final = os.O_CREAT
_WRITING: Final = "wxa+"


class Killed(BaseException):
    """The process is dead: no handler for errors takes notice, and nothing more is changed."""


class Change(msgspec.Struct, frozen=True):
    """One change.

    Attributes:
        what: ``create``, ``mkdir``, ``link``, ``symlink``, ``rename``, ``remove``, ``sync``.
        path: What it is made to.
        other: The new path, of a link or a rename.
        content: What a sync brought to the disk; None of a directory.
    """

    what: str
    path: str
    other: str = ""
    content: bytes | None = None


class WatchedDisk:
    """Watches a folder, as a context manager. Nothing else changes it meanwhile.

    Args:
        root: The folder.
        kill_at: Number of the change before which the process dies, from 0; None lets it live.

    Attributes:
        changes: What was changed so far.
    """

    def __init__(self, root: Path, *, kill_at: int | None = None) -> None:
        self.changes: list[Change] = []
        self._root = root.resolve()
        self._kill_at = kill_at
        self._before = _Tree.of(self._root)
        self._patches = contextlib.ExitStack()

    def __enter__(self) -> WatchedDisk:
        for name, watched in (
            ("open", self._open),
            ("mkdir", functools.partial(self._one, "mkdir")),
            ("rmdir", functools.partial(self._one, "remove")),
            ("unlink", functools.partial(self._one, "remove")),
            ("remove", functools.partial(self._one, "remove")),
            ("rename", functools.partial(self._two, "rename")),
            ("replace", functools.partial(self._two, "rename")),
            ("link", functools.partial(self._two, "link")),
            ("symlink", self._symlink),
            ("fsync", self._sync),
        ):
            self._patch(os, name, watched)
        self._patch(io, "open", self._open_file)
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()

    @property
    def killed(self) -> bool:
        """Whether the process died."""
        return self._kill_at is not None and len(self.changes) >= self._kill_at

    def after_power_cut(self, count: int, target: Path, *, loses: Loses) -> None:
        """Build the folder as it is found when the power goes after some changes.

        Args:
            count: Number of changes that were made.
            target: An empty folder.
            loses: What is lost.
        """
        tree = self._before.copy()
        for change in self.changes[:count]:
            tree.apply(change)
        tree.build(target, loses=loses)

    def _patch(self, module: Any, name: str, watched: Callable[..., Any]) -> None:
        real = getattr(module, name)
        patch = mock.patch.object(module, name, functools.partial(watched, real))
        self._patches.enter_context(patch)

    def _alive(self) -> None:
        if self.killed:
            raise Killed

    def _inside(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Path below the root, None for any other."""
        if isinstance(path, int):
            whole = _path_of(path)
        else:
            whole = Path(os.fsdecode(path))
            if dir_fd is not None:
                whole = _path_of(dir_fd) / whole
            whole = whole.absolute()
            whole = whole.parent.resolve() / whole.name
        if not whole.is_relative_to(self._root):
            return None
        return str(whole.relative_to(self._root))

    def _one(
        self, what: str, real: Any, path: Any, *given: Any, dir_fd: int | None = None, **more: Any
    ) -> Any:
        inside = self._inside(path, dir_fd)
        if inside is None:
            return real(path, *given, dir_fd=dir_fd, **more)
        self._alive()
        result = real(path, *given, dir_fd=dir_fd, **more)
        self.changes.append(Change(what, inside))
        return result

    def _two(self, what: str, real: Any, source: Any, target: Any, **more: Any) -> Any:
        old = self._inside(source, more.get("src_dir_fd"))
        new = self._inside(target, more.get("dst_dir_fd"))
        if old is None or new is None:
            return real(source, target, **more)
        self._alive()
        result = real(source, target, **more)
        self.changes.append(Change(what, old, new))
        return result

    def _symlink(self, real: Any, source: Any, target: Any, *given: Any, **more: Any) -> Any:
        inside = self._inside(target)
        if inside is None:
            return real(source, target, *given, **more)
        self._alive()
        result = real(source, target, *given, **more)
        self.changes.append(Change("symlink", inside, os.fsdecode(source)))
        return result

    def _open(
        self, real: Any, path: Any, flags: int, *given: Any, dir_fd: int | None = None, **more: Any
    ) -> Any:
        inside = self._inside(path, dir_fd) if flags & _CREATING else None
        new = inside is not None and not os.path.lexists(self._root / (inside or "."))
        if new:
            self._alive()
        fd = real(path, flags, *given, dir_fd=dir_fd, **more)
        if new and inside is not None:
            self.changes.append(Change("create", inside))
        return fd

    def _open_file(self, real: Any, path: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
        writing = not isinstance(path, int) and any(letter in mode for letter in _WRITING)
        inside = self._inside(path) if writing else None
        new = inside is not None and not os.path.lexists(self._root / (inside or "."))
        if new:
            self._alive()
        file = real(path, mode, *given, **more)
        if new and inside is not None:
            self.changes.append(Change("create", inside))
        return file

    def _sync(self, real: Any, fd: int) -> None:
        inside = self._inside(fd)
        if inside is None:
            real(fd)
            return
        self._alive()
        real(fd)
        path = self._root / inside
        content = None if path.is_dir() else path.read_bytes()
        self.changes.append(Change("sync", inside, content=content))


class _Node:
    """A file, a link or a directory: as programs see it, and as the disk holds it."""

    def __init__(self, kind: Literal["file", "link", "directory"], data: bytes = b"") -> None:
        self.kind = kind
        self.synced = data
        self.names: dict[str, _Node] = {}
        self.synced_names: dict[str, _Node] = {}


class _Tree:
    """A folder, in which names lead to nodes; a node may have several."""

    def __init__(self, root: _Node) -> None:
        self._root = root

    @classmethod
    def of(cls, path: Path) -> _Tree:
        """What is there, all of it on the disk."""
        return cls(_read(path, {}))

    def copy(self) -> _Tree:
        copies: dict[int, _Node] = {}

        def copy(node: _Node) -> _Node:
            if id(node) not in copies:
                made = copies[id(node)] = _Node(node.kind, node.synced)
                made.names = {name: copy(below) for name, below in node.names.items()}
                made.synced_names = {n: copy(below) for n, below in node.synced_names.items()}
            return copies[id(node)]

        return _Tree(copy(self._root))

    def apply(self, change: Change) -> None:
        parent, name = self._find(change.path)
        match change.what:
            case "create":
                parent.names[name] = _Node("file")
            case "mkdir":
                parent.names[name] = _Node("directory")
            case "symlink":
                parent.names[name] = _Node("link", os.fsencode(change.other))
            case "remove":
                del parent.names[name]
            case "link" | "rename":
                other, new = self._find(change.other)
                other.names[new] = parent.names[name]
                if change.what == "rename":
                    del parent.names[name]
            case "sync":
                node = parent.names[name] if name else parent
                if change.content is None:
                    node.synced_names = dict(node.names)
                else:
                    node.synced = change.content

    def build(self, target: Path, *, loses: Loses) -> None:
        made: dict[int, Path] = {}

        def build(node: _Node, path: Path) -> None:
            if id(node) in made and node.kind == "file":
                path.hardlink_to(made[id(node)])
                return
            made[id(node)] = path
            if node.kind == "link":
                path.symlink_to(os.fsdecode(node.synced))
            elif node.kind == "file":
                path.write_bytes(node.synced)
            else:
                path.mkdir(exist_ok=True)
                below = node.synced_names if loses == "unsynced" else node.names
                for name, each in below.items():
                    build(each, path / name)

        build(self._root, target)

    def _find(self, path: str) -> tuple[_Node, str]:
        """The directory that holds a path, and the name in it; the root has none."""
        if path == ".":
            return self._root, ""
        *parents, name = path.split("/")
        node = self._root
        for part in parents:
            node = node.names[part]
        return node, name


def _path_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _read(path: Path, seen: dict[int, _Node]) -> _Node:
    found = path.lstat()
    if found.st_ino in seen:
        return seen[found.st_ino]
    if path.is_symlink():
        node = _Node("link", os.fsencode(path.readlink()))
    elif path.is_dir():
        node = _Node("directory")
        node.names = {below.name: _read(below, seen) for below in path.iterdir()}
        node.synced_names = dict(node.names)
    else:
        node = _Node("file", path.read_bytes())
    seen[found.st_ino] = node
    return node
