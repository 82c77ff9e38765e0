"""The backend: the same numbers everywhere, streams with addresses, and input that is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biolearn.core.arrays import (
    Backend,
    DeviceError,
    check_array,
    check_number,
    to_numpy,
    use_device,
)
from biolearn.core.files import write_whole
from biolearn.core.rng import Random, Seeds
from biolearn.kernels.threads import Threads, use_threads


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
    from biolearn.core.data import minibatches
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


def test_workers_share_everything_once():
    for n, examples in [(1, 1), (2, 3), (2, 100), (3, 250), (8, 1000), (64, 100)]:
        fractions = Threads(n).fractions(examples)
        assert [i for s in fractions for i in range(s.start, s.stop)] == list(range(examples))
        assert max(s.stop - s.start for s in fractions) <= 100

    def fail(i):
        raise KeyError(i)

    with pytest.raises(KeyError):
        Threads(3).map(fail, [1, 2])


def test_workers_hold_the_products_to_one_thread_and_let_go_again(strict_backend):
    from threadpoolctl import threadpool_info, threadpool_limits

    products = lambda: [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    with threadpool_limits(2, "blas"):
        before = products()
        with use_threads(np.zeros(1)) as threads:
            assert set(products()) == {1} and threads.n == max(before)
            with use_threads(np.zeros(1)) as inner:
                assert inner.n == 1  # no threads within threads
        assert products() == before
    with use_threads(strict_backend.asarray([0.0])) as threads:
        assert threads.n == 1


def test_write_whole_all_or_nothing(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(ZeroDivisionError), write_whole(path) as part:
        part.write_text("half")
        1 / 0
    assert not list(tmp_path.iterdir())
    with write_whole(path) as part:
        part.write_text("whole")
        assert not path.exists() and part.suffix == ".txt"
    assert path.read_text() == "whole" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
