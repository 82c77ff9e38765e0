"""The command: what it prints where, its exit codes, its files; and that what is given to it comes
out as it went in.
"""

import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import biolearn.cli.main as main
import biolearn.cli.networks as networks
import biolearn.cli.pictures as pictures
from biolearn.core.arrays import use_device
from biolearn.core.checkpoints import load_model, read_notes, save_model
from biolearn.core.data import MNIST_FILES, DataError, load_digits
from biolearn.core.generation import generate, half_masks, inpaint
from biolearn.core.inference import Inference
from biolearn.core.model import TopPrior, init_model
from biolearn.core.rng import Random
from biolearn.reproduction.profiles import PROFILES

ROOT = Path(__file__).resolve().parent.parent
ENV = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
DIGIT = load_digits().test[3].reshape(8, 8)


def process(
    *argv,
    code="import sys; from biolearn.cli.main import main; sys.exit(main(sys.argv[1:]))",
    **more,
):
    "The command in a process of its own."
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)],
        **{
            **dict(env=ENV, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120),
            **more,
        },
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    "A saved model of 8x8 pictures; untrained, which no test here minds."
    m = init_model((64, 12, 5), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(
        path,
        type(m)(m.pairs, TopPrior(np.full(5, 0.5, "f4"), np.full(5, 0.1, "f4"))),
        image_shape=(8, 8),
        data="digits",
        profile="quick",
    )
    return path


def png(path, brightness, opacity=None):
    "Write a PNG of brightness (and opacity) in [0, 1]."
    planes = [brightness] if opacity is None else [brightness] * 3 + [opacity]
    pixels = np.round(np.stack(planes, axis=-1) * 255).astype(np.uint8)
    Image.fromarray(pixels[..., 0] if opacity is None else pixels).save(path)
    return path


def bytes_of(path):
    return np.asarray(Image.open(path))


# ---- the frame: help, exit codes, one line -------------------------------------------------------


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_tells_its_options_and_examples_in_80_columns(name, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, text, errors = command(name, "--help")
    assert code == 0 and not errors and f"biolearn {name}" in text.split("examples:\n")[1]
    assert all(len(line) <= 80 for line in text.splitlines()), [
        line for line in text.splitlines() if len(line) > 80
    ]
    assert "--debug" in text and "%(" not in text


def test_every_example_in_the_help_is_understood(tmp_path, monkeypatch):
    "An example that argparse refuses would be worse than none."
    monkeypatch.chdir(tmp_path)
    Path("sets.csv").write_text("delta\n0.1\n")
    for name in main.COMMANDS:
        parser = main.make_parser([name])
        (below,) = [a for a in parser._actions if hasattr(a, "choices") and a.dest == "command"]
        for line in re.findall(
            r"^  biolearn (.*)$", below.choices[name].epilog.replace(" \\\n", " "), re.M
        ):
            asked = parser.parse_args(line.split(" > ")[0].split())
            assert asked.command == name and callable(main.find_command(name).run)


def test_the_help_lists_all_commands_and_loads_none():
    code = (
        "import sys\nfrom biolearn.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*sorted(n for n in sys.modules if n.startswith('biolearn') or n == 'numpy'))"
    )
    done = process(code=code)
    assert all(re.search(rf"^  {name} ", done.stdout, re.M) for name in main.COMMANDS)
    assert (
        done.stdout.splitlines()[-1]
        == "biolearn biolearn.cli biolearn.cli.main biolearn.core biolearn.core.files "
        "biolearn.kernels biolearn.kernels.blas"
    )


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["paint"],
        ["sample", "-n", "-3"],
        ["inpaint"],
        ["inpaint", "x.png", "--hide", "middle"],
        ["train", "--epochs", "many"],
        ["completion", "cmd"],
    ],
)
def test_not_understood_is_2_with_the_usage(argv, command):
    code, printed, errors = command(*argv)
    assert code == 2 and errors.startswith("usage: biolearn") and not printed


