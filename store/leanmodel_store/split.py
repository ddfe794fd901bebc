"""The draw: which example belongs to which part. Pure, seeded, and independent of the file's order.

Examples are laid out in a line, answer by answer and within an answer by a seeded hash of their prompt, and
dealt to the parts along it by Tijdeman's rule for the chairman assignment problem (Discrete Mathematics 32,
1980): after any number of examples each part has its share to within less than one. So each part's size is
exact to less than one example, and its count of any answer to less than two.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence
from fractions import Fraction


def draw(seed: int, *words: str) -> str:
    """Return a pseudo-random hex number that depends on the seed and the words alone."""
    return hashlib.sha256("\0".join([str(seed), *words]).encode("utf-8", "surrogatepass")).hexdigest()


def deal(count: int, shares: Sequence[Fraction]) -> list[int]:
    """Return for each of ``count`` places in a line the index of the part that it goes to.

    Args:
        count: length of the line.
        shares: of each part; together exactly 1.

    Returns:
        Indexes such that after t places every part has within (t·share − 1, t·share + 1).
    """
    parts = [index for index, share in enumerate(shares) if share > 0]
    if len(parts) == 1:
        return parts * count
    scale = math.lcm(*(shares[part].denominator for part in parts))
    weight = {part: int(shares[part] * scale) for part in parts}
    slack = 2 * len(parts) - 2
    owed = dict.fromkeys(parts, 0)  # scale × (share × places so far − places given)
    dealt: list[int] = []
    for _ in range(count):
        for part in parts:
            owed[part] += weight[part]
        # In units of 1 / (scale × slack): whoever is owed enough may take the place, the one whose turn
        # must come first does.
        ready = [part for part in parts if owed[part] * slack >= scale]
        due = [
            (-(-(scale * (slack - 1) - owed[part] * slack) // (weight[part] * slack)), part) for part in ready
        ]
        chosen = min(due)[1]
        owed[chosen] -= scale
        dealt.append(chosen)
    return dealt


def assign(
    ids: Sequence[str],
    groups: Sequence[str],
    strata: Sequence[Hashable],
    shares: Sequence[Fraction],
    seed: int,
) -> list[int]:
    """Return for each example the index of its part.

    Args:
        ids: one per example, distinct.
        groups: examples of one group stay together in one part (equal prompts); usually all distinct.
        strata: what the draw is stratified by (the answer, or one value for all).
        shares: of each part, together at most 1; what is left over goes to index ``len(shares)``: nobody.
        seed: of the draw.
    """
    rest = 1 - sum(shares, Fraction(0))
    where = {stratum: draw(seed, "stratum", repr(stratum)) for stratum in set(strata)}
    order = sorted(range(len(ids)), key=lambda i: (where[strata[i]], draw(seed, "row", groups[i]), ids[i]))
    dealt = deal(len(ids), [*shares, rest])
    first: dict[str, int] = {}
    parts = [0] * len(ids)
    for place, index in enumerate(order):
        parts[index] = first.setdefault(groups[index], dealt[place])
    return parts
