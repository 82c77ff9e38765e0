"""The compiled kernels against the plain formulas in double precision, and whole steps with them
against the same steps in NumPy.

Everything here is skipped where numba is not installed; what happens then is tested by taking it
away.
"""

import platform
import subprocess
import sys
import warnings

import numpy as np
import pytest

import biolearn.kernels.dispatch as dispatch
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, corrupt, local_gradient
from biolearn.core.learning import TrainConfig, fit, new_train_state, train_step
from biolearn.core.model import init_model, weights_of
from biolearn.core.rng import Random
from biolearn.kernels.threads import Threads

numba = pytest.importorskip("numba", reason="numba is not installed (the extra fast)")
from biolearn.kernels import compiled

EXACT = {"softplus": lambda a: np.logaddexp(0, a), "sigmoid": lambda a: 1 / (1 + np.exp(-a))}
SLOPE = {
    "softplus": lambda a: 1 / (1 + np.exp(-a)),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)) / (1 + np.exp(a)),
}
KERNELS = {
    "rates": compiled.rates,
    "pull": compiled.pull,
    "climb": compiled.climb,
    "errors": compiled.errors,
    "adam": compiled.adam,
}
NETWORKS = [
    ((20, 13), ("sigmoid", "softplus")),
    ((20, 17, 5), ("sigmoid", "softplus", "sigmoid")),
    ((20, 17, 9, 5), ("linear", "tanh", "softplus", "sigmoid")),
]


def without(monkeypatch):
    monkeypatch.setattr(dispatch, "compiled_kernels", lambda: None)


def normal(*shape, seed=0):
    return Random(seed).normal(shape)


# ---- the units -----------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", compiled.UNITS)
def test_rates_are_right_to_a_few_units_in_the_last_place(unit):
    near_zero = np.float32([s * 10.0**e for e in range(-38, 1) for s in (-1, 1)])
    a = np.concatenate([np.linspace(-86, 86, 300_001, dtype=np.float32), near_zero])
    y, exact = a[None].copy(), EXACT[unit](a.astype(np.float64))
    compiled.rates(y, np.zeros_like(a), compiled.UNITS[unit])
    assert (np.abs(y[0] - exact) / np.spacing(exact.astype(np.float32))).max() < 4


@pytest.mark.parametrize("unit", compiled.UNITS)
@pytest.mark.parametrize("n", [1, 15, 16, 33])
def test_rates_beyond_every_range(unit, n):
    "In the vector part of the loop and in its rest alike."
    for a, y in (
        (np.nan, np.nan),
        (np.inf, EXACT[unit](np.float64(800))),
        (1000, EXACT[unit](np.float64(800))),
        (-np.inf, 0),
        (-1000, 0),
    ):
        out = np.full((2, n), a, np.float32)
        compiled.rates(out, np.zeros(n, np.float32), compiled.UNITS[unit])
        expected = (
            np.inf
            if a == np.inf and unit == "softplus"
            else a
            if a == 1000 and unit == "softplus"
            else y
        )
        np.testing.assert_allclose(out, np.full((2, n), expected, np.float32), atol=2e-38)


@pytest.mark.parametrize("unit", compiled.UNITS)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("n", [3, 50])
def test_climb_and_pull_are_the_step_of_inference(unit, known, n):
    h, above, up, low, b = (
        normal(6, n),
        normal(6, n, seed=1),
        5 * normal(6, n, seed=2),
        5 * normal(6, n, seed=3),
        normal(n, seed=4),
    )
    rate, H, A, U, L, B = EXACT[unit], *(v.astype(np.float64) for v in (h, above, up, low, b))
    compiled.pull(h, above, 0.25)
    np.testing.assert_allclose(h, H + 0.25 * (A - H), atol=1e-6)
    compiled.climb(h, up, low, b, 0.1, compiled.UNITS[unit], known)
    np.testing.assert_allclose(
        h, H + 0.25 * (A - H) + 0.1 * ((U if known else rate(U + B)) - rate(L + B)), atol=2e-6
    )


