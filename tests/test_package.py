"""The package as others receive it: what the wheel holds, what an import costs, and what `make`
says on a machine that lacks something.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "biolearn"
# scikit-learn's estimator and numba's kernels need what they are made of; nothing imports them before
# they are asked for
LIGHT = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if not path.name.startswith("_") and path.name not in ("estimator.py", "compiled.py")
)
HEAVY = {
    "matplotlib",
    "papermill",
    "cupy",
    "sklearn",
    "scipy",
    "nbformat",
    "nbclient",
    "nbdev",
    "IPython",
    "safetensors",
    "requests",
    "brian2",
    "numba",
    "PIL",
    "ipykernel",
}
# what draws and runs figures: it is no part of the core
FIGURES = {"matplotlib", "papermill", "PIL", "ipykernel", "IPython", "nbformat", "nbclient"}


def settings():
    parser = ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def requirements(key):
    return [Requirement(line) for line in settings()[key].splitlines() if line]


def python(code, path=ROOT, **kw):
    "Run `code` in a fresh interpreter that finds packages in `path` first; its output."
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, **kw
    ).stdout


# ---- imports -------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", LIGHT)
def test_importing_a_module_pulls_in_nothing_heavy(module, tmp_path):
    loaded = python(
        f"import sys, biolearn.{module}; print(*{{name.split('.')[0] for name in sys.modules}})",
        cwd=tmp_path,
    ).split()
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("argv", [["--help"], ["reproduce", "--help"], ["--version"]])
def test_help_pulls_in_nothing_heavy(argv, tmp_path):
    code = (
        "import sys, biolearn.cli.main as r\ntry: r.main({!r})\n"
        "except SystemExit as e: print(e.code)\n"
        "print(*{{n.split('.')[0] for n in sys.modules}})"
    )
    lines = python(code.format(argv), cwd=tmp_path).splitlines()
    assert lines[-2] == "0" and not HEAVY & set(lines[-1].split())


def imports(path):
    "The first names of all that a module imports, wherever in it."
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


def modules(*folders):
    "The modules of the package in these folders (all of them: none given), by their paths in it."
    return {
        path.relative_to(PACKAGE).as_posix(): path
        for folder in folders or ("",)
        for path in (PACKAGE / folder).rglob("*.py")
    }


def test_only_kernels_cuda_and_arrays_know_cupy_and_only_reproduction_knows_papermill():
    "The generator of `core.rng` is CuPy's own as well: the array API standard has none."
    know = {name: imports(path) for name, path in modules().items()}
    assert {name for name, found in know.items() if "cupy" in found} == {
        "core/arrays.py",
        "core/rng.py",
        "kernels/cuda.py",
    }
    assert {name.split("/")[0] for name, found in know.items() if "papermill" in found} == {
        "reproduction"
    }


@pytest.mark.parametrize("name", modules("core", "kernels"))
def test_the_core_and_its_kernels_import_nothing_that_draws_or_runs_figures(name):
    assert not FIGURES & imports(PACKAGE / name)
    text = (PACKAGE / name).read_text(encoding="utf-8")
    assert not re.search(r"from \.+(plotting|reproduction|cli|estimator)\b", text)


# ---- the wheel -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "A wheel built, without a network, from a copy of what the repository holds."
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (
        "setup.py",
        "settings.ini",
        "pyproject.toml",
        "MANIFEST.in",
        "LICENSE",
        "README.md",
    ):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for name in ("biolearn", "nbs/figures", "figures"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    (source / "nbs" / "figures" / "fig0_extra.ipynb").write_text("{}")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            str(made),
            str(source),
        ],
        check=True,
    )
    return next(made.glob("*.whl"))


def test_the_wheel_holds_the_modules_and_the_figure_notebooks(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        p.relative_to(ROOT).as_posix()
        for kind in ("*.py", "*.mplstyle", "py.typed", "assets/*/*")
        for p in PACKAGE.rglob(kind)
        if p.is_file()
    }
    assert "biolearn/core/arrays.py" in modules
    notebooks = {
        f"biolearn/notebooks/{p.name}" for p in (ROOT / "nbs" / "figures").glob("*.ipynb")
    } | {"biolearn/notebooks/fig0_extra.ipynb"}
    measured = {n for n in names if n.startswith("biolearn/measured/")}
    assert {n for n in names if ".dist-info/" not in n} - measured == modules | notebooks | {
        "biolearn/biolearn.mplstyle"
    }
    assert any(n.endswith("LICENSE") for n in names)
    assert any(n.endswith("mnist-small/LICENSE.md") for n in names)


def test_the_wheels_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    meta = next(archive.read(n).decode() for n in archive.namelist() if n.endswith("METADATA"))
    required = [Requirement(r) for r in re.findall(r"^Requires-Dist: (.*)$", meta, re.M)]

    def needs(extra):
        "What the wheel asks for: {name: versions}, of the core or of one extra."
        asked = [r for r in required if ("extra" in str(r.marker or "")) == bool(extra)]
        return {
            canonicalize_name(r.name): str(r.specifier)
            for r in asked
            if r.marker is None or r.marker.evaluate({"extra": extra, "python_version": "3.12"})
        }

    def wanted(key):
        return {canonicalize_name(r.name): str(r.specifier) for r in requirements(key)}

    assert needs("") == wanted("requirements")
    assert set(needs("")) == {
        "numpy",
        "scipy",
        "scikit-learn",
        "array-api-compat",
        "safetensors",
        "threadpoolctl",
        "tqdm",
        "platformdirs",
        "filelock",
        "joblib",
    }
    extras = {k.removesuffix("_requirements") for k in settings() if k.endswith("_requirements")}
    assert extras == set(re.findall(r"^Provides-Extra: (.*)$", meta, re.M)) >= {"figures", "rl"}
    for extra in extras:
        assert needs(extra) == wanted(f"{extra}_requirements"), extra
    assert "Requires-Python: >=3.10" in meta
    entry = next(
        archive.read(n).decode() for n in archive.namelist() if n.endswith("entry_points.txt")
    )
    assert "biolearn=biolearn.cli.main:main" in entry.replace(" ", "")


def test_installed_from_the_wheel_it_finds_its_notebooks_and_writes_below_the_current_folder(
    wheel, tmp_path
):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from biolearn.reproduction.runs import *\n"
        "from biolearn.reproduction.figures import *\n"
        "from biolearn.reproduction.report import *\n"
        "print(notebook_folder())\nprint(output_folder())\nprint(checkout(), git_revision())"
    )
    (tmp_path / "work").mkdir()
    notebooks, out, last = python(code, tmp_path / "site", cwd=tmp_path / "work").splitlines()
    site = (tmp_path / "site").resolve()
    assert Path(notebooks) == site / "biolearn" / "notebooks" and "fig0_extra.ipynb" in {
        p.name for p in Path(notebooks).iterdir()
    }
    assert Path(out) == (tmp_path / "work").resolve() / "figures" / "quick" and last == "None None"


def test_installed_from_the_wheel_it_finds_every_stored_measurement_and_says_so(wheel, tmp_path):
    assert wheel.stat().st_size < 12 * 2**20
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = """
from pathlib import Path
import biolearn
from biolearn.reproduction.measurements import STORED, find_measurements
for stem in STORED:
    measured = find_measurements(stem, "paper")
    assert Path(biolearn.__file__).parent in measured.path.parents, measured.path
    assert measured.made_by["stored"] and measured.made_by["commit"], measured.made_by
    if measured.path.is_file():
        measured.read()
    else:
        assert len(list(measured.path.glob("*-seed*.json"))) > 30
