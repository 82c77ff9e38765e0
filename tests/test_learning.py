"""TRAIN: local, exact, reproducible, and loud when it diverges."""

import functools
import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import biolearn.core.checkpoints as checkpoints
import biolearn.core.learning as learning
import biolearn.core.optimizers as optimizers
from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.checkpoints import load_model, save_model
from biolearn.core.ensembles import fit_many, stack_models, unstack_models
from biolearn.core.generation import generate, inpaint
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, LayerPair, exact_gradient
from biolearn.core.learning import DivergenceError, TrainConfig, fit, new_train_state, train_step
from biolearn.core.model import copy_model, init_model
from biolearn.core.optimizers import OPTIMIZERS
from biolearn.core.priors import fit_mixture_prior
from biolearn.core.rng import Random
from biolearn.kernels.threads import Threads

NETWORKS = {
    1: ((6, 4), ("sigmoid", "softplus")),
    2: ((6, 5, 4), ("sigmoid", "softplus", "sigmoid")),
    3: ((6, 5, 4, 3), ("sigmoid", "tanh", "softplus", "sigmoid")),
}


def network(depth, backend=None, **kw):
    sizes, units = NETWORKS[depth]
    recipe = dict(
        epochs=2,
        batch_size=4,
        noise=(0.1,) * depth + ("spikes" if units[-1] == "sigmoid" else 0.1,),
        rate_f=(1e-2,) * depth,
        rate_g=(2e-2,) * depth,
    )
    return init_model(sizes, units, rng=Random(0, backend)), TrainConfig(**recipe | kw)


def arrays(model):
    return [to_numpy(a) for p in model.pairs for d in (p.f, p.g) for a in (d.W, d.b)]


@dataclass(frozen=True)
class Settled(Inference):
    "An inference that returns what it was given, or what a function makes of the rows."

    h: Any = field(default=None, compare=False)
    draws: ClassVar[bool] = True

    def __call__(self, model, x, *, visible=None, rng=None, threads=None):
        return self.h(model, x, rng) if callable(self.h) else self.h


class Beside(Settled):
    "One whose rows hold more than pixels."

    pixels_only: ClassVar[bool] = False


def one_step(model, config, x, seed=5, inference=None):
    """One step from `model`, which is left alone: the trained model, its settled h and the losses
    of f_1, g_1, f_2, ...
    """
    state = new_train_state(model, config.optimizer)
    rngs = [Random(seed).stream(k) for k in range(len(model.sizes))]
    config = config.for_model(model)
    return state.model, *train_step(state, x, config, rngs=rngs, inference=inference)


@pytest.mark.parametrize("depth", NETWORKS)
def test_each_update_descends_its_own_local_objective(depth, monkeypatch):
    """Plain SGD's change of every weight and bias, against central differences of that map's own
    loss on the corrupted input it really saw.
    """
    model, recipe = network(depth, optimizer="sgd", rate_f=(1.0,) * depth, rate_g=(1.0,) * depth)
    wide = lambda d: Dense(d.W.astype(float), d.b.astype(float), d.unit)
    model = replace(model, pairs=tuple(LayerPair(wide(p.f), wide(p.g)) for p in model.pairs))
    x, seen = Random(1).uniform((7, 6), "float64"), []
    corrupt = learning.corrupt
    monkeypatch.setattr(
        learning,
        "corrupt",
        lambda h, noise, *, rng: seen.append(corrupt(h, noise, rng=rng)) or seen[-1],
    )
    trained, h, losses = one_step(model, recipe, x)
    for k in range(depth):
        for d, (old, new, source, target) in enumerate(
            (
                (model.pairs[k].f, trained.pairs[k].f, seen[k], h[k + 1]),
                (model.pairs[k].g, trained.pairs[k].g, seen[k + 1], h[k]),
            )
        ):
            loss = lambda W, b: 0.5 * ((Dense(W, b, old.unit)(source) - target) ** 2).sum() / len(x)
            assert losses[2 * k + d] == pytest.approx(loss(old.W, old.b))
            for i in np.ndindex(old.W.shape):
                e = np.zeros_like(old.W)
                e[i] = 1e-5
                assert old.W[i] - new.W[i] == pytest.approx(
                    (loss(old.W + e, old.b) - loss(old.W - e, old.b)) / 2e-5, rel=1e-5, abs=1e-9
                )
            for j in range(len(old.b)):
                e = np.zeros_like(old.b)
                e[j] = 1e-5
                assert old.b[j] - new.b[j] == pytest.approx(
                    (loss(old.W, old.b + e) - loss(old.W, old.b - e)) / 2e-5, rel=1e-5, abs=1e-9
                )


