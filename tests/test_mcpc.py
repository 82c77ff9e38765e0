"""The authors' networks of Monte Carlo predictive coding: energy, descent, draws and -log p where
the answers are known, and how a stored network is read.
"""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from biolearn.core.data import load_digits
from biolearn.core.rng import Random
from biolearn.reproduction.study import Trial
from experiments import mcpc

RNG = Random(11)


def network(sizes=(4, 5, 6, 8), scale=1.0):
    draw = lambda name, k, shape: scale * RNG.stream(name, k).normal(shape, "float64")
    maps = [
        (draw("W", k, (a, b)), draw("b", k, (b,))) for k, (a, b) in enumerate(zip(sizes, sizes[1:]))
    ]
    return mcpc.Network(draw("top", 0, sizes[:1]), maps)


def pictures(n, pixels=8):
    return (RNG.stream("pictures").uniform((n, pixels)) < 0.5).astype(np.float32)


def energy(net, h, x):
    "-log p(x, h) of each row, but for a constant, written anew."
    mean, total = net.top, 0
    for a, (W, b) in zip(h, net.maps):
        total = total + 0.5 * ((a - mean) ** 2).sum(axis=1)
        mean = np.where(a > 0, a, 0) @ W + b
    p = 1 / (1 + np.exp(-mean))
    return total - np.log(np.where(x == 1, p, 1 - p)).sum(axis=1)


def test_slopes_are_those_of_the_energy():
    net, x, small = network(), pictures(3), 1e-6
    h = [RNG.stream("h", k).normal((3, n), "float64") for k, n in enumerate((4, 5, 6))]
    for k, slope in enumerate(net.slopes(h, x)):
        for i in range(h[k].shape[1]):
            up, down = ([a.copy() for a in h] for _ in range(2))
            up[k][:, i] += small
            down[k][:, i] -= small
            expected = (energy(net, up, x) - energy(net, down, x)) / (2 * small)
            assert np.allclose(slope[:, i], expected, rtol=1e-6, atol=1e-6)


def test_descent_starts_far_away_and_lowers_the_energy(monkeypatch):
    net, x = network(scale=0.5), pictures(20)
    found = {}
    for steps in (0, 250):
        monkeypatch.setattr(mcpc, "STEPS", steps)
        found[steps] = net.descend(x, RNG.stream("descent"))
    ends = np.concatenate([a.ravel() for a in found[0]])
    assert -10 <= ends.min() < -9 and 9 < ends.max() <= 10
    assert (energy(net, found[250], x) < energy(net, found[0], x)).all()
    means = [net.top, *(b for _, b in net.maps[:-1])]
    alone = mcpc.Network(net.top, [(0 * W, b) for W, b in net.maps])  # its least energy is known
    for a, mean in zip(alone.descend(x, RNG.stream("descent")), means):
        assert np.abs(a - mean).max() < 1e-3


def test_ancestral_draws_have_the_mean_and_the_variance_of_the_model():
    one = np.ones((1, 1))
    net = mcpc.Network(np.array([20.0]), [(one, np.array([1.0])), (2 * one, np.array([-3.0]))])
    logits = net.logits(20_000, RNG.stream("draws"))
    assert abs(logits.mean() - (2 * 21 - 3)) < 0.1
    assert abs(logits.var() - 4 * 2) < 0.4


def test_surprise_is_that_of_the_mean_probability():
    x, logits = pictures(600), 3 * RNG.stream("logits").normal((4, 8), "float64")
    on = 1 / (1 + np.exp(-logits[:, None]))
    p = np.where(x == 1, on, 1 - on).prod(axis=2).mean(axis=0)
    assert np.allclose(mcpc.surprise(logits, x), -np.log(p))
    sure = np.full((1, 8), 1e4)
    assert np.allclose(mcpc.surprise(sure, np.zeros((1, 8))), 8 * 20)  # logits are held within 20


