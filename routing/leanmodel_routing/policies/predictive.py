"""`predictive`: the prompt decides before anything is generated, and the model it names answers alone."""

from __future__ import annotations

from leanmodel_routing.choosing import choose
from leanmodel_routing.policies.ways import Aim, Way
from leanmodel_routing.predictors.candidates import prompt_candidates


def predictive(aim: Aim) -> Way | None:
    """The best candidate that reads the prompt alone; None where there are too few records to learn from."""
    candidates = prompt_candidates(aim.fit)
    if not candidates:
        return None
    fitted, walk, method = choose(
        aim.fit, aim.certify_size, aim.retain, aim.risk, aim.seed, candidates, aim.method
    )
    return Way("predictive", fitted, 0.0, None, walk, method)
