"""The matrix products that one training step needs: counted, and run alone at the best rate that
this machine's BLAS reaches for them.

What the algorithm needs, for sizes (n_0, ..., n_M) and N inference steps, if nothing is computed
twice:
  encode       f_k once for every k; f_1(x) then stays for the whole inference, f_k(h_{k-1}) of the
               first step is there already
  inference    f_1 once per step (of g_1(h_1)), f_k twice per step for k > 1 (of h_{k-1} and of
               g_k(h_k): one product of 2 x batch rows, because they share the weights); g_k(h_k) is
               kept from one step for the next, so g_k once per step, and g_1 not after the last
  learning     for each map the rate of the noisy input and the gradient of its weights
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Product:
    """(rows, inner) times (inner, cols); `kind` is 'rates' (activities times weights) or 'gradient'
    (activities' transpose times errors).
    """

    kind: str
    rows: int
    inner: int
    cols: int

    @property
    def flop(self):
        return 2 * self.rows * self.inner * self.cols


def inference_products(sizes, batch, n_steps):
    "The products of INFERENCE in the order in which they are needed, feedforward guess included."
    M = len(sizes) - 1

    def f(k, rows=batch):
        return Product("rates", rows, sizes[k - 1], sizes[k])

    def g(k):
        return Product("rates", batch, sizes[k], sizes[k - 1])

    todo = [f(k) for k in range(1, M + 1)]
    if n_steps:
        todo += [g(k) for k in range(1, M + 1)]
    for step in range(n_steps):
        for k in range(M, 0, -1):
            todo.append(f(k, batch if k == 1 or step == 0 else 2 * batch))
            if k > 1 or step < n_steps - 1:
                todo.append(g(k))
    return todo


def learning_products(sizes, batch):
    "The products of the M-step: four for each pair."
    maps = [m for a, b in zip(sizes, sizes[1:]) for m in ((a, b), (b, a))]
    return [
        p
        for n_in, n_out in maps
        for p in (Product("rates", batch, n_in, n_out), Product("gradient", n_in, batch, n_out))
    ]


def step_products(sizes, batch, n_steps):
    "All products of one training step."
    return inference_products(sizes, batch, n_steps) + learning_products(sizes, batch)


def flop(products):
    "Floating point operations of a list of products: two for each multiply-add."
    return sum(p.flop for p in products)


# ---- the bound on a device where every launch has its price --------------------------------------


def launches(sizes, batch, n_steps, networks=1):
    """What a training step of `networks` at once must launch, [(name, floating point operations,
    bytes)], if everything between two products is one pass:
    the products; after each product of rates a pass that reads and writes its result; for each
    layer one of noise, for each map one of Adam (reads w, its gradient and two books, writes
    three), and one that fetches the minibatch.
    """
    bytes_ = lambda *numbers: 4 * networks * sum(numbers)
    todo = [("minibatch", 0, bytes_(2 * batch * sizes[0]))]
    for p in step_products(sizes, batch, n_steps):
        todo.append(
            (p.kind, networks * p.flop, bytes_(p.rows * p.inner, p.inner * p.cols, p.rows * p.cols))
        )
        if p.kind == "rates":
            todo.append(("pass", 0, bytes_(2 * p.rows * p.cols)))
    todo += [("noise", 0, bytes_(2 * batch * n)) for n in sizes]
    return todo + [
        ("adam", 0, bytes_(7 * (n_in + 1) * n_out))
        for a, b in zip(sizes, sizes[1:])
        for n_in, n_out in ((a, b), (b, a))
    ]


def bound(launches, launch, flop_rate, byte_rate):
    """Seconds that `launches` take at least, one after the other, if each is held up by the dearest
    of three: the `launch` (seconds), its arithmetic (`flop_rate` a second), its bytes (`byte_rate`
    a second).
    """
    return sum(max(launch, flop / flop_rate, size / byte_rate) for _, flop, size in launches)


# ---- run alone -----------------------------------------------------------------------------------


def _operands(products, sizes, threads, rng):
    """The arguments of `np.matmul` for each product and thread: weights shared, activities and
    results each thread's own.

    A 'rates' product is split by its rows, that is by the examples; a 'gradient' sums over the
    examples, so it is split by the rows of its result.
    """

    def array(*shape):
        return rng.random(shape, dtype=np.float32)

    widest = max(sizes)
    weights = {}
    tables = []
    for worker in range(threads):
        made, table = {}, []
        for p in products:
            lo, hi = p.rows * worker // threads, p.rows * (worker + 1) // threads
            if p.kind == "rates":
                b = weights.setdefault((p.inner, p.cols), array(p.inner, p.cols) / widest)
                a = made.setdefault(("a", hi - lo, p.inner), array(hi - lo, p.inner))
            else:
                b = weights.setdefault(("errors", p.inner, p.cols), array(p.inner, p.cols) / widest)
                a = weights.setdefault(("inputs", p.inner, p.rows), array(p.inner, p.rows)).T[lo:hi]
            out = made.setdefault(
                ("out", p.kind, hi - lo, p.cols), np.empty((hi - lo, p.cols), np.float32)
            )
            table.append((a, b, out))
        tables.append(table)
    return tables


def _multiply(table):
    for a, b, out in table:
        np.matmul(a, b, out=out)


def runner(sizes, batch, n_steps, threads, seed=0):
    """A function run(n) that computes the products of `n` training steps and nothing else, results
    into given buffers.

    `threads` > 1 splits the examples over so many Python threads (the BLAS should then have one of
    its own for each); threads = 1 leaves the use of the cores to the BLAS. The threads meet before
    the gradients and after them, as a training step must.
    """
    rng = np.random.default_rng(seed)
    parts = [
        _operands(p, sizes, threads, rng)
        for p in (inference_products(sizes, batch, n_steps), learning_products(sizes, batch))
    ]
    pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def run(n):
        for _ in range(n):
            for tables in parts:
                others = [pool.submit(_multiply, table) for table in tables[1:]]
                _multiply(tables[0])
                for other in others:
                    other.result()

    return run
