"""The benchmarks: do they count, compute and report what they say? Nothing here asserts a time.

The peer in PyTorch is compared where there is a PyTorch: in this interpreter, or in the one that
BENCH_TORCH_PYTHON names.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench import measure, plain, products, report, sections, worker
from biolearn.core.arrays import gpu_problem

SIZES, UNITS, BATCH = (12, 9, 5), ("sigmoid", "softplus", "sigmoid"), 6
DEEP, DEEP_UNITS = (12, 9, 7, 5), ("sigmoid", "softplus", "softplus", "sigmoid")


def settings_for(sizes, n_steps=4, alpha=0.05):
    M = len(sizes) - 1
    return dict(
        n_steps=n_steps,
        delta=0.2,
        alpha=alpha,
        noise=(0.5, *[0.1] * (M - 1), "spikes"),
        rate_f=tuple(1e-3 * (k + 1) for k in range(M)),
        rate_g=tuple(2e-3 / (k + 1) for k in range(M)),
    )


def a_run(sizes, n=3, seed=0):
    "Weights, minibatches, draws and scales of a short training."
    rng = np.random.default_rng(seed)
    return (
        plain.start(sizes, seed),
        [plain.pictures(BATCH, sizes[0], i) for i in range(n)],
        [plain.draw(rng, sizes, BATCH) for _ in range(n)],
        [1 - 0.2 * i for i in range(n)],
    )


def agree(a, b):
    """Weights equal to float32 round-off: Adam divides by the root of a gradient's square, so the
    last bits of a tiny gradient may show in the weights.
    """
    for name in a:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=3e-6, err_msg=name)


# ---- counts --------------------------------------------------------------------------------------


def test_the_products_of_a_paper_size_step_are_those_counted_by_hand():
    f1 = 1 + 15 + 2  # encode; of g_1(h_1) in each step; rates and gradient in the M-step
    g1 = 15 + 2  # before each step; rates and gradient
    f2 = (
        1 + (15 + 14) + 2
    )  # encode; of g_2(h_2) in each step and of h_1 in each but the first; rates and gradient
    g2 = 1 + 15 + 2  # before the first step, after each; rates and gradient
    by_hand = 2 * 100 * ((f1 + g1) * 784 * 1000 + (f2 + g2) * 1000 * 100)
    assert (
        products.flop(products.step_products((784, 1000, 100), 100, 15)) == by_hand == 6_488_000_000
    )


@pytest.mark.parametrize(
    "sizes, n_steps", [((5, 3), 4), ((5, 4, 3), 0), ((7, 5, 4, 3), 2), ((4, 4, 4, 4, 4), 1)]
)
def test_counts_for_other_depths_and_steps(sizes, n_steps):
    total = 0
    for k, (low, high) in enumerate(zip(sizes, sizes[1:]), 1):
        f = 1 + (n_steps if k == 1 else max(0, 2 * n_steps - 1)) + 2
        g = (n_steps if k == 1 else (n_steps + 1) * (n_steps > 0)) + 2
        total += 2 * 10 * low * high * (f + g)
    assert products.flop(products.step_products(sizes, 10, n_steps)) == total


def test_the_count_is_that_of_the_plain_version_less_what_can_be_reused(monkeypatch):
    "The plain version computes g_k(h_k) and f_1(x) anew in each step; nothing else is saved."
    counted = []
    monkeypatch.setattr(
        plain.Plain,
        "rates",
        lambda self, name, h, original=plain.Plain.rates: (
            counted.append(2 * h.shape[0] * self.maps[name][0].size),
            original(self, name, h),
        )[1],
    )
    weights, xs, draws, _ = a_run(SIZES)
    plain.Plain(weights, UNITS, settings_for(SIZES)).step(xs[0], draws[0])
    gradients = sum(2 * BATCH * W.size for W, _ in weights.values())
    wasted = (
        4 * weights["f1"][0].size + weights["f2"][0].size + 3 * weights["g2"][0].size
    )  # f_1(x) in 4 steps, f_2(h_1) in the first; g_2(h_2) twice in each of 4 steps, 5 times needed
    assert sum(counted) + gradients - 2 * BATCH * wasted == products.flop(
        products.step_products(SIZES, BATCH, 4)
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_all_rows_of_every_product(threads):
    todo = products.step_products(SIZES, BATCH, 2)
    tables = products._operands(todo, SIZES, threads, np.random.default_rng(0))
    for i, p in enumerate(todo):
        assert sum(len(table[i][2]) for table in tables) == p.rows
        for table in tables:
            assert table[i][0].shape[1] == p.inner == table[i][1].shape[0] and table[i][
                2
            ].shape == (len(table[i][0]), p.cols)
    products.runner(SIZES, BATCH, 2, threads)(2)


@pytest.mark.parametrize("networks", [1, 7])
def test_the_launches_of_a_step_are_those_counted_by_hand(networks):
    """Products, one pass after each of rates, one noise per layer, one Adam per map, one minibatch;
    of a network with one hidden layer and one step of inference, each is written down.
    """
    todo = products.launches((5, 3), 2, 1, networks)
    rates = [
        2 * a + a * b + 2 * b for a, b in ((5, 3), (3, 5), (5, 3), (5, 3), (3, 5))
    ]  # f, g, f of g; M-step: f, g
    numbers = [20] + [w for r, out in zip(rates[:4], (3, 5, 3, 3)) for w in (r, 4 * out)][:8]
    numbers += (
        [5 * 2 + 2 * 3 + 5 * 3]
        + [rates[4], 4 * 5]
        + [3 * 2 + 2 * 5 + 3 * 5]
        + [2 * 2 * 5, 2 * 2 * 3]
        + [7 * 6 * 3, 7 * 4 * 5]
    )
    assert [size for _, _, size in todo] == [4 * networks * n for n in numbers]
    assert sum(flop for _, flop, _ in todo) == networks * products.flop(
        products.step_products((5, 3), 2, 1)
    )


def test_each_launch_is_held_up_by_the_dearest_of_three():
    todo = [("a", 0, 0), ("b", 1000, 10), ("c", 10, 1000)]
    assert products.bound(todo, 1.0, 1e9, 1e9) == 3.0  # launches cost most
    assert products.bound(todo, 1.0, 100.0, 1e9) == 1 + 10 + 1  # the arithmetic of b
    assert products.bound(todo, 1.0, 100.0, 50.0) == 1 + 10 + 20  # and the bytes of c
    assert products.bound(todo, 0.0, 1e9, 1e9) == pytest.approx(2e-6, rel=1e-6)


# ---- the contenders do the same ------------------------------------------------------------------


class Given:
    "Random numbers that were drawn before, in the shape of a `Random`."

    def __init__(self, draws):
        self.draws = list(draws)

    def normal(self, shape, dtype="float32"):
        return self._next(shape)

    uniform = normal

    def _next(self, shape):
        out = self.draws.pop(0)
        assert out.shape == tuple(shape)
        return out


@pytest.mark.parametrize("sizes, units", [(SIZES, UNITS), (DEEP, DEEP_UNITS)])
def test_the_package_trains_as_the_plain_version_does(sizes, units):
    weights, xs, draws, scales = a_run(sizes)
    told_first = plain.Plain(weights, units, settings_for(sizes))
    losses = [told_first.step(*args) for args in zip(xs, draws, scales)]
    top = len(sizes) - 1
    rngs = [Given(u for d in draws for u in (d[k] if k == top else [d[k]])) for k in range(top + 1)]
    model, steps = worker.biolearn_trainer(weights, units, settings_for(sizes), rngs=rngs)
    got = steps(xs, scales=scales)
    np.testing.assert_allclose(np.array(got), np.array(losses[-1]).reshape(-1), rtol=1e-5)
    agree(
        told_first.maps,
        {
            f"{name}{k}": (getattr(pair, name).W, getattr(pair, name).b)
            for k, pair in enumerate(model.pairs, 1)
            for name in "fg"
        },
    )


def test_networks_at_once_train_as_one_does():
    "Three networks that are handed the same draws: each learns what the plain version does."
    weights, xs, draws, scales = a_run(SIZES)
    told_first = plain.Plain(weights, UNITS, settings_for(SIZES))
    for args in zip(xs, draws, scales):
        told_first.step(*args)
    thrice = lambda a: np.stack([a] * 3)
    rngs = [Given(thrice(u) for d in draws for u in (d[k] if k == 2 else [d[k]])) for k in range(3)]
    model, steps = worker.biolearn_trainer(
        weights, UNITS, settings_for(SIZES), networks=3, rngs=rngs
    )
    steps([thrice(x) for x in xs], scales=scales)
    for s in range(3):
        agree(
            told_first.maps,
            {
                f"{name}{k}": (getattr(pair, name).W[s], getattr(pair, name).b[s])
                for k, pair in enumerate(model.pairs, 1)
                for name in "fg"
            },
        )


def test_mkl_multiplies_as_numpy_does():
    from bench.mkl import library, product_by

    try:
        product = product_by(library())
    except FileNotFoundError as e:
        pytest.skip(str(e))
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((5, 7), (7, 3)))
    c, out = rng.standard_normal((5, 3), dtype=np.float32), np.empty((7, 3), np.float32)
    np.testing.assert_allclose(product(a, b), a @ b, rtol=1e-5, atol=1e-6)
    assert product(a.T, c, out) is out
    np.testing.assert_allclose(out, a.T @ c, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="not in rows"):
        product(a, b.T[:, :2].T.T)


@pytest.mark.parametrize("sizes, units", [(SIZES, UNITS), (DEEP, DEEP_UNITS)])
def test_the_peer_in_jax_computes_the_same_weights(sizes, units):
    pytest.importorskip("jax")
    from bench.jax_peer import Baseline

    weights, xs, draws, scales = a_run(sizes)
    told_first = plain.Plain(weights, units, settings_for(sizes))
    peer = Baseline(weights, units, settings_for(sizes))
    for x, numbers, scale in zip(xs, draws, scales):
        losses = told_first.step(x, numbers, scale)
        ours = peer.step(x, list(numbers), scale)
        np.testing.assert_allclose(ours, np.array(losses).reshape(-1), rtol=1e-5)
    agree(told_first.maps, peer.maps)
    drawn = peer.draw(peer.key, BATCH)
    assert [a.shape for a in drawn] == [a.shape for a in draws[0]]


TORCH = measure.torch_python()

PEER = """
import sys, numpy as np, torch
sys.path.insert(0, {root!r})
from bench.torch_peer import Baseline, Graphed
a = np.load({path!r}, allow_pickle=False)
sizes, units, settings = {sizes!r}, {units!r}, {settings!r}
weights = {{name: (a[name + 'W'], a[name + 'b']) for name in {names!r}}}
torch.set_num_threads(1)
if {mode!r} == "graph":
    peer = Graphed(weights, units, settings, batch={batch}, device="cpu")
