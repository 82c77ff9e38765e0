"""The kernels for CuPy, tested where there is no GPU: a C++ compiler puts the loop around their
texts that CuPy would put around them.

A stand-in for CuPy does so for NumPy arrays. What it cannot show is CUDA's own arithmetic (its expf
is good to a few units in the last place, as is this one) and speed.
"""

import ctypes
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

import biolearn.core.ensembles as ensembles
import biolearn.core.fast_training as fast_training
import biolearn.core.learning as learning
import biolearn.core.optimizers as optimizers
import biolearn.core.rng as rng
import biolearn.kernels.cuda as cuda_module
import biolearn.kernels.dispatch as dispatch
from biolearn.core import fast_inference, layers
from biolearn.core.arrays import gpu_problem, to_numpy, use_device
from biolearn.core.ensembles import stack_models
from biolearn.core.inference import Inference
from biolearn.core.learning import TrainConfig, new_train_state, train_step
from biolearn.core.model import init_model, weights_of
from biolearn.core.rng import Random
from biolearn.kernels.threads import Threads

COMPILER = shutil.which("c++") or shutil.which("g++")
compiled_here = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")
on_a_gpu = pytest.mark.skipif(gpu_problem() is not None, reason=str(gpu_problem()))
TYPES = {
    "float32": ("float", ctypes.c_float),
    "int32": ("int", ctypes.c_int),
    "bool": ("bool", ctypes.c_bool),
}

EXACT = {"softplus": lambda a: np.logaddexp(0, a), "sigmoid": lambda a: 1 / (1 + np.exp(-a))}
SLOPE = {
    "softplus": EXACT["sigmoid"],
    "sigmoid": lambda a: EXACT["sigmoid"](a) * EXACT["sigmoid"](-a),
}
UNITS = cuda_module._CupyKernels.UNITS


class StandIn:
    """As much of CuPy as `_CupyKernels` asks for: kernels are compiled to loops over NumPy arrays, which
    are broadcast and refused as CuPy does it.
    """

    empty_like, sum = staticmethod(np.empty_like), staticmethod(np.sum)
    folder = None

    class ElementwiseKernel:
        launches = 0

        def __init__(self, in_params, out_params, operation, name, preamble):
            parse = lambda text: [tuple(p.split()) for p in text.split(",")]
            self.ins, self.outs, self.text, self.name, self.built = (
                parse(in_params),
                parse(out_params),
                (operation, preamble),
                name,
                {},
            )
            assert all(
                re.fullmatch("(?!_)[a-z]+", n) and n not in ("n", "i")
                for _, n in self.ins + self.outs
            )  # CuPy keeps these for itself

        def build(self, arrays):
            "One loop for each choice of which arguments are arrays."
            read = "".join(
                f"const {TYPES[t][0]} {n} = _{n}[i]; "
                for (t, n), array in zip(self.ins, arrays)
                if array
            )
            write = "".join(f"{TYPES[t][0]} &{n} = _{n}[i]; " for t, n in self.outs)
            args = [
                f"{TYPES[t][0]} {'*_' if array else ''}{n}"
                for (t, n), array in zip(self.ins + self.outs, (*arrays, *[True] * len(self.outs)))
            ]
            source = (
                f"#include <cmath>\n#define __device__ static inline\n{self.text[1]}\n"
                f'extern "C" void run(long _size, {", ".join(args)}) '
                f"{{ for (long i = 0; i < _size; ++i) {{ {read}{write}{self.text[0]}; }} }}"
            )
            path = StandIn.folder / f"{self.name}{''.join(map(str, map(int, arrays)))}.so"
            subprocess.run(
                [
                    COMPILER,
                    "-O1",
                    "-shared",
                    "-fPIC",
                    "-Wall",
                    "-Werror",
                    "-Wno-unused-function",
                    "-x",
                    "c++",
                    "-",
                    "-o",
                    path,
                ],
                input=source,
                text=True,
                check=True,
            )
            return ctypes.CDLL(str(path)).run

        def __call__(self, *args):
            StandIn.ElementwiseKernel.launches += 1
            arrays = tuple(isinstance(a, np.ndarray) for a in args)
            assert len(args) == len(self.ins) + len(self.outs) and all(arrays[len(self.ins) :])
            for (t, n), a in zip(self.ins + self.outs, args):
                assert not isinstance(a, np.ndarray) or a.dtype == t, n
            shape = np.broadcast_shapes(*(a.shape for a in args if isinstance(a, np.ndarray)))
            outs = args[len(self.ins) :]
            if any(a.shape != shape for a in outs):
                raise ValueError("Out shape is mismatched")
            flat = [
                np.ascontiguousarray(np.broadcast_to(a, shape)) if array else TYPES[t][1](a)
                for (t, _), a, array in zip(self.ins + self.outs, args, arrays)
            ]
            pick = arrays[: len(self.ins)]
            if pick not in self.built:
                self.built[pick] = self.build(pick)
            self.built[pick](
                ctypes.c_long(int(np.prod(shape))),
                *(
                    a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a
                    for a in flat
                ),
            )
            for out, made in zip(outs, flat[len(self.ins) :]):
                out[...] = made


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    StandIn.folder = tmp_path_factory.mktemp("kernels")
    return cuda_module._CupyKernels(StandIn)