@pytest.mark.parametrize("k", [0, 1, 2])
def test_distant_layers_are_not_seen(k):
    """Given its own h[k], h[k+1], a pair's update is bit for bit the same whatever the other layers
    do and whatever the other pairs' weights are.
    """
    model, recipe = network(3)
    x = Random(1).uniform((7, 6))
    settled = infer(model, x)

    def update(h, m):
        trained, *_ = one_step(m, recipe, x, inference=Settled(h=h))
        return arrays(replace(m, pairs=trained.pairs[k : k + 1]))

    before = update(settled, model)
    elsewhere = [layer if j in (k, k + 1) else layer + 1 for j, layer in enumerate(settled)]
    other = init_model(*NETWORKS[3], rng=Random(99))
    for h, m in (
        (elsewhere, model),
        (
            settled,
            replace(
                other, pairs=tuple(model.pairs[j] if j == k else other.pairs[j] for j in range(3))
            ),
        ),
    ):
        assert all((a == b).all() for a, b in zip(before, update(h, m)))
    near = [layer + 0.1 if j == k else layer for j, layer in enumerate(settled)]
    assert any((a != b).any() for a, b in zip(before, update(near, model)))  # the test can fail


@pytest.mark.parametrize("learner, other", [("f", "g"), ("g", "f")])
def test_f_and_g_do_not_read_each_others_weights(learner, other):
    model, recipe = network(2)
    pair, stranger = model.pairs[0], init_model(*NETWORKS[2], rng=Random(7)).pairs[0]
    x = Random(1).uniform((4, 6))
    settled = infer(model, x)

    def step(p):
        other = replace(model, pairs=(p, model.pairs[1]))
        trained, *_ = one_step(other, recipe, x, inference=Settled(h=settled))
        return getattr(trained.pairs[0], learner).W

    assert (step(pair) == step(replace(pair, **{other: getattr(stranger, other)}))).all()


@pytest.mark.parametrize("depth", NETWORKS)
def test_no_g_is_a_transposed_f(depth):
    model, recipe = network(depth, epochs=10)
    trained, _ = fit(model, Random(1).uniform((20, 6)), recipe, rng=Random(2), progress=False)
    for m in (model, trained):
        for p in m.pairs:
            assert not np.shares_memory(p.f.W, p.g.W)
            assert (
                np.abs(p.f.W - p.g.W.T).max() > 0.05
                and np.corrcoef(p.f.W.ravel(), p.g.W.T.ravel())[0, 1] < 0.99
            )


def adam_by_hand(w, grads, rate):
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= rate * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def momentum_by_hand(w, grads, rate):
    m = 0.0
    for g in grads:
        m = 0.9 * m + g
        w -= rate * m
    return w


def rmsprop_by_hand(w, grads, rate):
    v = mean = m = 0.0
    for g in grads:
        v, mean = 0.95 * v + 0.05 * g * g, 0.95 * mean + 0.05 * g
        m = 0.9 * m + g / math.sqrt(v - mean * mean + 1e-3)
        w -= rate * m
    return w


