"""A run that is killed goes on, to the same bits: real processes, real kills.

`pytest --nightly -s tests/test_resume.py` tries many more.
"""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import biolearn
import biolearn.core.checkpoints as checkpoints
import biolearn.core.learning as learning
import biolearn.reproduction.figures as figures
import biolearn.reproduction.profiles as profiles
import biolearn.reproduction.runs as runs_module
from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.checkpoints import CheckpointError, load_model
from biolearn.core.data import load_dataset
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.model import init_model
from biolearn.core.optimizers import OPTIMIZERS
from biolearn.core.rng import Random

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork")
UNITS = ("sigmoid", "softplus", "sigmoid")
RECIPE = TrainConfig(
    epochs=5,
    batch_size=4,
    noise=(0.1, 0.1, "spikes"),
    noise_end=(0.05, 0.1, "spikes"),
    rate_f=(1e-2,) * 2,
    rate_g=(2e-2,) * 2,
)


def network(backend=None):
    return init_model((6, 5, 4), UNITS, rng=Random(0, backend))


def data(n=10):
    return Random(1).uniform((n, 6))


def files(folder):
    return sorted(p.name for p in Path(folder).iterdir() if p.name != "lock")


def train(folder=None, recipe=RECIPE, backend=None, x=None, model=None, rng=None, **kw):
    return fit(
        model or network(backend),
        data() if x is None else x,
        recipe,
        rng=rng or Random(2, backend),
        progress=False,
        checkpoint=folder,
        **kw,
    )


def same(one, other):
    "Are two results of `fit` the same to the bit?"
    arrays = [
        [to_numpy(a) for a in (*checkpoints.weights_of(m).values(), m.prior.mean, m.prior.var)]
        for m, _ in (one, other)
    ]
    return (
        all(a.tobytes() == b.tobytes() for a, b in zip(*arrays, strict=True)) and one[1] == other[1]
    )


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    "Without the rule that spares time: a checkpoint after every epoch."
    monkeypatch.setattr(checkpoints, "_SHARE", 0)


class Killed(BaseException):
    "Stands in for a kill: nothing may catch it."


def stop_after(epoch):
    def stop(model, history):
        if len(history) == epoch:
            raise Killed

    return stop


# ---- fit: stopped after any epoch, it goes on ----------------------------------------------------


@pytest.mark.parametrize(
    "optimizer, epoch", [*((name, 3) for name in OPTIMIZERS), ("adam", 1), ("adam", 5)]
)
def test_stopped_after_an_epoch_it_goes_on_to_the_same_bits(tmp_path, backend, optimizer, epoch):
    "On every backend, with every optimiser's books; the epochs that are done are not done again."
    recipe, x = replace(RECIPE, optimizer=optimizer), backend.asarray(data())
    with pytest.raises(Killed):
        train(tmp_path, recipe, backend, x, on_epoch=stop_after(epoch))
    assert files(tmp_path) == [f"epoch-{e:05d}.safetensors" for e in (epoch - 1, epoch)]
    seen = []
    again = train(tmp_path, recipe, backend, x, on_epoch=lambda m, h: seen.append(len(h)))
    assert same(again, train(None, recipe, backend, x)) and seen == list(range(epoch + 1, 6))