@pytest.mark.parametrize(
    "error, code, said",
    [
        (ValueError("bad\n  and worse.\n\nA long story."), 1, "biolearn: bad and worse.\n"),
        (
            OSError(28, "No space left on device"),
            1,
            "biolearn: [Errno 28] No space left on device\n",
        ),
        (
            KeyError("h_3"),
            1,
            "biolearn: unexpected KeyError: 'h_3' (this is a defect of biolearn; --debug shows where)\n",
        ),
        (KeyboardInterrupt(), 130, "biolearn: interrupted\n"),
    ],
)
def test_an_error_is_one_line_and_a_trace_with_debug(error, code, said, command, monkeypatch):
    def run(asked):
        raise type(error)(
            *error.args
        )  # afresh each time: a trace grows on the error that carries it

    monkeypatch.setattr(networks, "INFO", main.Command(lambda parser: None, run))
    assert command("info") == (code, "", said)
    traced = command("info", "--debug")[2]
    assert ("Traceback" in traced and "in run" in traced) == (code == 1) and traced.endswith(said)
    assert command("--debug", "info")[2] == traced


def test_what_cannot_be_meant_is_2_and_shows_the_usage_of_its_command(command, monkeypatch):
    def run(asked):
        raise main.UsageError("choose one")

    monkeypatch.setattr(networks, "INFO", main.Command(lambda parser: None, run))
    code, _, errors = command("info")
    assert (
        code == 2
        and errors.startswith("usage: biolearn info")
        and errors.endswith("biolearn info: error: choose one\n")
    )


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_bars_are_for_terminals(model, tmp_path):
    "The same training writes a bar to a terminal, and not one carriage return to a pipe."
    import fcntl
    import pty
    import termios

    argv = [
        "train",
        "--data",
        "digits",
        "--epochs",
        "1",
        "--hidden",
        "8,4",
        "--device",
        "cpu",
        "--force",
        "--save",
        str(tmp_path / "m.safetensors"),
    ]
    done = process(*argv)
    assert done.returncode == 0 and "\r" not in done.stderr and "step" not in done.stderr
    assert done.stdout == f"{tmp_path / 'm.safetensors'}\n"  # the result, and nothing else
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from biolearn.cli.main import main; sys.exit(main(sys.argv[1:]))",
            *argv,
        ],
        env=ENV,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as child:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break  # Linux tells the end of a terminal so
            if not part:
                break
            seen += part
    os.close(ours)
    assert child.returncode == 0 and b"\rtraining" in seen


def test_a_stream_without_bars_drops_bars_alone():
    heard = io.StringIO()
    stream = main.WithoutBars(heard)
    for text in ("a note\n", "\rbar 1", "\rbar 2", "", "\n", "second", "\n", "\n", "third\rover\n"):
        stream.write(text)
    assert heard.getvalue() == "a note\nsecond\n\nthird\rover\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_pipe_that_closes_early_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = process("info", stdout=writing, stderr=subprocess.PIPE, capture_output=False)
    os.close(writing)
    assert done.stderr == "" and done.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_in_training_is_130_leaves_no_model_and_the_same_line_goes_on(tmp_path):
    argv = [
        "train",
        "--data",
        "digits",
        "--epochs",
        "400",
        "--hidden",
        "20,5",
        "--device",
        "cpu",
        "--save",
        str(tmp_path / "m.safetensors"),
    ]
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from biolearn.cli.main import main; sys.exit(main(sys.argv[1:]))",
            *argv,
        ],
        env=ENV,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any((tmp_path / "m.checkpoint").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=60)[1]
    assert (
        child.returncode == 130
        and errors.endswith("biolearn: interrupted\n")
        and "Traceback" not in errors
        and not (tmp_path / "m.safetensors").exists()
    )
    assert (tmp_path / "m.checkpoint").is_dir()


# ---- kernels -------------------------------------------------------------------------------------


