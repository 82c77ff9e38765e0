"""Page zero, which imports nothing of the library where it tells the paper, computes what the library
computes: its cells are run as they stand, but for the training itself.
"""

import ast
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from biolearn.core.generation import GENERATE, inference_chain
from biolearn.core.inference import infer
from biolearn.core.layers import Dense, LayerPair
from biolearn.core.learning import local_step, new_train_state
from biolearn.core.model import Model, decode, log_p_joint
from biolearn.core.priors import fit_top_prior

ROOT = Path(__file__).resolve().parent.parent
PAGE = nbformat.read(ROOT / "nbs" / "zero.ipynb", as_version=4)
CODE = [c.source for c in PAGE.cells if c.cell_type == "code" and "#| hide" not in c.source]
PLAIN = CODE[: next(n for n, cell in enumerate(CODE) if "biolearn" in cell)]
DOUBLE = 1e-11  # round-off in double precision, after some hundred operations on numbers near 1


def is_about_training(statement):
    "Does a statement of the page train, or say what training has to reach?"
    return isinstance(statement, ast.Assert) or ast.unparse(statement).startswith("train(")


@pytest.fixture
def page():
    """The names that the plain cells define, before training, with some random biases, all weights
    and pictures in double precision, so that nothing but an error can make a difference.
    """
    names = {}
    for cell in PLAIN:
        tree = ast.parse(cell)
        tree.body = [one for one in tree.body if not is_about_training(one)]
        exec(compile(tree, "zero.ipynb", "exec"), names)
    plt.close("all")
    rng = np.random.default_rng(1)
    for name in ("f1", "g1", "f2", "g2"):
        one = names[name]
        one.W = one.W.astype(float)
        one.b = 0.3 * rng.standard_normal(one.b.shape)
    names["x_train"] = names["x_train"].astype(float)
    return names


def as_model(page):
    "The page's network as the library has it, with weights of its own."

    def dense(one):
        return Dense(one.W.copy(), one.b.copy(), one.unit.__name__)

    pairs = [LayerPair(dense(page[f"f{k}"]), dense(page[f"g{k}"])) for k in (1, 2)]
    return Model(tuple(pairs))


def test_inference_is_the_librarys(page):
    model, x = as_model(page), page["x_train"][:50]
    for alpha in (0.001, 0.3):
        inference = replace(GENERATE, alpha=alpha)
        h = infer(model, x, inference)
        mine = page["inference"](x, alpha=alpha)
        for a, b in zip(h[1:], mine):
            np.testing.assert_allclose(b, a, rtol=0, atol=DOUBLE)
        np.testing.assert_allclose(page["log_p"](x, *mine), log_p_joint(model, h), rtol=1e-10)


def test_the_updates_of_train_are_the_librarys(page, monkeypatch):
    "Three steps, since Adam's first step alone knows only signs; both learn from the same noise."
    state = new_train_state(as_model(page))
    maps = [page[name] for name in ("f1", "g1", "f2", "g2")]
    dense = [one for pair in state.model.pairs for one in (pair.f, pair.g)]
    heard = []

    def listen(one, before, target, rate):
        heard.append((one, before, target, rate))
        learn(one, before, target, rate)

    learn = page["Map"].learn
    monkeypatch.setattr(page["Map"], "learn", listen)
    for t in (1, 2, 3):
        x = page["x_train"][50 * t : 50 * t + 50]
        h = infer(state.model, x)
        page["train_step"](x, left=0.5)
        assert [one for one, *_ in heard] == maps
        ends = [(h[0], h[1]), (h[1], h[0]), (h[1], h[2]), (h[2], h[1])]
        for (one, before, target, rate), quiet, own, memory in zip(
            heard, ends, dense, state.optimizers
        ):
            assert 0 < np.abs(before - quiet[0]).mean() < 0.5  # a noisy copy of its own lower end
            np.testing.assert_allclose(target, quiet[1], rtol=0, atol=DOUBLE)
            local_step(own, memory, before, target, optimizer="adam", rate=rate, t=t)
        heard.clear()
    for one, own in zip(maps, dense):
        # Adam divides by a root: round-off in a change near 0 is widened
        np.testing.assert_allclose(one.W, own.W, rtol=0, atol=1e-9)
        np.testing.assert_allclose(one.b, own.b, rtol=0, atol=1e-9)


def test_generate_is_the_librarys(page):
    model = as_model(page)
    prior = fit_top_prior(page["h2_train"])
    h2 = prior.mean + np.sqrt(prior.var) * np.random.default_rng(5).standard_normal((7, 50))
    page["rng"] = np.random.default_rng(5)
    *_, x = inference_chain(model, decode(model, h2)[0], rounds=3)
    np.testing.assert_allclose(page["generate"](7), x, rtol=0, atol=1e-5)  # h2_train is float32


def test_spikes_are_means_of_three(page):
    h = np.tile([0.0, 0.3, 1.0], (20_000, 1))
    sent = page["spikes"](h)
    assert set(np.unique(np.round(3 * sent))) == {0, 1, 2, 3}
    # four standard errors of the mean of 60,000 spikes
    assert np.abs(sent.mean(axis=0) - h[0]).max() < 4 * np.sqrt(0.3 * 0.7 / 60_000)


def test_the_plain_cells_use_nothing_but_numpy_and_transpose_no_weights():
    code = "\n".join(PLAIN)
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.M))
    assert imported == {"numpy", "sklearn", "matplotlib"}
    # the one transpose sums over the examples of a batch
    assert re.findall(r"\w+\.T\b", code) == ["before.T"]


# ---- the diagrams --------------------------------------------------------------------------------

spec = importlib.util.spec_from_file_location("diagram", ROOT / "docs" / "diagram.py")
diagram = importlib.util.module_from_spec(spec)
sys.modules["diagram"] = diagram  # dataclasses look for it
spec.loader.exec_module(diagram)


def test_the_committed_diagrams_are_those_that_the_code_draws(tmp_path):
    diagram.main(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (diagram.FOLDER / path.name).read_bytes(), (
            f"{path.name} is not what docs/diagram.py draws: run `python docs/diagram.py`"
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        p.name for p in diagram.FOLDER.iterdir()
    )
