"""INFERENCE without a clock: where everything moves it is INFERENCE; otherwise against a loop over
pictures, fixed points that are solved for, and binomial counts; what it refuses.
"""

import numpy as np
import pytest

from biolearn.core.generation import generate, inpaint
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, LayerPair, exact_gradient
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.model import Model, init_model
from biolearn.core.rng import Random
from biolearn.extensions.asynchronous import AsynchronousInference


def linear(W, b):
    return Dense(W, b, "linear")


def echo(n):
    """A pair with f(g(h)) = h: the gap f(x) - h of every neuron shrinks by 1 - delta whenever it
    moves.
    """
    return Model((LayerPair(linear(np.eye(n), np.zeros(n)), linear(np.eye(n), np.zeros(n))),))


# ---- with a clock --------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["layers", "neurons"])
def test_if_everything_moves_it_is_inference_bit_for_bit(small_network, digits, of):
    x, everything = digits.test[:30], AsynchronousInference(7, alpha=0.2, p=1, of=of)
    for a, b in zip(
        Inference(7, alpha=0.2).steps(small_network, x),
        everything.steps(small_network, x, rng=Random(0)),
        strict=True,
    ):
        assert all((u == v).all() for u, v in zip(a, b))
    everything = AsynchronousInference(alpha=0.3, p=1, of=of)
    ours = generate(small_network, 40, rounds=2, inference=everything, rng=Random(3))
    # `infer` sums in another order: float32 round-off
    assert np.abs(ours - generate(small_network, 40, rounds=2, rng=Random(3))).max() < 1e-5


@pytest.mark.parametrize("of", ["layers", "neurons"])
def test_in_painting_with_everything_moving_is_in_painting(small_network, digits, of):
    "The mask reaches the target f_1(x), as in Figure 5."
    x, visible = digits.test[:8], np.arange(64) < 32
    ours, plain = (
        inpaint(small_network, x, visible, rounds=2, inference=inference, rng=Random(3))
        for inference in (AsynchronousInference(p=1, of=of), Inference())
    )
    assert np.abs(ours - plain).max() < 1e-5  # round-off
    some = AsynchronousInference(p=0.5, of=of)
    other = inpaint(small_network, x, visible, rounds=2, inference=some, rng=Random(3))
    assert (other[:, :32] == x[:, :32]).all() and np.abs(other - plain).max() > 1e-5


def test_training_with_everything_moving_is_training(digits):
    config = TrainConfig(epochs=2, batch_size=50, n_steps=3, noise=(0.22, 0.1, "spikes"))
    start, x = (
        init_model((64, 20, 6), ("sigmoid", "softplus", "sigmoid"), rng=Random(0)),
        digits.train[:200],
    )
    learn = lambda inference: fit(
        start, x, config, rng=Random(1), inference=inference, progress=False
    )[0]
    at = lambda p: AsynchronousInference(3, p=p)
    plain, same, few, again = learn(None), learn(at(1)), learn(at(0.3)), learn(at(0.3))
    W = lambda model: model.pairs[0].g.W
    assert (
        np.abs(W(plain) - W(same)).max() < 1e-3 < np.abs(W(few) - W(same)).max()
    )  # Adam takes steps of 1e-3: round-off moves none by a whole one
    assert (W(few) == W(again)).all()


# ---- without -------------------------------------------------------------------------------------


def test_layers_that_move_for_some_pictures_only_against_a_loop_over_pictures(
    small_network, digits
):
    x, p, delta, alpha = digits.test[:12], 0.4, 0.1, 0.3
    inference = AsynchronousInference(delta=delta, alpha=alpha, p=p, n_ticks=6)
    got = inference(small_network, x, rng=Random(5))
    rng, f, g = Random(5), small_network.f, small_network.g
    moving = [
        {k: rng.uniform((12,)) < p for k in (2, 1)} for _ in range(6)
    ]  # the same draws: the top layer first
    assert 0.2 < np.mean([m for tick in moving for m in tick.values()]) < 0.6
    for i in range(12):
        row = x[i : i + 1]
        h1 = f(1, row)
        h2 = f(2, h1)
        for tick in moving:
            if tick[2][i]:
                h2 = h2 + delta * (f(2, h1) - f(2, g(2, h2)))
            if tick[1][i]:
                h1 = h1 + delta * (f(1, row) - f(1, g(1, h1))) + alpha * (g(2, h2) - h1)
        assert (
            np.abs(got[1][i] - h1).max() < 1e-5 and np.abs(got[2][i] - h2).max() < 1e-5
        )  # float32 sums in another order


def test_neurons_move_one_by_one_and_layers_as_a_whole(small_network, digits):
    x = digits.test[:50]
    for of, whole in (("layers", True), ("neurons", False)):
        once = AsynchronousInference(alpha=0.3, p=0.5, of=of, n_ticks=1)
        before, after = once.steps(small_network, x, rng=Random(6))
        moved = (before[1] != after[1]).mean(axis=1)
        assert (
            np.isin(moved, (0, 1)).all() if whole else ((moved > 0) & (moved < 1)).all()
        ) and 0.3 < moved.mean() < 0.7


