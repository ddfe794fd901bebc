"""Fitting predictors on the fit part, with cross-fitted confidences for every choice made there.

A predictor is a standardised logistic regression: the guide's finding is that labels of the own domain and
the lean answer matter, and the architecture hardly does. What is stored are coefficients as JSON.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from leanmodel_api.policy import LinearHead, Predictor, SignalSpec
from leanmodel_routing.predictors.candidates import FEW_HARMS, PROMPT_SIGNAL, Candidate
from leanmodel_routing.predictors.logistic import newton_logistic
from leanmodel_routing.signals import SIGNALS, features
from leanmodel_routing.table import Floats, Ints, Mask, Table

FOLDS = 5
WIDE = 64
"""Features above which the matrix is taken as sparse."""
PROMPT_RIDGES = (10_000.0, 1_000.0, 100.0, 10.0, 1.0)
"""Penalties on the prompt's hashed words that are tried, the heaviest first; every other feature's is 1."""
MOST_FIT = 10_000
"""More fit records change the coefficients by less than their own noise, and only cost time."""


@dataclass(frozen=True)
class Fitted:
    """A candidate fitted on the fit part.

    `predictor`: fitted on the whole part. `crossed`: for each fit record the confidence of a predictor
    fitted on the other folds, NaN for records left out of the fit or lacking a signal.
    """

    candidate: Candidate
    predictor: Predictor
    crossed: Floats


def fit_candidate(candidate: Candidate, fit: Table, seed: int) -> Fitted:
    """Fit one candidate on the fit part (n records) and cross-fit it in FOLDS folds.

    How heavily the prompt's words are penalised is chosen by the cross-fitted log-loss: hundreds of them on some
    thousand records otherwise drown what a handful of signals of the answer say. From the heaviest penalty
    downwards, until the loss rises.
    """
    specs = fit_signals(candidate.signals, fit)
    matrix, present = feature_matrix(specs, fit)
    rng = np.random.default_rng(seed)
    rows: Ints = np.flatnonzero(present)
    if len(rows) > MOST_FIT:
        rows = np.sort(rng.permutation(rows)[:MOST_FIT])
    folds = _folds(fit, rows, rng)

    def crossed_by(ridge: float) -> Floats:
        found: Floats = np.full(len(fit), np.nan)
        for fold in range(FOLDS):
            inside, held = rows[folds != fold], rows[folds == fold]
            if len(inside) and len(held):
                found[held] = confidences(_fit(candidate, specs, matrix, fit, inside, ridge), matrix[held])
        return found

    penalties = PROMPT_RIDGES if PROMPT_SIGNAL in candidate.signals else (1.0,)
    ridge, crossed = penalties[0], crossed_by(penalties[0])
    for lighter in penalties[1:]:
        found = crossed_by(lighter)
        if not _log_loss(fit, found) < _log_loss(fit, crossed):
            break
        ridge, crossed = lighter, found
    return Fitted(candidate, _fit(candidate, specs, matrix, fit, rows, ridge), crossed)


def _log_loss(fit: Table, crossed: Floats) -> float:
    """Mean log-loss, nats, of cross-fitted confidences [n] that a lean answer does no harm; infinite without any."""
    known = ~np.isnan(crossed)
    if not known.any():
        return math.inf
    chance = np.clip(crossed[known], 1e-6, 1.0 - 1e-6)
    fine = _harmless(fit)[known]
    losses = -(fine * np.log(chance) + (1.0 - fine) * np.log(1.0 - chance))
    return float(np.average(losses, weights=fit.mass[known]))


def _harmless(fit: Table) -> Floats:
    found: Floats = 1.0 - np.clip(fit.large - fit.lean, 0.0, 1.0)
    return found


def fit_signals(names: Sequence[str], fit: Table) -> tuple[SignalSpec, ...]:
    """The signals with the parameters that their own fitting learns."""
    return tuple(SignalSpec(name=name, params=SIGNALS[name].fit(fit.observations)) for name in names)


def feature_matrix(specs: Sequence[SignalSpec], table: Table) -> tuple[Floats, NDArray[np.bool_]]:
    """Features [n, d] (0 where missing) and whether each record has them all [n]."""
    blocks = [_signal_matrix(spec, table) for spec in specs]
    matrix = np.concatenate([np.zeros((len(table), 0)), *blocks], axis=1)
    present: NDArray[np.bool_] = ~np.isnan(matrix).any(axis=1)
    for spec in specs:  # a signal without features, such as answer-choice on free text, can still be missing
        if not SIGNALS[spec.name].feature_names(spec.params):
            needs = SIGNALS[spec.name].needs
            present &= np.array([all(item.has(need) for need in needs) for item in table.observations])
    return np.where(present[:, None], matrix, 0.0), present


def _signal_matrix(spec: SignalSpec, table: Table) -> Floats:
    """Features of one signal [n, d], NaN where a record lacks what it needs; kept with the table."""
    key = f"{spec.name} {json.dumps(spec.params, sort_keys=True)}"
    if key not in table.read:
        width = len(SIGNALS[spec.name].feature_names(spec.params))
        missing = [math.nan] * width
        rows = [features((spec,), observation) for observation in table.observations]
        filled = np.array([missing if row is None else row for row in rows], dtype=np.float64)
        table.read[key] = filled.reshape(len(table), width)
    return table.read[key]


def feature_names(specs: Sequence[SignalSpec]) -> tuple[str, ...]:
    """Names of the features in order."""
    return tuple(name for spec in specs for name in SIGNALS[spec.name].feature_names(spec.params))


def _of_the_prompt(specs: Sequence[SignalSpec]) -> Mask:
    """Which features [d] are the prompt's hashed words."""
    widths = [len(SIGNALS[spec.name].feature_names(spec.params)) for spec in specs]
    return np.repeat(np.array([spec.name == PROMPT_SIGNAL for spec in specs], dtype=np.bool_), widths)


