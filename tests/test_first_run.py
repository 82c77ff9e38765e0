"""The first thing that a reader does: one command that names nothing, the figures of the paper from
the network in the package, and a report that says so.
"""

import json
import re

import pytest
from whole_runs import ENV, ROOT, biolearn, check_verdicts

from biolearn.reproduction.figures import FIRST_LOOK, notebook_folder, select

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """`biolearn reproduce` with nothing but a folder, where MNIST is not to be found: the finished
    process and the folder.
    """
    out, nowhere = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("nowhere")
    env = ENV | {"XDG_CACHE_HOME": str(nowhere)}
    env.pop("BIOLEARN_DATA", None)
    done = biolearn("reproduce", "--device", "cpu", "--out", str(out), cwd=nowhere, env=env)
    assert not (nowhere / "biolearn").exists()  # nothing was downloaded
    return done, out


@pytest.fixture(scope="module")
def manifest(first):
    done, out = first
    assert done.returncode == 0, done.stderr
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def claims(manifest):
    return [c for entry in manifest["pictures"].values() for c in entry["claims"]]


def test_the_papers_figures_are_drawn_with_the_network_of_the_package(manifest):
    stems = [p.stem for p in select(sorted(notebook_folder().glob("*.ipynb")), FIRST_LOOK)]
    assert manifest["ran_now"] == stems and not manifest["left_out"] and len(stems) == 8
    assert manifest["profile"] == "shipped"
    by = {name: entry["made_by"].get("shipped") for name, entry in manifest["pictures"].items()}
    trained_here = {"fig1_stdp", "01_growing"}  # and what needs no network
    assert {name for name, shipped in by.items() if shipped != "paper"} == trained_here


def test_the_claims_of_the_paper_are_about_ten_and_judged_at_its_scale(manifest, first):
    judged = [c for c in claims(manifest) if c["source"] and c["holds"] is not None]
    assert 10 <= len(judged) <= 18
    # what is known not to hold: Eq. 12 is not the gradient's direction, and 236 is not reached
    assert {c["source"] for c in judged if not c["holds"]} == {"Section 6", "Section 8"}
    held = sum(c["holds"] for c in judged)
    assert f"{held} of {len(judged)} claims of the paper hold." in first[0].stdout


def test_figure_4_rises_at_every_step_by_more_than_round_off(manifest):
    (rise,) = [c for c in claims(manifest) if "rises at every one of 20 steps" in c["name"]]
    assert rise["holds"] and rise["margin"] > 0.01  # nats; 0.0185 with all of MNIST


def test_the_scores_are_those_of_all_of_mnist_within_the_error_of_500_digits(manifest):
    """The account of the shipped network was measured on 10,000 test digits; 500 of them have a
    standard error of about 6 nats.
    """
    told = json.loads((ROOT / "biolearn/assets/networks/networks.json").read_text())["paper"]
    for name, score in (
        ("GENERATE, Parzen", "Parzen, GENERATE (nats)"),
        ("directed model", "Parzen, directed model (nats)"),
    ):
        (claim,) = [c for c in claims(manifest) if c["name"].startswith(name)]
        error = float(re.search(r"± ([\d.]+)", claim["note"])[1])
        assert abs(claim["measured"] - told["scores"]["float16"][score]) < 4 * error


def test_the_report_opens_with_figures_3_to_5_and_says_whose_network_it_is(first, manifest):
    page = (first[1] / "report.html").read_text(encoding="utf-8")
    places = [page.index(f'<figure id="{name}') for name in ("fig3", "fig4", "fig5", "fig1")]
    assert places == sorted(places) and places[2] < page.index("The claims of the paper")
    top = page[: places[0]]
    assert "Network: shipped with the package, trained by" in top
    assert "make figures PROFILE=paper" in top
    assert page.index('<figure id="01_growing') < page.index("<details")
    assert all(name in page for name in manifest["pictures"])


def test_every_verdict_is_one_that_neither_a_seed_nor_a_processor_turns_over(manifest):
    assert check_verdicts(manifest) >= 20
