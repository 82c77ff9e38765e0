"""What all tests share: markers, settings of hypothesis, and an environment that does not depend on
who runs them.
"""

import os
import signal
from dataclasses import replace

os.environ.setdefault("MPLBACKEND", "Agg")  # no test opens a window
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
os.environ.setdefault(
    "SCIPY_ARRAY_API", "1"
)  # read when SciPy is imported; without it scikit-learn skips one of its own checks

# A shell that starts pytest in the background makes it, and all its children, deaf to Ctrl-C; the
# tests of interruption need ears.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import settings

# No deadlines: a busy machine is not a bug. Derandomised: the same examples everywhere, so that a
# failure can be repeated.
settings.register_profile("biolearn", deadline=None, derandomize=True)
settings.load_profile("biolearn")


def pytest_addoption(parser):
    parser.addoption(
        "--nightly",
        action="store_true",
        help="try many more kills, damaged files and made-up inputs (minutes)",
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "end_to_end: runs the whole quick profile through the command line (about three minutes)",
    )


def pytest_collection_modifyitems(config, items):
    """The quick tests first: who breaks something should hear of it early.

    Shared among processes, the longest first: nobody has to wait for it at the end.
    """
    shared = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.get_closest_marker("end_to_end") is not None) != shared)


# ---- the backends on which everything must run ---------------------------------------------------

import array_api_strict
import pytest

from biolearn.core.arrays import Backend, gpu_problem, use_device


def strict():
    """The standard and nothing else, on a pretend device whose memory the host cannot read: what
    leaks to NumPy fails here.
    """
    return Backend(array_api_strict, array_api_strict.Device("device1"))


@pytest.fixture(scope="session")
def nightly(request):
    "Has the long version been asked for?"
    return request.config.getoption("--nightly")


@pytest.fixture
def strict_backend():
    return strict()


@pytest.fixture(
    params=[
        "numpy",
        "strict",
        pytest.param(
            "cupy", marks=pytest.mark.skipif(gpu_problem() is not None, reason=str(gpu_problem()))
        ),
    ]
)
def backend(request):
    return {"numpy": Backend, "strict": strict, "cupy": lambda: use_device("gpu")}[request.param]()


# ---- what several tests of inference look at -----------------------------------------------------

import numpy as np

from biolearn.core.data import load_dataset
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, LayerPair
from biolearn.core.model import init_model
from biolearn.core.priors import fit_top_prior
from biolearn.core.rng import Random


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="session")
def small_network(digits):
    "An untrained network for the small digits, with a top prior."
    model = init_model((64, 20, 6), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    return replace(model, prior=fit_top_prior(infer(model, digits.train, Inference(n_steps=3))[-1]))


@pytest.fixture
def linear_world():
    """Makes a linear world h -> x with noise `sd` and h ~ N(0, I), as g, and its posterior mean as
    f: then f(x) - f(g(h)) is the posterior's covariance times the gradient of log p(x|h).
    """

    def make(rng, n_below, n_above, sd=0.5):
        W, b = rng.normal((n_above, n_below), "float64"), rng.normal((n_below,), "float64")
        back = W.T @ np.linalg.inv(np.eye(n_above) + W @ W.T / sd**2) / sd**2
        return LayerPair(Dense(back, -b @ back, "linear"), Dense(W, b, "linear"))

    return make


@pytest.fixture
def command(capsys):
    "The command in this process: exit code, output, error output."
    from biolearn.cli import main

    def run(*argv):
        try:
            code = main.main([str(a) for a in argv])
        except SystemExit as e:
            code = e.code
        return (code, *capsys.readouterr())

    return run
