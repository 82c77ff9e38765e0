"""Does training with the products of inference in bfloat16 give the same networks
(nbs/70_mixed_precision.ipynb)? The paper's profile with `precision="mixed"`, seed by seed, measured
as figures/results.json was: figures/paper/precision.json.

    python -m experiments.precision                       five seeds; needs the extra `mixed`
    python -m experiments.precision --seeds 0 --out FILE  a trial

A seed that was measured is not trained again, and a training that was killed goes on from its
checkpoint (in studies/precision beside the table).

THE RULE, fixed before any network was trained: mixed precision changes nothing if for each of JUDGED
`statistics.outcome` says "same": the means of five seeds lie within three standard errors of their
difference. The other measures are shown.
"""

import sys

from biolearn.evaluation.statistics import mean_and_sd, outcome
from biolearn.reproduction.ablations import VARIANTS, Variant, run_experiments
from biolearn.reproduction.study import Work
from biolearn.reproduction.verdicts import METRICS
from experiments import PAPER, command_line, origin, read_table, save

JUDGED = ("GENERATE (nats)", "digits that rise", "in-painting halves", "in-painting random")
VARIANT = {
    "mixed": Variant(lambda recipe: {"precision": "mixed"}, "Inference multiplies in bfloat16.")
}


def compared(results, reference):
    """{measure: both `mean_and_sd` and the outcome} of the results with mixed precision and of the
    stored ones in float32.
    """
    table = {}
    for name, (value, better, _) in METRICS.items():
        ours = mean_and_sd({result["seed"]: value(result) for result in results})
        theirs = reference["variants"]["paper"]["metrics"][name]
        table[name] = {"mixed": ours, "float32": theirs, "outcome": outcome(ours, theirs, better)}
    return table


def main(argv=None):
    out = PAPER / "precision.json"
    parser = command_line("precision", __doc__, out, seeds="0-4")
    parser.add_argument("--profile", default="paper", help="of the training (default: paper)")
    asked = parser.parse_args(argv)
    VARIANTS.update(VARIANT)
    results = run_experiments(
        asked.profile,
        list(VARIANT),
        asked.seeds,
        device="cpu",
        out=asked.out.parent / "studies" / "precision",
        work=Work(asked.workers, asked.threads, table=""),
    )
    done = [result for result in results if "error" not in result]
    table = compared(done, read_table(PAPER.parent / "results.json"))
    for name, row in table.items():
        mixed, float32 = (
            f"{row[k]['mean']:.4g} ± {row[k]['sd']:.2g}" for k in ("mixed", "float32")
        )
        print(f"{name:20} mixed {mixed}, float32 {float32}: {row['outcome']}")
    seconds = {str(r["seed"]): r["seconds"]["training"] for r in done}
    same = all(table[name]["outcome"] == "same" for name in JUDGED)
    about = {"judged": JUDGED, "same": same, "seconds of training": seconds}
    save({"measures": table, **about, **origin()}, asked.out)
    return int(len(done) < len(results))


if __name__ == "__main__":
    sys.exit(main())
