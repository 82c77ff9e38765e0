"""What a sweep costs beside the work of its runs: python -m bench.sweep_overhead writes
bench/sweep.json, which nbs/16_sweep.ipynb reads.

Measured on this machine: a task of Dask that does nothing, for 100 to 10,000 of them; a run whose
notebook does nothing, here and on Dask, and what it is made of; and planning and writing the table
for 10 to 100,000 runs. Everything is one slot (one run at a time), so that nothing overlaps.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from biolearn.reproduction import sweep as S
from biolearn.reproduction.figures import run_notebook
from biolearn.reproduction.runs import versions

RESULT = Path(__file__).resolve().parent / "sweep.json"
EMPTY = (
    "from biolearn.reproduction.claims import record\n"
    "record('00_empty', None, [], out=out, caption='Nothing was done.')"
)
SIZES = (10, 1_000, 100_000)


def seconds(job, times=1):
    "The seconds that `job()` takes, the median of `times`."
    return measure(job, times)["wall"]


def measure(job, times=1, n=1):
    """The seconds on the clock and of processor (this process and its finished children) that
    `job()` takes, the medians of `times`, divided by `n`.
    """

    def used():
        return sum(
            u.ru_utime + u.ru_stime
            for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )

    taken = []
    for _ in range(times):
        start, before = time.perf_counter(), used()
        job()
        taken.append((time.perf_counter() - start, used() - before))
    return {
        name: statistics.median(values) / n
        for name, values in zip(("wall", "processor"), zip(*taken))
    }


def empty_notebook(folder):
    "A folder with a figure notebook that does nothing."
    import nbformat
    from nbformat import v4

    folder.mkdir()
    parameters = v4.new_code_cell(
        'profile = "quick"\nseed = 0\ndevice = "auto"\nout = ""\noverrides = {}',
        metadata={"tags": ["parameters"]},
    )
    meta = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(
        v4.new_notebook(cells=[parameters, v4.new_code_cell(EMPTY)], metadata=meta),
        folder / "00_empty.ipynb",
    )
    return folder


def nothing(task):
    return task["name"]


def dask_tasks(client, n):
    "The seconds per task of `n` tasks that do nothing, given out and gathered as a sweep does."
    from dask.distributed import as_completed

    tasks = S.plan(seeds=range(n), only=["00_train"])

    def job():
        futures = client.map(nothing, tasks, pure=False)
        for future in as_completed(futures, loop=client.loop):
            future.result()
            future.release()

    return seconds(job) / n


def whole_runs(folder, books, n, **more):
    "What a run of the empty notebook takes, of `n`."
    return measure(
        lambda: S.sweep(
            seeds=range(n),
            out=folder,
            only=["00"],
            device="cpu",
            notebooks=str(books),
            progress=False,
            **more,
        ),
        n=n,
    )


def bookkeeping(n, folder, manifest):
    """Seconds to plan `n` runs, and to write their table as CSV and as Parquet; and the tables'
    megabytes.
    """
    start = time.perf_counter()
    runs = S.plan(
        sets=[{"delta": 0.1 + i / 10**7} for i in range(max(1, n // 5))],
        seeds=range(min(n, 5)),
        only=["00_train"],
    )
    planned = time.perf_counter() - start
    results = {
        run["name"]: S._result(
            run | {"threads": 1},
            "done",
            starts=1,
            seconds=30.0,
            metrics={f"m{i}": i + run["seed"] / 7 for i in range(10)},
            manifest=manifest,
        )
        for run in runs
    }
    made = {"runs": n, "plan": planned}
    for suffix in ("csv", "parquet"):
        path = folder / f"{n}.{suffix}"
        made[suffix] = seconds(lambda: S.write_table(S.table(runs, results), path))
        made[f"{suffix}_mb"] = path.stat().st_size / 1e6
    return made


def main():
    from dask.distributed import Client, LocalCluster

    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        books = empty_notebook(work / "books")
        given = dict(profile="quick", seed=0, device="cpu", out=str(work), overrides={})
        measured = {
            "Python, and importing the package": measure(
                lambda: subprocess.run(
                    [sys.executable, "-c", "import biolearn.reproduction.sweep"], check=True
                ),
                5,
            ),
            "the notebook alone, by papermill": measure(
                lambda: run_notebook(books / "00_empty.ipynb", given, work), 5
            ),
            "a run, here": whole_runs(work / "here", books, 8, workers=1, threads=1),
        }
        manifest = json.loads((work / "here" / "seed=0" / "manifest.json").read_text())
        with (
            LocalCluster(
                n_workers=1,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=":0",
            ) as cluster,
            Client(cluster) as client,
        ):
            measured["a run, on Dask"] = whole_runs(
                work / "there", books, 8, scheduler=cluster.scheduler_address, threads=1
            ) | {"processor": None}  # the workers' children are not ours
            dask_tasks(client, 10)
            tasks = {str(n): dask_tasks(client, n) for n in (100, 1_000, 10_000)}
        books_kept = [bookkeeping(n, work, manifest) for n in SIZES]
    made = {
        "cores": S.cores(),
        "load": list(os.getloadavg()),
        "versions": versions(),
        "measured": measured,
        "dask_task": tasks,
        "bookkeeping": books_kept,
    }
    RESULT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
