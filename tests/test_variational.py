"""Variational EM on models small enough to know the truth: every formula against an oracle that
shares no code with it.
"""

import itertools
import math
from dataclasses import FrozenInstanceError, fields, replace

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import multivariate_normal, norm

from biolearn.core.arrays import Backend, logsumexp, softmax, to_numpy
from biolearn.core.rng import Random
from biolearn.theory.tractable import (
    BinaryNet,
    LinearGaussian,
    binary_states,
    bound_terms,
    criterion_j,
    exact_posterior,
    factorised_q,
    grad_j,
    grad_theta,
    init_binary,
    init_linear_gaussian,
    langevin_covariance,
    learn_binary,
    log_p_joint,
    log_p_states,
    log_p_x,
    log_q,
    mean_field,
    posterior_states,
    ppca,
    precision,
    q_sample,
    sample_binary,
    sample_linear_gaussian,
    subspace_angle,
)
from biolearn.theory.variational import (
    Walk,
    algorithm1,
    em,
    exact_e_step,
    langevin,
    langevin_e_step,
    m_step,
    map_e_step,
    map_inference,
)

seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=25, deadline=None)


def binary_net(rng, n_x=4, n_h=3):
    return BinaryNet(
        W=2 * rng.standard_normal((n_x, n_h)),
        b=rng.standard_normal(n_x),
        a=rng.standard_normal(n_h),
    )


def random_q(rng, n, states, sparse=False):
    q = rng.exponential(size=(n, states)) ** 3
    if sparse:
        q[q < np.median(q, axis=1, keepdims=True)] = 0.0
    return q / q.sum(axis=1, keepdims=True)


def gaussian_chain(rng, n_x=4, n_h=2):
    return LinearGaussian(
        W=rng.standard_normal((n_x, n_h)),
        b=rng.standard_normal(n_x),
        sigma=rng.uniform(0.4, 1.5),
        F=rng.standard_normal((n_h, n_x)),
        c=rng.standard_normal(n_h),
        s=rng.uniform(0.4, 1.5),
    )


def by_hand(net, x, h):
    "p(x,h) by plain loops."

    def sig(z):
        return 1 / (1 + math.exp(-z))

    p = 1.0
    for j, on in enumerate(h):
        p *= sig(net.a[j]) if on else 1 - sig(net.a[j])
    for i, on in enumerate(x):
        z = net.b[i] + sum(net.W[i, j] * h[j] for j in range(len(h)))
        p *= sig(z) if on else 1 - sig(z)
    return p


# ---- the discrete model --------------------------------------------------------------------------


def test_states_are_all_of_them_once():
    h = binary_states(4, np.zeros(1))
    assert {tuple(row) for row in h} == set(
        itertools.product((0.0, 1.0), repeat=4)
    ) and h.shape == (16, 4)


@quick
@given(seeds, st.integers(1, 4), st.integers(1, 4))
def test_table_against_plain_loops_and_total_probability(seed, n_x, n_h):
    net = binary_net(np.random.default_rng(seed), n_x, n_h)
    every_x, h = binary_states(n_x, net.W), binary_states(n_h, net.W)
    table = np.exp(log_p_states(net, every_x))
    for i, j in np.ndindex(table.shape):
        assert table[i, j] == pytest.approx(by_hand(net, every_x[i], h[j]), rel=1e-11)
    assert table.sum() == pytest.approx(1, abs=1e-12)


@quick
@given(seeds, st.booleans())
def test_three_terms_sum_to_log_p_for_any_q(seed, sparse):
    rng = np.random.default_rng(seed)
    net = binary_net(rng)
    x = rng.integers(0, 2, (6, 4)).astype(float)
    exact = [
        math.log(math.fsum(by_hand(net, row, h) for h in itertools.product((0, 1), repeat=3)))
        for row in x
    ]
    first, entropy, kl = bound_terms(log_p_states(net, x), random_q(rng, 6, 8, sparse))
    assert np.abs(first + entropy + kl - exact).max() < 1e-10
    assert entropy.min() >= -1e-12 and kl.min() >= -1e-12
    first, entropy, kl = bound_terms(log_p_states(net, x), posterior_states(log_p_states(net, x)))
    assert np.abs(kl).max() < 1e-10 and np.abs(first + entropy - exact).max() < 1e-10


