"""What the tests of whole runs share: the command in a process of its own, and the rule for verdicts."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# without MPLBACKEND, which the tests set: the book shows the pictures of these runs
ENV = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
ENV |= {"PYTHONPATH": str(ROOT)}


def biolearn(*argv, cwd=None, env=ENV):
    "Run the `biolearn` command in a process of its own."
    code = "import sys; from biolearn.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )


def check_verdicts(manifest):
    """Every verdict of a manifest has, in figures/margins.json (experiments/margins.py), a mean
    margin of three standard deviations; returns how many there are.
    """
    stored = json.loads((ROOT / "figures" / "margins.json").read_text(encoding="utf-8"))
    margins, given = stored[manifest["profile"]]["claims"], 0
    for picture, entry in manifest["pictures"].items():
        for claim in entry["claims"]:
            if claim["holds"] is None:
                continue
            found, given = margins[picture][claim["name"]], given + 1
            robust = found.get("exact") or abs(found["mean"]) >= 3 * found["spread"]
            assert robust and found["kept"], (claim["name"], found)
            assert claim["holds"] == (found.get("mean", 1) > 0), (claim["name"], found)
    return given
