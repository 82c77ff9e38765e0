"""One contender in a process of its own: `python -m bench.worker NAME SETTINGS`, SETTINGS in JSON.
It answers one line of JSON when it is ready, then one for each line it is sent: {"n": steps} runs
so many steps and answers {"seconds": ..., "processor": seconds of all cores}; {"settings": {...}}
sets up anew.

A process for each contender keeps their threads and libraries apart, lets each have the environment
in which it is fastest, and the parent can let them take turns (A B A B), so that whatever else the
machine does strikes all alike.
"""

import json
import os
import resource
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np

from bench import plain, products

CONTENDERS, VERSIONS = {}, {}


def contender(function):
    "Register a function settings -> run(n)."
    CONTENDERS[function.__name__] = function
    return function


def cores():
    "How many cores this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def paper(sizes=plain.SIZES, batch=plain.BATCH, n_steps=15, seed=0, n_data=4_000):
    """What all contenders of the training step start from: weights, kinds of unit, settings, and
    pictures to train on.
    """
    units = (plain.UNITS[0], *["softplus"] * (len(sizes) - 2), plain.UNITS[-1])
    M = len(sizes) - 1
    rest = lambda first: (first, *[1e-3] * (M - 1))
    settings = dict(
        n_steps=n_steps,
        delta=0.1,
        alpha=0.001,
        noise=(0.5, *[0.1] * (M - 1), "spikes"),
        rate_f=rest(3e-4),
        rate_g=rest(1e-3),
    )
    return (
        plain.start(sizes, seed),
        units,
        settings,
        plain.pictures(max(n_data, batch), sizes[0], seed),
    )


def batches(x, batch, seed=0):
    "Minibatches for ever: each pass over the rows in another random order."
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(x))
        for i in range(0, len(x) - batch + 1, batch):
            yield np.take(x, order[i : i + batch], axis=0)


def private_memory():
    """Memory of this process that no file backs, MiB: pages of a memory-mapped file can be dropped
    and read again, these cannot. Linux only.
    """
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["RssAnon"].split()[0]) / 1024


@contextmanager
def highest_memory():
    """A list whose only entry becomes the most private memory within the block beyond that at its
    start, MiB, looked at every 2 ms; empty where there is no /proc.
    """
    found, done = [], threading.Event()
    if not os.path.exists("/proc/self/status"):
        yield found
        return
    start = highest = private_memory()

    def watch():
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, private_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        found.append(highest - start)


# ---- the training step ---------------------------------------------------------------------------


@contender
def products_alone(threads=1, sizes=plain.SIZES, batch=plain.BATCH, n_steps=15):
    "The matrix products of a training step and nothing else."
    return products.runner(tuple(sizes), batch, n_steps, threads)


def biolearn_model(weights, units, backend=None):
    "Plain arrays as a model of the package, on `backend` (None: the CPU)."
    from biolearn.core.arrays import Backend
    from biolearn.core.layers import Dense, LayerPair
    from biolearn.core.model import Model

    dense = lambda name, unit: Dense(
        *((backend or Backend()).asarray(w) for w in weights[name]), unit
    )
    return Model(
        tuple(
            LayerPair(dense(f"f{k}", units[k]), dense(f"g{k}", units[k - 1]))
            for k in range(1, len(units))
        )
    )


def biolearn_trainer(weights, units, settings, backend=None, networks=1, rngs=None):
    """The one place that calls the package's training step: returns (model, steps), where
    steps(batches) is TRAIN as `fit` does it, on `backend` (None: the CPU); with `networks` > 1 that
    of so many at once, as `fit_many` does it: all start from the same weights, each has noise of
    its own.

    `rngs`: a stream of noise per layer; `scales`: what multiplies the learning rates in each step.
    Returns the losses of the last step.
    """
    from biolearn.core.ensembles import stack_models
    from biolearn.core.fast_training import fast_step
    from biolearn.core.learning import TrainConfig, em_step, new_train_state
    from biolearn.kernels.cuda import graph_stream
    from biolearn.kernels.threads import use_threads

    model = biolearn_model(weights, units, backend)
    if networks > 1:
        model = stack_models([model] * networks)
    config = TrainConfig(**settings)
    state = new_train_state(model, config.optimizer)
    W = state.model.pairs[0].f.W
    if rngs is None:
        rngs = [_stream(backend, networks).stream("noise", k) for k in range(len(units))]
    with use_threads(W) as threads:
        infer = config.inference
        work = lambda state, x, now: em_step(state, x, now, infer, rngs, threads)
        step = fast_step(work, state, config, infer.recordable)

    def steps(batches, scales=None):
        losses = []
        with use_threads(W), graph_stream(W):
            for i, x in enumerate(batches):
                state.t += 1
                done = 1 - scales[i] if scales else state.t * 1e-6
                losses = step(state, x, config.at(done))[1]
        return losses

    return state.model, steps


