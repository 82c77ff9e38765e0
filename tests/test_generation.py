"""GENERATE, in-painting and the chains of Section 5, against transcriptions and closed forms."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.generation import (
    GENERATE,
    generate,
    half_masks,
    inference_chain,
    inpaint,
    inpaint_steps,
    joint_step,
    sample_directed,
)
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, LayerPair, corrupt
from biolearn.core.model import Model, TopPrior, decode, encode, init_model
from biolearn.core.priors import fit_mixture_prior, fit_top_prior, sample_prior
from biolearn.core.rng import Random
from biolearn.extensions.asynchronous import AsynchronousInference
from biolearn.extensions.langevin import LangevinInference
from biolearn.extensions.spiking import SpikingInference

NETWORKS = [
    ((6, 4), ("sigmoid", "softplus")),
    ((6, 5, 4), ("sigmoid", "softplus", "sigmoid")),
    ((6, 5, 4, 3), ("sigmoid", "tanh", "softplus", "sigmoid")),
]


def network(which, backend=None):
    model = init_model(*NETWORKS[which], rng=Random(0, backend))
    x = (backend or Backend()).asarray(Random(1).uniform((50, 6)))
    return replace(model, prior=fit_top_prior(infer(model, x)[-1]))


@pytest.mark.parametrize("which", range(3))
def test_generate_as_printed(backend, which):
    "h_M ~ p(h_M), down to x; three rounds of INFERENCE with alpha = 0.3 and x = g_1(h_1)."
    model = network(which, backend)
    x = decode(model, sample_prior(model.prior, 1000, rng=Random(3, backend).stream("block", 0)))[0]
    np.testing.assert_array_equal(
        to_numpy(sample_directed(model, 8, rng=Random(3, backend))), to_numpy(x)[:8]
    )
    for _ in range(3):
        x = model.g(1, infer(model, x, Inference(n_steps=15, delta=0.1, alpha=0.3))[1])
    np.testing.assert_allclose(
        to_numpy(generate(model, 8, rng=Random(3, backend))), to_numpy(x)[:8], atol=1e-6
    )


def test_first_samples_do_not_depend_on_their_number():
    model = network(1)
    many = generate(model, 2300, rng=Random(3), noise=0.1)
    assert many.shape == (2300, 6)
    for n in (1, 999, 1001):
        np.testing.assert_allclose(
            generate(model, n, rng=Random(3), noise=0.1), many[:n], atol=1e-6
        )
    assert len(np.unique(many.round(6), axis=0)) == 2300  # blocks do not repeat each other


def test_directed_samples_have_the_priors_moments():
    """For a linear decoder x = h W + b with h ~ N(m, v), the mean is m W + b and the covariance W'
    diag(v) W.
    """
    W, b = Random(0).normal((3, 4)), Random(1).normal((4,))
    model = Model(
        (LayerPair(Dense(W.T.copy(), np.zeros(3, np.float32), "linear"), Dense(W, b, "linear")),),
        TopPrior(np.asarray([1, 0, -1], np.float32), np.asarray([0.5, 1, 2], np.float32)),
    )
    x = sample_directed(model, 40_000, rng=Random(2)).astype(float)
    cov = W.T @ np.diag(model.prior.var) @ W
    assert (
        np.abs((x.mean(0) - (model.prior.mean @ W + b)) / np.sqrt(np.diag(cov) / len(x))).max() < 5
    )
    mean_and_sd = np.sqrt(
        (cov**2 + np.outer(np.diag(cov), np.diag(cov))) / len(x)
    )  # standard error of a Gaussian sample covariance
    assert np.abs((np.cov(x.T) - cov) / mean_and_sd).max() < 5


LANGEVIN = LangevinInference(temperature=1.0, sigmas=(0.1, 0.1))
WAYS = {
    "directed": sample_directed,
    "GENERATE": generate,
    "noise": partial(generate, noise=0.5),
    "Langevin": partial(generate, inference=LANGEVIN),
    "spikes": partial(generate, inference=SpikingInference(window=10)),
    "delays": partial(generate, inference=AsynchronousInference(p=0.4, delay=2)),
}


@pytest.mark.parametrize("way", ["directed", "GENERATE", "noise", "Langevin"])
def test_a_few_samples_cost_a_few(way, monkeypatch):
    "No product has more rows than there are pictures, and the pictures are those of a larger call."
    model, rows, draw = network(1), [], WAYS[way]
    call = Dense.__call__
    monkeypatch.setattr(Dense, "__call__", lambda self, h: rows.append(h.shape[0]) or call(self, h))
    few = draw(model, 3, rng=4)
    assert max(rows) == 3
    np.testing.assert_allclose(few, draw(model, 1000, rng=4)[:3], atol=1e-6)


@pytest.mark.parametrize("prior", ["the paper's", "mixture"])
def test_few_directed_samples_draw_few_numbers(prior, monkeypatch):
    model, drawn, floats = with_prior(prior), [], Random._floats
    monkeypatch.setattr(Random, "_floats", lambda *args: drawn.append(args[2][0]) or floats(*args))
    sample_directed(model, 3, rng=4)
    assert set(drawn) == {3}


def with_prior(name):
    "A network of three layers, with the paper's prior or a mixture of three."
    model = init_model(*NETWORKS[1], rng=Random(0))
    top = infer(model, Random(1).uniform((50, 6)))[-1]
    fitted = fit_top_prior(top) if name != "mixture" else fit_mixture_prior(top, 3, rng=Random(2))
    return replace(model, prior=fitted)


# the second and the last of 1,003 samples, two pixels of each, as commit 0a15ec4 drew them
SAMPLES = {
    ("the paper's", "directed"): [0.454394, 0.729373, 0.372925, 0.763993],
    ("the paper's", "GENERATE"): [0.383072, 0.769397, 0.383078, 0.769405],
    ("the paper's", "noise"): [0.472452, 0.565286, 0.402776, 0.824294],
    ("the paper's", "Langevin"): [0.343218, 0.643656, 0.393576, 0.659393],
    ("the paper's", "spikes"): [0.344977, 0.627076, 0.490533, 0.566566],
    ("the paper's", "delays"): [0.393318, 0.640841, 0.394594, 0.6374],
    ("mixture", "directed"): [0.366961, 0.677641, 0.35432, 0.703201],
    ("mixture", "GENERATE"): [0.383074, 0.7694, 0.383077, 0.769403],
    ("mixture", "noise"): [0.472455, 0.56529, 0.402776, 0.824293],
    ("mixture", "Langevin"): [0.343941, 0.641999, 0.393287, 0.660077],
    ("mixture", "spikes"): [0.395858, 0.661839, 0.426871, 0.598328],
    ("mixture", "delays"): [0.393957, 0.639492, 0.3944, 0.637867],
}


@pytest.mark.parametrize("prior, way", SAMPLES)
def test_a_seed_keeps_its_samples(prior, way):
    drawn = WAYS[way](with_prior(prior), 1003, rng=3)[[1, -1], :2]
    np.testing.assert_allclose(drawn, np.reshape(SAMPLES[prior, way], (2, 2)), atol=2e-6)


def test_one_inference_for_each_round():
    "A sequence is taken in turn: with alpha 0 in the last round, that round is the chain's own."
    model = network(1)
    each = [GENERATE, Inference(alpha=0.0)]
    *_, before = inference_chain(model, sample_directed(model, 5, rng=1), rounds=1)
    *_, after = inference_chain(model, before, rounds=1, inference=each[1])
    np.testing.assert_allclose(
        generate(model, 5, rounds=2, inference=each, rng=1), after, atol=1e-6
    )


def test_chain_noise_needs_rng():
    model = network(1)
    with pytest.raises(ValueError, match="rng"):
        list(inference_chain(model, Random(1).uniform((2, 6)), rounds=1, noise=0.1))


@pytest.mark.parametrize("which", range(3))
def test_joint_step_by_transcription(backend, which):
    "Equations 9 to 11, layer by layer, with the same random numbers."
    model = network(which, backend)
    noise = (0.1,) * len(NETWORKS[which][0])
    h = encode(model, backend.asarray(Random(1).uniform((5, 6))))
    new = joint_step(model, h, noise, rng=Random(4, backend))
    rng, M = Random(4, backend), len(model.pairs)
    noisy = [corrupt(layer, s, rng=rng) for layer, s in zip(h, noise)]
    np.testing.assert_allclose(to_numpy(new[0]), to_numpy(model.g(1, noisy[1])), atol=1e-6)
    for k in range(1, M):
        above, below = to_numpy(model.g(k + 1, noisy[k + 1])), to_numpy(model.f(k, noisy[k - 1]))
        coin = to_numpy(rng.uniform((5, 1)))[:, 0] < 0.5
        for i in range(5):
            np.testing.assert_allclose(
                to_numpy(new[k])[i], above[i] if coin[i] else below[i], atol=1e-6
            )
    np.testing.assert_allclose(to_numpy(new[M]), to_numpy(model.f(M, noisy[M - 1])), atol=1e-6)


@pytest.mark.parametrize("which", range(3))
def test_inpainting_as_described(backend, which):
    model, x = network(which, backend), Random(1).uniform((5, 6))
    visible = np.asarray([True, False, True, True, False, False])
    steps = [
        to_numpy(s)
        for s in inpaint_steps(
            model,
            backend.asarray(x),
            backend.asarray(visible, "bool"),
            rounds=3,
            rng=Random(5, backend),
        )
    ]
    start = np.where(visible, x, to_numpy(Random(5, backend).uniform((5, 6))))
    np.testing.assert_array_equal(steps[0], start)
    now = backend.asarray(start)
    mask = backend.asarray(np.broadcast_to(visible, x.shape), "bool")
    for t in range(3):
        now = backend.xp.where(mask, now, model.g(1, infer(model, now, visible=mask)[1]))
        np.testing.assert_allclose(steps[t + 1], to_numpy(now), atol=1e-6)


@given(st.integers(0, 2**20), st.integers(1, 4), st.booleans())
@settings(deadline=None, max_examples=40)
def test_visible_pixels_stay_and_missing_ones_are_never_read(seed, batch, shared):
    model = network(1)
    x, visible = (
        Random(seed).uniform((batch, 6)),
        np.asarray(Random(seed).stream("mask").uniform((6,) if shared else (batch, 6)) < 0.5),
    )
    hidden = np.where(visible, x, np.float32(np.nan))
    a, b = (inpaint(model, picture, visible, rounds=2, rng=Random(9)) for picture in (x, hidden))
    assert (
        (a == b).all()
        and (np.where(visible, a, 0) == np.where(visible, x, 0)).all()
        and (0 <= a).all()
        and (a <= 1).all()
    )


def test_half_masks():
    masks = half_masks((4, 6), Backend())
    pictures = {name: m.reshape(4, 6) for name, m in masks.items()}
    assert (
        pictures["left"][:, :3].all()
        and not pictures["left"][:, 3:].any()
        and pictures["top"][:2].all()
        and not pictures["top"][2:].any()
    )
    assert (masks["left"] ^ masks["right"]).all() and (masks["top"] ^ masks["bottom"]).all()


@pytest.mark.parametrize(
    "x, visible, message",
    [
        (np.ones((2, 5), np.float32), np.ones(5, bool), "x must have 6 columns"),
        (np.ones((2, 6), np.float32), np.ones(6), "booleans"),
        (np.ones((2, 6), np.float32), np.ones((3, 6), bool), "shape"),
        (np.full((2, 6), np.inf, np.float32), np.ones(6, bool), "infinite"),
    ],
)
def test_inpaint_refuses(x, visible, message):
    with pytest.raises((ValueError, TypeError), match=message):
        inpaint(network(1), x, visible, rng=Random(0))


def test_a_random_given_twice_gives_the_same_twice():
    "Each call begins its stream afresh."
    model, rng, visible = network(1), Random(3), np.arange(6) < 3
    for draw in (
        lambda: generate(model, 4, rng=rng),
        lambda: inpaint(model, np.full((2, 6), 0.5, np.float32), visible, rng=rng),
    ):
        np.testing.assert_array_equal(draw(), draw())


def test_generate_refuses():
    model = network(1)
    two = [Inference(), Inference()]
    for bad in (dict(n=0), dict(n=2.5), dict(n=3, rounds=-1), dict(n=3, inference=two)):
        with pytest.raises((ValueError, TypeError)):
            generate(model, **bad)
    for rng in (-1, 1.5, True, "0"):
        with pytest.raises((ValueError, TypeError), match="rng|seed"):
            generate(model, 3, rng=rng)
    with pytest.raises(ValueError, match="no top prior yet"):
        generate(replace(model, prior=None), 3, rng=Random(0))
    with pytest.raises(ValueError, match="one entry per layer"):
        joint_step(model, encode(model, np.ones((1, 6), np.float32)), (0.1,), rng=Random(0))
