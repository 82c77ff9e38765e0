"""Labels at the top: the push is the gradient it claims to be, babbling finds the transposed
Jacobian, nothing is transported, and a network with a label clamped says so.
"""

from dataclasses import replace

import numpy as np
import pytest

from biolearn.core.arrays import Backend
from biolearn.core.generation import inpaint
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, LayerPair
from biolearn.core.learning import TrainConfig, copy_model, fit, new_train_state, train_step
from biolearn.core.model import Model, encode, init_model
from biolearn.core.rng import Random
from biolearn.extensions.langevin import LangevinInference
from biolearn.extensions.supervised import (
    ClampedLabels,
    PerturbationFeedback,
    clamp_label,
    class_priors,
    credit_angles,
    exchanged,
    fixed_feedback,
    label_gradients,
    one_hot,
    predict,
    push_down,
    transported,
    without_labels,
)

B = Backend()


def network(hidden=(7, 6), top="linear", seed=0):
    return init_model(
        (5, *hidden, 3), ("sigmoid", *["softplus"] * len(hidden), top), rng=Random(seed)
    )


def some(n=20, seed=1):
    return Random(seed).uniform((n, 5)), one_hot(np.arange(n) % 3, 3, B)


def double(model):
    "The same network in float64."
    wide = lambda d: Dense(d.W.astype(np.float64), d.b.astype(np.float64), d.unit)
    return Model(tuple(LayerPair(wide(p.f), wide(p.g)) for p in model.pairs))


def test_one_hot_knows_the_unknown():
    assert one_hot([2, -1, 0], 3, B).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert one_hot([0], 3, B).dtype == np.float32


@pytest.mark.parametrize("labels", [[3], [-2], [[0, 1]]])
def test_one_hot_refuses_what_is_no_label(labels):
    with pytest.raises(ValueError, match="integers from -1 to 2"):
        one_hot(labels, 3, B)


@pytest.mark.parametrize("top", ["linear", "sigmoid"])
def test_the_diagnostic_gradient_is_that_of_the_squared_error(top):
    "Against central differences in float64 of ½|y - f_M(...)|² as a function of each hidden layer."
    model = double(network(top=top))
    x, y = (a.astype(np.float64) for a in some(4))
    h, found = encode(model, x), label_gradients(model, x, y)

    def loss(k, layer):
        for j in range(k + 1, len(model.pairs) + 1):
            layer = model.f(j, layer)
        return 0.5 * ((y - layer) ** 2).sum(axis=1)

    for k in (1, 2):
        for i in range(h[k].shape[1]):
            step = np.zeros_like(h[k])
            step[:, i] = 1e-5
            assert np.allclose(
                -(loss(k, h[k] + step) - loss(k, h[k] - step)) / 2e-5, found[k - 1][:, i], atol=1e-8
            )


def test_babbling_finds_the_transposed_weights_of_a_linear_layer():
    """With linear labels the Jacobian is the weight matrix, whatever h: after many steps B is its
    transpose to the standard error of a running mean.
    """
    model, h = network(hidden=(7,)), [None, Random(2).uniform((50, 7)), None]
    babble = PerturbationFeedback(model, rate=0.002, sd=0.1, rng=Random(3))
    for _ in range(4000):
        babble.learn(model, h)
    W = model.pairs[1].f.W.T
    assert np.abs(babble.weights[1] - W).max() < 5 * 1.5 * np.linalg.norm(
        W, axis=1
    ).max() / np.sqrt(50 * 2 / 0.002)


def test_the_babbled_push_is_the_gradient_when_its_weights_are_the_jacobian():
    model, (x, y) = network(hidden=(7,)), some()
    babble = PerturbationFeedback(model, rng=Random(0))
    babble.weights[1][...] = model.pairs[1].f.W.T
    h = encode(model, x)
    assert np.allclose(babble(model, 1, y, h[1]), label_gradients(model, x, y)[0], atol=1e-5)
    assert max(credit_angles(model, x, y, ClampedLabels(babble))) < 0.5


def test_exchanged_is_written_as_in_eq_12_with_f_and_g_exchanged():
    model, (x, y) = network(hidden=(7,)), some()
    h = encode(model, x)
    assert np.array_equal(
        exchanged(model, 1, y, h[1]), model.g(2, y) - model.g(2, model.f(2, h[1]))
    )