def _stream(backend, networks):
    "Random numbers on `backend`: a `Random` for one network, `Seeds` for several."
    from biolearn.core.rng import Random, Seeds

    rngs = tuple(Random(seed, backend) for seed in range(networks))
    return rngs[0] if networks == 1 else Seeds(rngs)


@contender
def biolearn(sizes=plain.SIZES, batch=plain.BATCH, n_steps=15, precision="float32", mkl=False):
    "This package's training step, minibatches and noise included; `mkl`: its products by MKL."
    if precision == "mixed":
        import torch  # noqa: F401  # so that `about` knows its version
    if mkl:
        from bench.mkl import force

        VERSIONS["mkl"] = force()
    weights, units, settings, x = paper(sizes, batch, n_steps)
    _, steps = biolearn_trainer(weights, units, settings | {"precision": precision})
    source = batches(x, batch)
    return lambda n: steps(next(source) for _ in range(n))


@contender
def plain_numpy(sizes=plain.SIZES, batch=plain.BATCH, n_steps=15, clock=None):
    "The training step as the notebooks tell it first."
    weights, units, settings, x = paper(sizes, batch, n_steps)
    trainer, source, rng = (
        plain.Plain(weights, units, settings, clock),
        batches(x, batch),
        np.random.Generator(np.random.SFC64(0)),
    )

    def run(n):
        for i in range(n):
            with trainer.clock("data"):
                x = next(source)
            trainer.step(x, lambda: plain.draw(rng, sizes, batch), 1 - trainer.t * 1e-6)

    return run


@contender
def torch_peer(mode="eager", threads=1, sizes=plain.SIZES, batch=plain.BATCH, n_steps=15):
    "The same training step in PyTorch, minibatches and noise included."
    import torch

    from bench.torch_peer import Baseline

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    weights, units, settings, x = paper(sizes, batch, n_steps)
    peer, source = Baseline(weights, units, settings, mode=mode), batches(x, batch)

    def run(n):
        for i in range(n):
            peer.step(torch.from_numpy(next(source)), scale=1 - i * 1e-6)

    return run


@contender
def jax_peer(sizes=plain.SIZES, batch=plain.BATCH, n_steps=15):
    "The same training step in JAX, compiled as a whole, on all cores."
    from bench.jax_peer import Baseline

    weights, units, settings, x = paper(sizes, batch, n_steps)
    peer, source = Baseline(weights, units, settings), batches(x, batch)

    def run(n):
        for i in range(n):
            losses = peer.step(next(source), scale=1 - i * 1e-6)
        losses.block_until_ready()

    return run


# ---- the same on a device, whose work goes on after a call has returned: every run waits for its
# end


def _device(name):
    "(Backend, function that waits for its work) of 'gpu' or 'cpu'."
    from biolearn.core.arrays import use_device

    backend = use_device(name)
    if name == "cpu":
        return backend, lambda: None
    import cupy

    return backend, cupy.cuda.Device().synchronize


@contender
def device_step(
    device="gpu",
    networks=1,
    fused=True,
    recorded=True,
    sizes=plain.SIZES,
    batch=plain.BATCH,
    n_steps=15,
):
    """This package's training step on a device, the data kept there; of `networks` at once.

    `fused`: with the kernels for CuPy; `recorded`: launched as a whole.
    """
    import biolearn.kernels.cuda as cuda
    import biolearn.kernels.dispatch as dispatch
    from biolearn.core.data import minibatches

    if not fused:
        dispatch.cupy_kernels = lambda: None  # this process measures nothing else
    if not recorded:
        cuda.CudaGraph.__call__ = lambda recording: recording.job()
    backend, finish = _device(device)
    weights, units, settings, x = paper(sizes, batch, n_steps)
    x, rng = backend.asarray(x), _stream(backend, networks)
    _, steps = biolearn_trainer(weights, units, settings, backend, networks)
    source = (
        b
        for epoch in iter(range(10**9))
        for b in minibatches(x, batch, rng=rng.stream("epoch", epoch))
    )

    def run(n):
        steps(next(source) for _ in range(n))
        finish()

    return run


