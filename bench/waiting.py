"""What people wait for, beside an earlier version of this repository:

    git worktree add ../before 0a15ec4
    python -m bench.waiting ../before                  # figures, tests and memory, each in turn
    python -m bench.waiting ../before --only figures

Both versions run on the same interpreter and its packages, one after the other, and bench/waiting.json
gets the seconds of each and their ratio. `figures` are those of `make figures PROFILE=quick`, of the
notebooks that both have; `tests` is `make test`. Close other programs first. `memory` is the most that
a kernel holds at the scale of the paper (MNIST, one epoch of training), in MiB for each notebook.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from biolearn.reproduction.runs import versions
from biolearn.reproduction.study import cores

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "waiting.json"
TESTS = "-m pytest -q -n auto --dist loadfile --no-loadscope-reorder tests"
NOTEBOOKS = Path(".ci") / "notebooks.py"  # of the notebooks that are tests; before there was one:
MNIST = (
    "00_train",
    "fig2_target_propagation",
    "fig4_inference",
    "fig5_inpainting",
    "table1_parzen",
)
REPRODUCE = (  # and what its settings were called
    ("from biolearn.reproduction.figures import reproduce", "overrides"),
    ("from biolearn.reproduce import reproduce", "changes"),
)
NBDEV_TEST = "from nbdev.test import nbdev_test; nbdev_test(skip_folder_re='^([_.]|figures$)', do_print=True)"


def seconds(argv, tree, log):
    "The seconds that Python takes with the arguments `argv` in `tree`, whose package it imports."
    env = os.environ | {"PYTHONPATH": str(tree)}
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, *argv], cwd=tree, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )
    if ended.returncode:
        raise SystemExit(f"{tree}: {' '.join(argv[:6])} failed; see {log.name}")
    return time.perf_counter() - start


def command(tree):
    "Code that is the `biolearn` command of `tree`, whose module has had two names."
    module = (
        "biolearn.command" if (tree / "biolearn" / "command.py").exists() else "biolearn.cli.main"
    )
    return f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"


def figures(tree, shared, log):
    "Seconds of the figures at the quick scale, of the notebooks `shared`."
    with tempfile.TemporaryDirectory() as out:
        argv = ["reproduce", "--profile", "quick", "--out", out, "--only", *shared]
        return seconds(["-c", command(tree), *argv], tree, log)


def tests(tree, shared, log):
    "Seconds of the tests and of the notebooks that are tests too, one thread in each process."
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    notebooks = [str(NOTEBOOKS)] if (tree / NOTEBOOKS).exists() else ["-c", NBDEV_TEST]
    return seconds(TESTS.split(), tree, log) + seconds(notebooks, tree, log)


def memory(tree, shared, log):
    "{notebook: MiB} of those that work with all of MNIST, each in a kernel of its own."
    start, name = REPRODUCE[(tree / "biolearn" / "reproduce.py").exists()]
    asked = f"'paper', sys.argv[2:], 'cpu', 0, sys.argv[1], {name}={{'epochs': 1}}"
    found = {}
    with tempfile.TemporaryDirectory() as out:
        for stem in (stem for stem in MNIST if stem in shared):
            seconds(["-c", f"import sys; {start}; reproduce({asked})", out, stem], tree, log)
            manifest = json.loads((Path(out) / "manifest.json").read_text(encoding="utf-8"))
            found[stem] = manifest["peak_memory_mib"]
    return found


JOBS = {"figures": figures, "tests": tests, "memory": memory}


def stems(tree):
    return {path.stem for path in (tree / "nbs" / "figures").glob("*.ipynb")}


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m bench.waiting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", type=Path, help="a worktree of the earlier version")
    parser.add_argument("--only", choices=list(JOBS), help="one of them")
    asked = parser.parse_args(argv)
    before = asked.before.resolve()
    if not stems(before):
        raise SystemExit(f"{before} is no worktree of this repository: it has no nbs/figures.")
    shared = sorted(stems(before) & stems(ROOT))
    commit = subprocess.run(
        ["git", "-C", before, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    made = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in [asked.only] if asked.only else JOBS:
        with open(Path(tempfile.gettempdir()) / f"bench-waiting-{name}.log", "wb") as log:
            was, now = (JOBS[name](tree, shared, log) for tree in (before, ROOT))
        whole, unit = {}, "s"
        if name == "memory":
            whole = {"by notebook": {stem: [was[stem], now[stem]] for stem in now}}
            was, now, unit = max(was.values()), max(now.values()), "MiB"
        made[name] = {
            "before": round(was, 1),
            "now": round(now, 1),
            "ratio": round(now / was, 3),
            **whole,
            "commit before": commit.stdout.strip(),
            "cores": cores(),
            "versions": versions(),
        }
        print(f"{name}: {was:.0f} {unit} before, {now:.0f} {unit} now, ratio {now / was:.2f}")
        RESULT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
