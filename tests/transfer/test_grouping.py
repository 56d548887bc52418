from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.transfer.grouping import grouped, in_runs


def groups(*sizes: int, most: int = 256) -> list[tuple[int, ...]]:
    return list(grouped(range(len(sizes)), sizes.__getitem__, most=most))


def test_large_blocks_go_alone_and_small_ones_together() -> None:
    assert groups(BLOCK, BLOCK, 5, 7, BLOCK, 3) == [(0,), (1,), (2, 3), (4,), (5,)]
    assert groups() == []


def test_groups_have_about_as_much_each() -> None:
    small = [20_000] * 60  # a little more than fits into one
    assert [len(group) for group in groups(*small)] == [30, 30]


def test_there_is_an_end_to_how_many_go_together() -> None:
    assert [len(group) for group in groups(*[1] * 10, most=4)] == [4, 4, 2]
    assert groups(1, 1, most=1) == [(0,), (1,)]


@given(st.lists(st.integers(1, BLOCK), max_size=50), st.integers(1, 9))
def test_each_block_is_in_one_group_that_isnt_too_large(sizes: list[int], most: int) -> None:
    found = groups(*sizes, most=most)
    assert [block for group in found for block in group] == list(range(len(sizes)))
    for group in found:
        assert 1 <= len(group) <= most
        assert sum(sizes[block] for block in group) <= BLOCK


def runs(*blocks: int, most: int = 4) -> tuple[list[tuple[int, ...]], list[int]]:
    """Of files of ten blocks each, every third of which has no runs."""
    return in_runs(blocks, lambda n: divmod(n, 10), lambda file: most if file % 3 != 2 else 0)


def test_neighbours_of_a_file_are_a_run_up_to_a_multiple() -> None:
    assert runs(*range(10)) == ([(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)], [])
    assert runs(6, 5, 3, 2, 8, 9) == ([(2, 3), (5, 6), (8, 9)], [])
    assert runs(1, 2, most=1) == ([(1,), (2,)], [])
    assert runs() == ([], [])


def test_runs_end_with_their_file() -> None:
    assert runs(9, 10, 11) == ([(9,), (10, 11)], [])
    assert runs(18, 19, 20, 25, 30) == ([(18, 19), (30,)], [20, 25])