@contender
def torch_device_step(
    mode="eager", graph=False, device="cuda", sizes=plain.SIZES, batch=plain.BATCH, n_steps=15
):
    """The same in PyTorch: eager, compiled, or as one CUDA graph. float32 throughout: TF32 is
    switched off.
    """
    import torch

    from bench.torch_peer import Baseline, Graphed

    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(1)  # they wait for each other where the device is this CPU
    torch.manual_seed(0)
    weights, units, settings, x = paper(sizes, batch, n_steps)
    peer = (
        Graphed(weights, units, settings, batch=batch, mode=mode, device=device)
        if graph
        else Baseline(weights, units, settings, mode=mode, device=device)
    )
    x, buffer = (
        torch.from_numpy(x).to(device),
        peer.x if graph else torch.empty(batch, sizes[0], device=device),
    )

    def fetch():
        while True:
            order = torch.randperm(len(x), device=device)
            for i in range(0, len(x) - batch + 1, batch):
                yield torch.index_select(x, 0, order[i : i + batch], out=buffer)

    source = fetch()

    def run(n):
        for i in range(n):
            peer.step(next(source), scale=1 - i * 1e-6)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


@contender
def device_limits(device="gpu", side=4096, megabytes=512, launches=2_000):
    """What the bound is made of; `run` answers seconds of an empty launch, operations a second of a
    large float32 product, bytes a second of a copy (read and written); beside it, where time may be
    lost: seconds of a tiny product by `matmul` and by the array's own `dot`, and of opening a
    random stream.
    """
    from biolearn.core.rng import Random

    backend, finish = _device(device)
    xp, a = backend.xp, Random(0, backend).uniform((side, side))
    tiny, room = (xp.zeros((8, 8), dtype=xp.float32) for _ in range(2))
    out, source = xp.empty_like(a), xp.zeros(megabytes * 2**18, dtype=xp.float32)
    target, one = xp.empty_like(source), xp.zeros(1, dtype=xp.float32)
    nothing = lambda: xp.negative(one, out=one)
    if device == "gpu":
        import cupy

        kernel = cupy.RawKernel('extern "C" __global__ void nothing() {}', "nothing")
        nothing = lambda: kernel((1,), (1,), ())

    def each(job, n):
        job()
        finish()
        start = time.perf_counter()
        for _ in range(n):
            job()
        finish()
        return (time.perf_counter() - start) / n

    def copy():
        target[...] = source

    def run(n):
        return {
            "launch": each(nothing, launches),
            "flop_rate": 2 * side**3 / each(lambda: xp.matmul(a, a, out=out), 5),
            "byte_rate": 2 * source.nbytes / each(copy, 5),
            "matmul": each(lambda: xp.matmul(tiny, tiny, out=room), launches),
            "dot": each(lambda: tiny.dot(tiny, out=room), launches),
            "stream": each(lambda: Random(1, backend).uniform((1,)), 5),
        }

    return run


# ---- the profile: parts of a step, one at a time -------------------------------------------------


@contender
def profile_plain():
    "The plain training step with a clock on its parts; `run` answers the seconds of each."

    def run(n):
        clock = plain.Clock()
        plain_numpy(clock=clock)(2)
        clock.seconds.clear()
        step = plain_numpy(clock=clock)
        step(n)
        return dict(clock.seconds)

    return run


