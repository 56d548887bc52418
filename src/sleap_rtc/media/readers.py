"""Reading video frames without leaving open pipes behind.

sleap-io reads video through imageio, whose ffmpeg reader leaves the pipes to its
process to the garbage collector. Where warnings are errors that would surface
later, in whatever happens to run then.
"""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def readers_closed() -> Iterator[None]:
    """Collect video readers that went out of use within, at the end, without a word about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()
