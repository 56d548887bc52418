"""Which blocks are asked for in one question: small ones together, as many as a large one holds.

::

    blocks of 1 MiB     1 │ 2 │ 3
    small ones          1 2 3 4 … 26 │ 27 28 … 52        about equally many bytes in each
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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