@pytest.mark.parametrize("unit", compiled.UNITS)
@pytest.mark.parametrize("batch", [1, 7])
def test_errors_are_those_of_the_delta_rule(unit, batch):
    a, b, targets = 3 * normal(batch, 37), normal(37, seed=1), normal(batch, 37, seed=2)
    A = a.astype(np.float64) + b
    db, squares = np.full((2, 37), np.nan, np.float32)  # whatever they held is overwritten
    compiled.errors(a, b, targets, db, squares, compiled.UNITS[unit])
    error = EXACT[unit](A) - targets
    delta = error * SLOPE[unit](A) / batch
    np.testing.assert_allclose(a, delta, atol=1e-6)
    np.testing.assert_allclose(db, delta.sum(0), atol=2e-6)
    np.testing.assert_allclose(squares, (error**2).sum(0), rtol=3e-6)


def test_adam_against_its_definition_in_double_precision():
    w, m, v = np.zeros((3, 37), np.float32)
    exact, mean, square, grads = np.zeros(37), 0, 0, normal(30, 37)
    from biolearn.core.optimizers import update_weights

    for t, grad in enumerate(grads, 1):
        update_weights("adam", w, grad, (m, v), 1e-2, t)
        mean, square = (
            0.9 * mean + 0.1 * grad.astype(float),
            0.999 * square + 0.001 * grad.astype(float) ** 2,
        )
        exact -= 1e-2 * mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(w, exact, rtol=1e-5, atol=1e-6)


# ---- whole steps ---------------------------------------------------------------------------------


def spy(monkeypatch):
    "The names of the kernels that are called."
    called = set()
    for name, kernel in KERNELS.items():
        monkeypatch.setattr(
            compiled,
            name,
            lambda *args, name=name, kernel=kernel: (called.add(name), kernel(*args))[1],
        )
    return called