else:
    peer = Baseline(weights, units, settings, mode={mode!r})
for i, scale in enumerate({scales!r}):
    draws = [torch.from_numpy(a[f'd{{i}}_{{k}}']) for k in range(len(sizes))]
    losses = peer.step(torch.from_numpy(a[f'x{{i}}']), draws, scale)
found = {{n + part: w for n, pair in peer.weights().items() for part, w in zip('Wb', pair)}}
np.savez({path!r}, losses=losses.numpy(), **found)
"""


@pytest.mark.skipif(
    TORCH is None,
    reason="PyTorch is not installed here, and BENCH_TORCH_PYTHON does not name an interpreter that has it",
)
@pytest.mark.parametrize("mode", ["eager", "functional", "graph"])
@pytest.mark.parametrize("sizes, units", [(SIZES, UNITS), (DEEP, DEEP_UNITS)])
def test_the_peer_in_pytorch_computes_the_same_weights(mode, sizes, units, tmp_path):
    weights, xs, draws, scales = a_run(sizes)
    told_first = plain.Plain(weights, units, settings_for(sizes))
    losses = [told_first.step(*args) for args in zip(xs, draws, scales)][-1]
    path = str(tmp_path / "run.npz")
    np.savez(
        path,
        **{f"{n}{part}": w for n, pair in weights.items() for part, w in zip("Wb", pair)},
        **{f"x{i}": x for i, x in enumerate(xs)},
        **{f"d{i}_{k}": d for i, ds in enumerate(draws) for k, d in enumerate(ds)},
    )
    code = PEER.format(
        root=str(ROOT),
        path=path,
        sizes=sizes,
        units=units,
        settings=settings_for(sizes),
        names=list(weights),
        mode=mode,
        batch=BATCH,
        scales=scales,
    )
    subprocess.run([TORCH, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    with np.load(path, allow_pickle=False) as got:
        np.testing.assert_allclose(got["losses"], np.array(losses).reshape(-1), rtol=1e-5)
        agree(told_first.maps, {n: (got[n + "W"], got[n + "b"]) for n in weights})


CUDA = """
import sys
import numpy as np, torch
if not torch.cuda.is_available(): sys.exit(3)
sys.path.insert(0, {root!r})
from bench import plain
from bench.torch_peer import Graphed
settings = dict(n_steps=4, delta=0.2, alpha=0.0, noise=(0.0, 0.0), rate_f=(1e-3,), rate_g=(2e-3,))
weights, xs = plain.start((12, 9)), [plain.pictures(6, 12, i) for i in range(4)]
told_first = plain.Plain(weights, ("sigmoid", "softplus"), settings)
peer = Graphed(weights, ("sigmoid", "softplus"), settings, batch=6, mode={mode!r})
for i, x in enumerate(xs):
    draws = plain.draw(np.random.default_rng(i), (12, 9), 6)[:1] + [np.zeros((6, 9), np.float32)]
    told_first.step(x, draws, 1 - 0.2 * i)
    peer.step(torch.from_numpy(x).cuda(), scale=1 - 0.2 * i)
