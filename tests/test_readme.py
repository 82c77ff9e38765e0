"""The README tells the truth: its ten lines run, its links exist, and its numbers are those of the committed figures."""
import json
import re
from pathlib import Path

import numpy as np
import pytest

from biolearn.backend import Random
from biolearn.reproduce import checkout

ROOT = checkout()
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAPER = ROOT / "figures" / "paper"


def values(name):
    return json.loads((PAPER / f"{name}.json").read_text(encoding="utf-8"))["values"]


def test_the_ten_lines_run():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {"pictures": Random(0).uniform((20, 784))}
    exec(code.replace("epochs=20", "epochs=1").replace("generate(model, 100,", "generate(model, 3,"), names)
    assert names["samples"].shape == (3, 784) and names["filled"].shape == (8, 784) and np.isfinite(names["filled"]).all()
    assert (names["filled"][:, :14 * 28] == names["pictures"][:8, :14 * 28]).all()          # the top half was visible


@pytest.mark.parametrize("link", sorted({t for t in re.findall(r'(?:\]\(|src=")([^)"#]+)', README) if "://" not in t}))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def row(start):
    (line,) = [l for l in README.splitlines() if l.startswith(f"| {start}")]
    return line


def test_the_table_repeats_the_committed_values():
    parzen = {r["name"]: r["mean"] for r in values("table1_parzen")["rows"]}
    assert f"{parzen['GENERATE']:.1f}" in row("Parzen, GENERATE") and f"{parzen['directed model']:.1f}" in row("Parzen, directed")
    for name in ("training digits", "k-means centroids", "PCA reconstructions", "full-covariance Gaussian"): assert f"{parzen[name]:.0f}" in row("Parzen, controls")
    climb = values("fig4_inference")
    assert f"{climb['mean'][0]:.2f} → {climb['mean'][20]:.2f}" in row("log p(x,h) over 20 steps") and f"{100 * climb['share_rising']:.1f} %" in row("single digits that rise")
    fill = values("fig5_inpainting")
    halves = {name: np.mean([e[m][0] for m in ("left", "right", "top", "bottom")]) for name, e in fill.items()}
    for name in ("network", "mean digit", "nearest digit", "principal components"): assert f"{halves[name]:.4f}" in row("in-painting")
    claims = {c["name"]: c["measured"] for c in json.loads((PAPER / "fig2_target_propagation.json").read_text(encoding="utf-8"))["claims"]}
    for layer in (1, 2):
        before, after = re.findall(r"([\d.]+)° ±", claims[f"layer {layer}: training turns Eq. 12 towards the gradient"])
        assert f"{float(before):.0f}°" in row("angle of Eq. 12") and f"{float(after):.0f}°" in row("angle of Eq. 12")
