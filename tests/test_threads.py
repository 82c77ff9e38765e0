"""Threads that share the examples: nothing is lost, nothing is divided twice, and what belongs to the
whole process survives a fork and company.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from biolearn.core.inference import Inference, infer
from biolearn.core.model import init_model
from biolearn.core.rng import Random
from biolearn.kernels.threads import Threads, use_threads

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def products():
    "The threads that a matrix product of NumPy has; SciPy brings a library of its own."
    libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    numpys = [lib for lib in libraries if "numpy.libs" in lib["filepath"]] or libraries
    return max(lib["num_threads"] for lib in numpys)


def test_workers_share_everything_once():
    for n, examples in [(1, 1), (2, 3), (2, 100), (3, 250), (8, 1000), (64, 100)]:
        fractions = Threads(n).slices(examples)
        assert [i for s in fractions for i in range(s.start, s.stop)] == list(range(examples))
        assert max(s.stop - s.start for s in fractions) <= 100

    def fail(i):
        raise KeyError(i)

    with pytest.raises(KeyError):
        Threads(3).map(fail, [1, 2])


def test_workers_hold_the_products_to_one_thread_and_let_go_again(strict_backend):
    with threadpool_limits(2, "blas"):
        before = products()
        with use_threads(np.zeros(1)) as threads:
            assert products() == 1 and threads.n == before
            with use_threads(np.zeros(1)) as inner:
                assert inner.n == 1  # no threads within threads
        assert products() == before
    with use_threads(strict_backend.asarray([0.0])) as threads:
        assert threads.n == 1


def test_the_threads_of_a_pool_divide_no_further():
    def within(i):
        with use_threads(np.zeros(1)) as threads:
            return threads.n

    with threadpool_limits(2, "blas"), use_threads(np.zeros(1)) as threads:
        assert threads.map(within, range(4)) == [1] * 4


def test_blocks_that_overlap_in_two_threads_give_the_products_back():
    """The first to come leaves before the second: as long as one is there a product has one thread,
    and each gets the threads that it would have alone.
    """
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first():
        with use_threads(np.zeros(1)) as threads:
            first_in.set()
            assert second_in.wait(20)
            found = threads.n, products()
        first_out.set()
        return found

    def second():
        assert first_in.wait(20)
        with use_threads(np.zeros(1)) as threads:
            second_in.set()
            assert first_out.wait(20)
            return threads.n, products()

    with threadpool_limits(2, "blas"), ThreadPoolExecutor(2) as pool:
        one, two = pool.submit(first), pool.submit(second)
        assert one.result() == two.result() == (2, 1)
        assert products() == 2


def test_company_changes_no_bit():
    "Inference of 150 examples, alone and beside another that holds the products meanwhile."
    model = init_model((64, 50, 20), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    x = Random(1).uniform((150, 64))
    with threadpool_limits(2, "blas"):
        alone = infer(model, x, Inference(3))
        stop, started = threading.Event(), threading.Event()

        def company():
            with use_threads(x):
                started.set()
                stop.wait(20)

        other = threading.Thread(target=company)
        other.start()
        try:
            assert started.wait(20)
            together = infer(model, x, Inference(3))
        finally:
            stop.set()
            other.join()
        assert products() == 2
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_error_in_a_block_gives_the_products_back():
    with threadpool_limits(2, "blas"):
        with pytest.raises(KeyError), use_threads(np.zeros(1)):
            raise KeyError
        assert products() == 2


# ---- after a fork --------------------------------------------------------------------------------

FORKED = """
import os, signal, threading
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits
from biolearn.kernels.threads import Threads, use_threads
products = lambda: max(l["num_threads"] for l in threadpool_info() if l["user_api"] == "blas")
work = lambda: Threads(2).map(lambda a: a + 1, [1, 2])
{before}
child = os.fork()
if not child:
    signal.alarm(20)  # a child that waits for threads it does not have is killed
    {inside}
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
{after}
print("fine")
"""


def forked(before, inside, after="pass"):
    "Run a program that forks; warnings of newer Pythons about forks with threads are not ours."
    code = FORKED.format(before=before, inside=inside, after=after)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "fine\n", done.stderr


@forks
def test_a_child_makes_its_own_threads():
    "The parent's two have both worked, and wait for more."
    forked(
        "gate = threading.Barrier(2); Threads(2).map(lambda a: gate.wait(), [1, 2])",
        "assert work() == [2, 3]",
        "assert work() == [2, 3]",
    )


@forks
def test_a_fork_within_a_block_goes_on_with_it():
    forked(
        "threadpool_limits(2, 'blas'); block = use_threads(np.zeros(1)); t = block.__enter__()",
        "assert products() == 1 and t.map(abs, [-1]) == [1]; "
        "block.__exit__(None, None, None); assert products() == 2",
        "assert products() == 1; block.__exit__(None, None, None); assert products() == 2",
    )


@forks
def test_a_fork_beside_another_threads_block_is_not_held_by_it():
    "The thread that holds the products does not exist in the child, and will not let them go."
    forked(
        """threadpool_limits(2, 'blas')
held, go = threading.Event(), threading.Event()
def hold():
    with use_threads(np.zeros(1)):
        held.set(); go.wait(60)
t = threading.Thread(target=hold); t.start(); held.wait(20)""",
        """assert products() == 2
    with use_threads(np.zeros(1)) as own: assert own.n == 2 and products() == 1
    assert products() == 2""",
        "assert products() == 1; go.set(); t.join(); assert products() == 2",
    )


def settled(seed):
    model = init_model((64, 50, 20), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    return infer(model, Random(seed).uniform((150, 64)), Inference(3))[-1]


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_inference_in_forked_workers_is_that_of_the_parent():
    "As joblib's backend of processes and a server that forks its workers do it."
    with threadpool_limits(2, "blas"):
        here = [settled(s) for s in range(3)]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            there = pool.map_async(settled, range(3)).get(60)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_odd_number_of_examples_is_one_slice_for_each_thread():
    "No third slice with the one that is left over."
    assert Threads(2).slices(101) == [slice(0, 51), slice(51, 101)]
