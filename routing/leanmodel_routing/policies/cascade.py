"""`cascade`: the lean model is always asked, and its answer decides."""

from __future__ import annotations

from leanmodel_routing.choosing import choose
from leanmodel_routing.policies.ways import Aim, Way


def cascade(aim: Aim) -> Way:
    """The candidate whose walk is expected to certify the largest lean share."""
    fitted, walk, method = choose(aim.fit, aim.certify_size, aim.retain, aim.risk, aim.seed, None, aim.method)
    return Way("cascade", None, 0.0, fitted, walk, method)
