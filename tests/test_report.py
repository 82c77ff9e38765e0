"""What a reader meets first: the report's order, whose claims are counted, and verdicts that
neither a seed nor a processor turns over.
"""

import json
import re

import numpy as np
import pytest

import biolearn.reproduction.report as report
from biolearn.reproduction.claims import Claim, read_record, record, without_verdict
from experiments import margins

ABOUT = dict(profile="quick", overrides={}, seed=3, device="cpu", key="k", keys=["k"])
ABOUT |= dict(revision=None, versions={"python": "3"}, seconds=1.0)
CLAIMS = {
    "00_train": [Claim("it trains", "yes", 1, True, source="Algorithm 2")],
    "fig2_targets": [
        Claim("steps arrive", "drawn", 1, True, source="Figure 2"),
        Claim("the height", "not given", 2, False),
    ],
    "fig3_samples": [
        Claim("varied", "to the eye", 3, False, source="Figure 3"),
        Claim("nearest", "not given", 4, None, "one seed decides nothing"),
        Claim("without a verdict", "drawn", 5, None, source="Figure 3"),
    ],
    "fig10_spikes": [Claim("spikes are enough", "not in the paper", 6, True)],
    "table1_parzen": [Claim("score", "236", 7, True, source="Section 8")],
    "table2_seeds": [],
}


@pytest.fixture
def manifest(tmp_path):
    for name, claims in CLAIMS.items():
        record(name, None, claims, out=tmp_path, caption=f"Caption of {name}.", made_by="k")
    seconds = dict.fromkeys(sorted(CLAIMS), 1.0)  # names in the order of letters: fig10 before fig2
    return report.write_manifest(tmp_path, about=ABOUT, seconds=seconds, stems=sorted(CLAIMS))


def places(text, *patterns):
    "Where each of `patterns` is first found in `text`."
    return [re.search(pattern, text).start() for pattern in patterns]


def test_the_report_opens_with_the_samples_and_folds_what_is_beyond(manifest, tmp_path):
    page, text = report.report_html(manifest, tmp_path), report.report_markdown(manifest)
    for found in (
        places(
            page,
            *("of the paper hold", '<figure id="fig3_samples"', "The claims of the paper"),
            *(f'<figure id="{name}"' for name in ("00_train", "fig2_targets", "table1_parzen")),
            *("<details>", '<figure id="fig10_spikes"', '<figure id="table2_seeds"', "</details>"),
            "Versions:",
        ),
        places(
            text,
            *(
                "of the paper hold",
                "### Figure 3",
                "## The claims of",
                "### Train",
                "### Figure 2:",
            ),
            *("### Table 1", "## Beyond the paper", "### Figure 10", "### Table 2", "Versions:"),
        ),
    ):
        assert found == sorted(found)


def test_the_summary_counts_the_papers_claims_with_a_verdict_alone(manifest, tmp_path):
    assert report.summary(manifest) == "3 of 4 claims of the paper hold."
    for text in (report.report_html(manifest, tmp_path), report.report_markdown(manifest)):
        assert text.count("3 of 4 claims of the paper hold.") == 1


def test_rows_without_a_verdict_are_no_claims(manifest, tmp_path):
    page, text = report.report_html(manifest, tmp_path), report.report_markdown(manifest)
    rows = re.findall(r"<tr><td.*?</tr>", page, re.S)
    assert len(rows) == 6 and not any("nearest" in row or "without" in row for row in rows)
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 6 + 2
    assert "measured: nearest: 4 (paper: not given; one seed decides nothing)" in page
    assert "- measured: nearest: 4" in text and "nearest" not in report.claims_text(manifest)


def test_the_terminal_has_the_same_order(manifest):
    lines = report.claims_text(manifest).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        *("00_train", "fig2_targets", "fig3_samples", "table1_parzen"),
        *("", "Beyond the paper:", "fig2_targets", "fig10_spikes"),
    ]


def test_records_and_manifests_of_before_are_read(manifest, tmp_path):
    for path in tmp_path.glob("*.json"):
        told = json.loads(path.read_text())
        for entry in told["pictures"].values() if "pictures" in told else [told]:
            for claim in entry["claims"]:
                del claim["source"], claim["margin"]
        path.write_text(json.dumps(told))
    old = report.read_manifest(tmp_path)
    assert read_record(tmp_path / "fig2_targets.json").claims[0].source == ""
    assert report.summary(old) == "No claim of the paper was judged."
    assert "steps arrive" in report.report_markdown(old)


def test_a_shipped_network_is_named_under_the_title(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "provenance", lambda made_by: f"Network: {made_by['shipped']}.")
    for entry in manifest["pictures"].values():
        entry["made_by"] = {"shipped": "paper, trained by abc in 400 s"}
    said = "Network: paper, trained by abc in 400 s."
    page, text = report.report_html(manifest, tmp_path), report.report_markdown(manifest)
    assert text.split("\n\n")[1] == said and f'<p class="from">{said}</p>' in page
    assert "other seeds" not in page


def test_a_claim_agrees_with_its_margin():
    with pytest.raises(ValueError, match="its margin is -1"):
        Claim("c", 1, 2, True, margin=-1)
    (only,) = without_verdict([Claim("c", 1, 2, True, "n", margin=1.0)], "why")
    assert (only.holds, only.note, only.margin) == (None, "n; why", 1.0)
    control = Claim("c", 1, 2, None, "n")
    assert without_verdict([control], "why") == [control]
    assert without_verdict([only], "why", when=False) == [only]


# ---- the study of margins ------------------------------------------------------------------------


def test_a_verdict_is_kept_if_its_margin_is_three_times_its_spread():
    near, far = [1.0, 2.0, 3.0], [3.0, 4.0, 5.0]  # a standard deviation of 1, means 2 and 4
    for margins_of, kept in ((near, False), (far, True), ([-m for m in far], True)):
        found = margins.summary([[m > 0, m] for m in margins_of])
        assert found["spread"] == pytest.approx(1) and found["kept"] is kept
        assert found["mean"] == pytest.approx(np.mean(margins_of))
        assert found["smallest"] == min(map(abs, margins_of))
    assert margins.summary([[True, 1.0], [False, -0.5], [True, 1.0]])["smallest"] == -0.5


def test_an_exact_claim_must_be_the_same_in_every_run():
    assert margins.summary([[True, None]] * 3)["kept"]
    assert not margins.summary([[True, None], [False, None]])["kept"]
    assert margins.summary([[None, None]] * 3) is None