def test_kernels_are_chosen_before_numpy_is_loaded(tmp_path):
    """In a fresh process: set where the processor has AVX-512, in time for NumPy, and never against
    the user.
    """
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu avx512f avx512bw avx512dq avx512vl\n")
    code = (
        "import os, sys\nfrom biolearn.cli.main import choose_kernels\n"
        f"print('numpy' in sys.modules, choose_kernels({str(info)!r}), "
        "os.environ.get('OPENBLAS_CORETYPE'), sep='|')"
    )
    env = {k: v for k, v in ENV.items() if k != "OPENBLAS_CORETYPE"}
    assert (
        process(code=code, env=env).stdout
        == "False|asked for by biolearn: the processor has AVX-512|SkylakeX\n"
    )
    assert (
        process(code=code, env=env | {"OPENBLAS_CORETYPE": "Haswell"}).stdout
        == "False|OPENBLAS_CORETYPE was set before|Haswell\n"
    )
    assert "NumPy was loaded before" in process(code="import numpy\n" + code, env=env).stdout
    info.write_text("flags : fpu avx2 avx512f\n")
    assert process(code=code, env=env).stdout.endswith("no AVX-512 found in the processor|None\n")


def test_info_tells_what_is_really_used():
    told = json.loads(process("info", "--json").stdout)
    assert (
        told["versions"]["numpy"] == np.__version__
        and told["blas"]["threads"] >= 1
        and told["blas"]["why"]
        and told["device"].startswith(("cpu", "gpu"))
    )
    lines = process("info").stdout.splitlines()
    assert [line[:16].strip() for line in lines] == [
        "biolearn",
        "versions",
        "system",
        "device",
        "cores",
        "matrix products",
        "their kernels",
        "digits",
        "mnist",
        "networks",
        "in the package",
    ]
    if told["blas"]["library"] == "openblas":
        other = json.loads(
            process(
                "info",
                "--json",
                env=ENV | {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"},
            ).stdout
        )["blas"]
        assert other["threads"] == 1 and other["why"] == "OPENBLAS_CORETYPE was set before"


def test_info_makes_no_folder_and_finds_mnist(tmp_path, command, monkeypatch):
    monkeypatch.setattr("biolearn.reproduction.runs.checkout", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("BIOLEARN_DATA", str(tmp_path / "data"))
    for name in MNIST_FILES:
        (tmp_path / "data" / name).touch()
    assert f"mnist            {tmp_path / 'data'}\n" in command("info")[1] and sorted(
        p.name for p in tmp_path.iterdir()
    ) == ["data"]
    (tmp_path / "data" / name).unlink()
    monkeypatch.setattr("biolearn.core.data.user_cache_path", lambda *a, **k: tmp_path / "cache")
    assert "mnist            not found" in command("info")[1]


# ---- pictures in and out -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_of_any_kind_is_read_as_brightness(mode, tmp_path):
    grey = Image.fromarray(np.array([[0, 255, 102], [255, 0, 255]], np.uint8))
    if mode == "I;16":
        Image.fromarray(np.array([[0, 65535, 26214], [65535, 0, 65535]], np.uint16)).save(
            tmp_path / "a.png"
        )
    else:
        grey.convert(mode).save(tmp_path / "a.png")
    bright, opacity = pictures.read_png(tmp_path / "a.png")
    expected = np.array([[0, 1, 0.4], [1, 0, 1]])
    if mode == "1":
        expected[0, 2] = bright[0, 2]  # no grey there: dithered either way
    assert (
        bright.dtype == np.float32
        and np.allclose(bright, expected, atol=1e-6)
        and (opacity == 1).all()
    )


def test_broken_and_foreign_pictures_are_refused(tmp_path):
    good = png(tmp_path / "good.png", np.random.default_rng(0).random((40, 40)))
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:600])
    (tmp_path / "text.png").write_text("a picture")
    Image.open(good).save(tmp_path / "jpeg.png", format="JPEG")
    (tmp_path / "empty.png").touch()
    for name in ("cut", "text", "jpeg", "empty"):
        with pytest.raises(ValueError, match=f"{name}.png is not a PNG picture"):
            pictures.read_png(tmp_path / f"{name}.png")
    with pytest.raises(FileNotFoundError):
        pictures.read_png(tmp_path / "nothing.png")


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
@pytest.mark.parametrize("dark", [False, True])
def test_inpaint_gives_back_the_given_pixels_to_the_bit_and_paints_what_the_library_paints(
    side, dark, model, tmp_path, command
):
    image = png(tmp_path / "a.png", 1 - DIGIT if dark else DIGIT)
    code, printed, errors = command(
        "inpaint", image, "--hide", side, "--model", model, "--rounds", 3, "--device", "cpu"
    )
    made = tmp_path / "a-inpainted.png"
    assert (code, printed, errors) == (0, f"{made}\n", "")
    hidden = half_masks((8, 8), use_device("cpu"))[side].reshape(8, 8)
    before, after = bytes_of(image), bytes_of(made)
    assert after.dtype == np.uint8 and np.array_equal(before[~hidden], after[~hidden])
    ink = (255 - before if dark else before).astype(np.float32).reshape(1, 64) / 255
    filled = inpaint(
        load_model(model, use_device("cpu")),
        ink,
        ~hidden.ravel(),
        rounds=3,
        rng=Random(0).stream("command", "inpaint"),
    ).reshape(8, 8)
    assert np.abs(after.astype(int) - 255 * (1 - filled if dark else filled))[hidden].max() <= 0.51


