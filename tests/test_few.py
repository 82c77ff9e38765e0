"""The memory of few labels: associations against other libraries, beliefs against their closed
form, labels that follow a shape; peers see the same digits.
"""

import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.semi_supervised import LabelSpreading

from biolearn.core.rng import Random
from biolearn.core.shipped import load_trained
from biolearn.reproduction.study import Trial
from experiments import few
from experiments.memory import answer, associations, cues, lateral, nearest, recall, settle


def some(n=40, d=6, seed=0):
    return Random(seed).normal((n, d))


def test_the_units_that_wake_are_the_nearest_neighbours_of_scikit_learn():
    memory, queries = some(2500), some(30, seed=1)
    peer = NearestNeighbors(n_neighbors=5).fit(memory)
    for mine, theirs in (
        (nearest(queries, memory, 5), peer.kneighbors(queries, return_distance=False)),
        (nearest(memory, memory, 5), peer.kneighbors(return_distance=False)),
    ):
        assert np.array_equal(np.sort(mine, axis=1), np.sort(theirs, axis=1))


def test_a_memory_has_more_units_than_a_digit_wakes():
    with pytest.raises(ValueError, match="k must be"):
        nearest(some(5), some(5), 5)


def test_associations_are_the_same_at_both_ends():
    places = np.array([[1], [0], [1]])
    W = associations(places, np.array([[2.0], [3.0], [4.0]])).toarray()
    assert np.array_equal(W, [[0, 5, 0], [5, 0, 4], [0, 4, 0]])


def test_settled_beliefs_are_the_solution_of_their_equation():
    "(I - passed D^-1 W) b = y, solved by NumPy, after so many sweeps that 0.9 to their power is 0."
    places = nearest(some(), some(), 4)
    W = associations(places, np.ones(places.shape))
    y = np.zeros((40, 3), np.float32)
    y[[0, 1, 2], [0, 1, 2]] = 1
    dense = W.toarray()
    b = np.linalg.solve(np.eye(40) - 0.9 * dense / dense.sum(axis=1, keepdims=True), y)
    expected = b / b.sum(axis=1, keepdims=True)
    assert np.allclose(settle(W, y, 0.9, 300), expected, atol=1e-5)


def test_units_that_no_label_reaches_believe_nothing():
    places = np.array([[1], [0], [3], [2]])
    y = np.zeros((4, 2), np.float32)
    y[0, 1] = 1
    assert np.allclose(recall(places, y), [[0, 1], [0, 1], [0, 0], [0, 0]])


def test_two_labels_follow_the_shape_of_two_moons():
    "Where the nearest labelled point is wrong for many; a new point is answered for, too."
    x, truth = make_moons(600, noise=0.05, random_state=0)
    new, expected = make_moons(200, noise=0.05, random_state=1)
    mine = np.array([np.flatnonzero(truth == c)[0] for c in (0, 1)])
    y = np.zeros((600, 2), np.float32)
    y[mine, truth[mine]] = 1
    beliefs = recall(nearest(x, x, 7), y)
    assert np.mean(beliefs.argmax(axis=1) != truth) == 0
    assert np.mean(answer(beliefs, nearest(new, x, 7)) != expected) == 0
    peer = KNeighborsClassifier(1).fit(x[mine], truth[mine])
    assert np.mean(peer.predict(x) != truth) > 0.1


def test_replay_weakens_associations_between_units_that_disagree():
    "Beliefs of a cloud between two labels are more certain after each replay."
    places = nearest(some(60, 2), some(60, 2), 6)
    y = np.zeros((60, 2), np.float32)
    y[[0, 1], [0, 1]] = 1
    settings = {"passed": 0.99, "sweeps": 100}
    sure = lambda replays: recall(places, y, settings | {"replays": replays}).max(axis=1).mean()
    assert sure(0) < sure(1) < sure(4)


def test_pixels_hear_those_that_fire_with_them():
    x = Random(0).uniform((500, 4))
    x[:, 1], x[:, 3] = x[:, 0], 0.25
    assert np.allclose(
        lateral(x, 0.5), [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )


def test_both_senses_count_by_their_spread_in_the_training_set():
    model = load_trained()
    x = Random(1).uniform((30, model.sizes[0]))
    found = cues(model, few.Inference(), {"train": x, "other": x[:5]})
    pixels, code = np.split(found["train"], [model.sizes[0]], axis=1)
    assert np.isclose(pixels.var(axis=0).sum(), 1, rtol=1e-4)
    assert np.isclose(code.var(axis=0).sum(), few.MEMORY["code"] ** 2, rtol=1e-4)
    assert np.allclose(found["other"], found["train"][:5], atol=1e-4)


def test_labels_are_drawn_balanced_and_anew_for_each_seed():
    labels = np.repeat(np.arange(10), 30)
    one, other = (few.balanced(labels, 100, Random(seed)) for seed in (0, 1))
    assert np.array_equal(np.bincount(labels[one]), [10] * 10) and len(set(one)) == 100
    assert set(one) != set(other)


@pytest.fixture
def blobs(monkeypatch):
    "Ten clouds that overlap, in the place of MNIST's classes."
    truth = {name: np.repeat(np.arange(10), n) for name, n in (("train", 40), ("valid", 5))}
    truth["test"] = truth["valid"]
    centres = Random(5).uniform((10, 20))
    x = {
        k: (centres[t] + 0.3 * Random(6).stream(k).normal((len(t), 20))).astype(np.float32)
        for k, t in truth.items()
    }

    class Data:
        pass

    for k, t in truth.items():
        setattr(Data, k, x[k])
        setattr(Data, f"{k}_labels", t)
    monkeypatch.setattr(few, "mnist", lambda: Data)
    monkeypatch.setattr(few, "LABELS", (100,))
    few.pixel_places.cache_clear()
    yield Data
    few.pixel_places.cache_clear()


def test_label_spreading_of_the_stored_neighbours_is_that_of_scikit_learn(blobs):
    "The same graph as an array, and a vote of the neighbours written out."
    y = np.eye(10, dtype=np.float32)[blobs.train_labels]
    mine = few.balanced(blobs.train_labels, 100, Random(0))
    said = few.by_label_spreading({}, mine, y, Random(0), None)
    near = associations(few.pixel_places()["train"], np.ones((400, few.MEMORY["neighbours"])))
    given = np.full(400, -1)
    given[mine] = blobs.train_labels[mine]
    peer = LabelSpreading(lambda a, b=None: near.toarray(), alpha=0.99, max_iter=100)
    peer.fit(np.arange(400)[:, None], given)
    votes = peer.label_distributions_[few.pixel_places()["test"]].sum(axis=1)
    assert np.array_equal(said["test"], votes.argmax(axis=1))


@pytest.mark.parametrize("reader", ["ridge", "back-propagation", "label spreading"])
def test_peers_read_the_clouds(blobs, reader):
    found = few.with_few(Trial(reader, few.ROWS[reader], 0))
    assert found["100"]["test"] <= 45  # 90 is chance


def test_a_target_holds_where_the_mean_of_the_seeds_is_at_most_it():
    seed = lambda a, b: {"100": {"test": a}, "600": {"test": b}, "1000": {"test": 1.0}}
    found = few.verdicts({"memory": {"0": seed(5.0, 2.9), "1": seed(7.0, 3.2)}, "ridge": {}})
    assert found["100"]["holds"] and not found["600"]["holds"] and few.verdicts({}) == {}
