"""What is measured beyond the package's own figures: each program measures settings with seeds, one
study, and writes one table, from which a figure is drawn.
"""

import argparse
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from biolearn.cli.reproduction import seed_list
from biolearn.core.data import Dataset, load_dataset
from biolearn.core.files import to_json, write_text
from biolearn.reproduction.report import git_revision
from biolearn.reproduction.runs import versions
from biolearn.reproduction.study import Trial, Work, study

PAPER = Path(__file__).resolve().parent.parent / "figures" / "paper"


@functools.cache
def mnist() -> Dataset:
    "MNIST, read once in each process."
    return load_dataset("mnist")


def some(text: str) -> list[int]:
    "A list of seeds that may be empty."
    return seed_list(text) if text else []


def command_line(
    module: str, doc: str, out: Path, seeds: str | None = None, runs: bool = False
) -> argparse.ArgumentParser:
    """The command line of experiments.<module>, whose help is `doc`: --out (by default `out`),
    --workers, --threads; with `seeds` also --seeds, and with `runs` --runs.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    if seeds is not None:
        text = "seeds and ranges of seeds (default: %(default)s; '' for none)"
        option("--seeds", type=some, default=seeds, metavar=seeds or "7-9", help=text)
    if runs:
        text = "where trained networks lie, as paper-seed<seed>-* (default: train them)"
        option("--runs", type=Path, metavar="FOLDER", help=text)
    shown = out.relative_to(PAPER.parent.parent) if out.is_relative_to(PAPER) else out
    option("--out", type=Path, default=out, metavar="FILE", help=f"the table (default: {shown})")
    text = "how many at a time (default: one for each core)"
    option("--workers", type=int, metavar="N", help=text)
    text = "of the matrix products in each (default: %(default)s)"
    option("--threads", type=int, default=1, metavar="N", help=text)
    return parser


def read_table(path: Path) -> dict[str, Any]:
    "What the table at `path` holds; empty if it is not there."
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def save(table: Mapping[str, Any], path: Path) -> None:
    "Write a table as JSON, whole."
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(table, path.name))


def _entry(table, keys):
    "What stands under `keys` in nested dicts; None if nothing does."
    for key in keys:
        table = table.get(str(key)) if isinstance(table, dict) else None
    return table


def extend_table(
    asked: argparse.Namespace,
    settings: Mapping[str, Any],
    seeds: Sequence[int | None],
    measure: Callable[[Trial], Mapping[str, Any]],
    place: Callable[[Trial], tuple[Any, ...]],
    finish: Callable[[dict[str, Any]], Mapping[str, Any]],
) -> int:
    """Measure what the table `asked.out` lacks, as a study; returns how many trials failed.

    What is there is not measured again. The records of the study are kept beside the table, in
    studies/<name of the table>/<part of the table>.

    Parameters
    ----------
    asked
        Of `command_line`: the table, and how many at a time.
    settings, seeds, measure
        As of `study`.
    place
        `place(trial)`: the keys under which the table holds a result.
    finish
        `finish(table)`: what is written beside the results, such as verdicts and settings.
    """
    path, work = asked.out, Work(asked.workers, asked.threads, tell=_line, table="")
    table, lacking = read_table(path), {}
    for name, each in settings.items():
        todo = tuple(s for s in seeds if _entry(table, place(Trial(name, each, s))) is None)
        if todo:
            lacking.setdefault(todo, {})[name] = each
    failed = 0
    for todo, group in lacking.items():
        part, *_ = place(Trial("", None))
        folder = path.parent / "studies" / path.stem / part
        records = study(group, todo, measure, folder, work=work)
        table = read_table(path)  # another process may have added to it
        for record in records:
            trial = Trial(record["name"], record["settings"], record["seed"])
            if "error" not in record:
                _put(table, place(trial), _result(record))
            failed += "error" in record
        save(table | dict(finish(table)), path)
    return failed


def _put(table, keys, value):
    "Set what stands under `keys` in nested dicts."
    *above, last = map(str, keys)
    for key in above:
        table = table.setdefault(key, {})
    table[last] = value


def _result(record):
    "A record as the tables hold it: the result, and what made it."
    found = {k: v for k, v in record.items() if k not in ("name", "seed", "settings", "made")}
    return record["made"] | found


def _line(record):
    "The line about a finished trial."
    what = record["name"] + (f" seed {record['seed']}" if record["seed"] is not None else "")
    return f"{what}: {record['made']['seconds']:.0f} s"


def origin() -> dict[str, Any]:
    "The commit and the versions of what the numbers depend on."
    return {"revision": git_revision(), "versions": versions()}