def test_what_is_missing_can_be_said_in_three_ways_that_add_up(model, tmp_path, command):
    opacity, mask = np.ones((8, 8)), np.zeros((8, 8))
    opacity[0], mask[3] = 0, 1
    code, _, errors = command(
        "inpaint",
        png(tmp_path / "a.png", DIGIT, opacity),
        "--mask",
        png(tmp_path / "m.png", mask),
        "--hide",
        "bottom",
        "--model",
        model,
        "--to",
        tmp_path / "b.png",
        "--device",
        "cpu",
    )
    changed = bytes_of(tmp_path / "b.png") != np.round(DIGIT * 255)
    assert (
        code == 0
        and not errors
        and changed[[0, 3, 4, 5, 6, 7]].mean() > 0.7
        and not changed[[1, 2]].any()
    )


def test_a_picture_of_another_size_is_scaled_centred_and_told(model, tmp_path, command):
    """Twice as large and one row short: every visible pixel is the mean of four, the row that is
    lacking is ground.
    """
    large = np.kron(DIGIT[:7], np.ones((2, 2)))
    code, _, errors = command(
        "inpaint",
        png(tmp_path / "a.png", 1 - large),
        "--hide",
        "right",
        "--model",
        model,
        "--to",
        tmp_path / "b.png",
        "--device",
        "cpu",
    )
    assert (
        code == 0
        and errors
        == "biolearn: a.png has 16 x 14 pixels, the network 8 x 8: it is scaled to fit and "
        "centred, and the result has 8 x 8\n"
    )
    made = bytes_of(tmp_path / "b.png")
    assert (
        np.abs(made[:7, :4].astype(int) - np.round(255 * (1 - DIGIT[:7, :4]))).max() <= 1
        and (made[7, :4] == 255).all()
    )


