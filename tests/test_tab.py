"""The pages in the reader's tab: what the library does without there, and what the book lays out.

The tab is simulated: a process without threads, locks and a compiler. `python docs/tab.py` runs the
pages in a real one.
"""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import biolearn.kernels.cuda as cuda
from biolearn.core.shipped import shipped_path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import headless
import stage
import tab

SIMULATED = """
import fcntl, resource, sys, sysconfig, threading, warnings
sysconfig.get_config_vars()
sys.platform = "emscripten"
del fcntl.flock, resource.RUSAGE_SELF
for name in ("_multiprocessing", "_posixshmem", "numba"):
    sys.modules[name] = None
def refuse(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
warnings.filterwarnings("error", message="tqdm")
"""


def in_tab(code, *args):
    "What `code` prints in a process that is like a tab."
    command = [sys.executable, "-c", SIMULATED + code, *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports_without_processes_and_a_compiler():
    code = """
import importlib, pkgutil, biolearn
names = [m.name for m in pkgutil.walk_packages(biolearn.__path__, "biolearn.")]
for name in names:
    if name not in ("biolearn.__main__", "biolearn.kernels.compiled"):
        importlib.import_module(name)
print(len(names))
"""
    assert int(in_tab(code)) > 60


TRAINED = """
import sys
from dataclasses import replace
import numpy as np
from biolearn.core.files import write_text
from biolearn.core.inference import infer
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.model import init_model
from biolearn.core.rng import Random
from biolearn.kernels.threads import Threads
from biolearn.reproduction.runs import peak_memory
peak_memory()
x = Random(0).uniform((120, 6))
model = init_model((6, 5, 4), ("sigmoid", "softplus", "sigmoid"), rng=0)
trained, _ = fit(model, x, TrainConfig(epochs=2, batch_size=40, noise=(0.1, 0.1, 0)), rng=0, progress=True)
h = infer(trained, x, threads=Threads(2))
write_text(sys.argv[1], repr(np.concatenate(h, axis=1).tolist()))
"""


def test_training_inference_and_files_do_without_threads_and_locks(tmp_path):
    "The numbers are those of a process that has both, but for the round-off of another BLAS."
    in_tab(TRAINED, tmp_path / "tab")
    subprocess.run([sys.executable, "-c", TRAINED, tmp_path / "here"], cwd=ROOT, check=True)
    told = [json.loads((tmp_path / name).read_text()) for name in ("tab", "here")]
    np.testing.assert_allclose(*told, rtol=1e-4, atol=1e-5)


# ---- products ------------------------------------------------------------------------------------

SHAPES = [((5, 4), (4, 3)), ((2, 7), (7, 1)), ((30, 20), (20, 10))]
AS_THEY_LIE = {
    "rows": lambda a: a,
    "columns": np.asfortranarray,
    "apart": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("left", AS_THEY_LIE)
@pytest.mark.parametrize("right", AS_THEY_LIE)
def test_products_in_a_tab_are_those_of_numpy(dtype, left, right, monkeypatch):
    draw = np.random.default_rng(0).standard_normal
    for one, two in SHAPES:
        a = AS_THEY_LIE[left](draw(one).astype(dtype))
        b = AS_THEY_LIE[right](draw(two).astype(dtype))
        wanted, out = a @ b, np.empty((one[0], two[1]), dtype)
        with monkeypatch.context() as there:
            there.setattr(sys, "platform", "emscripten")
            there.setattr(np, "matmul", None)  # not asked
            made = cuda.product(a, b)
            assert cuda.product(a, b, out) is out
        assert made.dtype == dtype
        for found in (made, out):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_numpy_multiplies_in_a_tab_what_its_blas_would_not(monkeypatch):
    "Single rows, several networks at once, unlike or whole numbers, and nothing at all."
    monkeypatch.setattr(sys, "platform", "emscripten")
    monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    draw = np.random.default_rng(0).standard_normal
    for a, b in (
        (draw((1, 4)), draw((4, 3))),
        (draw((2, 5, 4)), draw((2, 4, 3))),
        (draw((5, 4)), draw(4)),
        (draw((5, 4)).astype("float32"), draw((4, 3))),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)),
        (draw((5, 0)), draw((0, 3))),
    ):
        np.testing.assert_array_equal(cuda.product(a, b), a @ b)


# ---- what the book lays out ----------------------------------------------------------------------


