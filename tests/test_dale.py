"""Dale's law: fractions are exact, no weight ever has the wrong sign, and where the answer is known
the constrained update finds it.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

from biolearn.core.layers import Dense, init_dense
from biolearn.core.learning import TrainConfig, fit, local_step
from biolearn.core.model import encode, init_model
from biolearn.core.optimizers import new_optimizer_state
from biolearn.core.rng import Random
from biolearn.extensions.dale import (
    balanced,
    dale_rule,
    dale_signs,
    dale_start,
    keep_signs,
    wrong_signs,
)

RNG = Random(29)
SIZES, KINDS = (12, 10, 5), ("sigmoid", "softplus", "sigmoid")
RECIPE = TrainConfig(
    epochs=3, batch_size=10, noise=(0.1, 0.1, "spikes"), rate_f=(0.02, 0.02), rate_g=(0.02, 0.02)
)


def network():
    return init_model(SIZES, KINDS, rng=RNG.stream("network"))


def pictures(n=60):
    return RNG.stream("pictures").uniform((n, 12))


def all_signs(fraction=0.8, pixels=None):
    return dale_signs(SIZES, fraction, rng=RNG.stream("signs"), pixels=pixels)


@pytest.mark.parametrize(
    "fraction, n, excitatory",
    [(0.8, 10, 8), (0.5, 10, 5), (1.0, 7, 7), (0.0, 7, 0), (0.8, 4, 3), (0.8, 1000, 800)],
)
def test_fractions_are_exact_and_the_order_is_random(fraction, n, excitatory):
    pixels, hidden = dale_signs((3, n), fraction, rng=RNG)
    assert (
        pixels is None
        and hidden.shape == (n,)
        and hidden.dtype == np.float32
        and set(np.unique(hidden)) <= {-1, 1}
        and (hidden > 0).sum() == excitatory
    )
    if n == 1000:
        assert (
            700 < (hidden[:900] > 0).sum() < 740
            and not (hidden == dale_signs((3, n), fraction, rng=Random(1))[1]).all()
        )  # 720 expected; its sd is 3.8


def test_pixels_are_bound_if_they_are_given_a_fraction():
    assert (all_signs(pixels=0.75)[0] > 0).sum() == 9


@pytest.mark.parametrize("pixels", [None, 0.5])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "momentum", "rmsprop"])
def test_no_weight_has_the_wrong_sign_at_any_step_of_training(optimizer, pixels):
    signs, seen = all_signs(pixels=pixels), []
    rule, start = dale_rule(signs), dale_start(network(), all_signs(pixels=pixels), pictures())

    def projection(model, h):
        rule(model, h)
        seen.append(wrong_signs(model, signs))

    model, _ = fit(
        start,
        pictures(),
        replace(RECIPE, optimizer=optimizer),
        rng=Random(1),
        progress=False,
        projection=projection,
    )
    assert seen == [0] * 18 and wrong_signs(start, signs) == wrong_signs(model, signs) == 0
    for new, old, k in zip(model.pairs, start.pairs, (1, 2)):
        for a, b in ((new.f, old.f), (new.g, old.g)):
            assert np.abs(a.W - b.W).max() > 1e-4  # and yet all maps learnt
        assert (signs[k][:, None] * new.g.W >= 0).all()
    if pixels is None:
        assert (model.pairs[0].f.W > 0).any(axis=1).all() and (model.pairs[0].f.W < 0).any(
            axis=1
        ).all()  # free pixels send both signs


def test_without_the_rule_signs_do_change():
    signs = all_signs()
    model, _ = fit(
        dale_start(network(), signs, pictures()), pictures(), RECIPE, rng=Random(1), progress=False
    )
    assert wrong_signs(model, signs) > 0


def test_both_maps_of_a_neuron_have_its_sign():
    signs = all_signs(fraction=0.5)
    model = dale_start(network(), signs, pictures())
    up, down = model.pairs[1].f.W, model.pairs[0].g.W  # what h_1 sends to h_2, and to the pixels
    assert (np.sign(up) == signs[1][:, None]).all() and (np.sign(down) == signs[1][:, None]).all()


def problem(n=60, d=6):
    return RNG.stream("inputs").uniform((n, d)), RNG.stream("targets").normal((n, 1))


def descend(h, targets, s, optimizer="sgd", rate=0.3, steps=6000):
    "Projected descent of one linear neuron by the library's own step."
    neuron = init_dense(h.shape[1], 1, "linear", rng=RNG.stream("neuron"))
    keep_signs(neuron, s)
    state = new_optimizer_state(neuron, optimizer)
    for t in range(1, steps + 1):
        local_step(
            neuron,
            state,
            h,
            targets,
            optimizer=optimizer,
            rate=rate if optimizer == "sgd" else rate * (1 - (t - 1) / steps),
            t=t,
        )
        keep_signs(neuron, s)
    return neuron


@pytest.mark.parametrize("optimizer, rate", [("sgd", 0.3), ("adam", 0.02)])
def test_the_constrained_update_finds_bounded_least_squares(optimizer, rate):
    h, targets = problem()
    s = np.float32([1, 1, 1, -1, -1, -1])
    bounds = (
        np.append(np.where(s > 0, 0, -np.inf), -np.inf),
        np.append(np.where(s > 0, np.inf, 0), np.inf),
    )
    exact = lsq_linear(
        np.column_stack([h, np.ones(len(h))]), targets[:, 0], bounds=bounds, tol=1e-12
    ).x
    neuron = descend(h, targets, s, optimizer, rate)
    assert (
        np.abs(np.append(neuron.W[:, 0], neuron.b) - exact).max() < 1e-3
    )  # float32; Adam's last steps are some 1e-5
    assert 0 < (neuron.W == 0).sum() < 6


def test_excitatory_senders_alone_are_non_negative_least_squares():
    h, targets = problem()
    neuron = descend(h, targets, np.ones(6, "float32"))
    exact, _ = nnls(
        h - h.mean(0), (targets - targets.mean())[:, 0]
    )  # the free threshold takes the means away
    assert np.abs(neuron.W[:, 0] - exact).max() < 1e-3


def test_where_it_rests_the_karush_kuhn_tucker_conditions_hold():
    h, targets = problem()
    s = np.float32([1, -1, 1, -1, 1, -1])
    neuron = descend(h, targets, s)
    slope = (h.T @ (neuron(h) - targets) / len(h))[:, 0]
    free = neuron.W[:, 0] != 0
    assert (
        np.abs(slope[free]).max() < 1e-4 and (s[~free] * slope[~free] > 0).all()
    )  # downhill leads to the forbidden side


def test_clipping_is_the_nearest_allowed_point():
    dense, s = (
        Dense(RNG.stream("W").normal((4, 3)), np.zeros(3, "float32"), "linear"),
        np.float32([1, -1, 1, -1]),
    )
    before = dense.W.copy()
    keep_signs(dense, s)
    others = s[:, None] * np.abs(RNG.stream("others").normal((500, 4, 3)))
    assert (((others - before) ** 2).sum((1, 2)) > ((dense.W - before) ** 2).sum()).all() and (
        dense.W[s[:, None] * before > 0] == before[s[:, None] * before > 0]
    ).all()


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_the_start_is_balanced(p):
    n = 2000
    W = RNG.stream("free").normal((n, 50))
    (s,) = dale_signs((n,), p, rng=RNG, pixels=p)
    found = balanced(W, s)
    assert (np.sign(found) == s[:, None]).all() and np.allclose(
        np.abs(found[s > 0]), np.abs(W[s > 0]) * ((1 - p) / p) ** 0.5, rtol=1e-5
    )
    assert (
        abs(found.mean()) < 5 * found.std() / (n * 50) ** 0.5
        and abs((found**2).mean() / (W**2).mean() - 1)
        < 5 * (4 * max(p, 1 - p) / min(p, 1 - p) / (n * 50)) ** 0.5
    )


@pytest.mark.parametrize("fraction", [0.5, 0.8, 1.0])
def test_thresholds_take_the_mean_input_away(fraction):
    x, model = pictures(), dale_start(network(), all_signs(fraction), pictures())
    h = encode(model, x)
    for k, pair in enumerate(model.pairs):
        for dense, sent in ((pair.f, h[k]), (pair.g, h[k + 1])):
            np.testing.assert_allclose((sent @ dense.W + dense.b).mean(0), 0, atol=1e-5)


def test_the_model_given_is_left_as_it_is():
    model = network()
    before = model.pairs[1].f.W.copy()
    dale_start(model, all_signs(), pictures())
    assert (model.pairs[1].f.W == before).all()


def trained(start, rule):
    settings = dict(rng=Random(1), progress=False, projection=rule)
    return fit(start, pictures(), RECIPE, **settings)[0]


def test_with_interneurons_the_lawful_network_is_the_free_one_to_the_bit():
    signs, start = all_signs(1.0, pixels=1.0), network()
    free, lawful = trained(start, None), trained(start, dale_rule(signs, inhibition=3.0))
    for pairs in zip(free.pairs, lawful.pairs, start.pairs):
        for name in "fg":
            one, other, before = (getattr(pair, name) for pair in pairs)
            assert (one.W == other.W).all() and (one.b == other.b).all()
            assert np.abs(one.W - before.W).max() > 1e-2  # and it has learnt
    assert wrong_signs(lawful, signs, 3.0) == 0 < wrong_signs(lawful, signs)


def test_weak_inhibition_leaves_excitatory_synapses_that_stop_at_zero():
    signs, c = all_signs(1.0, pixels=1.0), 0.2
    model = trained(network(), dale_rule(signs, inhibition=c))
    excitatory = [dense.W + np.float32(c) for pair in model.pairs for dense in (pair.f, pair.g)]
    assert all((E >= 0).all() for E in excitatory) and any((E == 0).any() for E in excitatory)
    assert wrong_signs(model, signs, c) == 0 < wrong_signs(trained(network(), None), signs, c)


def test_a_neuron_and_its_interneuron_give_what_the_weights_say():
    dense, h, c = network().pairs[1].g, RNG.stream("rates").uniform((20, 5)), np.float32(0.7)
    keep_signs(dense, np.ones(5, np.float32), inhibition=0.7)
    excitation, inhibition = h @ (dense.W + c), c * h.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(excitation - inhibition, h @ dense.W, atol=2e-6)
    assert (dense.W + c >= 0).all() and (excitation >= 0).all()


def test_inhibition_needs_senders_that_all_excite():
    with pytest.raises(ValueError, match="all excitatory: use fraction 1"):
        dale_rule(all_signs(0.8), inhibition=1.0)
    with pytest.raises(ValueError, match="inhibition must be at least 0"):
        dale_rule(all_signs(1.0), inhibition=-1.0)


def test_what_does_not_fit_is_refused():
    for fraction in (-0.1, 1.1, "most"):
        with pytest.raises((ValueError, TypeError), match="fraction"):
            dale_signs(SIZES, fraction, rng=RNG)
    with pytest.raises(ValueError, match="pixels"):
        dale_signs(SIZES, 0.5, rng=RNG, pixels=2)
    with pytest.raises(ValueError, match="one entry per layer"):
        dale_start(network(), all_signs()[1:], pictures())
    with pytest.raises(ValueError, match="10 neurons"):
        dale_rule([None, np.ones(3, "float32"), None])(network(), [])
    with pytest.raises(ValueError, match="x must have 12 columns"):
        dale_start(network(), all_signs(), pictures()[:, :5])
