import io
import sys

import pytest
import zstandard

from sleap_rtc.errors import UsageError
from sleap_rtc.library import zstd

DATA = bytes(range(251)) * 40_000


def packed(data: bytes = DATA) -> bytes:
    file = io.BytesIO()
    with zstd.writer(file) as out:
        out.write(data[:1_000])
        out.write(data[1_000:])
    return file.getvalue()


def test_what_is_written_is_read() -> None:
    file = io.BytesIO()
    with zstd.writer(file) as out:
        out.write(DATA)
    assert not file.closed
    assert file.getvalue().startswith(zstd.MAGIC)
    assert zstandard.decompress(file.getvalue(), max_output_size=len(DATA)) == DATA
    file.seek(0)
    assert zstd.reader(file).read(len(DATA) + 1) == DATA


def test_it_is_read_forwards() -> None:
    stream = zstd.reader(io.BytesIO(packed()))
    assert stream.read(3) == DATA[:3]
    assert stream.seek(5_000_000) == stream.tell() == 5_000_000
    assert stream.read(10) == DATA[5_000_000:5_000_010]


@pytest.mark.parametrize("at", [1, 6, 20, 100])
def test_what_is_damaged_is_a_value_error_or_ends_early(at: int) -> None:
    data = bytearray(packed())
    data[at] ^= 0xFF
    try:
        read = zstd.reader(io.BytesIO(bytes(data))).read(len(DATA) + 1)
    except ValueError:
        return
    assert read != DATA


def test_what_asks_for_much_memory_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=30)
    compressor = zstandard.ZstdCompressor(compression_params=wide)
    out = compressor.compressobj()  # whose size isn't known beforehand
    data = out.compress(DATA) + out.flush()
    with pytest.raises(ValueError, match="memory"):
        zstd.reader(io.BytesIO(data)).read(10)


def test_without_the_package_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UsageError, match="zstandard") as caught:
        zstd.reader(io.BytesIO(data))
    assert "sleap-rtc[zstd]" in caught.value.hint_text
    with pytest.raises(UsageError), zstd.writer(io.BytesIO()):
        pass
