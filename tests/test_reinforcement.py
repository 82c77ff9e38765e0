"""Learning from rewards: the pull against closed forms, locality, a bandit with a known optimum,
tags against their sum, and worlds by name.
"""

import sys
from dataclasses import replace
from pathlib import Path

import array_api_strict as strict
import numpy as np
import pytest

from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.layers import Dense, LayerPair, local_gradient
from biolearn.core.model import Model, encode
from biolearn.core.rng import Random
from biolearn.extensions import reinforcement as R
from biolearn.extensions.supervised import PerturbationFeedback, transported

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def random_actor(sizes=(3, 6, 5), n_actions=3, unit="tanh", seed=0):
    "An actor whose top does not start from 0, in double precision."
    model, rng = (
        R.init_actor(sizes[0], sizes[1:], n_actions, unit=unit, rng=Random(seed)),
        Random(seed + 1),
    )
    made = lambda d, *where: Dense(
        0.5 * rng.stream(*where).normal(d.W.shape, "float64"),
        0.1 * rng.stream(*where, "b").normal(d.b.shape, "float64"),
        d.unit,
    )
    return Model(
        tuple(LayerPair(made(p.f, "f", k), made(p.g, "g", k)) for k, p in enumerate(model.pairs))
    )


# ---- the pull ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_actions,baseline", [(2, 0.0), (2, 0.6), (5, -1.0)])
def test_the_mean_update_of_an_action_unit_is_the_slope_of_the_mean_pay(n_actions, baseline):
    """Closed form, for one input that is always 1: pi_j (mu_j - sum of pi mu), whatever the
    prediction.
    """
    mu, w = (
        Random(3).uniform((n_actions,), "float64"),
        np.append(Random(4).normal((n_actions,), "float64"), baseline)[None],
    )
    pi, mean = R.policy(w)[0], 0
    for a in range(n_actions):
        pull = R.reward_pull(w, np.asarray([a]), mu[[a]], R.RewardConfig(beta=1.7))
        mean = (
            mean
            - pi[a]
            * local_gradient(
                Dense(w, np.zeros(n_actions + 1), "linear"), np.ones((1, 1)), w + pull
            )[0][0, :-1]
        )
    assert np.allclose(mean, 1.7 * pi * (mu - pi @ mu), atol=1e-12)


def test_the_reward_unit_is_a_delta_rule_and_the_entropy_pulls_towards_evenness():
    h, even = Random(0).normal((4, 4), "float64"), np.zeros((4, 4))
    pull = R.reward_pull(
        h, np.zeros(4, np.int64), np.ones(4), R.RewardConfig(beta=0.0, c=0.25, tau=1.0)
    )
    assert np.allclose(pull[:, -1], 0.25 * (1 - h[:, -1])) and np.allclose(
        pull[:, :-1].sum(1), 0, atol=1e-7
    )
    entropy = lambda h: -(R.policy(h) * np.log(R.policy(h))).sum(1)
    assert (entropy(h + 0.01 * pull) > entropy(h)).all()
    assert (
        np.abs(
            R.reward_pull(even, np.zeros(4, np.int64), np.zeros(4), R.RewardConfig(tau=1.0))
        ).max()
        < 1e-7
    )  # nothing to gain where all is even


def test_rows_that_do_not_count_do_not_pull():
    h, seen = Random(0).normal((4, 4)), np.asarray([1, 0, 1, 0], np.float32)
    pull = R.reward_pull(
        h, np.zeros(4, np.int64), np.ones(4, np.float32), R.RewardConfig(tau=0.5), seen
    )
    assert (pull[1::2] == 0).all() and (pull[::2] != 0).all()


def test_drawn_actions_follow_their_probabilities_and_are_never_impossible_ones():
    pi = np.asarray([[0.0, 0.2, 0.0, 0.8, 0.0]], np.float32)
    drawn = (
        np.bincount(R.draw_actions(np.tile(pi, (40_000, 1)), rng=Random(0)), minlength=5) / 40_000
    )
    assert (drawn[[0, 2, 4]] == 0).all() and abs(drawn[1] - 0.2) < 4 * np.sqrt(0.16 / 40_000)


