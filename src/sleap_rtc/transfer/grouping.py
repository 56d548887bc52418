"""Which blocks are asked for in one question: small ones together, as many as a large one holds.

::

    blocks of 1 MiB     1 │ 2 │ 3
    small ones          1 2 3 4 … 26 │ 27 28 … 52        about equally many bytes in each
    runs of a file      5 6 7 │ 8 9 … 15 │ 16 17         with at most 8: each ends before a multiple
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sleap_rtc.domain.packages import BLOCK


def grouped(
    blocks: Sequence[int], size: Callable[[int], int], *, most: int
) -> Iterator[tuple[int, ...]]:
    """The blocks in their order, in groups.

    A short last group would be asked for by itself from then on, each time that it has come; so
    they are about equally long.

    Args:
        blocks: Their numbers.
        size: Gives a block's bytes.
        most: Blocks in a group, 1 or more; its bytes are those of one large block at most.
    """
    if most == 1:
        yield from ((block,) for block in blocks)
        return
    sizes = [size(block) for block in blocks]
    total = sum(sizes)
    share = total / -(-total // BLOCK) if total else 0
    group: list[int] = []
    held = 0
    for block, more in zip(blocks, sizes, strict=True):
        if group and (held + more > BLOCK or held >= share or len(group) == most):
            yield tuple(group)
            group, held = [], 0
        group.append(block)
        held += more
    if group:
        yield tuple(group)


def in_runs(
    blocks: Iterable[int],
    locate: Callable[[int], tuple[int, int]],
    most: Callable[[int], int],
) -> tuple[list[tuple[int, ...]], list[int]]:
    """Neighbours of one file together, and the blocks of files that have no runs.

    Stores keep a file in pieces of a few MiB: a run that begins where one begins has fewer of them.

    Args:
        blocks: Their numbers, in any order.
        locate: Gives a block's file, and its index there.
        most: Gives the blocks that a run of a file may have; 0 where it has none.
    """
    runs: list[list[int]] = []
    others: list[int] = []
    following: tuple[int, int] | None = None
    for block in sorted(blocks):
        file, index = locate(block)
        longest = most(file)
        if not longest:
            others.append(block)
        elif (file, index) == following and index % longest:
            runs[-1].append(block)
        else:
            runs.append([block])
        following = file, index + 1
    return [tuple(run) for run in runs], others
