"""No forgetting: toy clouds in the place of digits, where the network's own pictures keep old
classes and nothing else does; poisoned pictures, labels of dreams, and the table.
"""

from dataclasses import replace

import numpy as np
import pytest
from mnist_counts import TEST_DIGITS

from biolearn.core.files import as_plain
from biolearn.core.generation import decode
from biolearn.core.priors import TopPrior
from biolearn.core.rng import Random
from biolearn.reproduction.study import Trial
from experiments import forgetting, read_table
from experiments.forgetting import (
    Network,
    crisp,
    dream,
    learn_task,
    lines,
    newborn,
    numbers_kept,
    one_by_one,
    read,
    trembling,
)

HOW = {
    **forgetting.SETTINGS,
    "hidden": [30, 12],
    "minibatches": 400,
    "components": 3,
    "widen": 1.0,
    "replayed": 100,
    "labels": {"hidden": 30, "pictures": 200, "epochs": 150, "tremble": 0, "unseen": 0.0},
}
BRIEF = HOW | {"minibatches": 20, "labels": HOW["labels"] | {"epochs": 2}}
PAIRS = ((0, 1), (2, 3))


def clouds(labels, seed):
    "Pictures of 5 x 5 pixels, each class with rows or columns of its own, and noise."
    shapes = np.zeros((4, 5, 5), np.float32)
    for c, place in enumerate((0, 3)):
        shapes[c, place] = shapes[c, place + 1] = 1
        shapes[c + 2, :, place] = shapes[c + 2, :, place + 1] = 1
    x = shapes.reshape(4, 25)[labels] * 0.8 + 0.1
    return np.clip(x + 0.1 * Random(seed).normal(x.shape), 0, 1).astype(np.float32)


def tasks():
    for seed, pair in enumerate(PAIRS):
        labels = np.repeat(pair, 200)
        yield clouds(labels, seed), labels


def accuracy(way):
    *_, network = one_by_one(tasks(), way, HOW, Random(0))
    truth = np.repeat(np.arange(4), 50)
    said = read(network, clouds(truth, 9), HOW["gain"])
    return [np.mean((said == truth)[np.isin(truth, pair)]) for pair in PAIRS]


def test_replay_keeps_what_is_forgotten_without_it():
    kept, real, none = map(accuracy, ("own replay", "real replay", "no replay"))
    assert min(kept) > 0.9 and min(real) > 0.9
    assert none[0] < 0.2 and none[1] > 0.9


def test_nothing_of_an_earlier_picture_is_reached_from_what_is_handed_on():
    "Pictures of a task are ruined when it is over, and the network of the next does not notice."

    def run(poison):
        given, kept = list(tasks()), []
        for (x, labels), network in zip(given, one_by_one(given, "own replay", BRIEF, Random(0))):
            kept = [d.W for p in network.model.pairs + network.reader.pairs for d in (p.f, p.g)]
            kept += [top.mean for top in network.tops.values()]
            if poison:
                x[...], labels[...] = np.nan, 3
        return np.concatenate([a.ravel() for a in kept])

    assert np.array_equal(run(False), run(True))


def test_a_task_hears_of_old_digits_only_by_what_it_is_given(monkeypatch):
    "own replay hands `learn_task` the network's dreams, and not one old digit."
    heard = []

    def told(network, new, old, how, rng):
        heard.append((new, old))
        return learn_task(network, new, old, how, rng)

    monkeypatch.setattr(forgetting, "learn_task", told)
    given = list(tasks())
    for way, kept in (("own replay", False), ("no replay", None), ("real replay", True)):
        heard.clear()
        list(one_by_one(given, way, BRIEF, Random(0)))
        (first, nothing), (second, old) = heard
        assert nothing is None and first is given[0] and second is given[1]
        if kept is None:
            assert old is None
            continue
        assert set(old[1]) == {0, 1} and len(old[0]) == 2 * HOW["replayed"]
        digits = {x.tobytes() for x in given[0][0]}
        assert all((x.tobytes() in digits) == kept for x in old[0])


def test_few_digits_are_stored_in_as_many_numbers_as_a_mixture_has():
    "Three Gaussians of twelve units are 75 numbers, three pictures of 25 pixels."
    labels = np.repeat((0, 1), 200)
    x = clouds(labels, 0)
    old, of = forgetting.stored((x, labels), "few stored", HOW)
    assert len(np.unique(old[of == 0], axis=0)) == len(np.unique(old[of == 1], axis=0)) == 3
    assert np.bincount(of).tolist() == [102, 102]  # 34 times three, at least HOW["replayed"]
    assert {x.tobytes() for x in old} == {x.tobytes() for x in [*x[:3], *x[200:203]]}


def test_dreams_are_decoded_from_the_mixture_of_their_class():
    "With mixtures of one Gaussian without variance the dream of a class is known."
    network = newborn(25, HOW, Random(0))
    codes = {c: Random(c).uniform((1, 12)) for c in (4, 7)}
    tops = {c: TopPrior(h, 0 * h, np.ones(1, np.float32)) for c, h in codes.items()}
    x, labels = dream(replace(network, tops=tops), HOW | {"replayed": 5}, Random(0))
    assert labels.tolist() == [4] * 5 + [7] * 5
    for c, h in codes.items():
        expected = crisp(decode(network.model, h)[0], HOW["gain"])
        assert np.allclose(x[labels == c], expected, atol=1e-6)


