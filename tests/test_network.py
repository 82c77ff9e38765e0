"""One trained network: every number against a direct computation, and a broken one without a
number.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

import biolearn.evaluation.network as N
from biolearn.core.arrays import to_numpy
from biolearn.core.data import load_digits
from biolearn.core.generation import generate, inpaint, sample_directed
from biolearn.core.inference import Inference
from biolearn.core.layers import exact_gradient
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.model import init_model, log_p_joint
from biolearn.core.rng import Random
from biolearn.evaluation.completion import impute_mean, inpainting_error, missing_halves
from biolearn.evaluation.neighbours import nearest_distance, variety
from biolearn.evaluation.network import TrainedNetwork, score_network
from biolearn.evaluation.parzen import parzen_log_likelihood

CONFIG = TrainConfig(
    epochs=1,
    batch_size=200,
    n_steps=2,
    noise=(0.2, 0.1, "spikes"),
    rate_f=(1e-3, 1e-3),
    rate_g=(1e-2, 1e-2),
)
IMPUTATIONS = ("mean digit", "nearest digit", "principal components")


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def rng():
    return Random(3)


@pytest.fixture(scope="module")
def network(digits, rng):
    "A tiny network, trained for one epoch on the 8x8 digits."
    model = init_model((64, 12, 6), ("sigmoid", "softplus", "sigmoid"), rng=rng.stream("init"))
    model, _ = fit(model, digits.train, CONFIG, rng=rng.stream("train"), progress=False)
    return TrainedNetwork(model, CONFIG.inference)


@pytest.fixture(scope="module")
def measured(network, digits, rng):
    return score_network(network, digits, n_samples=60, rng=rng)


def masks_of(digits, n, rng):
    "The masks that a network is asked with."
    return missing_halves(digits.image_shape, n, rng=rng.stream("experiments", "masks"))


# ---- samples -------------------------------------------------------------------------------------


def test_one_chain_gives_directed_sampling_generate_and_the_rest(network, rng):
    chain = N.chain_samples(network, (0, 1, 3), 60, rng=rng)
    draws = rng.stream("experiments", "samples")
    np.testing.assert_array_equal(chain[0], sample_directed(network.model, 60, rng=draws))
    plain = Inference(alpha=0.3, n_steps=2)
    for rounds in (1, 3):
        want = generate(network.model, 60, rounds=rounds, rng=draws, inference=plain)
        np.testing.assert_allclose(chain[rounds], want, rtol=1e-5, atol=1e-6)
    assert np.abs(chain[3] - chain[0]).max() > 0.01


def test_more_samples_than_a_block(network, digits, rng, monkeypatch):
    whole = N.chain_samples(network, (0, 1), 60, rng=rng)
    monkeypatch.setattr(N, "_BLOCK", 7)
    for r, x in N.chain_samples(network, (0, 1), 60, rng=rng).items():
        np.testing.assert_allclose(x, whole[r], rtol=1e-5, atol=1e-6)
    plain = [t.mean() for t in _trace(network, digits)]
    np.testing.assert_allclose(N.climb(network, digits.test)["mean"], plain, rtol=1e-5)


def _trace(network, digits):
    states = Inference(n_steps=20).steps(network.model, digits.test)
    return [log_p_joint(network.model, h) for h in states]


def test_scores_are_parzen_and_variety(network, digits, rng, measured):
    assert list(measured["rounds"]) == ["0", "1", "3", "10", "100"]
    draws = rng.stream("experiments", "samples")
    x = generate(network.model, 60, rng=draws, inference=Inference(alpha=0.3, n_steps=2))
    values = parzen_log_likelihood(digits.test, x, 0.2)
    found = measured["rounds"]["3"]
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert found["stderr"] == pytest.approx(values.std(ddof=1) / 300**0.5, rel=1e-5)
    assert found["variety"] == pytest.approx(variety(x, digits.test), rel=1e-4)


def test_generate_otherwise_uses_the_other_setting(network, digits, rng, measured):
    draws = rng.stream("experiments", "samples")
    for name, plain in (
        ("α = 0", Inference(n_steps=2, alpha=0.0)),
        ("N = 0", Inference(n_steps=0)),
    ):
        x = generate(network.model, 60, rng=draws, inference=plain)
        want = parzen_log_likelihood(digits.test, x, 0.2).mean()
        assert measured["otherwise"][name]["mean"] == pytest.approx(want, rel=1e-5)
    assert set(N._otherwise(Inference(n_steps=0))) == {"α = 0", "N = 15"}


def test_the_network_answers_as_its_functions_do(network, digits):
    rng, x, seen = Random(3), digits.test[:5], np.arange(64) < 32
    net = replace(network, rounds=2, sigmas=(0.3, 0.3))
    plain = Inference(alpha=0.3, n_steps=2)
    want = generate(net.model, 7, rounds=2, rng=rng.stream("s"), inference=plain)
    assert (net.sample(7, rng=rng.stream("s")) == want).all()
    want = inpaint(net.model, x, seen, rng=rng.stream("i"), inference=Inference(n_steps=2))
    assert (net.inpaint(x, seen, rng=rng.stream("i")) == want).all()
    decoder = net.decoder()
    assert [m.W.shape for m in decoder.maps] == [(6, 12), (12, 64)]
    assert decoder.prior is net.model.prior and decoder.sigmas == (0.3, 0.3)
    assert net.log_density(x) is None and network.decoder() is None


# ---- inference and in-painting -------------------------------------------------------------------


def test_climb_against_a_plain_loop(network, digits, measured):
    trace = np.stack(_trace(network, digits)).astype(float)
    climb, mean = measured["climb"], trace.mean(1)
    np.testing.assert_allclose(climb["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(climb["stderr"], trace.std(1, ddof=1) / 300**0.5, rtol=1e-4)
    rises = [b - a for a, b in zip(mean, mean[1:])]
    assert climb["smallest_rise"] == pytest.approx(min(rises), rel=1e-3, abs=1e-5)
    assert climb["share_rising"] == sum(bool(a < b) for a, b in zip(trace[0], trace[-1])) / 300
    assert len(climb["mean"]) == 21


def test_masks_hide_the_four_halves_in_turn_and_another_random_half_of_each_digit(digits, rng):
    masks = masks_of(digits, 300, rng)
    halves = [m.reshape(8, 8) for m in masks["halves"]]
    assert [m.sum((0, 1)).item() for m in halves[:4]] == [32] * 4
    assert halves[0][:, :4].all() and halves[5][:, 4:].all()
    assert halves[2][:4].all() and halves[7][4:].all()
    assert 0.48 < masks["random"].mean() < 0.52
    assert len({m.tobytes() for m in masks["random"]}) == 300


def test_completing_uses_the_networks_own_inference(network, digits, rng):
    x, visible = digits.test[:30], masks_of(digits, 30, rng)["random"]
    got = network.inpaint(x, visible, rng=rng.stream("x"))
    plain = Inference(n_steps=2)
    want = inpaint(network.model, x, visible, rng=rng.stream("x"), inference=plain)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    other = replace(network, inference=replace(plain, direction=exact_gradient))
    exact = other.inpaint(x, visible, rng=rng.stream("x"))
    assert np.abs(exact - got).max() > 1e-4 and (exact[visible] == x[visible]).all()


def test_inpainting_errors_and_leads(network, digits, rng, measured):
    x, train = digits.test, digits.train
    for kind, visible in masks_of(digits, 300, rng).items():
        draws = rng.stream("experiments", "in-painting", kind)
        plain = Inference(n_steps=2)
        completed = inpaint(network.model, x, visible, rng=draws, inference=plain)
        ours = inpainting_error(x, completed, visible)
        mean = inpainting_error(x, impute_mean(x, visible, train), visible)
        got = measured["inpainting"][kind]
        assert list(got) == ["network", *IMPUTATIONS]
        assert got["network"]["mean"] == pytest.approx(ours.mean(), rel=1e-5)
        row, lead = got["mean digit"], mean - ours
        assert row["mean"] == pytest.approx(mean.mean(), rel=1e-6)
        assert row["lead"] == pytest.approx(lead.mean(), rel=1e-4, abs=1e-6)
        assert row["lead_stderr"] == pytest.approx(lead.std(ddof=1) / 300**0.5, rel=1e-4)


# ---- copies and classes --------------------------------------------------------------------------


def test_copies_are_found(digits):
    honest, copied = N.memorising(digits.test, digits), N.memorising(digits.train[:100], digits)
    assert honest["ratio"] == pytest.approx(1, abs=0.15) and honest["part"] == 300
    assert copied["ratio"] < 0.1 and copied["samples_to_train"][2] == 0
    d = np.sort(nearest_distance(digits.test, digits.train))
    want = np.quantile(d.astype(float), (0, 0.25, 0.5, 0.75, 1))
    np.testing.assert_allclose(honest["test_to_train"], want, rtol=1e-6)
    some = digits.train[5:8]
    np.testing.assert_array_equal(N.nearest_digits(some, digits.train), some)
    assert N.memorising(digits.valid, digits)["ratio"] == np.inf


def test_the_classifier_knows_digits_and_says_what_it_sees(digits, rng):
    sets = {
        "ones": digits.train[digits.train_labels == 1],
        "broken": np.full((5, 64), np.nan, np.float32),
    }
    balance = N.class_balance(sets, digits, rng=rng)
    assert balance["accuracy"] > 0.95 and balance["broken"] is None
    assert np.argmax(balance["ones"]["histogram"]) == 1 and balance["ones"]["entropy"] < 0.1
    true = np.bincount(digits.test_labels)
    assert np.abs(np.array(balance["test digits"]["histogram"]) - true).max() < 10
    assert balance["test digits"]["entropy"] > 0.98


# ---- all of it -----------------------------------------------------------------------------------


def test_the_rest_of_a_measurement(network, digits, rng, measured):
    assert measured["pictures"]["image_shape"] == [8, 8]
    shown = N.unpack(measured["pictures"]["samples"])
    want = np.clip(N.chain_samples(network, (3,), 60, rng=rng)[3][:20], 0, 1)
    assert shown.shape == (20, 64) and np.abs(shown - want).max() <= 0.5 / 255 + 1e-6
    near = N.unpack(measured["pictures"]["neighbours"])
    assert np.abs(near - N.nearest_digits(want, digits.train)).max() <= 0.5 / 255 + 1e-6
    json.dumps(measured, allow_nan=False)


def test_less_is_measured_without_full_and_nothing_changes_by_it(network, digits, rng, measured):
    short = score_network(network, digits, n_samples=60, rng=rng, full=False)
    assert list(short["rounds"]) == ["0", "1", "3", "10"]
    assert {k: measured["rounds"][k] for k in short["rounds"]} == short["rounds"]
    assert {**short, "rounds": 0} == {**measured, "rounds": 0}


def test_a_broken_model_is_measured_without_a_number(network, digits, rng):
    (low, high) = network.model.pairs
    W = low.g.W.copy()
    W[0, 0] = np.nan
    pairs = (replace(low, g=replace(low.g, W=W)), high)
    broken = replace(network, model=replace(network.model, pairs=pairs))
    found = score_network(broken, digits, n_samples=60, rng=rng, full=False)
    assert found["rounds"]["3"] == dict(mean=None, stderr=None, variety=None)
    assert found["inpainting"] is found["nearest"] is found["pictures"] is None
    assert found["climb"]["smallest_rise"] is None and found["climb"]["share_rising"] == 0
    assert found["classes"]["GENERATE"] is None
    json.dumps(found, allow_nan=False)


def test_it_runs_on_any_array_library(network, digits, rng, strict_backend, tmp_path):
    from biolearn.core.checkpoints import load_model, save_model

    save_model(tmp_path / "model.safetensors", network.model)
    model = load_model(tmp_path / "model.safetensors", strict_backend)
    there, far = replace(network, model=model), Random(3, strict_backend)
    chain = N.chain_samples(there, (0, 3), 60, rng=far)
    here = N.chain_samples(network, (3,), 60, rng=rng)[3]
    np.testing.assert_allclose(to_numpy(chain[3]), here, rtol=1e-4, atol=1e-5)
    near = lambda a, b: a == pytest.approx(b, rel=1e-4)
    assert near(N.climb(there, digits.test)["mean"], N.climb(network, digits.test)["mean"])
    a, b = (
        N.compare_inpainting(net, digits, rng=stream)["random"]["network"]["mean"]
        for net, stream in ((there, far), (network, rng))
    )
    assert near(a, b)
    a, b = (N.memorising(x, digits)["ratio"] for x in (chain[3], to_numpy(chain[3])))
    assert near(a, b)
    scores = [N.parzen_and_variety(x, digits, 0.2)["mean"] for x in (chain[3], to_numpy(chain[3]))]
    assert near(*scores)


def test_pictures_survive_packing():
    x = np.random.default_rng(0).random((3, 49)).astype(np.float32)
    again = N.unpack(N.pack(x))
    assert np.abs(again - x).max() <= 0.5 / 255 + 1e-6 and again.dtype == np.float32
    np.testing.assert_array_equal(N.unpack(N.pack(np.array([[-1.0, 2.0]]))), [[0, 1]])