print(len(STORED))"""
    (tmp_path / "work").mkdir()
    assert int(python(code, tmp_path / "site", cwd=tmp_path / "work")) >= 10
    assert not list((tmp_path / "work").iterdir())


# ---- one fact, one place -------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere():
    import biolearn

    version = settings()["version"]
    assert biolearn.__version__ == version
    assert re.search(
        rf"^version: {re.escape(version)}$",
        (ROOT / "CITATION.cff").read_text(encoding="utf-8"),
        re.M,
    )


@pytest.mark.parametrize("minor", [10, 11, 12, 13, 14])
def test_constraints_pin_every_requirement_once_for_every_python(minor):
    env, pinned = {"python_version": f"3.{minor}"}, {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        (spec,) = pin.specifier
        assert spec.operator == "==" and "*" not in spec.version, line
        if pin.marker and not pin.marker.evaluate(env):
            continue
        assert canonicalize_name(pin.name) not in pinned, (
            f"{pin.name} is pinned twice for Python 3.{minor}"
        )
        pinned[canonicalize_name(pin.name)] = spec.version
    keys = ("requirements", "figures_requirements", "dev_requirements")
    for wanted in (r for key in keys for r in requirements(key)):
        if wanted.marker and not wanted.marker.evaluate(env):
            continue
        name = canonicalize_name(wanted.name)
        if name == "setuptools" and minor < 12:
            continue  # comes with the virtual environment
        assert wanted.specifier.contains(pinned[name]), f"{wanted} is pinned to {pinned[name]}"


@pytest.mark.parametrize("minor", [10, 11, 12, 13, 14])
def test_what_is_pinned_runs_on_the_first_patch_of_a_python(minor):
    "Of the packages that are installed here in the version that is pinned for that Python."
    import importlib.metadata as md

    first, too_new, seen = f"3.{minor}.0", [], 0
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker and not pin.marker.evaluate({"python_version": f"3.{minor}"}):
            continue
        try:
            here = md.metadata(pin.name)
        except md.PackageNotFoundError:
            continue
        if pin.specifier.contains(here["Version"]):
            seen += 1
            if not SpecifierSet(here["Requires-Python"] or "").contains(first):
                too_new.append(f"{pin}: {here['Requires-Python']}")
    assert not too_new
    assert seen > 20


def test_what_is_installed_here_is_what_the_constraints_say():
    """Only a hint to who renews the constraints: nothing that the tests use may be missing from the
    file.
    """
    import importlib.metadata as md

    text = (ROOT / "constraints.txt").read_text()
    names = {
        canonicalize_name(Requirement(line).name)
        for line in text.splitlines()
        if line and not line.startswith("#")
    }
    todo, seen = [r.name for r in requirements("requirements")], set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = md.requires(name) or []
        except md.PackageNotFoundError:
            continue
        todo += [
            r.name
            for r in map(Requirement, needs)
            if r.marker is None or r.marker.evaluate({"extra": ""})
        ]
    assert seen <= names | {"setuptools", "pip"}, f"not in constraints.txt: {sorted(seen - names)}"


# ---- make, on a machine that lacks something -----------------------------------------------------


@pytest.fixture
def make(tmp_path):
    """Run `make` in a folder with the Makefile and a PATH of one folder, where
    `python(name, version, modules)` puts made-up Pythons.
    """
    if not shutil.which("make"):
        pytest.skip("no make")
    shutil.copytree(
        ROOT,
        tmp_path / "tree",
        ignore=lambda folder, names: (
            set(names) - {"Makefile", "settings.ini", "setup.py", "constraints.txt"}
        ),
    )
    bin = tmp_path / "bin"
    bin.mkdir()
    for tool in (
        "make",
        "sh",
        "rm",
        "touch",
        "sed",
        "printf",
        "env",
        "find",
        "sort",
        "cksum",
        "cat",
    ):
        if shutil.which(tool):
            (bin / tool).symlink_to(shutil.which(tool))

    class Make:
        tree = tmp_path / "tree"

        def __call__(self, *argv):
            return subprocess.run(
                ["make", *argv],
                cwd=self.tree,
                env={"PATH": str(bin)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )

        def python(self, name, minor, venv=True, pip="exit 0"):
            """A shell script that answers the Makefile's questions as a Python 3.`minor` would; its
            venv's pip does `pip`.
            """
            ready = f"""case "$*" in
  *ensurepip*) exit {0 if venv else 1};;
  *"(3, 10)"*"(3, 13)"*) echo {"old" if minor < 10 else "tried" if minor <= 13 else "untried"};;
  *print*) echo 3.{minor};;
  -V) echo Python 3.{minor}.0;;
  "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; chmod +x .venv/bin/python;;
  "-m pip --version") exit 0;;
  "-m pip install"*) echo "$*" >> pip.log; {pip};;
