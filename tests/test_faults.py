"""Bad input and bad luck: every fault is named, nothing is lost, nothing is left half-written.

`pytest --nightly -s tests/test_faults.py` tries many more damaged files.
"""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import fast_idx
from test_reproduce import notebook
from test_resume import BRIEF, RECIPE, Killed, data, files, network, same, stop_after, train

import biolearn
import biolearn.core.arrays as arrays_module
import biolearn.core.checkpoints as checkpoints
import biolearn.core.learning as learning
import biolearn.reproduction.runs as runs
from biolearn.cli.main import main
from biolearn.core.arrays import Backend, DeviceError
from biolearn.core.checkpoints import CheckpointError, load_model, save_model
from biolearn.core.data import DataError, from_arrays, read_idx
from biolearn.core.learning import DivergenceError, fit
from biolearn.core.rng import Random

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")
ROOT = Path(biolearn.__file__).parent.parent


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoints, "_SHARE", 0)


# ---- arrays --------------------------------------------------------------------------------------


def spoiled(value, where=(3, 4)):
    x = data()
    x[where] = value
    return x


BAD = {
    "NaN": (spoiled(np.nan), ValueError, r"x holds NaN or infinite numbers, the first at \(3, 4\)"),
    "infinite": (spoiled(np.inf), ValueError, "x holds NaN or inf"),
    "minus infinite": (spoiled(-np.inf), ValueError, "x holds NaN or inf"),
    "negative": (
        spoiled(-0.01),
        ValueError,
        r"x, which sigmoid units are to reconstruct, holds numbers below 0, the first at \(3, 4\)",
    ),
    "too large": (spoiled(255.0), ValueError, "x, which sigmoid units .* above 1"),
    "one axis": (data()[0], ValueError, r"x must have 2 axes, got shape \(6,\)"),
    "three axes": (data()[None], ValueError, "x must have 2 axes"),
    "too wide": (
        Random(1).uniform((3, 7)),
        ValueError,
        r"x must have 6 columns, got shape \(3, 7\)",
    ),
    "no rows": (data()[:0], ValueError, r"x is empty: shape \(0, 6\)"),
    "no columns": (data()[:, :0], ValueError, "x is empty"),
    "bytes": (
        np.full((3, 6), 255, np.uint8),
        ValueError,
        "holds numbers above 1",
    ),
    "complex": (np.ones((3, 6), complex), TypeError, "x must hold real numbers.*complex"),
    "objects": (np.ones((3, 6), object), TypeError, "x must hold real numbers.*object"),
    "text": (np.full((3, 6), "1"), TypeError, "x must hold real numbers"),
    "a list": (data().tolist(), TypeError, "x must be an array, got list"),
    "nothing": (None, TypeError, "x must be an array, got NoneType"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_arrays_are_refused_before_anything_is_written(tmp_path, kind):
    x, error, said = BAD[kind]
    with pytest.raises(error, match=said):
        fit(network(), x, RECIPE, rng=Random(0), progress=False, checkpoint=tmp_path / "folder")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "kind",
    [
        "NaN",
        "infinite",
        "minus infinite",
        "negative",
        "too large",
        "one axis",
        "no rows",
        "no columns",
        "complex",
        "objects",
        "text",
    ],
)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_bad_pictures_are_refused_by_the_name_of_their_split(split, kind):
    with pytest.raises((ValueError, TypeError), match=rf"\b{split}\b"):
        from_arrays(**{"train": data(), split: BAD[kind][0]})


def test_a_single_row_is_enough(tmp_path):
    assert same(train(tmp_path, x=data(1)), train(x=data(1))) and from_arrays(
        data(1)
    ).train.shape == (1, 6)


def test_units_without_bounds_take_any_finite_number():
    model = checkpoints.Model(
        (
            replace(network().pairs[0], g=replace(network().pairs[0].g, unit="linear")),
            network().pairs[1],
        )
    )
    train(None, replace(RECIPE, epochs=1), x=spoiled(-3.0), model=model)


# ---- training that goes wrong --------------------------------------------------------------------


def spoil_at(monkeypatch, t, spoil):
    "From step `t` on, `spoil(model, optimizer states)` is called after each step."
    step = learning.em_step

    def bad(state, *rest):
        done = step(state, *rest)
        if state.t >= t:
            spoil(state.model, state.optimizers)
        return done

    monkeypatch.setattr(learning, "em_step", bad)


def put(array, value):
    array[(0,) * array.ndim] = value


QUIET = {
    "g1.W is": lambda m, b: put(m.pairs[0].g.W, np.nan),
    "rms activity nan": lambda m, b: put(m.pairs[0].f.W, np.nan),
    "f2.b is": lambda m, b: put(m.pairs[1].f.b, np.inf),
    "f1.W.book1 is": lambda m, b: put(b[0].W[1], np.inf),
    "g2.b.book0 is": lambda m, b: put(b[3].b[0], np.nan),
}


@pytest.mark.parametrize("said", QUIET)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_numbers_that_stop_being_finite_are_divergence_and_the_last_good_state_stays(
    tmp_path, monkeypatch, said
):
    """Also where the activity looks calm: a saturated unit hides an infinite weight, and Adam's
    infinite books only freeze it. Noticed in the very epoch, the third.
    """
    spoil_at(monkeypatch, 8, QUIET[said])
    with pytest.raises(DivergenceError) as e:
        train(tmp_path)
    text = str(e.value)
    assert (
        ("rms activity nan" in text or said in text)
        and "epoch 3" in text
        and "smaller rate_f" in text
        and "changed settings need another folder" in text
    )
    assert (
        f"The state after epoch 2 stays in {tmp_path / 'epoch-00002.safetensors'}" in text
        and files(tmp_path)[-1] == "epoch-00002.safetensors"
    )
    assert load_model(tmp_path / "epoch-00002.safetensors", Backend()).sizes == (6, 5, 4)
    with pytest.raises(DivergenceError):
        train()  # without checkpoints, too
    monkeypatch.undo()
    assert same(train(tmp_path), train())  # the good state was good


class OutOfMemoryError(MemoryError):
    "Made like `cupy.cuda.memory.OutOfMemoryError`."

    def __init__(self, size, total, limit=0):
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)."
        )
        self._size, self._total, self._limit = size, total, limit