@pytest.mark.parametrize(
    "name, by_hand",
    [
        ("sgd", lambda w, grads, rate: w - rate * sum(grads)),
        ("momentum", momentum_by_hand),
        ("rmsprop", rmsprop_by_hand),
        ("adam", adam_by_hand),
    ],
)
def test_optimisers_synapse_by_synapse(name, by_hand):
    "In one array of three columns, and in one so long that it is updated in portions."
    n = OPTIMIZERS[name][1]
    for shape in ((3, 2), (70_000, 1)):
        grads = Random(0).normal((20, *shape), "float64")
        w, books = np.ones(shape), [np.zeros(shape) for _ in range(n)]
        for t, g in enumerate(grads, 1):
            optimizers.update_weights(name, w, g.copy(), books, 0.01, t)
        for i in (
            [*np.ndindex(3, 2)]
            if shape == (3, 2)
            else [(0, 0), (32_767, 0), (32_768, 0), (69_999, 0)]
        ):
            assert w[i] == pytest.approx(by_hand(1.0, [g[i] for g in grads], 0.01), rel=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_that_lie_column_by_column_learn_too(optimizer, dtype):
    """A transpose is a view with another order in memory; flattened carelessly it becomes a copy,
    and the update is lost.
    """
    grads, by_rows, by_columns = (
        Random(0).normal((5, 7, 6), "float64").astype(dtype),
        np.ones((7, 6), dtype),
        np.ones((6, 7), dtype).T,
    )
    for w in (by_rows, by_columns):
        books = [np.zeros_like(w) for _ in range(OPTIMIZERS[optimizer][1])]
        for t, grad in enumerate(grads, 1):
            optimizers.update_weights(optimizer, w, grad.copy(), books, 0.01, t)
    np.testing.assert_allclose(by_columns, by_rows, rtol=1e-6)
    assert (by_columns != 1).all()


@pytest.mark.parametrize("depth", NETWORKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_trains_on_every_backend(backend, depth, optimizer):
    """The strict namespace's second device cannot be read by the host: nothing leaks.

    Its numbers are NumPy's, so the results agree.
    """
    model, recipe = network(depth, backend, optimizer=optimizer)
    x = Random(1).uniform((10, 6))
    trained, history = fit(
        model, backend.asarray(x), recipe, rng=Random(2, backend), progress=False
    )
    assert (
        len(history) == 2
        and len(history[0]["loss_f"]) == depth
        and len(history[0]["rms"]) == depth + 1
    )
    if backend.name == "gpu":
        return  # draws other numbers, by design
    here, history_here = fit(network(depth)[0], x, recipe, rng=Random(2), progress=False)
    for a, b in zip(arrays(trained), arrays(here)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_numpy(trained.prior.var), here.prior.var, rtol=1e-3, atol=1e-7)
    assert history[-1]["log_p_end"] == pytest.approx(history_here[-1]["log_p_end"], rel=1e-4)


def test_same_seed_same_bits():
    model, recipe = network(2)
    x = Random(1).uniform((10, 6))
    runs = [fit(model, x, recipe, rng=Random(seed), progress=False) for seed in (3, 3, 4)]
    assert (
        all((a == b).all() for a, b in zip(arrays(runs[0][0]), arrays(runs[1][0])))
        and runs[0][1] == runs[1][1]
    )
    assert any((a != b).any() for a, b in zip(arrays(runs[0][0]), arrays(runs[2][0])))


@pytest.mark.parametrize("n", [1, 4, 30, 100, 101])
@pytest.mark.parametrize("depth", NETWORKS)
def test_threads_do_not_change_the_numbers(depth, n, monkeypatch):
    """However many threads share the work, the weights agree to round-off; with the same number, to
    the bit.
    """
    model, recipe = network(depth, batch_size=n)
    x, runs = Random(1).uniform((2 * n, 6)), []
    for threads in (1, 4, 4):
        with monkeypatch.context() as patch:
            patch.setattr(learning, "use_threads", lambda a: nullcontext(Threads(threads)))
            runs.append(arrays(fit(model, x, recipe, rng=Random(3), progress=False)[0]))
    for one, four, again in zip(*runs):
        np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-5)
        assert (four == again).all()


def test_on_epoch_sees_every_epoch():
    model, recipe = network(2, epochs=3)
    x, seen = Random(1).uniform((10, 6)), []
    trained, history = fit(
        model,
        x,
        recipe,
        rng=Random(3),
        progress=False,
        on_epoch=lambda m, h: seen.append((arrays(copy_model(m)), len(h))),
    )
    assert [n for _, n in seen] == [1, 2, 3] and len(history) == 3
    assert all((a == b).all() for a, b in zip(seen[-1][0], arrays(trained))) and any(
        (a != b).any() for a, b in zip(seen[0][0], seen[1][0])
    )


def test_exact_direction_is_passed_on(monkeypatch):
    """direction='exact' trains towards where the true gradient of Eq. 8 leads, and towards nothing
    else.
    """
    model, recipe = network(2, direction="exact")
    x = Random(1).uniform((4, 6))
    h = one_step(model, recipe, x)[1]
    for a, b in zip(h, infer(model, x, Inference(direction=exact_gradient))):
        assert (a == b).all()
    assert np.abs(h[1] - infer(model, x)[1]).max() > 1e-4
    with pytest.raises(ValueError, match="direction"):
        TrainConfig(direction="true")


def test_input_is_left_alone():
    model, recipe = network(2)
    x = Random(1).uniform((10, 6))
    x.flags.writeable = False
    before = [a.copy() for a in arrays(model)]
    fit(model, x, recipe, rng=Random(2), progress=False)
    assert all((a == b).all() for a, b in zip(before, arrays(model)))


def test_prior_is_that_of_the_settled_top_layer():
    model, recipe = network(2)
    x = Random(1).uniform((1500, 6))
    trained, _ = fit(
        model, x, replace(recipe, epochs=1, batch_size=100), rng=Random(2), progress=False
    )
    top = infer(trained, x)[-1]
    np.testing.assert_allclose(trained.prior.mean, top.mean(0), rtol=1e-4)
    np.testing.assert_allclose(trained.prior.var, 4 * top.var(0), rtol=1e-3)


def test_losses_fall():
    model, recipe = network(2, epochs=60, batch_size=20)
    _, history = fit(model, Random(1).uniform((20, 6)), recipe, rng=Random(2), progress=False)
    assert history[-1]["loss_g"][0] < 0.8 * history[0]["loss_g"][0]


def test_losses_are_means_over_the_batches_of_an_epoch(monkeypatch):
    model, recipe = network(2, epochs=1, batch_size=8)
    seen, step = [], learning.em_step
    monkeypatch.setattr(learning, "em_step", lambda *a: seen.append(step(*a)) or seen[-1])
    _, history = fit(model, Random(1).uniform((20, 6)), recipe, rng=Random(2), progress=False)
    assert len(seen) == 3
    for d, name in enumerate(("loss_f", "loss_g")):
        np.testing.assert_allclose(
            history[0][name],
            [np.mean([losses[2 * k + d] for _, losses in seen]) for k in (0, 1)],
            rtol=1e-5,
        )


def test_divergence_is_noticed_before_nan(monkeypatch):
    model, recipe = network(
        2,
        epochs=500,
        noise=(0.0, 1.0, "spikes"),
        rate_f=(0.05, 0.05),
        rate_g=(1e-4, 1e-4),
        decay=False,
    )
    steps, step = [], learning.em_step
    monkeypatch.setattr(learning, "em_step", lambda *a: steps.append(a[0].t) or step(*a))
    with (
        np.errstate(over="raise", invalid="raise"),
        pytest.raises(DivergenceError, match=r"layer h_1 .* in epoch \d+.*noise on x.*rate_f"),
    ):
        fit(model, Random(1).uniform((10_000, 6)), recipe, rng=Random(2), progress=False)
    assert (
        len(steps) < 2500 and len(steps) % 50 == 0
    )  # within the first epoch: it looks every 50 steps


def test_nan_in_training_is_divergence():
    model, recipe = network(2)
    spoilt = lambda model, x, rng: [x] + [layer * float("nan") for layer in infer(model, x)[1:]]
    with pytest.raises(DivergenceError, match="nan"):
        x = Random(1).uniform((10, 6))
        fit(model, x, recipe, rng=Random(2), inference=Settled(h=spoilt), progress=False)


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.full((3, 6), np.nan, np.float32), "x holds NaN"),
        (np.ones((3, 5), np.float32), "6 columns"),
        (np.ones(6, np.float32), "2 axes"),
        (np.ones((0, 6), np.float32), "empty"),
        (np.full((3, 6), 255, np.uint8), "above 1"),
        (np.ones((3, 6), complex), "real numbers"),
        ("x", "array"),
    ],
)
def test_bad_data(bad, message):
    model, recipe = network(2)
    with pytest.raises((ValueError, TypeError), match=message):
        fit(model, bad, recipe, rng=Random(0), progress=False)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "bool", ">f4"])