# ---- the way down --------------------------------------------------------------------------------


def test_with_transposed_feedback_every_hidden_update_of_a_linear_actor_is_the_policy_gradient():
    """Finite differences of the mean pay, two hidden layers, g written in on purpose.

    Linear units: the slopes are 1, and the target step is the exact gradient.
    """
    model = random_actor(unit="linear")
    model = Model(
        tuple(
            LayerPair(p.f, Dense(p.f.W.T, np.zeros(p.f.W.shape[0]), "linear")) for p in model.pairs
        )
    )
    x, pay = Random(7).normal((4, 3), "float64"), Random(8).uniform((4, 3), "float64")
    h = encode(model, x)
    pi, mean = R.policy(h[-1]), [0, 0, 0]
    for a in range(3):
        moved = R.nudged(
            model, h, R.reward_pull(h[-1], np.full(4, a), pay[:, a], R.RewardConfig(c=0.0))
        )
        for k, p in enumerate(model.pairs):
            mean[k] = (
                mean[k]
                - local_gradient(p.f, h[k], h[k + 1] + pi[:, [a]] * (moved[k + 1] - h[k + 1]))[0]
            )

    def mean_pay(k, W):
        pairs = tuple(
            replace(p, f=Dense(W, p.f.b, p.f.unit)) if j == k else p
            for j, p in enumerate(model.pairs)
        )
        return (R.policy(encode(Model(pairs), x)[-1]) * pay).sum(1).mean()

    for k, p in enumerate(model.pairs):
        for i in [(0, 0), (2, 1), (1, 3)]:
            step = np.zeros(p.f.W.shape)
            step[i] = 1e-5
            assert (
                abs((mean_pay(k, p.f.W + step) - mean_pay(k, p.f.W - step)) / 2e-5 - mean[k][i])
                < 1e-8
            ), (k, i)


def test_the_peer_by_back_propagation_is_the_policy_gradient_with_any_unit():
    """What experiments/reinforcement.py calls backprop: the push `transported`; finite differences
    of the mean pay in the lowest weights.
    """
    model, x, pay = (
        random_actor(),
        Random(7).normal((4, 3), "float64"),
        Random(8).uniform((4, 3), "float64"),
    )
    h = encode(model, x)
    pi, mean = R.policy(h[-1]), 0
    for a in range(3):
        moved = R.nudged(
            model,
            h,
            R.reward_pull(h[-1], np.full(4, a), pay[:, a], R.RewardConfig(c=0.0)),
            push=transported,
        )
        mean = mean - local_gradient(model.pairs[0].f, x, h[1] + pi[:, [a]] * (moved[1] - h[1]))[0]

    def mean_pay(W):
        return (
            (
                R.policy(
                    encode(
                        Model(
                            (
                                replace(model.pairs[0], f=Dense(W, model.pairs[0].f.b, "tanh")),
                                *model.pairs[1:],
                            )
                        ),
                        x,
                    )[-1]
                )
                * pay
            )
            .sum(1)
            .mean()
        )

    for i in np.ndindex(3, 6):
        step = np.zeros((3, 6))
        step[i] = 1e-5
        assert (
            abs(
                (mean_pay(model.pairs[0].f.W + step) - mean_pay(model.pairs[0].f.W - step)) / 2e-5
                - mean[i]
            )
            < 1e-8
        )