def confidences(predictor: Predictor, matrix: Floats) -> Floats:
    """Confidences [n] from features [n, d]: the same arithmetic as `predict`, on arrays."""
    standard = (matrix - np.array(predictor.means)) / np.array(predictor.scales)
    scores = [head.intercept + standard @ np.array(head.coefficients) for head in predictor.heads]
    if predictor.kind == "fine":
        return _sigmoid(scores[0])
    benefit = _sigmoid(scores[0]) - _sigmoid(scores[1])
    return _sigmoid(predictor.link_intercept + predictor.link_slope * benefit)


def table_confidences(predictor: Predictor, table: Table) -> Floats:
    """Confidences [n] of a table's records; 0 where a record lacks what a signal needs, as in the router."""
    matrix, present = feature_matrix(predictor.signals, table)
    found: Floats = np.where(present, confidences(predictor, matrix), 0.0)
    return found


def _fit(
    candidate: Candidate,
    specs: tuple[SignalSpec, ...],
    matrix: Floats,
    fit: Table,
    rows: Ints,
    prompt_ridge: float,
) -> Predictor:
    inside = matrix[rows]
    means = inside.mean(axis=0) if len(rows) else np.zeros(matrix.shape[1])
    scales = inside.std(axis=0) if len(rows) else np.ones(matrix.shape[1])
    scales[scales < 1e-9] = 1.0
    if matrix.shape[1] > WIDE:  # hashed words: mostly 0, and to centre them would fill every cell
        means[(inside != 0.0).mean(axis=0) < 0.5] = 0.0
    # A feature of k times the scale is penalised k² times as heavily.
    scales = np.where(_of_the_prompt(specs), scales * math.sqrt(prompt_ridge), scales)
    standard = (inside - means) / scales
    weight = fit.mass[rows] * len(fit)
    harmless = _harmless(fit)[rows]
    names = feature_names(specs)
    slope, intercept = 1.0, 0.0
    if candidate.kind == "fine":
        heads: tuple[LinearHead, ...] = (_head(standard, harmless, weight, names),)
    else:
        heads = (
            _head(standard, fit.lean[rows], weight, names),
            _head(standard, fit.large[rows], weight, names, prior=False),
        )
        scores = [head.intercept + standard @ np.array(head.coefficients) for head in heads]
        benefit = (_sigmoid(scores[0]) - _sigmoid(scores[1]))[:, None]
        link = _head(benefit, harmless, weight, ("benefit",), ridge=1e-3)
        # A negative slope would turn the order round on no more than noise.
        slope, intercept = max(link.coefficients[0], 0.0), link.intercept
    return Predictor(
        kind=candidate.kind,
        name=candidate.name,
        signals=specs,
        feature_names=names,
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        heads=heads,
        link_slope=slope,
        link_intercept=intercept,
    )