def normal(*shape, seed=0):
    return Random(seed).normal(shape)


SHAPES = [(7, 5), (3, 7, 5)]  # one network, three networks


@compiled_here
@pytest.mark.parametrize("unit", UNITS)
def test_rates_everywhere(unit, kernels):
    near_zero = np.float32([s * 10.0**e for e in range(-30, 1) for s in (-1, 1)])
    a = np.concatenate([np.linspace(-60, 60, 100_001, dtype=np.float32), near_zero])
    y, exact = a[None].copy(), EXACT[unit](a.astype(np.float64))
    kernels.rates(y, np.zeros_like(a), UNITS[unit])
    # 0.5 + 0.5 tanh gives the small rates of a sigmoid to half a unit in the last place of 1, not
    # of themselves; a softplus is a sum of two roundings
    assert (
        np.abs(y[0] - exact).max() <= (1.3e-7 if unit == "sigmoid" else 1e-5)
        and np.abs(y[0] - exact)[np.abs(a) < 8].max() < 1e-6
    )
    for value in (np.nan, np.inf, -np.inf):
        one = np.full((1, 3), value, np.float32)
        kernels.rates(one, np.zeros(3, np.float32), UNITS[unit])
        np.testing.assert_array_equal(
            one, np.full((1, 3), EXACT[unit](value) if not np.isnan(value) else np.nan, np.float32)
        )


@compiled_here
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("known", [False, True])
def test_climb_and_pull_on_halves_of_an_array(unit, known, shape, kernels):
    """The arguments as `last_state` hands them over: halves of arrays, and of several networks' arrays
    not in one piece.
    """
    both, reply = (normal(*shape[:-2], 2 * shape[-2], shape[-1], seed=s) for s in (0, 1))
    h, above, up, low, b = (
        both[..., : shape[-2], :],
        both[..., shape[-2] :, :],
        reply[..., : shape[-2], :],
        reply[..., shape[-2] :, :],
        normal(*shape[:-2], shape[-1], seed=4),
    )
    rate, H, A, U, L, B = (
        EXACT[unit],
        *(v.astype(np.float64) for v in (h, above, up, low, b[..., None, :])),
    )
    kernels.pull(h, above, 0.25)
    kernels.climb(h, up, low, b, 0.1, UNITS[unit], known)
    np.testing.assert_allclose(
        h, H + 0.25 * (A - H) + 0.1 * ((U if known else rate(U + B)) - rate(L + B)), atol=2e-6
    )
    np.testing.assert_array_equal(above, A.astype(np.float32))


@compiled_here
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("unit", UNITS)
def test_errors_are_those_of_the_delta_rule(unit, shape, kernels):
    a, b, targets = (
        3 * normal(*shape),
        normal(*shape[:-2], shape[-1], seed=1),
        normal(*shape, seed=2),
    )
    A = a.astype(np.float64) + b[..., None, :]
    db, squares = np.full_like(b, np.nan), np.full_like(b, np.nan)
    kernels.errors(a, b, targets, db, squares, UNITS[unit])
    error = EXACT[unit](A) - targets
    delta = error * SLOPE[unit](A) / shape[-2]
    np.testing.assert_allclose(a, delta, atol=1e-6)
    np.testing.assert_allclose(db, delta.sum(-2), atol=2e-6)
    np.testing.assert_allclose(squares, (error**2).sum(-2), rtol=3e-6)


@compiled_here
def test_adam_against_its_definition_in_double_precision(kernels):
    w, m, v = np.zeros((3, 37), np.float32)
    exact, mean, square = np.zeros(37), 0, 0
    for t, grad in enumerate(normal(30, 37), 1):
        kernels.adam(w, grad, m, v, *optimizers.adam_scales(1e-2, t))
        mean, square = (
            0.9 * mean + 0.1 * grad.astype(float),
            0.999 * square + 0.001 * grad.astype(float) ** 2,
        )
        exact -= 1e-2 * mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(w, exact, rtol=1e-5, atol=1e-6)