for name, pair in peer.weights().items():
    for a, b in zip(pair, told_first.maps[name]): np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
settings |= dict(noise=(0.5, 0.1), rate_f=(0.0,), rate_g=(0.0,))
noisy = Graphed(weights, ("sigmoid", "softplus"), settings, batch=6, mode={mode!r})
x = torch.from_numpy(xs[0]).cuda()
losses = [noisy.step(x).tolist() for _ in range(3)]
assert len(set(map(tuple, losses))) == 3, losses          # every replay draws new noise
"""


@pytest.mark.skipif(TORCH is None, reason="PyTorch is not installed here")
@pytest.mark.parametrize("mode", ["eager", "default"])
def test_the_captured_step_computes_the_same_weights_and_draws_new_noise(mode):
    done = subprocess.run(
        [TORCH, "-c", CUDA.format(root=str(ROOT), mode=mode)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 3:
        pytest.skip("PyTorch finds no CUDA device")
    assert done.returncode == 0, done.stderr


def test_the_clock_of_the_plain_version_covers_its_step():
    clock = plain.Clock()
    run = worker.plain_numpy(sizes=(40, 30, 10), batch=8, n_steps=2, clock=clock)
    run(2)
    assert (
        set(clock.seconds) == {"data", "products", "elementwise", "noise", "optimiser"}
        and min(clock.seconds.values()) > 0
    )


# ---- processes that take turns -------------------------------------------------------------------


def test_contenders_run_in_turns_and_can_be_set_up_anew():
    small = dict(sizes=(12, 9, 5), batch=4, n_steps=2)
    with (
        measure.Worker("biolearn", label="ours", **small) as a,
        measure.Worker("products_alone", label="products", **small) as b,
    ):
        times = measure.take_turns([a, b], rounds=3, steps=2, pause=0)
        assert {k: len(v) for k, v in times.items()} == {"ours": 3, "products": 3} and min(
            map(min, times.values())
        ) > 0
        b.set(sizes=(8, 4), batch=2, n_steps=1)
        assert b.run(1)["seconds"] > 0 and a.about["numpy"] == np.__version__


def test_a_contender_that_fails_says_why():
    with (
        measure.Worker("products_alone", label="mine", sizes="nonsense", batch=2) as broken,
        pytest.raises(measure.WorkerFailed, match="mine: "),
    ):
        broken.ready()


def test_ratios_are_of_paired_times_and_their_range_is_kept():
    assert measure.ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == dict(
        median=2.0, range=[1.0, 3.0], n=3
    )
    with pytest.raises(ValueError):
        measure.ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    "bound, holds",
    [
        (dict(at_most=2.0), True),
        (dict(at_most=1.9), False),
        (dict(at_least=2.0), True),
        (dict(at_least=2.1), False),
        ({}, None),
    ],
)
def test_a_target_holds_on_the_right_side(bound, holds):
    assert measure.target("x", dict(median=2.0, range=[1.0, 3.0], n=3), **bound)["holds"] is holds


SHAPE = dict(sizes=(12, 9, 5), batch=4, side=32, megabytes=1, launches=10)


def test_the_measurements_on_a_device_run_from_end_to_end():
    "With the CPU in the GPU's place and no peer: what is reported, not how fast it was."
    measured = sections.on_device("cpu", None, sections.PEERS, (1, 10), rounds=1, **SHAPE)
    rows = {row["name"]: row for row in measured["targets"]}
    assert list(rows)[:2] == list(sections.ON_THE_GPU[:2]) and set(sections.ON_THE_GPU) <= set(rows)
    assert (
        rows[sections.ON_THE_GPU[0]]["median"] is None
        and "PyTorch is not installed" in rows[sections.ON_THE_GPU[0]]["note"]
    )
    bound, free = (
        rows[name]["median"]
        for name in (
            sections.ON_THE_GPU[1],
            "the same bound if launches cost nothing / training step",
        )
    )
    assert 0 < free < bound and rows[sections.ON_THE_GPU[2]]["target"] == "at most 0.5"
    tables = measured["tables"]
    one, run = (
        tables[name]["biolearn"]["median"]
        for name in ("milliseconds per step on the GPU", "seconds of 20 epochs, extrapolated")
    )
    assert run == pytest.approx(one * 12, rel=0.01) and list(
        tables["milliseconds per step of so many networks, GPU"]
    ) == ["1 network", "10 networks"]
    assert report.section_lines(
        "gpu", report.merge(report.read("nowhere.json"), "gpu", measured, MACHINE)
    )


@pytest.mark.skipif(TORCH is None, reason="PyTorch is not installed here")
def test_a_peer_that_does_not_run_is_named_and_the_others_are_measured():
    peers = {
        "eager": dict(mode="eager"),
        "graph": dict(mode="eager", graph=True),
        "broken": dict(mode="nonsense"),
    }
    rows = {
        row["name"]: row
        for row in sections.on_device("cpu", TORCH, peers, (1,), rounds=1, **SHAPE)["targets"]
    }
    assert (
        rows[sections.ON_THE_GPU[0]]["median"] > 0
        and rows["broken"]["median"] is None
        and "did not run. broken: " in rows["broken"]["note"]
        and "nonsense" in rows["broken"]["note"]
    )


# ---- what is written and printed -----------------------------------------------------------------

MACHINE = dict(
    cpu="A processor",
    cores=2,
    kernel="SkylakeX",
    system="Linux x86_64",
    python="3.11",
    numpy="2.4",
    blas=["openblas"],
    set_aside=None,
)
FIELDS = {"section", "name", "unit", "median", "range", "n", "target", "holds", "note", "machine"}


def measured(value):
    return dict(
        targets=[
            measure.target("a ratio", dict(median=value, range=[value, value], n=1), at_most=1.25)
        ],
        tables={"ms": {"a": dict(median=1.0, range=[0.9, 1.1], n=3)}},
    )


def test_a_section_that_is_measured_again_replaces_its_own_results_only(tmp_path):
    path = tmp_path / "results.json"
    results = report.merge(
        report.merge(report.read(path), "cpu", measured(1.5), MACHINE),
        "parzen",
        measured(1.4),
        MACHINE,
    )
    report.write(results, path)
    again = report.merge(report.read(path), "cpu", measured(1.1), MACHINE | dict(cores=4))
    assert [
        (row["section"], row["median"], row["holds"], row["machine"][-18:])
        for row in again["targets"]
    ] == [
        ("parzen", 1.4, False, ", 2 cores, SkylakeX"[-18:]),
        ("cpu", 1.1, True, ", 4 cores, SkylakeX"[-18:]),
    ]
    assert (
        len(again["machines"]) == 2
        and all(set(row) == FIELDS for row in again["targets"])
        and list(tmp_path.iterdir()) == [path]
    )


def test_results_of_another_format_are_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="not a file of results"):
        report.read(tmp_path / "results.json")


def test_tables_say_yes_no_or_nothing_and_warn_of_a_busy_machine():
    results = report.merge(report.read("nowhere.json"), "cpu", measured(1.5), MACHINE)
    text = "\n".join(report.section_lines("cpu", results))
    assert "a ratio" in text and "at most 1.25" in text and " NO" in text and "0.9 to 1.1" in text
    none = report.merge(
        results,
        "gpu",
        dict(
            targets=[measure.target("on the GPU", None, at_most=1.0, note="no CUDA device")],
            tables={},
        ),
        MACHINE,
    )
    assert "no CUDA device" in "\n".join(
        report.section_lines("gpu", none)
    ) and "NO" not in "\n".join(report.section_lines("gpu", none))
    busy = report.merge(results, "cpu", measured(1.5), MACHINE, other=1.9)
    assert (
        "no measurements"
        in "\n".join(
            report.section_lines(
                "cpu", report.merge(results, "cpu", measured(1.5), MACHINE, quick=True)
            )
        )
        and "no measurements" not in text
    )
    assert "1.9 cores busy" in "\n".join(report.section_lines("cpu", busy)) and "busy" not in text


def test_every_profile_draws_a_picture_whose_bars_are_the_numbers(tmp_path):
    bars = {
        "plain": dict(products=20.0, elementwise=19.0, noise=3.0, optimiser=6.0, data=0.1),
        "in place": dict(
            products=19.0, elementwise=3.0, noise=1.4, optimiser=2.0, data=0.1, rest=-0.5
        ),
        "compiled": dict(
            products=19.0, elementwise=1.0, noise=1.4, optimiser=0.5, data=0.1, rest=0.5
        ),
    }
    figure = report.profile_figure(bars)
    assert sorted(round(p.get_width(), 3) for p in figure.axes[0].patches) == sorted(
        max(0.0, v) for bar in bars.values() for v in bar.values()
    )
    curve = dict(x=[1, 2, 3], biolearn=[3.0, 4.0, 5.0], products=[2.0, 3.0, 4.0], flop=[1, 1, 1])
    results = dict(
        tables=dict(
            profile={"milliseconds per step": bars},
            scaling=dict(curves=dict(a=curve, b=curve, c=curve)),
        )
    )
    assert sorted(path.name for path in report.draw(results, tmp_path / "pictures")) == [
        "profile.png",
        "profile.svg",
        "scaling.png",
        "scaling.svg",
    ]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_runs_one_section_keeps_the_others_and_shows_them(tmp_path):
    out = tmp_path / "results.json"
    report.write(report.merge(report.read(out), "parzen", measured(1.4), MACHINE), out)
    done = command("--only", "gpu", "--quick", "--rounds", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(out.read_text())["targets"]}
    assert rows["4 networks at once on the CPU / in turn, 8x8 digits"]["median"] > 0
    if gpu_problem():
        assert all(
            rows[name]["median"] is None
            and "not measured, no CUDA device: CuPy" in rows[name]["note"]
            for name in sections.ON_THE_GPU
        )
    assert (
        {row["section"] for row in json.loads(out.read_text())["targets"]} == {"parzen", "gpu"}
        and "== gpu" in done.stdout
        and "BLAS: " in done.stdout
    )
    shown = command("--show", "--out", str(out))
    assert shown.returncode == 0 and "== parzen" in shown.stdout and "A processor" in shown.stdout
    wrong = command("--only", "cpu,nonsense")
    assert wrong.returncode == 2 and "'nonsense' is not one of cpu, gpu" in wrong.stderr


@pytest.mark.skipif(not report.RESULTS.exists(), reason="nothing measured yet")
def test_the_committed_results_are_whole():
    results = report.read()
    judged = {"cpu", "gpu", "parzen", "samples", "startup", "scaling"}
    assert {row["section"] for row in results["targets"]} == judged
    assert set(results["tables"]) == judged | {"profile"} == set(sections.SECTIONS)
    assert not any(table.get("quick") for table in results["tables"].values())
    for row in results["targets"]:
        assert set(row) == FIELDS and row["machine"] in results["machines"]
        assert (
            row["note"]
            if row["median"] is None
            else row["range"][0] <= row["median"] <= row["range"][1]
        )


def test_a_contender_that_does_not_answer_in_time_is_left_out():
    slow = measure.Worker("products_alone", label="slow", sizes=[8, 8], batch=2)
    quick = measure.Worker("products_alone", label="quick", sizes=[8, 8], batch=2)
    try:
        os.kill(slow.process.pid, signal.SIGSTOP)
        quick.run(1)  # its start may take long on a busy machine
        alive, failed = sections._those_that_run([slow, quick], patience=3)
        assert (
            [worker.label for worker in alive] == ["quick"]
            and failed == {"slow": "slow: no answer in 3 s"}
            and quick.run(2)["seconds"] > 0
        )
        assert slow.process.wait(5) != 0
    finally:
        slow.close()
        quick.close()
