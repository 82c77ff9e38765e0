"""What is measured, section by section. Each section is a function options -> {"targets": rows of
results.json, "tables": what the page shows besides}.

Every time is a median over turns that the contenders take one after the other (see `take_turns`),
every ratio a median of ratios within one turn.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import plain, products
from bench.measure import (
    NUMPY_ALONE,
    ROOT,
    Worker,
    WorkerFailed,
    cores,
    has_kernels,
    numpy_environment,
    ratios,
    summary,
    take_turns,
    target,
    torch_python,
)

MILLI = 1e3


def _table(times, scale=MILLI):
    "{label: median, low, high} of seconds, in units of 1/scale seconds."
    rows = {label: summary([v * scale for v in values]) for label, values in times.items()}
    return {
        label: {
            k: [round(x, 3) for x in v] if isinstance(v, list) else round(v, 3)
            for k, v in row.items()
        }
        for label, row in rows.items()
    }


def _ways(**settings):
    "The products alone, with the two ways of using the cores."
    one = Worker(
        "products_alone",
        label="products, threads of the BLAS",
        env=numpy_environment(cores()),
        **settings,
    )
    if cores() == 1:
        return [one]
    return [
        one,
        Worker(
            "products_alone",
            label="products, examples shared by threads",
            env=numpy_environment(1),
            threads=cores(),
            **settings,
        ),
    ]


def _close(workers):
    for worker in workers:
        worker.close()


def _fastest(times, labels):
    "The label with the smallest median."
    return min(labels, key=lambda label: statistics.median(times[label]))


# ---- 1. the training step on the CPU -------------------------------------------------------------


def _torch_workers(python):
    "The peers in PyTorch: eager and compiled, on one core and on all."
    counts = sorted({1, cores()}, reverse=True)
    return [
        Worker(
            "torch_peer",
            python=python,
            label=f"PyTorch, {'eager' if mode == 'eager' else 'torch.compile'}, {n} thread{'s' * (n > 1)}",
            mode=mode,
            threads=n,
        )
        for mode in ("eager", "default")
        for n in counts
    ]


MIXED, JAX = "biolearn, mixed precision", "JAX, compiled as a whole"
MKL = "biolearn, products by MKL"


def _optional(python):
    """Those that need a package that may be missing, in the interpreter `python`: (workers that came
    through a step, {label: what the others said}).
    """
    env = numpy_environment()
    workers = [
        Worker("biolearn", python=python, label=MIXED, env=env, precision="mixed"),
        Worker("biolearn", python=python, label=MKL, env=env, mkl=True),
        Worker("jax_peer", python=python, label=JAX),
    ]
    alive, failed = _those_that_run(workers)
    _close(worker for worker in workers if worker not in alive)
    return alive, failed


def _optional_rows(times, alive, failed):
    "Their rows: the step in mixed precision, by MKL, and JAX's, each beside ours."
    about = {worker.label: worker.about for worker in alive}
    ratio = lambda a, b: ratios(times[a], times[b]) if {a, b} <= times.keys() else None
    return [
        target(
            "mixed precision / training step",
            ratio(MIXED, "biolearn"),
            at_most=0.7,
            note=failed.get(MIXED) or f"inference in bfloat16, torch {about[MIXED]['torch']}",
        ),
        target(
            "products by MKL / training step",
            ratio(MKL, "biolearn"),
            note=failed.get(MKL) or f"MKL {about[MKL]['mkl']}, forced",
        ),
        target(
            "JAX / training step",
            ratio(JAX, "biolearn"),
            note=failed.get(JAX) or f"jax {about[JAX]['jax']}, all cores",
        ),
    ]


def cpu(options):
    "A training step of the paper's size against its matrix products alone and against its peers."
    python = torch_python(options.torch)
    flop = products.flop(products.step_products(plain.SIZES, plain.BATCH, 15))
    ways = _ways()
    ours, before = (
        Worker("biolearn", env=numpy_environment()),
        Worker("plain_numpy", env=numpy_environment()),
    )
    alone = (
        [Worker("biolearn", label="biolearn, NumPy alone", env=numpy_environment() | NUMPY_ALONE)]
        if has_kernels()
        else []
    )
    optional, failed = _optional(python)
    peers, workers = [], [*ways, ours, *alone, before, *optional]
    try:
        peers = _torch_workers(python) if python else []
        try:
            take_turns(peers, rounds=1, seconds=0.05)
        except WorkerFailed as e:
            skipped = str(e)
            _close(peers)
            peers = []
        else:
            skipped = None if python else "PyTorch is not installed: pip install -e .[bench]"
        workers += peers
        times = take_turns(workers, rounds=options.rounds, seconds=0.3)
    finally:
        _close([*ways, ours, *alone, before, *optional, *peers])
    best = _fastest(times, [worker.label for worker in ways])
    rows = [
        target(
            "training step / its matrix products",
            ratios(times["biolearn"], times[best]),
            at_most=1.25,
            note=f"{best}; {flop / 1e9:.3f} GFLOP a step"
            + ("" if alone else "; without the compiled kernels (no numba)"),
        ),
        target(
            "plain NumPy / training step",
            ratios(times["plain_numpy"], times["biolearn"]),
            note="the first version in the notebooks: before and after",
        ),
    ]
    if alone:
        rows.insert(
            1,
            target(
                "the same with NumPy alone / its matrix products",
                ratios(times[alone[0].label], times[best]),
                note="without the compiled kernels (the extra fast)",
            ),
        )
    if peers:
        labels = [worker.label for worker in peers]
        best_peer = _fastest(times, labels)
        note = f"{best_peer}; {peers[0].about['torch']}, {peers[0].about['torch_blas']}"
        rows.append(
            target(
                "PyTorch / training step",
                ratios(times[best_peer], times["biolearn"]),
                at_least=1.6,
                note=note,
            )
        )
        for kind in ("eager", "torch.compile"):
            label = _fastest(times, [label for label in labels if kind in label])
            rows.append(
                target(
                    f"PyTorch {kind} / training step",
                    ratios(times[label], times["biolearn"]),
                    note=label,
                )
            )
    else:
        rows.append(
            target("PyTorch / training step", None, at_least=1.6, note=f"peer skipped. {skipped}")
        )
    rows += _optional_rows(times, optional, failed)
    rates = {
        label: round(flop / statistics.median(values) / 1e9, 1) for label, values in times.items()
    }
    return dict(
        targets=rows,
        tables={
            "milliseconds per step": _table(times),
            "GFLOP/s of the products that are needed": rates,
        },
    )


# ---- 2. the training step on a GPU, and several networks at once ---------------------------------

STEPS = 12_000  # of the paper's 20 epochs: 60,000 digits in minibatches of 100
AT_ONCE = (1, 5, 10, 20)  # networks
PEERS = {
    "PyTorch, eager": dict(mode="eager"),
    "PyTorch, torch.compile reduce-overhead": dict(mode="reduce-overhead"),
    "PyTorch, torch.compile max-autotune": dict(mode="max-autotune"),
    "PyTorch, a CUDA graph of the eager step": dict(mode="eager", graph=True),
    "PyTorch, a CUDA graph of the compiled step": dict(
        mode="max-autotune-no-cudagraphs", graph=True
    ),
}
ON_THE_GPU = (
    "20 epochs on the GPU / PyTorch at its best",
    "launch and bandwidth bound / training step on the GPU",
    "10 networks at once on the GPU / in turn",
)
FLOAT32 = {"CUPY_TF32": "0", "NVIDIA_TF32_OVERRIDE": "0"}  # the same precision for both


def gpu(options):
    """The training step on a GPU, where there is one, against PyTorch and against a bound; and
    several networks at once, on the GPU and on the CPU.
    """
    from biolearn.core.arrays import DeviceError, use_device

    small = (
        dict(sizes=(64, 20, 10), batch=10) if options.quick else dict(sizes=(64, 200, 50), batch=50)
    )  # those of the profile quick
    rows, tables = [], {}
    for what, shape in (
        {"8x8 digits": small}
        | (
            {}
            if options.quick
            else {"the paper's size": dict(sizes=plain.SIZES, batch=plain.BATCH)}
        )
    ).items():
        at_once, tables[f"milliseconds per step of so many networks on the CPU, {what}"] = _at_once(
            "cpu", (1, 4), rounds=max(3, options.rounds // 2), **shape
        )
        rows.append(
            target(
                f"4 networks at once on the CPU / in turn, {what}",
                at_once[4],
                note=f"layers {shape['sizes']}, minibatches of {shape['batch']}, one thread, "
                + ("compiled kernels" if has_kernels() else "NumPy alone"),
            )
        )
    try:
        use_device("gpu")
    except DeviceError as e:
        why = f"not measured, no CUDA device: {str(e).split(', but ')[-1].split('. Install')[0]}"
        return dict(
            targets=[target(name, None, note=why) for name in ON_THE_GPU] + rows, tables=tables
        )
    on_gpu = on_device(
        "gpu",
        torch_python(options.torch),
        PEERS,
        AT_ONCE,
        rounds=options.rounds,
        **(small if options.quick else dict(sizes=plain.SIZES, batch=plain.BATCH)),
    )
    return dict(targets=on_gpu["targets"] + rows, tables=on_gpu["tables"] | tables)


def _at_once(device, counts, *, rounds, **shape):
    """Training steps of several networks at once: ({count: ratio to that many steps of one
    network}, table of milliseconds). The first of the `counts` is 1.
    """
    env = numpy_environment(1) | FLOAT32
    workers = {
        n: Worker(
            "device_step",
            label=f"{n} network{'s' * (n > 1)}",
            env=env,
            device=device,
            networks=n,
            **shape,
        )
        for n in counts
    }
    try:
        times = take_turns(workers.values(), rounds=rounds)
    finally:
        _close(workers.values())
    each = {n: times[worker.label] for n, worker in workers.items()}
    return {n: ratios(each[n], [n * t for t in each[1]]) for n in counts[1:]}, _table(times)


def _those_that_run(workers, patience=100.0):
    """The workers that come through one step, and {label: what it said last} of the others.

    All take it at the same time, for some compile long; who needs more than `patience` seconds for
    it or for its start is left out.
    """

    def first_step(worker):
        worker.patience = patience
        try:
            worker.run(1)
        except WorkerFailed as e:
            return str(e)
        worker.patience = None

    with ThreadPoolExecutor(max(1, len(workers))) as pool:
        said = dict(zip(workers, pool.map(first_step, workers)))
    return [worker for worker in workers if said[worker] is None], {
        worker.label: text for worker, text in said.items() if text is not None
    }


def on_device(device, python, peers, counts, *, rounds, sizes, batch, **limits):
    """All measurements on one device, 'gpu' or 'cpu': the interpreter that has PyTorch (or None),
    {label: settings of its peer}, how many networks at once.
    """
    shape, env = dict(sizes=sizes, batch=batch), numpy_environment(1) | FLOAT32
    ours = [
        Worker("device_step", label=label, env=env, device=device, **how, **shape)
        for label, how in (
            ("biolearn", {}),
            ("biolearn without fused kernels", dict(fused=False)),
            ("biolearn, launched one by one", dict(recorded=False)),
        )
    ]
    others = (
        [
            Worker(
                "torch_device_step",
                python=python,
                label=label,
                env=env,
                device={"gpu": "cuda"}.get(device, device),
                **settings,
                **shape,
            )
            for label, settings in peers.items()
        ]
        if python
        else []
    )
    try:
        alive, failed = _those_that_run(others)
        times = take_turns([*ours, *alive], rounds=rounds)
        about = ours[0].about
    finally:
        _close([*ours, *others])
    with Worker("device_limits", env=env, device=device, **limits) as worker:
        limit = worker.run(1)["result"]
    todo, (launch, *rates) = (
        products.launches(sizes, batch, 15),
        (limit[name] for name in ("launch", "flop_rate", "byte_rate")),
    )
    bound, free = (products.bound(todo, price, *rates) for price in (launch, 0.0))
    fraction = lambda seconds, label: summary([seconds / t for t in times[label]])
    machine = f"{about.get('gpu', device)}, CUDA {about.get('cuda', 'none')}, CuPy {about.get('cupy', 'none')}"
    note = (
        f"{machine}; both float32 without TF32; {STEPS:,} steps, extrapolated from the time of one"
    )
    rows = []
    if alive:
        best = _fastest(times, [worker.label for worker in alive])
        rows.append(
            target(
                ON_THE_GPU[0],
                ratios(times["biolearn"], times[best]),
                at_most=1.0,
                note=f"{best}, torch {alive[0].about['torch']}; {note}",
            )
        )
        rows.append(
            target(
                "the bound / PyTorch at its best",
                fraction(bound, best),
                note="the same bound, whose launches are those that CuPy makes: a CUDA graph can beat it",
            )
        )
    else:
        rows.append(
            target(
                ON_THE_GPU[0],
                None,
                at_most=1.0,
                note="no peer. PyTorch is not installed: pip install -e .[bench]"
                if not python
                else "no peer came through a step",
            )
        )
    rows.insert(
        1,
        target(
            ON_THE_GPU[1],
            fraction(bound, "biolearn"),
            note=f"{len(todo)} launches of {launch * 1e6:.2g} us, {rates[0] / 1e12:.3g} TFLOP/s, "
            f"{rates[1] / 1e9:.3g} GB/s, all measured here",
        ),
    )
    rows.insert(
        2,
        target(
            "the same bound if launches cost nothing / training step",
            fraction(free, "biolearn"),
            note="arithmetic and memory alone",
        ),
    )
    rows.append(
        target(
            "with the fused kernels / without",
            ratios(times["biolearn"], times["biolearn without fused kernels"]),
        )
    )
    rows.append(
        target(
            "recorded / launched one by one",
            ratios(times["biolearn"], times["biolearn, launched one by one"]),
        )
    )
    rows += [target(label, None, note=f"did not run. {said}") for label, said in failed.items()]
    at_once, table = _at_once(device, counts, rounds=rounds, **shape)
    for n, ratio in at_once.items():
        rows.append(
            target(
                f"{n} networks at once on the GPU / in turn",
                ratio,
                **(
                    dict(at_most=0.5, note="far less than in turn is read as: half")
                    if n == 10
                    else {}
                ),
            )
        )
    return dict(
        targets=rows,
        tables={
            "milliseconds per step on the GPU": _table(times),
            "seconds of 20 epochs, extrapolated": _table(times, STEPS),
            "milliseconds per step of so many networks, GPU": table,
            "what the bound is made of": {
                "microseconds of an empty launch": launch * 1e6,
                "TFLOP/s of a large product": rates[0] / 1e12,
                "GB/s of a copy": rates[1] / 1e9,
                "bound, microseconds per step": bound * 1e6,
                "microseconds of a tiny product by matmul": limit["matmul"] * 1e6,
                "microseconds of a tiny product by dot": limit["dot"] * 1e6,
                "microseconds to open a random stream": limit["stream"] * 1e6,
            },
        },
    )


# ---- 3. Parzen -----------------------------------------------------------------------------------


def parzen(options):
    """The Parzen estimate, 10,000 x 10,000 x 784, against its product and against scikit-learn; and
    its memory at two sizes.
    """
    queries = 10
    ways = [
        Worker(
            "parzen_product",
            label=f"product, blocks of {block}, {how}",
            env=numpy_environment(n),
            block=block,
            threads=threads,
        )
        for block in (1000, 2048)
        for how, n, threads in {
            ("threads of the BLAS", cores(), 1),
            ("blocks shared by threads", 1, cores()),
        }
    ]
    ours, sklearn = (
        Worker("parzen", env=numpy_environment()),
        Worker("kernel_density", env=numpy_environment(), n_test=queries),
    )
    try:
        turns = {"rounds": max(3, options.rounds // 2), "steps": 1}
        times = take_turns([*ways, ours], **turns) | take_turns([sklearn], rounds=3, steps=1)
        work = take_turns([*ways, ours], **turns, clock="processor")
    finally:
        _close([*ways, ours, sklearn])
    best = _fastest(times, [worker.label for worker in ways])
    kde = statistics.median(times.pop("kernel_density")) * (10_000 / queries)
    times["scikit-learn's KernelDensity, from 10 queries"] = [kde]
    extra = {}
    for n in (10_000, 40_000):
        with Worker("parzen", env=numpy_environment(), n=n, n_test=n // 4) as worker:
            extra[n] = worker.run(1)["result"]["extra_mib"]
    least = _fastest(work, [worker.label for worker in ways])
    memory = None if None in extra.values() else summary([extra[40_000] / extra[10_000]])
    rows = [
        target(
            "Parzen / its matrix product",
            ratios(times["parzen"], times[best]),
            at_most=1.5,
            note=best,
        ),
        target(
            "the same in time of the processor",
            ratios(work["parzen"], work[least]),
            at_most=1.5,
            note=f"{least}; on a busy machine, too",
        ),
        target(
            "scikit-learn / Parzen",
            summary([kde / t for t in times["parzen"]]),
            at_least=20,
            note=f"KernelDensity timed on {queries} queries against all 10,000 samples, "
            "time taken as proportional to the queries",
        ),
        target(
            "Parzen, extra memory, 40,000 samples / 10,000",
            memory,
            at_most=1.25,
            note=f"{extra[40_000]:.0f} and {extra[10_000]:.0f} MiB beyond the data, with a quarter as many test rows"
            if memory
            else "measured on Linux only",
        ),
    ]
    if not options.quick:
        with Worker("parzen", env=numpy_environment(), n=100_000, n_test=100_000) as worker:
            total = worker.run(1)["result"]["total_mib"]
        rows.append(
            target(
                "Parzen, 100,000 x 100,000: memory of the process",
                None if total is None else summary([total]),
                at_most=1024,
                unit="MiB",
                note="598 of it the two sets" if total else "measured on Linux only",
            )
        )
    tables = {"seconds": _table(times, 1), "seconds of the processor": _table(work, 1)}
    return dict(targets=rows, tables=tables)


# ---- 4. samples ----------------------------------------------------------------------------------

WAYS = (
    "GENERATE",
    "directed",
    "in-painting",
    "GENERATE with noise",
    "GENERATE, noise in the chain",
)


def samples(options):
    "What one picture costs beside a thousand, for each way to draw them."
    rows, table, counts = [], {}, (1, 100 if options.quick else 1000)
    for way in WAYS:
        label = "{}, n = {:,}".format
        noisy = "noise" in way
        calls = 1 if noisy else 20  # of one picture, which take milliseconds
        workers = [
            Worker("samples", env=numpy_environment(), label=label(way, n), way=way, n=n, calls=c)
            for n, c in zip(counts, (calls, 1))
        ]
        try:
            times = take_turns(workers, rounds=5, steps=1)
        finally:
            _close(workers)
        one, many = (times[worker.label] for worker in workers)
        one[:] = [seconds / calls for seconds in one]
        note = "noise is drawn for a block of 1,000, so that a seed keeps its samples"
        rows.append(
            target(
                f"{way}, n = 1 / n = {counts[1]:,}",
                ratios(one, many),
                at_most=0.02,
                note=note if noisy else "",
            )
        )
        table |= times
    return dict(targets=rows, tables={"milliseconds": _table(table)})


# ---- 5. start-up ---------------------------------------------------------------------------------

MODULES = (
    "core.arrays",
    "core.data",
    "theory.stdp",
    "theory.variational",
    "core.layers",
    "core.model",
    "core.inference",
    "core.learning",
    "core.generation",
    "evaluation.parzen",
)
HEAVY = ("matplotlib", "papermill", "cupy", "sklearn", "numba")
KERNELS = ["-c", "import biolearn.kernels.compiled"]


def _process(arguments, **env):
    "Seconds that a Python process takes from start to end; `env` is added to the environment."
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
    )
    return time.perf_counter() - start


def startup(options):
    """How long the package takes to import and the command to answer, as whole processes, beside an
    empty one and NumPy's import.
    """
    commands = {
        "python -c pass": ["-c", "pass"],
        "import numpy": ["-c", "import numpy"],
        "import biolearn": ["-c", "import biolearn"],
        "biolearn --help": ["-c", "from biolearn.cli.main import main; main(['--help'])"],
    }
    commands |= {f"import biolearn.{m}": ["-c", f"import biolearn.{m}"] for m in MODULES}
    for arguments in commands.values():
        _process(arguments)  # the files are read, the byte code is written
    times = {name: [] for name in commands}
    for _ in range(max(3, options.rounds // 2)):
        for name, arguments in commands.items():
            times[name].append(_process(arguments))
    heavy = {
        m: subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sys, biolearn.{m}; print(*[h for h in {HEAVY} if h in sys.modules])",
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).stdout.split()
        for m in MODULES
    }
    if has_kernels():
        times["loading the compiled kernels, at first need"] = [_process(KERNELS) for _ in range(3)]
        with tempfile.TemporaryDirectory() as folder:
            times["compiling them, once on a machine"] = [_process(KERNELS, NUMBA_CACHE_DIR=folder)]
    slowest = max(
        (f"import biolearn.{m}" for m in MODULES), key=lambda name: statistics.median(times[name])
    )
    note = "whole process, the interpreter's own start included"
    rows = [
        target(
            "import biolearn", summary(times["import biolearn"]), at_most=0.3, unit="s", note=note
        ),
        target(
            f"slowest module: {slowest}", summary(times[slowest]), at_most=0.3, unit="s", note=note
        ),
        target(
            "biolearn --help", summary(times["biolearn --help"]), at_most=0.5, unit="s", note=note
        ),
        target("slowest module / import numpy", ratios(times[slowest], times["import numpy"])),
        target("slowest module / python -c pass", ratios(times[slowest], times["python -c pass"])),
        target(
            "heavy packages that these modules import",
            summary([sum(map(len, heavy.values()))]),
            at_most=0,
            unit="packages",
            note=", ".join(HEAVY),
        ),
    ]
    return dict(targets=rows, tables={"milliseconds of the whole process": _table(times)})


# ---- 6. scaling ----------------------------------------------------------------------------------


def _flat_time(options):
    "Time per example of one epoch of `fit` at three sizes of the dataset."
    sizes = (2_000, 4_000, 16_000) if not options.quick else (200, 400, 800)
    shape = dict(sizes=(784, 50, 20), batch=20) if options.quick else {}
    workers = [
        Worker("epoch", label=f"{n} examples", env=numpy_environment(), n=n, **shape) for n in sizes
    ]
    try:
        for worker in workers:
            worker.ready()
        per = {worker.label: [] for worker in workers}
        for i in range(3):
            for worker, n in list(zip(workers, sizes))[:: 1 if i % 2 else -1]:
                per[worker.label].append(worker.run(1)["seconds"] / n)
    finally:
        _close(workers)
    labels = [worker.label for worker in workers]
    return target(
        f"time per example, {labels[-1]} / {labels[0]}",
        ratios(per[labels[-1]], per[labels[0]]),
        at_most=1.1,
        note="`fit`, one epoch, " + ("small" if options.quick else "the paper's sizes of layers"),
    ), _table(per, 1e6)


def _flat_memory(options):
    """Peak of private memory while `fit` streams a memory-mapped file, for two sizes, and whether
    it works where the file is larger than the memory allowed.
    """
    if sys.platform != "linux":
        return [
            target(
                "extra memory of fit on a memory-mapped file",
                None,
                unit="ratio",
                note="measured on Linux only",
            )
        ], {}
    rows, extra = (20_000, 160_000) if not options.quick else (4_000, 32_000), {}
    with tempfile.TemporaryDirectory() as folder:
        for n in rows:
            path = Path(folder) / "x.f32"
            with open(path, "wb") as file:
                block = plain.pictures(1000, 784)
                for _ in range(n // 1000):
                    block.tofile(file)
            with Worker("streaming", env=numpy_environment(1), path=str(path), n=n) as worker:
                extra[n] = worker.run(1)["result"]["extra_mib"]
        size = rows[-1] * 784 * 4 / 2**20
        with Worker(
            "streaming", env=numpy_environment(1), path=str(path), n=rows[-1], limit_mib=size / 4
        ) as worker:
            failed = worker.run(1)["result"].get("failed")
    mib = [n * 784 * 4 / 2**20 for n in rows]
    note = (
        f"{extra[rows[0]]:.0f} MiB beyond the start for a file of {mib[0]:.0f}, "
        f"{extra[rows[1]]:.0f} MiB for one of {mib[1]:.0f}"
    )
    return [
        target(
            "extra memory of fit / extra megabytes of a memory-mapped file",
            summary([(extra[rows[1]] - extra[rows[0]]) / (mib[1] - mib[0])]),
            at_most=0.01,
            note=note,
        ),
        target(
            "fit on a file four times the memory allowed",
            summary([0 if failed else 1]),
            at_least=1,
            unit="works",
            note=failed
            or f"a file of {size:.0f} MiB, and {size / 4:.0f} MiB more than at the start",
        ),
    ], {
        "MiB of private memory beyond the start": {
            f"{n} examples": round(v, 1) for n, v in extra.items()
        }
    }


def _grids(quick):
    "The settings of the three pictures: {name: [(value, settings)]}."
    widths, depths, batches = (
        ((125, 250, 500, 1000, 2000, 4000), (1, 2, 3, 4, 5), (10, 30, 100, 300, 1000))
        if not quick
        else ((50, 100), (1, 2), (10, 20))
    )
    n_0 = 784 if not quick else 64
    return {
        "units in h_1": [(w, dict(sizes=(n_0, w, 100), batch=100)) for w in widths],
        "hidden layers of 500 units": [
            (d, dict(sizes=(n_0, *[500] * d), batch=100)) for d in depths
        ],
        "examples in a minibatch": [(b, dict(sizes=(n_0, 1000, 100), batch=b)) for b in batches],
    }


def scaling(options):
    """Time and memory against the number of examples; cost against width, depth and batch size,
    with the products as the lower bound.
    """
    row, per = _flat_time(options)
    memory, files = _flat_memory(options)
    ours, ways, curves = Worker("biolearn", env=numpy_environment()), _ways(), {}
    try:
        for name, points in _grids(options.quick).items():
            curve = curves[name] = dict(x=[], biolearn=[], products=[], flop=[])
            for value, settings in points:
                for worker in (ours, *ways):
                    worker.set(
                        **{k: v for k, v in worker.settings.items() if k == "threads"}, **settings
                    )
                times = take_turns([ours, *ways], rounds=3, seconds=0.15)
                best = min(statistics.median(times[way.label]) for way in ways)
                flop = (
                    products.flop(products.step_products(settings["sizes"], settings["batch"], 15))
                    / settings["batch"]
                )
                for key, v in (
                    ("x", value),
                    ("biolearn", statistics.median(times["biolearn"]) / settings["batch"] * 1e6),
                    ("products", best / settings["batch"] * 1e6),
                    ("flop", flop),
                ):
                    curve[key].append(round(v, 2))
    finally:
        _close([ours, *ways])
    return dict(
        targets=[row, *memory],
        tables={"microseconds per example in fit": per, "curves": curves} | files,
    )


# ---- 7. where the time goes ----------------------------------------------------------------------

PARTS = ("products", "elementwise", "noise", "optimiser", "data")


def _parts(options, env):
    """Milliseconds of the parts of the exported training step, each run alone, and what is left of
    the whole step; `env` is added to the environment.
    """
    ours, ways = Worker("biolearn", env=numpy_environment() | env), _ways()
    parts = {
        name: Worker("biolearn_part", label=name, env=numpy_environment() | env, part=part)
        for name, part in (
            ("elementwise", "inference"),
            ("noise", "noise"),
            ("optimiser", "optimiser"),
            ("data", "data"),
        )
    }
    try:
        times = take_turns(
            [ours, *ways, *parts.values()], rounds=max(3, options.rounds // 2), seconds=0.2
        )
    finally:
        _close([ours, *ways, *parts.values()])
    ms = {label: statistics.median(values) * MILLI for label, values in times.items()}
    bar = {"products": min(ms[way.label] for way in ways)} | {name: ms[name] for name in parts}
    return bar | {"rest": ms["biolearn"] - sum(bar.values())}


def profile(options):
    """Milliseconds of the parts of a training step: of the plain version by a clock inside it, of
    the exported ones by running their parts alone.
    """
    n, clocked = 3 if options.quick else 15, Worker("profile_plain", env=numpy_environment())
    try:
        runs = [clocked.run(n)["result"] for _ in range(3)]
    finally:
        _close([clocked])
    bars = {
        "plain": {
            part: statistics.median(run.get(part, 0.0) for run in runs) / n * MILLI
            for part in PARTS
        },
        "in place": _parts(options, NUMPY_ALONE),
    }
    if has_kernels():
        bars["compiled"] = _parts(options, {})
    return dict(
        targets=[],
        tables={
            "milliseconds per step": {
                name: {part: round(v, 3) for part, v in bar.items()} for name, bar in bars.items()
            }
        },
    )


SECTIONS = {
    "cpu": cpu,
    "gpu": gpu,
    "parzen": parzen,
    "samples": samples,
    "startup": startup,
    "scaling": scaling,
    "profile": profile,
}