def test_learnt_feedback_is_the_posterior_mean_of_the_shaking():
    """Linear f: the best g is (W'W + I)^-1 W'.

    The fit is a running average over 3,000 steps of 200 shakings.
    """
    W = 0.6 * Random(1).normal((12, 3))
    f = Dense(W, np.zeros(3, np.float32), "linear")
    pair = LayerPair(f, R.init_dense(3, 12, "linear", rng=Random(2)))
    model = Model((R.init_actor(1, (), 11, rng=Random(0)).pairs[0], pair))  # 1 - 12 - 3
    feedback = PerturbationFeedback(
        model, maps=[pair.g], rule="delta", sd=1.0, optimizer="sgd", rng=Random(4)
    )
    h = [None, Random(3).normal((200, 12)), None]
    for t in range(1, 3001):
        feedback.rate = 0.05 / (1 + t / 300)
        feedback.learn(model, h)
    best = np.linalg.solve(W.T @ W + np.eye(3), W.T)
    assert np.linalg.norm(pair.g.W - best) < 0.05 * np.linalg.norm(best)


# ---- local ---------------------------------------------------------------------------------------


def overrides(model, x, recipe, k):
    "How f_k and g_k change in one step."
    trainer = R.RewardTrainer(model, recipe, steps=1, rng=Random(9))
    trainer.step(x, np.asarray([0, 1, 2, 1]), np.asarray([1, 0, 1, 0], x.dtype))
    arrays = lambda pair: [w for d in (pair.f, pair.g) for w in (d.W, d.b)]
    return [w - b for w, b in zip(arrays(trainer.model.pairs[k]), arrays(model.pairs[k]))]


def test_a_step_reads_no_weight_but_a_maps_own():
    """The top layer's activity is the same when the lowest weights are replaced by others that give
    the same h_1: so are all updates above. And the lowest update, given h_1 as moved, does not see
    the top's forward weights: those enter only through the activity h_M, so f_M turned by a matrix
    that leaves h_M alone, changes nothing below.
    """
    model, x, recipe = (
        random_actor(),
        Random(7).normal((4, 3), "float64"),
        R.RewardConfig(optimizer="sgd", rate_f=0.1, feedback="fixed"),
    )
    h1 = model.pairs[0].f(x)
    low = Dense(
        np.linalg.lstsq(np.c_[2 * x], np.arctanh(h1) - model.pairs[0].f.b, rcond=None)[0],
        model.pairs[0].f.b,
        "tanh",
    )
    other, twice = Model((replace(model.pairs[0], f=low), *model.pairs[1:])), 2 * x
    assert np.allclose(low(twice), h1, atol=1e-12)
    for k in (1, 2):
        for a, b in zip(overrides(model, x, recipe, k), overrides(other, twice, recipe, k)):
            assert np.allclose(a, b, atol=1e-12)
    h2 = encode(model, x)[2]  # 4 rows in 5 dimensions: one direction that no h_2 has
    blind = np.linalg.svd(h2)[2][-1]
    top = model.pairs[2].f
    assert np.abs(h2 @ blind).max() < 1e-12
    turned = Model(
        (
            *model.pairs[:2],
            replace(
                model.pairs[2], f=Dense(top.W + 10 * np.outer(blind, np.ones(4)), top.b, "linear")
            ),
        )
    )
    lowest = [overrides(m, x, recipe, 0)[0] for m in (model, turned)]
    assert np.abs(lowest[0]).max() > 1e-4 and np.allclose(*lowest, atol=1e-9)
    a, b = (
        R.nudged(model, encode(model, x), np.ones((4, 4))),
        R.nudged(turned, encode(turned, x), np.ones((4, 4))),
    )
    seen = [
        R.nudged(m, encode(m, x), np.ones((4, 4)), push=transported)[1] for m in (model, turned)
    ]
    assert np.allclose(a[2], b[2], atol=1e-9) and not np.allclose(
        *seen
    )  # the local step does not notice; back-propagation, which reads f_M's weights, does