@pytest.mark.parametrize("path", stage.library(), ids=lambda path: path.stem)
def test_a_page_in_the_tab_installs_what_was_carried_and_asks_no_other_host(path):
    page = tab.notebook(path)
    assert not [cell.source for cell in page.cells if "badge" in cell.source]
    assert page.metadata["kernelspec"]["name"] == "python"
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in code)
    assert "git+https" not in text and not re.search(r"^!", text, re.M)
    assert not any(cell.outputs for cell in code)
    if code:
        assert code[0].source.splitlines()[1].startswith("%pip install -q biolearn ")


def test_a_wheel_holds_a_package_and_what_it_needs(tmp_path):
    tab.write_wheels(tmp_path / "wheels")
    made = {path.name.split("-")[0]: path for path in (tmp_path / "wheels").glob("*.whl")}
    assert {"biolearn", "safetensors", "array_api_compat", "tqdm"} <= set(made)
    names = zipfile.ZipFile(made["biolearn"]).namelist()
    assert {"biolearn/core/model.py", "biolearn/assets/networks/paper.safetensors"} <= set(names)
    about = zipfile.ZipFile(made["biolearn"]).read("biolearn-0.1.0.dist-info/METADATA").decode()
    assert "Requires-Dist: numpy>=2" in about
    for path in made.values():
        inside = zipfile.ZipFile(path).namelist()
        assert not [n for n in inside if n.startswith("..") or "__pycache__" in n]


# ---- the stand-in for safetensors ----------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch):
    "The stand-in, under the name by which biolearn imports it."
    for name in [name for name in sys.modules if name.split(".")[0] == "safetensors"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(DOCS / "tab"))
    import safetensors.numpy as made

    assert made.__file__.startswith(str(DOCS))
    yield sys.modules["safetensors"]
    for name in [name for name in sys.modules if name.split(".")[0] == "safetensors"]:
        del sys.modules[name]


def test_the_stand_in_writes_the_bytes_of_safetensors(stand_in):
    draw = np.random.default_rng(0).standard_normal
    arrays = {
        "b": draw((3, 2)),
        "a": draw(4).astype("float32"),
        "h": draw((2, 2)).astype("float16"),
    }
    arrays |= {"n": np.arange(5), "t": np.array([True, False]), "z": np.zeros((0, 3))}
    assert stand_in.numpy.save(arrays) == safetensors.numpy.save(arrays)


def test_the_stand_in_reads_what_safetensors_wrote(stand_in, tmp_path):
    path = shipped_path("paper")
    with safetensors.safe_open(path, "numpy") as one, stand_in.safe_open(path, "numpy") as two:
        assert one.metadata() == two.metadata() and sorted(one.keys()) == two.keys()
        for name in one.keys():
            np.testing.assert_array_equal(one.get_tensor(name), two.get_tensor(name))
    (tmp_path / "bad").write_bytes(path.read_bytes()[:-1])
    for text in (b"", b"\x08" + bytes(7) + b"no json!"):
        (tmp_path / "worse").write_bytes(text)
        with pytest.raises(stand_in.SafetensorError):
            stand_in.numpy.load_file(tmp_path / "worse")
    with pytest.raises(stand_in.SafetensorError):
        stand_in.numpy.load_file(tmp_path / "bad")


# ---- the button, and what it opens ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["02_stdp", "results", "index", "34_threads"])
def test_each_page_that_runs_has_a_button_and_no_other_has(name):
    core = pytest.importorskip("docutils.core", reason="make book installs it")
    text = "Title\n=====\n\nWords.\n"
    tree = core.publish_doctree(text, settings_overrides={"doctitle_xform": False})
    tab.connect(SimpleNamespace(env=SimpleNamespace(docname=name)), tree)
    links = re.findall(r'href="([^"]*)"', tree.pformat())
    wanted = [f"tab/notebooks/index.html?path=nbs/{name}.ipynb"] if name == "02_stdp" else []
    assert links == wanted


HERE = headless.chromium() and (ROOT / "_docs" / "pyodide").exists()


@pytest.mark.skipif(not HERE, reason="no Chromium, or no Pyodide: `python docs/tab.py` brings it")
def test_a_page_runs_in_the_tab(capsys):
    pytest.importorskip("jupyterlite_pyodide_kernel", reason="make book installs it")
    tab.main(["33_rng"])
    assert re.match(r"33_rng +runs ", capsys.readouterr().out)
