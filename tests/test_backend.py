"""The backend: the same numbers everywhere, streams with addresses, and input that is refused."""

import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import array_api_compat.numpy as numpy_namespace
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biolearn.core.arrays import (
    DeviceError,
    as_floats,
    backend_of,
    check_array,
    check_number,
    gpu_problem,
    softmax,
    to_numpy,
    use_device,
)
from biolearn.core.data import minibatches
from biolearn.core.inference import infer
from biolearn.core.model import init_model
from biolearn.core.priors import fit_mixture_prior, sample_prior
from biolearn.core.rng import Random, Seeds, as_random
from biolearn.evaluation.baselines import fit_centroids
from biolearn.evaluation.completion import impute_nearest
from biolearn.evaluation.neighbours import class_histogram, nearest_class, nearest_distance
from biolearn.evaluation.parzen import parzen_log_likelihood
from biolearn.extensions.asynchronous import AsynchronousInference
from biolearn.extensions.dale import dale_signs
from biolearn.extensions.reinforcement import (
    Bandit,
    RewardConfig,
    draw_actions,
    fit_bandit,
    init_actor,
)
from biolearn.extensions.supervised import one_hot

ROOT = Path(__file__).resolve().parent.parent


def test_round_trip(backend):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = backend.asarray(a)
    assert (to_numpy(b) == a).all() and b.dtype == backend.xp.float32
    a[0, 0] = 9
    assert float(to_numpy(b)[0, 0]) == 0  # a copy, not a view


@given(
    st.integers(0, 2**63),
    st.lists(st.one_of(st.text(max_size=5), st.integers(0, 2**31)), max_size=3),
)
@settings(deadline=None)
def test_same_address_same_bits(seed, address):
    a, b = (Random(seed).stream(*address).normal((4,)) for _ in range(2))
    assert (a == b).all()
    assert (Random(seed + 1).stream(*address).normal((4,)) != a).any()
    assert (Random(seed).stream(*address, "further").normal((4,)) != a).any()


def test_stream_is_the_same_however_it_is_walked_to():
    assert (
        Random(3).stream("a", 1).normal((3,)) == Random(3).stream("a").stream(1).normal((3,))
    ).all()


def test_other_namespaces_draw_numpys_numbers(strict_backend):
    for draw in ("normal", "uniform"):
        assert (
            to_numpy(getattr(Random(0, strict_backend), draw)((5, 2)))
            == getattr(Random(0), draw)((5, 2))
        ).all()
    assert (to_numpy(Random(0, strict_backend).permutation(10)) == Random(0).permutation(10)).all()


def test_distributions(backend):
    n = 200_000
    u, z = (
        to_numpy(getattr(Random(0, backend), d)((n,))).astype(float) for d in ("uniform", "normal")
    )
    assert 0 <= u.min() and u.max() < 1 and abs(u.mean() - 0.5) < 5 / np.sqrt(12 * n)
    assert abs(z.mean()) < 5 / np.sqrt(n) and abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert sorted(to_numpy(Random(0, backend).permutation(100))) == list(range(100))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_of_draws(backend, dtype):
    assert to_numpy(Random(0, backend).normal((2,), dtype)).dtype == dtype


def test_seeds_side_by_side_draw_what_each_draws_alone(backend):
    "To the last bit, call after call, whatever is drawn; and the rows of minibatches with them."
    from biolearn.core.layers import corrupt

    seeds, both = (
        (2, 7, 11),
        lambda: Seeds(tuple(Random(s, backend).stream("a") for s in (2, 7, 11))).stream("b", 3),
    )
    alone = [Random(s, backend).stream("a", "b", 3) for s in seeds]
    rng = both()
    for draw in (
        lambda r, *lead: r.normal((*lead, 4, 5)),
        lambda r, *lead: r.uniform((*lead, 4)),
        lambda r, *lead: r.permutation(9),
        lambda r, *lead: r.normal((*lead, 2), "float64"),
    ):
        together = to_numpy(draw(rng, 3))
        for s, one in enumerate(to_numpy(draw(r)) for r in alone):
            assert (together[s] == one).all() and together[s].dtype == one.dtype
    x, h = (
        backend.asarray(np.arange(22.0).reshape(11, 2)),
        backend.asarray(np.linspace(0, 1, 30).reshape(3, 2, 5)),
    )
    for batch, *each in zip(
        minibatches(x, 4, rng=both()),
        *(minibatches(x, 4, rng=Random(s, backend).stream("a", "b", 3)) for s in seeds),
        strict=True,
    ):
        assert (to_numpy(batch) == np.stack([to_numpy(b) for b in each])).all()
    for noise in (0.3, "spikes"):
        noisy = to_numpy(corrupt(h, noise, rng=both()))
        for s in range(3):
            assert (
                noisy[s]
                == to_numpy(
                    corrupt(h[s, ...], noise, rng=Random(seeds[s], backend).stream("a", "b", 3))
                )
            ).all()


