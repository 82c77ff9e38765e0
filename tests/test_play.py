"""The page `play`: what it computes in a browser equals what the library computes.

Both have the same weights of 16 bits, the same pictures and the same random numbers. (How the page
looks, and whether it can be used, is asked by docs/check_browser.py: make book-check.)
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from biolearn.core.data import load_mnist_small
from biolearn.core.generation import GENERATE, half_masks, inference_chain
from biolearn.core.inference import Inference
from biolearn.core.model import decode, log_p_joint
from biolearn.core.priors import sample_prior
from biolearn.core.rng import Random
from biolearn.core.shipped import load_trained
from biolearn.theory.stdp import TrialParams, expected_curve, nearest_spike, voltage, weight_change

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import headless
import play

BROWSERS = headless.browsers()
TOLERANCE = 1e-4  # asked for is 1e-3; round-off gives some 1e-6
PREPARE = """
const tools = networkTools();
const arrays = tools.unpack(PLAY_DATA);
const model = tools.modelOf(arrays);
const list = (array) => Array.from(array);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "The page as it is built."
    folder = tmp_path_factory.mktemp("play")
    play.write(folder)
    return folder


WITHOUT = pytest.param("", marks=pytest.mark.skip(reason="no Chromium and no Firefox was found"))


@pytest.fixture(scope="module", params=list(BROWSERS) or [WITHOUT])
def browser(request):
    return BROWSERS[request.param]


@pytest.fixture(scope="module")
def page(browser, folder):
    "A page of the browser, with the functions of the page `play` and nothing else of it."
    sources = ("data.js", "network.js", "synapse.js")
    scripts = "".join(f'<script src="{name}"></script>' for name in sources)
    text = f"<!doctype html><meta charset=utf-8><title>test</title>{scripts}"
    (folder / "test.html").write_text(text + f"<script>{PREPARE}</script>", encoding="utf-8")
    with headless.Page(folder, "test.html", browser) as page:
        yield page


@pytest.fixture(scope="module")
def model():
    return load_trained("paper")


@pytest.fixture(scope="module")
def ten():
    "The first test digit of each class (10, 784)."
    return (play.digits()[:: play.DIGITS_OF_A_CLASS] / 255).astype(np.float32)


def in_browser(page, script, **given):
    "What `script` returns, with the arrays among `given` as lists."
    return page.run(script, {name: np.asarray(value).tolist() for name, value in given.items()})


def test_the_digits_of_the_page_are_those_of_the_package(ten):
    data = load_mnist_small()
    for label, digit in enumerate(ten):
        first = data.test[np.flatnonzero(data.test_labels == label)[0]]
        assert np.abs(digit - first).max() < 1e-6


@pytest.mark.parametrize("simd", [True, False])
def test_states_after_15_steps_and_their_log_p(page, model, ten, simd):
    "With the instructions that take four numbers at once, and without."
    script = """
    const some = networkTools({ simd: given.simd });
    const someModel = some.modelOf(arrays);
    return given.x.map((x) => {
      const { state, logs } = some.settle(someModel, x);
      return { h1: list(state.h1), h2: list(state.h2), logs };
    });"""
    answers = in_browser(page, script, x=ten, simd=simd)
    states = list(Inference().steps(model, ten))
    for k, name in ((1, "h1"), (2, "h2")):
        found = np.array([answer[name] for answer in answers])
        worst = np.abs(found - states[-1][k]).max()
        print(f"{name} of ten digits after 15 steps differs by {worst:.1e}")
        assert worst < TOLERANCE
    logs = np.array([log_p_joint(model, h) for h in states]).T
    found = np.array([answer["logs"] for answer in answers])
    print(f"log p(x,h) at each step differs by {np.abs(found - logs).max():.1e}")
    assert np.abs(found - logs).max() < TOLERANCE