def test_each_term_alone_against_its_definition():
    rng = np.random.default_rng(0)
    net, q = binary_net(rng), random_q(rng, 1, 8)
    x = np.array([[1.0, 0, 1, 1]])
    p = np.array([by_hand(net, x[0], h) for h in binary_states(3, x)])
    first, entropy, kl = bound_terms(log_p_states(net, x), q)
    assert first[0] == pytest.approx(sum(q[0] * np.log(p)))
    assert entropy[0] == pytest.approx(-sum(q[0] * np.log(q[0])))
    assert kl[0] == pytest.approx(sum(q[0] * np.log(q[0] / (p / p.sum()))))


def test_logsumexp_does_not_overflow():
    assert logsumexp(np.array([[1000.0, 1000.0], [-1e4, -1e4]])) == pytest.approx(
        [1000 + math.log(2), -1e4 + math.log(2)]
    )


def test_softmax_does_not_overflow():
    "Odds of 3 to 1, wherever the two numbers lie."
    far = np.array([[1e4, 1e4 - np.log(3)], [-1e4, -1e4 - np.log(3)]])
    np.testing.assert_allclose(softmax(far), [[0.75, 0.25]] * 2)
    np.testing.assert_allclose(softmax(far.T, axis=0), [[0.75] * 2, [0.25] * 2])


@quick
@given(seeds)
def test_mean_field_climbs_and_ends_where_no_single_cause_can_improve(seed):
    rng = np.random.default_rng(seed)
    net = binary_net(rng)
    log_p = log_p_states(net, rng.integers(0, 2, (3, 4)).astype(float))

    def floor(m):
        return sum(bound_terms(log_p, factorised_q(m))[:2])

    m = rng.uniform(0.05, 0.95, (3, 3))
    for _ in range(10):
        better = mean_field(log_p, m, n_sweeps=1)
        assert (floor(better) >= floor(m) - 1e-10).all()
        m = better
    m = mean_field(log_p, m, n_sweeps=500)
    for j in range(3):
        for value in (0.01, 0.3, 0.7, 0.99):
            other = m.copy()
            other[:, j] = value
            assert (floor(other) <= floor(m) + 1e-8).all()


@quick
@given(seeds)
def test_binary_learning_step_is_the_gradient_and_climbs(seed):
    rng = np.random.default_rng(seed)
    net, x, q = binary_net(rng), rng.integers(0, 2, (7, 4)).astype(float), random_q(rng, 7, 8)

    def value(net):
        return bound_terms(log_p_states(net, x), q)[0].mean()

    moved = learn_binary(net, x, q, epsilon=1.0)
    for name in ("W", "b", "a"):
        for at in np.ndindex(getattr(net, name).shape):
            nudge = np.zeros_like(getattr(net, name))
            nudge[at] = 1e-5
            slope = (
                value(replace(net, **{name: getattr(net, name) + nudge}))
                - value(replace(net, **{name: getattr(net, name) - nudge}))
            ) / 2e-5
            assert (getattr(moved, name) - getattr(net, name))[at] == pytest.approx(slope, abs=1e-8)
    assert value(learn_binary(net, x, q, epsilon=7.9 / 4)) >= value(
        net
    )  # the docstring's bound, 8 / (n_h + 1)
    two = learn_binary(learn_binary(net, x, q, epsilon=0.3), x, q, epsilon=0.3)
    assert np.allclose(learn_binary(net, x, q, epsilon=0.3, n_steps=2).W, two.W, atol=1e-14)


def test_samples_of_the_binary_net_follow_the_model():
    net, n = binary_net(np.random.default_rng(1)), 20_000
    x, h = sample_binary(net, n, rng=Random(0))
    every = binary_states(4, x)
    p = np.exp(logsumexp(log_p_states(net, every)))
    fraction = np.array([(x == row).all(axis=1).mean() for row in every])
    assert (np.abs(fraction - p) < 4.5 * np.sqrt(p * (1 - p) / n) + 1 / n).all()
    p_h = 1 / (1 + np.exp(-net.a))
    assert (np.abs(h.mean(0) - p_h) < 4.5 * np.sqrt(p_h * (1 - p_h) / n)).all()


# ---- the linear-Gaussian chain -------------------------------------------------------------------


