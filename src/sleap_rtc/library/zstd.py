"""Zstandard, where the package ``zstandard`` is installed: faster than gzip, and smaller.

What is read may have been made to do harm, so the memory that it may ask for is
bounded, and what is wrong with it is a ``ValueError``, as of the other compressions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any, Final, cast

from sleap_rtc.errors import UsageError

MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""How such a file begins."""
LEVEL: Final = 3
MAX_WINDOW: Final = 128 * 1024 * 1024
"""Bytes of memory that a file may ask for; its own program allows as much."""


def reader(file: IO[bytes]) -> IO[bytes]:
    """What is packed in a file, to be read forwards.

    Raises:
        UsageError: The package isn't installed.
    """
    return cast("IO[bytes]", _Reader(file))


@contextlib.contextmanager
def writer(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Packs what is written into a file, which stays open.

    Raises:
        UsageError: The package isn't installed.
    """
    with _library().ZstdCompressor(level=LEVEL).stream_writer(file, closefd=False) as packed:
        yield packed


def _library() -> Any:
    try:
        import zstandard  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise UsageError(
            message="Files that end with .zst need the package zstandard, which isn't installed.",
            hint="pip install 'sleap-rtc[zstd]', or name it .tar or .tar.gz.",
        ) from None
    return zstandard


class _Reader:
    """Reads forwards; what the package finds wrong is a ``ValueError``."""

    def __init__(self, file: IO[bytes]) -> None:
        library = _library()
        unpacker = library.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._stream = unpacker.stream_reader(file, read_across_frames=True, closefd=False)
        self._error = library.ZstdError

    def read(self, size: int = -1) -> bytes:
        with self._told():
            return bytes(self._stream.read(size))

    def seek(self, offset: int) -> int:
        with self._told():
            return int(self._stream.seek(offset))

    def tell(self) -> int:
        return int(self._stream.tell())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise ValueError(str(error)) from None
