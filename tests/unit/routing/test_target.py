"""Bets on the target: valid at the very edge by counting every outcome, and nearly as strong as tests that know more."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_making import make_pool
from scipy.stats import t as student

from leanmodel_api.policy import Record
from leanmodel_routing import exact
from leanmodel_routing.betting import betting_p_value
from leanmodel_routing.calibration import calibrate
from leanmodel_routing.table import Table
from leanmodel_routing.target import arrange, lot, p_values


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("chance", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("evidence", [None, "lucky", "unlucky"])
def test_at_the_edge_it_rejects_no_more_often_than_the_risk(risk, chance, evidence):
    """Mean loss exactly 0: every sequence of twelve outcomes is tried and counted with its probability."""
    harm = 0.9
    gain = -chance * harm / (1 - chance)
    losses = np.array(list(product([gain, harm], repeat=12)))
    harms = (losses == harm).sum(axis=1)
    weight = chance**harms * (1 - chance) ** (12 - harms)
    known = None
    if evidence is not None:
        known = np.full((1, 30), gain if evidence == "lucky" else harm).repeat(len(losses), axis=0)
    rejected = p_values(losses, 0.95, risk, known) <= risk
    assert float(weight @ rejected) <= risk + 1e-12


def draw(rng, tests, n, retain, harm, gain, right=0.93):
    """Losses [tests, n] of records of which the large model gets `right` right; the pair spoils some and saves some."""
    lot = rng.random((tests, n))
    kept = np.where(lot < harm + gain + right - harm, retain - 1.0, 0.0)
    return np.where(lot < harm, retain, np.where(lot < harm + gain, -1.0, kept))


def power(losses, evidence, retain, risk=0.1):
    """Shares of the tests [tests, n] that pass: bets on the target, a mixture of bets, the binomial test, the t-test."""
    ours = p_values(losses, retain, risk, evidence) <= risk
    mixed = [betting_p_value(a, retain, evidence=b) <= risk for a, b in zip(losses, evidence, strict=True)]
    n = losses.shape[1]
    harms = (losses == retain).sum(axis=1)
    right = harms + (losses == retain - 1.0).sum(axis=1)
    counts = [(exact.Harms(n, int(of), int(bad)),) for of, bad in zip(right, harms, strict=True)]
    binomial = [exact.p_value(one, retain, risk) <= risk for one in counts]
    t = losses.mean(axis=1) / (losses.std(axis=1, ddof=1) / np.sqrt(n))
    return ours.mean(), np.mean(mixed), np.mean(binomial), float((student.cdf(t, n - 1) <= risk).mean())


@pytest.mark.parametrize(
    ("n", "retain", "harm", "gain"),
    [(600, 0.97, 0.014, 0.0), (600, 0.97, 0.02, 0.006), (600, 0.9, 0.065, 0.0), (600, 0.9, 0.093, 0.028), (2400, 0.97, 0.028, 0.0084)],
)  # fmt: skip
def test_it_is_as_strong_as_the_binomial_test_and_nearly_as_the_t_test(n, retain, harm, gain):
    rng = np.random.default_rng(3)
    evidence, losses = (draw(rng, 150, n, retain, harm, gain) for _ in range(2))
    ours, mixed, binomial, t = power(losses, evidence, retain)
    assert ours >= mixed + 0.2
    assert ours >= binomial - 0.1
    assert ours >= t - 0.25
    if gain:
        assert ours >= binomial + 0.1


@pytest.mark.parametrize("retain", [0.9, 0.97])
def test_clear_cases_pass_whatever_the_order(retain):
    """A tenth of the harm that is allowed: a harm that comes early may not end the game."""
    rng = np.random.default_rng(5)
    evidence, losses = (draw(rng, 300, 600, retain, 0.1 * (1 - retain), 0.0) for _ in range(2))
    assert (p_values(losses, retain, 0.1, evidence) <= 0.1).mean() >= 0.99


@pytest.mark.parametrize(("retain", "enough"), [(0.99, 240), (0.98, 120), (0.95, 48)])
def test_without_harm_it_needs_hardly_more_than_any_bet_does(retain, enough):
    losses = np.full((1, enough), retain - 1.0)
    assert p_values(losses, retain, 0.1, losses)[0] <= 0.1
    assert p_values(losses[:, : int(enough * 0.9)], retain, 0.1, losses)[0] > 0.1


@given(
    st.lists(st.floats(-1.0, 0.95), min_size=1, max_size=80),
    st.lists(st.floats(-1.0, 0.95), max_size=20),
    st.sampled_from([0.001, 0.05, 0.5]),
    st.sampled_from([0.1, 1.0, 7.5]),
)
@settings(max_examples=200, deadline=None)
def test_whatever_the_losses_it_is_a_p_value(losses, evidence, risk, factor):
    found = p_values(np.array([losses]), 0.95, risk, np.array([evidence]), factor)
    assert found.shape == (1,) and 0.0 <= found[0] <= 1.0
    if min(losses) >= 0.0:
        assert found[0] == 1.0


def test_side_by_side_they_are_what_they_are_alone():
    rng = np.random.default_rng(6)
    evidence, losses = (draw(rng, 20, 700, 0.95, 0.02, 0.01) for _ in range(2))
    alone = [p_values(losses[i : i + 1], 0.95, 0.1, evidence[i : i + 1])[0] for i in range(20)]
    assert p_values(losses, 0.95, 0.1, evidence) == pytest.approx(alone)


def test_records_that_count_twice_predict_what_twice_as_many_show():
    """The prediction from 500 records for 2,000 passes about where 2,000 do."""
    rng = np.random.default_rng(7)
    few, many = draw(rng, 200, 500, 0.95, 0.03, 0.0), draw(rng, 200, 2000, 0.95, 0.03, 0.0)
    predicted = (p_values(few, 0.95, 0.1, few, factor=4.0) <= 0.1).mean()
    shown = (p_values(many, 0.95, 0.1, many) <= 0.1).mean()
    assert predicted >= 0.85 and shown >= 0.95
    assert (p_values(few, 0.95, 0.1, few) <= 0.1).mean() < predicted


def strata(counts):
    """A balanced table with so many records of each class."""
    names = np.repeat(np.arange(len(counts)), counts)
    records = [
        Record(prompt=f"{index}", lean_quality=0.0, large_quality=0.0, stratum=str(name))
        for index, name in enumerate(names)
    ]
    return Table.of(records, "balanced")


@pytest.mark.parametrize("counts", [(30, 60, 120), (40, 40), (7, 100)])
def test_blocks_have_the_balanced_mean_and_one_record_of_each_class_at_least(counts):
    table, rng = strata(counts), np.random.default_rng(8)
    losses = rng.uniform(-1, 0.9, (3, len(table)))
    blocks = arrange(table, losses, lot(table, 5))
    assert blocks.shape == (3, min(counts))
    wanted = [np.mean([row[table.stratum == code].mean() for code in range(len(counts))]) for row in losses]
    assert blocks.mean(axis=1) == pytest.approx(wanted, abs=0 if counts == (30, 60, 120) else 0.05, rel=1e-9)
    assert blocks.max() <= 0.9


@pytest.mark.parametrize("uneven", [0.1, 0.0, -0.1])
def test_balanced_it_stays_valid_however_the_classes_share_the_loss(uneven):
    table, rng = strata((80, 400)), np.random.default_rng(9)
    order = lot(table, 1)
    chance = np.where(table.stratum == 0, (uneven + 0.2) / 1.1, (-uneven + 0.2) / 1.1)
    losses = np.where(rng.random((2000, len(table))) < chance, 0.9, -0.2)
    rejected = (p_values(arrange(table, losses, order), 0.9, 0.1) <= 0.1).mean()
    assert rejected <= 0.1 + 3 * np.sqrt(0.09 / 2000)


def test_a_missing_class_is_no_evidence():
    table = replace(strata((20,)), strata=("0", "1"))
    blocks = arrange(table, np.full((2, 20), -0.9), lot(table, 0))
    assert blocks.shape == (2, 0)
    assert (p_values(blocks, 0.95, 0.1) == 1.0).all()


def test_weights_count_in_the_mean():
    """A third of the records is harmful but weighs next to nothing."""
    table = replace(make_pool(900, seed=1).table, weight=np.tile([1.0, 1.0, 0.01], 300))
    losses = np.tile([-0.05, -0.05, 0.5], 300)[None, :]
    order = lot(table, 0)
    assert p_values(arrange(table, losses, order), 0.95, 0.1)[0] <= 0.1
    assert p_values(arrange(table, -losses, order), 0.95, 0.1)[0] > 0.5


def test_the_order_is_drawn_by_seed_and_not_by_how_the_records_came():
    pool = make_pool(400, seed=2).table
    shuffled = pool.take(np.random.default_rng(0).permutation(400))
    assert [pool.records[row] for row in lot(pool, 3)] == [shuffled.records[row] for row in lot(shuffled, 3)]
    assert lot(pool, 3).tolist() != lot(pool, 4).tolist()


def test_a_shuffled_file_gives_the_same_certificate():
    records = list(make_pool(1500, seed=3, lean_ease=2.0).table.records)
    graded = [record.model_copy(update={"lean_quality": 0.9 * record.lean_quality}) for record in records]
    first = calibrate(graded, 0.85, 0.9)
    np.random.default_rng(1).shuffle(graded)
    again = calibrate(graded, 0.85, 0.9)
    assert first.policy.certificate.method == "ltt-target-betting" and first.policy.certificate.certified
    assert again.policy.certificate == first.policy.certificate