esac"""
            (bin / name).write_text(f"#!/bin/sh\n{ready}\n")
            (bin / name).chmod(0o755)
            for tool in ("mkdir", "cp", "chmod"):
                if not (bin / tool).exists():
                    (bin / tool).symlink_to(shutil.which(tool))

    return Make()


def test_plain_make_is_a_list_of_what_it_can_do(make):
    done = make()
    assert (
        done.returncode == 0
        and all(
            f"make {t}" in done.stdout
            for t in ("venv", "figures", "test", "export", "readme", "check")
        )
        and "PYTHON=" in done.stdout
    )


def test_without_python_it_says_what_to_install(make):
    done = make("venv")
    assert (
        done.returncode == 2
        and "Python 3.10 or newer is needed, and none was found" in done.stderr
        and "apt install python3" in done.stderr
    )
    done = make("venv", "PYTHON=/nowhere/python")
    assert done.returncode == 2 and "PYTHON=/nowhere/python is not one" in done.stderr


def test_a_python_too_old_is_not_taken(make):
    make.python("python3", 9)
    assert "none was found" in make("venv").stderr
    make.python("python3.11", 11)
    done = make("venv")
    assert done.returncode == 0 and "with python3.11" in done.stdout


def test_a_python_that_was_not_tried_is_taken_with_a_word_and_only_where_there_is_no_other(make):
    make.python("python3", 14)
    done = make("venv")
    assert done.returncode == 0 and "with python3 " in done.stdout
    assert "Python 3.14 is untried: biolearn was tried with Python 3.10 to 3.13" in done.stderr
    shutil.rmtree(make.tree / ".venv")
    make.python("python3.12", 12)
    done = make("venv")
    assert "with python3.12 " in done.stdout and "untried" not in done.stderr


def test_make_and_the_settings_agree_about_the_pythons_that_were_tried():
    oldest, newest = (settings()[key].split(".")[1] for key in ("min_python", "max_python"))
    (age,) = re.findall(r"^AGE = (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert re.findall(r"\(3, (\d+)\)", age) == [oldest, newest]


def test_without_the_venv_module_it_says_which_package_has_it(make):
    make.python("python3", 12, venv=False)
    done = make("figures")
    assert (
        done.returncode == 2
        and "apt install python3.12-venv" in done.stderr
        and not (make.tree / ".venv").exists()
    )


def test_an_interrupted_installation_does_not_count_as_done(make):
    make.python("python3", 12, pip="exit 1")
    done = make("venv")
    assert (
        done.returncode == 2
        and "the installation failed" in done.stderr
        and not (make.tree / ".venv" / ".ready").exists()
    )
    shutil.rmtree(make.tree / ".venv")
    make.python("python3", 12)
    assert make("venv").returncode == 0 and (make.tree / ".venv" / ".ready").exists()
    assert (make.tree / "pip.log").read_text().count(
        "install"
    ) == 2 and "-e .[dev,figures] -c constraints.txt" in (make.tree / "pip.log").read_text()
    assert "Installing" not in make("venv").stdout  # the second time: nothing
    for changed in ("constraints.txt", "settings.ini", "setup.py"):
        os.utime(make.tree / changed, (2e9, 2e9))
        os.utime(make.tree / ".venv" / ".ready", (1e9, 1e9))
        assert "Installing" in make("venv").stdout, changed
        os.utime(make.tree / changed, (1e9, 1e9))