@pytest.mark.parametrize("of", ["layers", "neurons"])
@pytest.mark.parametrize("p", [0.5, 0.1])
def test_the_number_of_moves_is_binomial(of, p):
    """With f(g(h)) = h the gap to f(x) is (1 - delta)^K after K moves; here it starts at -1, from
    x = 1 and an h that is set back by a bias of g alone at the start.
    """
    n, delta, steps = 40, 0.1, 15
    ticks, pair = (
        round(steps / p),
        LayerPair(linear(np.eye(n), np.zeros(n)), linear(np.eye(n), np.ones(n))),
    )  # h starts at x and is to settle at x - 1
    x = np.zeros((500, n))
    inference = AsynchronousInference(delta=delta, p=p, of=of, n_ticks=ticks)
    h = inference(Model((pair,)), x, rng=Random(7))
    K = np.log(h[1] + 1) / np.log(1 - delta)
    assert np.abs(K - K.round()).max() < 1e-9
    K = K if of == "neurons" else K[:, :1]
    mean, var, m = ticks * p, ticks * p * (1 - p), K.size
    assert abs(K.mean() - mean) < 5 * np.sqrt(var / m) and abs(K.var() / var - 1) < 5 * np.sqrt(
        2 / m
    )
    assert abs((h[1][:, : K.shape[1]] + 1).mean() - (1 - p * delta) ** ticks) < 5 * (
        h[1] + 1
    ).std() / np.sqrt(m)


@pytest.mark.parametrize(
    "p, of, delay",
    [
        (1, "layers", 0),
        (0.4, "layers", 0),
        (0.4, "neurons", 0),
        (0.4, "layers", 4),
        (0.4, "neurons", 4),
        (1, "layers", 4),
    ],
)
def test_it_settles_at_the_fixed_point_that_a_linear_system_gives(linear_world, p, of, delay):
    rng, delta, alpha = Random(8), 0.2, 0.3
    one, two = linear_world(rng.stream("low"), 5, 3), linear_world(rng.stream("high"), 3, 2)
    x = rng.stream("x").normal((4, 5), "float64")
    A, B, c1, c2 = one.g.W @ one.f.W, two.g.W @ two.f.W, (x - one.g.b) @ one.f.W, -two.g.b @ two.f.W
    still = np.block(
        [[delta * A + alpha * np.eye(3), -delta * two.f.W], [-alpha * two.g.W, delta * B]]
    )  # (h_1, h_2) @ still = what pushes
    push = np.hstack([delta * c1 + alpha * two.g.b, np.tile(delta * c2, (4, 1))])
    settled = np.linalg.solve(still.T, push.T).T
    inference = AsynchronousInference(300, delta, alpha, p=p, of=of, delay=delay)
    h = inference(Model((one, two)), x, rng=rng.stream("ticks"))
    assert (
        np.abs(np.hstack(h[1:]) - settled).max()
        < 1e-6
        < np.abs(np.hstack([one.f(x), two.f(one.f(x))]) - settled).max()
    )


def test_a_message_is_as_old_as_was_drawn():
    "One neuron by hand, moving in every tick: h(t+1) = h(t) + delta (x - g(h(t - age)))."
    model, delay, delta = echo(1), 3, 0.3
    model = Model((LayerPair(model.pairs[0].f, linear(np.eye(1), np.ones(1))),))
    inference = AsynchronousInference(12, delta, p=1, delay=delay)
    states = [h[1][0, 0] for h in inference.steps(model, np.zeros((1, 1)), rng=Random(9))]
    rng, by_hand, ages = Random(9), [0.0], []
    for t in range(12):
        age = min(int(rng.uniform((1,))[0] * (delay + 1)), t)
        ages.append(age)
        by_hand.append(by_hand[t] + delta * (0 - (by_hand[t - age] + 1)))
    assert states == pytest.approx(by_hand, rel=1e-12) and set(ages) == {0, 1, 2, 3}


def test_the_same_seed_has_the_same_random_times(small_network, digits):
    inference = AsynchronousInference(p=0.3, delay=2)
    run = lambda seed: infer(small_network, digits.test[:20], inference, rng=Random(seed))
    a, b, c = run(0), run(0), run(1)
    assert (
        all((u == v).all() for u, v in zip(a, b))
        and (a[1] != c[1]).any()
        and all(layer.dtype == np.float32 for layer in a)
    )


@pytest.mark.parametrize(
    "wrong, error, word",
    [
        (dict(p=0.0), ValueError, "p must"),
        (dict(p=1.5), ValueError, "p must"),
        (dict(of="synapses"), ValueError, "of must"),
        (dict(delay=-1), ValueError, "delay"),
        (dict(n_ticks=2.5), TypeError, "n_ticks"),
        (dict(delta=-0.1), ValueError, "delta"),
        (dict(alpha=2.0), ValueError, "alpha"),
    ],
)
def test_bad_settings_are_refused(wrong, error, word):
    with pytest.raises(error, match=word):
        AsynchronousInference(**{"p": 0.5} | wrong)


def test_another_direction_is_refused_and_a_stream_is_asked_for(small_network, digits):
    with pytest.raises(TypeError, match="direction"):
        AsynchronousInference(p=0.5, direction=exact_gradient)
    for ask in (infer, lambda *a: generate(a[0], 5, inference=a[2], rng=None)):
        with pytest.raises((ValueError, TypeError), match="rng"):
            ask(small_network, digits.test[:2], AsynchronousInference(p=0.5))
