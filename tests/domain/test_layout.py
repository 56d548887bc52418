from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain import packages
from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import BLOCK, HASH, FileEntry


def layout(sizes: list[int]) -> Layout:
    return Layout(
        packages.package(
            FileEntry(
                path=f"{index:03}",
                size=size,
                hashes=bytes([index]) * HASH * packages.blocks_of(size),
            )
            for index, size in enumerate(sizes)
        )
    )


@given(st.lists(st.integers(0, 4 * BLOCK), max_size=12))
def test_numbers_and_places_are_the_same_thing(sizes: list[int]) -> None:
    found = layout(sizes)
    places = [
        (file, block)
        for file, size in enumerate(sizes)
        for block in range(packages.blocks_of(size))
    ]
    assert found.count == len(places)
    assert [found.locate(number) for number in range(found.count)] == places
    assert [found.number(*place) for place in places] == list(range(found.count))
    assert sum(found.size(number) for number in range(found.count)) == sum(sizes)
    assert [n for file in range(len(sizes)) for n in found.numbers(file)] == list(
        range(found.count)
    )


def test_a_block_has_its_files_hash() -> None:
    found = layout([BLOCK, 0, BLOCK + 1])
    assert [found.hash(number)[0] for number in range(3)] == [0, 2, 2]


@pytest.mark.parametrize("place", [(-1, 0), (3, 0), (0, 1), (1, 0), (2, 2), (0, -1)])
def test_there_is_no_such_block(place: tuple[int, int]) -> None:
    with pytest.raises(IndexError):
        layout([1, 0, BLOCK + 1]).number(*place)