@quick
@given(seeds, st.integers(1, 5), st.integers(1, 3))
def test_densities_against_scipy_and_bayes(seed, n_x, n_h):
    rng = np.random.default_rng(seed)
    m = gaussian_chain(rng, n_x, n_h)
    x, h = 2 * rng.standard_normal((5, n_x)), 2 * rng.standard_normal((5, n_h))
    joint = norm(h @ m.W.T + m.b, m.sigma).logpdf(x).sum(1) + norm(0, 1).logpdf(h).sum(1)
    assert np.allclose(log_p_joint(m, x, h), joint, rtol=1e-11)
    assert np.allclose(log_q(m, x, h), norm(x @ m.F.T + m.c, m.s).logpdf(h).sum(1), rtol=1e-11)
    assert np.allclose(criterion_j(m, x, h, 0.3), joint + 0.3 * log_q(m, x, h))
    assert np.allclose(
        log_p_x(m, x),
        multivariate_normal(m.b, m.W @ m.W.T + m.sigma**2 * np.eye(n_x)).logpdf(x),
        rtol=1e-9,
    )
    # conditioning the joint Gaussian of (h, x), the textbook's other route to the posterior
    gain = m.W.T @ np.linalg.inv(m.W @ m.W.T + m.sigma**2 * np.eye(n_x))
    mean, cov = exact_posterior(m, x)
    assert np.allclose(mean, (x - m.b) @ gain.T, atol=1e-9) and np.allclose(
        cov, np.eye(n_h) - gain @ m.W, atol=1e-9
    )


@quick
@given(seeds, st.sampled_from([0.0, 0.01, 1.0, 30.0]))
def test_gradients_by_finite_differences(seed, alpha):
    rng = np.random.default_rng(seed)
    m = gaussian_chain(rng)
    x, h, eps = rng.standard_normal((3, 4)), rng.standard_normal((3, 2)), 1e-5

    def slope(f):
        return (f(eps) - f(-eps)) / (2 * eps)

    tol = dict(rel=1e-6, abs=1e-6)
    for j in range(2):
        got = grad_j(m, x, h, alpha)[:, j]
        assert got == pytest.approx(
            slope(lambda e: criterion_j(m, x, h + e * np.eye(2)[j], alpha)), **tol
        )
    grads = grad_theta(m, x, h, alpha)
    for name in ("W", "b", "F", "c"):
        for at in np.ndindex(grads[name].shape):
            unit = np.zeros_like(grads[name])
            unit[at] = 1
            assert grads[name][at] == pytest.approx(
                slope(
                    lambda e: criterion_j(
                        replace(m, **{name: getattr(m, name) + e * unit}), x, h, alpha
                    ).mean()
                ),
                **tol,
            )
    for name in ("sigma", "s"):
        expected = slope(
            lambda e: criterion_j(
                replace(m, **{name: getattr(m, name) * math.exp(e)}), x, h, alpha
            ).mean()
        )
        assert grads["log_" + name] == pytest.approx(expected, **tol)


@quick
@given(seeds, st.sampled_from([0.0, 0.1, 5.0]))
def test_map_contracts_as_predicted_and_settles_at_the_weighted_mean(seed, alpha):
    rng = np.random.default_rng(seed)
    m = gaussian_chain(rng)
    x, h = rng.standard_normal((3, 4)), 3 * rng.standard_normal((3, 2))
    L = m.W.T @ m.W / m.sigma**2 + np.eye(2)
    A = L + alpha / m.s**2 * np.eye(2)
    assert np.allclose(precision(m, alpha), A)
    posterior_mean = np.linalg.solve(L, m.W.T @ (x - m.b).T / m.sigma**2)
    goal = np.linalg.solve(A, L @ posterior_mean + alpha / m.s**2 * (x @ m.F.T + m.c).T).T
    assert np.allclose(exact_posterior(m, x, alpha)[0], goal, atol=1e-9)
    delta = 1.2 / np.linalg.eigvalsh(A)[-1]
    step = np.linalg.matrix_power(np.eye(2) - delta * A, 7)
    assert np.allclose(
        map_inference(m, x, h, n_steps=7, delta=delta, alpha=alpha) - goal,
        (h - goal) @ step,
        atol=1e-9,
    )
    far = map_inference(m, x, h, n_steps=300, delta=2.1 / np.linalg.eigvalsh(A)[-1], alpha=alpha)
    assert np.abs(far - goal).max() > 1e3  # beyond the limit of delta


