"""Mixed precision: products of inference in bfloat16, against rounding done by `frexp`.

PyTorch is not among what the tests install, so most of them put a small stand-in in its place, which
rounds by `frexp` too. Where PyTorch is installed, it is compared with the same oracle.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import array_api_strict as strict
import numpy as np
import pytest

from biolearn.core import mixed
from biolearn.core.checkpoints import CheckpointError
from biolearn.core.data import load_digits
from biolearn.core.files import as_plain
from biolearn.core.inference import Inference, infer
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.mixed import HalfWeights, MixedInference
from biolearn.core.model import init_model
from biolearn.core.rng import Random
from biolearn.kernels.threads import Threads
from biolearn.reproduction.profiles import get_profile
from biolearn.reproduction.runs import run_key

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("float32", "mixed")
TINY = TrainConfig(epochs=2, batch_size=100, n_steps=3)


def rounded(a):
    "`a` rounded to 8 bits of mantissa, ties to even: the oracle."
    fraction, exponent = np.frexp(np.asarray(a, np.float64))
    return np.ldexp(np.round(fraction * 256), exponent - 8).astype(np.float32)


class Tensor:
    "What the library asks of a tensor."

    def __init__(self, array):
        self.array = array

    def bfloat16(self):
        return Tensor(rounded(self.array))

    def float(self):
        return self

    def numpy(self):
        return self.array

    def copy_(self, other):
        self.array[...] = other.array


def matmul(a, b):
    return Tensor(rounded(a.array.astype(np.float64) @ b.array.astype(np.float64)))


@pytest.fixture
def torch(monkeypatch):
    "A stand-in for PyTorch, which counts its products."
    now = SimpleNamespace(threads=7, products=0)

    def counted(a, b):
        now.products += 1
        assert now.threads == 1
        return matmul(a, b)

    def set_threads(n):
        now.threads = n

    module = SimpleNamespace(
        from_numpy=Tensor,
        matmul=counted,
        get_num_threads=lambda: now.threads,
        set_num_threads=set_threads,
        now=now,
    )
    monkeypatch.setattr(mixed, "_torch", lambda: module)
    return module


@pytest.fixture(scope="module")
def network():
    sizes, units = (64, 40, 10), ("sigmoid", "softplus", "sigmoid")
    return init_model(sizes, units, rng=Random(0).stream("init"))


def plain(model, x, inference):
    "INFERENCE written down again (Algorithm 2), every product rounded."
    f1, g1, f2, g2 = (d for pair in model.pairs for d in (pair.f, pair.g))
    rate = {
        "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
        "softplus": lambda a: np.logaddexp(a, 0),
    }

    def apply(dense, h):
        return rate[dense.unit](rounded(rounded(h) @ rounded(dense.W).astype(float)) + dense.b)

    h1 = apply(f1, x)
    h2 = apply(f2, h1)
    for _ in range(inference.n_steps):
        h2 = h2 + inference.delta * (apply(f2, h1) - apply(f2, apply(g2, h2)))
        move = inference.delta * (apply(f1, x) - apply(f1, apply(g1, h1)))
        h1 = h1 + move + inference.alpha * (apply(g2, h2) - h1)
    return h1, h2


def test_inference_is_algorithm_2_with_rounded_products(torch, network):
    x, inference = load_digits().test, MixedInference(alpha=0.05)
    _, *found = infer(network, x, inference, threads=Threads(1))
    for ours, oracle, exact in zip(
        found, plain(network, x, inference), infer(network, x, Inference(alpha=0.05))[1:]
    ):
        # a sum near the middle of two bfloat16 numbers may go to either: that is half a bit of one
        # product in fifteen steps, far below what rounding itself does
        ours, oracle = ours - exact, oracle - exact
        assert 1e-4 < np.abs(ours).max() < 0.05
        assert np.sqrt(np.mean((ours - oracle) ** 2)) < 0.2 * np.sqrt(np.mean(oracle**2))
    assert torch.now.products and torch.now.threads == 7


def test_a_product_rounds_both_sides_and_writes_where_it_is_told(torch):
    torch.now.threads = 1
    rng = np.random.default_rng(0)
    h, W = (rng.standard_normal(shape, dtype=np.float32) for shape in ((5, 7), (7, 3)))
    h.flags.writeable = False
    oracle = rounded(rounded(h).astype(float) @ rounded(W).astype(float))
    out = np.full((5, 3), np.nan, np.float32)
    assert np.matmul(h, HalfWeights(W), out=out) is out
    np.testing.assert_array_equal(out, oracle)
    np.testing.assert_array_equal(h @ HalfWeights(W), oracle)
    for wrong in (lambda: h + HalfWeights(W), lambda: HalfWeights(W) @ W.T):
        with pytest.raises(TypeError):
            wrong()


def test_training_learns_in_float32_from_mixed_inference(torch, network):
    x = load_digits().train[:300]
    exact, _ = fit(network, x, TINY, progress=False)
    assert torch.now.products == 0
    model, history = fit(network, x, replace(TINY, precision="mixed"), progress=False)
    # guess, first reconstructions, three steps; the oracle counts a product by hand
    assert torch.now.products >= 6 * 3 * 4 and torch.now.threads == 7
    for pair, other in zip(model.pairs, exact.pairs):
        assert pair.f.W.dtype == np.float32 and not np.array_equal(pair.f.W, other.f.W)
        np.testing.assert_allclose(pair.f.W, other.f.W, atol=5e-3)
    assert len(history) == 2


def test_a_checkpoint_tells_the_precisions_apart(torch, network, tmp_path):
    x = load_digits().train[:200]
    fit(network, x, TINY, checkpoint=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="precision"):
        fit(network, x, replace(TINY, precision="mixed"), checkpoint=tmp_path, progress=False)


def test_runs_that_were_stored_keep_their_names(torch):
    manifest = json.loads((ROOT / "figures" / "paper" / "manifest.json").read_text())
    told = as_plain(get_profile("paper"))
    assert manifest["settings"] == told and "precision" not in told["recipe"]
    backend = SimpleNamespace(name="cpu")
    keys = {run_key(get_profile("paper", {"precision": p}), 0, backend) for p in PRECISIONS}
    assert manifest["key"] in keys and len(keys) == 2
    assert as_plain(TrainConfig(precision="mixed"))["precision"] == "mixed"
    assert asdict(TrainConfig())["precision"] == "float32"


def test_what_cannot_be_had_is_refused_before_any_work(monkeypatch, network):
    monkeypatch.setitem(sys.modules, "torch", None)
    mixed._torch.cache_clear()
    seen = []
    with pytest.raises(ImportError, match=r"pip install 'biolearn\[mixed\]'"):
        fit(
            network,
            load_digits().train,
            TrainConfig(precision="mixed"),
            on_epoch=lambda *_: seen.append(1),
            progress=False,
        )
    assert not seen
    for wrong, message in (
        ({"precision": "half"}, "'float32', 'mixed'"),
        ({"precision": "mixed", "direction": "exact"}, "leave precision at 'float32'"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainConfig(**wrong)
    with pytest.raises(TypeError):
        MixedInference(direction=lambda *_: 0)


@pytest.mark.parametrize("kind", ["float64", "strict"])
def test_other_weights_are_refused_and_threads_given_back(kind, torch, network):
    change = (lambda W: W.astype(float)) if kind == "float64" else strict.asarray
    pair = network.pairs[0]
    other = replace(
        network,
        pairs=tuple(
            replace(
                p,
                f=replace(p.f, W=change(p.f.W), b=change(p.f.b)),
                g=replace(p.g, W=change(p.g.W), b=change(p.g.b)),
            )
            for p in network.pairs
        ),
    )
    x = change(load_digits().test[:3].astype(pair.f.W.dtype))
    with pytest.raises(TypeError, match="leave precision at 'float32'"):
        infer(other, x, MixedInference())
    assert torch.now.threads == 7


def test_pytorch_rounds_like_the_oracle(network):
    real = pytest.importorskip("torch")
    W, x = network.pairs[0].f.W, load_digits().test
    oracle = rounded(rounded(x).astype(float) @ rounded(W).astype(float))
    off = np.abs(x @ HalfWeights(W) - oracle)
    assert np.all(off <= 2.0**-7 * np.abs(oracle) + 1e-6) and np.mean(off > 0) < 0.05
    before = real.get_num_threads()
    results = [infer(network, x, MixedInference(), threads=Threads(n))[-1] for n in (1, 2)]
    np.testing.assert_allclose(*results, atol=0.02)
    np.testing.assert_allclose(results[0], infer(network, x)[-1], atol=0.02)
    assert real.get_num_threads() == before
