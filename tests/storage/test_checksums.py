"""Checksums that pin parts: those of the standards, whatever the pieces that came."""

from __future__ import annotations

import hashlib
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.storage.checksums import QUICK, checksum_of, encoded, header_of, new_digest
from sleap_rtc.storage.objects import Checksum
from sleap_rtc.testing.store_conformance import forged


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", "00000000"),
        (b"123456789", "e3069283"),
        (bytes(32), "8a9136aa"),  # this and the next: RFC 3720, B.4
        (b"\xff" * 32, "62a8ab43"),
    ],
)
def test_crc32c_is_that_of_the_standard(data: bytes, crc: str) -> None:
    assert checksum_of("crc32c", data).hex() == crc


@given(st.lists(st.binary(max_size=50)), st.sampled_from(get_args(Checksum)))
def test_pieces_make_the_same_as_the_whole(pieces: list[bytes], checksum: Checksum) -> None:
    digest = new_digest(checksum)
    for piece in pieces:
        digest.update(piece)
    assert digest.digest() == checksum_of(checksum, b"".join(pieces))


@given(st.binary(min_size=5, max_size=200))
def test_a_crc32c_keeps_no_forger_away(data: bytes) -> None:
    other = forged(data)
    assert other != data
    assert checksum_of("crc32c", other) == checksum_of("crc32c", data)
    assert checksum_of("sha256", other) != checksum_of("sha256", data)


def test_as_s3_has_them() -> None:
    assert QUICK
    assert encoded(checksum_of("crc32c", b"123456789")) == "4waSgw=="
    assert encoded(hashlib.sha256().digest()).startswith("47DEQpj8")
    assert {header_of(checksum) for checksum in get_args(Checksum)} == {
        "x-amz-checksum-sha256",
        "x-amz-checksum-crc32c",
    }
