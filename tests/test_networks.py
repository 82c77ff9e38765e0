"""The commands about networks: whose files they touch, what they refuse before any work, and that
a network is used as it was trained.
"""

import errno
import gzip
import hashlib
import json
import os
import struct
import subprocess
import sys
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import biolearn.cli.main as main
import biolearn.cli.networks as networks
import biolearn.core.checkpoints as checkpoints
import biolearn.core.data as data
import biolearn.plotting as plotting
from biolearn.core.arrays import to_numpy
from biolearn.core.checkpoints import load_model, read_notes, save_model
from biolearn.core.data import DATASETS, load_digits
from biolearn.core.generation import generate, inpaint
from biolearn.core.inference import Inference
from biolearn.core.model import init_model, weights_of
from biolearn.core.priors import TopPrior
from biolearn.core.rng import Random
from biolearn.reproduction.profiles import PROFILES
from biolearn.theory.stability import starting_noise

ROOT = Path(__file__).resolve().parent.parent
DIGITS = load_digits().train[:60].reshape(-1, 8, 8)
TRAIN = ["train", "--data", "mine.npy", "--epochs", "2", "--hidden", "12,5", "--device", "cpu"]
SAVE = ["--save", "m.safetensors"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    "Every test in a folder of its own, with some pictures in it."
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", DIGITS)
    return tmp_path


@pytest.fixture
def untrained(monkeypatch):
    "Training is a failure of the test."
    for name in ("fit", "trained_run"):
        monkeypatch.setattr(networks, name, lambda *a, **k: pytest.fail("it was trained first"))


def model(prior=True):
    "An untrained network of 8x8 pictures."
    made = init_model((64, 12, 5), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    top = TopPrior(np.full(5, 0.5, "f4"), np.full(5, 0.1, "f4"))
    return replace(made, prior=top) if prior else made


def everything(folder):
    "All files below a folder with their contents."
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- whose folder is it --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["files", "empty", "file", "link", "dangling", "checkpoints"])
def test_what_lies_where_the_state_of_training_goes_is_refused_and_kept(
    kind, here, command, untrained
):
    place = here / "m.checkpoint"
    if kind == "file":
        place.write_text("mine")
    elif kind in ("link", "dangling"):
        (here / "elsewhere").mkdir()
        place.symlink_to(here / ("elsewhere" if kind == "link" else "nowhere"))
    else:
        place.mkdir()
    if kind in ("files", "checkpoints"):
        name = "thesis.txt" if kind == "files" else "epoch-00001.safetensors"
        (place / name).write_text("years of work")
    before = everything(here)
    code, printed, errors = command(*TRAIN, *SAVE)
    assert code == 1 and not printed and "m.checkpoint is in the way" in errors
    assert everything(here) == before and os.path.lexists(place)


def test_a_finished_training_leaves_nothing_but_the_model(here, command):
    assert command(*TRAIN, *SAVE)[0] == 0
    assert sorted(p.name for p in here.iterdir()) == ["m.safetensors", "mine.npy"]


@pytest.mark.parametrize("asked", [[], ["--profile", "quick"]])
def test_the_noise_suits_the_pictures_unless_a_profile_is_named(asked, here, command):
    dim = DIGITS.reshape(60, -1) / 2
    np.save("mine.npy", dim.reshape(-1, 8, 8))
    _, _, errors = command(*TRAIN, *SAVE, *asked)
    noise = read_notes(here / "m.safetensors")["recipe"]["noise"]
    assert (f"noise on the pixels {noise[0]} falling to" in errors) == (not asked)
    # the training pictures are 48 of the 60
    assert noise[0] == 0.22 if asked else abs(noise[0] / starting_noise(dim) - 1) < 0.2
    assert starting_noise(dim) < 0.15


def test_an_interrupted_training_goes_on_in_its_folder_and_removes_only_its_own(
    here, command, monkeypatch
):
    def killed(*argv, checkpoint, **more):
        checkpoint.mkdir(exist_ok=True)
        (checkpoint / "lock").touch()
        (checkpoint / ".epoch-half.safetensors").touch()
        (checkpoint / "notes.txt").write_text("learning rate was fine")
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(networks, "fit", killed)
        assert command(*TRAIN, *SAVE)[0] == 130
    code, _, errors = command(*TRAIN, *SAVE)
    assert code == 0 and "m.checkpoint stays" in errors
    left = everything(here / "m.checkpoint")
    assert left.pop("notes.txt") == b"learning rate was fine" and set(left) == {
        "made-by-biolearn-train.txt"
    }


@pytest.fixture
def cut_off(here, command, monkeypatch):
    "A training that was stopped between the model's last step and the clearing up."

    def stopped(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(networks, "_release_folder", stopped)
        assert command(*TRAIN, *SAVE)[0] == 130
    assert (here / "m.safetensors").is_file() and any((here / "m.checkpoint").glob("epoch-*"))


@pytest.mark.parametrize("cleared", ["nothing", "checkpoints"])
def test_a_model_that_was_finished_before_a_kill_is_done(
    cut_off, cleared, here, command, untrained
):
    kept = (here / "m.safetensors").read_bytes()
    for file in (here / "m.checkpoint").glob("epoch-*") if cleared == "checkpoints" else ():
        file.unlink()
    code, printed, errors = command(*TRAIN, *SAVE)
    assert code == 0 and printed == "m.safetensors\n" and "2 epochs; log p(x,h)" in errors
    assert sorted(p.name for p in here.iterdir()) == ["m.safetensors", "mine.npy"]
    assert (here / "m.safetensors").read_bytes() == kept
    code, _, errors = command(*TRAIN, *SAVE)
    assert code == 1 and "exists already" in errors


@pytest.mark.parametrize(
    "other",
    [["--seed", "1"], ["--epochs", "3"], ["--hidden", "12,6"], ["--ink", "bright"], "pictures"],
)
def test_a_finished_model_of_something_else_is_not_taken_for_it(
    cut_off, other, here, command, untrained
):
    if other == "pictures":
        np.save("mine.npy", DIGITS[::-1])
    before = everything(here)
    code, printed, errors = command(*TRAIN, *SAVE, *(other if other != "pictures" else ()))
    assert code == 1 and not printed and "m.safetensors exists already" in errors
    assert everything(here) == before


def test_a_foreign_file_beside_an_interrupted_training_stays(cut_off, here, command, untrained):
    (here / "m.safetensors").write_text("my thesis")
    before = everything(here)
    code, _, errors = command(*TRAIN, *SAVE)
    assert code == 1 and "m.safetensors is not a saved biolearn model" in errors
    assert everything(here) == before


def test_what_a_kill_leaves_of_a_folder_in_the_making_goes_with_the_next_call(
    here, command, monkeypatch
):
    def stopped(made, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(networks, "move_folder", stopped)
        assert command(*TRAIN, *SAVE)[0] == 130
    (left,) = here.glob(".m.checkpoint-*")
    for name, kept in (
        (".m.checkpoint-mine", "notes.txt"),
        (".m.checkpoint-full", "epoch-00001.safetensors"),
    ):
        (here / name).mkdir()
        (here / name / kept).write_text("years of work")
    (here / ".m.checkpoint-full" / networks._MARKER).touch()
    (here / ".m.checkpoint-file").touch()
    assert command(*TRAIN, *SAVE)[0] == 0 and not left.exists()
    assert sorted(p.name for p in here.iterdir()) == [
        ".m.checkpoint-file",
        ".m.checkpoint-full",
        ".m.checkpoint-mine",
        "m.safetensors",
        "mine.npy",
    ]
    assert len(everything(here / ".m.checkpoint-full")) == 2


def test_a_folder_that_a_neighbour_took_for_a_leftover_is_made_again(here, command, monkeypatch):
    real, taken = networks.move_folder, []

    def late(made, folder):
        if not taken:
            taken.append(made)
            networks._release_folder(made)
        real(made, folder)

    monkeypatch.setattr(networks, "move_folder", late)
    assert command(*TRAIN, *SAVE)[0] == 0 and taken
    assert sorted(p.name for p in here.iterdir()) == ["m.safetensors", "mine.npy"]


def test_where_no_folder_can_be_renamed_training_goes_on_with_a_line(here, command, monkeypatch):
    def refused(rename):
        def rename_file(source, target):
            if Path(source).is_dir():
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            rename(source, target)

        return rename_file

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, refused(getattr(os, name)))
    code, printed, errors = command(*TRAIN, *SAVE)
    assert code == 0 and printed == "m.safetensors\n"
    assert "m.checkpoint: its files are copied one by one; " in errors
    assert sorted(p.name for p in here.iterdir()) == ["m.safetensors", "mine.npy"]


# ---- targets: refused before, never overwritten after --------------------------------------------


@pytest.mark.parametrize(
    "name, code, said",
    [
        ("no/m.safetensors", 1, "the folder no does not exist"),
        ("m.txt", 2, "must end in .safetensors"),
        ("m" * 236 + ".safetensors", 2, "is too long"),
        ("s3://bucket/m.safetensors", 2, "is an address"),
        ("folder.safetensors", 1, "is a folder"),
        ("there.safetensors", 1, "exists already"),
        ("dangling.safetensors", 1, "exists already"),
        pytest.param(
            "/proc/m.safetensors",
            1,
            "nothing can be written into this folder",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc"),
        ),
    ],
)
@pytest.mark.parametrize("data", [[], ["--data", "mine.npy"]])
def test_a_model_that_could_not_be_written_is_refused_before_the_training(
    name, code, said, data, here, command, untrained
):
    (here / "folder.safetensors").mkdir()
    (here / "there.safetensors").write_text("mine")
    (here / "dangling.safetensors").symlink_to(here / "nowhere")
    before = everything(here)
    got, printed, errors = command("train", *data, "--save", name)
    assert (got, printed) == (code, "") and said in errors.splitlines()[-1]
    assert everything(here) == before


def test_a_folder_without_the_right_to_write_is_noticed_before(here, command, monkeypatch):
    def refused(*argv, **more):
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(main.tempfile, "TemporaryFile", refused)
    for argv in (["train", *SAVE], ["sample"], ["inpaint", "mine.npy", "--hide", "top"]):
        code, _, errors = command(*argv)
        assert code == 1 and "nothing can be written into this folder (Permission denied)" in errors


def test_a_file_that_appears_during_the_training_is_left_and_the_training_is_not_lost(
    here, command, monkeypatch
):
    fit = networks.fit

    def slow(*argv, **more):
        found = fit(*argv, **more)
        (here / "m.safetensors").write_text("somebody else's")
        return found

    with monkeypatch.context() as m:
        m.setattr(networks, "fit", slow)
        code, printed, errors = command(*TRAIN, *SAVE)
    assert code == 1 and not printed and "has appeared while this command ran" in errors
    assert (here / "m.safetensors").read_text() == "somebody else's"
    assert not list(here.glob(".m*")), "a temporary file stayed"
    seen = []
    monkeypatch.setattr(
        networks, "fit", lambda *a, **k: seen.append(1) or fit(*a, **k, on_epoch=seen.append)
    )
    assert command(*TRAIN, *SAVE, "--force")[0] == 0 and seen == [1]  # not one epoch again
    assert load_model("m.safetensors").sizes == (64, 12, 5)


def test_samples_that_appear_meanwhile_are_left(here, command, monkeypatch):
    save_model("m.safetensors", model())
    draw = networks.generate

    def slow(*argv, **more):
        (here / "x.npy").write_text("somebody else's")
        return draw(*argv, **more)

    monkeypatch.setattr(networks, "generate", slow)
    code, _, errors = command("sample", "--model", "m.safetensors", "-n", "2", "--to", "x.npy")
    assert code == 1 and "x.npy has appeared" in errors
    assert (here / "x.npy").read_text() == "somebody else's"


def test_two_results_do_not_go_into_one_file(here, command):
    save_model("m.safetensors", model())
    code, _, errors = command("sample", "--to", "a.npy", "--to", "./a.npy")
    assert code == 2 and "two results would be written to" in errors
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("a.png")
    argv = ["--hide", "top", "--model", "m.safetensors", "--to", "b.png", "--strip", "b.png"]
    assert command("inpaint", "a.png", *argv)[0] == 2


@pytest.mark.parametrize("suffix", [".NPY", ".Png", ".SVG"])
def test_suffixes_in_capitals_are_written_as_they_were_asked_for(suffix, here, command):
    save_model("M.SAFETENSORS", model())
    code, printed, errors = command(
        "sample", "--model", "M.SAFETENSORS", "-n", "2", "--to", f"x{suffix}"
    )
    assert (code, printed, errors) == (0, f"x{suffix}\n", "")
    assert {p.name for p in here.iterdir()} == {"M.SAFETENSORS", "mine.npy", f"x{suffix}"}


def test_a_model_and_a_completed_picture_in_capitals(here, command):
    assert command(*TRAIN, "--save", "M.SAFETENSORS")[0] == 0
    Image.fromarray(np.round(255 * DIGITS[0]).astype(np.uint8)).save("a.png")
    argv = ["--hide", "top", "--model", "M.SAFETENSORS", "--rounds", "2"]
    assert command("inpaint", "a.png", *argv, "--to", "B.PNG", "--strip", "C.SVG")[0] == 0
    assert Image.open("B.PNG").size == (8, 8) and "<svg" in Path("C.SVG").read_text()
    assert {p.name for p in here.iterdir()} == {"M.SAFETENSORS", "mine.npy", "a.png"} | {
        "B.PNG",
        "C.SVG",
    }


# ---- a network is used as it was trained ---------------------------------------------------------


def saved(path="m.safetensors", prior=True, **notes):
    save_model(path, model(prior), **notes)
    return ["--model", path, "--device", "cpu"]


@pytest.mark.parametrize("name, rounds", [("quick", 3), ("paper", 3), ("mixture", 0)])
def test_sample_and_evaluate_take_the_rounds_of_the_profile(name, rounds, command):
    argv = saved(profile=name, data="digits")
    assert command("sample", *argv, "-n", "3", "--to", "x.npy")[0] == 0
    expected = generate(model(), 3, rounds=rounds, rng=Random(0).stream("command", "samples"))
    assert np.array_equal(np.load("x.npy"), expected)
    other = 3 - rounds
    assert command("sample", *argv, "-n", "3", "--rounds", other, "--to", "y.npy")[0] == 0
    assert not np.array_equal(np.load("y.npy"), expected)


def test_evaluate_scores_the_rounds_of_the_profile(command):
    found = {}
    for name in ("quick", "mixture"):
        argv = saved(f"{name}.safetensors", profile=name, data="digits")
        code, printed, errors = command("evaluate", *argv, "--samples", "40", "--json")
        assert code == 0, errors
        found[name] = json.loads(printed)
    assert found["quick"]["rounds"] == 3 and found["mixture"]["rounds"] == 0
    mixture = found["mixture"]["parzen"]
    assert mixture["GENERATE"] == mixture["directed model"]
    assert found["quick"]["parzen"]["GENERATE"] != found["quick"]["parzen"]["directed model"]


@pytest.mark.parametrize("nested", [False, True])
def test_the_recipe_in_the_notes_is_that_of_sampling_and_in_painting(nested, command):
    recipe = {"n_steps": 4, "delta": 0.3, "alpha": 0.2}
    argv = saved(recipe={"inference": recipe} if nested else recipe, image_shape=(8, 8))
    assert command("sample", *argv, "-n", "3", "--to", "x.npy")[0] == 0
    chain = Inference(4, 0.3, alpha=0.3)  # GENERATE has an alpha of its own
    rng = Random(0).stream("command", "samples")
    assert np.array_equal(np.load("x.npy"), generate(model(), 3, inference=chain, rng=rng))
    pixels = np.round(255 * DIGITS[0]).astype(np.uint8)
    Image.fromarray(pixels).save("a.png")
    options = ["--hide", "right", "--rounds", "2", "--ink", "bright", "--to", "b.png"]
    assert command("inpaint", "a.png", *options, *argv)[0] == 0
    visible = np.arange(64) % 8 < 4
    x = (pixels / np.float32(255)).reshape(1, 64).astype("f4")
    rng = Random(0).stream("command", "inpaint")
    inference = Inference(4, 0.3, 0.2)
    filled = inpaint(model(), x, visible, rounds=2, inference=inference, rng=rng)
    made = np.asarray(Image.open("b.png")).reshape(64)
    assert np.abs(made - 255 * to_numpy(filled)[0])[~visible].max() <= 0.51


def test_the_mixture_of_a_profile_is_fitted_on_pictures_of_ones_own(command, monkeypatch):
    monkeypatch.setitem(PROFILES, "mixture", replace(PROFILES["mixture"], components=7))
    assert command(*TRAIN, *SAVE, "--profile", "mixture")[0] == 0
    assert load_model("m.safetensors").prior.mean.shape == (7, 5)


@pytest.mark.parametrize("hidden", ["9", "9,8,7", "9,8,7,6"])
def test_another_depth_takes_the_recipe_along(hidden, command):
    argv = ["train", "--data", "mine.npy", "--epochs", "1", "--device", "cpu", "--hidden", hidden]
    code, _, errors = command(*argv, *SAVE)
    widths = tuple(int(n) for n in hidden.split(","))
    found = load_model("m.safetensors")
    assert code == 0 and found.sizes == (64, *widths), errors
    assert found.units == ("sigmoid", *("softplus",) * (len(widths) - 1), "sigmoid")
    recipe = read_notes("m.safetensors")["recipe"]
    middle = [0.1] * (len(widths) - 1)
    assert recipe["noise"] == [0.22, *middle, "spikes"]
    assert recipe["rate_f"] == [2e-4, *[6e-4] * (len(widths) - 1)]
    assert recipe["rate_g"] == [3e-3] * len(widths)


# ---- notes are checked before they are used ------------------------------------------------------


def test_notes_of_another_kind_are_passed_over_with_a_word(command):
    notes = dict(recipe="lab book", image_shape=[8, 9], data=3, ink="red", profile=["x"], mine=1)
    argv = saved(**notes)
    code, printed, errors = command("sample", *argv, "-n", "3", "--to", "x.npy")
    assert code == 0 and printed == "x.npy\n"
    assert errors.count("passed over") == 5 and "recipe='lab book'" in errors
    expected = generate(model(), 3, rng=Random(0).stream("command", "samples"))
    assert np.array_equal(np.load("x.npy"), expected)


@pytest.mark.parametrize(
    "recipe, said",
    [
        ({"n_steps": 10_000_000}, "n_steps must be at most 10000, got 10000000"),
        ({"n_steps": -1}, "n_steps"),
        ({"n_steps": "many"}, "n_steps must be a whole number"),
        ({"n_steps": 10**400}, "n_steps must be at most"),
        ({"delta": None}, "delta"),
        ({"delta": [1]}, "delta"),
        ({"alpha": 7}, "alpha"),
        ({"direction": "up"}, "direction"),
    ],
)
def test_a_recipe_in_notes_that_cannot_be_meant_is_refused_with_the_files_name(
    recipe, said, command
):
    code, printed, errors = command("sample", *saved(recipe=recipe), "--to", "x.npy")
    assert code == 1 and not printed and errors.count("\n") == 1
    assert "m.safetensors: the recipe in its notes cannot be used" in errors and said in errors


@pytest.mark.parametrize("notes", ["not JSON", "[1]", "[" * 100_000, "3"])
def test_damaged_notes_are_told_with_the_files_name(notes, command):
    "Under a seal that is whole, as somebody else's program may write it."
    units = json.dumps(model().units)
    told = dict(format=checkpoints._MODEL, units=units, notes=notes)
    checkpoints._write_arrays("m.safetensors", weights_of(model()), **told)
    code, _, errors = command("sample", "--model", "m.safetensors", "--to", "x.npy")
    assert code == 1 and "m.safetensors: the notes in its header are damaged" in errors


def test_a_network_without_a_prior_says_that_its_training_was_not_finished(command):
    for what in (["sample", "--to", "x.npy"], ["evaluate"]):
        code, _, errors = command(*what, *saved(prior=False))
        assert code == 1 and "its training was not finished" in errors


# ---- what was asked for --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "mnist", "kmnist"])
def test_a_folder_called_like_a_data_set_is_not_passed_over(name, here, command, untrained):
    (here / name).mkdir()
    for i, digit in enumerate(DIGITS):
        Image.fromarray(np.round(255 * digit).astype(np.uint8)).save(here / name / f"{i:02}.png")
    code, printed, errors = command("train", "--data", name, *SAVE)
    assert code == 2 and not printed and f"say ./{name} for your own" in errors


def test_a_folder_called_digits_is_trained_on_by_its_path(here, command):
    (here / "digits").mkdir()
    for i, digit in enumerate(DIGITS):
        Image.fromarray(np.round(255 * digit).astype(np.uint8)).save(here / "digits" / f"{i}.png")
    argv = ["train", "--data", "./digits", *TRAIN[3:], *SAVE]
    code, _, errors = command(*argv)
    assert code == 0 and "48 train, 0 valid, 12 test" in errors and "60 PNGs" in errors
    assert read_notes("m.safetensors")["data"] == str(here / "digits")


def stand_in(monkeypatch, folder, name):
    "A copy in `folder` of 240 training and 40 test pictures that passes for the data set `name`."
    folder.mkdir()
    rng, files = np.random.default_rng(0), {}
    for i, file in enumerate(data._SOURCES[name].files):
        n = 240 if i < 2 else 40
        x = rng.integers(0, 256, (n, 4, 4), "u1") if i % 2 == 0 else np.arange(n) % 10 + 1
        contents = struct.pack(f">HBB{x.ndim}I", 0, 8, x.ndim, *x.shape) + x.astype("u1").tobytes()
        packed = gzip.compress(contents, mtime=0)
        (folder / f"{file}.gz").write_bytes(packed)
        files[file] = hashlib.sha256(packed).hexdigest(), len(contents)
    source = replace(data._SOURCES[name], files=files, mirrors=())
    monkeypatch.setitem(data._SOURCES, name, source)


@pytest.mark.parametrize("name", ["fashion-mnist", "emnist-letters"])
def test_a_data_set_in_mnists_format_is_trained_on_by_its_name(name, here, command, monkeypatch):
    monkeypatch.setenv("BIOLEARN_DATA", str(here))
    stand_in(monkeypatch, here / name, name)
    code, _, errors = command("train", "--data", name, *TRAIN[3:], *SAVE)
    assert code == 0 and f"Dataset '{name}': 200 train, 40 valid, 40 test" in errors
    assert read_notes("m.safetensors")["data"] == name
    argv = ["evaluate", "--model", "m.safetensors", "--samples", "50", "--device", "cpu", "--json"]
    code, printed, errors = command(*argv)
    assert code == 0 and json.loads(printed)["data"] == name, errors
    assert f"{name:16} {here / name}\n" in command("info")[1]
    assert json.loads(command("info", "--json")[1])["data"]["kmnist"] is None


def test_the_names_of_the_data_sets_are_told(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    for text in (
        command("train", "--help")[1],
        command("train", "--data", "nowhere", *SAVE)[2],
    ):
        assert f"{', '.join(DATASETS)}, a folder of PNGs" in text


def test_where_a_network_was_looked_for_is_told(here, command):
    code, _, errors = command("sample", "--out", "other", "--seed", "3", "--to", "x.npy")
    assert code == 1 and f"in {here / 'other' / 'runs'}" in errors
    assert "`biolearn train --seed 3 --out other`" in errors
    other = here / "other" / "runs" / "quick-seed7-cpu-abc"
    other.mkdir(parents=True)
    (other / "model.safetensors").touch()
    assert "there are others: quick-seed7-cpu-abc" in command("sample", "--out", "other")[2]


@pytest.mark.parametrize("low, high", [(0, 7), (1, 20_000), (0, 2**32 - 1)])
def test_the_first_and_the_last_number_that_a_message_names_are_taken(low, high):
    read = main.whole_number(high, low)
    assert [read(str(low)), read(str(high))] == [low, high]
    for beyond in (low - 1, high + 1):
        with pytest.raises(ArgumentTypeError, match=f"from {low} to {high} is needed"):
            read(str(beyond))


@pytest.mark.parametrize(
    "argv",
    [
        ["sample", "--rounds", "999999999999"],
        ["sample", "-n", "0"],
        ["sample", "-n", "99999999999"],
        ["sample", "--seed", "999999999999"],
        ["inpaint", "a.png", "--rounds", "99999999"],
        ["train", "--epochs", "99999999999999"],
        ["train", "--epochs", "0"],
        ["train", "--hidden", "999999999,5"],
        ["train", "--hidden", "0,5"],
        ["train", "--hidden", "5,"],
        ["train", "--seed", "9" * 5000],
        ["evaluate", "--samples", "1"],
        ["evaluate", "--samples", "99999999999"],
        ["reproduce", "--seed", "99999999999"],
        ["experiments", "--seeds", "0-99999999999"],
        ["experiments", "--seeds", "0-4000000000"],
        ["sweep", "--out", "x", "--seeds", "99999999999"],
        ["sweep", "--out", "x", "--workers", "0"],
        ["sweep", "--out", "x", "--threads", "-3"],
        ["sweep", "--out", "x", "--workers", "9999999"],
    ],
)
def test_numbers_beyond_reason_are_not_understood(argv, here, command):
    before = everything(here)
    code, printed, errors = command(*argv)
    assert code == 2 and not printed and "error: argument" in errors.splitlines()[-1]
    assert len(errors.splitlines()[-1]) < 200 and everything(here) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name")
@pytest.mark.parametrize(
    "argv",
    [
        ["train", "--data", "pipe.npy", *SAVE],
        ["train", "--data", "pipe", *SAVE],
        ["sample", "--model", "pipe"],
        ["inpaint", "pipe.png", "--hide", "top"],
        ["inpaint", "a.png", "--mask", "pipe.png"],
    ],
)
def test_a_pipe_is_not_waited_for(argv, here, command):
    for name in ("pipe", "pipe.npy", "pipe.png"):
        os.mkfifo(here / name)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("a.png")
    code, _, errors = command(*argv)
    assert code == 1 and "is a folder or a pipe" in errors


def test_a_picture_whose_white_is_not_255_is_told(command):
    Image.fromarray(np.round(16 * DIGITS[0]).astype(np.uint8)).save("a.png")
    options = ["--hide", "right", "--rounds", "1", "--to", "b.png"]
    code, _, errors = command("inpaint", "a.png", *options, *saved())
    assert code == 0 and "16 is taken for white" in errors
    made = np.asarray(Image.open("b.png"))[:, :4]
    assert np.abs(made - 255 * DIGITS[0][:, :4]).max() < 9


@pytest.mark.parametrize(
    "n, shown", [(1, [1]), (2, [1, 2]), (7, [1, 2, 5, 7]), (20, [1, 2, 5, 10, 20])]
)
def test_a_strip_ends_with_the_last_round_and_shows_it_once(n, shown, monkeypatch, tmp_path):
    drawn = []
    keep = lambda original, given, rounds, steps, *shape, **more: drawn.append((rounds, steps))
    monkeypatch.setattr(plotting, "inpainting_strips", keep)
    monkeypatch.setattr(plotting, "save_figure", lambda fig, path: None)
    rounds = [np.full((2, 2), float(i)) for i in range(n + 1)]
    networks._draw_strip(tmp_path / "a.png", rounds[0], rounds, np.ones((2, 2), bool))
    ((pictures, steps),) = drawn
    assert steps == shown and pictures[:, 0, 0].tolist() == shown


# ---- streams that cannot show everything ---------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_that_the_encoding_cannot_show_does_not_fail_after_the_work(encoding, here):
    saved(data="digits", profile="quick")
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    argv = [sys.executable, "-m", "biolearn", "evaluate", "--model", "m.safetensors"]
    done = subprocess.run([*argv, "--samples", "20"], env=env, capture_output=True, timeout=120)
    text = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr
    assert "? = 0.2" in text and "in-painting" in text


@pytest.mark.skipif(sys.platform == "win32", reason="sh")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_stream(closed, here):
    saved()
    line = f'"{sys.executable}" -m biolearn sample --model m.safetensors -n 2 --to x.npy {closed}'
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, timeout=120)
    assert done.returncode == 0 and (here / "x.npy").exists(), done.stderr


def test_the_package_runs_as_a_module():
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for argv, code, said in (
        (["--version"], 0, "biolearn "),
        (["nonsense"], 2, "usage: biolearn"),
        (["sample", "--model", "not-here.safetensors"], 1, "biolearn: there is no model file"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "biolearn", *argv],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code and (done.stdout + done.stderr).startswith(said)


def test_a_file_in_the_place_of_a_folder_is_named(here, command, untrained):
    (here / "file").write_text("x")
    for argv in (["train"], ["sample"], ["evaluate"], ["reproduce"], ["experiments"]):
        code, _, errors = command(*argv, "--out", "file")
        assert code == 2 and "file is a file, and a folder is needed" in errors


def test_a_damaged_list_of_a_sweep_is_named(here, command):
    (here / "sets.json").write_text("{")
    code, _, errors = command("sweep", "--out", "x", "--list", "sets.json")
    assert code == 2 and "sets.json" in errors
