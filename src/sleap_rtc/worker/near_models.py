"""Telling a peer on this machine where a model's files are; see ``files/nearby.py``.

A peer of another user, or of another machine, believes nothing of it and fetches
as anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from loguru import logger

from sleap_rtc.files.nearby import marked
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import MAX_PATH_TOLD
from sleap_rtc.protocol.link import WantFiles
from sleap_rtc.protocol.moving import FilesNear, Near

KEPT_S: Final = 30.0
"""Seconds that a mark is there: it is looked at when the answer has come."""
MAX_MARKS: Final = 16
"""Marks that are there at a time."""


class NearModels:
    """Makes the marks of one worker. For one event loop.

    Args:
        registry: The worker's library.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._marks = 0

    async def tell(self, wanted: WantFiles) -> FilesNear | None:
        """Where a model's files are, with a mark that says the challenge; None for nowhere.

        Args:
            wanted: What a peer may fetch; it gave a challenge.
        """
        if not wanted.challenge or wanted.model is None or self._marks >= MAX_MARKS:
            return None
        entry = await asyncio.to_thread(self._registry.get, wanted.model)
        folder = str(entry.directory)
        if len(folder) > MAX_PATH_TOLD:
            return None
        mark = contextlib.ExitStack()
        try:
            path = mark.enter_context(marked(wanted.challenge, by="worker"))
        except OSError as error:
            logger.debug("no mark for a peer: {}", error)
            return None
        self._marks += 1
        asyncio.get_running_loop().call_later(KEPT_S, self._remove, mark)
        return FilesNear(near=Near(mark=str(path), folder=folder))

    def _remove(self, mark: contextlib.ExitStack) -> None:
        self._marks -= 1
        with contextlib.suppress(OSError):
            mark.close()
