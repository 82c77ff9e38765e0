"""What runs here is code of this repository and of the packages it names: no data is executed, no
connection is unchecked, no notebook brings its own.
"""

import ast
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
PROGRAMS = [
    *sorted((ROOT / "biolearn").rglob("*.py")),
    *sorted((ROOT / "bench").rglob("*.py")),
    *sorted((ROOT / "experiments").rglob("*.py")),
    ROOT / "setup.py",
]

CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "os.spawnl",
    "os.spawnv",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "tempfile.mktemp",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pandas.read_pickle",
    "pd.read_pickle",
    "torch.load",
    "torch.hub.load",
    "joblib.load",
    "ssl._create_unverified_context",
}
MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "jsonpickle",
    "telnetlib",
    "ftplib",
}
LOADS = {
    "np.load",
    "numpy.load",
    "xp.load",
    "cupy.load",
}  # read arrays of objects, by pickle, if they are let


def calls(node):
    "What a call could execute or skip."
    name = ast.unparse(node.func)
    constant = name == "__import__" and isinstance(node.args[0], ast.Constant)
    if name in CALLS and not constant:
        yield name
    for keyword in node.keywords:
        value = getattr(keyword.value, "value", "not a literal")
        if keyword.arg in ("shell", "allow_pickle") and value is not False:
            yield f"{keyword.arg}="
        if keyword.arg == "verify" and value is False:
            yield "verify=False"
    if name in LOADS and not any(k.arg == "allow_pickle" for k in node.keywords):
        yield f"{name} without allow_pickle=False"


def imported(node):
    "The forbidden modules that an import brings."
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return [name for name in names if name.split(".")[0] in MODULES]


def unchecked(node):
    "A connection without its checks: an attribute that switches them off, or a plain address."
    if isinstance(node, ast.Attribute):
        return [node.attr] if node.attr in ("CERT_NONE", "check_hostname") else []
    plain = isinstance(node.value, str) and re.match(r"(http|ftp)://(?!example\.org/)", node.value)
    return [node.value] if plain else []


def offences(source):
    "What in a Python text could execute data or skip a check: (line, what)."
    looks = {
        ast.Call: calls,
        ast.Import: imported,
        ast.ImportFrom: imported,
        ast.Attribute: unchecked,
        ast.Constant: unchecked,
    }
    return [
        (node.lineno, what)
        for node in ast.walk(ast.parse(source))
        for what in looks.get(type(node), lambda node: [])(node)
    ]


@pytest.mark.parametrize(
    "bad",
    [
        "eval(x)",
        "exec(open(f).read())",
        "compile(x, '', 'exec')",
        "__import__(name)",
        "os.system(c)",
        "subprocess.run(c, shell=True)",
        "subprocess.run(c, shell=asked)",
        "import pickle",
        "from pickle import loads",
        "import numpy, shelve",
        "joblib.load(f)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "requests.get(u, verify=False)",
        "context.verify_mode = ssl.CERT_NONE",
        "context.check_hostname = False",
        "get('http://mirror.net/mnist')",
        "def f():\n    if a: return [eval(b) for b in c]",
        "torch.load(f)",
    ],
)
def test_the_search_finds_what_it_looks_for(bad):
    assert offences(bad)


@pytest.mark.parametrize(
    "good",
    [
        "np.load(f, allow_pickle=False)",
        "subprocess.run([a], shell=False)",
        "model.eval()",
        "re.compile(x)",
        "get('https://example.org')",
        "'http is refused'",
        "os.execv(sys.executable, argv)",
    ],
)
def test_the_search_finds_nothing_else(good):
    assert not offences(good)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_program_executes_data(path):
    assert offences(path.read_text(encoding="utf-8")) == []


# ---- notebooks -----------------------------------------------------------------------------------


def cells(path):
    "The code cells of a notebook, as text."
    return [
        "".join(c["source"])
        for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if c["cell_type"] == "code"
    ]


def known():
    """The packages that settings.ini requires or constraints.txt pins, by the names under which
    they are imported.
    """
    parser = ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    lines = [
        line
        for key, text in parser["DEFAULT"].items()
        if key.endswith("requirements")
        for line in text.splitlines()
    ] + (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = {Requirement(line).name for line in lines if line and not line.startswith("#")}
    return {
        {"scikit-learn": "sklearn", "pillow": "PIL", "ipython": "IPython"}.get(
            n, re.sub("^cupy-.*", "cupy", n).replace("-", "_")
        )
        for n in names
    } | {"cupy_backends"}  # a part of CuPy


HERE = re.escape("https://github.com/biolearn/biolearn")
COMMAND = re.compile(
    rf"""\s*(%pip install -q(?P<more>( [\w.-]+)*)"""
    rf"""( \./biolearn| "\./biolearn\[figures\]"| "(biolearn\[figures\] @ )?git\+{HERE}")"""
    rf"""(?P<others>( [\w.-]+)*)"""
    rf"""|!git clone -q --depth 1 {HERE}|%cd (-q )?[\w./-]+|%(matplotlib|config) [\w. =']+)"""
)


def command_lines(source):
    """The lines of a cell that are commands of IPython. Where the whole is Python already, a line
    that begins with % goes on with a division.
    """
    try:
        ast.parse(source)
    except SyntaxError:
        return [line for line in source.splitlines() if re.match(r"\s*[!%]", line)]
    return []


def test_commands_of_ipython_are_found():
    assert command_lines("x = 1\nif x:\n    ! ls\n%time y") == ["    ! ls", "%time y"]
    assert command_lines("x = (7\n     % 2)") == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT / "nbs")))
def test_a_notebook_runs_only_code_of_the_repository_and_of_known_packages(path):
    """Its imports are the standard library, this package, and what settings.ini or constraints.txt
    names; command lines install this very repository and known packages, nothing else.
    """
    packages = known()
    for source in cells(path):
        for line in command_lines(source):
            match = COMMAND.fullmatch(line)
            assert (
                match
                and {
                    name.replace("-", "_")
                    for name in ((match["more"] or "") + (match["others"] or "")).split()
                }
                <= packages
            ), line
        if command_lines(source):
            source = re.sub(r"^(\s*)[!%].*", r"\1pass", source, flags=re.M)
        assert offences(source) == []
        for node in ast.walk(ast.parse(source)):
            modules = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            for root in {m.split(".")[0] for m in modules}:
                assert root in sys.stdlib_module_names or root in packages | {
                    "biolearn",
                    "bench",
                    "experiments",
                    "shtab",
                    "zmq",  # of pyzmq, which the kernel brings
                }, f"it imports {root}"


# ---- dependencies --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["requirements", "figures_requirements", "dev_requirements"])
def test_every_dependency_says_why_it_is_here(key):
    "In settings.ini each stands below a comment that gives the reason, and there are few."
    lines = re.search(
        rf"^{key} =\n((?:    .*\n)+)", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M
    )[1].splitlines()
    assert lines[0].strip().startswith("#")
    for before, line in zip(lines, lines[1:]):
        assert line.strip().startswith("#") or not before.strip() == "", line
    assert sum(not line.strip().startswith("#") for line in lines) <= (
        10 if key == "requirements" else 24
    )