def _head(
    standard: Floats,
    target: Floats,
    weight: Floats,
    names: Sequence[str],
    *,
    ridge: float = 1.0,
    prior: bool = True,
) -> LinearHead:
    """A logistic head for a target in [0, 1] (a share counts as that much of a yes).

    With one class nothing can be learnt: the intercept is the smoothed rate, and the least likely token,
    known from elsewhere to tell, gives the order (`prior`). It does so too where fewer than FEW_HARMS harms, one of them
    in a confident answer, would turn that order round.
    """
    positive = float(weight @ target)
    negative = float(weight @ (1.0 - target))
    rate = (positive + 0.5) / (positive + negative + 1.0)
    order = [1.0 if prior and name == "min_logprob" else 0.0 for name in names]
    known = LinearHead(intercept=float(np.log(rate / (1.0 - rate))), coefficients=tuple(order))
    if min(positive, negative) < 1e-9 or standard.shape[1] == 0:
        return known
    found = None
    if standard.shape[1] <= WIDE:
        found = newton_logistic(standard, target, weight, ridge)
    slopes, intercept = found or _scikit_logistic(standard, target, weight, ridge)
    few = int((target < 1.0).sum()) < FEW_HARMS
    if prior and "min_logprob" in names and few and slopes.min() < 0.0:
        return known
    return LinearHead(intercept=intercept, coefficients=tuple(slopes.tolist()))


def _scikit_logistic(standard: Floats, target: Floats, weight: Floats, ridge: float) -> tuple[Floats, float]:
    """Coefficients [d] and intercept by scikit-learn; arguments as `newton_logistic`'s."""
    yes, no = target > 0.0, target < 1.0
    rows = np.concatenate([standard[yes], standard[no]])
    label = np.concatenate([np.ones(int(yes.sum())), np.zeros(int(no.sum()))])
    share = np.concatenate([(weight * target)[yes], (weight * (1.0 - target))[no]])
    # Both find the one optimum of a convex loss: Newton where its Hessian is small, else sparse gradients.
    if standard.shape[1] <= WIDE:
        model = LogisticRegression(C=1.0 / ridge, solver="newton-cholesky", max_iter=100)
    else:
        model = LogisticRegression(C=1.0 / ridge, solver="lbfgs", max_iter=200, tol=1e-3)
        rows = csr_matrix(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, label, sample_weight=share)
    return model.coef_[0], float(model.intercept_[0])


def _folds(fit: Table, rows: Ints, rng: np.random.Generator) -> Ints:
    """Fold of each row, evenly within strata."""
    folds: Ints = np.zeros(len(rows), dtype=np.int64)
    for code in range(len(fit.strata)):
        members = np.flatnonzero(fit.stratum[rows] == code)
        folds[rng.permutation(members)] = np.arange(len(members)) % FOLDS
    return folds


def _sigmoid(score: Floats) -> Floats:
    grown = np.exp(-np.abs(score))
    found: Floats = np.where(score >= 0, 1.0, grown) / (1.0 + grown)
    return found
