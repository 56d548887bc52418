"""Announcements of direct connections, and the proofs that are made of them."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from sleap_rtc.domain.values import from_plain, to_plain
from sleap_rtc.errors import DataError
from sleap_rtc.protocol.direct import MAX_ADDRESSES, MAX_PATH, Address, End, OpenDirect, proofs
from sleap_rtc.protocol.link import CANNOT, FEATURES, NEEDS

ONE = End(certificate="aa" * 300, secret="11" * 32)
TWO = End(certificate="bb" * 300, secret="22" * 32)


def test_proofs_belong_to_one_announcement_of_one_link():
    changed = [
        ("session", ONE, TWO),
        ("session2", ONE, TWO),
        ("session", TWO, ONE),
        ("session", msgspec.structs.replace(ONE, secret="12" * 32), TWO),
        ("session", ONE, msgspec.structs.replace(TWO, secret="23" * 32)),
        ("session", msgspec.structs.replace(ONE, certificate="ab" * 300), TWO),
        ("session", ONE, msgspec.structs.replace(TWO, certificate="bc" * 300)),
        # What belongs to one part never counts for the next.
        ("session" + ONE.secret, msgspec.structs.replace(ONE, secret=""), TWO),
    ]
    made = list(itertools.chain(*(proofs(*each) for each in changed)))
    assert len(set(made)) == len(made)
    assert all(len(each) == 32 for each in made)
    assert proofs("session", ONE, TWO) == proofs("session", ONE, TWO)


def test_no_secret_is_shown():
    assert ONE.secret not in repr(OpenDirect(end=ONE))


@pytest.mark.parametrize(
    "bad",
    [
        {"secret": "11" * 31},
        {"certificate": ""},
        {"certificate": "abc"},
        {"certificate": "aa" * 2049},
        {"addresses": [{"host": "10.0.0.1", "port": 2000}] * (MAX_ADDRESSES + 1)},
        {"addresses": [{"host": "10.0.0.1", "port": 22}]},
        {"addresses": [{"host": "server.lab", "port": 2000}]},
        {"path": "x" * (MAX_PATH + 1)},
    ],
)
def test_what_is_out_of_bounds_is_no_announcement(bad):
    assert from_plain(End, to_plain(ONE), what="test") == ONE
    with pytest.raises(DataError):
        from_plain(End, {**to_plain(ONE), **bad}, what="test")


def test_only_peers_that_know_of_it_are_asked():
    assert NEEDS[OpenDirect] in FEATURES
    assert NEEDS[OpenDirect] in CANNOT


def test_an_address_may_be_of_either_kind():
    assert Address(host="fd00::2", port=2000) != Address(host="10.0.0.1", port=2000)
