"""The main job, as a stranger runs it: one command, every figure, every claim; and the second time
nothing is trained again.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from whole_runs import ENV, biolearn, check_verdicts

from biolearn.reproduction.figures import notebook_folder
from biolearn.reproduction.profiles import PROFILES

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """`biolearn reproduce --profile quick`: the finished process and its folder, which is that in
    BIOLEARN_QUICK if someone wants the figures afterwards.
    """
    out = Path(os.environ.get("BIOLEARN_QUICK") or tmp_path_factory.mktemp("quick"))
    return biolearn("reproduce", "--profile", "quick", "--device", "cpu", "--out", str(out)), out


@pytest.fixture(scope="module")
def manifest(quick):
    done, out = quick
    assert done.returncode == 0, done.stderr
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def test_the_command_succeeds_and_prints_the_claims(quick):
    done, out = quick
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (
        lines[0] == "00_train"
        and lines[1].split()[0] == "yes"
        and lines[-1] == f"See {out / 'report.html'}"
    )
    assert all(len(line) <= 110 for line in lines[:-1])
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_every_notebook_drew_its_figure(manifest, quick):
    _, out = quick
    stems = sorted(p.stem for p in notebook_folder().glob("*.ipynb"))
    assert (
        manifest["ran_now"] == stems
        and {e["notebook"] for e in manifest["pictures"].values()} == set(stems)
        and not manifest["left_out"]
    )
    for start in ("fig3", "fig4", "fig5", "fig6", "fig7", "table1", "table2"):
        drawn = [name for name in manifest["pictures"] if name.startswith(start)]
        assert drawn, f"nothing for {start}"
        for name in drawn:
            assert {f"{name}.png", f"{name}.svg", f"{name}.json"} == manifest["pictures"][name][
                "files"
            ].keys() - {f"{name}.gif"}
    assert "fig7_pictures_walk.gif" in manifest["pictures"]["fig7_pictures_walk"]["files"]


def test_every_verdict_is_one_that_neither_a_seed_nor_a_processor_turns_over(manifest):
    assert check_verdicts(manifest) >= 20


def test_samples_are_varied_and_recognisable(manifest, quick):
    "The known failure of the chain is the mean digit: variety 0, one class, nothing recognised."
    made = json.loads((quick[1] / "fig3_samples.json").read_text(encoding="utf-8"))["values"][
        "GENERATE"
    ]
    assert (
        made["variety"] > 0.3
        and made["classes"] == 10
        and made["entropy"] > 0.9
        and made["recognisable"] > 0.45
    )


def test_the_manifest_is_true_of_the_files(manifest, quick):
    _, out = quick
    for entry in manifest["pictures"].values():
        for name, sha in entry["files"].items():
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == sha
    assert (
        manifest["failed"] is None
        and manifest["profile"] == "quick"
        and manifest["seed"] == 0
        and manifest["device"] == "cpu"
    )
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/gif;base64,") == 1
    assert page.count("data:image/png;base64,") == sum(
        f"{n}.png" in e["files"] and f"{n}.gif" not in e["files"]
        for n, e in manifest["pictures"].items()
    )


def test_the_second_time_nothing_is_trained_and_the_picture_is_the_same(manifest, quick):
    _, out = quick
    runs = sorted(
        out.glob("runs/*")
    )  # three seeds: Table 2 asks for two more than the other notebooks
    (run,) = (r for r in runs if r.name == manifest["key"])
    assert len(runs) == 3
    trained = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.iterdir()}
    done = biolearn(
        "reproduce", "--profile", "quick", "--device", "cpu", "--out", str(out), "--only", "fig4"
    )
    again = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert (
        done.returncode == 0
        and all(n.startswith("fig4") for n in again["ran_now"])
        and again["pictures"] == manifest["pictures"]
    )
    assert {
        p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.iterdir()
    } == trained and sorted(out.glob("runs/*")) == runs


def test_papermill_alone_does_the_same(manifest, quick, tmp_path):
    _, out = quick
    book = next(notebook_folder().glob("fig4*.ipynb"))

    def told():
        return {
            p.name: [(c["name"], c["holds"]) for c in json.loads(p.read_text())["claims"]]
            for p in out.glob(f"{book.stem}*.json")
        }

    before = told()  # not the last digits: the command may have chosen faster matrix kernels
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "papermill",
            str(book),
            str(tmp_path / "out.ipynb"),
            "-k",
            "python3",
            "-p",
            "profile",
            "quick",
            "-p",
            "device",
            "cpu",
            "-p",
            "out",
            str(out),
        ],
        env=ENV,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert told() == before and "unknown parameter" not in done.stderr
    injected = [
        c
        for c in nbformat.read(tmp_path / "out.ipynb", 4).cells
        if "injected-parameters" in c.metadata.get("tags", ())
    ]
    assert len(injected) == 1 and 'profile = "quick"' in injected[0].source


def test_there_is_a_recipe_for_the_paper_too():
    assert set(PROFILES) == {"quick", "paper", "mixture", "shipped"}