def complete(model, x, visible, start, rounds, inference):
    "In-painting from given random numbers: `inpaint_steps` draws its own."
    x = np.where(visible, x, start)
    for _ in range(rounds):
        h = inference(model, x, visible=visible)
        x = np.where(visible, x, model.g(1, h[1]))
    return x


@pytest.mark.parametrize("alpha, rounds", [(0.001, 20), (0.3, 5)])
def test_inpainting(page, model, ten, alpha, rounds):
    masks = half_masks((28, 28))
    names = ["left", "right", "top", "bottom"]
    visible = np.stack([masks[names[i % 4]] for i in range(10)])
    start = Random(0).stream("start").uniform((10, 784))
    script = """return given.x.map((x, i) => {
      const visible = given.visible[i].map(Number);
      const { alpha, rounds } = given;
      const made = [...tools.inpaintRounds(model, x, visible, given.start[i], { alpha, rounds })];
      return [made[1], made.at(-1)].map(({ picture }) => list(picture));
    });"""
    given = {"x": ten, "visible": visible, "start": start, "alpha": alpha, "rounds": rounds}
    answers = np.array(in_browser(page, script, **given))
    for column, count in ((0, 1), (1, rounds)):
        theirs = complete(model, ten, visible, start, count, Inference(alpha=alpha))
        worst = np.abs(answers[:, column] - theirs).max()
        print(f"alpha = {alpha}: pictures after {count} rounds differ by {worst:.1e}")
        assert worst < TOLERANCE


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_generate_from_given_random_numbers(page, model, name):
    if name == "mixture":
        prior = load_trained("mixture").prior
        half = [a.astype(np.float16).astype(np.float32) for a in (prior.mean, prior.var)]
        model = replace(model, prior=replace(prior, mean=half[0], var=half[1]))
    rng = Random(3)
    normals, uniforms = rng.normal((10, 100)), rng.stream("component").uniform((10,))
    h2 = sample_prior(model.prior, 10, rng=Random(3))
    script = """return given.normals.map((z, i) => {
      const normals = Float32Array.from(z);
      const h2 = tools.drawTop(model.priors[given.name], normals, given.uniforms[i]);
      const rounds = [...tools.generateRounds(model, h2)];
      const pictures = rounds.map((round) => list(round.pictures.at(-1)));
      return { h2: list(h2), pictures };
    });"""
    given = {"normals": normals, "uniforms": uniforms, "name": name}
    answers = in_browser(page, script, **given)
    assert np.abs(np.array([a["h2"] for a in answers]) - h2).max() < 1e-5
    chain = inference_chain(model, decode(model, h2)[0], rounds=3, inference=GENERATE)
    found = np.array([a["pictures"] for a in answers])
    for round_, pictures in enumerate(chain):
        worst = np.abs(found[:, round_] - pictures).max()
        print(f"{name} prior: pictures after {round_} rounds differ by {worst:.1e}")
        assert worst < TOLERANCE