@compiled_here
def test_an_output_that_would_have_to_grow_is_refused(kernels):
    with pytest.raises(ValueError, match="Out shape"):
        kernels.pull(normal(1, 5), normal(3, 5), 0.1)


# ---- whole steps ---------------------------------------------------------------------------------

NETWORKS = [
    ((20, 17, 5), ("sigmoid", "softplus", "sigmoid")),
    ((20, 17, 9, 5), ("linear", "tanh", "softplus", "sigmoid")),
]


def train(sizes, units, S=None, device=None, optimizer="adam"):
    "Three steps of one network, or of `S`: settled h, losses and weights."
    M = len(sizes) - 1
    recipe = TrainConfig(
        noise=(0.5, *[0.1] * (M - 1), "spikes"),
        rate_f=[1e-3] * M,
        rate_g=[2e-3] * M,
        alpha=0.05,
        optimizer=optimizer,
    )
    lead = () if S is None else (S,)
    model = (
        init_model(sizes, units, rng=Random(0, device))
        if S is None
        else stack_models([init_model(sizes, units, rng=Random(s, device)) for s in range(S)])
    )
    stream = lambda *address: (
        Random(2, device).stream(*address)
        if S is None
        else rng.Seeds(tuple(Random(s, device).stream(*address) for s in range(S)))
    )
    x, state = stream("x").uniform((*lead, 30, 20)), new_train_state(model, optimizer)
    rngs = [stream(k) for k in range(M + 1)]
    for _ in range(3):
        h, losses = train_step(state, x, recipe, rngs=rngs, threads=Threads(1))
    return [to_numpy(a) for a in (*h, *losses, *weights_of(state.model).values())]


def equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=3e-5, atol=1e-5)


@compiled_here
@pytest.mark.parametrize("sizes, units", NETWORKS)
@pytest.mark.parametrize("S", [None, 3])
def test_training_steps_with_and_without(sizes, units, S, kernels, monkeypatch):
    for module in (fast_inference, layers, optimizers):
        monkeypatch.setattr(module, "find_kernels", lambda *arrays: None)
    plain = train(sizes, units, S)
    used, StandIn.ElementwiseKernel.launches = set(), 0

    class Spy:
        UNITS = kernels.UNITS

        def __getattr__(self, name):
            used.add(name)
            return getattr(kernels, name)

    for module in (fast_inference, layers, optimizers):
        monkeypatch.setattr(
            module,
            "find_kernels",
            lambda *arrays: Spy() if all(a.dtype == np.float32 for a in arrays) else None,
        )
    equal(train(sizes, units, S), plain)
    assert used == {"rates", "pull", "climb", "errors", "adam"}
    if "tanh" not in units:
        assert StandIn.ElementwiseKernel.launches == 3 * launches(len(sizes) - 1, 15)


def launches(M, N):
    """Of these kernels in one step: rates of f and g at the start, rates, climb and pull in
    inference (the last painting of x is not needed), errors and two of Adam for each map.
    """
    return 2 * M + N * (2 * M + (M - 1)) - 1 + 2 * M * 3


def test_arrays_of_cupy_get_the_kernels_of_cupy(monkeypatch):
    monkeypatch.setattr(dispatch, "is_cupy_array", lambda a: True)
    monkeypatch.setattr(dispatch, "cupy_kernels", lambda: "fused")
    assert (
        dispatch.find_kernels(normal(2, 3), normal(3)) == "fused"
        and dispatch.find_kernels(normal(2, 3).astype(float)) is None
        and dispatch.find_kernels() is dispatch.compiled_kernels()
    )


@on_a_gpu
@pytest.mark.parametrize("sizes, units", NETWORKS)
@pytest.mark.parametrize("S", [None, 3])
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_on_the_gpu_with_and_without(sizes, units, S, optimizer, monkeypatch):
    fast = train(sizes, units, S, use_device("gpu"), optimizer)
    monkeypatch.setattr(dispatch, "cupy_kernels", lambda: None)
    equal(fast, train(sizes, units, S, use_device("gpu"), optimizer))