def test_feedback_reads_no_weights_of_other_maps():
    """Feedback given the activities at its two ends does not change with g, nor with f of another
    layer; and the fixed kind never learns.
    """
    model, (x, _) = network(), some()
    h = encode(model, x)
    other = copy_model(model)
    for dense in (other.pairs[0].f, other.pairs[0].g, other.pairs[1].g, other.pairs[2].g):
        dense.W[...] += 1.0
    a, b = PerturbationFeedback(model, rng=Random(1)), PerturbationFeedback(other, rng=Random(1))
    for _ in range(3):
        a.learn(model, h)
        b.learn(other, h)
    for k in (1, 2):
        assert np.array_equal(a.weights[k], b.weights[k]) and a.weights[k].any()
    fixed = fixed_feedback(model, rng=Random(2))
    before = {k: w.copy() for k, w in fixed.weights.items()}
    fixed.learn(model, h)
    for k in (1, 2):
        assert (
            np.array_equal(fixed.weights[k], before[k])
            and abs(np.corrcoef(before[k].ravel(), model.pairs[k].f.W.T.ravel())[0, 1]) < 0.6
        )


def test_the_control_is_the_exact_gradient():
    "Layer by layer, as back-propagation goes: what h_2 is pushed by goes on to h_1."
    model, (x, y) = network(), some()
    h, (low, high) = encode(model, x), label_gradients(model, x, y)
    assert np.allclose(transported(model, 2, y, h[2]), high, atol=1e-6)
    assert np.allclose(transported(model, 1, h[2] + high, h[1]), low, atol=1e-6)
    whole = push_down(model, [*h[:-1], y], transported)
    assert np.allclose(whole[2] - h[2], high, atol=1e-6)
    assert np.allclose(whole[1] - h[1], low, atol=1e-6)


def test_the_delta_rule_finds_the_posterior_mean_of_a_linear_layer():
    "The best B is (JᵀJ + 1)⁻¹ Jᵀ, for noise of the same size above and below."
    model, h = network(hidden=(7,)), [None, Random(2).uniform((100, 7)), None]
    feedback = PerturbationFeedback(
        model, rule="delta", rate=0.2, sd=1.0, optimizer="sgd", rng=Random(3)
    )
    for t in range(2000):
        feedback.rate = 0.2 / (1 + t / 100)
        feedback.learn(model, h)
    W = model.pairs[1].f.W
    best = np.linalg.solve(W.T @ W + np.eye(3), W.T)
    assert np.linalg.norm(feedback.weights[1] - best) < 0.05 * np.linalg.norm(best)


def test_feedback_learns_in_the_maps_that_it_is_given():
    model, (x, _) = network(), some()
    model = copy_model(model)
    maps = [pair.g for pair in model.pairs[1:]]
    before = maps[0].W.copy()
    feedback = PerturbationFeedback(model, maps=maps, rule="delta", rate=0.01, rng=Random(0))
    feedback.learn(model, encode(model, x))
    assert feedback.weights[1] is model.pairs[1].g.W and (before != maps[0].W).any()
    with pytest.raises(ValueError, match="rule"):
        PerturbationFeedback(model, rule="gradient", rng=Random(0))


def clamped(model, x, y, push, n_steps=0, delta=0.1, **settings):
    "The settled h by clamped labels."
    labels = ClampedLabels(push, inference=Inference(n_steps, delta), **settings)
    return labels(model, np.hstack([x, y]))


def test_clamped_moves_only_what_is_known():
    """A row without a label stays where INFERENCE left it, the top included; one with a label has
    it at the top, and the bottom is x in both.
    """
    model, (x, y) = network(), some(6)
    y[:3] = 0
    babble = fixed_feedback(model, rng=Random(4))
    h, free = (
        clamped(model, x, y, babble, n_steps=4, delta=0.05),
        infer(model, x, Inference(n_steps=4, delta=0.05)),
    )
    assert (h[0] == x).all()
    for k in (1, 2, 3):
        assert np.allclose(h[k][:3], free[k][:3], atol=1e-6) and not np.allclose(
            h[k][3:], free[k][3:], atol=1e-4
        )
    assert np.array_equal(h[3][3:], y[3:])


def test_the_strength_of_a_label_scales_its_pull_and_zero_is_none():
    model, (x, y) = network(hidden=(7,)), some(6)
    push = fixed_feedback(model, rng=Random(4))
    h = infer(model, x, Inference(n_steps=0))[1]
    one, two, none = (
        clamped(model, x, y, push, beta=beta, n_steps=0)[1] - h for beta in (0.1, 0.2, 0.0)
    )
    assert (
        np.allclose(two, 2 * one, atol=1e-6)
        and not none.any()
        and one.any()
        and one.dtype == np.float32
    )