def test_what_feedback_is_asked_for_decides_which_maps_learn():
    model, x = random_actor(), Random(7).normal((4, 3), "float64")
    for feedback, learns in (
        ("learnt", (True, True, True)),
        ("fixed", (True, False, True)),
        ("none", (False, False, True)),
    ):
        recipe = R.RewardConfig(feedback=feedback, optimizer="sgd", rate_f=0.1, rate_g=0.1)
        f1, _, g1, _ = overrides(model, x, recipe, 1)
        f3 = overrides(model, x, recipe, 2)[0]
        assert (f1.any(), g1.any(), f3.any()) == learns and not overrides(model, x, recipe, 0)[
            2
        ].any()  # g_1 leads to the clamped input: nobody asks it


# ---- bandits -------------------------------------------------------------------------------------


def test_a_bandit_with_a_known_optimum():
    """Four contexts, three actions with known chances of being paid.

    The best policy earns the mean of the largest; the actor must come within 0.02 of it, and
    predict it.
    """
    chances = np.asarray([[0.9, 0.2, 0.1], [0.3, 0.8, 0.5], [0.1, 0.2, 0.7], [0.6, 0.1, 0.1]])
    luck, x = Random(5).stream("luck"), np.eye(4, dtype=np.float32)

    def pay(rows, actions):
        return (luck.uniform(rows.shape) < chances[rows, actions]).astype(np.float32)

    model, looks = R.fit_bandit(
        R.init_actor(4, (20,), 3, rng=Random(0)),
        R.Bandit(x, pay),
        R.RewardConfig(rate_f=3e-3),
        trials=200_000,
        rng=Random(1),
        every=100_000,
    )
    pi, best = R.policy(encode(model, x)[-1]), chances.max(1)
    assert (R.best_actions(encode(model, x)[-1]) == chances.argmax(1)).all() and abs(
        (pi * chances).sum(1).mean() - best.mean()
    ) < 0.02
    assert np.abs(encode(model, x)[-1][:, -1] - (pi * chances).sum(1)).max() < 0.06 and [
        n for n, _ in looks
    ] == [100_000, 200_000]


def test_the_same_seed_gives_the_same_bits_and_the_start_is_left_alone():
    x, start = Random(0).uniform((50, 6)), R.init_actor(6, (8,), 3, rng=Random(0))
    first, again = (
        R.fit_bandit(
            start,
            R.Bandit(x, lambda rows, a: a == rows % 3),
            R.RewardConfig(),
            trials=1000,
            rng=Random(3),
        )[0]
        for _ in range(2)
    )
    assert (
        all(
            (a.f.W == b.f.W).all() and (a.g.W == b.g.W).all()
            for a, b in zip(first.pairs, again.pairs)
        )
        and not start.pairs[-1].f.W.any()
        and first.pairs[-1].f.W.any()
    )


def test_it_runs_where_the_host_cannot_look():
    away = Backend(strict, strict.Device("device1"))
    model = R.init_actor(6, (8,), 3, rng=Random(0, away))
    x = Random(0, away).uniform((20, 6))
    h = encode(model, x)
    actions = R.draw_actions(R.policy(h[-1]), rng=Random(1, away))
    pull = R.reward_pull(h[-1], actions, x[:, 0], R.RewardConfig(tau=0.1))
    here = R.reward_pull(
        to_numpy(h[-1]), to_numpy(actions), to_numpy(x[:, 0]), R.RewardConfig(tau=0.1)
    )
    assert pull.device == away.device and np.abs(to_numpy(pull) - here).max() < 1e-6
    config = R.RewardConfig(optimizer="sgd")
    R.RewardTrainer(model, config, steps=1, rng=Random(2, away)).step(x, actions, x[:, 0])


# ---- time ----------------------------------------------------------------------------------------


def test_traced_errors_are_what_fading_tags_collect():
    """Sum over t of e_t A_t, against synapses that change at once by their fading tag; tags are
    cleared where an episode ends.
    """
    d, e, goes_on = (
        Random(0).normal((12, 2), "float64"),
        Random(1).normal((12, 2), "float64"),
        (Random(2).uniform((12, 2)) < 0.8).astype(float),
    )
    tag, total = np.zeros(2), np.zeros(2)
    for t in range(12):
        tag = tag + e[t]
        total += tag * d[t]
        tag = 0.7 * goes_on[t] * tag
    assert np.allclose((e * R.lambda_returns(d, goes_on, 0.7)).sum(0), total, atol=1e-12)