@quick
@given(seeds, st.floats(0.01, 0.98))
def test_langevin_covariance_solves_the_lyapunov_equation(seed, fraction):
    L = precision(gaussian_chain(np.random.default_rng(seed), 5, 3))
    delta = fraction * 2 / np.linalg.eigvalsh(L)[-1]
    A = np.eye(3) - delta * L
    assert np.allclose(
        langevin_covariance(L, delta),
        solve_discrete_lyapunov(A, 2 * delta * np.eye(3)),
        rtol=1e-7,
        atol=1e-9,
    )
    S = np.zeros((3, 3))
    for _ in range(9):
        S = A @ S @ A + 2 * delta * np.eye(3)
    assert np.allclose(langevin_covariance(L, delta, 9), S, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("alpha, noise", [(0.0, 1.0), (2.0, 1.0), (0.0, 0.5)])
def test_langevin_samples_have_the_predicted_mean_and_covariance(alpha, noise):
    m, n = gaussian_chain(np.random.default_rng(5)), 20_000
    x = np.repeat(np.array([[0.5, -1.0, 2.0, 0.0]]), n, axis=0)
    L = precision(m, alpha)
    delta = 1.2 / np.linalg.eigvalsh(L)[-1]
    n_steps = 60
    h = langevin(
        m, x, np.zeros((n, 2)), Walk(n_steps, delta, alpha=alpha, noise=noise), rng=Random(1)
    )
    S = noise**2 * langevin_covariance(L, delta, n_steps)
    goal = exact_posterior(m, x[:1], alpha)[0][0]
    mean = goal - np.linalg.matrix_power(np.eye(2) - delta * L, n_steps) @ goal
    assert (np.abs(h.mean(0) - mean) < 4.5 * np.sqrt(np.diag(S) / n)).all()
    assert (
        np.abs(np.cov(h.T) - S) < 4.5 * np.sqrt((np.outer(np.diag(S), np.diag(S)) + S**2) / n)
    ).all()


def test_langevin_noise_is_fresh_reproducible_and_optional():
    m = gaussian_chain(np.random.default_rng(2))
    x, h = np.zeros((4, 4)), np.zeros((4, 2))
    how = dict(n_steps=3, delta=0.01)
    walk = Walk(**how, noise=1.0)
    a, b = (langevin(m, x, h, walk, rng=Random(3)) for _ in range(2))
    assert (a == b).all() and len(np.unique(a)) == a.size
    rng = Random(3)
    assert (
        langevin(m, x, h, walk, rng=rng) != langevin(m, x, h, walk, rng=rng)
    ).all()  # the stream goes on
    assert (langevin(m, x, h, Walk(**how), rng=rng) == map_inference(m, x, h, **how)).all()
    with pytest.raises(TypeError):
        langevin(m, x, h, walk)


def test_first_guess_and_samples_follow_their_densities():
    m, n = gaussian_chain(np.random.default_rng(3)), 20_000
    x, h = sample_linear_gaussian(m, n, rng=Random(0))
    C = m.W @ m.W.T + m.sigma**2 * np.eye(4)
    assert (np.abs(x.mean(0) - m.b) < 4.5 * np.sqrt(np.diag(C) / n)).all()
    assert (
        np.abs(np.cov(x.T) - C) < 4.5 * np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / n)
    ).all()
    assert (
        np.abs(h.T @ x / n - m.W.T) < 4.5 * np.sqrt(np.diag(C + np.outer(m.b, m.b)) * 2 / n)
    ).all()
    r = q_sample(m, x, rng=Random(1)) - x @ m.F.T - m.c
    assert (np.abs(r.mean(0)) < 4.5 * m.s / math.sqrt(n)).all() and (
        np.abs(r.std(0) / m.s - 1) < 4.5 / math.sqrt(2 * n)
    ).all()


