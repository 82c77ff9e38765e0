"""How far each verdict of the figure notebooks is from turning over, and how much that distance
varies for reasons that have nothing to do with the claim: figures/margins.json.

    python -m experiments.margins                        ten seeds at the quick profile, 40 runs
    python -m experiments.margins --seeds 0-1            as a trial
    python -m experiments.margins --profile shipped      of another profile, beside the first

The notebooks are run, in processes of their own, with every seed, both of KERNELS, and one and two
threads. A run that is there is not made again: delete its file (studies/margins beside the table)
when the notebooks have changed; the trained networks beside it are kept.

THE RULE: a verdict is one if the mean of its margin over all runs is at least RATIO times the
standard deviation. Else a round-off may decide, and the notebook gives no verdict at that profile.
A claim without a margin is exact: it must come out the same in every run.
"""

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from biolearn.core.files import UsageError
from biolearn.reproduction.report import all_claims, read_manifest
from biolearn.reproduction.study import Work, study
from experiments import PAPER, origin, read_table, save, some

OUT = PAPER.parent / "margins.json"
NOTEBOOKS = ("00_train", "fig1", "fig2", "fig3", "fig4", "fig5", "table1")
KERNELS, THREADS, RATIO = ("Haswell", "SkylakeX"), (1, 2), 3.0
WHICH_KERNEL = (
    "import numpy, threadpoolctl\n"
    "print(*{p['architecture'] for p in threadpoolctl.threadpool_info() if 'architecture' in p})"
)


def python(env, *arguments):
    "What a Python process with the variables `env` prints; RuntimeError if it fails."
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | env, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-2000:])
    return done.stdout.strip()


def measured(trial, folder):
    "The verdict and the margin of every claim of one run: {picture: {claim: [holds, margin]}}."
    asked, out = trial.settings, folder / f"{trial.name}-seed{trial.seed}"
    env = {"OPENBLAS_CORETYPE": asked["kernel"], "OPENBLAS_NUM_THREADS": str(asked["threads"])}
    if (used := python(env, "-c", WHICH_KERNEL)) != asked["kernel"]:
        raise RuntimeError(f"this machine uses the kernels {used}, not {asked['kernel']}.")
    command = ["reproduce", "--profile", asked["profile"], "--device", "cpu"]
    command += ["--seed", str(trial.seed), "--out", str(out), "--only", *asked["notebooks"]]
    python(env, "-m", "biolearn", *command)
    claims = {}
    for picture, claim in all_claims(read_manifest(out)):
        claims.setdefault(picture, {})[claim.name] = [claim.holds, claim.margin]
    return {"claims": claims}


def summary(outcomes):
    """What the [holds, margin] of one claim in all runs come to; None for a row that is only
    reported.
    """
    verdicts, margins = zip(*outcomes)
    if all(margin is None for margin in margins):
        exact = set(verdicts) - {None}
        return {"exact": True, "kept": len(exact) == 1, "runs": len(margins)} if exact else None
    margins = np.array([margin for margin in margins if margin is not None])
    mean, spread = float(margins.mean()), float(margins.std(ddof=1)) if len(margins) > 1 else 0.0
    ratio = abs(mean) / spread if spread else None
    return {
        "mean": mean,
        "spread": spread,
        "smallest": float(np.min(margins * np.sign(mean))),  # negative: some run says the contrary
        "ratio": ratio,
        "kept": ratio is None or ratio >= RATIO,
        "runs": len(margins),
    }


def table_of(records):
    "{picture: {claim: summary}} of all runs that did not fail."
    outcomes = {}
    for record in records:
        for picture, claims in record["claims"].items():
            for name, outcome in claims.items():
                outcomes.setdefault(picture, {}).setdefault(name, []).append(outcome)
    found = {
        picture: {name: summary(each) for name, each in claims.items()}
        for picture, claims in outcomes.items()
    }
    return {
        picture: {name: each for name, each in claims.items() if each}
        for picture, claims in found.items()
    }


def lines(table):
    "The table as lines of text."
    yield f"{'mean':>10} {'spread':>10} {'smallest':>10} {'ratio':>7}  verdict  claim"
    for picture, claims in table.items():
        yield picture
        for name, each in claims.items():
            numbers = f"{'exact':>40}"
            if "exact" not in each:
                shown = "–" if each["ratio"] is None else f"{each['ratio']:.1f}"
                numbers = " ".join(f"{each[key]:10.4g}" for key in ("mean", "spread", "smallest"))
                numbers += f" {shown:>7}"
            yield f"{numbers}  {'kept' if each['kept'] else 'none':7}  {name}"


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m experiments.margins",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--profile", default="quick", help="of the figures (default: %(default)s)")
    option("--only", nargs="+", default=NOTEBOOKS, metavar="NAME", help="the notebooks to run")
    option("--seeds", type=some, default="0-9", metavar="0-9", help="seeds and ranges of seeds")
    option("--out", type=Path, default=OUT, metavar="FILE", help="the table (figures/margins.json)")
    option("--workers", type=int, default=2, metavar="N", help="how many at a time (default: 2)")
    asked = parser.parse_args(argv)
    folder = asked.out.resolve().parent / "studies" / "margins" / asked.profile
    settings = {
        f"{kernel}, threads {threads}": {
            "profile": asked.profile,
            "kernel": kernel,
            "threads": threads,
            "notebooks": list(asked.only),
        }
        for threads in THREADS
        for kernel in KERNELS
    }
    work = Work(asked.workers, None, tell=lambda r: f"{r['name']} seed {r['seed']}", table="")
    records = study(
        settings, asked.seeds, partial(measured, folder=folder / "runs"), folder, work=work
    )
    done = [record for record in records if "error" not in record]
    if not done:
        raise UsageError("not one run has succeeded.")
    table = table_of(done)
    about = {"runs": len(done), "seeds": asked.seeds, "settings": list(settings), "ratio": RATIO}
    save(read_table(asked.out) | {asked.profile: about | {"claims": table} | origin()}, asked.out)
    print("\n".join(lines(table)))
    return int(len(done) < len(records))


if __name__ == "__main__":
    sys.exit(main())