@pytest.mark.parametrize("sizes, units", NETWORKS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_inference_with_and_without(sizes, units, masked, threads, monkeypatch):
    model, x = init_model(sizes, units, rng=Random(0)), Random(1).uniform((90, 20))
    visible, threads = (x > 0.4 if masked else None), Threads(threads)
    inference, how = Inference(9, 0.2, 0.1), dict(visible=visible, threads=threads)
    called = spy(monkeypatch)
    fast = infer(model, x, inference, **how)
    assert called == {"rates", "climb"} | ({"pull"} if len(sizes) > 2 else set())
    without(monkeypatch)
    called.clear()
    for a, b in zip(fast, infer(model, x, inference, **how), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
    assert not called


@pytest.mark.parametrize("sizes, units", NETWORKS)
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_training_steps_with_and_without(sizes, units, optimizer, monkeypatch):
    "Three steps, the random numbers of which are the same to the last bit."
    M, x = len(sizes) - 1, Random(1).uniform((30, 20))
    recipe = TrainConfig(
        noise=(0.5, *[0.1] * (M - 1), "spikes"),
        rate_f=[1e-3] * M,
        rate_g=[2e-3] * M,
        alpha=0.05,
        optimizer=optimizer,
    )

    def train():
        state = new_train_state(init_model(sizes, units, rng=Random(0)), optimizer)
        rngs = [Random(2).stream(k) for k in range(M + 1)]
        for _ in range(3):
            h, losses = train_step(state, x, recipe, rngs=rngs, threads=Threads(2))
        return [*h, np.array(losses), *weights_of(state.model).values()]

    called = spy(monkeypatch)
    fast = train()
    assert called == {"rates", "climb", "errors"} | ({"pull"} if M > 1 else set()) | (
        {"adam"} if optimizer == "adam" else set()
    )
    without(monkeypatch)
    for a, b in zip(fast, train(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-6)


def test_a_short_training_ends_at_the_same_place_and_repeats_its_bits(monkeypatch):
    model, x = (
        init_model((20, 17, 5), ("sigmoid", "softplus", "sigmoid"), rng=Random(0)),
        Random(1).uniform((200, 20)),
    )
    run = lambda: fit(model, x, TrainConfig(epochs=3, batch_size=20), rng=Random(3), progress=False)
    (fast, history), (again, _) = run(), run()
    for a, b in zip(fast.pairs, again.pairs):
        assert np.array_equal(a.f.W, b.f.W) and np.array_equal(a.g.W, b.g.W)
    without(monkeypatch)
    plain, told = run()
    for a, b in zip(fast.pairs, plain.pairs):
        np.testing.assert_allclose(a.g.W, b.g.W, atol=1e-4)
    for key in ("loss_f", "loss_g", "log_p_end"):
        np.testing.assert_allclose(history[-1][key], told[-1][key], rtol=1e-4)


def test_noise_has_the_bits_of_the_formula():
    h = normal(40, 30)
    assert np.array_equal(corrupt(h, 0.3, rng=Random(5)), h + 0.3 * Random(5).normal((40, 30)))


def test_divergence_is_still_noticed():
    from biolearn.core.learning import DivergenceError

    model, x = (
        init_model((20, 17, 5), ("sigmoid", "softplus", "sigmoid"), rng=Random(0)),
        Random(1).uniform((60, 20)),
    )
    model.pairs[0].f.W[3, 4] = np.nan
    with pytest.raises(DivergenceError):
        fit(model, x, TrainConfig(epochs=1, batch_size=20), rng=Random(3), progress=False)


# ---- which arrays they serve ---------------------------------------------------------------------


def test_other_arrays_are_left_to_numpy():
    a = np.zeros((4, 3), np.float32)
    assert dispatch.find_kernels(a, a[:2], a.reshape(-1)) is compiled
    for other in (a.astype(np.float64), a.T, a[:, :2], a[::2], a.astype(np.float16), [0.0]):
        assert dispatch.find_kernels(a, other) is None


def test_double_precision_stays_double():
    dense, x, t = (
        Dense(normal(6, 5).astype(float), normal(5).astype(float), "softplus"),
        normal(4, 6).astype(float),
        normal(4, 5).astype(float),
    )
    a = x @ dense.W + dense.b
    delta = (EXACT["softplus"](a) - t) * SLOPE["softplus"](a) / 4
    np.testing.assert_allclose(local_gradient(dense, x, t)[0], x.T @ delta, rtol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: (a.setflags(write=False), a)[1],
    ],
    ids=["fortran", "strided", "read-only"],
)
def test_rows_in_any_layout_and_of_files_that_are_read_only(change):
    model, x = (
        init_model((20, 17, 5), ("sigmoid", "softplus", "sigmoid"), rng=Random(0)),
        Random(1).uniform((30, 20)),
    )
    recipe = TrainConfig().for_model(model)

    def losses(x):
        rngs = [Random(2).stream(k) for k in range(3)]
        return np.array(train_step(new_train_state(model), x, recipe, rngs=rngs)[1])

    np.testing.assert_allclose(losses(change(x.copy())), losses(x), rtol=1e-5)


# ---- the compiler --------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for instructions of x86-64")
@pytest.mark.parametrize("name", KERNELS)
def test_loops_are_vector_instructions(name):
    kernel = KERNELS[name]
    fresh = numba.njit(
        kernel.nopython_signatures[0], nogil=True, error_model="numpy", fastmath={"contract"}
    )(kernel.py_func)
    text = "\n".join(fresh.inspect_asm().values())
    for instruction in {
        "rates": ("divps", "mulps"),
        "pull": ("subps",),
        "climb": ("divps", "mulps"),
        "errors": ("divps", "mulps"),
        "adam": ("divps", "sqrtps"),
    }[name]:
        assert instruction in text, f"{name} has no packed {instruction}"


def test_numba_waits_until_it_is_needed():
    code = (
        "import sys, biolearn.core.learning, biolearn.core.inference\n"
        "print([m for m in ('numba', 'biolearn.kernels.compiled') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )


def fresh_choice():
    return dispatch.compiled_kernels.__wrapped__()


def test_without_numba_numpy_does_it_in_silence(monkeypatch):
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fresh_choice() is None


def test_numbas_own_switch_is_obeyed(monkeypatch):
    assert fresh_choice() is compiled
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert fresh_choice() is None


def test_a_numba_that_does_not_work_is_said_aloud(monkeypatch):
    import biolearn.kernels

    monkeypatch.delattr(biolearn.kernels, "compiled")
    monkeypatch.setitem(
        sys.modules, "biolearn.kernels.compiled", None
    )  # importing it raises ImportError
    with pytest.warns(
        UserWarning, match="numba is installed but cannot be used .*NumPy does the work"
    ):
        assert fresh_choice() is None


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), EOFError("Ran out of input"), ValueError()]
)
def test_a_cache_that_is_full_or_damaged_is_no_end_of_training(error, monkeypatch):
    import biolearn.kernels

    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "biolearn.kernels.compiled":
                raise error

    monkeypatch.delattr(biolearn.kernels, "compiled")
    monkeypatch.delitem(sys.modules, "biolearn.kernels.compiled")
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.warns(UserWarning, match="NumPy does the work, more slowly"):
        assert fresh_choice() is None