# ---- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_algorithm_1_line_by_line(noise):
    gen = np.random.default_rng(4)
    m, x = gaussian_chain(gen), gen.standard_normal((6, 4))
    alpha, delta, eps = 0.4, 0.02, 0.01
    new, h = algorithm1(
        m,
        x,
        Walk(n_steps=5, delta=delta, alpha=alpha, noise=noise),
        epsilon=eps,
        rng=Random(7),
        learn=("W", "b", "F", "c", "log_sigma", "log_s"),
    )
    rng = Random(7)
    rows = x @ m.F.T + m.c + m.s * rng.normal((6, 2), "float64")
    for _ in range(5):
        xi = rng.normal((6, 2), "float64") if noise else 0.0
        step = np.stack(
            [
                m.W.T @ (x[n] - m.W @ rows[n] - m.b) / m.sigma**2
                - rows[n]
                + alpha * (m.F @ x[n] + m.c - rows[n]) / m.s**2
                for n in range(6)
            ]
        )
        rows = rows + delta * step + noise * math.sqrt(2 * delta) * xi
    assert np.allclose(h, rows, atol=1e-12)
    W = m.W + eps * sum(np.outer(x[n] - m.W @ h[n] - m.b, h[n]) for n in range(6)) / (
        6 * m.sigma**2
    )
    F = m.F + eps * alpha * sum(np.outer(h[n] - m.F @ x[n] - m.c, x[n]) for n in range(6)) / (
        6 * m.s**2
    )
    assert np.allclose(new.W, W) and np.allclose(new.F, F)
    square = np.mean([np.sum((x[n] - m.W @ h[n] - m.b) ** 2) for n in range(6)])
    assert math.log(new.sigma / m.sigma) == pytest.approx(eps * (square / m.sigma**2 - 4))
    same, _ = algorithm1(
        m, x, Walk(n_steps=5, delta=delta, alpha=alpha), epsilon=eps, rng=Random(7), learn=("W",)
    )
    assert same.F is m.F and same.sigma == m.sigma


def test_learning_is_local():
    gen = np.random.default_rng(6)
    m, x, h = gaussian_chain(gen), gen.standard_normal((5, 4)), gen.standard_normal((5, 2))
    here = grad_theta(m, x, h, 0.5)
    other_encoder = grad_theta(replace(m, F=m.F + 1, c=m.c - 1), x, h, 0.5)
    other_decoder = grad_theta(replace(m, W=m.W + 1, b=m.b - 1), x, h, 0.5)
    assert all((here[k] == other_encoder[k]).all() for k in ("W", "b", "log_sigma"))
    assert all((here[k] == other_decoder[k]).all() for k in ("F", "c", "log_s"))


@quick
@given(seeds)
def test_m_step_is_where_the_gradient_vanishes(seed):
    gen = np.random.default_rng(seed)
    m, x, h = gaussian_chain(gen), gen.standard_normal((12, 4)), gen.standard_normal((12, 2))
    grads = grad_theta(m_step(m, x, h), x, h)
    assert max(np.abs(grads[k]).max() for k in ("W", "b", "log_sigma")) < 1e-8


@quick
@given(seeds)
def test_m_step_with_covariance_is_m_step_on_points_with_that_covariance(seed):
    gen = np.random.default_rng(seed)
    m, x, h = gaussian_chain(gen), gen.standard_normal((12, 4)), gen.standard_normal((12, 2))
    root = gen.standard_normal((2, 2)) + 2 * np.eye(2)
    points = math.sqrt(2) * np.concatenate(
        [root.T, -root.T]
    )  # mean 0, covariance root root^T, exactly
    many_h = (h[:, None] + points).reshape(-1, 2)
    a, b = m_step(m, x, h, root @ root.T), m_step(m, np.repeat(x, 4, axis=0), many_h)
    assert (
        np.allclose(a.W, b.W) and np.allclose(a.b, b.b) and a.sigma == pytest.approx(float(b.sigma))
    )


def tiny_data(seed=0, n=150):
    gen = np.random.default_rng(seed)
    return (
        gen.standard_normal((n, 5))
        * [3.0, 2.0, 0.8, 0.7, 0.6]
        @ np.linalg.qr(gen.standard_normal((5, 5)))[0]
        + 1.0
    )


def test_closed_form_against_scikit_learn():
    from sklearn.decomposition import PCA

    x, n = tiny_data(), 150
    m = ppca(x, 2)
    assert np.allclose(
        m.W @ m.W.T + m.sigma**2 * np.eye(5), PCA(2).fit(x).get_covariance() * (n - 1) / n
    )
    assert np.allclose(x @ m.F.T + m.c, exact_posterior(m, x)[0])
    for name in ("W", "b"):  # nothing nearby is better
        for step in np.random.default_rng(0).standard_normal((5,) + getattr(m, name).shape):
            assert (
                log_p_x(replace(m, **{name: getattr(m, name) + 0.02 * step}), x).mean()
                < log_p_x(m, x).mean()
            )
    fixed = ppca(x, 2, sigma=1.0)
    assert all(
        log_p_x(replace(fixed, W=f * fixed.W), x).mean() < log_p_x(fixed, x).mean()
        for f in (0.98, 1.02)
    )
    assert np.abs(ppca(x, 4, sigma=1.0).W[:, 2:]).max() == 0  # axes below the noise stay silent


