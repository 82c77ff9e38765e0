"""The same seed gives the same bits as it always has.

tests/golden.json holds what the code of commit 0a15ec4, from before the package was divided, made of
the seeds in golden.py: for two kinds of matrix kernels checksums of every bit, and for all machines
a mean and a size. (A third kind of machine, without AVX-512, was added by code whose bits on the
first two were still those.) If they change on purpose, ALGORITHM in core.checkpoints is raised, so that no
trained network and no checkpoint passes for one of the new kind.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from biolearn.core.checkpoints import ALGORITHM

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found():
    "What this machine makes of the seeds, in a process with one thread for its products."
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    program = [sys.executable, str(HERE / "golden.py")]
    done = subprocess.run(program, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_they_are_of_this_version_of_the_algorithm():
    assert GOLDEN["algorithm"] == ALGORITHM


@pytest.mark.parametrize("name", next(iter(GOLDEN["machines"].values())))
def test_the_same_seed_gives_the_same(name, found):
    mine = found["values"][name]
    if found["machine"] in GOLDEN["machines"]:
        assert mine["sha"] == GOLDEN["machines"][found["machine"]][name]["sha"]
    any_machine = next(iter(GOLDEN["machines"].values()))[name]
    # Elsewhere products round otherwise: some hundred steps of 1e-7. Training with spikes has no
    # such numbers, as the last bit of a rate decides whether a spike comes.
    for key in any_machine.keys() - {"sha"}:
        assert mine[key] == pytest.approx(any_machine[key], rel=1e-3, abs=1e-5)