def test_stopped_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    """What the lost half of an epoch did to weights, books and random streams must not be seen
    again.
    """
    whole, step = train(), learning.em_step
    for t in (1, 2, 4, 8, 14):

        def interrupted(state, *rest):
            if state.t == t:
                raise Killed
            return step(state, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(learning, "em_step", interrupted)
            with pytest.raises(Killed):
                train(tmp_path / str(t))
        assert same(train(tmp_path / str(t)), whole)


def test_stopped_while_the_prior_is_fitted_nothing_is_trained_again(tmp_path, monkeypatch):
    whole = train()
    with monkeypatch.context() as patch:
        patch.setattr(learning, "fit_top_prior", lambda *a: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(tmp_path)
    monkeypatch.setattr(learning, "em_step", None)
    assert same(train(tmp_path), whole) and same(train(tmp_path), whole)


def test_a_model_with_arrays_in_another_order_of_memory(tmp_path):
    """The layout of a weight array may decide about the last bit of a matrix product: it must be
    the same after a resume.
    """
    flip = lambda d: checkpoints.Dense(np.asfortranarray(d.W), d.b, d.unit)
    model = replace(
        network(), pairs=tuple(checkpoints.LayerPair(flip(p.f), flip(p.g)) for p in network().pairs)
    )
    with pytest.raises(Killed):
        train(tmp_path, model=model, on_epoch=stop_after(2))
    assert same(train(tmp_path, model=model), train(model=model))


def test_wide_numbers_keep_all_their_bits(tmp_path):
    wide = lambda d: checkpoints.Dense(d.W.astype(float), d.b.astype(float), d.unit)
    model = replace(
        network(), pairs=tuple(checkpoints.LayerPair(wide(p.f), wide(p.g)) for p in network().pairs)
    )
    x = Random(1).uniform((10, 6), "float64")
    with pytest.raises(Killed):
        train(tmp_path, model=model, x=x, on_epoch=stop_after(2))
    assert same(train(tmp_path, model=model, x=x), train(model=model, x=x))


def test_checkpoints_change_nothing_and_the_newest_two_are_kept(tmp_path):
    assert same(train(tmp_path / "a" / "b"), train()) and files(tmp_path / "a" / "b") == [
        "epoch-00004.safetensors",
        "epoch-00005.safetensors",
    ]


def test_a_checkpoint_can_be_read_as_a_model(tmp_path):
    kept = {}
    train(tmp_path, on_epoch=lambda m, h: kept.update({len(h): learning.copy_model(m)}))
    model = load_model(tmp_path / "epoch-00004.safetensors", Backend())
    assert model.prior is None and all(
        (a == b).all()
        for a, b in zip(
            checkpoints.weights_of(model).values(), checkpoints.weights_of(kept[4]).values()
        )
    )


@pytest.mark.parametrize(
    "write, epoch_takes, expected",
    [(1, 3, [0, 8, 15, 22, 29, 30]), (60, 100, [0, *range(4, 31, 3), 30])],
)
def test_writing_takes_its_share_of_the_time_and_no_more(
    tmp_path, monkeypatch, write, epoch_takes, expected
):
    """With writes of one second and epochs of three, a share of a twentieth means one write in
    seven epochs: 19 seconds lie between them. The first and the last are written anyway.

    With writes of a minute the share would be 19 minutes: after five at most one is written, here
    with epochs of 100 seconds every third one.
    """
    clock, written = [0.0], []
    monkeypatch.setattr(checkpoints, "_SHARE", 20)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    real = checkpoints._write_checkpoint

    def slow(path, *a):
        clock[0] += write
        written.append(checkpoints._epoch(path))
        real(path, *a)

    monkeypatch.setattr(checkpoints, "_write_checkpoint", slow)

    def epoch(model, history):
        clock[0] += epoch_takes

    train(tmp_path, replace(RECIPE, epochs=30), on_epoch=epoch)
    assert written == expected


def test_leftovers_of_a_killed_writer_are_swept_away_and_nothing_else(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, on_epoch=stop_after(2))
    for name in (".epoch-00003-abcdefgh.safetensors", "notes.txt", "epoch-3.safetensors"):
        (tmp_path / name).write_text("half")
    assert same(train(tmp_path), train())
    assert files(tmp_path) == [
        "epoch-00004.safetensors",
        "epoch-00005.safetensors",
        "epoch-3.safetensors",
        "notes.txt",
    ]


# ---- the checkpoint of another run ---------------------------------------------------------------

OTHER = {
    "recipe.delta is 0.1 there and 0.2 here": dict(recipe=replace(RECIPE, delta=0.2)),
    "recipe.epochs is 5 there and 6 here": dict(recipe=replace(RECIPE, epochs=6)),
    "recipe.noise is [0.1, 0.1, 'spikes'] there and [0.1, 0.2, 'spikes'] here": dict(
        recipe=replace(RECIPE, noise=(0.1, 0.2, "spikes"))
    ),
    "recipe.optimizer is 'adam' there and 'sgd' here": dict(
        recipe=replace(RECIPE, optimizer="sgd")
    ),
    "data.sha256 is ": dict(x=data() * np.float32(0.999)),
    "data.rows is 10 there and 11 here": dict(x=data(11)),
    "random stream.seed is 2 there and 3 here": dict(rng=Random(3)),
    "random stream.address is ": dict(rng=Random(2).stream("a")),
    "starting weights.sha256 is ": dict(model=init_model((6, 5, 4), UNITS, rng=Random(9))),
    "sizes is [6, 5, 4] there and [6, 7, 4] here": dict(
        model=init_model((6, 7, 4), UNITS, rng=Random(0))
    ),
    (
        "units is ['sigmoid', 'softplus', 'sigmoid'] there and ['sigmoid', 'tanh', 'sigmoid'] here"
    ): dict(model=init_model((6, 5, 4), ("sigmoid", "tanh", "sigmoid"), rng=Random(0))),
}


@pytest.mark.parametrize("said", OTHER)
def test_other_settings_are_refused_by_name_and_nothing_is_touched(tmp_path, said):
    with pytest.raises(Killed):
        train(tmp_path, on_epoch=stop_after(3))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CheckpointError) as e:
        train(tmp_path, **OTHER[said])
    assert (
        said in str(e.value)
        and str(tmp_path / "epoch-00003.safetensors") in str(e.value)
        and "another folder" in str(e.value)
    )
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_several_differences_are_all_named_and_another_device_is_one(tmp_path, strict_backend):
    with pytest.raises(Killed):
        train(tmp_path, on_epoch=stop_after(1))
    with pytest.raises(
        CheckpointError,
        match=r"recipe.alpha is 0.001 there and 0.1 here; device is 'cpu' there and 'array_api_strict' here",
    ):
        train(tmp_path, replace(RECIPE, alpha=0.1), strict_backend, strict_backend.asarray(data()))


def test_another_number_of_threads_or_other_kernels_are_told(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        train(tmp_path, on_epoch=stop_after(2))
    from contextlib import nullcontext

    real = checkpoints.find_kernels
    monkeypatch.setattr(learning, "use_threads", lambda a: nullcontext(learning.Threads(7)))
    with pytest.warns(
        UserWarning,
        match=(
            "epoch-00002.safetensors was made by threads: ., compiled kernels: .*, "
            "now it is threads: 7.*not to the bit"
        ),
    ):
        again = train(tmp_path)
    assert len(again[1]) == 5
    monkeypatch.setattr(checkpoints, "find_kernels", lambda *a: None if real(*a) else True)
    with pytest.warns(
        UserWarning,
        match="epoch-00005.safetensors was made by .*compiled kernels: .*not to the bit",
    ):
        train(tmp_path)


def test_settings_made_of_numpys_numbers(tmp_path):
    "They are the same settings as Python's, and JSON must not stumble over them."
    with pytest.raises(Killed):
        train(tmp_path, on_epoch=stop_after(2))
    theirs = replace(
        RECIPE,
        epochs=np.int64(5),
        delta=np.float64(0.1),
        rate_f=np.array([1e-2, 1e-2]),
        noise=(np.float64(0.1), 0.1, "spikes"),
    )
    assert (
        same(train(tmp_path, theirs, rng=Random(np.int64(2))), train())
        and train(None, theirs)[0].pairs[0].f.W.dtype == np.float32
    )


# ---- two processes on one folder -----------------------------------------------------------------

HOLDER = """
import sys, time
sys.path[:0] = [{here!r}]
import test_resume as t
def slow(model, history): print("training", flush=True); time.sleep(60)
t.train({folder!r}, on_epoch=slow)
"""


def start(code):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(biolearn.__file__).parent.parent)},
    )


