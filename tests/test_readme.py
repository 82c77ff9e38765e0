"""The README and the pages that it leads to tell the truth: their code runs, their links exist, and
their numbers are those of the committed figures.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import biolearn
from biolearn.core.rng import Random

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def text_of(page):
    "All that a page of text says."
    cells = json.loads((ROOT / "nbs" / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


START, RESULTS = text_of("start"), text_of("results")
PAPER = ROOT / "figures" / "paper"


def values(name):
    return json.loads((PAPER / f"{name}.json").read_text(encoding="utf-8"))["values"]


def run(code, pictures):
    "What the names stand for after a piece of code of the README has run, with one epoch."
    short = code.replace("epochs=20", "epochs=1")
    for name in ("model", "network"):
        short = short.replace(f"generate({name}, 100)", f"generate({name}, 3)")
    assert short != code
    names = {"pictures": pictures}
    exec(short, names)
    return names


def test_the_code_is_short_and_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = np.asarray(Random(0).uniform((20, 784)), dtype=np.float32)
    shipped, three, eight = re.findall(r"```python\n(.*?)```", README + START, re.S)
    assert len(lines(shipped)) == len(lines(three)) == 3 and len(lines(eight)) <= 8
    assert run(shipped, pictures)["samples"].shape == (3, 784)
    assert run(three, pictures)["samples"].shape == (100, 784)
    names = run(eight, pictures)
    assert names["samples"].shape == (3, 784) and names["completed"].shape == (8, 784)
    assert np.isfinite(names["completed"]).all()
    top = np.s_[:, : 14 * 28]  # the half that was visible
    assert (names["completed"][top] == pictures[:8][top]).all()
    loaded = biolearn.load_model("digits.safetensors")
    assert loaded.sizes == names["model"].sizes


def lines(code):
    return [line for line in code.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "link", sorted({t for t in re.findall(r'(?:\]\(|src=")([^)"#]+)', README) if "://" not in t})
)
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def row(start):
    (line,) = [line for line in RESULTS.splitlines() if line.startswith(f"| {start}")]
    return line


def test_the_table_repeats_the_committed_values():
    results = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))

    def target(start):
        (found,) = [t for t in results["targets"] if t["name"].startswith(start)]
        return found

    for start, name, scale in (
        ("Parzen, GENERATE", "GENERATE, Parzen", 1),
        ("Parzen, directed", "directed sampling", 1),
        ("between the two", "the gap", 1),
        ("single digits that rise", "share of single", 100),
    ):
        found = target(name)
        assert f"{scale * found['mean']:.1f} ± {scale * found['sd']:.1f}" in row(start) and row(
            start
        ).endswith(f"| {'yes' if found['holds'] else 'no'} |")
    stays = target("training stays finite")
    assert (
        f"{sum(v == 1 for v in stays['per_seed'].values())} of {stays['n']} seeds"
        in row("training stays finite")
        and stays["holds"]
    )
    for name in (
        "training digits",
        "k-means centroids",
        "PCA reconstructions",
        "full-covariance Gaussian",
    ):
        assert f"{results['controls'][name]['mean']:.0f}" in row("Parzen, controls")
    climb = values("fig4_inference")
    assert (
        f"{climb['mean'][0]:.2f} → {climb['mean'][20]:.2f}".replace("-", "−")
        in row("log p(x,h) over 20 steps")
        and target("mean log p(x,h) rises")["holds"]
    )
    for kind, start in (("halves", "in-painting of halves"), ("random", "in-painting of random")):
        for fill in ("mean digit", "nearest digit", "principal components"):
            assert (
                f"{fill} {target(f'in-painting, {kind}: error over that of the {fill}')['mean']:.2f}"
                in row(start)
            )
    claims = {
        c["name"]: c["measured"]
        for c in json.loads((PAPER / "fig2_target_propagation.json").read_text(encoding="utf-8"))[
            "claims"
        ]
    }
    for layer in (1, 2):
        before, after = re.findall(
            r"([\d.]+)° ±", claims[f"layer {layer}: training turns Eq. 12 towards the gradient"]
        )
        assert f"{float(before):.0f}°" in row("angle of Eq. 12") and f"{float(after):.0f}°" in row(
            "angle of Eq. 12"
        )


def test_the_table_of_parts_repeats_the_committed_values():
    variants = json.loads((ROOT / "figures" / "results.json").read_text())["variants"]
    for start, name in (
        ("none", "paper"),
        ("no inference", "no inference"),
        ("no pull from", "alpha 0"),
        ("gradient descent", "sgd"),
    ):
        found = variants[name]["metrics"]["GENERATE (nats)"]
        stated = f"{found['mean']:.1f} ± {found['sd']:.1f}".replace("-", "−")
        assert f"| {stated} |" in row(start)
    assert variants["no noise"]["diverged"] == [0, 1, 2] and "all three" in row("no noise")
    exact = variants["exact gradient"]
    assert len(exact["diverged"]) == 2 and "two of three" in row("exact gradient")
    assert f"| {exact['metrics']['GENERATE (nats)']['mean']:.0f} (one run)" in row("exact gradient")


def test_the_table_of_peers_repeats_the_committed_values():
    found, lines = (
        values("table3_yardstick"),
        RESULTS[RESULTS.index("| model | seeds |") :].split("\n\n")[0].splitlines()[2:],
    )
    mean = lambda model, key, form: (
        form.format(found[model][key]["mean"]) if key in found[model] else "–"
    )
    wanted = sorted(
        " | ".join(
            (
                str(found[m]["Parzen"]["n"]),
                mean(m, "Parzen", "{:.0f}"),
                mean(m, "log p(x)", "{:.0f}"),
                mean(m, "Fréchet", "{:.1f}"),
                mean(m, "two-sample", "{:.3f}"),
                mean(m, "halves", "{:.3f}"),
            )
        )
        for m in found
    )
    assert sorted(line.strip("| ").split(" | ", 1)[1] for line in lines) == wanted and len(
        lines
    ) == len(found)


def test_the_table_of_those_asked_less_repeats_the_committed_values():
    stored = lambda name: json.loads((ROOT / "figures" / "paper" / name).read_text())["summary"]
    lines = RESULTS[RESULTS.index("| asked less | seeds |") :].split("\n\n")[0].splitlines()[2:]
    models = [*(stored("denoisers.json")[way] for way in ("learnt", "exact")), stored("mcpc.json")]
    forms = {"Parzen": "{:.0f}", "Fréchet": "{:.2f}", "precision": "{:.2f}", "recall": "{:.2f}"}
    forms |= {"two-sample": "{:.3f}", "halves": "{:.3f}"}
    for line, found in zip(lines, models, strict=True):
        numbers = [
            form.format(found[key]["mean"]) if key in found else "–" for key, form in forms.items()
        ]
        assert line.strip("| ").split(" | ")[1:] == [str(found["Parzen"]["n"]), *numbers]
