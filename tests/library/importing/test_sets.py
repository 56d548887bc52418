"""Which files belong together, and which are missing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.library.importing import sets


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["m-00001-of-00003.safetensors", "m-00003-of-00003.safetensors"],
         ["m-00002-of-00003.safetensors"]),
        (["m-00000-of-00002.bin", "m-00001-of-00002.bin"], []),
        (["m-00002-of-00002.bin"], ["m-00001-of-00002.bin"]),
        (["m.ckpt.part1", "m.ckpt.part3"], ["m.ckpt.part2"]),
        (["m.ckpt.part01", "m.ckpt.part03"], ["m.ckpt.part02"]),
        (["m.ckpt.part0", "m.ckpt.part1"], []),
        (["m_00001.h5", "m_00004.h5"], ["m_00002.h5", "m_00003.h5"]),
        (["epoch_00010.ckpt", "epoch_00020.ckpt"], []),
        (["m_00007.h5"], []),
        (["best.ckpt", "last.ckpt"], []),
        (["m-00001-of-99999.bin"], []),
    ],
)  # fmt: skip
def test_holes_are_named(names, missing):
    assert sets.missing(names) == tuple(missing)


def test_files_are_grouped_by_set():
    names = ["b_00002.h5", "b_00001.h5", "a.pt", "e_00010.pt", "e_00020.pt", "x.part2", "x.part1"]
    assert sorted(sets.grouped(names).values()) == [
        ("a.pt",),
        ("b_00001.h5", "b_00002.h5"),
        ("e_00010.pt",),
        ("e_00020.pt",),
        ("x.part1", "x.part2"),
    ]


@given(st.integers(1, 60), st.data())
def test_whatever_is_taken_away_is_named(total, data):
    names = [f"m-{n:05}-of-{total:05}.bin" for n in range(1, total + 1)]
    gone = data.draw(st.sets(st.sampled_from(names), max_size=total - 1))
    assert sets.missing(set(names) - gone) == tuple(sorted(gone))


@given(st.lists(st.text(max_size=20)))
def test_any_names_are_grouped_each_once(names):
    unique = list(dict.fromkeys(names))
    assert sorted(n for group in sets.grouped(unique).values() for n in group) == sorted(unique)
    sets.missing(unique)


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (json.dumps({"weight_map": {"a": "x.bin", "b": "y.bin", "c": "x.bin"}}).encode(),
         ("x.bin", "y.bin")),
        (b'{"weight_map": {"a": 1}}', ()),
        (b'{"weight_map": []}', ()),
        (b"[]", ()),
        (b"\xff", ()),
        (b"[" * 100_000, ()),
    ],
)  # fmt: skip
def test_an_index_names_its_files(index, names):
    assert sets.named_by(index) == names