@pytest.mark.parametrize(
    "error", [OutOfMemoryError(1_000_000, 2_000_000), MemoryError("Unable to allocate 9 GiB")]
)
def test_out_of_memory_suggests_a_smaller_batch_and_keeps_the_checkpoint(
    tmp_path, monkeypatch, error
):
    def full(model, books):
        raise error

    with monkeypatch.context() as patch:
        spoil_at(patch, 8, full)
        with pytest.raises(MemoryError) as e:
            train(tmp_path)
    assert (
        "smaller batch_size" in str(e.value)
        and "minibatches of 4 rows of 6" in str(e.value)
        and str(error) in str(e.value)
        and e.value.__cause__ is error
    )
    assert str(tmp_path / "epoch-00002.safetensors") in str(e.value)
    assert same(train(tmp_path), train())


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        arrays_module, "gpu_problem", lambda: "CuPy is installed but finds no CUDA device"
    )
    with pytest.raises(
        DeviceError,
        match=(
            "device='gpu' was asked for, but CuPy is installed but finds no CUDA "
            "device.*cuda12.*device='cpu'"
        ),
    ):
        runs.trained_run(BRIEF, device="gpu", out=tmp_path / "out")
    assert not [*tmp_path.iterdir()]


# ---- disks: full, read-only ----------------------------------------------------------------------


def _namespace():
    """The beginning of a command that may mount a file system seen by itself alone; None where the
    system does not allow it.
    """
    for flags in (["--mount"], ["--mount", "--user", "--map-root-user"]):
        try:
            tried = subprocess.run(
                [
                    "unshare",
                    *flags,
                    "sh",
                    "-c",
                    "mount -t tmpfs -o size=100k none /mnt && mount -o remount,ro /mnt",
                ],
                capture_output=True,
            )
        except FileNotFoundError:
            return None
        if tried.returncode == 0:
            return ["unshare", *flags]


