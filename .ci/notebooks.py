"""The cells of the library's notebooks, which are tests too, run as `nbdev_test` runs them, but the
longest pages first: a core that is left with one of them at the end makes everybody wait.

    python .ci/notebooks.py           every page of nbs, the figures left out
"""

import sys
from pathlib import Path

from fastcore.parallel import num_cpus, parallel
from fastcore.xtras import working_directory
from nbdev.config import get_config
from nbdev.test import test_nb

LONGEST = "16 zero 20 07 08 15 62 31 30 12 63 39 09".split()  # more than nine seconds each


def place(path):
    "Where a page stands in the order: the long ones first, then by name."
    page = path.stem.split("_")[0]
    return (LONGEST.index(page) if page in LONGEST else len(LONGEST), path.name)


def main():
    config = get_config()
    pages = sorted((p.absolute() for p in Path(config.nbs_path).glob("*.ipynb")), key=place)
    with working_directory(config.nbs_path):
        results = parallel(
            test_nb,
            pages,
            skip_flags=config.tst_flags.split(),
            force_flags=[],
            basepath=config.config_path,
            do_print=True,
            n_workers=num_cpus(),
            pause=0.01,
        )
    failed = [page.name for page, (passed, _) in zip(pages, results) if not passed]
    seconds = sum(seconds for _, seconds in results)
    print(f"{len(pages)} notebooks, {seconds:.0f} s of work; failed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