def test_pictures_of_another_type_are_converted_once(dtype):
    "To the dtype of the weights: the same bits as after converting them by hand."
    model, recipe = network(2)
    x = (Random(1).uniform((10, 6)) < 0.5).astype(dtype)
    by_hand = x.astype(np.float32)
    a, b = (fit(model, v, recipe, rng=2, progress=False)[0] for v in (x, by_hand))
    for p, q in zip(arrays(a), arrays(b)):
        assert p.dtype == np.float32 and np.array_equal(p, q)
    for p, q in zip(infer(model, x), infer(model, by_hand)):
        assert p.dtype == np.float32 and np.array_equal(p, q)


@pytest.mark.parametrize(
    "bad",
    [
        dict(epochs=0),
        dict(batch_size=0),
        dict(n_steps=-1),
        dict(rate_f=(float("nan"), 1)),
        dict(noise=(-1, 0, 0)),
        dict(noise=("spike", 0, 0)),
        dict(noise=0.5),
        dict(noise="spikes"),
        dict(rate_f=1e-3),
        dict(noise_end=(0.1, 0.1, "spikes")),
        dict(optimizer="lbfgs"),
    ],
)
def test_bad_recipe(bad):
    with pytest.raises((ValueError, TypeError)):
        TrainConfig(**bad)


@pytest.mark.parametrize(
    "bad", [dict(noise=(0.1, 0.1)), dict(rate_f=(0.1,)), dict(rate_g=(0.1,) * 3)]
)
def test_recipe_of_another_depth(bad):
    with pytest.raises(ValueError, match="2 hidden layers"):
        fit(
            network(2)[0],
            Random(1).uniform((4, 6)),
            TrainConfig(**bad),
            rng=Random(0),
            progress=False,
        )


@pytest.mark.parametrize("decay, expected", [(True, [1, 0.75, 0.5, 0.25]), (False, [1, 1, 1, 1])])
def test_rates_fall_linearly(monkeypatch, decay, expected):
    model, recipe = network(1, decay=decay, noise=(0.2, 0.4), noise_end=(0.0, 0.8))
    used, at = [], TrainConfig.at
    monkeypatch.setattr(
        TrainConfig, "at", lambda self, done: used.append(at(self, done)) or used[-1]
    )
    fit(model, Random(1).uniform((8, 6)), recipe, rng=Random(2), progress=False)
    for name in ("rate_f", "rate_g"):
        np.testing.assert_allclose(
            [getattr(r, name)[0] / getattr(recipe, name)[0] for r in used], expected
        )
    np.testing.assert_allclose(
        [r.noise for r in used], [(0.2, 0.4), (0.15, 0.5), (0.1, 0.6), (0.05, 0.7)]
    )  # whether the rates fall or not


