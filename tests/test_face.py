"""`import biolearn` offers what a user needs, at one address, and loads nothing before it is used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import biolearn

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (ROOT / "biolearn" / "__init__.py").read_text(encoding="utf-8")


def python(code):
    "Run `code` in a fresh interpreter at the root of the repository; its output."
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def type_checkers_see():
    "{name: module} of the imports that only a type checker follows."
    (branch,) = [n for n in ast.parse(SOURCE).body if isinstance(n, ast.If)]
    return {alias.name: line.module for line in branch.body for alias in line.names}


@pytest.mark.parametrize("name", biolearn.__all__)
def test_every_name_is_the_object_of_its_module_and_is_documented(name):
    module = importlib.import_module(type_checkers_see()[name])
    offered = getattr(biolearn, name)
    assert offered is getattr(module, name) and name in module.__all__
    assert offered.__doc__ and offered.__module__ == module.__name__


def test_what_is_listed_is_what_is_offered():
    offered = sorted(biolearn.__all__)
    assert offered == sorted(type_checkers_see()) == sorted(biolearn._HOMES)
    assert dir(biolearn) == sorted(["__version__", *offered]) and 20 <= len(offered) <= 30


def test_the_star_brings_every_name():
    listed = python("from biolearn import *; print(*sorted(n for n in globals() if n[0] != '_'))")
    assert listed.split() == sorted(biolearn.__all__)


def test_an_import_of_the_package_loads_nothing_else():
    loaded = python(
        "import sys; before = set(sys.modules); import biolearn; print(*(set(sys.modules) - before))"
    ).split()
    ours = [m for m in loaded if m.split(".")[0] not in sys.stdlib_module_names]
    assert ours == ["biolearn"]


def test_an_import_of_the_package_takes_under_a_tenth_of_a_second():
    "Measured inside the process, so that the start of Python does not count; the best of five."
    code = "import time; a = time.perf_counter(); import biolearn; print(time.perf_counter() - a)"
    assert min(float(python(code)) for _ in range(5)) < 0.1


@pytest.mark.parametrize(
    "name, hint",
    [
        ("local_step", "from biolearn.core.learning import local_step"),
        ("genrate", "did you mean 'generate'?"),
        ("theory", "import biolearn.theory"),
        ("qqqq", "dir(biolearn) lists what it has"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_a_hint(name, hint):
    code = f"import biolearn\ntry: biolearn.{name}\nexcept AttributeError as e: print(e)"
    said = python(code)
    assert f"module 'biolearn' has no attribute '{name}'" in said and hint in said


def test_a_tools_question_is_answered_without_a_search():
    code = "import sys, biolearn; print(hasattr(biolearn, '__wrapped__'), 'difflib' in sys.modules)"
    assert python(code).split() == ["False", "False"]


def test_modules_are_still_imported_by_their_names():
    imports = "import biolearn; from biolearn import plotting; import biolearn.core.rng"
    assert python(f"{imports}; print(plotting.__name__)").strip() == "biolearn.plotting"


WITHOUT = """
import sys
for name in ("matplotlib", "PIL", "papermill", "ipykernel", "nbformat", "IPython"):
    sys.modules[name] = None  # an import of it fails
import biolearn as bl
digits = bl.load_dataset("digits")
network = bl.DeepDAE((8, 4), epochs=1, random_state=0).fit(digits.train)
model = bl.init_model((64, 8, 4), ("sigmoid", "softplus", "sigmoid"))
model, history = bl.fit(model, digits.train, bl.TrainConfig(epochs=1), progress=False)
bl.save_model(sys.argv[1], model)
samples = bl.generate(bl.load_model(sys.argv[1]), 5)
scores = bl.parzen_log_likelihood(digits.test[:9], samples, 0.2)
print(network.sample(3).shape, samples.shape, scores.shape)
"""


def test_without_the_extra_figures_everything_but_drawing_works(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "model.safetensors")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.split("\n")[0] == "(3, 64) (5, 64) (9,)", done.stderr