def test_dreams_that_the_label_units_doubt_are_replayed_last():
    "Of twice as many draws, as many as are recognised, and no more, are replayed first."
    network, n = newborn(25, HOW, Random(0)), 40
    top = TopPrior(np.full((1, 12), 0.5), np.full((1, 12), 9.0), np.ones(1))
    found = {}
    for c in range(10):
        x, _ = dream(replace(network, tops={c: top}), HOW | {"replayed": n}, Random(0))
        more, _ = dream(replace(network, tops={c: top}), HOW | {"replayed": 2 * n}, Random(0))
        named = lambda x: network.reader.f(2, network.reader.f(1, x)).argmax(axis=1) == c
        found[c] = named(x)
        assert not np.any(np.diff(found[c].astype(int)) > 0) and named(more).any() >= found[c].any()
    assert any(0 < right.sum() < n for right in found.values())
    assert any(right.all() for right in found.values())


def test_crisp_pictures_are_those_of_units_with_a_higher_gain():
    inputs = np.linspace(-4, 4, 9)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    assert np.allclose(crisp(sigmoid(inputs), 1.5), sigmoid(1.5 * inputs), atol=1e-5)


def test_a_trembling_eye_moves_the_picture_and_nothing_else():
    one = np.zeros((500, 25), np.float32)
    one[:, 12] = 1  # the middle of 5 x 5
    places = trembling(one, 1, Random(0)).argmax(axis=1)
    rows, columns = places // 5, places % 5
    assert set(zip(rows, columns)) == {(r, c) for r in (1, 2, 3) for c in (1, 2, 3)}
    assert np.array_equal(trembling(one, 0, Random(0)), one)


def test_a_reader_asks_the_picture_and_both_layers():
    "Label units that see the same thing thrice say thrice as much: the sum decides."
    network = newborn(25, HOW, Random(0))
    x = Random(1).uniform((300, 25))
    seen = forgetting.views(network.model, x, 1.5)
    assert np.array_equal(seen[0], x) and len(seen) == 3
    total = sum(network.reader.f(2, network.reader.f(1, view)) for view in seen)
    assert np.array_equal(read(network, x, 1.5), total.argmax(axis=1))


def test_every_number_that_is_handed_on_is_counted():
    network = newborn(25, HOW, Random(0))
    top = TopPrior(np.zeros((3, 12)), np.ones((3, 12)), np.ones(3))
    pictures = 2 * (25 * 30 + 30 * 12) + 30 + 25 + 12 + 30
    labels = 2 * (25 * 30 + 30 * 10) + 30 + 25 + 10 + 30
    found = numbers_kept(Network(network.model, network.reader, {0: top, 1: top}))
    assert found == {"f and g": pictures, "labels": labels, "mixtures": 2 * (2 * 36 + 3)}


class Toy:
    "Four classes in the place of MNIST."

    train_labels = np.repeat(np.arange(4), 200)
    test_labels = np.repeat(np.arange(4), (10, 20, 30, 40))
    train, test = clouds(train_labels, 0), clouds(test_labels, 1)


def test_the_numbers_of_a_trial_add_up(monkeypatch):
    monkeypatch.setattr(forgetting, "mnist", lambda: Toy)
    monkeypatch.setattr(forgetting, "TASKS", PAIRS)
    monkeypatch.setattr(forgetting, "CLASSES", 4)
    found = forgetting.measured(Trial("x", {"way": "no replay", "how": BRIEF}, 0))
    assert len(found["after each task"]) == 2 and len(found["of each class"]) == 4
    assert found["accuracy"] == found["after each task"][-1]
    assert np.isfinite(found["dreams recognised"]).all()  # classes of earlier tasks are still there
    share = np.bincount(Toy.test_labels) / len(Toy.test_labels)
    assert found["accuracy"] == pytest.approx(share @ found["of each class"], abs=1e-3)


def test_the_rule_asks_the_mean_of_five_seeds_for_ninety():
    seed = lambda a: {"accuracy": a}
    rows = lambda *values: {"own replay": {str(k): seed(v) for k, v in enumerate(values)}}
    holds = lambda table: forgetting.finish(table)["verdict"]["holds"]
    assert holds(rows(89, 91, 90, 90, 90)) and not holds(rows(89, 91, 90, 90, 89.9))
    assert holds(rows(95, 95)) is None and holds({}) is None


def test_the_table_is_printed_with_mean_and_standard_deviation():
    seed = lambda a: {
        "accuracy": a,
        "after each task": [99.0, a],
        "of each class": [a],
        "dreams recognised": [a],
    }
    first, curve, *_ = lines({"own replay": {"0": seed(88.0), "1": seed(90.0)}})
    assert "89.00 ± 1.41 %" in first and "2 seeds" in first
    assert curve.split()[-2:] == ["99.0", "89.0"]
    assert "88.00 % with 1 seeds" in next(lines({"no replay": {"0": seed(88.0)}}))


TABLE = read_table(forgetting.PAPER / "forgetting.json")


def test_the_stored_verdict_is_that_of_today():
    today = as_plain(forgetting.finish(TABLE))
    assert all(TABLE[part] == today[part] for part in ("settings", "tried", "verdict"))


@pytest.mark.parametrize("way", [way for way in forgetting.WAYS if way in TABLE])
def test_the_stored_numbers_add_up(way):
    for found in TABLE[way].values():
        whole = np.average(found["of each class"], weights=TEST_DIGITS)
        assert found["accuracy"] == found["after each task"][-1] == pytest.approx(whole, abs=1e-3)
        assert len(found["after each task"]) == (1 if way == "all at once" else 5)
        assert not found["revision"]["dirty"]
