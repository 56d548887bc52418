"""Files of this machine that a job may name by their paths: those that its owner permits.

Nothing is permitted by itself. Below a permitted folder no link is followed, so
nobody is led out of it; of a file that is named, size and content have to be known
already by whoever names it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import NotFound, PathNotPermitted, SleapRtcError
from sleap_rtc.files.beneath import Root
from sleap_rtc.jobs.datasets import SharedFile


class SharedFolders:
    """The folders whose files jobs may name. For many threads.

    Args:
        folders: As the setting ``worker_shared`` has them.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        # Whoever names a file may know the folder by its own name or by the one it leads to.
        self._folders = tuple(
            dict.fromkeys(
                PurePosixPath(each)
                for folder in folders
                for each in (os.path.abspath(folder), os.path.realpath(folder))  # noqa: PTH100
            )
        )

    def open(self, path: str) -> int:
        """Open a file of one of them, to be read.

        Returns:
            A descriptor that the caller closes.

        Raises:
            PathNotPermitted: It is in none of them, or this user may not read it.
            NotFound: There is no such file.
            UnsafePath: It leads out of its folder, through a link, or is no regular file.
        """
        given = PurePosixPath(path)
        folder = next((each for each in self._folders if given.is_relative_to(each)), None)
        if folder is None or given == folder:
            raise PathNotPermitted(
                path=path,
                why="the worker's owner permits no folder above it",
                hint="A folder is permitted there with the setting worker_shared.",
            )
        relative = check_path(given.relative_to(folder).as_posix())
        try:
            root = Root(Path(folder))
            with contextlib.closing(root):
                return root.open(relative)
        except FileNotFoundError:
            raise NotFound(message=f"The worker sees no file {path}.") from None
        except PermissionError:
            raise PathNotPermitted(path=path, why="the worker may not read it") from None
        except OSError as error:
            raise NotFound(message=f"The worker can't open {path}: {error.strerror}.") from None

    def sees(self, file: SharedFile) -> bool:
        """Whether there is such a file with this size; its content is looked at later."""
        try:
            fd = self.open(file.path)
        except SleapRtcError:
            return False
        try:
            return os.fstat(fd).st_size == file.size_bytes
        finally:
            os.close(fd)