def test_noise_stays_unless_an_end_is_given():
    given = TrainConfig(noise=(0.5, 0.1, "spikes")).for_layers(2)
    assert given.noise_end is None and given.at(0.5).noise == given.noise
    assert replace(given, noise_end=given.noise).at(1.0).noise == given.noise
    assert replace(given, noise=(0.0, 0.0, 0.0)).at(0.5).noise == (0.0, 0.0, 0.0)
    for bad in ((0.1, 0.1), (0.1, "spikes", 0.1), (0.1, -0.1, "spikes")):
        with pytest.raises(ValueError, match="noise"):
            TrainConfig(noise=given.noise, noise_end=bad)


@pytest.mark.parametrize("M", [1, 2, 3, 4])
def test_what_is_left_out_is_the_papers_for_any_depth(M):
    "Two hidden layers: the numbers of the committed runs; others: ends kept, the middle repeated."
    config = TrainConfig().for_layers(M)
    assert config.noise == (0.5, *(0.1,) * (M - 1), "spikes")
    assert config.noise_end == (0.4, *(0.1,) * (M - 1), "spikes")
    assert config.rate_f == (3e-4, *(1e-3,) * (M - 1))
    assert config.rate_g == (1e-3, *(2e-3,) * (M - 1))
    assert config.for_layers(M) == config  # nothing is left to fill in
    assert TrainConfig().for_layers(M, "tanh").noise[-1] == 0.1  # no spikes below zero
    own = TrainConfig(rate_f=(0.1,) * M).for_layers(M)
    assert own.rate_f == (0.1,) * M and own.rate_g == config.rate_g
    with pytest.raises(ValueError, match=f"noise needs {M + 2} entries"):
        config.for_layers(M + 1)


def test_the_settings_that_the_paper_gives_come_first():
    given = {"epochs": 20, "batch_size": 100, "n_steps": 15, "delta": 0.1, "alpha": 0.001}
    given["presynaptic"] = "inferred"  # the M-step comes after inference in Algorithm 2
    assert asdict(learning.PaperSettings()) == given
    assert list(asdict(TrainConfig()))[:6] == list(given)


def test_nothing_said_trains_the_papers_way():
    "fit(model, x) is fit with every setting written out, bit for bit, for a seed or a `Random`."
    model = init_model(*NETWORKS[3], rng=Random(0))
    x = Random(1).uniform((120, 6))
    quiet = fit(model, x, TrainConfig(epochs=1), progress=False)[0]
    said = TrainConfig(epochs=1).for_layers(3)
    for rng in (0, Random(0)):
        for a, b in zip(arrays(fit(model, x, said, rng=rng, progress=False)[0]), arrays(quiet)):
            assert (a == b).all()


def test_single_row_and_ragged_last_batch():
    model, recipe = network(2)
    for n in (1, 5):
        fit(model, Random(1).uniform((n, 6)), recipe, rng=Random(0), progress=False)


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 3))
@settings(deadline=None, max_examples=15)
def test_any_batch_size(n, batch_size, depth):
    model, recipe = network(depth, epochs=1, batch_size=batch_size)
    trained, _ = fit(model, Random(1).uniform((n, 6)), recipe, rng=Random(0), progress=False)
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in arrays(trained))


# ---- saved models --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", NETWORKS)
def test_save_and_load(tmp_path, backend, depth):
    model, recipe = network(depth, backend, epochs=1)
    trained, _ = fit(
        model,
        backend.asarray(Random(1).uniform((10, 6))),
        recipe,
        rng=Random(0, backend),
        progress=False,
    )
    for m in (model, trained):
        save_model(tmp_path / "m.safetensors", m)
        back = load_model(tmp_path / "m.safetensors", Backend())
        assert (
            all((a == b).all() for a, b in zip(arrays(m), arrays(back))) and back.units == m.units
        )
        assert (back.prior is None) == (m.prior is None)
    assert (
        to_numpy(back.prior.var) == to_numpy(trained.prior.var)
    ).all() and back.prior.weight is None
    mixed = replace(
        trained,
        prior=fit_mixture_prior(
            backend.asarray(Random(2).uniform((9, trained.sizes[-1]))), 3, rng=Random(3, backend)
        ),
    )
    save_model(tmp_path / "m.safetensors", mixed)
    back = load_model(tmp_path / "m.safetensors", Backend())
    assert all(
        (to_numpy(vars(mixed.prior)[name]) == a).all() for name, a in vars(back.prior).items()
    )
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, network(2)[0])
    whole = path.read_bytes()
    for length in [*range(0, 64), *range(64, len(whole), 37)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="m.safetensors is not a saved biolearn model"):
            load_model(path, Backend())