def test_without_weights_pixels_are_independent(monkeypatch):
    monkeypatch.setattr(mcpc, "DRAWS", 30)
    net, x = network(), pictures(50)
    net = mcpc.Network(net.top, [(0 * W, b) for W, b in net.maps])
    p = 1 / (1 + np.exp(-net.maps[-1][1]))
    expected = -np.log(np.where(x == 1, p, 1 - p)).sum(axis=1).mean()
    value, error = mcpc.likelihood(net, x, RNG.stream("likelihood"))["-log p"]
    assert value == pytest.approx(expected) and error < 1e-9


def test_upper_halves_follow_from_lower_ones():
    signs = np.repeat([-1.0, 1.0], 4)  # of the pixels that are on where the one state is above one
    maps = [(np.zeros((1, 1)), np.ones(1)), (8 * signs[None], -8 * signs)]
    net = mcpc.Network(np.zeros(1), maps)
    x = np.repeat(np.stack([signs > 0, signs < 0]), 20, axis=0).astype(float)
    assert mcpc.halves(net, x, RNG.stream("halves")) == {"upper halves": (0, 0)}
    x[:, 0] = 1 - x[:, 0]
    assert mcpc.halves(net, x, RNG.stream("halves"))["upper halves"][0] == 1 / 4
    x[:, 4:] = 1 - x[:, 4:]
    assert mcpc.halves(net, x, RNG.stream("halves"))["upper halves"][0] == 3 / 4


def store(net, path):
    "Write an archive as the authors' are: the arrays in order, also those that are not used."
    unused = np.zeros(3)
    arrays = [unused, net.top]
    for W, b in net.maps:
        arrays += [unused, W.T, b]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_name/data.pkl", b"no pickle")
        for k, a in enumerate(arrays):
            archive.writestr(f"some_name/data/{k}", a.astype("<f4").tobytes())


def test_a_stored_network_is_read_and_its_pictures_are_judged(monkeypatch, tmp_path):
    net, digits, seen = network((4, 5, 6, 64)), load_digits(), {}
    store(net, tmp_path / "mcpc_fid_2")
    monkeypatch.setattr(mcpc, "mnist", lambda: digits)
    monkeypatch.setattr(mcpc, "features_of", lambda data: "features")

    def score(samples, data, **asked):
        seen.update(samples=samples, data=data, **asked)
        return {"Fréchet": (1.0, 0.1)}

    monkeypatch.setattr(mcpc, "score_samples", score)
    found = mcpc.measured(Trial("fid", {}, 2), tmp_path)
    assert found == {"found": {"Fréchet": (1.0, 0.1)}}
    again = 1 / (1 + np.exp(-net.logits(10_000, Random(2).stream("states"))))
    assert np.allclose(seen["samples"], again, atol=1e-4)
    assert seen["data"].valid is digits.test and seen["data"].train is digits.train
    assert seen["features"] == "features" and seen["rng"] == Random(2).stream("judge")


def test_the_last_4000_test_digits_are_reported_black_and_white(monkeypatch):
    pixels = np.array([[0.2], [0.5], [0.51], [1.0]])
    monkeypatch.setattr(mcpc, "mnist", lambda: SimpleNamespace(test=np.tile(pixels, (2500, 1))))
    monkeypatch.setattr(mcpc, "read", lambda path: None)
    monkeypatch.setitem(mcpc.QUESTIONS, "ml", lambda net, x, rng: x)
    x = mcpc.measured(Trial("ml", {}, 1), Path("models"))["found"]
    assert np.array_equal(x, np.tile([[0], [0], [1], [1]], (1000, 1)))


def test_the_rule_says_whether_a_published_number_is_met():
    runs = lambda name, *values: {
        str(k): {"found": {name: [value, 0.1]}} for k, value in enumerate(values, 1)
    }
    table = {"networks": {"ml": runs("-log p", 144.0, 145.0, 146.0)}}
    assert mcpc.finish(table)["verdicts"] == {"-log p": "same"}
    table["networks"]["mse"] = runs("upper halves", 0.09, 0.091, 0.092)
    about = mcpc.finish(table)
    assert about["verdicts"] == {"-log p": "same", "upper halves": "worse"}
    assert about["summary"]["-log p"]["mean"] == 145 and about["summary"]["-log p"]["sd"] == 1
