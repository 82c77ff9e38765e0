"""Seeds and ablations: every number of a run against a direct computation, the verdicts against
sums done by hand, and runs that diverge, break, are interrupted or meet another process.
"""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import biolearn.cli.reproduction as reproduction
import biolearn.reproduction.ablations as ablations
import biolearn.reproduction.runs as runs
import biolearn.reproduction.verdicts as verdicts
from biolearn.cli.main import main
from biolearn.core.arrays import Backend
from biolearn.core.data import load_digits
from biolearn.core.files import as_plain
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import exact_gradient
from biolearn.core.learning import DivergenceError, TrainConfig
from biolearn.core.model import encode
from biolearn.evaluation.network import TrainedNetwork, score_network
from biolearn.evaluation.statistics import mean_and_sd, outcome
from biolearn.reproduction.ablations import Extent
from biolearn.reproduction.profiles import PROFILES, Profile
from biolearn.reproduction.runs import run_key, trained_run
from biolearn.reproduction.study import Trial, Work

ROOT = Path(__file__).resolve().parent.parent
TINY = Profile(
    "quick",
    dataset="digits",
    hidden=(12, 6),
    units=("sigmoid", "softplus", "sigmoid"),
    n_samples=60,
    threads=1,
    recipe=TrainConfig(
        epochs=1,
        batch_size=200,
        n_steps=2,
        noise=(0.2, 0.1, "spikes"),
        rate_f=(1e-3, 1e-3),
        rate_g=(1e-2, 1e-2),
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A tiny network, trained for one epoch on the 8x8 digits."
    return trained_run(TINY, seed=3, device="cpu", out=str(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def tiny(monkeypatch):
    "The quick profile is tiny, also for `main`."
    monkeypatch.setitem(PROFILES, "quick", TINY)


# ---- variants ------------------------------------------------------------------------------------

CHANGES = {
    "paper": {},
    "no inference": {"n_steps": 0},
    "alpha 0": {"alpha": 0.0},
    "no noise": {"noise": (0.0, 0.0, 0.0), "noise_end": None},
    "exact gradient": {"direction": "exact"},
    "before inference": {"presynaptic": "feedforward"},
    "sgd": {"optimizer": "sgd", **ablations.SGD_RATES},
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("variant", CHANGES)
def test_a_variant_changes_what_it_says_and_nothing_else(profile, variant):
    before, after = PROFILES[profile].recipe, ablations.variant_profile(profile, variant).recipe
    differ = {
        f.name: getattr(after, f.name)
        for f in fields(TrainConfig)
        if getattr(after, f.name) != getattr(before, f.name)
    }
    assert differ == {k: v for k, v in CHANGES[variant].items() if v != getattr(before, k)}
    assert variant != "no noise" or set(after.at(0.5).noise) == {0.0}
    assert replace(ablations.variant_profile(profile, variant), recipe=before) == PROFILES[profile]


def test_variants_are_complete_and_their_models_have_names_of_their_own():
    assert set(CHANGES) == set(ablations.VARIANTS) == {"paper", *verdicts.QUESTIONS}
    assert len(
        {run_key(ablations.variant_profile("paper", v), 0, Backend()) for v in ablations.VARIANTS}
    ) == len(ablations.VARIANTS)
    with pytest.raises(ValueError, match="no inference"):
        ablations.variant_profile("quick", "no inferences")


def test_inference_of_a_variant_is_what_the_variant_says(run):
    x = run.dataset.test[:5]
    settle = lambda v: infer(run.model, x, ablations.variant_profile(TINY, v).recipe.inference)
    for a, b in zip(settle("no inference"), encode(run.model, x)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    want = infer(run.model, x, Inference(n_steps=2, direction=exact_gradient))[1]
    np.testing.assert_array_equal(settle("exact gradient")[1], want)
    assert np.abs(want - settle("paper")[1]).max() > 1e-3


# ---- what is measured ----------------------------------------------------------------------------


def test_a_run_is_scored_as_its_network_and_with_the_activity_of_training(run):
    network = TrainedNetwork(run.model, run.profile.recipe.inference)
    found = ablations._scores(run, full=False)
    rms = found.pop("rms")
    alone = score_network(network, run.dataset, n_samples=60, rng=run.rng, full=False)
    assert found == alone and TINY.sigma == 0.2
    assert rms["last"] == pytest.approx(run.history[-1]["rms"])
    assert rms["largest"] == np.max([epoch["rms"] for epoch in run.history], axis=0).tolist()


def test_no_target_holds_for_a_broken_model(run):
    (low, high) = run.model.pairs
    W = low.g.W.copy()
    W[0, 0] = np.nan
    broken = replace(low, g=replace(low.g, W=W))
    run = replace(run, model=replace(run.model, pairs=(broken, high)))
    found = ablations._scores(run, full=False)
    json.dumps(found, allow_nan=False)
    rows = [
        verdicts.score_target(t, [_result(**found) | {"rms": found["rms"]}] * 3)
        for t in verdicts.TARGETS
    ]
    assert [row["holds"] for row in rows][2:-1].count(True) == 0


# ---- sums done by hand ---------------------------------------------------------------------------


def _result(  # noqa: PLR0913  # a result has so many numbers
    seed=0,
    variant="paper",
    finite=True,
    level="full",
    dataset="mnist",
    generate=240.0,
    directed=120.0,
    rise=0.02,
    fraction=0.995,
    lead=0.01,
    **more,
):
    "A result as `run_experiments` writes it, with numbers of one's own."
    fill = {"mean": 0.08, "stderr": 0.001, "lead": lead, "lead_stderr": 0.002}
    profile = ablations.variant_profile(replace(PROFILES["paper"], dataset=dataset), variant)
    result = {
        "key": f"k{seed}",
        "variant": variant,
        "seed": seed,
        "profile": "paper",
        "level": level,
        "measurement": ablations.MEASUREMENT,
        "finite": finite,
        "diverged": None if finite else "h_1 exploded: why",
        "settings": as_plain(profile),
        "revision": {"commit": "c" * 40, "dirty": False},
    }
    if finite:
        result["seconds"] = dict(training=10.0 + seed, measuring=1.0)
    if finite and level != "finite":
        result |= {
            "rounds": {
                "0": dict(mean=directed, stderr=1.0, variety=0.7),
                "3": dict(mean=generate, stderr=1.0, variety=0.4),
            },
            "otherwise": {"α = 0": dict(mean=generate - 5, stderr=1.0, variety=0.5)},
            "climb": dict(
                mean=[0.0] * 21, stderr=[0.1] * 21, smallest_rise=rise, share_rising=fraction
            ),
            "inpainting": {
                kind: {
                    "network": dict(mean=0.06, stderr=0.001),
                    **dict.fromkeys(verdicts.FILLS, fill),
                }
                for kind in ("halves", "random")
            },
            "classes": {"accuracy": 0.95, "GENERATE": {"histogram": [1] * 10, "entropy": 0.98}},
            "rms": {"last": [0.3, 0.6, 0.6], "largest": [0.3, 0.9, 0.6]},
        }
    return json.loads(json.dumps(result | more))


@pytest.fixture
def folder(tmp_path):
    "A folder of results; call it with results to fill it."

    def fill(*results):
        for r in results:
            (tmp_path / "experiments" / Trial(r["variant"], None, r["seed"]).file_name).write_text(
                json.dumps(r)
            )
        return tmp_path / "experiments"

    (tmp_path / "experiments").mkdir()
    return fill


def row(summary, start):
    (found,) = [r for r in summary["targets"] if r["name"].startswith(start)]
    return found


def test_mean_sd_and_verdicts_by_hand(folder):
    summary = verdicts.summarise(
        folder(
            *(
                _result(s, generate=g, directed=d)
                for s, g, d in ((0, 235.0, 130.0), (1, 236.0, 126.0), (2, 240.0, 119.0))
            )
        )
    )
    first = row(summary, "GENERATE, Parzen")
    assert (
        first["per_seed"] == {"0": 235.0, "1": 236.0, "2": 240.0}
        and first["mean"] == 237.0
        and first["n"] == 3
        and first["sd"] == pytest.approx(7**0.5)
        and first["holds"] is True
    )
    assert row(summary, "directed")["mean"] == 125.0 and row(summary, "directed")["holds"] is False
    assert (
        row(summary, "GENERATE above")["mean"] == 112.0
        and row(summary, "GENERATE above")["holds"] is True
        and row(summary, "the gap")["holds"] is True
    )
    assert (
        row(summary, "mean log p")["holds"] is True
        and row(summary, "share of single")["holds"] is True
    )
    beaten = [r for r in summary["targets"] if r["name"].startswith("in-painting")]
    assert len(beaten) == 6 and all(
        r["holds"] is True and r["mean"] == pytest.approx(0.75) for r in beaten
    )
    assert (
        row(summary, "training stays")["holds"] is None
        and "3 of at least 20" in row(summary, "training stays")["note"]
    )
    assert (
        summary["seconds"]["training"]["mean"] == 11.0
        and summary["otherwise"]["α = 0"]["mean"] == 232.0
        and summary["rounds"]["0"]["variety"]["mean"] == pytest.approx(0.7)
    )
    assert summary["commits"] == ["c" * 12] and summary["left_out"] == []


@pytest.mark.parametrize(
    "start, spoiled",
    [
        ("mean log p", dict(rise=-1e-9)),
        ("GENERATE above", dict(generate=119.0)),
        ("in-painting, random: error over that of the nearest", dict(lead=0.0039)),
    ],
)
def test_what_must_hold_for_every_seed_fails_by_one(folder, start, spoiled):
    summary = verdicts.summarise(folder(_result(0), _result(1, **spoiled), _result(2)))
    assert row(summary, start)["holds"] is False and row(summary, start)["note"] == "not for seed 1"


def test_too_few_seeds_are_not_judged_and_other_data_neither(folder):
    summary = verdicts.summarise(folder(_result(0), _result(1)))
    assert (
        row(summary, "GENERATE, Parzen")["holds"] is None
        and "2 of at least 3" in row(summary, "GENERATE, Parzen")["note"]
    )
    summary = verdicts.summarise(folder(*(_result(s, dataset="digits") for s in range(3))))
    assert (
        row(summary, "GENERATE, Parzen")["holds"] is None
        and row(summary, "share of")["holds"] is True
    )


def test_twenty_finite_seeds_count_and_one_that_is_not_spoils_them(folder):
    seeds = [_result(s, level="full" if s < 5 else "finite") for s in range(20)]
    summary = verdicts.summarise(folder(*seeds))
    stays = row(summary, "training stays")
    assert (
        stays["holds"] is True and stays["n"] == 20 and row(summary, "GENERATE, Parzen")["n"] == 5
    )
    summary = verdicts.summarise(folder(_result(7, level="finite", finite=False)))
    stays = row(summary, "training stays")
    assert (
        stays["holds"] is False
        and stays["mean"] == 0.95
        and stays["note"] == "not for seed 7"
        and row(summary, "GENERATE, Parzen")["holds"] is True
    )
    summary = verdicts.summarise(folder(_result(1, finite=False)))
    assert (
        row(summary, "GENERATE, Parzen")["holds"] is False
        and row(summary, "GENERATE, Parzen")["note"] == "no number for seed 1"
        and row(summary, "GENERATE, Parzen")["n"] == 4
    )
    assert summary["variants"]["paper"]["diverged"] == [1, 7]


def test_results_of_other_settings_or_other_rules_are_left_out_by_name(folder):
    other = _result(1)
    other["settings"]["recipe"]["alpha"] = 0.5
    place = folder(_result(0), other, _result(2, measurement=ablations.MEASUREMENT - 1), _result(3))
    (place / "paper-seed4.json").write_text('{"half')
    (place / "paper-seed5.json").write_text("[]")
    with pytest.raises(ValueError, match="different settings"):
        verdicts.summarise(place)
    summary = verdicts.summarise(place, "paper")
    assert summary["variants"]["paper"]["seeds"] == [0, 3]
    assert summary["left_out"] == [
        "paper-seed1.json: made with other settings",
        "paper-seed2.json: measured by older rules",
        "paper-seed4.json: not a result",
        "paper-seed5.json: not a result",
    ]
    assert "left out: paper-seed1.json" in verdicts.coverage(summary)


def test_a_result_older_than_a_field_of_the_profile_counts_where_the_field_has_its_default(folder):
    older, newer = _result(0), _result(1)
    for field in ("components", "rounds"):
        del older["settings"][field]
    place = folder(older, newer)
    assert (
        verdicts.summarise(place, "paper")["variants"]["paper"]["seeds"]
        == verdicts.summarise(place)["variants"]["paper"]["seeds"]
        == [0, 1]
    )
    assert verdicts.read_results(place, replace(PROFILES["paper"], components=5))[1] == [
        "paper-seed0.json: made with other settings",
        "paper-seed1.json: made with other settings",
    ]


def test_no_result_is_an_error_that_names_the_command(folder):
    with pytest.raises(
        FileNotFoundError, match="biolearn experiments --profile paper --variants paper --seeds 0-4"
    ):
        verdicts.summarise(folder(_result(0, variant="sgd")))
    with pytest.raises(FileNotFoundError, match="--profile quick"):
        verdicts.summarise(folder(), "quick")


def test_outcome_needs_three_standard_errors():
    base = mean_and_sd({0: 9.0, 1: 11.0})  # mean 10, sd √2, squared standard error 1
    error = (2 / 2 + 2 / 2) ** 0.5
    for apart, want in ((2.9, "same"), (3.1, "better"), (-3.1, "worse")):
        there = mean_and_sd({s: v + apart * error for s, v in ((0, 9.0), (1, 11.0))})
        assert outcome(there, base) == want and outcome(there, base, -1) == {
            "better": "worse",
            "worse": "better",
        }.get(want, want)
    assert (
        outcome(mean_and_sd({0: 5.0}), base) is None
        and outcome(base, mean_and_sd({0: None, 1: 5.0})) is None
    )


@pytest.mark.parametrize(
    "variant, score, word",
    [
        ("no inference", 100.0, "supported"),
        ("no inference", 240.5, "not supported"),
        ("no inference", 300.0, "contradicted"),
        ("exact gradient", 100.0, "supported"),
        ("exact gradient", 240.5, "supported"),
        ("exact gradient", 300.0, "contradicted"),
        ("sgd", 100.0, "contradicted"),
        ("sgd", 240.5, "supported"),
        ("sgd", 300.0, "supported"),
    ],
)
def test_the_sentence_follows_the_numbers(folder, variant, score, word):
    summary = verdicts.summarise(
        folder(
            *(_result(s, generate=240.0 + s) for s in range(3)),
            *(_result(s, variant=variant, generate=score + s) for s in range(3)),
        )
    )
    said = summary["variants"][variant]["sentence"]
    assert (
        f": {word}" in said
        and said.startswith(verdicts.QUESTIONS[variant].claim)
        and f"{score + 1:.1f} against 241.0" in said
        and said.endswith(".")
    )


def test_sentences_without_a_verdict(folder):
    say = lambda *results: verdicts.summarise(folder(*results))["variants"]
    assert say(_result(0))["sgd"]["sentence"].endswith(": not run.")
    assert (
        "not decided by so few seeds (1 and 1 measured)"
        in say(_result(0), _result(0, variant="sgd"))["sgd"]["sentence"]
    )
    gone = say(
        _result(0),
        _result(1),
        *(_result(s, variant="no noise", finite=False) for s in range(3)),
        *(_result(s, variant="exact gradient", finite=False) for s in range(2)),
    )
    assert (
        ": supported; training diverges for 3 of 3 seeds." in gone["no noise"]["sentence"]
        and "not decided" in gone["exact gradient"]["sentence"]
    )
    some = say(*(_result(s, variant="alpha 0", finite=s > 0) for s in range(3)))["alpha 0"]
    assert (
        some["diverged"] == [0]
        and some["sentence"].endswith(" 1 of 3 seeds diverged.")
        and "not supported" in some["sentence"]
    )


def test_claims_and_texts(folder):
    summary = verdicts.summarise(folder(*(_result(s) for s in range(3))))
    first = verdicts.claims(summary)[0]
    assert (first.paper, first.measured, first.holds) == (236, "240 ± 0 (3 seeds)", True)
    assert (
        "yes GENERATE, Parzen log-likelihood (nats): 240 ± 0 (3 seeds)  [paper: 236]"
        in verdicts.targets_text(summary)
    )
    assert "paper: seeds 0, 1, 2\nno inference: seeds none" in verdicts.coverage(summary)


# ---- runs ----------------------------------------------------------------------------------------


HERE = Work(workers=1, threads=None, progress=False)


def experiment(out, variant="paper", seed=0, profile=TINY, full=False, **more):
    "One run in this process, measured at its shorter level."
    extent = Extent(full_seeds=[seed] if full else (), **more)
    (result,) = ablations.run_experiments(
        profile, [variant], [seed], device="cpu", out=out, extent=extent, work=HERE
    )
    return result


def test_a_run_is_written_and_not_repeated(tmp_path, monkeypatch):
    made = experiment(tmp_path)
    path = tmp_path / "experiments" / "paper-seed0.json"
    assert (
        json.loads(path.read_text()) == json.loads(json.dumps(made))
        and made["finite"]
        and made["level"] == "most"
        and made["seconds"]["training"] > 0
    )
    assert (
        made["peak_memory_mib"] > 10
        and made["settings"]["recipe"]["n_steps"] == 2
        and (tmp_path / "runs" / made["key"] / "model.safetensors").is_file()
    )
    monkeypatch.setattr(ablations, "_train_and_measure", lambda *a, **k: pytest.fail("repeated"))
    assert (
        experiment(tmp_path)
        == json.loads(path.read_text())
        == experiment(tmp_path, only_finite=True)
    )
    for changed in (
        dict(seed=1),
        dict(full=True),
        dict(variant="no noise"),
        dict(profile=replace(TINY, n_samples=61)),
    ):
        with pytest.raises(pytest.fail.Exception, match="repeated"):
            experiment(tmp_path, **changed)
    monkeypatch.setattr(ablations, "MEASUREMENT", ablations.MEASUREMENT + 1)
    with pytest.raises(pytest.fail.Exception, match="repeated"):
        experiment(tmp_path)


def test_a_long_chain_is_for_the_papers_recipe_and_the_seeds_that_are_named():
    extent, runs_of = Extent(full_seeds=(0, 2)), lambda variant: [(variant, s) for s in range(3)]
    asked = [*runs_of("paper"), *runs_of("no noise")]
    full = [run for run in asked if extent.level(*run) == "full"]
    assert full == [("paper", 0), ("paper", 2)]
    short = replace(extent, only_finite=True)
    assert {short.level(*run) for run in asked} == {"finite"}


def test_more_can_be_measured_later_without_training_again(tmp_path, monkeypatch):
    first = experiment(tmp_path, only_finite=True)
    assert first["level"] == "finite" and "rounds" not in first and first["finite"]

    monkeypatch.setattr(runs, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert (
        "10" in experiment(tmp_path)["rounds"]
        and "100" in experiment(tmp_path, full=True)["rounds"]
    )


def test_the_numbers_do_not_depend_on_the_order(tmp_path):
    a = [experiment(tmp_path / "a", seed=s) for s in (0, 1)]
    b = [experiment(tmp_path / "b", seed=s) for s in (1, 0)][::-1]
    drop = lambda r: {k: v for k, v in r.items() if k not in ("seconds", "peak_memory_mib", "made")}
    assert [drop(r) for r in a] == [drop(r) for r in b] and a[0]["rounds"] != a[1]["rounds"]


def test_models_can_be_dropped_but_not_that_of_seed_0(tmp_path):
    kept, dropped = (
        experiment(tmp_path, keep_models=False),
        experiment(tmp_path, seed=1, keep_models=False),
    )
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [kept["key"]] and dropped["finite"]


def test_a_diverging_run_says_so_and_is_not_repeated(tmp_path, monkeypatch):
    wild = replace(
        TINY,
        recipe=replace(
            TINY.recipe,
            epochs=30,
            batch_size=20,
            noise=(0.0, 0.0, 0.0),
            rate_f=(1e-2, 1e-2),
            n_steps=15,
            delta=5.0,
        ),
    )
    result = experiment(tmp_path, profile=wild)
    assert (
        result["finite"] is False
        and "h_" in result["diverged"]
        and "rounds" not in result
        and result["level"] == "most"
    )
    unfinished = lambda: list((tmp_path / "runs").glob("*seed1*.unfinished"))
    assert not experiment(tmp_path, profile=wild, seed=1)["finite"] and unfinished()
    (tmp_path / "experiments" / "paper-seed1.json").unlink()
    assert (
        not experiment(tmp_path, profile=wild, seed=1, keep_models=False)["finite"]
        and not unfinished()
    )
    monkeypatch.setattr(ablations, "_train_and_measure", lambda *a, **k: pytest.fail("repeated"))
    assert experiment(tmp_path, profile=wild, full=True) == result
    assert "DIVERGED, layer h_" in reproduction.result_line(
        result
    ) and "\n" not in reproduction.result_line(result)


def command(out, *argv):
    asked = ["--profile", "quick", "--device", "cpu", "--out", str(out), "--full-seeds", "9"]
    return main(["experiments", *asked, "--workers", "1", *argv])


def test_the_command_runs_the_list_and_writes_the_results(tiny, tmp_path, capsys):
    assert command(tmp_path, "--variants", "paper,no-inference", "--seeds", "0-2") == 0
    printed = capsys.readouterr().out
    assert (
        printed.count("finite; GENERATE") == 6
        and "[6/6] no inference seed 2" in printed
        and "training stays finite" in printed
    )
    summary = json.loads((tmp_path / "experiments" / "results.json").read_text())
    assert summary["variants"]["no inference"]["seeds"] == [0, 1, 2] and set(
        summary["controls"]
    ) == {"training digits", "k-means centroids", "PCA reconstructions", "full-covariance Gaussian"}
    digits = load_digits()
    assert summary["controls"]["training digits"]["n"] == 60 and summary["quoted"] == {
        "contractive auto-encoder": 121,
        "deep GSN": 214,
        "GAN": 225,
    }
    assert {p.name for p in (tmp_path / "experiments").iterdir()} == {
        "results.json",
        "controls.json",
        "table.csv",
        *(f"{v}-seed{s}.json" for v in ("paper", "no-inference") for s in range(3)),
    }
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "experiments").glob("*seed*")}
    assert (
        command(tmp_path, "--only-results") == 0
        and {p: p.stat().st_mtime_ns for p in before} == before
    )
    assert len(digits.test) == 300


def test_a_diverged_and_a_broken_run_do_not_stop_the_others(tiny, tmp_path, monkeypatch, capsys):
    real = ablations.trained_run

    def trained_run(profile, *, seed, **more):
        if seed == 0:
            raise DivergenceError("layer h_1 exploded: here is why")
        if seed == 1:
            raise ValueError("the file of the model is broken")
        return real(profile, seed=seed, **more)

    monkeypatch.setattr(ablations, "trained_run", trained_run)
    assert command(tmp_path, "--seeds", "0-2") == 1
    printed = capsys.readouterr().out
    assert (
        "[1/3] paper seed 0: DIVERGED, layer h_1 exploded" in printed
        and "[2/3] paper seed 1: FAILED, ValueError: the file of the model is broken" in printed
        and "[3/3] paper seed 2: finite" in printed
    )
    assert sorted(p.name for p in (tmp_path / "experiments").glob("*seed*")) == [
        "paper-seed0.json",
        "paper-seed2.json",
    ]
    summary = json.loads((tmp_path / "experiments" / "results.json").read_text())
    assert (
        summary["variants"]["paper"]["diverged"] == [0]
        and row(summary, "training stays")["holds"] is False
    )


def test_a_write_that_fails_is_told_and_leaves_the_old_file(tmp_path, monkeypatch):
    first = experiment(tmp_path, only_finite=True)
    monkeypatch.setattr(
        Path,
        "write_text",
        lambda self, text, **k: (
            self.write_bytes(text[:20].encode()),
            (_ for _ in ()).throw(OSError("no space left")),
        )[0],
    )
    assert "no space left" in experiment(tmp_path)["error"]
    assert {p.name for p in (tmp_path / "experiments").iterdir()} == {
        "paper-seed0.json",
        "table.csv",
    }
    assert json.loads((tmp_path / "experiments" / "paper-seed0.json").read_bytes()) == first


def test_results_stored_before_there_were_studies_are_read():
    stored = ROOT / "figures" / "paper" / "experiments"
    results, left_out = verdicts.read_results(stored, "paper")
    assert len(results) == 38 and not left_out
    summary = verdicts.summarise(stored, "paper")
    there = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))
    same = lambda summary: {k: v for k, v in summary.items() if k != "recipe"}
    assert same(json.loads(json.dumps(summary))) == same(there)


CODE = (
    "import sys\nfrom dataclasses import replace\nimport biolearn.reproduction.runs "
    "as R\nfrom biolearn.core.learning import TrainConfig\nfrom "
    "biolearn.reproduction.profiles import PROFILES, Profile\n"
    "fit = R.fit\ndef told(*args, **more):\n    print('training', flush=True)\n    "
    "return fit(*args, **more)\nR.fit = told\n"
    "PROFILES['quick'] = {tiny}\nfrom biolearn.cli.main import "
    "main\nsys.exit(main(['experiments', *sys.argv[1:]]))"
)


def process(out, *argv, tiny=TINY):
    "The command in a process of its own, with the tiny profile."
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            CODE.format(tiny=tiny),
            "--device",
            "cpu",
            "--out",
            str(out),
            "--full-seeds",
            "9",
            *argv,
        ],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_share_the_work_and_even_the_same_run(tmp_path):
    both = [process(tmp_path, "--seeds", seeds) for seeds in ("0-1", "2,1")]
    told = [p.communicate(timeout=300) for p in both]
    assert [p.returncode for p in both] == [0, 0], told
    assert sorted(p.name for p in (tmp_path / "experiments").iterdir()) == [
        "controls.json",
        *(f"paper-seed{s}.json" for s in range(3)),
        "results.json",
        "table.csv",
    ]
    assert (
        main(["experiments", "--profile", "quick", "--out", str(tmp_path), "--only-results"]) == 1
    )  # today's quick profile is another one
    summary = verdicts.summarise(tmp_path / "experiments")
    assert (
        summary["variants"]["paper"]["seeds"] == [0, 1, 2]
        and len(list((tmp_path / "runs").iterdir())) == 3
    )
    alone = experiment(tmp_path / "alone", seed=1)
    there = ablations.read_result(
        tmp_path / "experiments" / "paper-seed1.json"
    )  # made with one thread, here perhaps with more: round-off
    for rounds, found in alone["rounds"].items():
        assert found["mean"] == pytest.approx(there["rounds"][rounds]["mean"], rel=1e-5)


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child there")
def test_ctrl_c_leaves_nothing_half_written_and_the_command_goes_on(tmp_path):
    long = replace(TINY, recipe=replace(TINY.recipe, epochs=3000))
    child = process(tmp_path, "--seeds", "0", tiny=long)
    assert "training" in child.stdout.readline()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "interrupted" in err and "Traceback" not in err, err
    left = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert all(
        re.fullmatch(
            r"runs/[\w-]+(\.lock|\.unfinished/checkpoints/(lock|epoch-\d+\.safetensors))", name
        )
        for name in left
    ), left  # to go on from, nothing else
    again = process(tmp_path, "--seeds", "0")
    assert again.communicate(timeout=120) and again.returncode == 0


def test_lists_on_the_command_line(capsys):
    assert (
        reproduction.seed_list("0-2,7,1") == [0, 1, 2, 7]
        and reproduction.variant_list("no-inference,sgd") == ["no inference", "sgd"]
        and reproduction.variant_list("all") == list(ablations.VARIANTS)
    )
    for argv in (
        ["--seeds", "4-1"],
        ["--seeds", "a"],
        ["--seeds", "-1"],
        ["--variants", "adam"],
        ["--profile", "big"],
        ["--device", "tpu"],
    ):
        with pytest.raises(SystemExit) as e:
            main(["experiments", *argv])
        assert e.value.code == 2
    assert "there is no variant 'adam'; there are paper, no-inference" in capsys.readouterr().err


def test_where_the_results_go(monkeypatch, tmp_path):

    monkeypatch.setattr(runs, "checkout", lambda: tmp_path)
    assert verdicts.results_path("paper") == tmp_path / "figures" / "results.json"
    assert (
        verdicts.results_path("quick")
        == tmp_path / "figures" / "quick" / "experiments" / "results.json"
    )
    assert (
        verdicts.results_path("paper", str(tmp_path / "x"))
        == tmp_path / "x" / "experiments" / "results.json"
    )


def test_the_module_is_a_program(tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from biolearn.cli.main import main; main()",
            "experiments",
            "--help",
        ],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "--only-finite" in done.stdout and "Warning" not in done.stderr