@contender
def biolearn_part(part, sizes=plain.SIZES, batch=plain.BATCH):
    """What `train_step` does besides the products, one part of it, with the same functions and the
    same threads: 'noise', 'optimiser', 'data' or 'inference', which is the whole E-step with
    products that return at once.
    """
    import biolearn.core.learning as learning
    import biolearn.core.optimizers as optimizers
    from biolearn.core.data import minibatches
    from biolearn.core.inference import infer
    from biolearn.core.layers import corrupt
    from biolearn.core.rng import Random
    from biolearn.kernels.threads import use_threads

    weights, units, settings, x = paper(sizes, batch)
    model, recipe = biolearn_model(weights, units), learning.TrainConfig(**settings)
    h = [plain.pictures(batch, n) for n in sizes]
    if part == "noise":
        rngs = [Random(0).stream(k) for k in range(len(sizes))]
        job, items = (
            (lambda layer, noise, rng: corrupt(layer, noise, rng=rng)),
            (h, settings["noise"], rngs),
        )
    elif part == "optimiser":
        maps = [dense for pair in model.pairs for dense in (pair.f, pair.g)]
        books = [optimizers.new_optimizer_state(dense, "adam") for dense in maps]
        grads = [np.full_like(dense.W, 1e-3) for dense in maps]
        job, items = (
            (
                lambda dense, b, grad: optimizers.update_weights(
                    "adam", dense.W, grad, b.W, 1e-6, 10
                )
            ),
            (maps, books, grads),
        )
    elif part == "inference":
        import array_api_compat.numpy as xp

        xp.matmul = lambda a, b, out: out  # this process measures nothing else

        def run(n):
            with use_threads(x) as threads:
                for _ in range(n):
                    infer(model, x[:batch], recipe.inference, threads=threads)

        return run
    else:
        rng = iter(range(10**9))
        passes = (b for epoch in rng for b in minibatches(x, batch, rng=Random(0).stream(epoch)))

        def run(n):
            for _ in range(n):
                next(passes)

        return run

    def run(n):
        with use_threads(x) as threads:
            for _ in range(n):
                threads.map(job, *items)

    return run


# ---- samples -------------------------------------------------------------------------------------


def _ways():
    "{way: function n -> pictures} of what draws n of them, with the package's network."
    from biolearn import generate, half_masks, inpaint, load_trained, sample_directed
    from biolearn.core.data import load_mnist_small
    from biolearn.extensions.langevin import LangevinInference, noise_units

    model, digits = load_trained("paper"), np.tile(load_mnist_small().test, (2, 1))
    noisy = LangevinInference(temperature=1.0, sigmas=noise_units(model, digits[:100]))
    return {
        "GENERATE": lambda n: generate(model, n),
        "directed": lambda n: sample_directed(model, n),
        "in-painting": lambda n: inpaint(model, digits[:n], half_masks((28, 28))["top"]),
        "GENERATE with noise": lambda n: generate(model, n, inference=noisy),
        "GENERATE, noise in the chain": lambda n: generate(model, n, noise=0.1),
    }


@contender
def samples(way="GENERATE", n=1, calls=1):
    "So many pictures at a call; so many calls in a step."
    draw = _ways()[way]

    def run(times):
        for _ in range(times * calls):
            draw(n)

    return run


# ---- Parzen --------------------------------------------------------------------------------------


def rows(n, width, seed):
    "Rows for the Parzen estimate: pictures that lie as near to each other as digits do."
    return plain.pictures(n, width, seed)


@contender
def parzen(n=10_000, n_test=10_000, width=784):
    "The Parzen log-likelihood of this package; it answers its peak of memory, extra and in all."
    from biolearn.evaluation.parzen import parzen_log_likelihood

    test, samples = rows(n_test, width, 1), rows(n, width, 2)

    def run(times):
        with highest_memory() as extra:
            before = private_memory() if os.path.exists("/proc/self/status") else None
            for _ in range(times):
                parzen_log_likelihood(test, samples, 0.2)
        if not extra:
            return {"extra_mib": None, "total_mib": None}
        return {"extra_mib": extra[0], "total_mib": before + extra[0]}

    return run


@contender
def parzen_product(block=2048, n=10_000, n_test=10_000, width=784, threads=1):
    """Its matrix product alone, test rows times samples, in square blocks written to one buffer;
    `threads` > 1: blocks shared by so many Python threads.
    """
    from concurrent.futures import ThreadPoolExecutor

    test, samples = rows(n_test, width, 1), rows(n, width, 2)
    tiles = [(i, j) for i in range(0, n_test, block) for j in range(0, n, block)]
    pool = ThreadPoolExecutor(threads)

    def multiply(mine):
        out = np.empty((block, block), np.float32)
        for i, j in mine:
            a, b = test[i : i + block], samples[j : j + block]
            np.matmul(a, b.T, out=out[: len(a), : len(b)])

    def run(times):
        for _ in range(times):
            if threads == 1:
                multiply(tiles)
            else:
                list(pool.map(multiply, [tiles[k::threads] for k in range(threads)]))

    return run