def test_other_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"a": np.ones(3, np.float32)}, path)
    with pytest.raises(ValueError, match="no header of a biolearn model 2"):
        load_model(path, Backend())
    checkpoints._write_arrays(
        path,
        {"f1.W": np.full((2, 3), np.nan, np.float32)},
        format="biolearn model 2",
        units='["relu", "relu"]',
    )
    with pytest.raises(ValueError, match="NaN"):
        load_model(path, Backend())
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.safetensors", Backend())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_model(path, network(1)[0])
    before = path.read_bytes()
    monkeypatch.setattr(
        "biolearn.core.files.os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk is full"))
    )
    with pytest.raises(OSError, match="full"):
        save_model(path, network(2)[0])
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


# ---- several networks side by side ---------------------------------------------------------------


@pytest.mark.parametrize(
    "depth, change",
    [
        (1, {}),
        (2, {}),
        (3, {}),
        (2, dict(optimizer="rmsprop")),
        (3, dict(direction="exact")),
        (2, dict(noise_end=True)),
        (2, dict(compiled=False)),
    ],
    ids=str,
)
def test_networks_side_by_side_learn_as_each_does_alone(depth, change, backend, monkeypatch):
    """Weights, prior and history after two epochs with a short last minibatch, on every backend.

    Products of a stack may sum in another order: float32 round-off, which Adam may show in the
    weights.
    """
    if "compiled" in change:
        monkeypatch.setattr("biolearn.kernels.dispatch.compiled_kernels", lambda: None)
        change = {}
    recipe = network(depth, n_steps=4)[1]
    if change.get("noise_end"):
        change = dict(noise_end=tuple(n if n == "spikes" else n / 2 for n in recipe.noise))
    recipe, x = replace(recipe, **change), Random(1, backend).uniform((11, 6))
    models, rngs = (
        [make(Random(s, backend)) for s in (3, 5, 8)]
        for make in (lambda r: init_model(*NETWORKS[depth], rng=r), lambda r: r.stream("train"))
    )
    before = [arrays(m) for m in models]
    together = fit_many(models, x, recipe, rngs=rngs, progress=False)
    for model, rng, old, (trained, history) in zip(models, rngs, before, together, strict=True):
        alone, told = fit(model, x, recipe, rng=rng, progress=False)
        for a, b, start in zip(arrays(trained), arrays(alone), old, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
            assert np.abs(b - start).max() > 1e-3
        for a, b in ((trained.prior.mean, alone.prior.mean), (trained.prior.var, alone.prior.var)):
            np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-3, atol=1e-5)
        assert len(history) == len(told) and all(
            a.keys() == b.keys() for a, b in zip(history, told)
        )
        for a, b in zip(history, told):
            for key in a:
                assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-4), key
        for a, b in zip(arrays(model), old, strict=True):
            assert (a == b).all()  # what was handed in is left alone
    assert any((a != b).any() for a, b in zip(arrays(together[0][0]), arrays(together[1][0])))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_the_examples_of_several_networks(threads):
    models, x = (
        [init_model(*NETWORKS[3], rng=Random(s)) for s in range(3)],
        Random(1).uniform((3, 90, 6)),
    )
    for visible in (None, x > 0.4):
        together = infer(
            stack_models(models),
            x,
            Inference(alpha=0.05),
            visible=visible,
            threads=Threads(threads),
        )
        for s, model in enumerate(models):
            alone = infer(
                model,
                x[s],
                Inference(alpha=0.05),
                visible=visible if visible is None else visible[s],
                threads=Threads(1),
            )
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_allclose(a[s], b, rtol=2e-6, atol=2e-6)


def test_a_stack_sees_the_same_rows_where_it_is_handed_one_set():
    models, x = (
        [init_model(*NETWORKS[2], rng=Random(s)) for s in range(3)],
        Random(1).uniform((7, 6)),
    )
    for layer, *each in zip(infer(stack_models(models), x)[1:], *(infer(m, x)[1:] for m in models)):
        np.testing.assert_allclose(layer, np.stack(each), rtol=2e-6, atol=2e-6)


def test_a_stack_comes_apart_again():
    models = [init_model(*NETWORKS[2], rng=Random(s)) for s in range(3)]
    for s, model in enumerate(models):  # biases begin as zeros, which are all alike
        for pair in model.pairs:
            pair.f.b[...], pair.g.b[...] = s + 1, -s - 1
    stack = stack_models(models)
    assert stack.sizes == models[0].sizes and stack.units == models[0].units
    for model, back in zip(models, unstack_models(stack), strict=True):
        for a, b in zip(arrays(model), arrays(back), strict=True):
            assert (a == b).all() and not np.shares_memory(a, b)
    unstack_models(stack)[1].pairs[0].f.W[...] = 7
    assert (stack.pairs[0].f.W[1] == 7).all() and (stack.pairs[0].f.W[0] != 7).all()
    for others in (
        [init_model((6, 5, 3), NETWORKS[2][1], rng=Random(0))],
        [init_model(NETWORKS[2][0], ("sigmoid", "relu", "sigmoid"), rng=Random(0))],
    ):
        with pytest.raises(ValueError, match="the same sizes and units"):
            stack_models(models + others)