def test_a_folder_in_use_is_refused_until_its_process_is_gone(tmp_path):
    process = start(HOLDER.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    assert process.stdout.readline() == "training\n"
    before = files(tmp_path)
    with pytest.raises(
        CheckpointError, match=f"{re.escape(str(tmp_path))}: another process is training there"
    ):
        train(tmp_path)
    assert files(tmp_path) == before
    process.kill()
    process.wait()
    process.stdout.close()
    assert same(train(tmp_path), train())


TINY = replace(
    profiles.PROFILES["quick"],
    name="tiny",
    hidden=(9, 5),
    recipe=replace(profiles.PROFILES["quick"].recipe, epochs=8, batch_size=200),
)
BRIEF = replace(TINY, recipe=replace(TINY.recipe, epochs=2))


def test_the_second_waits_and_takes_the_finished_model(tmp_path, monkeypatch, capsys):
    "Two threads stand for two processes: the system's lock treats them alike."
    fits, real, runs = [], runs_module.fit, []

    def counted(*a, **kw):
        fits.append(1)
        return real(*a, progress=False, **kw)

    monkeypatch.setattr(runs_module, "fit", counted)
    threads = [
        threading.Thread(
            target=lambda: runs.append(runs_module.trained_run(TINY, device="cpu", out=tmp_path))
        )
        for _ in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(runs) == 3 and len(fits) == 1 and same(*((r.model, r.history) for r in runs[:2]))
    assert (
        f"Another process is training {runs[0].key}: waiting for its model."
        in capsys.readouterr().err
    )
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [runs[0].key]


# ---- runs: what trained_run leaves, refuses and takes up again -----------------------------------


@pytest.fixture
def quiet(monkeypatch):
    real = runs_module.fit
    monkeypatch.setattr(runs_module, "fit", lambda *a, **kw: real(*a, **kw | {"progress": False}))


def test_a_run_cut_off_anywhere_is_taken_up_again_and_leaves_nothing_behind(
    tmp_path, monkeypatch, quiet
):
    """Cut off in training, while its files are written, while it is renamed, and between the
    renaming and the sweeping up.
    """
    whole = runs_module.trained_run(BRIEF, device="cpu", out=tmp_path / "whole")

    def cut(*a, **kw):
        raise Killed

    def late(*a, **kw):
        real_replace(*a, **kw)
        raise Killed

    real_replace = os.replace
    for n, (where, what, how) in enumerate(
        [
            (learning, "measure_epoch", cut),
            (learning, "fit_top_prior", cut),
            (runs_module, "save_model", cut),
            (runs_module, "write_text", cut),
            (figures.os, "replace", late),
            (runs_module, "flush_folder", cut),
            (runs_module.shutil, "rmtree", cut),
        ]
    ):
        out = tmp_path / str(n)
        with monkeypatch.context() as patch:
            patch.setattr(where, what, how)
            with pytest.raises(Killed):
                runs_module.trained_run(BRIEF, device="cpu", out=out)
        run = runs_module.trained_run(BRIEF, device="cpu", out=out)
        assert same((run.model, run.history), (whole.model, whole.history)), what
        assert (run.folder / "model.safetensors").read_bytes() == (
            whole.folder / "model.safetensors"
        ).read_bytes()
        assert [str(p.relative_to(out)) for p in sorted(out.rglob("*"))] == [
            "runs",
            f"runs/{run.key}",
            f"runs/{run.key}/model.safetensors",
            f"runs/{run.key}/run.json",
        ], what
    assert (
        json.loads((run.folder / "run.json").read_text())["resumed"] is False
        and json.loads((tmp_path / "0" / "runs" / run.key / "run.json").read_text())["resumed"]
        is True
    )


def test_a_run_folder_of_other_settings_is_refused(tmp_path, quiet):
    other = replace(BRIEF, sigma=0.3, recipe=replace(BRIEF.recipe, delta=0.2))
    made, wanted = (
        runs_module.trained_run(BRIEF, device="cpu", out=tmp_path),
        tmp_path / "runs" / runs_module.run_key(other, 0, Backend()),
    )
    made.folder.rename(wanted)
    before = {p.name: p.read_bytes() for p in wanted.iterdir()}
    with pytest.raises(figures.ReproduceError) as e:
        runs_module.trained_run(other, device="cpu", out=tmp_path)
    for said in (
        str(wanted),
        f"key is {made.key!r} there and {wanted.name!r} here",
        "settings.sigma is 0.2 there and 0.3 here",
        "settings.recipe.delta is 0.1 there and 0.2 here",
    ):
        assert said in str(e.value)
    assert {p.name: p.read_bytes() for p in wanted.iterdir()} == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:100],
        lambda text: "[]",
        lambda text: "",
        lambda text: text.replace('"history"', '"histoire"'),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_run_json_is_named(tmp_path, quiet, spoil):
    run = runs_module.trained_run(BRIEF, device="cpu", out=tmp_path)
    (run.folder / "run.json").write_text(spoil((run.folder / "run.json").read_text()))
    with pytest.raises(figures.ReproduceError, match="run.json is damaged.*Delete the folder"):
        runs_module.trained_run(BRIEF, device="cpu", out=tmp_path)


# ---- real processes, killed at random ------------------------------------------------------------

# A process that has imported everything, and forks a child for each line it reads: starting Python
# anew for each kill would take most of the time.
# The child's writes are slow, in pieces, so that kills hit them: the product itself knows nothing
# of this.
NURSERY = """
import json, os, signal, sys, tempfile, time
sys.path[:0] = [{here!r}]
from pathlib import Path
import biolearn.core.checkpoints as checkpoints, biolearn.kernels.dispatch as dispatch
import test_resume as t, test_reproduce
from biolearn.reproduction import claims, runs
import filelock, safetensors.numpy, sklearn.datasets, tqdm
with tempfile.TemporaryDirectory() as folder: claims.record("warm", test_reproduce.figure(), [], out=folder, caption="")      # fonts are looked for once
checkpoints._SHARE = 0
dispatch.compiled_kernels()
real = {{"fsync": os.fsync, "replace": os.replace, "write": Path.write_bytes}}
def event():
    "A moment in a write: slow, so that kills from outside hit it; and perhaps the moment to die at."
    global die_at
    time.sleep(0.004)
    die_at -= 1
    if die_at == 0: os.kill(os.getpid(), signal.SIGKILL)
def slowly(name):
    def call(*a, **kw): event(); real[name](*a, **kw)
    return call
def in_pieces(self, data):
    with open(self, "wb") as file:
        for i in range(0, len(data), len(data) // 3 + 1): file.write(data[i:i + len(data) // 3 + 1]); file.flush(); event()
os.fsync, os.replace, Path.write_bytes = slowly("fsync"), slowly("replace"), in_pieces
def work(out):
    sys.stderr = open(os.devnull, "w")
    run = runs.trained_run(t.TINY, device="cpu", out=out)
    claims.record("fig", test_reproduce.figure(), [claims.Claim("weight", 1.0, float(run.model.pairs[0].f.W[0, 0]), None)], out=run.out, caption="c", values=run.history)
for line in sys.stdin:
    out, kill_after, die_at = json.loads(line)
    begun, pid = time.monotonic(), os.fork()
    if pid == 0:
        code = 1
        try: work(out); code = 0
        finally: os._exit(code)
    print(pid, flush=True)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)            # a child that has ended keeps its number until it is waited for
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), time.monotonic() - begun, flush=True)
"""


class Nursery:
    "Children that train a tiny run and draw its figure into a folder, each a process of its own."

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY.format(here=str(Path(__file__).parent))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "PYTHONPATH": str(Path(biolearn.__file__).parent.parent),
                "OPENBLAS_NUM_THREADS": "1",
            },
        )

    def begin(self, out, kill_after=None, die_at=0):
        """Let a child work in `out`, and kill it after so many seconds, or at so many-th moment of
        its writes; returns its process number.
        """
        print(json.dumps([str(out), kill_after, die_at]), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def end(self):
        "Wait for the child: (its exit code, seconds)."
        code, seconds = self.process.stdout.readline().split()
        return int(code), float(seconds)

    def child(self, out, **kw):
        self.begin(out, **kw)
        return self.end()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def nursery():
    made = Nursery()
    yield made
    made.close()


def outcome(out):
    "What must be the same: model, history and figure, byte by byte."
    run = next((out / "runs").glob("tiny-*"))
    return {p.name: p.read_bytes() for p in (run / "model.safetensors", *out.glob("fig.*"))} | {
        "history": json.loads((run / "run.json").read_text())["history"]
    }


def where(out):
    "Where a kill has hit: told by what it has left."
    runs = [*(out / "runs").glob("tiny-*")] if (out / "runs").exists() else []
    unfinished = [r for r in runs if r.name.endswith(".unfinished")]
    if unfinished and [*unfinished[0].rglob(".*.safetensors"), *unfinished[0].rglob(".*.json")]:
        return "while a file of the run was written"
    if unfinished and (unfinished[0] / "made").exists():
        return "between the files of the run"
    if unfinished:
        return "between writes"
    return (
        "while the figure was drawn or written"
        if any(r.is_dir() for r in runs)
        else "before training"
    )


@posix
def test_killed_anywhere_and_started_again_the_outcome_is_the_same(nursery, tmp_path, nightly):
    """SIGKILL at random moments: in an epoch, in a write, while the figure is drawn; several times
    in one run. A few here, 60 and more with --nightly.
    """
    whole, (code, seconds) = tmp_path / "whole", nursery.child(tmp_path / "whole")
    assert code == 0
    wanted, rng, hits, n = outcome(whole), random.Random(time.time_ns() if nightly else 1), {}, 0
    assert (
        set(wanted) == {"model.safetensors", "fig.png", "fig.svg", "fig.json", "history"}
        and len(wanted["history"]) == 8
    )
    while sum(hits.values()) < (60 if nightly else 4):
        out, code, n = tmp_path / str(n), None, n + 1
        out.mkdir()
        for _ in range(rng.randint(1, 5)):
            code, _ = nursery.child(out, kill_after=rng.uniform(0, seconds))
            if code == 0:
                break
            assert code == -signal.SIGKILL
            hits[where(out)] = hits.get(where(out), 0) + 1
        code, _ = nursery.child(out)
        assert code == 0
        found = outcome(out)
        assert [name for name in wanted if found[name] != wanted[name]] == []
        assert not [p for p in (out / "runs").iterdir() if "." in p.name], (
            "a finished run leaves nothing behind"
        )
    print(
        f"\n{sum(hits.values())} kills in {n} runs of {seconds:.1f} s: "
        + ", ".join(f"{count} {what}" for what, count in sorted(hits.items()))
    )
    if nightly:
        assert {
            "between writes",
            "while a file of the run was written",
            "while the figure was drawn or written",
        } <= hits.keys(), "the kills missed a kind of moment"


MOMENTS = {
    8: "in the middle of a checkpoint",
    10: "before it is flushed",
    11: "before it is renamed",
    12: "before its folder is flushed",
}  # of the second file that is written


@posix
def test_killed_in_the_middle_of_a_write(nursery, tmp_path, nightly):
    """SIGKILL at chosen moments of a write, one run after the other in one folder; with --nightly
    at every moment of a whole run, each in a folder of its own.
    """
    assert nursery.child(tmp_path / "whole")[0] == 0
    wanted, out, n = outcome(tmp_path / "whole"), tmp_path / "out", 0
    for moment in MOMENTS:
        assert nursery.child(out, die_at=moment)[0] == -signal.SIGKILL, MOMENTS[moment]
    assert nursery.child(out)[0] == 0 and outcome(out) == wanted
    while nightly:
        n, out = n + 1, tmp_path / str(n)
        if nursery.child(out, die_at=n)[0] == 0:
            break
        assert nursery.child(out)[0] == 0 and outcome(out) == wanted, n
    print(f"\n{len(MOMENTS) + max(0, n - 1)} kills in the middle of a write")


@posix
def test_two_processes_and_a_kill_on_one_folder(nursery, tmp_path):
    """While one process trains, another waits.

    The first is killed: the second goes on from its checkpoint.
    """
    second = Nursery()
    try:
        whole = tmp_path / "whole"
        assert second.child(whole)[0] == 0
        first = nursery.begin(tmp_path / "both")
        deadline = time.monotonic() + 30
        while (
            not [*tmp_path.glob("both/runs/*/checkpoints/epoch-0000[2-9]*")]
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        second.begin(tmp_path / "both")
        time.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        assert nursery.end()[0] == -signal.SIGKILL and second.end()[0] == 0
        assert outcome(tmp_path / "both") == outcome(whole)
        assert (
            json.loads(next(tmp_path.glob("both/runs/tiny-*/run.json")).read_text())["resumed"]
            is True
        )
    finally:
        second.close()


def test_a_checkpoint_of_another_version_of_the_algorithm_is_refused(tmp_path, monkeypatch):
    "What trained is named by what was imported, also in checkpoints: nothing is mixed in silence."
    with pytest.raises(Killed):
        train(tmp_path, on_epoch=stop_after(2))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "ALGORITHM", checkpoints.ALGORITHM + 1)
        with pytest.raises(checkpoints.CheckpointError, match="algorithm"):
            train(tmp_path)
    assert len(train(tmp_path)[1]) == 5


def test_a_lock_that_a_kill_has_left_beside_a_finished_run_goes(tmp_path):
    run = runs_module.trained_run(BRIEF, device="cpu", out=tmp_path)
    (tmp_path / "runs" / f"{run.key}.lock").touch()
    runs_module.trained_run(BRIEF, device="cpu", out=tmp_path)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [run.key]


# ---- file systems that serve no locks and rename no folders --------------------------------------


@posix
@pytest.mark.parametrize("code", ["ENOLCK", "ENOTSUP", "EOPNOTSUPP"])
def test_where_nothing_can_be_locked_training_goes_on_with_a_line(
    tmp_path, monkeypatch, capsys, quiet, code
):
    import fcntl

    def refused(*a):
        raise OSError(getattr(errno, code), "refused")

    monkeypatch.setattr(fcntl, "flock", refused)
    assert same(train(tmp_path / "checkpoints"), train())
    run = runs_module.trained_run(BRIEF, device="cpu", out=tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("No lock on")]
    assert len(said) == 3 and all("nothing keeps a second process out" in line for line in said)
    assert said[0].startswith(f"No lock on {tmp_path / 'checkpoints' / 'lock'}: ")
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [run.key]


def without_folders(monkeypatch):
    "A file system that renames files and refuses to rename folders."
    real = os.replace

    def replace_file(source, target):
        if Path(source).is_dir():
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_file)