def test_no_gpu_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setattr("biolearn.core.arrays.gpu_problem", lambda: "there is none")
    assert use_device("auto").name == "cpu"
    with pytest.raises(DeviceError, match="there is none.*device='cpu'"):
        use_device("gpu")
    with pytest.raises(ValueError, match="'auto', 'cpu', 'gpu'"):
        use_device("cuda")


@pytest.mark.parametrize(
    "bad, message",
    [
        ([[1.0]], "must be an array"),
        (np.ones((2, 3), int), "floating point"),
        (np.ones((2, 3), complex), "floating point"),
        (np.ones(3), "2 axes"),
        (np.ones((0, 3)), "empty"),
        (np.ones((2, 4)), "3 columns"),
        (np.asarray([[1, np.inf, 0]]), r"first at \(0, 1\)"),
        (np.asarray([[0.0, 0, 0], [0, 0, -1]]), r"below 0.*\(1, 2\)"),
        (np.full((1, 3), 1.5), "above 1"),
    ],
)
def test_check_array_names_what_is_wrong(bad, message):
    with pytest.raises((ValueError, TypeError), match="pixels.*" + message):
        check_array(bad, "pixels", width=3, low=0, high=1)


@pytest.mark.parametrize("value", [None, "1", True, float("nan"), -1, 11, 1.5])
def test_check_number(value):
    with pytest.raises((ValueError, TypeError), match="rounds"):
        check_number(value, "rounds", integer=True, low=0, high=10)
    check_number(10, "rounds", integer=True, low=0, high=10)


def test_a_large_array_is_checked_block_by_block(monkeypatch):
    """A million entries at a time: a bad one in a later block is found, with its place in the whole
    array, and no temporary is as large as the array.
    """
    a = np.zeros((3, 2**20), np.float32)
    a[2, 5] = np.nan
    seen, isfinite = [], np.isfinite
    import array_api_compat.numpy as xp

    monkeypatch.setattr(xp, "isfinite", lambda block: seen.append(block.size) or isfinite(block))
    with pytest.raises(ValueError, match=r"a holds NaN.*\(2, 5\)"):
        check_array(a, "a")
    assert seen == [2**20] * 3
    a[2, 5] = -1.0
    with pytest.raises(ValueError, match=r"numbers below 0.*\(2, 5\)"):
        check_array(a, "a", low=0)


def test_a_whole_number_beyond_every_float_is_compared_all_the_same():
    check_number(10**400, "seed", integer=True, low=0)
    with pytest.raises(ValueError, match="seed must be at most 9"):
        check_number(10**400, "seed", integer=True, high=9)


def test_the_backend_of_an_array_makes_arrays_beside_it(backend):
    a = backend.asarray([[1.0, 2.0]])
    made = backend_of(a).asarray([3.0])
    assert type(made) is type(a) and made.dtype == a.dtype
    assert getattr(made, "device", None) == getattr(a, "device", None)


# ---- CuPy, in every state in which people have it ------------------------------------------------


def test_a_cupy_that_does_not_work_is_an_answer_not_an_error(monkeypatch):
    "As CuPy 13 without a driver, which raises in is_available(), and as one made for another NumPy."

    def broken(error):
        class Cupy:
            def __getattr__(self, name):
                raise error

        return Cupy()

    for error in (
        RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"),
        OSError("libcuda.so.1: cannot open shared object file"),
        AttributeError("module 'numpy' has no attribute 'bool'"),
        ValueError("numpy.dtype size changed"),
    ):
        monkeypatch.setitem(sys.modules, "cupy", broken(error))
        assert str(error) in gpu_problem()
        assert use_device("auto").name == "cpu"
        with pytest.raises(DeviceError, match="device='gpu' was asked for.*does not work"):
            use_device("gpu")
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(is_available=lambda: False))
    assert gpu_problem() == "CuPy is installed but finds no CUDA device"
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu_problem().startswith("CuPy cannot be imported")


# ---- a seed or a Random --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7, np.int64(7), np.uint8(7)])
def test_a_seed_becomes_the_random_of_that_seed(seed, backend):
    assert as_random(seed) == Random(int(seed))
    rng = as_random(seed, backend.asarray([0.0]))
    same = to_numpy(Random(int(seed), backend).stream("a").normal((5,)))
    assert (to_numpy(rng.stream("a").normal((5,))) == same).all()