def test_what_fit_many_refuses():
    models, recipe = [network(2)[0] for _ in range(3)], network(2)[1]
    x, rngs = Random(1).uniform((11, 6)), [Random(s) for s in range(3)]
    for some, streams in (([], []), (models, rngs[:2])):
        with pytest.raises(ValueError, match="rngs one of as many seeds"):
            fit_many(some, x, recipe, rngs=streams)
    with pytest.raises(ValueError, match="`fit_many` trains those.*no checkpoints"):
        fit(stack_models(models), x, recipe, rng=rngs[0])
    with pytest.raises(ValueError, match="x must have 6 columns"):
        fit_many(models, x[:, :5], recipe, rngs=rngs)
    models[2].pairs[0].f.W[0, 0] = np.nan
    with pytest.raises(DivergenceError, match="network 2 .*layer h_1"):
        fit_many(models, x, recipe, rngs=rngs, progress=False)


# ---- another inference, and a look at the weights after each minibatch ---------------------------


def test_an_inference_handed_in_changes_nothing_if_it_is_that_of_the_settings():
    "The same weights, history and prior, bit for bit."
    model = init_model((12, 9, 5), NETWORKS[2][1], rng=Random(0))
    x = Random(1).uniform((130, 12)).astype(np.float32)
    config = TrainConfig(epochs=2, batch_size=20, n_steps=3)
    (a, history_a), (b, history_b) = (
        fit(model, x, config, rng=Random(2), progress=False, inference=inference)
        for inference in (None, Inference(n_steps=3))
    )
    assert history_a == history_b and np.array_equal(a.prior.var, b.prior.var)
    for p, q in zip(arrays(a), arrays(b)):
        assert np.array_equal(p, q)


def test_what_an_inference_settles_on_is_what_every_map_learns():
    """Labels beside the pixels: clamped at the top, they are what f learns to say and g hears; the
    prior's mean is theirs.
    """
    x = np.eye(4, dtype=np.float32)[np.arange(80) % 4]
    model = init_model((4, 4), ("sigmoid", "linear"), rng=Random(0))
    clamp = Beside(h=lambda model, rows, rng: [rows[:, :4], rows[:, 4:]])
    config = TrainConfig(
        epochs=200, batch_size=20, noise=(0.0, 0.0), rate_f=(0.03,), rate_g=(0.03,)
    )
    rows = np.hstack([x, 2 * x[:, ::-1]])
    trained, _ = fit(model, rows, config, rng=Random(1), progress=False, inference=clamp)
    # a linear map of four independent inputs: the fit is exact
    assert np.abs(trained.f(1, x) - 2 * x[:, ::-1]).max() < 0.02
    assert np.abs(trained.prior.mean - 0.5).max() < 1e-6  # the mean of 2 in one case of four


def test_an_inference_draws_from_streams_of_its_own_and_they_go_on():
    """Two minibatches never get the same noise, two runs get the same, and the layers' noise is not
    touched.
    """
    seen = []

    def settle(model, rows, rng):
        seen.append(float(rng.normal((1,))[0]))
        return infer(model, rows, Inference(n_steps=0))

    model = init_model((6, 5), ("sigmoid", "sigmoid"), rng=Random(0))
    x = np.full((40, 6), 0.5, np.float32)
    config = TrainConfig(
        epochs=2, batch_size=10, n_steps=0, noise=(0.1, 0.1), rate_f=(1e-3,), rate_g=(1e-3,)
    )
    drawing = Settled(h=settle)
    a, _ = fit(model, x, config, rng=Random(3), progress=False, inference=drawing)
    first, seen[:] = list(seen), []
    fit(model, x, config, rng=Random(3), progress=False, inference=drawing)
    # a trial; four minibatches and a measurement, twice; the top prior
    assert seen == first and len(set(seen)) == len(seen) == 1 + 2 * (4 + 1) + 1
    b, _ = fit(model, x, config, rng=Random(3), progress=False)
    assert np.array_equal(a.pairs[0].f.W, b.pairs[0].f.W)


