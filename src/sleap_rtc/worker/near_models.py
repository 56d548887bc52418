"""Telling a peer on this machine where a model's files are; see ``files/nearby.py``.

A peer of another user, or of another machine, believes nothing of it and fetches
as anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Final
from weakref import WeakKeyDictionary

from loguru import logger

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.files.nearby import Ends, marked
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import MAX_PATH_TOLD
from sleap_rtc.protocol.link import WantFiles
from sleap_rtc.protocol.moving import FilesNear, Near
from sleap_rtc.worker.peers import Asker

KEPT_S: Final = 30.0
"""Seconds that a mark is there: it is looked at when the answer has come."""
MAX_MARKS: Final = 16
"""Marks that are there at a time: whoever has most of them loses its oldest one to a new one."""


class NearModels:
    """Makes the marks of one worker. For one event loop.

    Args:
        registry: The worker's library.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        # The event loop alone holds them, so that they go when it does.
        self._marks: WeakKeyDictionary[contextlib.ExitStack, DeviceId] = WeakKeyDictionary()

    async def tell(self, asker: Asker, wanted: WantFiles) -> FilesNear | None:
        """Where a model's files are, with a mark that says the challenge; None for nowhere.

        Args:
            asker: The peer.
            wanted: What it may fetch; it gave a challenge.
        """
        if not wanted.challenge or wanted.model is None:
            return None
        entry = await asyncio.to_thread(self._registry.get, wanted.model)
        folder = str(entry.directory)
        if len(folder) > MAX_PATH_TOLD:
            return None
        ends = Ends(reader=asker.device, holder=asker.worker)
        mark = contextlib.ExitStack()
        try:
            path = mark.enter_context(marked(wanted.challenge, ends))
        except OSError as error:
            logger.debug("no mark for a peer: {}", error)
            return None
        if len(self._marks) >= MAX_MARKS:
            self._make_room()
        self._marks[mark] = asker.device
        asyncio.get_running_loop().call_later(KEPT_S, self._remove, mark)
        return FilesNear(near=Near(mark=str(path), folder=folder))

    def _make_room(self) -> None:
        """Remove the oldest mark of whoever has most: it has been looked at, as a rule."""
        ((most, _),) = Counter(self._marks.values()).most_common(1)
        self._remove(next(mark for mark, device in self._marks.items() if device == most))

    def _remove(self, mark: contextlib.ExitStack) -> None:
        if self._marks.pop(mark, None) is not None:
            with contextlib.suppress(OSError):
                mark.close()
