"""Groups in which each two members are the same, from pairs that are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Same = Callable[[np.ndarray, np.ndarray], np.ndarray]


def complete_groups(left: np.ndarray, right: np.ndarray, strength: np.ndarray, same: Same) -> list[list[int]]:
    """Complete linkage: the strongest pair is joined first, two groups only where every pair across them is the same.

    left, right: int64 (m), pairs that are the same. strength: float32 (m). same: whether ``left[i]`` is the same as
    ``right[i]``, bool, for pairs that need not be among those. Groups have two members or more, in order.
    """
    group_of: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    apart: set[tuple[int, int]] = set()
    fresh = 0
    for place in np.lexsort((right, left, -strength)).tolist():
        pair = int(left[place]), int(right[place])
        for row in pair:
            if row not in group_of:
                group_of[row], members[fresh] = fresh, [row]
                fresh += 1
        one, other = sorted(group_of[row] for row in pair)
        if one == other or (one, other) in apart:
            continue
        if len(members[one]) * len(members[other]) > 1:
            across = np.array(np.meshgrid(members[one], members[other])).reshape(2, -1)
            if not same(across[0], across[1]).all():
                apart.add((one, other))
                continue
        members[fresh] = members.pop(one) + members.pop(other)
        group_of.update(dict.fromkeys(members[fresh], fresh))
        fresh += 1
    return [sorted(rows) for rows in members.values() if len(rows) > 1]
