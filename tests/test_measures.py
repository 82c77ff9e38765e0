"""What the figures beyond the paper measure: by hand, or with parts whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from biolearn.core.data import load_digits
from biolearn.core.generation import half_masks
from biolearn.core.inference import Inference
from biolearn.core.learning import TrainConfig
from biolearn.core.model import encode, init_model, log_p_joint
from biolearn.core.priors import TopPrior
from biolearn.core.rng import Random
from biolearn.reproduction import measures
from biolearn.reproduction.measures import Size
from biolearn.reproduction.profiles import PROFILES

DIGITS, QUICK = load_digits(), PROFILES["quick"]


@pytest.fixture(scope="module")
def model():
    network = init_model(QUICK.sizes(64), QUICK.units, rng=Random(0))
    prior = TopPrior(np.full(50, 0.5, np.float32), np.full(50, 0.1, np.float32))
    return replace(network, prior=prior)


def test_a_rise_is_what_inference_adds(model):
    size, ways = Size(samples=20, digits=30), {"some": Inference(n_steps=5), "none": Inference(0)}
    found = measures.measure_ways(model, DIGITS, ways, size, rng=Random(1))
    before = log_p_joint(model, encode(model, DIGITS.test[:30])).mean()
    for name in ways:
        after = found[name]["log p(x, h)"][0]
        assert found[name]["rise"][0] == pytest.approx(after - before, rel=1e-4, abs=1e-4)
    assert abs(found["some"]["rise"][0]) > 0.01


@pytest.mark.parametrize("window", [None, math.inf, 3])
def test_as_many_spiking_samples_are_scored_as_were_asked_for(window, model, monkeypatch):
    monkeypatch.setattr(measures, "_BLOCK", 30)
    monkeypatch.setattr(measures, "parzen_score", lambda samples, data, sigma: len(samples))
    found = measures.measure_spikes(model, DIGITS, window, Size(70, 5), rng=Random(1))
    scores = {name: n for name, n in found.items() if name in ("GENERATE", "directed")}
    assert scores == {"GENERATE": 70, "directed": 70}


def test_every_half_is_hidden_in_turn(model, monkeypatch):
    seen = []
    grey = lambda model, x, visible, rng: seen.extend(visible) or np.where(visible, x, 0.5)
    monkeypatch.setattr(measures, "inpaint", grey)
    x = DIGITS.test[:6]
    error = measures._half_error(model, x, (8, 8), Random(1))
    halves = half_masks((8, 8))
    wanted = [halves[name] for name in ("left", "right", "top", "bottom", "left", "right")]
    assert np.array_equal(seen, wanted)
    by_hand = [np.mean((digit[~half] - 0.5) ** 2) for digit, half in zip(x, wanted)]
    assert error == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_pictures_are_recognised_where_the_classifier_says_their_place():
    said = lambda x: x[:, 0].astype(int)
    sets = [np.array([[0.0], [0.0], [1.0], [2.0]]), np.array([[1.0], [1.0]]), np.array([[0.0]])]
    assert measures.recognised(sets, said) == pytest.approx((2 / 4 + 2 / 2 + 0) / 3)


@pytest.mark.parametrize("rule", ["fixed", "babbled"])
def test_a_law_is_kept_while_labels_are_learnt(rule):
    told = []
    few = replace(DIGITS, train=DIGITS.train[:60], train_labels=DIGITS.train_labels[:60])
    recipe = TrainConfig(
        epochs=2, batch_size=20, noise=(0.1, 0.1, 0.0), rate_f=(1e-3,) * 2, rate_g=(1e-3,) * 2
    )
    babbling = {"rate": 0.1, "sd": 0.1} if rule == "babbled" else {}
    measures.learn_labels(
        few,
        rule,
        (12,),
        recipe,
        babbling=babbling,
        law=lambda model, h: told.append(len(h)),
        rng=Random(0),
        beta=0.1,
    )
    assert told == [3] * 6  # after each of three minibatches in two epochs