def test_where_no_folder_can_be_renamed_the_run_is_copied_with_a_line(
    tmp_path, monkeypatch, capsys, quiet
):
    whole = runs_module.trained_run(BRIEF, device="cpu", out=tmp_path / "whole")
    without_folders(monkeypatch)
    run = runs_module.trained_run(BRIEF, device="cpu", out=tmp_path / "copied")
    assert f"{run.folder}: its files are copied one by one; " in capsys.readouterr().err
    assert same((run.model, run.history), (whole.model, whole.history))
    left = sorted(str(p.relative_to(run.folder.parent)) for p in run.folder.parent.rglob("*"))
    assert left == [run.key, f"{run.key}/model.safetensors", f"{run.key}/run.json"]


@pytest.mark.parametrize("later", ["refused", "served"])
def test_a_copy_cut_off_anywhere_is_taken_up_again(tmp_path, monkeypatch, quiet, later):
    "Before the first file, between the two, and after both; renaming may be served by then."
    real = shutil.copyfile
    for n in (0, 1, 2):
        out, copied = tmp_path / str(n), []

        def copy(source, target):
            if len(copied) == n:
                raise Killed
            copied.append(real(source, target))

        def cut(*a):
            raise Killed

        with monkeypatch.context() as patch:
            without_folders(patch)
            patch.setattr(shutil, "copyfile", copy)
            patch.setattr(shutil, "rmtree", cut)
            with pytest.raises(Killed):
                runs_module.trained_run(BRIEF, device="cpu", out=out)
        with monkeypatch.context() as patch:
            if later == "refused":
                without_folders(patch)
            run = runs_module.trained_run(BRIEF, device="cpu", out=out)
        left = sorted(str(p.relative_to(out / "runs")) for p in (out / "runs").rglob("*"))
        assert left == [run.key, f"{run.key}/model.safetensors", f"{run.key}/run.json"], n


