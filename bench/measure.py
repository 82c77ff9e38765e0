"Timing contenders in turns, ratios of paired times, and what is known about the machine."

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.worker import cores

ROOT = Path(__file__).resolve().parent.parent


class WorkerFailed(RuntimeError):
    "A contender's process has ended; the message is what it said last."


class Worker:
    """A contender in a child process, see bench/worker.py.

    `env` is added to the environment; `python` is the interpreter that runs it.
    """

    def __init__(self, name, *, python=None, env=(), label=None, **settings):
        self.name, self.label, self.settings = name, label or name, settings
        self.errors = tempfile.TemporaryFile("w+")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [python or sys.executable, "-m", "bench.worker", name, json.dumps(settings)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=os.environ | {"PYTHONPATH": path} | dict(env),
        )
        self.about, self.patience = None, None  # seconds that an answer may take; None: any

    def ready(self):
        "Wait until it is set up."
        if self.about is None:
            self.about = self._answer()["ready"]
        return self

    def _answer(self):
        if (
            self.patience is not None
            and not select.select([self.process.stdout], [], [], self.patience)[0]
        ):
            self.process.kill()
            raise WorkerFailed(f"{self.label}: no answer in {self.patience:g} s")
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        last = self.errors.read().strip().splitlines()[-1:] or ["no message"]
        raise WorkerFailed(f"{self.label}: {last[0]}")

    def _ask(self, **what):
        self.ready()
        try:
            print(json.dumps(what), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # _answer says why
        return self._answer()

    def run(self, n):
        "Run `n` steps: {'seconds': of all of them, 'result': what the contender measured itself}."
        return self._ask(n=n)

    def set(self, **settings):
        "Set it up anew."
        self.settings = settings
        self.about = self._ask(settings=settings)["ready"]

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def take_turns(workers, *, rounds, seconds=0.4, steps=None, pause=0.03, clock="seconds"):
    """Seconds per step of each worker in each round, {label: [seconds, ...]}: in every round each
    has one turn, in an order that is reversed every other round.

    `clock`: "seconds" by the clock on the wall, or "processor", those of all cores, which other work
    on the machine does not lengthen as long as it leaves the caches alone.

    A turn lasts about `seconds` (or exactly `steps` steps) after one step that is not timed, which
    wakes its threads; the pause lets those of the last one fall asleep.
    """
    workers = [worker.ready() for worker in workers]
    n = {}
    for worker in workers:
        worker.run(1)
        n[worker] = steps or max(1, min(200, round(seconds / worker.run(1)["seconds"])))
    times = {worker.label: [] for worker in workers}
    for i in range(rounds):
        for worker in workers[:: 1 if i % 2 else -1]:
            time.sleep(pause)
            if steps is None:
                worker.run(1)
            times[worker.label].append(worker.run(n[worker])[clock] / n[worker])
    return times


def ratios(a, b):
    "Ratio of paired times, a over b: median, smallest and largest, how many."
    values = [x / y for x, y in zip(a, b, strict=True)]
    return summary(values)


def summary(values):
    "Median, range and number of repeated measurements."
    return dict(median=statistics.median(values), range=[min(values), max(values)], n=len(values))


# ---- targets -------------------------------------------------------------------------------------


def target(name, measured, *, at_most=None, at_least=None, unit="ratio", note=""):
    """A row of results.json: does the median keep the target?

    Rows without a number (measured None) say why in `note`.
    """
    row = dict(name=name, unit=unit, median=None, range=None, n=0) | {
        k: _short(v) for k, v in (measured or {}).items()
    }
    bound = at_most if at_least is None else at_least
    row |= dict(
        target=None
        if bound is None
        else f"{'at most' if at_least is None else 'at least'} {bound:g}",
        holds=None,
        note=note,
    )
    if measured and bound is not None:
        row["holds"] = bool(row["median"] <= bound if at_least is None else row["median"] >= bound)
    return row


def _short(value):
    "Four digits are more than a timing is worth."
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_short(v) for v in value] if isinstance(value, list) else value


# ---- the machine ---------------------------------------------------------------------------------


def cpu_name():
    try:
        return re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


class OtherWork:
    """How many cores were busy, on average since this was made, with what neither this process nor
    its finished children did (Linux; None elsewhere).
    """

    def __init__(self):
        self.start = self._read()

    def _read(self):
        try:
            user, nice, system, _, _, irq, softirq, *_ = (
                int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
            )
        except (OSError, ValueError):
            return None
        own = sum(
            sum(resource.getrusage(who)[:2])
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return time.perf_counter(), (user + nice + system + irq + softirq) / os.sysconf(
            "SC_CLK_TCK"
        ) - own

    def cores(self):
        now = self._read()
        return (
            None
            if now is None
            else max(0.0, round((now[1] - self.start[1]) / (now[0] - self.start[0]), 2))
        )


def numpy_environment(threads=None):
    """The environment in which the package starts its own processes (BLAS kernels that fit the
    processor); `threads` for the BLAS, None for its own choice.
    """
    from biolearn.reproduction.figures import kernel_environment

    env = {
        name: value for name, value in kernel_environment().items() if name.startswith("OPENBLAS")
    }
    return env | ({"OPENBLAS_NUM_THREADS": str(threads)} if threads else {})


NUMPY_ALONE = {
    "NUMBA_DISABLE_JIT": "1"
}  # in the environment of a process: the package does without its compiled kernels


def has_kernels():
    "Does the package find the compiled kernels here?"
    from biolearn.kernels.dispatch import find_kernels

    return find_kernels() is not None


def torch_python(asked=None):
    """The interpreter for the peer in PyTorch: `asked`, BENCH_TORCH_PYTHON, or this one if it has
    torch; else None.
    """
    python = asked or os.environ.get("BENCH_TORCH_PYTHON")
    if python:
        return python
    return sys.executable if importlib.util.find_spec("torch") else None


def machine():
    "Processor, cores, BLAS and kernel really in use, versions."
    with Worker("products_alone", env=numpy_environment(), sizes=[8, 8], batch=2) as worker:
        about = worker.ready().about
    numba = importlib.metadata.version("numba") if has_kernels() else None
    return dict(
        cpu=cpu_name(),
        cores=cores(),
        system=f"{platform.system()} {platform.machine()}",
        environment=numpy_environment(),
        numba=numba,
        **about,
    )
