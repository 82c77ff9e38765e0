"""Type hints: everything that a module exports has them, they agree with the code, and a user's
type checker profits from them.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p for p in (ROOT / "biolearn").rglob("*.py") if not p.name.startswith("_"))


def exported(tree):
    """The functions that a module exports, and the methods of its classes that are for others:
    (name, definition, whether it is a method).
    """
    names = next(
        (
            ast.literal_eval(s.value)
            for s in tree.body
            if isinstance(s, ast.Assign) and s.targets[0].id == "__all__"
        ),
        [],
    )
    for s in tree.body:
        if getattr(s, "name", None) not in names:
            continue
        if isinstance(s, ast.FunctionDef):
            yield s.name, s, False
        for f in s.body if isinstance(s, ast.ClassDef) else ():
            if isinstance(f, ast.FunctionDef) and (
                not f.name.startswith("_") or f.name.endswith("__")
            ):
                yield f"{s.name}.{f.name}", f, True


def lacks(f, method):
    """The arguments of a function that have no type hint, and 'return' if it has none for what it
    returns.
    """
    a = f.args
    every = [x for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x]
    return [x.arg for x in every[method:] if x.annotation is None] + ["return"] * (
        f.returns is None
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_everything_exported_has_type_hints(path):
    found = {
        name: lacks(f, method)
        for name, f, method in exported(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not {name: args for name, args in found.items() if args}


def test_the_check_above_sees_what_is_missing():
    tree = ast.parse(
        "__all__ = ['f', 'C']\ndef f(a, *b: int, c=1) -> int: ...\nclass C:\n"
        "  def m(self, x: int): ...\n  def _p(self, y): ...\ndef g(z): ..."
    )
    assert {name: lacks(f, method) for name, f, method in exported(tree)} == {
        "f": ["a", "c"],
        "C.m": ["return"],
    }


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    "Run mypy, with a cache of its own for these tests; its output and exit status."
    pytest.importorskip("mypy")
    cache = tmp_path_factory.mktemp("mypy")

    def run(*argv):
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--cache-dir", str(cache), *map(str, argv)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr, done.returncode

    return run


def test_the_hints_agree_with_the_code(mypy):
    said, status = mypy()
    assert status == 0 and "no issues found" in said, said


USER = """
from pathlib import Path
import biolearn as bl
from biolearn import DeepDAE
from biolearn.core.arrays import Array
from biolearn.core.data import load_digits
from biolearn.estimator import History, log_to_mlflow

def watch(estimator: DeepDAE, history: History) -> None:
    print(estimator.score(load_digits().valid), history[-1]["epoch"])

estimator = DeepDAE((20, 10), epochs=2, callbacks=[watch, log_to_mlflow()], random_state=0)
estimator.fit([[0.0, 1.0]]).set_params(n_steps=3).save(Path("a"))
rows: Array = DeepDAE.load("a").sample(DeepDAE.load("a").n_iter_ + 1)
start = bl.init_model((64, 20, 10), ("sigmoid", "softplus", "sigmoid"), rng=bl.Random(0))
config = bl.TrainConfig(noise=(0.5, 0.1, "spikes"))
slow = bl.Inference(n_steps=30)
model: bl.Model = bl.fit(start, load_digits().train, config, rng=1, inference=slow)[0]
"""
WRONG = {
    "trasnform": "DeepDAE().trasnform([[0]])",
    "hiden": "DeepDAE(hiden=(3,))",
    '"str"': 'DeepDAE(epochs="20")',
    "TrainConfig": "bl.fit(start, rows, 20)",
    '"log_p"': "model.log_p",
    "genrate": "bl.genrate(model, 3)",
    "None": "estimator.history_.keys()",
}


def test_a_users_checker_in_strict_mode_finds_their_mistakes_and_nothing_else(mypy, tmp_path):
    "Only the user's own file is judged; the library is seen through its hints."
    user = tmp_path / "user.py"
    user.write_text(USER + "\n".join(WRONG.values()) + "\n")
    said, status = mypy("--config-file=", "--strict", "--follow-imports=silent", user)
    errors = [line for line in said.splitlines() if ": error:" in line]
    lines = {int(line.split(":")[1]) for line in errors}
    first = USER.count("\n") + 1
    assert status == 1 and lines == set(range(first, first + len(WRONG))), said
    for word in list(WRONG)[:6]:
        assert word in said, word
