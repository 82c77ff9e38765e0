"""Other ways to infer stand wherever an `Inference` can: what all of them have in common."""

from dataclasses import replace

import numpy as np
import pytest

from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.checkpoints import CheckpointError
from biolearn.core.generation import generate, inpaint
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, LayerPair
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.model import Model, init_model
from biolearn.core.priors import TopPrior
from biolearn.core.rng import Random
from biolearn.extensions.asynchronous import AsynchronousInference
from biolearn.extensions.langevin import LangevinInference
from biolearn.extensions.spiking import SpikingInference

WAYS = {
    "spikes": SpikingInference(4, alpha=0.3, window=10),
    "one spike": SpikingInference(4, alpha=0.3, window=1),
    "noise": LangevinInference(4, alpha=0.3, temperature=1.0, sigmas=(0.1, 0.1)),
    "layers": AsynchronousInference(4, alpha=0.3, p=0.4, delay=2),
    "neurons": AsynchronousInference(4, alpha=0.3, p=0.4, of="neurons"),
}
OTHERS = {
    "spikes": {"window": 11},
    "one spike": {"alpha": 0.2},
    "noise": {"temperature": 2.0},
    "layers": {"delay": 1},
    "neurons": {"p": 0.5},
}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


def moved(model, backend):
    "The network on another backend."
    move = lambda d: Dense(backend.asarray(d.W), backend.asarray(d.b), d.unit)
    return Model(tuple(LayerPair(move(p.f), move(p.g)) for p in model.pairs))


def test_it_draws_from_the_stream_it_is_given_and_from_no_other(small_network, digits, way):
    x, rng = digits.test[:6], Random(0)
    first, again = (infer(small_network, x, WAYS[way], rng=Random(0)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    seed = infer(small_network, x, WAYS[way], rng=0)
    assert all((a == b).all() for a, b in zip(first, seed, strict=True))
    one, two = (infer(small_network, x, WAYS[way], rng=rng) for _ in range(2))
    assert (one[1] == first[1]).all() and (one[1] != two[1]).any()  # a stream goes on
    with pytest.raises(ValueError, match=f"{type(WAYS[way]).__name__} draws: it needs rng"):
        infer(small_network, x, WAYS[way])


def test_its_last_step_is_what_a_call_returns(small_network, digits, way):
    x = digits.test[:6]
    *_, h = WAYS[way].steps(small_network, x, rng=0)
    for a, b in zip(h, WAYS[way](small_network, x, rng=Random(0)), strict=True):
        assert a.dtype == np.float32 and (a == b).all()


def test_its_settings_are_comparable(way):
    assert WAYS[way] == replace(WAYS[way]) != replace(WAYS[way], **OTHERS[way])
    assert hash(WAYS[way]) == hash(replace(WAYS[way]))
    assert WAYS[way] != Inference(4, alpha=0.3)
    for wrong in ({"n_steps": -1}, {"delta": -0.1}, {"alpha": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            replace(WAYS[way], **wrong)


def test_it_runs_where_the_host_cannot_look(small_network, digits, strict_backend, way):
    x = digits.test[:6]
    there = infer(
        moved(small_network, strict_backend),
        strict_backend.asarray(x),
        WAYS[way],
        rng=Random(0, strict_backend),
    )
    here = infer(small_network, x, WAYS[way], rng=Random(0, Backend()))
    for a, b in zip(there, here, strict=True):
        # other sums may change the last bit of a rate, and that a spike
        close = np.isclose(to_numpy(a), b, atol=1e-4)
        assert close.mean() > (0.8 if "spike" in way else 0.999)


def test_the_first_samples_of_many_are_those_of_few(small_network, way):
    few, many = (generate(small_network, n, inference=WAYS[way], rng=1) for n in (5, 12))
    # where no other row is computed, the products have another shape, and their last bits differ
    np.testing.assert_allclose(few, many[:5], atol=1e-6 if hasattr(WAYS[way], "by_row") else 0)


def test_pixels_that_are_known_stay(small_network, digits, way):
    x, visible = digits.test[:6], np.arange(64) < 32
    filled, again = (
        inpaint(small_network, x, visible, rounds=2, inference=WAYS[way], rng=1) for _ in range(2)
    )
    assert (filled == again).all() and (filled[:, :32] == x[:, :32]).all()
    assert (filled[:, 32:] != x[:, 32:]).any()


def test_each_round_of_inpainting_draws_from_a_stream_of_its_own(small_network, digits, way):
    "By hand: random missing pixels, then two rounds, with the streams of their addresses."
    known, seen = digits.test[:6], np.broadcast_to(np.arange(64) < 32, (6, 64))
    x = np.where(seen, known, Random(1).uniform((6, 64)))
    for r in range(2):
        h = WAYS[way](small_network, x, visible=seen, rng=Random(1).stream("round", r))
        x = np.where(seen, known, small_network.g(1, h[1]))
    filled = inpaint(small_network, known, seen, rounds=2, inference=WAYS[way], rng=1)
    np.testing.assert_array_equal(filled, x)


def test_training_goes_on_from_a_checkpoint_to_the_same_bits(digits, tmp_path, way):
    start = init_model((64, 8, 4), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    config = TrainConfig(epochs=2, noise=(0.2, 0.1, "spikes"))

    def learn(inference, folder=None, on_epoch=None):
        more = {"checkpoint": folder, "on_epoch": on_epoch, "progress": False}
        return fit(start, digits.train[:200], config, rng=1, inference=inference, **more)[0]

    def cut(model, history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(WAYS[way], tmp_path, cut)
    with pytest.raises(CheckpointError, match=f"inference.{next(iter(OTHERS[way]))}"):
        learn(replace(WAYS[way], **OTHERS[way]), tmp_path)
    resumed, whole = learn(WAYS[way], tmp_path), learn(WAYS[way])
    for a, b in zip(resumed.pairs, whole.pairs, strict=True):
        assert (a.f.W == b.f.W).all() and (a.g.W == b.g.W).all()
    assert isinstance(resumed.prior, TopPrior)