def test_the_synapse_reads_the_voltage_as_the_library_does(page):
    trial = TrialParams()
    rng = Random(0)
    gap = 5 * np.abs(rng.stream("gap").normal((40,)))
    slope = 0.5 * rng.stream("slope").normal((40,))
    V = voltage(gap, slope, trial, rng=rng)
    script = """
    const synapse = synapseTools();
    const found = given.V.map((V) => [
      synapse.nearestSpike(Float32Array.from(V), synapse.TRIAL),
      synapse.weightChange(Float32Array.from(V), synapse.TRIAL),
    ]);
    const quiet = { ...synapse.TRIAL, noise: 0 };
    const random = tools.randomNumbers(0);
    const pairs = Array.from({ length: 10000 }, () =>
      synapse.onePair(synapse.randomSlope(quiet, random), quiet, random));
    const near = pairs.filter(({ deltaT }) => Math.abs(deltaT - 10) < 0.5);
    const mean = near.reduce((sum, { deltaW }) => sum + deltaW, 0) / near.length;
    const noisy = Array.from(
      { length: 2000 }, () => synapse.voltageOf(0, 0, synapse.TRIAL, random.normal)[200] + 50);
    const spread = Math.sqrt(noisy.reduce((sum, v) => sum + v * v, 0) / noisy.length);
    const curve = given.lags.map((lag) => synapse.expectedChange(lag, synapse.TRIAL));
    return { found, curve, mean, near: near.length, spread };"""
    lags = np.linspace(-40, 40, 41)
    answers = in_browser(page, script, V=V, lags=lags)
    found = np.array(answers["found"], dtype=float)
    expected = np.stack([nearest_spike(V, trial), weight_change(V, trial)], axis=1)
    assert np.isfinite(expected).all(axis=1).sum() > 20
    assert np.allclose(found, expected, atol=1e-3, equal_nan=True)
    assert np.allclose(answers["curve"], expected_curve(lags, trial), atol=1e-6)
    # the mean of n slopes near one lag has a standard error below 0.5 / sqrt(n)
    standard_error = 0.5 / np.sqrt(answers["near"])
    assert abs(answers["mean"] - expected_curve(np.array([10.0]), trial)[0]) < 4 * standard_error
    assert abs(answers["spread"] / trial.noise - 1) < 4 / np.sqrt(2 * 2000)


# ---- the page itself -----------------------------------------------------------------------------

USE = """
const $ = (id) => document.getElementById(id);
const wait = (test) => new Promise((resolve) => {
  const look = () => (test() ? resolve() : setTimeout(look, 20));
  look();
});
const words = (id) => $(id).textContent;
const press = (id, key, shiftKey = false) =>
  $(id).dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey, cancelable: true }));
await wait(() => words("draw-status") && words("dream-status") && words("explain-status"));
"""


def test_the_page_opened_as_a_file_can_be_used(browser, folder):
    "Without a server: the worker starts, each part shows its result, the keyboard draws."
    script = """
    const before = words("draw-status");
    const round = $("draw-round");
    await wait(() => round.value === "20");
    $("draw-status").textContent = "";
    press("draw-input", "ArrowLeft");
    press("draw-input", " ");
    press("draw-input", "ArrowUp", true);
    await wait(() => words("draw-status"));
    const after = words("draw-status");
    const dreams = new Set([words("dream-status")]);
    document.querySelector("input[name=dream-prior][value=mixture]").click();
    await wait(() => !dreams.has(words("dream-status")));
    $("dream-step").value = 45;
    $("dream-step").dispatchEvent(new Event("input"));
    $("explain-dreamt").click();
    $("explain-unit").value = 7;
    $("explain-unit").dispatchEvent(new Event("change"));
    const followed = words("explain-status");
    $("synapse-many").click();
    const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
    return { before, after, followed, requests, synapse: words("synapse-status") };"""
    with headless.Page(folder, "index.html", browser, as_file=True) as page:
        found = page.run(USE + script)
        server = page.server.address("")
    assert found["before"].startswith("20 rounds for 392 missing pixels took")
    # the rubber has a radius of about two pixels: it takes some of the visible half
    missing = int(found["after"].split()[3])
    assert 392 + 5 <= missing <= 392 + 40
    assert found["followed"].startswith("Unit 7: the pull goes from")
    assert "random pairs of spikes" in found["synapse"]
    asked = [name for name in found["requests"] if not name.startswith(("file:", "blob:", server))]
    assert asked == [], "the page asks another server"


def test_the_page_weighs_less_than_six_megabytes(tmp_path):
    play.write(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < play.MOST_BYTES


def test_networks_that_differ_are_not_packed_as_one(monkeypatch):
    def load(name):
        return load_trained("supervised" if name == "mixture" else name)

    monkeypatch.setattr(play, "load_trained", load)
    with pytest.raises(play.PlayError, match="differ in f1.W"):
        play.arrays()