@contender
def kernel_density(n=10_000, n_test=10, width=784):
    "scikit-learn's KernelDensity on a few queries; its time is proportional to their number."
    from sklearn.neighbors import KernelDensity

    test, samples = rows(n_test, width, 1), rows(n, width, 2)
    model = KernelDensity(bandwidth=0.2).fit(samples)

    def run(times):
        for _ in range(times):
            model.score_samples(test)

    return run


# ---- scaling -------------------------------------------------------------------------------------


@contender
def epoch(n=4_000, sizes=plain.SIZES, batch=plain.BATCH):
    """`fit` for one epoch on `n` made-up pictures, everything included: order, training, the
    measurement, the top prior.
    """
    from biolearn.core.learning import TrainConfig, fit
    from biolearn.core.rng import Random

    weights, units, settings, x = paper(sizes, batch, n_data=n)
    model, recipe = (
        biolearn_model(weights, units),
        TrainConfig(epochs=1, batch_size=batch, **settings),
    )

    def run(times):
        for _ in range(times):
            fit(model, x[:n], recipe, rng=Random(0), progress=False)

    return run


@contender
def streaming(path=None, n=1000, width=784, limit_mib=None):
    """`fit` on a memory-mapped file of (n, width) float32; answers the peak of its private memory
    over that before. `limit_mib`: allow no more than that above what it has.
    """
    from biolearn.core.learning import TrainConfig, fit
    from biolearn.core.model import init_model
    from biolearn.core.rng import Random

    x = np.memmap(path, dtype=np.float32, mode="r", shape=(n, width))
    model = init_model((width, 32, 100), plain.UNITS, rng=Random(0))
    recipe = TrainConfig(epochs=1, batch_size=1000, n_steps=1)
    fit(
        model, np.ascontiguousarray(x[:2000]), recipe, rng=Random(0), progress=False
    )  # what is made once

    def run(times):
        failed = None
        with highest_memory() as extra:
            if limit_mib is not None:
                with open("/proc/self/status") as file:
                    used = dict(line.split(":", 1) for line in file)["VmData"]
                resource.setrlimit(
                    resource.RLIMIT_DATA,
                    (int(used.split()[0]) * 1024 + int(limit_mib * 2**20), resource.RLIM_INFINITY),
                )
            try:
                fit(model, x, recipe, rng=Random(0), progress=False)
            except MemoryError as e:
                failed = str(e) or "MemoryError"
        return {"extra_mib": extra[0], "failed": failed}

    return run


# ---- the process ---------------------------------------------------------------------------------


def about():
    "What this process computes with."
    info = {"python": sys.version.split()[0], "numpy": np.__version__, **VERSIONS}
    try:
        from threadpoolctl import threadpool_info

        info["blas"] = [
            f"{lib['internal_api']} {lib['version']}, {lib.get('architecture') or 'kernel unknown'}, "
            f"{lib['num_threads']} threads"
            for lib in threadpool_info()
            if lib["user_api"] == "blas"
        ]
    except ImportError:
        info["blas"] = []
    if "torch" in sys.modules:
        import torch

        info |= {
            "torch": torch.__version__,
            "torch_threads": torch.get_num_threads(),
            "torch_cpu": torch.backends.cpu.get_cpu_capability(),
            "torch_blas": "MKL" if torch.backends.mkl.is_available() else "other",
        }
        if torch.cuda.is_initialized():
            info |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    if "jax" in sys.modules:
        info["jax"] = sys.modules["jax"].__version__
    if "cupy" in sys.modules and sys.modules["cupy"].is_available():
        import cupy

        info |= {
            "cupy": cupy.__version__,
            "gpu": cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode(),
            "cuda": cupy.cuda.runtime.runtimeGetVersion(),
        }
    return info


def main():
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints does not get between the answers

    def say(**what):
        print(json.dumps(what), file=answer, flush=True)

    run = CONTENDERS[name](**settings)
    say(ready=about())
    for line in sys.stdin:
        asked = json.loads(line)
        if "settings" in asked:
            run = None
            run = CONTENDERS[name](**asked["settings"])
            say(ready=about())
            continue
        start, processor = time.perf_counter(), time.process_time()
        result = run(asked["n"])
        say(
            seconds=time.perf_counter() - start,
            processor=time.process_time() - processor,
            result=result if isinstance(result, dict) else None,
        )


if __name__ == "__main__":
    main()