def test_a_job_is_run_then_recorded_then_replayed(monkeypatch):
    """With a stand-in for CuPy's stream: what is asked of it, and in which order; also for a job
    that returns nothing, and for one that fails while it is recorded.
    """
    log = []
    stream = SimpleNamespace(
        begin_capture=lambda: log.append("begin"),
        end_capture=lambda: (
            log.append("end") or SimpleNamespace(launch=lambda: log.append("replay"))
        ),
    )
    cuda = SimpleNamespace(
        MemoryPool=lambda: SimpleNamespace(malloc=None),
        get_current_stream=lambda: stream,
        using_allocator=lambda malloc: nullcontext(),
    )
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    for job, results in (
        (lambda: log.append("job") or log.count("job"), [1, 2, 2, 2]),
        (lambda: log.append("job"), [None] * 4),
    ):
        log.clear()
        recording = cuda_module.CudaGraph(job)
        assert [recording() for _ in range(4)] == results
        assert log == ["job", "begin", "job", "end", "replay", "replay", "replay"]
    log.clear()
    recording = cuda_module.CudaGraph(lambda: 1 / (1 - log.count("begin")))
    recording()
    with pytest.raises(ZeroDivisionError):
        recording()
    assert log == ["begin", "end"]  # the stream is not left recording


class Table(np.ndarray):
    "A NumPy array that is filled as CuPy's are, and whose entries are views as CuPy's are."

    def set(self, values):
        self[...] = values


class Namespace:
    "NumPy's, but `empty` makes a `Table`."

    def __getattr__(self, name):
        return (
            (lambda *a, **kw: np.empty(*a, **kw).view(Table))
            if name == "empty"
            else getattr(np, name)
        )


@pytest.mark.parametrize("steady", [None, True, False])
@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_steps_that_read_their_numbers_from_arrays_are_the_same_steps(
    optimizer, steady, monkeypatch
):
    """The path that a GPU records, with NumPy's arrays in the place of CuPy's and every replay a
    run of the job. Another inference takes part only if it says that it may.
    """
    recipe = TrainConfig(
        epochs=2,
        batch_size=20,
        noise=(0.2, 0.05, "spikes"),
        noise_end=(0.1, 0.08, "spikes"),
        optimizer=optimizer,
    )
    x, jobs = Random(5).uniform((70, 12)), []
    start = init_model((12, 9, 5), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))

    class Dropping(Inference):
        "Inference from a random nine tenths of the pixels."

        draws, recordable = True, steady

        def __call__(self, model, x, *, visible=None, rng=None, threads=None):
            return super().__call__(model, x * (rng.uniform(x.shape) < 0.9))

    other = None if steady is None else Dropping(recipe.n_steps, recipe.delta, recipe.alpha)
    train = lambda: learning.fit(start, x, recipe, rng=Random(1), progress=False, inference=other)
    launched, told = train()
    # asked of the first map's weights, and of the noise
    for module in (learning, fast_training):
        monkeypatch.setattr(module, "is_cupy_array", lambda a: a.shape == (12, 9))
    monkeypatch.setattr(layers, "is_cupy_array", lambda a: isinstance(a, Table))
    monkeypatch.setattr(fast_training, "array_namespace", lambda *a: Namespace())
    monkeypatch.setattr(learning, "graph_stream", lambda a: nullcontext())
    monkeypatch.setattr(fast_training, "CudaGraph", lambda job: jobs.append(job) or job)
    monkeypatch.setattr(optimizers, "find_kernels", lambda *a: None)  # numba would not take a Table
    replayed, told_again = train()
    assert len(jobs) == (0 if steady is False else 2)
    weights = (weights_of(model).values() for model in (launched, replayed))
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(
        [h["loss_f"] for h in told], [h["loss_f"] for h in told_again], rtol=1e-5
    )


class Located(np.ndarray):
    "A NumPy array that says where it lies, as CuPy's do."

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


class HostCublas:
    "cuBLAS on the host: it reads and writes columns at the addresses that it is given."

    def follow(self):
        pass

    def ask(self, name, flip_a, flip_b, m, n, k, one, *rest):
        if name == "cublasSgemm_v2":
            A, lda, B, ldb, zero, C, ldc = rest
            strides, count = (0, 0, 0), 1
        else:
            assert name == "cublasSgemmStridedBatched"
            A, lda, sa, B, ldb, sb, zero, C, ldc, sc, count = rest
            strides = [stride.value for stride in (sa, sb, sc)]
        assert one._obj.value == 1 and zero._obj.value == 0

        def columns(address, rows, cols, apart, offset):
            start = ctypes.cast(address.value + 4 * offset, ctypes.POINTER(ctypes.c_float))
            flat = np.ctypeslib.as_array(start, ((cols - 1) * apart + rows,))
            return np.lib.stride_tricks.as_strided(flat, (rows, cols), (4, 4 * apart))

        for i in range(count):
            left = columns(A, *((k, m) if flip_a else (m, k)), lda, i * strides[0])
            right = columns(B, *((n, k) if flip_b else (k, n)), ldb, i * strides[1])
            out = columns(C, m, n, ldc, i * strides[2])
            out[...] = (left.T if flip_a else left) @ (right.T if flip_b else right)