NAMESPACE = _namespace()
mounts = pytest.mark.skipif(
    NAMESPACE is None, reason="no private tmpfs can be mounted here (unshare --mount)"
)
ON_DISK = """
import os, subprocess, sys, contextlib, io
sys.path[:0] = [{here!r}]
from pathlib import Path
import pytest
import biolearn.core.checkpoints as checkpoints
import biolearn.core.learning as learning
import test_faults as t, test_resume as r
from biolearn.reproduction import claims, runs
from biolearn.core.arrays import Backend
from biolearn.cli.main import main
checkpoints._SHARE = 0
disk = Path({disk!r})
def fill():
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True: file.write(bytes(1024))
def read_only(): subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
def refused(error, call, *named):
    with pytest.raises(error) as e: call()
    print(str(e.value))
    for name in named: assert str(name) in str(e.value), (name, str(e.value))
def content(folder=disk): return {{str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in ("filler", "lock")}}
def command():
    with contextlib.redirect_stderr(io.StringIO()) as said: code = main(["reproduce", "--device", "cpu", "--out", str(disk / "out"), "--notebooks", str(disk.parent / "books")])
    return code, said.getvalue()
{body}
print("all is well")
"""


def on_disk(tmp_path, size, body):
    "Run the Python text `body` where tmp_path/disk is a small disk of its own."
    (tmp_path / "disk").mkdir()
    code = ON_DISK.format(here=str(Path(__file__).parent), disk=str(tmp_path / "disk"), body=body)
    done = subprocess.run(
        [
            *NAMESPACE,
            "sh",
            "-c",
            f'mount -t tmpfs -o size={size} none "$1" && exec "$2" -c "$3"',
            "sh",
            str(tmp_path / "disk"),
            sys.executable,
            code,
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.endswith("all is well\n"), done.stdout + done.stderr


@mounts
def test_a_full_disk(tmp_path):
    """Noticed before the first step; in the middle, the last checkpoint stays, and when there is
    room again the run goes on to the same bits. What was there is still there.
    """
    notebook(tmp_path / "books", "fig1_a", "1 + 1")
    on_disk(
        tmp_path,
        "200k",
        """
steps, real = [], learning.em_step
learning.em_step = lambda *a, **kw: steps.append(1) or real(*a, **kw)
runs.output_folder(str(disk / "out")); (disk / "out" / "manifest.json").write_text("{}")
checkpoints.save_model(disk / "m.safetensors", r.network())
fill()
before = content()
refused(checkpoints.CheckpointError, lambda: r.train(disk / "run"), "No space left", disk / "run" / "epoch-00000.safetensors", "after epoch 0 cannot be written")
assert not steps and content() == before, "noticed before the first step"
refused(OSError, lambda: checkpoints.save_model(disk / "m.safetensors", r.network()), "No space left", f"'{disk / 'm.safetensors'}'")
refused(OSError, lambda: claims.record("fig", None, [], out=disk / "out", caption="c" * 5000), "No space left", disk / "out" / "fig.json")
refused((RuntimeError, OSError), lambda: runs.trained_run(r.BRIEF, device="cpu", out=disk / "out"), "No space left", disk / "out" / "runs")
code, said = command()
assert code == 1 and "No space left" in said and "Traceback" not in said and said.strip().splitlines()[-1].startswith("biolearn: "), said
assert {k: v for k, v in content().items() if "/notebooks/" not in k and "/runs/" not in k and not k.startswith("run")} == before
(disk / "filler").unlink()
refused(checkpoints.CheckpointError, lambda: r.train(disk / "run", on_epoch=lambda m, h: len(h) == 2 and fill()), "No space left", "after epoch 3 cannot be written", "make room", "The state after epoch 2 stays in", disk / "run" / "epoch-00002.safetensors")
assert r.files(disk / "run") == ["epoch-00001.safetensors", "epoch-00002.safetensors"]
(disk / "filler").unlink()
assert r.same(r.train(disk / "run"), r.train())
""",
    )


@mounts
def test_a_read_only_folder(tmp_path):
    "A file system that cannot be written to stops even root."
    notebook(tmp_path / "books", "fig1_a", "1 + 1")
    on_disk(
        tmp_path,
        "1m",
        """
with pytest.raises(r.Killed): r.train(disk / "run", on_epoch=r.stop_after(2))
checkpoints.save_model(disk / "m.safetensors", r.network())
(disk / "out").mkdir()
read_only()
before = content()
refused(OSError, lambda: r.train(disk / "run"), "Read-only", disk / "run")
refused(OSError, lambda: r.train(disk / "new" / "run"), "Read-only", disk / "new")
refused(OSError, lambda: checkpoints.save_model(disk / "m.safetensors", r.network()), "Read-only", f"'{disk / 'm.safetensors'}'")
refused(OSError, lambda: claims.record("fig", None, [], out=disk / "out", caption="c"), "Read-only", disk / "out" / "fig.json")
refused(OSError, lambda: runs.trained_run(r.BRIEF, device="cpu", out=disk / "out"), "Read-only", disk / "out" / "runs")
code, said = command()
assert code == 1 and "Read-only" in said and str(disk / "out") in said and "Traceback" not in said and said.strip().splitlines()[-1].startswith("biolearn: "), said
assert content() == before and checkpoints.load_model(disk / "m.safetensors", Backend()).sizes == (6, 5, 4)
""",
    )


# ---- checkpoints that are not what they should be ------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """The file of a checkpoint after two epochs, and try_(contents): what a resume from those
    contents makes of the arrays.
    """
    with pytest.raises(Killed):
        train(tmp_path / "run", on_epoch=stop_after(2))
    path = tmp_path / "run" / "epoch-00002.safetensors"
    return path, Trial(path)


class Trial:
    "Tries to resume from a checkpoint's file with other contents."

    def __init__(self, path):
        self.path, self.good = path, path.read_bytes()
        model = network()
        self.arrays = learning.new_train_state(model, RECIPE.optimizer).arrays()
        identity = checkpoints.run_identity(model, data(), RECIPE.for_model(model), Random(2))
        self.read = lambda files, arrays: checkpoints._read_newest(
            files, identity, arrays, Backend()
        )
        self.state = self.read([path], {name: a.copy() for name, a in self.arrays.items()})

    def refuses(self, contents, said=""):
        """True if it is refused as damaged, by name, with the arrays untouched; False if it is read
        and gives the very same state.
        """
        self.path.write_bytes(contents)
        arrays = {name: np.zeros_like(a) for name, a in self.arrays.items()}
        try:
            files = [self.path, self.path.with_name("epoch-00001.safetensors")]
            state = self.read(files, arrays)
        except CheckpointError as e:
            assert (
                str(e).startswith(f"{self.path} is damaged: ")
                and "training goes on from epoch-00001.safetensors" in str(e)
                and re.search(said, str(e))
            ), str(e)
            assert not any(a.any() for a in arrays.values())
            try:
                load_model(self.path, Backend())
            except ValueError as e:
                assert str(e).startswith(f"{self.path} is not a saved biolearn model: ")
            return True
        assert state == self.state, "damage was taken for a checkpoint"
        return False


def test_a_checkpoint_cut_at_any_byte_is_refused(checkpoint, nightly):
    _, trial = checkpoint
    lengths = (
        range(len(trial.good))
        if nightly
        else [*range(16), *range(16, len(trial.good), 31), len(trial.good) - 1]
    )
    assert all([trial.refuses(trial.good[:n]) for n in lengths])
    assert trial.refuses(trial.good + b"\0") and not trial.refuses(trial.good)
    print(f"\n{len(lengths)} truncations of {len(trial.good)} bytes, all refused")


def test_a_checkpoint_with_a_flipped_bit_is_refused(checkpoint, nightly):
    _, trial = checkpoint
    bits = range(8 * len(trial.good)) if nightly else range(3, 8 * len(trial.good), 61)
    harmless = 0
    for bit in bits:
        flipped = bytearray(trial.good)
        flipped[bit // 8] ^= 1 << bit % 8
        harmless += not trial.refuses(bytes(flipped))
    print(f"\n{len(bits)} flipped bits, {len(bits) - harmless} refused, {harmless} harmless")
    assert harmless == 0


def test_a_saved_model_with_a_flipped_bit_is_refused(tmp_path):
    save_model(tmp_path / "m.safetensors", network(), note="n")
    good = (tmp_path / "m.safetensors").read_bytes()
    for bit in range(5, 8 * len(good), 37):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "m.safetensors").write_bytes(flipped)
        with pytest.raises(ValueError, match="m.safetensors is not a saved biolearn model"):
            load_model(tmp_path / "m.safetensors", Backend())


def packed(header, body=b"", size=None):
    "A safetensors file written by hand."
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def sealed(state, tensors=None, body=b"", **told):
    """A checkpoint whose seal is right, with any state and tensors: the work of an enemy, not of a
    bad disk.
    """
    told = {
        "format": checkpoints._CHECKPOINT,
        "units": '["sigmoid", "softplus", "sigmoid"]',
        "state": state if isinstance(state, str) else json.dumps(state),
        "arrays": checkpoints._sha256({}),
    } | told
    return packed(
        {"__metadata__": told | {"sha256": checkpoints._seal(told)}} | (tensors or {}), body
    )


def entry(shape, start=0, end=0, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def hostile(state):
    "Name: contents, for a checkpoint whose real state is `state`."
    about = {k: v for k, v in state.items() if k in ("about", "made_by")}
    deep = "[" * 200_000
    return {
        "a header of 2^63 bytes": packed(b"{}", size=2**63),
        "a header longer than the file": packed(b"{}", size=10**6),
        "a header above the limit": packed(b"{}", size=10**8 + 1),
        "no header": b"",
        "not JSON": packed(b"\xff\xfe{}"),
        "a list": packed(b"[]"),
        "deep": packed(deep.encode()),
        "metadata of numbers": packed({"__metadata__": {"format": 1}}),
        "a shape beyond all memory": packed({"a": entry([2**62, 4])}),
        "a shape that overflows": packed({"a": entry([2**40, 2**40, 2**40])}),
        "a negative shape": packed({"a": entry([-1])}),
        "a shape of 2^70": packed({"a": entry([2**70])}),
        "offsets that run backwards": packed({"a": entry([1], 4, 0)}, bytes(4)),
        "offsets outside": packed({"a": entry([1], 2**40, 2**40 + 4)}, bytes(4)),
        "overlapping": packed({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
        "unknown type": packed({"a": entry([1], 0, 4, "P32")}, bytes(4)),
        "twice the same": packed(
            b'{"a":'
            + json.dumps(entry([0])).encode()
            + b',"a":'
            + json.dumps(entry([0])).encode()
            + b"}"
        ),
        "sealed: deep state": sealed(deep),
        "sealed: state is text": sealed("7"),
        "sealed: state is NaN": sealed("NaN"),
        "sealed: huge number": sealed("9" * 10_000),
        "sealed: a list": sealed([]),
        "sealed: about is a list": sealed({"about": [], "history": []}),
        "sealed: no history": sealed(about),
        "sealed: history is text": sealed(about | {"history": "ab"}),
        "sealed: no arrays": sealed(state),
        "sealed: huge and empty": sealed(state, {"f1.W": entry([0, 2**40])}),
        "sealed: one number": sealed(state, {"f1.W": entry([], 0, 4)}, bytes(4)),
        "sealed: other types": sealed(state, {"f1.W": entry([1], 0, 1, "F8_E4M3")}, bytes(1)),
        "sealed: no units": sealed(state, units="{"),
        "sealed: many tensors": sealed(state, {f"t{i}": entry([0]) for i in range(20_000)}),
    }


def test_a_hostile_checkpoint_is_refused_in_little_time_and_memory(checkpoint):
    "Oversized headers, absurd shapes, and forged files with a right seal."
    _, trial = checkpoint
    cases = hostile(trial.state)
    for name, contents in cases.items():
        tracemalloc.start()
        begun = time.monotonic()
        try:
            assert trial.refuses(contents), name
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 50 * 2**20 and time.monotonic() - begun < 10, (name, peak)
    print(f"\n{len(cases)} hostile files, all refused")


@posix
def test_a_huge_file_is_refused_without_being_read(checkpoint):
    """A sparse file of eight gigabytes, forged with the right settings: its shapes are looked at
    before its numbers.
    """
    path, trial = checkpoint
    forged = sealed(trial.state, {"f1.W": entry([2**31], 0, 2**33)})
    with open(path, "wb") as file:
        file.write(forged)
        file.truncate(len(forged) + 2**33)
    tracemalloc.start()
    try:
        with pytest.raises(
            CheckpointError, match="is damaged: its arrays are not those of this network"
        ):
            trial.read([path], trial.arrays)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    path.unlink()


def test_a_damaged_checkpoint_stops_training_and_after_its_deletion_the_one_before_is_used(
    checkpoint,
):
    path, trial = checkpoint
    path.write_bytes(trial.good[:-1])
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises(
        CheckpointError,
        match=(
            "epoch-00002.safetensors is damaged.*Delete this file, and training "
            "goes on from epoch-00001.safetensors"
        ),
    ):
        train(path.parent)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before
    path.unlink()
    seen = []
    assert same(
        train(path.parent, on_epoch=lambda m, h: seen.append(len(h))), train()
    ) and seen == [2, 3, 4, 5]
    for p in path.parent.glob("epoch-*"):
        p.write_bytes(b"")
    with pytest.raises(CheckpointError, match="goes on from epoch-00004"):
        train(path.parent)
    (path.parent / "epoch-00004.safetensors").unlink()
    with pytest.raises(CheckpointError, match="begins anew"):
        train(path.parent)


# ---- fuzzing: made-up files ----------------------------------------------------------------------


def fuzz(strategy, check, n):
    """Try `check` on `n` examples of `strategy`; what fails is made small by hypothesis and shown.

    Returns how many were tried.
    """
    tried = []

    @settings(max_examples=n, deadline=None)
    @given(strategy)
    def run(example):
        tried.append(1)
        check(example)

    run()
    return len(tried)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "repeat", "swap"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)


def edited(contents, edits):
    "`contents` after some edits at relative places."
    for what, a, b, new in edits:
        i, j = sorted((int(a * len(contents)), int(b * len(contents))))
        middle = {
            "set": new + contents[i + len(new) :],
            "cut": contents[j:],
            "insert": new + contents[i:],
            "repeat": contents[i:j] + contents[i:],
            "swap": contents[j:] + contents[i:j],
        }[what]
        contents = contents[:i] + middle
    return contents


def test_fuzzed_checkpoints(checkpoint, nightly):
    """A real checkpoint, edited; and headers of lawful JSON with any tensors in them.

    Each is refused by name, or is the very same checkpoint.
    """
    _, trial = checkpoint
    n = fuzz(
        EDITS, lambda edits: trial.refuses(edited(trial.good, edits)), 5_000 if nightly else 200
    )
    sizes = st.one_of(
        st.integers(0, 8), st.sampled_from([-1, 2**31, 2**32, 2**63, 2**64, 1.5, None, "1"])
    )
    tensors = st.dictionaries(
        st.sampled_from([*trial.arrays, "x", "__metadata__"]),
        st.one_of(
            st.none(),
            st.text(max_size=3),
            st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["F32", "F64", "I8", "BF16", "F4", "C64", "", 1]),
                    "shape": st.lists(sizes, max_size=4),
                    "data_offsets": st.lists(sizes, max_size=3),
                }
            ),
        ),
        max_size=5,
    )
    n += fuzz(
        st.tuples(tensors, st.binary(max_size=64)),
        lambda made: trial.refuses(sealed(trial.state, made[0], made[1])),
        5_000 if nightly else 200,
    )
    print(f"\n{n} fuzzed checkpoints")


def test_fuzzed_idx_files(tmp_path, nightly):
    """A real file, packed or not, edited; and any header with any body.

    Each is a DataError that names the file, or an array of as many numbers as the file has.
    """
    array = np.arange(60).reshape(3, 4, 5)
    path, plain = tmp_path / "digits", fast_idx(array)
    import gzip

    def check(contents):
        path.write_bytes(contents)
        tracemalloc.start()
        try:
            found = read_idx(path, max_bytes=2**24)
        except DataError as e:
            assert str(path) in str(e)
        else:
            assert 4 + 4 * found.ndim + found.nbytes == len(
                gzip.decompress(contents) if contents[:2] == b"\x1f\x8b" else contents
            )
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 2**21

    n = sum(
        fuzz(EDITS, lambda edits: check(edited(good, edits)), 5_000 if nightly else 100)
        for good in (plain, gzip.compress(plain, mtime=0))
    )
    sizes = st.lists(st.one_of(st.integers(0, 6), st.integers(0, 2**32 - 1)), max_size=5)
    made = st.tuples(
        st.sampled_from([8, 9, 11, 12, 13, 14, 0, 255]),
        sizes,
        st.integers(-1, 1),
        st.binary(max_size=80),
        st.booleans(),
    )

    def build(kind, sizes, extra, body, pack):
        contents = (
            struct.pack(f">BBBB{len(sizes)}I", 0, 0, kind, max(0, len(sizes) + extra), *sizes)
            + body
        )
        return gzip.compress(contents, mtime=0) if pack else contents

    n += fuzz(made, lambda parts: check(build(*parts)), 5_000 if nightly else 100)
    print(f"\n{n} fuzzed IDX files")


# ---- kernels that die, Ctrl-C --------------------------------------------------------------------

BOOK = """
import os, sys
sys.path[:0] = [{here!r}]
import biolearn.core.checkpoints as checkpoints
import biolearn.core.learning as learning
from biolearn.reproduction.claims import Claim, record
from biolearn.reproduction.runs import trained_run
from test_resume import BRIEF
from test_reproduce import figure
checkpoints._SHARE, real = 0, checkpoints._write_checkpoint
def write(path, *a):
    real(path, *a)
    if path.stem == "epoch-00001" and not os.path.exists({marker!r}):
        open({marker!r}, "w").close()
        {then}
checkpoints._write_checkpoint = write
run = trained_run(BRIEF, seed=seed, device=device, out=out)
record("fig1_a", figure(), [Claim("w", 1.0, float(run.model.pairs[0].f.W[0, 0]), None)], out=out, caption="c", values=run.history)
"""


# nbclient looks every second whether the kernel lives. While Ctrl-C is handled it sometimes sees it
# dying, and complains with a stack trace; here it looks 100 times a second.
IMPATIENT = (
    "import asyncio, sys, types, nbclient.client as c; c.asyncio = "
    "types.SimpleNamespace(**vars(asyncio) | dict(sleep=lambda s: "
    "asyncio.sleep(s / 100)))"
)


def books(folder, then, marker):
    notebook(
        folder,
        "fig1_a",
        BOOK.format(here=str(Path(__file__).parent), marker=str(marker), then=then),
    )
    return folder


def drawn(out):
    run = next((out / "runs").glob("tiny-*"))
    assert [p.name for p in (out / "runs").iterdir()] == [run.name]
    return {
        p.name: p.read_bytes() for p in (*out.glob("fig1_a.*"), run / "model.safetensors")
    }, json.loads((run / "run.json").read_text())["resumed"]


@posix
def test_a_dead_kernel_and_ctrl_c_are_told_and_the_same_command_goes_on(tmp_path, capsys):
    """The kernel is killed in the middle of a notebook; the user presses Ctrl-C in the middle of
    training. Run again, both give the pictures of a run that nobody disturbed.
    """
    (tmp_path / "none").touch()

    def argv(out, folder):
        return [
            "reproduce",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / out),
            "--notebooks",
            str(folder),
        ]

    calm = books(tmp_path / "calm", "pass", tmp_path / "none")
    assert main(argv("whole", calm)) == 0
    wanted, resumed = drawn(tmp_path / "whole")
    assert len(wanted) == 4 and not resumed

    dying = books(tmp_path / "dying", "os.kill(os.getpid(), 9)", tmp_path / "died")
    capsys.readouterr()
    assert main(argv("killed", dying)) == 1
    said = capsys.readouterr().err
    assert "fig1_a.ipynb" in said and "kernel" in said and "Traceback" not in said
    assert json.loads((tmp_path / "killed" / "manifest.json").read_text())["failed"] and not [
        *(tmp_path / "killed").glob("fig1_a.*")
    ]
    assert main(argv("killed", dying)) == 0 and drawn(tmp_path / "killed") == (wanted, True)

    slow = books(tmp_path / "slow", "import time; time.sleep(60)", tmp_path / "slept")
    code = (
        f"{IMPATIENT}\nfrom biolearn.cli.main import main; "
        f"sys.exit(main({argv('stopped', slow)!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "slept").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert (
        process.returncode == 130
        and "Traceback" not in errors
        and "interrupted" in errors.splitlines()[-1]
    )
    assert main(argv("stopped", slow)) == 0 and drawn(tmp_path / "stopped") == (wanted, True)