def test_the_normalizer_knows_the_mean_and_the_spread_of_all_they_saw():
    o, normalizer = (
        3 * Random(0).normal((90, 4), "float64") + 7,
        R.RunningNormalizer(np.zeros(4), np.ones(4)),
    )
    for part in (o[:10], o[10:15], o[15:]):
        normalizer.learn(part)
    assert (
        np.allclose(normalizer.mean, o.mean(0))
        and np.allclose(normalizer.var, o.var(0))
        and np.allclose(normalizer(o), (o - o.mean(0)) / np.sqrt(o.var(0) + 1e-4), atol=1e-5)
    )


# ---- worlds: the extra rl ------------------------------------------------------------------------


def test_without_gymnasium_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match="pip install gymnasium"):
        R.make_envs("CartPole-v1", 2)


def test_a_rollout_counts_what_the_environments_count():
    """The returns of CartPole are the lengths of its episodes: together with the running ones they
    are all steps that counted.
    """
    pytest.importorskip("gymnasium", reason="Gymnasium is not installed (the extra rl)")
    envs = R.make_envs("CartPole-v1", 3)
    actor = R.Actor(
        R.init_actor(4, (5,), 2, unit="tanh", rng=Random(0)),
        R.RunningNormalizer(np.zeros(4), np.ones(4)),
    )
    rollout = R.Rollout(envs, actor, Random(1))
    o, actions, predicted, errors, counts, goes_on = rollout.advance(200, R.RewardConfig().discount)
    envs.close()
    assert (
        o.shape == (200, 3, 4)
        and rollout.steps == counts.sum() == sum(p for _, p in actor.episodes) + rollout.paid.sum()
        and len(actor.episodes) == (~goes_on & counts).sum()
    )
    assert (errors[~counts] == 0).all() and not counts.all() and not predicted.any()
    assert np.allclose(
        errors[counts], 0.01
    )  # an untrained top predicts 0, and each step pays (1 - gamma)


def test_a_cut_episode_still_has_a_future_and_an_ended_one_has_none():
    pytest.importorskip("gymnasium", reason="Gymnasium is not installed (the extra rl)")
    model = R.init_actor(4, (5,), 2, unit="tanh", rng=Random(0))
    model.pairs[-1].f.b[-1] = 2.0  # predicts 2 everywhere

    class World:
        def reset(self, seed):
            return np.zeros((2, 4)), {}

        def step(self, actions):
            return (
                np.ones((2, 4)),
                np.ones(2),
                np.asarray([True, False]),
                np.asarray([False, True]),
                {},
            )

    actor = R.Actor(model, R.RunningNormalizer(np.zeros(4), np.ones(4)))
    errors = R.Rollout(World(), actor, Random(1)).advance(1, discount=0.9).errors
    assert np.allclose(errors, [[0.1 - 2.0, 0.1 + 0.9 * 2.0 - 2.0]])


@pytest.mark.parametrize(
    "name,why",
    [
        ("NoSuchWorld-v0", "no environment"),
        ("MountainCarContinuous-v0", "one of a few actions"),
        ("FrozenLake-v1", "row of numbers"),
    ],
)
def test_worlds_that_do_not_fit_are_refused(name, why):
    pytest.importorskip("gymnasium", reason="Gymnasium is not installed (the extra rl)")
    with pytest.raises(ValueError, match=why):
        R.make_envs(name, 2)