def test_exact_em_never_falls_and_reaches_the_closed_form():
    x = tiny_data()
    models = em(init_linear_gaussian(5, 2, scale=1.0, rng=Random(0)), x, exact_e_step, n_epochs=300)
    level = np.array([log_p_x(m, x).mean() for m in models])
    assert len(models) == 301 and np.diff(level).min() > -1e-10
    best = ppca(x, 2)
    assert (
        level[-1] == pytest.approx(log_p_x(best, x).mean(), abs=1e-6)
        and subspace_angle(models[-1].W, best.W) < 1e-8
    )


def test_map_em_climbs_its_own_objective_and_inflates_the_weights():
    x = tiny_data()
    models = em(init_linear_gaussian(5, 2, scale=1.0, rng=Random(0)), x, map_e_step, n_epochs=80)
    own = [criterion_j(m, x, exact_posterior(m, x)[0]).mean() for m in models]
    assert np.diff(own).min() > -1e-10
    assert log_p_x(models[80], x).mean() < log_p_x(models[20], x).mean() - 0.1
    before, after = (np.linalg.svd(m.W)[1] for m in models[-2:])
    assert np.allclose(after, before + float(models[-2].sigma) ** 2 / before, rtol=1e-6)
    assert subspace_angle(models[-1].W, ppca(x, 2).W) < 1e-8


def test_langevin_em_stays_near_the_closed_form():
    x = tiny_data()
    e_step = langevin_e_step(Walk(n_steps=150, delta=0.02, noise=1.0), rng=Random(5))
    models = em(init_linear_gaussian(5, 2, scale=1.0, rng=Random(0)), x, e_step, n_epochs=40)
    best = log_p_x(ppca(x, 2), x).mean()
    assert min(log_p_x(m, x).mean() for m in models[20:]) > best - 0.15


def test_algorithm_1_raises_log_p_every_epoch_and_finds_the_subspace():
    x = tiny_data()
    m, level = init_linear_gaussian(5, 2, sigma=0.7, rng=Random(0)), []
    for _ in range(60):
        level.append(log_p_x(m, x).mean())
        m, _ = algorithm1(m, x, Walk(15, delta=0.05, alpha=0.1), epsilon=0.03, rng=Random(1))
    assert np.diff(level).min() > 0 and subspace_angle(m.W, ppca(x, 2).W) < 0.05


def test_subspace_angle():
    a = np.eye(4)[:, :2]
    for angle in (1e-9, 0.3, math.pi / 2):
        b = a.copy()
        b[:, 1] = [0, math.cos(angle), math.sin(angle), 0]
        assert subspace_angle(a, b @ np.array([[2.0, 1.0], [0.0, 3.0]])) == pytest.approx(
            angle, rel=1e-6
        )


# ---- arrays, dtypes, refusals --------------------------------------------------------------------


