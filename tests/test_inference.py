"""INFERENCE against a transcription of Algorithm 2 in plain loops over examples, layers and
neurons, in double precision.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biolearn.core.arrays import to_numpy
from biolearn.core.inference import Inference, InferenceSettings, InferenceStep, infer
from biolearn.core.layers import target_step
from biolearn.core.model import Model, init_model, log_p_joint
from biolearn.core.rng import Random

RATES = {
    "softplus": lambda a: math.log1p(math.exp(-abs(a))) + max(a, 0),
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "linear": lambda a: a,
}
NETWORKS = [
    ((5, 4), ("sigmoid", "tanh")),
    ((5, 4, 3), ("sigmoid", "softplus", "sigmoid")),
    ((5, 6, 4, 3), ("linear", "relu", "softplus", "sigmoid")),
]


def loops(model, x, n_steps, delta, alpha, visible):
    """Algorithm 2's INFERENCE for one example, with lists of Python floats; all g are computed
    afresh each time.
    """

    def apply(dense, h):
        W, b = to_numpy(dense.W).astype(float), to_numpy(dense.b).astype(float)
        return [
            RATES[dense.unit](sum(h[i] * W[i, j] for i in range(len(h))) + b[j])
            for j in range(len(b))
        ]

    f, g, M = (
        [None] + [p.f for p in model.pairs],
        [None] + [p.g for p in model.pairs],
        len(model.pairs),
    )
    h = [list(map(float, x))]
    for k in range(1, M + 1):
        h.append(apply(f[k], h[k - 1]))
    for _ in range(n_steps):
        decoded = apply(g[1], h[1])
        seen = [x[i] if visible is None or visible[i] else decoded[i] for i in range(len(x))]
        for k in range(M, 0, -1):
            target, now = apply(f[k], seen if k == 1 else h[k - 1]), apply(f[k], apply(g[k], h[k]))
            above = apply(g[k + 1], h[k + 1]) if k < M else None
            h[k] = [
                h[k][j]
                + delta * (target[j] - now[j])
                + (alpha * (above[j] - h[k][j]) if above else 0)
                for j in range(len(h[k]))
            ]
    return h


@pytest.mark.parametrize("sizes, units", NETWORKS)
@pytest.mark.parametrize("masked", [False, True])
def test_against_plain_loops(backend, sizes, units, masked):
    model = init_model(sizes, units, rng=Random(0, backend))
    x = Random(1).uniform((3, sizes[0]))
    visible = np.asarray(Random(2).uniform(x.shape) < 0.5) if masked else None
    for settings_ in (
        dict(n_steps=15, delta=0.1, alpha=0.001),
        dict(n_steps=7, delta=0.3, alpha=0.3),
        dict(n_steps=0, delta=0.1, alpha=0.1),
    ):
        seen = None if visible is None else backend.asarray(visible, "bool")
        h = infer(model, backend.asarray(x), Inference(**settings_), visible=seen)
        for i in range(3):
            expected = loops(
                model, x[i].tolist(), visible=None if visible is None else visible[i], **settings_
            )
            for ours, theirs in zip(h, expected):
                np.testing.assert_allclose(to_numpy(ours)[i], theirs, atol=2e-6, rtol=2e-6)


def test_needs_nothing_but_the_two_maps():
    "No derivative, no weights, no transposes: INFERENCE runs on opaque functions."
    opaque = SimpleNamespace(
        f=lambda x: np.sin(x[:, :3]) ** 2, g=lambda h: np.pad(np.cos(h), ((0, 0), (0, 2)))
    )
    model = SimpleNamespace(
        pairs=(opaque,), sizes=(5, 3), f=lambda k, h: opaque.f(h), g=lambda k, h: opaque.g(h)
    )
    x = Random(0).uniform((4, 5))
    h1 = opaque.f(x)
    for _ in range(15):
        h1 = h1 + 0.1 * (opaque.f(x) - opaque.f(opaque.g(h1)))
    np.testing.assert_allclose(
        [*Inference().steps(model, x)][-1][1], h1, rtol=1e-6
    )  # infer is tested to be the same


def test_the_flags_and_the_move_of_a_layer_can_be_had_alone():
    "What another inference may build on: the settings, and one step of one layer."
    assert not InferenceSettings().draws and issubclass(Inference, InferenceStep)
    model, x = init_model(*NETWORKS[0], rng=Random(0)), Random(1).uniform((2, 5))
    h = [x, model.f(1, x)]
    move = InferenceStep(delta=0.2).step(model, 1, h, [x, model.g(1, h[1])], x, h[1])
    np.testing.assert_allclose(move, 0.2 * target_step(model.pairs[0], x, h[1]), atol=1e-7)


def test_steps_are_those_of_infer_and_never_change_what_was_handed_out():
    model = init_model(*NETWORKS[1], rng=Random(0))
    x = Random(1).uniform((2, 5))
    states = list(Inference(n_steps=6).steps(model, x))
    assert len(states) == 7
    for t, state in enumerate(states):
        for a, b in zip(state, infer(model, x, Inference(n_steps=t))):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert (states[0][0] == x).all()


@pytest.mark.parametrize("masked", [False, True])
def test_direction_target_step_is_the_default_spelled_out(backend, masked):
    "The shortcuts of the default path change nothing, also where only some pixels are visible."
    model = init_model(*NETWORKS[2], rng=Random(0, backend))
    x = Random(1).uniform((3, 5))
    visible = (
        backend.asarray(np.asarray(Random(2).uniform(x.shape) < 0.5), "bool") if masked else None
    )
    for a, b in zip(
        *(
            infer(model, backend.asarray(x), Inference(alpha=0.1, **kw), visible=visible)
            for kw in ({}, {"direction": target_step})
        )
    ):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=1e-6)


def test_defaults_are_the_papers():
    model, x = init_model(*NETWORKS[1], rng=Random(0)), Random(1).uniform((2, 5))
    for a, b in zip(
        infer(model, x), infer(model, x, Inference(n_steps=15, delta=0.1, alpha=0.001))
    ):
        assert (a == b).all()


@given(st.integers(1, 4), st.integers(1, 5), st.sampled_from(["float32", "float64"]), st.data())
@settings(deadline=None, max_examples=30)
def test_shapes_and_dtypes(depth, batch, dtype, data):
    sizes = tuple(data.draw(st.integers(1, 6)) for _ in range(depth + 1))
    units = tuple(data.draw(st.sampled_from(sorted(RATES))) for _ in sizes)
    model = init_model(sizes, units, rng=Random(0))
    wide = lambda d: type(d)(d.W.astype(dtype), d.b.astype(dtype), d.unit)
    model = Model(tuple(type(p)(wide(p.f), wide(p.g)) for p in model.pairs))
    h = infer(model, Random(1).uniform((batch, sizes[0]), dtype), Inference(n_steps=3))
    assert [a.shape for a in h] == [(batch, n) for n in sizes] and all(a.dtype == dtype for a in h)
    assert log_p_joint(model, h).dtype == dtype


def test_examples_do_not_see_each_other():
    model, x = init_model(*NETWORKS[2], rng=Random(0)), Random(1).uniform((6, 5))
    for whole, alone in zip(infer(model, x), infer(model, x[2:3])):
        np.testing.assert_allclose(whole[2:3], alone, rtol=1e-5, atol=1e-6)


def test_a_mask_of_one_row_serves_all_and_a_wrong_one_is_refused():
    model, x = init_model(*NETWORKS[1], rng=Random(0)), Random(1).uniform((3, NETWORKS[1][0][0]))
    row = np.arange(x.shape[1]) < 2
    for a, b in zip(
        infer(model, x, visible=row), infer(model, x, visible=np.broadcast_to(row, x.shape))
    ):
        np.testing.assert_array_equal(a, b)
    for bad, error in ((row[:-1], ValueError), (row.astype(int), TypeError), ([True], TypeError)):
        with pytest.raises(error, match="visible must"):
            infer(model, x, visible=bad)