@pytest.mark.parametrize(
    "argv, code, said",
    [
        (["a.png"], 2, "nothing is missing"),
        (["clear.png"], 2, "everything is missing"),
        (["a.png", "--mask", "wide.png"], 2, "the mask has 9 x 8 pixels, the picture 8 x 8"),
        (["none.png", "--hide", "top"], 1, "there is no picture none.png"),
        (["a.png", "--hide", "top", "--to", "a.jpg"], 2, "must end in .png"),
        (["a.png", "--hide", "top", "--to", "there.png"], 1, "there.png exists already"),
        (["a.png", "--hide", "top", "--to", "no/b.png"], 1, "the folder no does not exist"),
        (["a.png", "--hide", "top", "--model", "a.png"], 1, "a.png is not a saved biolearn model"),
        (["a.png", "--hide", "top", "--model", "gone.safetensors"], 1, "there is no model file"),
    ],
)
def test_inpaint_refuses_on_one_line_and_writes_nothing(
    argv, code, said, model, tmp_path, command, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    png("a.png", DIGIT)
    png("wide.png", np.zeros((8, 9)))
    png("clear.png", DIGIT, np.zeros((8, 8)))
    Path("there.png").write_text("mine")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    argv = argv if "--model" in argv else [*argv, "--model", str(model)]
    got, printed, errors = command("inpaint", *argv, "--device", "cpu")
    assert (
        got == code
        and said in errors.splitlines()[-1]
        and not printed
        and (code == 2 or errors.count("\n") == 1)
    )
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_force_replaces_and_a_strip_is_drawn(model, tmp_path, command):
    (tmp_path / "b.png").write_text("old")
    code, printed, _ = command(
        "inpaint",
        png(tmp_path / "a.png", DIGIT),
        "--hide",
        "top",
        "--model",
        model,
        "--to",
        tmp_path / "b.png",
        "--strip",
        tmp_path / "s.png",
        "--force",
        "--device",
        "cpu",
    )
    assert (
        code == 0
        and printed.split() == [str(tmp_path / "b.png"), str(tmp_path / "s.png")]
        and bytes_of(tmp_path / "b.png").shape == (8, 8)
        and bytes_of(tmp_path / "s.png").ndim == 3
    )


# ---- data ----------------------------------------------------------------------------------------


def test_pictures_of_all_kinds_give_the_same_dataset(tmp_path):
    x = np.round(255 * load_digits().train[:30].reshape(-1, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "flat.npy", x.reshape(30, 64) / np.float32(255))
    np.savez(tmp_path / "b.npz", images=x, labels=np.arange(30))
    (tmp_path / "c-idx3-ubyte").write_bytes(
        bytes([0, 0, 8, 3, 0, 0, 0, 30, 0, 0, 0, 8, 0, 0, 0, 8]) + x.tobytes()
    )
    (tmp_path / "png").mkdir()
    (tmp_path / "paper").mkdir()
    for i, one in enumerate(x):
        png(tmp_path / "png" / f"{i:02}.png", one / 255)
        png(tmp_path / "paper" / f"{i:02}.png", 1 - one / 255)
    first, *others = (
        pictures.load_pictures(tmp_path / name)
        for name in ("a.npy", "flat.npy", "b.npz", "c-idx3-ubyte", "png", "paper")
    )
    assert (
        first.train.shape == (24, 64)
        and first.test.shape == (6, 64)
        and first.image_shape == (8, 8)
    )
    assert sorted(map(bytes, np.concatenate([first.train, first.test]))) == sorted(
        map(bytes, x.reshape(30, 64) / np.float32(255))
    )  # none lost, none twice
    for other in others:
        assert (
            np.abs(other.train - first.train).max() < 1e-6
            and np.abs(other.test - first.test).max() < 1e-6
        )


def test_data_that_cannot_be_used_is_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}] * 20))
    np.save(tmp_path / "few.npy", np.zeros((3, 8, 8)))
    np.save(tmp_path / "large.npy", np.full((20, 8, 8), 7.0))
    np.savez(tmp_path / "many.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez(tmp_path / "code.npz", x=np.array([{}] * 20))
    (tmp_path / "text.npy").write_text("numbers")
    (tmp_path / "text.idx").write_text("numbers")
    (tmp_path / "none").mkdir()
    (tmp_path / "mixed").mkdir()
    for i in range(12):
        png(tmp_path / "mixed" / f"{i:02}.png", np.zeros((8, 8 + (i == 7))))
    for name, said in {
        "objects.npy": "plain numbers",
        "few.npy": "at least ten",
        "large.npy": "numbers above 1",
        "many.npz": "holds a, b",
        "code.npz": "code.npz, x",
        "text.npy": "plain numbers",
        "text.idx": "not an IDX file",
        "none": "no PNG files",
        "mixed": "07.png has 9 x 8 pixels, 00.png has 8 x 8",
    }.items():
        with pytest.raises(DataError, match=said):
            pictures.load_pictures(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        pictures.load_pictures(tmp_path / "gone.npy")


# ---- train, sample, evaluate ---------------------------------------------------------------------


def test_train_on_pictures_of_ones_own_then_sample_and_evaluate(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", load_digits().train[:200].reshape(-1, 8, 8))
    argv = ["train", "--data", "mine.npy", "--epochs", "3", "--hidden", "16,6", "--device", "cpu"]
    code, printed, errors = command(*argv, "--save", "a.safetensors")
    assert (
        code == 0
        and printed == "a.safetensors\n"
        and "160 train, 0 valid, 40 test" in errors
        and "3 epochs; log p(x,h)" in errors
    )
    command(*argv, "--save", "b.safetensors")
    command(*argv, "--seed", "1", "--save", "c.safetensors")
    trained = [load_model(f"{n}.safetensors", use_device("cpu")) for n in "abc"]
    assert (
        trained[0].sizes == (64, 16, 6)
        and np.array_equal(trained[0].pairs[0].f.W, trained[1].pairs[0].f.W)
        and not np.array_equal(trained[0].pairs[0].f.W, trained[2].pairs[0].f.W)
    )
    code, printed, errors = command(
        "sample",
        "--model",
        "a.safetensors",
        "-n",
        "7",
        "--rounds",
        "0",
        "--to",
        "x.npy",
        "--to",
        "x.png",
        "--device",
        "cpu",
    )
    assert (code, printed, errors) == (0, "x.npy\nx.png\n", "")
    recipe = read_notes("a.safetensors")["recipe"]
    assert np.array_equal(
        np.load("x.npy"),
        generate(
            trained[0],
            7,
            rounds=0,
            rng=Random(0).stream("command", "samples"),
            inference=Inference(alpha=0.3, n_steps=recipe["n_steps"], delta=recipe["delta"]),
        ),
    )
    code, printed, errors = command(
        "evaluate", "--model", "a.safetensors", "--samples", "60", "--json", "--device", "cpu"
    )
    found = json.loads(printed)
    assert (
        code == 0
        and not errors
        and found["n_test"] == 40
        and found["n_samples"] == 60
        and found["data"] == "mine.npy"
        and set(found["inpainting"]) == {"halves", "random"}
    )
    test = pictures.load_pictures("mine.npy").test
    x = np.load("x.npy")
    assert (
        found["parzen"]["control: training digits"]["mean"]
        > found["parzen"]["directed model"]["mean"]
        and test.shape == (40, 64)
        and np.isfinite(x).all()
    )
    table = command("evaluate", "--model", "a.safetensors", "--samples", "60", "--device", "cpu")[1]
    assert (
        f"{found['parzen']['GENERATE']['mean']:8.1f} ± {found['parzen']['GENERATE']['stderr']:.1f}"
        in table
        and "halves: network" in table
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.safetensors",
        "b.safetensors",
        "c.safetensors",
        "mine.npy",
        "x.npy",
        "x.png",
    ]


def test_the_network_of_a_profile_is_trained_once_and_found_by_the_others(
    tmp_path, command, monkeypatch
):
    from dataclasses import replace

    quick = PROFILES["quick"]
    monkeypatch.setitem(
        PROFILES, "quick", replace(quick, hidden=(16, 6), recipe=replace(quick.recipe, epochs=2))
    )
    where = ["--out", tmp_path / "runs here", "--device", "cpu"]
    code, printed, errors = command("sample", "--to", tmp_path / "x.npy", *where)
    assert (
        code == 1
        and not printed
        and errors.count("\n") == 1
        and f"`biolearn train --out {tmp_path / 'runs here'}`" in errors
        and not (tmp_path / "runs here").exists()
    )
    code, printed, _ = command("train", *where)
    (made,) = (tmp_path / "runs here").glob("runs/*/model.safetensors")
    assert code == 0 and printed == f"{made}\n"
    changed = made.stat().st_mtime_ns
    assert (
        command("train", *where, "--save", tmp_path / "copy.safetensors")[0] == 0
        and made.stat().st_mtime_ns == changed
    )
    assert command("sample", "-n", 3, "--to", tmp_path / "x.npy", *where)[0] == 0 and np.load(
        tmp_path / "x.npy"
    ).shape == (3, 64)
    assert (
        command(
            "sample",
            "-n",
            3,
            "--to",
            tmp_path / "y.npy",
            "--model",
            tmp_path / "copy.safetensors",
            "--device",
            "cpu",
        )[0]
        == 0
    )
    assert np.array_equal(
        np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy")
    )  # the copy is the same network, with the same settings


def test_a_file_in_the_way_is_told_before_the_work(tmp_path, command, monkeypatch):
    (tmp_path / "m.safetensors").write_text("mine")
    monkeypatch.setattr(networks, "fit", lambda *a, **k: pytest.fail("it was trained first"))
    monkeypatch.setattr(
        networks, "trained_run", lambda *a, **k: pytest.fail("it was trained first")
    )
    for more in ([], ["--data", "digits"]):
        code, _, errors = command("train", *more, "--save", tmp_path / "m.safetensors")
        assert (
            code == 1
            and "exists already" in errors
            and (tmp_path / "m.safetensors").read_text() == "mine"
        )
    assert command("train", "--data", "digits")[0] == 2
    assert command("evaluate", "--model", tmp_path / "m.safetensors")[0] == 1


# ---- completion ----------------------------------------------------------------------------------


def test_completion_knows_commands_options_and_files():
    pytest.importorskip("shtab")
    done = process("completion", "bash")
    assert done.returncode == 0 and not done.stderr
    ask = (
        'source /dev/stdin <<<"$SCRIPT"; COMP_TYPE=9; '
        'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMPREPLY=(); '
        '$(complete -p biolearn | sed "s/.*-F \\([^ ]*\\).*/\\1/"); echo "${COMPREPLY[@]}"; }; '
        "try biolearn in; try biolearn inpaint --hi; try biolearn inpaint --hide r; "
        'try biolearn train --profile ""'
    )
    shell = subprocess.run(
        ["bash", "-c", ask],
        env=ENV | {"SCRIPT": done.stdout},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert [line.split() for line in shell.stdout.splitlines()] == [
        ["info", "inpaint"],
        ["--hide"],
        ["right"],
        ["quick", "paper", "mixture"],
    ], shell.stderr
    assert "_shtab_compgen_files" in done.stdout and "_shtab_compgen_dirs" in done.stdout


def test_completion_without_shtab_says_what_to_do(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert command("completion", "zsh") == (
        1,
        "",
        "biolearn: this needs the package shtab, which is not installed: pip install shtab "
        "(or all of biolearn's extra completion)\n",
    )


def test_a_missing_package_is_told_with_the_extra_that_brings_it(command, monkeypatch):
    "Whichever it is, in whatever command."
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    for package, extra in main.EXTRAS.items():
        assert re.search(rf"^{extra}_requirements =", settings, re.M), extra

        def run(asked):
            __import__(f"{package}.part")

        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setattr(networks, "INFO", main.Command(lambda parser: None, run))
        name = {"PIL": "pillow"}.get(package, package)
        code, printed, errors = command("info")
        assert (code, printed) == (1, "") and errors.count("\n") == 1
        assert f"needs the package {name}" in errors and f"biolearn's extra {extra})" in errors


# ---- the commands that run the whole book --------------------------------------------------------


def test_hours_become_seconds_and_models_stay_unless_they_are_dropped(monkeypatch, tmp_path):
    import biolearn.cli.reproduction as commands

    arrived = {}

    def far_enough(name):
        def stop(*args, **given):
            arrived[name] = given
            raise RuntimeError("far enough")

        return stop

    for name in ("reproduce", "sweep", "run_experiments"):
        monkeypatch.setattr(commands, name, far_enough(name))
    out = ["--out", str(tmp_path)]
    assert main.main(["reproduce", "--cell-limit", "0.5", *out]) == 1
    assert main.main(["sweep", "--run-limit", "0.25", *out]) == 1
    assert arrived["reproduce"]["cell_limit"] == 1800 and arrived["sweep"]["run_limit"] == 900
    for flags, kept in (["--drop-models"], False), ([], True):
        assert main.main(["experiments", *flags, *out]) == 1
        assert arrived["run_experiments"]["extent"].keep_models is kept