def test_it_learns_a_task_that_the_top_pair_alone_cannot():
    """Exclusive or with a hidden layer: without a push the random hidden layer is all there is;
    with babbled feedback the error falls to nothing.
    """
    bits = np.array([[a, b, 1, 0, 0] for a in (0, 1) for b in (0, 1)], np.float32)
    x, labels = np.tile(bits, (50, 1)), np.tile([0, 1, 1, 0], 50)
    config = TrainConfig(
        epochs=150,
        batch_size=20,
        noise=(0.0, 0.0, 0.0),
        rate_f=(5e-3, 5e-3),
        rate_g=(1e-3, 1e-3),
    )
    losses = {}
    for name in ("babbled", "none"):
        start = init_model((5, 4, 3), ("sigmoid", "softplus", "linear"), rng=Random(0))
        feedback = PerturbationFeedback(start, rate=0.02, rng=Random(1))
        push = feedback if name == "babbled" else lambda model, k, above, h: 0.0
        model, history = fit(
            start,
            np.hstack([x, one_hot(labels, 3, B)]),
            config,
            rng=Random(2),
            inference=ClampedLabels(push, inference=Inference(n_steps=0)),
            projection=feedback.learn if name == "babbled" else None,
            progress=False,
        )
        losses[name] = history[-1]["loss_f"][1]
        if name == "babbled":
            assert np.array_equal(predict(model, bits), [0, 1, 1, 0])
    assert losses["babbled"] < 0.1 * losses["none"]


def test_hidden_pixels_are_the_fraction_that_was_asked_for():
    model = network(hidden=(7,))
    labels = ClampedLabels(exchanged, hidden=0.25, inference=Inference(n_steps=0))
    assert labels.draws and not replace(labels, hidden=0.0).draws
    rows = np.hstack([np.ones((4000, 5), np.float32), one_hot(np.zeros(4000, int), 3, B)])
    h = labels(model, rows, rng=Random(0))
    assert abs((h[0] == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 20_000) and set(
        np.unique(h[0])
    ) == {0, 1}


def test_a_clamped_network_says_its_label_whatever_it_sees_and_shares_its_other_weights():
    model, (x, y) = network(top="linear"), some(6)
    t = clamp_label(model, y[1])
    h = infer(t, x, Inference(n_steps=5))
    assert (
        np.allclose(h[3], y[1])
        and t.pairs[:2] == model.pairs[:2]
        and t.pairs[2].g is model.pairs[2].g
    )
    pulled, free = (infer(m, x, Inference(n_steps=15, alpha=0.3)) for m in (t, model))
    target = model.g(3, y[1:2])
    assert np.linalg.norm(pulled[2] - target) < np.linalg.norm(free[2] - target)
    filled = inpaint(t, x, np.arange(5) < 2, rng=Random(0), rounds=2)
    assert filled.shape == x.shape and np.array_equal(filled[:, :2], x[:, :2])


def test_class_priors_are_means_said_by_g_and_variances_around_them():
    model, codes = network(top="linear"), Random(5).uniform((30, 6))
    y = one_hot(np.arange(30) % 3, 3, B)
    for c, prior in enumerate(class_priors(model, codes, y)):
        assert np.allclose(prior.mean, model.g(3, y[c : c + 1])[0]) and np.allclose(
            prior.var, ((codes[c::3] - prior.mean) ** 2).mean(0), atol=1e-6
        )
    with pytest.raises(ValueError, match="class 2 has 0"):
        class_priors(model, codes, one_hot(np.arange(30) % 2, 3, B))
    assert without_labels(model).sizes == (5, 7, 6)


@pytest.mark.parametrize(
    "wrong, message",
    [(dict(hidden=1.5), "hidden"), (dict(beta=-1.0), "beta"), (dict(below=2.0), "below")],
)
def test_settings_that_cannot_be_meant_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ClampedLabels(exchanged, **wrong)
    with pytest.raises(ValueError, match="sd"):
        PerturbationFeedback(network(), sd=0.0, rng=Random(0))


def test_rows_of_another_width_are_refused_before_training():
    with pytest.raises(ValueError, match="5 pixels and 3 label units, 8 numbers, got 5"):
        fit(network(hidden=(7,)), some()[0], inference=ClampedLabels(exchanged), progress=False)


def test_it_is_an_inference_object():
    """The states of INFERENCE come first and the clamped one last; equal settings are equal; any
    other inference can settle the picture.
    """
    model, (x, y) = network(hidden=(7,)), some(6)
    rows, labels = np.hstack([x, y]), ClampedLabels(exchanged, inference=Inference(3))
    *before, last = labels.steps(model, rows)
    for a, b in zip(before, Inference(3).steps(model, x), strict=True):
        assert all((u == v).all() for u, v in zip(a, b))
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(last, labels(model, rows)))
    assert labels == ClampedLabels(exchanged, inference=Inference(3)) != ClampedLabels(exchanged)
    noisy = LangevinInference(3, temperature=1.0, sigmas=(0.1, 0.1))
    shaken = ClampedLabels(exchanged, inference=noisy)
    assert shaken.draws
    assert (shaken(model, rows, rng=Random(0))[2] == y).all()