def everything(backend, dtype):
    "Every function once, on arrays of `backend`; returns named arrays."
    move = lambda a: backend.asarray(np.asarray(a), dtype)
    gen = np.random.default_rng(0)
    net = BinaryNet(**{f.name: move(getattr(binary_net(gen), f.name)) for f in fields(BinaryNet)})
    m = gaussian_chain(gen)
    m = LinearGaussian(**{f.name: move(getattr(m, f.name)) for f in fields(m)})
    rng, x01, x = (
        Random(0, backend),
        move(gen.integers(0, 2, (5, 4))),
        move(gen.standard_normal((20, 4))),
    )
    log_p = log_p_states(net, x01)
    q, mf = posterior_states(log_p), mean_field(log_p, move(np.full((5, 3), 0.5)))
    first, entropy, kl = bound_terms(log_p, factorised_q(mf))
    taught = learn_binary(net, x01, q, epsilon=0.3, n_steps=3)
    sample_x, _ = sample_binary(
        init_binary(4, 3, rng=rng.stream("i"), dtype=dtype), 9, rng=rng.stream("s")
    )
    drawn, h = sample_linear_gaussian(m, 20, rng=rng.stream("d"))
    mean, cov = exact_posterior(m, x, 0.1)
    stepped, settled = algorithm1(
        m,
        x,
        Walk(n_steps=4, delta=0.02, alpha=0.1, noise=1.0),
        epsilon=0.01,
        rng=rng.stream("a"),
        learn=("W", "F", "log_sigma", "log_s"),
    )
    exact = em(
        init_linear_gaussian(4, 2, rng=rng.stream("l"), dtype=dtype), x, exact_e_step, n_epochs=3
    )[-1]
    noisy = em(m, x, langevin_e_step(Walk(5, 0.02, noise=1.0), rng=rng.stream("e")), n_epochs=1)[-1]
    closed = ppca(x, 2)
    return dict(
        log_p=log_p,
        q=q,
        mf=mf,
        first=first,
        entropy=entropy,
        kl=kl,
        taught=taught.W,
        sample_x=sample_x,
        drawn=drawn,
        mean=mean,
        cov=cov,
        ulan=langevin_covariance(precision(m), 0.01),
        stepped=stepped.W,
        F=stepped.F,
        sigma=stepped.sigma,
        settled=settled,
        em=exact.W,
        noise=noisy.sigma,
        ppca=closed.W @ closed.W.T,
        marginal=log_p_x(m, x),
        log_q=log_q(m, x, h),
        j=criterion_j(m, x, h, 0.2),
        g=grad_j(m, x, h, 0.2),
        map=map_inference(m, x, h, n_steps=3, delta=0.01),
    )


@pytest.mark.parametrize("dtype, tol", [("float32", 2e-4), ("float64", 1e-9)])
def test_strict_arrays_on_another_device_agree_and_keep_their_dtype(dtype, tol):
    away = Backend(strict, strict.Device("device1"))
    here, there = everything(Backend(), dtype), everything(away, dtype)
    for name, a in there.items():
        assert str(a.dtype).endswith(dtype) and a.device == away.device, name
        assert here[name].dtype == np.dtype(dtype), name
        assert np.allclose(to_numpy(a), here[name], rtol=tol, atol=tol), name


def test_parameters_are_frozen():
    m = gaussian_chain(np.random.default_rng(0))
    with pytest.raises(FrozenInstanceError):
        m.W = m.W


def test_refusals_name_the_argument():
    gen = np.random.default_rng(0)
    m, net, x, h = gaussian_chain(gen), binary_net(gen), np.zeros((3, 4)), np.zeros((3, 2))
    how = dict(n_steps=1, delta=0.1)
    with pytest.raises(ValueError, match="sigma must be a positive"):
        replace(m, sigma=0.0)
    with pytest.raises(ValueError, match="F must have shape"):
        replace(m, F=m.F.T)
    with pytest.raises(ValueError, match="W must have shape"):
        replace(net, a=np.zeros(4))
    with pytest.raises(ValueError, match="at most 16"):
        BinaryNet(np.zeros((2, 17)), np.zeros(2), np.zeros(17))
    with pytest.raises(ValueError, match="x must have 4 columns"):
        map_inference(m, x[:, :3], h, **how)
    with pytest.raises(ValueError, match="h must have 2 columns"):
        langevin(m, x, x, Walk(**how, noise=1.0), rng=Random(0))
    with pytest.raises(ValueError, match="n_steps"):
        map_inference(m, x, h, n_steps=-1, delta=0.1)
    with pytest.raises(ValueError, match="delta"):
        langevin(m, x, h, Walk(n_steps=1, delta=-0.1), rng=Random(0))
    with pytest.raises(ValueError, match="NaN or infinite"):
        log_p_x(m, x * np.nan)
    with pytest.raises(ValueError, match="above 1"):
        log_p_states(net, x + 2)
    with pytest.raises(ValueError, match="each row must sum to 1"):
        bound_terms(np.zeros((1, 8)), np.full((1, 8), 0.2))
    with pytest.raises(ValueError, match="learn must be one of 'W'"):
        algorithm1(m, x, Walk(**how), epsilon=0.1, learn=("V",), rng=Random(0))
    for delta in (0.0, 10.0):
        with pytest.raises(ValueError, match="delta must lie between 0"):
            langevin_covariance(precision(m), delta)
    with pytest.raises(ValueError, match="n_h"):
        ppca(x, 4)