def test_a_projection_may_rewrite_weights_and_sees_what_was_settled():
    model = init_model((6, 5), ("sigmoid", "sigmoid"), rng=Random(0))
    x = np.full((40, 6), 0.5, np.float32)
    config = TrainConfig(
        epochs=2, batch_size=10, n_steps=2, noise=(0.1, 0.1), rate_f=(0.1,), rate_g=(0.1,)
    )
    calls = []

    def bounded(model, h):
        assert [layer.shape for layer in h] == [(10, 6), (10, 5)]
        calls.append(abs(model.pairs[0].f.W).max())
        np.clip(model.pairs[0].f.W, -0.25, 0.25, out=model.pairs[0].f.W)

    trained, _ = fit(model, x, config, rng=Random(1), progress=False, projection=bounded)
    assert len(calls) == 8 and min(calls) > 0.25
    assert abs(trained.pairs[0].f.W).max() == 0.25 and abs(model.pairs[0].f.W).max() > 0.25


def test_a_projection_keeps_no_checkpoint(tmp_path):
    model = init_model((6, 5), ("sigmoid", "sigmoid"), rng=Random(0))
    x = np.full((40, 6), 0.5, np.float32)
    with pytest.raises(ValueError, match="keeps no checkpoint"):
        fit(model, x, checkpoint=tmp_path / "c", projection=lambda model, h: None)
    assert not (tmp_path / "c").exists()


@dataclass(frozen=True)
class Around(Inference):
    "An inference that holds another one."

    inner: Inference = Inference()


@dataclass(frozen=True)
class Halved(Inference):
    "An inference with a setting of its own."

    half: float = 0.5

    def __call__(self, model, x, **more):
        return [x] + [self.half * layer for layer in Inference(n_steps=self.n_steps)(model, x)[1:]]


def test_a_checkpoint_knows_which_inference_it_was_made_with(tmp_path):
    "Another setting, or another kind, is refused; the same goes on, to the same bits."
    model = init_model((6, 5), ("sigmoid", "sigmoid"), rng=Random(0))
    x, config = Random(1).uniform((40, 6)), TrainConfig(epochs=3, batch_size=10)

    class Stop(Exception):
        pass

    def train(inference, **more):
        return fit(model, x, config, rng=1, progress=False, inference=inference, **more)

    def stop(model, history):
        raise Stop

    with pytest.raises(Stop):
        train(Halved(), checkpoint=tmp_path, on_epoch=stop)
    for other in (Halved(half=0.4), Inference(), None):
        with pytest.raises(checkpoints.CheckpointError, match="inference.* there"):
            train(other, checkpoint=tmp_path)
    resumed, whole = train(Halved(), checkpoint=tmp_path), train(Halved())
    assert resumed[1] == whole[1]
    for a, b in zip(arrays(resumed[0]), arrays(whole[0])):
        assert (a == b).all()


def test_what_a_checkpoint_cannot_tell_apart_is_refused(tmp_path):
    "Two lambdas have one name, and what is no dataclass has no settings to compare."
    model, x = init_model((6, 5), ("sigmoid", "sigmoid"), rng=0), Random(1).uniform((40, 6))

    class Mine:
        draws, recordable, pixels_only = False, True, True

        def __call__(self, model, x, **more):
            return infer(model, x)

    nameless = functools.partial(exact_gradient)
    lambdas = Inference(direction=lambda pair, below, h: h)
    for inference in (lambdas, Inference(direction=nameless), Mine()):
        with pytest.raises(ValueError, match="a checkpoint cannot tell"):
            fit(model, x, inference=inference, checkpoint=tmp_path / "c", progress=False)
    assert not (tmp_path / "c").exists()
    config = TrainConfig(epochs=1)
    nested = [
        checkpoints.run_identity(model, x, config, Random(0), Around(inner=i))
        for i in (Inference(n_steps=15), Inference(n_steps=1))
    ]
    assert nested[0] != nested[1]  # settings within settings count
    named = Inference(direction=exact_gradient)
    fit(model, x, config, inference=named, checkpoint=tmp_path / "c", progress=False)


def test_an_inference_that_returns_something_else_is_refused_before_training():
    model = init_model((6, 5), ("sigmoid", "sigmoid"), rng=Random(0))
    x = np.full((40, 6), 0.5, np.float32)
    odd = Settled(h=lambda model, rows, rng: [rows])
    with pytest.raises(ValueError, match=r"widths \(6, 5\) for 40 rows, got shapes \[\(40, 6\)\]"):
        fit(model, x, rng=Random(1), progress=False, inference=odd)
    plain = lambda model, x: [x]
    for call in (
        lambda: fit(model, x, progress=False, inference=plain),
        lambda: infer(model, x, {"alpha": 0.1}),
        lambda: generate(model, 3, inference={"alpha": 0.1}),
        lambda: inpaint(model, x, x > 0, inference=3),
    ):
        with pytest.raises(TypeError, match="inference must be an Inference"):
            call()
    for odd in (2, {"epochs": 2}):
        for train in (
            lambda: fit(model, x, odd),
            lambda: fit_many([model], x, odd, rngs=[0]),
        ):
            with pytest.raises(TypeError, match="config must be a TrainConfig"):
                train()
