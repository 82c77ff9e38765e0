"""What travels with the package: trained networks and real digits, whole and as they are described."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from whole_runs import biolearn as run_biolearn

import biolearn
from biolearn.cli.pictures import braille, braille_sheet
from biolearn.core import data, shipped
from biolearn.core.checkpoints import ALGORITHM, load_model, save_model
from biolearn.core.data import load_dataset, load_mnist_small, mnist_folder
from biolearn.core.generation import generate
from biolearn.core.inference import Inference, infer
from biolearn.core.model import encode, init_model, log_p_joint
from biolearn.core.rng import Random
from biolearn.core.shipped import half_precision, load_trained, shipped_networks
from biolearn.extensions.supervised import predict
from biolearn.reproduction import verify
from biolearn.reproduction.profiles import PROFILES, get_profile
from biolearn.reproduction.runs import ReproduceError, run_key, trained_run
from biolearn.reproduction.verify import TOLERANCES, Verification, compare_networks, same_network

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = shipped_networks()
SHAPES = {
    "paper": (784, 1000, 100),
    "mixture": (784, 1000, 100),
    "supervised": (784, 1000, 10),
}
needs_mnist = pytest.mark.skipif(mnist_folder() is None, reason="MNIST is not here")


# ---- digits --------------------------------------------------------------------------------------


def test_the_small_mnist_is_balanced_and_small():
    small = load_mnist_small()
    for labels, n in zip(
        (small.train_labels, small.valid_labels, small.test_labels), (200, 50, 50)
    ):
        assert np.bincount(labels).tolist() == [n] * 10
    assert small.image_shape == (28, 28) and small.train.shape == (2000, 784)
    assert sum(path.stat().st_size for path in data.SMALL_FOLDER.iterdir()) < 1e6


@needs_mnist
def test_the_small_mnist_is_the_first_of_each_class():
    small, whole = load_dataset("mnist-small"), load_dataset("mnist")
    for split in ("train", "valid", "test"):
        x, y = getattr(whole, split), getattr(whole, f"{split}_labels")
        mine, labels = getattr(small, split), getattr(small, f"{split}_labels")
        for c in range(10):
            n = (labels == c).sum()
            assert (mine[labels == c] == x[y == c][:n]).all()


@needs_mnist
def test_the_command_writes_the_same_files_again(tmp_path):
    argv = [sys.executable, "-m", "experiments.mnist_small", "--out", str(tmp_path)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=300)
    for name in data.SMALL_FILES:
        written, there = (folder / f"{name}.gz" for folder in (tmp_path, data.SMALL_FOLDER))
        assert gzip.decompress(written.read_bytes()) == gzip.decompress(there.read_bytes())


@pytest.mark.parametrize(
    "folder, load", [("SMALL_FOLDER", load_mnist_small), ("_DIGITS_FOLDER", data.load_digits)]
)
def test_damaged_digits_are_refused(folder, load, tmp_path, monkeypatch):
    shutil.copytree(getattr(data, folder), tmp_path / "small")
    labels = tmp_path / "small" / "labels-idx1-ubyte.gz"
    bytes_there = bytearray(gzip.decompress(labels.read_bytes()))
    bytes_there[-1] ^= 1
    labels.write_bytes(gzip.compress(bytes(bytes_there)))
    monkeypatch.setattr(data, folder, tmp_path / "small")
    with pytest.raises(data.DataError, match="labels-idx1-ubyte.gz is damaged: install"):
        load()


# ---- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_every_network_is_what_its_account_says(name):
    about, model = NETWORKS[name], load_trained(name)
    how = about["trained_with"]
    assert model.sizes == SHAPES[name] and (model.prior is None) == (name == "supervised")
    assert about["algorithm"] == ALGORITHM and about["trained_seed"] == 0 and about["licence"]
    assert len(about["history"]) == how.get("recipe", how.get("config"))["epochs"]
    assert (shipped.SHIPPED_FOLDER / about["file"]).stat().st_size < 5e6
    if about["profile"]:
        profile = get_profile(name)
        assert about["key"] == run_key(profile, 0, Random(0).backend)


def test_what_was_rounded_is_all_there_is():
    model = load_trained("paper")
    assert model.pairs[0].f.W.dtype == np.float32
    assert same_network(model, model)
    changed = load_trained("paper")
    changed.pairs[1].g.b[3] += 0.01
    assert not same_network(model, changed)
    bare = replace(model, prior=None)
    assert not same_network(model, bare) and not same_network(bare, model)


def test_half_precision_keeps_the_prior_and_halves_the_file(tmp_path):
    model = load_trained("mixture")
    save_model(tmp_path / "whole.safetensors", replace(model, prior=None))
    save_model(tmp_path / "half.safetensors", half_precision(replace(model, prior=None)))
    whole, half = (os.path.getsize(tmp_path / f"{n}.safetensors") for n in ("whole", "half"))
    assert half < 0.51 * whole
    assert half_precision(model).prior is model.prior
    again = load_model(tmp_path / "half.safetensors")
    assert (again.pairs[0].f.W == model.pairs[0].f.W).all()


def test_the_precision_costs_less_than_another_seed_would():
    for name, about in NETWORKS.items():
        for what, value in about["scores"]["float32"].items():
            assert abs(value - about["scores"]["float16"][what]) < TOLERANCES[what], (name, what)


def test_the_tolerances_are_those_of_five_seeds():
    targets = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))["targets"]
    sd = {row["name"]: row["sd"] for row in targets}
    three = 3 * 2**0.5
    assert TOLERANCES["Parzen, GENERATE (nats)"] == pytest.approx(
        three * sd["GENERATE, Parzen log-likelihood (nats)"], abs=0.05
    )
    assert TOLERANCES["Parzen, directed model (nats)"] == pytest.approx(
        three * sd["directed sampling, the same (nats)"], abs=0.05
    )
    assert TOLERANCES["digits that rise (%)"] == pytest.approx(
        300 * 2**0.5 * sd["share of single digits that rise"], abs=0.05
    )


def test_the_network_that_reads_reads():
    small = load_mnist_small()
    wrong = np.mean(predict(load_trained("supervised"), small.test) != small.test_labels)
    stated = NETWORKS["supervised"]["scores"]["float16"]["test digits misread (%)"] / 100
    assert wrong < stated + 4 * (stated / 500) ** 0.5


def test_a_damaged_or_unknown_network_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="name must be one of"):
        load_trained("papre")
    shutil.copytree(shipped.SHIPPED_FOLDER, tmp_path / "networks")
    path = tmp_path / "networks" / "paper.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", tmp_path / "networks")
    with pytest.raises(ValueError, match="paper.safetensors is damaged: install biolearn again"):
        biolearn.load_trained()


# ---- the profile ---------------------------------------------------------------------------------


def test_a_shipped_run_trains_nothing_and_says_where_its_network_is_from(tmp_path):
    run = trained_run("shipped", seed=4, device="cpu", out=tmp_path)
    assert run.key.startswith("shipped-seed4-cpu-") and not list(tmp_path.iterdir())
    assert (
        run.made_by["command"] == "biolearn train --profile paper"
        and run.dataset.name == "mnist-small"
    )
    assert same_network(run.model, load_trained("paper")) and run.file.name == "paper.safetensors"
    x = run.dataset.test[:3]
    assert (encode(run.model, x)[1] == encode(load_trained("paper"), x)[1]).all()


@pytest.mark.parametrize("wrong", [{"delta": 0.2}, {"hidden": [30, 20]}, {"epochs": 1}])
def test_a_shipped_network_cannot_be_asked_for_with_other_settings(wrong, tmp_path):
    with pytest.raises(ReproduceError, match="was trained before, so only n_samples, sigma"):
        trained_run("shipped", device="cpu", out=tmp_path, overrides=wrong)
    drawn = trained_run("shipped", device="cpu", out=tmp_path, overrides={"n_samples": 50})
    assert drawn.profile.n_samples == 50


def test_another_network_in_the_package_is_another_run(monkeypatch):
    backend = Random(0).backend
    before = run_key("shipped", 0, backend)
    told = {"paper": NETWORKS["paper"] | {"sha256": "0" * 64}}
    monkeypatch.setattr("biolearn.reproduction.runs.shipped_networks", lambda: told)
    assert run_key("shipped", 0, backend) != before


# ---- verify-trained ------------------------------------------------------------------------------


def test_verification_says_identical_equal_or_not(monkeypatch):
    network = load_trained("paper")
    same = compare_networks("paper", network, load_trained("paper"))
    assert same.identical and same.holds and "bit for bit" in str(same)
    scores = iter([{"digits that rise (%)": 99.0}, {"digits that rise (%)": 97.0}])
    monkeypatch.setattr(verify, "network_scores", lambda *a: next(scores))
    monkeypatch.setattr(verify, "load_dataset", lambda name: None)
    other = init_model(network.sizes, network.units, rng=0)
    found = compare_networks("paper", network, replace(other, prior=network.prior))
    assert not found.identical and not found.holds and "NOT equal" in str(found)
    for shipped_score, again in ((1.0, 1.5), (1.5, 1.0)):  # better or worse, it is as far away
        assert Verification("paper", False, {"x": (shipped_score, again, 0.6)}).holds
        assert not Verification("paper", False, {"x": (shipped_score, again, 0.4)}).holds


def test_the_digits_that_rise_are_told_in_per_cent():
    model, small = load_trained("paper"), load_mnist_small()
    found = verify.network_scores(model, small, replace(get_profile("paper"), n_samples=50))
    settled = infer(model, small.test, Inference(n_steps=20))
    rising = log_p_joint(model, settled) > log_p_joint(model, encode(model, small.test))
    assert found["digits that rise (%)"] == pytest.approx(100 * np.mean(rising), abs=0.4)
    assert rising.mean() > 0.9 and {*found, "test digits misread (%)"} == set(TOLERANCES)


def test_verifying_trains_again_with_the_settings_that_are_told(monkeypatch):
    asked = {}

    def trained(profile, **how):
        asked.update(profile=profile, **how)
        return type("Run", (), {"model": load_trained("mixture")})

    monkeypatch.setattr(verify, "trained_run", trained)
    found = verify.verify_trained("mixture", device="cpu", out="here")
    assert found.identical and asked == dict(profile="mixture", seed=0, device="cpu", out="here")


def test_the_settings_of_the_labels_are_those_of_the_experiment(monkeypatch):
    from experiments.supervised import COMPETING, config_of

    seen = {}

    def learn(data, rule, layers, config, **how):
        seen.update(rule=rule, layers=layers, config=config, **how)
        return load_trained("supervised"), [], None

    monkeypatch.setattr(verify, "learn_labels", learn)
    monkeypatch.setattr(verify, "load_dataset", lambda name: None)
    assert verify.verify_trained("supervised", device="cpu").identical
    assert seen["config"] == config_of(1, COMPETING["epochs"], COMPETING["rate_top"])
    assert {n: seen[n] for n in COMPETING["labels"]} == COMPETING["labels"]


# ---- from the terminal ---------------------------------------------------------------------------


def test_the_first_sample_needs_no_training(tmp_path, monkeypatch):
    from biolearn.cli import networks
    from biolearn.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "output_path", lambda out, profile: tmp_path / "figures")
    assert main(["sample", "-n", "20", "--to", "x.npy", "--device", "cpu"]) == 0
    x = np.load("x.npy")
    rng = Random(0).stream("command", "samples")
    from biolearn.core.generation import GENERATE

    assert x.shape == (20, 784)
    assert np.allclose(
        x, generate(load_trained("paper"), 20, inference=GENERATE, rng=rng), atol=1e-5
    )


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_ten_digits_appear_on_a_screen_and_nowhere_else(tmp_path, monkeypatch):
    from biolearn.cli.main import main

    for stream, signs in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        to = str(tmp_path / f"{signs}.npy")
        assert main(["sample", "--model", "paper", "-n", "12", "--to", to, "--device", "cpu"]) == 0
        lines = [
            line for line in stream.getvalue().splitlines() if re.search("[\u2801-\u28ff]", line)
        ]
        assert bool(lines) == signs
    x = np.load(tmp_path / "True.npy")[:10].reshape(10, 28, 28)
    # the oracle counts dots: every sign has one bit for each pixel with ink
    shown = [ord(sign) - 0x2800 for line in "".join(braille_sheet(x)).splitlines() for sign in line]
    dots = sum(bin(bits).count("1") for bits in shown if 0 < bits < 256)
    assert dots == (x > 1 / 3).sum()
    assert max(map(len, braille_sheet(x).splitlines())) <= 80


@pytest.mark.parametrize("side, lines, signs", [(28, 7, 14), (8, 6, 12), (30, 8, 15), (1, 7, 14)])
def test_a_picture_of_any_size_becomes_lines_of_signs(side, lines, signs):
    made = braille(np.ones((side, side)))
    assert (len(made), {len(line) for line in made}) == (lines, {signs})


def test_what_was_asked_for_is_not_replaced_by_what_came_along(tmp_path):
    for argv in (
        ["--profile", "quick", "--out", "here"],
        ["--out", "here"],
        ["--profile", "paper"],
    ):
        done = run_biolearn("sample", "--seed", "77", *argv, cwd=tmp_path)
        assert done.returncode == 1 and "--model (paper and mixture came with" in done.stderr
    assert not list(tmp_path.glob("*.png"))


def test_a_network_in_the_package_has_a_name(tmp_path):
    done = run_biolearn("sample", "--model", "mixture", "-n", "4", "--to", "m.npy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "m.npy").shape == (4, 784)
    done = run_biolearn("sample", "--model", "supervised", cwd=tmp_path)
    assert done.returncode == 1 and "no top prior" in done.stderr and "labels" in done.stderr
    (tmp_path / "paper").write_text("mine")
    done = run_biolearn("sample", "--model", "paper", cwd=tmp_path)
    assert done.returncode == 1 and "paper is not a saved biolearn model" in done.stderr


def test_the_shipped_profile_is_for_figures_alone(tmp_path):
    assert "shipped" in PROFILES
    for name in ("train", "experiments", "sample"):
        done = run_biolearn(name, "--profile", "shipped", cwd=tmp_path)
        assert done.returncode == 2 and "invalid choice" in done.stderr
