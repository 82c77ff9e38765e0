"""Spikes: counts have the mean and the variance of their formulas, three draws are the paper's
corruption, and infinitely many spikes are real numbers again.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, chisquare, poisson

from biolearn.core.generation import chain_states, generate, inpaint
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import UNITS, Dense, LayerPair, corrupt, target_step
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.model import Model, TopPrior, decode, init_model
from biolearn.core.priors import sample_prior
from biolearn.core.rng import Random
from biolearn.extensions.spiking import COUNTS, SpikingInference, send, sendable, spiking

RNG = Random(28)
SIZES, KINDS = (12, 9, 5), ("sigmoid", "softplus", "sigmoid")


def network(sd=0.01):
    """A small calm network whose prior draws, and all activities of INFERENCE, can be sent as they
    are; with a wide prior draws lie beyond 0 and 1.
    """
    model = init_model(SIZES, KINDS, rng=RNG.stream("network"))
    for pair in model.pairs:
        pair.f.W[...] *= 0.2  # else untrained sigmoid units are pushed beyond 0 and 1
    return replace(model, prior=TopPrior(np.full(5, 0.5, "float32"), np.full(5, sd**2, "float32")))


def pictures(n=20):
    return RNG.stream("pictures").uniform((n, 12))


def infer_spikes(model, x, window, *, rng):
    return infer(model, x, SpikingInference(window=window), rng=rng)


def generate_spikes(model, n, window, *, rounds=3, rng):
    inference = SpikingInference(alpha=0.3, window=window)
    return generate(model, n, rounds=rounds, inference=inference, rng=rng)


@pytest.mark.parametrize(
    "unit, law", [("sigmoid", binom), ("softplus", poisson), ("relu", poisson)]
)
@pytest.mark.parametrize("n", [1, 3, 10])
def test_counts_follow_scipys_law(unit, law, n):
    h, draws = 0.4, 20_000
    k = np.rint(send(np.full(draws, h, "float32"), n, unit, rng=RNG.stream(unit, n)) * n).astype(
        int
    )
    frozen = law(n, h) if law is binom else law(n * h)
    last = int(frozen.isf(1e-3))  # what lies beyond is one class, so that none is empty
    chances = np.append(frozen.pmf(np.arange(last)), frozen.sf(last - 1))
    assert (
        chisquare(np.bincount(np.minimum(k, last), minlength=last + 1), draws * chances).pvalue
        > 1e-4
    )


def test_three_spikes_are_the_papers_corruption_of_the_top_layer():
    h, draws = np.full(20_000, 0.7, "float32"), 20_000
    ours, paper = (
        np.bincount(np.rint(3 * a).astype(int), minlength=4)
        for a in (
            send(h, 3, "sigmoid", rng=RNG.stream("a")),
            corrupt(h, "spikes", rng=RNG.stream("b")),
        )
    )
    for found in (ours, paper):
        assert chisquare(found, draws * binom(3, float(h[0])).pmf(range(4))).pvalue > 1e-4


def test_a_sum_of_counts_has_the_variance_of_independent_senders():
    W, h, draws, n = RNG.stream("W").normal((30, 2)), RNG.stream("h").uniform((30,)), 20_000, 4
    model = Model(
        (
            LayerPair(
                Dense(W, np.zeros(2, "float32"), "linear"),
                Dense(W.T.copy(), np.zeros(30, "float32"), "softplus"),
            ),
        )
    )
    with pytest.raises(ValueError, match="linear"):
        spiking(model, n, rng=RNG)
    model = Model(
        (
            LayerPair(
                Dense(W + 3, np.zeros(2, "float32"), "relu"),
                Dense((W + 3).T.copy(), np.zeros(30, "float32"), "softplus"),
            ),
        )
    )
    heard = spiking(model, n, rng=RNG.stream("sum")).f(
        1, np.tile(h, (draws, 1))
    )  # large positive sums: rectification changes nothing
    assert (
        np.abs(heard.var(0) / (((W + 3) ** 2) * h[:, None] / n).sum(0) - 1) < 5 * (2 / draws) ** 0.5
    ).all()


def test_what_cannot_be_sent_is_clipped():
    h = np.float32([[-1, 0.5, 2]])
    assert (
        sendable(h, "sigmoid").tolist() == [[0, 0.5, 1]]
        and sendable(h, "softplus").tolist()
        == [[0, 0.5, 2]]
        == send(h, math.inf, "relu", rng=RNG).tolist()
    )
    heard = send(np.tile(h, (50, 1)), 5, "sigmoid", rng=RNG)
    assert (heard[:, 0] == 0).all() and (heard[:, 2] == 1).all() and heard.dtype == np.float32


def test_infinitely_many_spikes_are_real_numbers():
    model, x = network(), pictures()
    assert (
        infer(model, x)[1].min() > 0 and 0 < infer(model, x)[2].min() < infer(model, x)[2].max() < 1
    )
    for a, b in zip(infer_spikes(model, x, math.inf, rng=RNG), infer(model, x)):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)  # float32 round-off of 15 steps
    ours, theirs = (
        generate_spikes(model, 30, math.inf, rng=RNG.stream("g")),
        generate(model, 30, rng=RNG.stream("g")),
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_draws_of_a_wide_prior_are_clipped_before_they_are_decoded():
    model, rng = network(sd=2.0), RNG.stream("g")
    drawn = sample_prior(model.prior, 1000, rng=rng.stream("block", 0))[:30]
    ours = generate_spikes(model, 30, math.inf, rounds=0, rng=rng)
    np.testing.assert_allclose(ours, decode(model, np.clip(drawn, 0, 1))[0], rtol=0, atol=1e-6)
    assert np.abs(ours - decode(model, drawn)[0]).max() > 1e-2


def test_inference_leaves_of_the_noise_what_the_recursion_says():
    """v <- (1-δ)² v + 3δ² x/n from x/n: one identity neuron above one pixel, all three sendings
    independent.
    """
    one = Dense(np.ones((1, 1), "float32"), np.zeros(1, "float32"), "relu")
    n, x, delta, v, draws = 50, 2.0, 0.3, 2.0 / 50, 20_000
    states = Inference(n_steps=8, delta=delta, direction=target_step).steps(
        spiking(Model((LayerPair(one, one),)), n, rng=RNG.stream("v")),
        np.full((draws, 1), x, "float32"),
    )
    for h in states:
        assert (
            abs(h[1].var() / v - 1) < 5 * (2 / draws) ** 0.5 * 1.1
            and abs(h[1].mean() - x) < 5 * (v / draws) ** 0.5
        )
        v = (1 - delta) ** 2 * v + 3 * delta**2 * x / n


def test_the_average_over_many_windows_is_the_map_where_it_is_linear():
    "No bias: of linear sums the mean heard is the sum of what was sent."
    model, h = network(), RNG.stream("top").uniform((1, 5))
    W, b = model.pairs[1].g.W, model.pairs[1].g.b
    linear = Dense(W, b, "linear")
    heard = send(np.tile(h, (20_000, 1)), 2, "sigmoid", rng=RNG.stream("mean"))
    sums = heard @ W + b
    assert (np.abs(sums.mean(0) - linear(h)[0]) < 5 * sums.std(0) / 20_000**0.5).all()


def test_same_stream_same_bits_and_another_stream_other_spikes():
    model = network()
    a, b, c = (generate_spikes(model, 15, 3, rng=RNG.stream(name)) for name in ("a", "a", "c"))
    assert (a == b).all() and not (a == c).all()
    x = pictures()
    assert (
        infer_spikes(model, x, 3, rng=RNG.stream("a"))[1]
        == infer_spikes(model, x, 3, rng=RNG.stream("a"))[1]
    ).all()


def test_one_stream_gives_new_spikes_at_every_call():
    "A minibatch must not hear the spikes of the one before it again."
    rng, model, x = RNG.stream("goes on"), network(), pictures()
    assert not (
        infer_spikes(model, x, 3, rng=rng)[1] == infer_spikes(model, x, 3, rng=rng)[1]
    ).all()


def test_the_last_states_of_a_chain_can_be_heard_without_noise():
    """A block of GENERATE by hand: the model hears, draws its prior, and is explained and decoded
    three times.
    """
    model, rng, inference = network(), RNG.stream("last"), SpikingInference(alpha=0.3, window=2)
    block = rng.stream("block", 0)
    heard = inference.hear(model, rng=block.stream("spikes"))
    x = decode(heard, sample_prior(model.prior, 1000, rng=block))[0]
    *_, h = chain_states(heard, x, rounds=3, inference=inference, rng=block)
    np.testing.assert_array_equal(generate_spikes(model, 10, 2, rng=rng), h[0][:10])
    quiet = spiking(model, math.inf, rng=None).g(1, h[1])
    np.testing.assert_allclose(quiet, model.g(1, np.maximum(h[1], 0)), rtol=0, atol=1e-6)
    assert np.abs(quiet - h[0]).max() > 1e-2


def test_every_round_may_have_a_window_of_its_own():
    "The model that hears goes on with its stream, in the window of each round."
    model, x = network(), pictures()
    one, two = SpikingInference(window=2), SpikingInference(window=5)
    heard = one.hear(model, rng=RNG.stream("a"))
    assert one.hear(heard) is heard
    again = two.hear(heard)
    assert again.pairs[0].f.window == 5 and again.pairs[1].g.rng is heard.pairs[0].f.rng
    assert SpikingInference(window=math.inf).hear(heard).pairs[0].f.W is model.pairs[0].f.W
    ours = one(heard, x, rng=RNG.stream("not looked at"))
    np.testing.assert_array_equal(ours[1], one(model, x, rng=RNG.stream("a"))[1])


def test_in_painting_with_infinitely_many_spikes_is_in_painting():
    model, x, visible = network(), pictures(), np.arange(12) < 6
    ours, plain = (
        inpaint(model, x, visible, rounds=3, inference=inference, rng=1)
        for inference in (SpikingInference(window=math.inf), Inference())
    )
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-5)  # float32 round-off


@pytest.mark.parametrize(
    "n, error",
    [
        (0, ValueError),
        (-1, ValueError),
        (2.5, TypeError),
        (True, TypeError),
        (math.nan, TypeError),
        ("3", TypeError),
    ],
)
def test_windows_that_cannot_be_are_refused(n, error):
    for ask in (
        lambda: send(pictures(), n, "sigmoid", rng=RNG),
        lambda: spiking(network(), n, rng=RNG),
    ):
        with pytest.raises(error, match="window"):
            ask()


def test_units_that_can_be_negative_cannot_send():
    assert set(COUNTS) == set(UNITS) - {"tanh", "linear"}
    with pytest.raises(ValueError, match="tanh"):
        send(pictures(), 3, "tanh", rng=RNG)


def test_working_in_place_is_refused_not_half_done():
    with pytest.raises(TypeError, match="SpikingInference"):
        infer(spiking(network(), 3, rng=RNG), pictures())


CONFIG = TrainConfig(
    epochs=5,
    batch_size=10,
    noise=(0.1, 0.1, "spikes"),
    rate_f=(0.1, 0.1),
    rate_g=(0.1, 0.1),
    optimizer="sgd",
)


def trained(window=None, seed=1):
    inference = None if window is None else SpikingInference(window=window)
    return fit(
        network(), pictures(40), CONFIG, rng=Random(seed), inference=inference, progress=False
    )[0]


def test_training_with_infinitely_many_spikes_is_training():
    for a, b in zip(trained(math.inf).pairs, trained().pairs):
        np.testing.assert_allclose(a.g.W, b.g.W, rtol=0, atol=1e-5)  # float32 round-off of 20 steps


def test_training_with_few_spikes_is_another_training_and_repeats_to_the_bit():
    few, again, without = trained(2), trained(2), trained()
    assert (few.pairs[0].g.W == again.pairs[0].g.W).all() and np.abs(
        few.pairs[0].g.W - without.pairs[0].g.W
    ).max() > 1e-4  # ten times what round-off may change
    assert (
        type(few.pairs[0].f) is Dense and few.prior is not None
    )  # the network itself is an ordinary one


def test_training_hears_new_spikes_in_every_minibatch():
    """The inference is given one stream; were it started afresh at each step, the same pictures
    would send the same spikes.
    """
    heard, x = [], pictures(10)

    class Listening(SpikingInference):
        def __call__(self, model, rows, *, rng, **settings):
            heard.append(send(np.full((4, 9), 0.5, "float32"), 3, "sigmoid", rng=rng))
            return super().__call__(model, rows, rng=rng, **settings)

    fit(
        network(),
        x,
        replace(CONFIG, epochs=1, batch_size=2),
        rng=Random(1),
        inference=Listening(window=3),
        progress=False,
    )
    steps = heard[:5]
    assert not any((a == b).all() for i, a in enumerate(steps) for b in steps[:i])