# ---- what would be in the way of a finished run --------------------------------------------------


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("kind", ["lost run.json", "file", "link"])
def test_what_is_in_the_way_of_a_finished_run_is_told_before_the_training(
    tmp_path, monkeypatch, quiet, kind, unfinished
):
    run = runs_module.trained_run(BRIEF, device="cpu", out=tmp_path)
    (run.folder / "run.json").unlink()
    kept = (run.folder / "model.safetensors").read_bytes()
    away = run.folder.rename(tmp_path / "away")
    if kind == "file":
        run.folder.write_text("mine")
    elif kind == "link":
        run.folder.symlink_to(away)
    else:
        away.rename(run.folder)
    if unfinished:  # as the training before left it, which was lost in its last step
        (tmp_path / "runs" / f"{run.key}.unfinished" / "made").mkdir(parents=True)
        (tmp_path / "runs" / f"{run.key}.unfinished" / "made" / "run.json").touch()
    with monkeypatch.context() as patch:
        patch.setattr(runs_module, "fit", lambda *a, **kw: pytest.fail("it was trained first"))
        with pytest.raises(figures.ReproduceError, match="Move that folder away"):
            runs_module.trained_run(BRIEF, device="cpu", out=tmp_path)
    if kind == "file":
        assert run.folder.read_text() == "mine"
    else:
        assert (run.folder / "model.safetensors").read_bytes() == kept
    run.folder.rename(tmp_path / "moved")
    again = runs_module.trained_run(BRIEF, device="cpu", out=tmp_path)
    assert same((again.model, again.history), (run.model, run.history))
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [run.key]


def test_a_run_trains_on_the_pictures_themselves(tmp_path, monkeypatch):
    "No second copy of the training digits is held while the network learns."
    seen, data = [], load_dataset("digits")
    monkeypatch.setattr(
        runs_module, "fit", lambda model, x, *_, **__: (seen.append(x), (model, []))[1]
    )
    runs_module._fit_profile(profiles.PROFILES["quick"], data, Random(0), tmp_path)
    assert np.shares_memory(seen[0], data.train)
