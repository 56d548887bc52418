"""Block frames: round trips, and any bytes give a frame or a ProtocolError."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol import frames as f
from sleap_rtc.protocol.codec import MAX_MESSAGE

u32 = st.integers(0, 2**32 - 1)
packages = st.binary(min_size=32, max_size=32).map(lambda raw: PackageId(raw.hex()))
codes = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=64)
words = st.text(st.characters(codec="utf-8"), max_size=4_000)
controls = st.one_of(
    st.builds(f.GetListing, u32, packages),
    st.builds(f.GetBlock, u32, packages, u32, u32),
    st.builds(f.End, u32, u32),
    st.builds(f.Refuse, u32, codes, words),
    st.builds(f.Withdraw, u32),
)
several = st.builds(
    f.GetSeveral,
    u32,
    packages,
    st.lists(st.tuples(u32, u32), min_size=1, max_size=f.MAX_SEVERAL).map(tuple),
)


@given(controls | several)
def test_frames_come_back(frame: f.Asked | f.End | f.Refuse | f.Withdraw) -> None:
    raw = f.encode(frame)
    assert len(raw) <= MAX_MESSAGE
    assert f.decode(raw, peer="a peer") == frame


@given(u32, st.integers(0, 3 * f.MAX_CHUNK), st.integers(0, 255))
@example(1, BLOCK, 7)
@example(1, 0, 0)
def test_content_comes_back_in_pieces(request: int, size: int, fill: int) -> None:
    content = bytes([fill]) * size
    got = bytearray()
    while len(got) < size:
        piece = memoryview(content)[len(got) : len(got) + f.MAX_CHUNK]
        raw = f.data_frame(request, piece, len(got))
        assert len(raw) <= MAX_MESSAGE
        frame = f.decode(raw, peer="a peer")
        assert isinstance(frame, f.Data)
        assert (frame.request, frame.offset) == (request, len(got))
        assert frame.content
        got += frame.content
    assert got == content


@given(st.binary(max_size=80))
@example(b"")
@example(b"\x03\x00\x00\x00\x01")
@example(b"\x05\x00\x00\x00\x01\xff\xfe\x00\xff")
@example(b"\x07" + bytes(36))
@example(b"\x07" + bytes(44))
@example(b"\x07" + bytes(45))
@example(b"\x01" + bytes(MAX_MESSAGE))
@example(b"\x03" + bytes(MAX_MESSAGE - 1))
def test_any_bytes(raw: bytes) -> None:
    try:
        frame = f.decode(raw, peer="a peer")
    except ProtocolError:
        return
    if isinstance(frame, f.Data):
        assert f.data_frame(frame.request, frame.content, 0)[9:] == frame.content
    elif not isinstance(frame, f.Refuse):  # its words may have been mended
        assert f.encode(frame) == raw


@given(controls, st.binary(min_size=1, max_size=9))
def test_a_frame_of_another_length_is_refused(
    frame: f.GetListing | f.GetBlock | f.End | f.Refuse | f.Withdraw, rest: bytes
) -> None:
    if isinstance(frame, f.Refuse):
        return
    raw = f.encode(frame)
    with pytest.raises(ProtocolError, match="a block frame of kind"):
        f.decode(raw + rest, peer="a peer")


def test_a_request_for_several_names_some_and_not_too_many() -> None:
    package = PackageId("ab" * 32)
    for places in ((), ((0, 0),) * (f.MAX_SEVERAL + 1)):
        with pytest.raises(ValueError, match="blocks in one request"):
            f.encode(f.GetSeveral(1, package, places))
    most = f.encode(f.GetSeveral(1, package, ((7, 9),) * f.MAX_SEVERAL))
    assert len(most) == f.MAX_REQUEST
    for raw in (most[:37], most[:-1], most + most[-8:]):
        with pytest.raises(ProtocolError, match="a block frame of kind 7"):
            f.decode(raw, peer="a peer")


def test_unknown_kinds_and_sizes_are_named() -> None:
    with pytest.raises(ProtocolError, match="unknown kind 9"):
        f.decode(b"\x09" + bytes(8), peer="a peer")
    with pytest.raises(ProtocolError, match="65537 bytes"):
        f.decode(bytes(MAX_MESSAGE + 1), peer="a peer")
    with pytest.raises(ProtocolError, match="4 bytes"):
        f.decode(bytes(4), peer="a peer")


def test_a_refusal_is_cut_to_its_bounds() -> None:
    raw = f.encode(f.Refuse(1, "c" * 99, "😀" * 9_000))
    assert f.decode(raw, peer="a peer") == f.Refuse(1, "c" * 64, "😀" * 4_000)
    long = b"\x05" + bytes(4) + b"c" * 99 + b"\0" + b"m" * 9_000
    assert f.decode(long, peer="a peer") == f.Refuse(0, "c" * 64, "m" * 4_000)