@pytest.mark.parametrize("one, two", [((30, 20), (20, 7)), ((1, 20), (20, 7)), ((30, 1), (1, 7))])
@pytest.mark.parametrize("lead", [((), ()), ((3,), (3,)), ((), (3,)), ((3,), ())])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_cublas_is_asked_for_the_product(one, two, lead, flips, monkeypatch):
    "Rows, transposes, one network and several, into a part of an array; without a GPU."
    monkeypatch.setattr(cuda_module, "_cublas", HostCublas)
    monkeypatch.setattr(cuda_module, "_for_cublas", lambda a: True)

    def operand(shape, flip, seed):
        a = normal(*shape, seed=seed)
        turned = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
        return (turned if flip else a).view(Located)

    a, b = operand(lead[0] + one, flips[0], 0), operand(lead[1] + two, flips[1], 1)
    whole = np.full((*max(lead), 2 * one[0], two[1]), np.nan, np.float32).view(Located)
    cuda_module.product(a, b, whole[..., : one[0], :])
    exact = np.asarray(a, float) @ np.asarray(b, float)
    np.testing.assert_allclose(whole[..., : one[0], :], exact, atol=1e-5)
    assert np.isnan(whole[..., one[0] :, :]).all()


@on_a_gpu
def test_products_of_rows_and_of_transposes():
    """Against NumPy's in double precision: one network and three, halves of arrays, weights that
    all networks share.
    """
    gpu, exact = use_device("gpu"), np.float64
    shapes = {
        "rows": ((30, 20), (20, 7)),
        "one row": ((1, 20), (20, 7)),
        "one column": ((30, 1), (1, 7)),
        "one number": ((30, 20), (20, 1)),
        "three": ((3, 30, 20), (3, 20, 7)),
        "shared": ((30, 20), (3, 20, 7)),
    }
    for name, (one, two) in shapes.items():
        a, b = gpu.asarray(normal(*one)), gpu.asarray(normal(*two, seed=1))
        flip = gpu.xp.matrix_transpose
        for left in (a, flip(gpu.xp.asarray(flip(a), copy=True))):
            for right in (b, flip(gpu.xp.asarray(flip(b), copy=True))):
                whole = gpu.xp.full((*two[:-2], 2 * one[-2], two[-1]), np.nan, dtype=np.float32)
                cuda_module.product(left, right, whole[..., : one[-2], :])
                np.testing.assert_allclose(
                    to_numpy(whole[..., : one[-2], :]),
                    to_numpy(a).astype(exact) @ to_numpy(b).astype(exact),
                    atol=1e-5,
                    err_msg=name,
                )
                assert np.isnan(to_numpy(whole[..., one[-2] :, :])).all()


@on_a_gpu
@pytest.mark.parametrize("S", [None, 3])
@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_a_recorded_epoch_gives_the_bits_of_its_launches(S, optimizer, monkeypatch):
    "Two epochs of three minibatches and a shorter one: launched, recorded, replayed, launched."
    gpu, recipe = (
        use_device("gpu"),
        TrainConfig(
            epochs=2,
            batch_size=20,
            noise=(0.2, 0.1, "spikes"),
            noise_end=(0.1, 0.1, "spikes"),
            optimizer=optimizer,
        ),
    )
    x, start, replays = (
        Random(5, gpu).uniform((70, 12)),
        [
            init_model((12, 9, 5), ("sigmoid", "softplus", "sigmoid"), rng=Random(s, gpu))
            for s in range(S or 1)
        ],
        [],
    )

    def weights():
        found = (
            [learning.fit(start[0], x, recipe, rng=Random(1, gpu), progress=False)]
            if S is None
            else ensembles.fit_many(
                start, x, recipe, rngs=[Random(s, gpu) for s in range(S)], progress=False
            )
        )
        return [
            to_numpy(w)
            for model, _ in found
            for w in (*weights_of(model).values(), model.prior.mean, model.prior.var)
        ], [history for _, history in found]

    once = cuda_module.CudaGraph.__call__

    def watched(self):
        replays.append(self.graph is not None)
        return once(self)

    monkeypatch.setattr(cuda_module.CudaGraph, "__call__", watched)
    fast, told = weights()
    assert replays == 2 * [False, False, True]
    monkeypatch.setattr(cuda_module.CudaGraph, "__call__", lambda self: self.job())
    slow, told_slowly = weights()
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(a, b)
    assert told == told_slowly
    assert all(
        np.abs(a - to_numpy(b)).max() > 0 for a, b in zip(fast, weights_of(start[0]).values())
    )