def test_learning_stops_when_the_last_hundred_episodes_paid_enough():
    pytest.importorskip("gymnasium", reason="Gymnasium is not installed (the extra rl)")

    def live(stop_at):
        task = R.TaskConfig(steps=20_000, stop_at=stop_at)
        return R.fit_task("CartPole-v1", R.RewardConfig(rate_f=3e-3), task, rng=Random(0))

    whole, short = live(None), live(25.0)
    means = [
        np.mean([p for _, p in whole.episodes[k - 100 : k]])
        for k in range(100, len(whole.episodes))
    ]
    assert (
        short.recent() >= 25
        and len(short.episodes) < len(whole.episodes)
        and short.episodes == whole.episodes[: len(short.episodes)]
    )
    assert (
        max(means[: len(short.episodes) - 200]) < 25
    )  # not long before: at most the hundred episodes of the last stretches
    assert R.Actor(short.model, short.normalizer, short.episodes[:99]).recent() == -np.inf


def test_a_pole_stands_longer_after_a_short_life():
    pytest.importorskip("gymnasium", reason="Gymnasium is not installed (the extra rl)")
    config = R.RewardConfig(rate_f=1e-2, rate_g=3e-3)
    actor = R.fit_task("CartPole-v1", config, R.TaskConfig(steps=40_000), rng=Random(0))
    assert R.play(actor, "CartPole-v1", episodes=30, rng=Random(1)).mean() > 3 * np.mean(
        [p for _, p in actor.episodes[:30]]
    )


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        dict(beta=-1),
        dict(noise=0),
        dict(trace=1.5),
        dict(feedback="some"),
        dict(optimizer="best"),
        dict(decay=1),
    ],
)
def test_a_wrong_recipe_is_refused(wrong):
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        R.RewardConfig(**wrong)


def test_wrong_rows_are_refused():
    with pytest.raises(ValueError, match="x must have 6 columns"):
        R.fit_bandit(
            R.init_actor(6, (8,), 3, rng=Random(0)),
            R.Bandit(np.ones((5, 4), np.float32), lambda r, a: a),
            R.RewardConfig(),
            trials=10,
            rng=Random(0),
        )
    with pytest.raises(ValueError, match="n_actions"):
        R.init_actor(6, (8,), 1, rng=Random(0))


# ---- the bench -----------------------------------------------------------------------------------


def test_the_verdicts_follow_their_rules():
    from experiments.reinforcement import verdicts

    def runs(task, method, scores, first=0):
        return [
            dict(task=task, method=method, score=s, seed=first + k) for k, s in enumerate(scores)
        ]

    assert (
        verdicts(runs("CartPole-v1", "learnt", [500, 500, 475, 480, 100]))["CartPole-v1"]["holds"]
        is True
    )
    assert (
        verdicts(runs("CartPole-v1", "learnt", [500, 500, 474.9, 480, 100]))["CartPole-v1"]["holds"]
        is False
    )
    assert (
        verdicts(runs("CartPole-v1", "learnt", [500, 500, 500, 500]))["CartPole-v1"]["holds"]
        is None
    )
    apart = verdicts(
        runs("CartPole-v1", "learnt", [500, 100, 500, 100, 500])
        + runs("CartPole-v1", "learnt", [500, 100, 500, 500, 500], first=5)
    )
    assert (
        apart["CartPole-v1"]["holds"] is False and apart["CartPole-v1, new seeds"]["holds"] is True
    )
    bp, lin = runs("mnist", "backprop", [0.95, 0.96]), runs("mnist", "linear", [0.90, 0.91])
    assert verdicts(bp + lin + runs("mnist", "learnt", [0.945, 0.947]))["mnist"]["holds"] is True
    assert (
        verdicts(bp + lin + runs("mnist", "learnt", [0.944, 0.945]))["mnist"]["holds"] is False
    )  # 1.05 points below back-propagation
    assert verdicts(bp + lin + runs("mnist", "learnt", [0.94, 0.96]))["mnist"]["holds"] is True
    assert (
        verdicts(bp + runs("mnist", "linear", [0.9, 0.98]) + runs("mnist", "learnt", [0.95, 0.96]))[
            "mnist"
        ]["holds"]
        is False
    )