def test_a_projection_that_learns_keeps_no_checkpoint(tmp_path):
    model, (x, y) = network(hidden=(7,)), some()
    feedback = PerturbationFeedback(model, rng=Random(0))
    with pytest.raises(ValueError, match="projection"):
        fit(
            model,
            np.hstack([x, y]),
            inference=ClampedLabels(feedback),
            projection=feedback.learn,
            checkpoint=tmp_path,
        )


def one_step(presynaptic, push=transported, move=1.0):
    "What one step of SGD at rate 1 takes off the weights of f, and the network before it, in float64."
    model = double(network())
    x, y = (a.astype(float) for a in some())
    config = TrainConfig(
        noise=(0.0,) * 4,
        rate_f=(1.0,) * 3,
        rate_g=(1.0,) * 3,
        optimizer="sgd",
        presynaptic=presynaptic,
    )
    labels = ClampedLabels(push, move, move, competing=True, inference=Inference(n_steps=0))
    state = new_train_state(model, "sgd")
    noise = [Random(0).stream(k) for k in range(4)]
    train_step(state, np.hstack([x, y]), config, rngs=noise, inference=labels)
    steps = [p.f.W - q.f.W for p, q in zip(model.pairs, state.model.pairs)]
    return steps, model, x, y


def slopes_of_cross_entropy(model, x, y, k, step=1e-5):
    "The gradient of the mean cross-entropy in W of f_{k+1}, by central differences."

    def loss():
        a = encode(model, x)[-1]
        return np.mean(np.log(np.exp(a).sum(1)) - (a * y).sum(1))

    W = model.pairs[k].f.W
    found = np.empty_like(W)
    for i in np.ndindex(W.shape):
        W[i] += step
        above = loss()
        W[i] -= 2 * step
        found[i] = (above - loss()) / (2 * step)
        W[i] += step
    return found


def test_from_the_states_before_the_move_all_m_steps_are_the_gradient():
    steps, model, x, y = one_step("feedforward")
    for k, made in enumerate(steps):
        np.testing.assert_allclose(made, slopes_of_cross_entropy(model, x, y, k), atol=1e-9)


def test_from_the_moved_states_they_are_not():
    "Algorithm 2 takes J Jᵀ times the move off the error; only the first map sees an unmoved input."
    steps, model, x, y = one_step("inferred")
    off = [
        np.linalg.norm(made - slope) / np.linalg.norm(slope)
        for k, made in enumerate(steps)
        for slope in [slopes_of_cross_entropy(model, x, y, k)]
    ]
    assert off[0] < 1e-8 < 0.05 < min(off[1:])


def test_before_the_move_the_direction_of_learning_does_not_hang_on_its_size():
    "A tenth of the push in two layers: the same step in f_3, a tenth in f_2, a hundredth in f_1."
    (whole, *_), (tenth, *_) = one_step("feedforward"), one_step("feedforward", move=0.1)
    for k, share in enumerate((0.01, 0.1, 1.0)):
        np.testing.assert_allclose(tenth[k], share * whole[k], rtol=1e-9)


def test_without_a_move_both_ways_are_one():
    "Without a push only f_3 has an error; what f learns from is then the same state."
    still = lambda model, k, above, h: 0.0
    (inferred, *_), (before, *_) = one_step("inferred", still), one_step("feedforward", still)
    for a, b in zip(inferred, before):
        np.testing.assert_allclose(a, b, atol=1e-14)


def test_an_unknown_presynaptic_state_is_refused():
    with pytest.raises(ValueError, match="presynaptic must be one of 'inferred', 'feedforward'"):
        TrainConfig(presynaptic="after")