def test_a_random_stays_or_moves_to_the_arrays_with_its_address(strict_backend):
    rng = Random(3).stream("here")
    assert as_random(rng) is rng and as_random(rng, np.zeros(2)) is rng
    moved = as_random(rng, strict_backend.asarray([0.0]))
    assert moved.backend == strict_backend and moved.address == rng.address
    assert (to_numpy(moved.normal((4,))) == rng.normal((4,))).all()


@pytest.mark.parametrize(
    "bad", [None, True, 1.0, "1", np.random.default_rng(0), np.random.RandomState(0)]
)
def test_no_other_thing_is_taken_for_random_numbers(bad):
    with pytest.raises(TypeError, match=rf"rng must be a seed .*Random, got {type(bad).__name__}"):
        as_random(bad)
    with pytest.raises(ValueError, match="seed"):
        as_random(-1)


# ---- other numbers are converted once ------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["?", "u1", "i2", "f2", "f4", "f8", "g", ">f4", ">f8", ">i4", "<f4"]
)
def test_numbers_of_every_kind_keep_their_values(kind):
    x = np.asarray([[0, 1], [1, 0]]).astype(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        floats = as_floats(x)
    assert floats.dtype == np.dtype("=f4") and (floats == [[0, 1], [1, 0]]).all()
    assert (floats is x) == (x.dtype == np.float32)


def test_floats_that_are_right_are_left_alone(backend):
    for dtype in ("float32", "float64"):
        x = backend.asarray([[0.5, 1.0]], dtype)
        assert as_floats(x, dtype) is x and as_floats(x, x.dtype) is x
    x = backend.asarray([[1, 2], [3, 4]], "int64")
    assert (to_numpy(as_floats(x)) == [[1, 2], [3, 4]]).all()
    assert type(as_floats(x)) is type(x)


def said(x, dtype="float32"):
    "What `as_floats` warns of."
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        as_floats(x, dtype, "pixels")
    return [str(w.message) for w in found]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_whole_numbers_that_are_rounded_are_announced(numbers):
    "The oracle: back to Python's whole numbers, which have no limit."
    x = np.asarray(numbers, dtype=np.int64)
    rounded = any(int(np.float32(n)) != n for n in numbers)
    assert len(said(x)) == rounded
    assert all(message.startswith("pixels, int64, becomes") for message in said(x))


@pytest.mark.parametrize("n, rounded", [(2**24, 0), (2**24 + 1, 1), (2**25, 0), (2**64 - 1, 1)])
def test_whole_numbers_at_the_edge(n, rounded, strict_backend):
    x = np.asarray([0, n], dtype=np.uint64)
    assert len(said(x)) == len(said(strict_backend.asarray(x, "uint64"))) == rounded
    assert not said(x[:0]) and not said(np.asarray([-(2**24), -(2**63)]))
    assert len(said(np.asarray([2**53 + 1]), "float64")) == 1


@pytest.mark.parametrize(
    "x, message",
    [
        ([1e39, 0.0], "beyond its range, 3.4e+38"),
        ([-1e300, 0.0], "beyond its range"),
        ([1e-50, 0.0], "too small"),
        ([np.longdouble(1e39)], "beyond"),
        ([1e38, 1e-50], None),
        ([0.0], None),
        ([np.nan, 1.0], None),
        ([np.inf, 1.0], None),
    ],
)
def test_floats_out_of_range_are_announced(x, message):
    found = said(np.asarray(x))
    assert (len(found) == 1 and message in found[0]) if message else not found


def test_what_are_no_real_numbers_is_refused_by_name():
    masked = np.ma.masked_array(np.ones((2, 2), np.float32), mask=[[0, 1], [0, 0]])
    with pytest.raises(ValueError, match="pixels is a masked array with 1 masked"):
        as_floats(masked, name="pixels")
    whole = as_floats(np.ma.masked_array(np.ones(2, np.float32)))
    assert type(whole) is np.ndarray
    for bad in (
        np.ones(2, complex),
        np.asarray(["a"]),
        np.asarray([None]),
        np.asarray(["2020"], "M8"),
    ):
        with pytest.raises(TypeError, match="pixels must hold real numbers, got dtype"):
            as_floats(bad, name="pixels")
    with pytest.raises(TypeError, match="pixels must be an array, got list"):
        as_floats([1.0], name="pixels")


# ---- a machine whose addresses have 32 bits ------------------------------------------------------


INDICES = ("argmax", "argmin", "argsort", "nonzero", "searchsorted", "count_nonzero")
READERS = ("take", "bincount", "repeat")  # these refuse indices that would have to be narrowed


def narrowed(made):
    "What a machine of 32 bits has in the place of these indices."
    if isinstance(made, tuple):
        return tuple(map(narrowed, made))
    return made.astype(np.int32)[()]


@pytest.fixture
def narrow(monkeypatch):
    "As WebAssembly and 32-bit ARM: an index has 32 bits, and NumPy refuses wider ones."

    def making(function):
        return lambda *args, **kw: narrowed(function(*args, **kw))

    def reading(function):
        def refuse(*args, **kw):
            indices = args[0] if function is bincount else args[1]
            if not np.can_cast(np.asarray(indices).dtype, np.int32) and np.ndim(indices):
                raise TypeError("Cannot cast array data from dtype('int64') to dtype('int32')")
            return function(*args, **kw)

        return refuse

    bincount = np.bincount
    monkeypatch.setattr(np, "bincount", reading(bincount))
    monkeypatch.setattr(np, "flatnonzero", making(np.flatnonzero))
    for names, kind in ((INDICES, making), (READERS, reading)):
        for name in set(names) & set(dir(numpy_namespace)):
            monkeypatch.setattr(numpy_namespace, name, kind(getattr(numpy_namespace, name)))
    monkeypatch.setattr(numpy_namespace, "intp", np.int32)
    monkeypatch.setattr(np, "intp", np.int32)


def test_indices_are_those_of_the_machine(narrow, strict_backend):
    rng, x = Random(0), np.arange(12.0).reshape(6, 2)
    assert rng.permutation(5).dtype == np.int32
    # a namespace that rests on NumPy takes what NumPy takes
    assert Random(0, strict_backend).permutation(5).dtype == strict_backend.xp.int32
    for source in (rng, Seeds((rng, Random(1)))):
        batches = np.concatenate([b.reshape(-1, 2) for b in minibatches(x, 4, rng=source)])
        assert sorted(set(batches[:, 0])) == list(x[:, 0])


def rows(*shape, seed=0):
    return Random(seed).uniform(shape)


def mixture(n=40):
    return fit_mixture_prior(rows(n, 3), 4, rng=Random(1))


def paid(chosen, actions):
    return (chosen % 2 == actions).astype(np.float32)


def actor():
    return init_actor(2, (6,), 2, rng=Random(2))


def settled():
    "By layers that move at random times."
    model = init_model((6, 5, 4), ("sigmoid", "softplus", "sigmoid"), rng=0)
    return infer(model, rows(9, 6), AsynchronousInference(n_steps=4, p=0.5), rng=Random(3))


LABELS = np.arange(40, dtype=np.int64) % 4
LOOK_UP = {  # calls that look up rows by indices which they make or are given
    "a mixture prior": lambda: sample_prior(mixture(), 20, rng=Random(2)),
    "Parzen": lambda: parzen_log_likelihood(rows(20, 3, seed=1), rows(40, 3), 0.2, chunk=16),
    "nearest": lambda: nearest_distance(rows(20, 3, seed=1), rows(40, 3), chunk=16),
    "nearest class": lambda: nearest_class(rows(20, 3, seed=1), rows(40, 3), LABELS),
    "histogram": lambda: class_histogram(LABELS, 4),
    "completion": lambda: impute_nearest(
        rows(20, 3, seed=1), np.array([True, False, True]), rows(40, 3), chunk=16
    ),
    "centroids": lambda: fit_centroids(rows(40, 3), 5, rng=Random(0)).fractions,
    "one-hot": lambda: one_hot(LABELS, 4),
    "actions": lambda: draw_actions(softmax(rows(50, 3)), rng=Random(0)),
    "signs": lambda: dale_signs((6, 5, 4), 0.8, rng=Random(0)),
    "asynchronous": settled,
    "a bandit": lambda: fit_bandit(
        actor(), Bandit(rows(40, 2), paid, 10), RewardConfig(), trials=30, rng=0
    )[1],
}


def flat(made):
    "The numbers in what a call returns."
    if isinstance(made, (list, tuple)):
        return [number for one in made for number in flat(one)]
    return [] if made is None else np.ravel(made).tolist()


@pytest.mark.parametrize("call", LOOK_UP)
def test_what_looks_up_rows_does_it_with_narrow_indices_too(call, request):
    wide = flat(LOOK_UP[call]())
    request.getfixturevalue("narrow")
    assert wide and flat(LOOK_UP[call]()) == wide


def test_64_bits_are_asked_for_only_where_they_are_meant():
    "The kernels count in `int64`; whoever makes an index takes the type from the backend."
    sources = [*(ROOT / "biolearn").rglob("*.py"), *(ROOT / "nbs" / "figures").glob("*.ipynb")]
    asked = {p.name for p in sources if re.search(r"\bint64", p.read_text(encoding="utf-8"))}
    assert asked == {"compiled.py"}


def test_indices_here_have_the_type_that_numpy_wants(strict_backend):
    assert Random(0).permutation(5).dtype == np.intp
    assert Random(0, strict_backend).permutation(5).dtype == strict_backend.xp.int64
