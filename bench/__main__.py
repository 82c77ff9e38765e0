"""Benchmarks of the package: ratios measured side by side on this machine.

    python -m bench                         everything, in under five minutes on two cores
    python -m bench --only cpu,parzen       some sections: cpu, gpu, parzen, samples, startup, scaling, profile
    python -m bench --only gpu              the training step on a GPU: needs one, CuPy (the extras
                                            cuda12, cuda13) and PyTorch built for CUDA; reports
                                            what is missing
    python -m bench --torch PYTHON          the interpreter that has PyTorch, if this one lacks it
                                            (or pip install -e .[bench])
    python -m bench --show                  print the tables of the last run

Results go to bench/results.json (a section that is not run keeps its last results) and pictures to
bench/pictures/.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from bench import report


def parser():
    from bench.sections import SECTIONS

    names = lambda text: [_known(name.strip(), SECTIONS) for name in text.split(",")]
    p = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--only",
        type=names,
        default=list(SECTIONS),
        metavar="SECTIONS",
        help=f"comma between: {', '.join(SECTIONS)}",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=report.RESULTS,
        help="where the results go (default: bench/results.json); pictures into the folder pictures next to it",
    )
    p.add_argument(
        "--torch", metavar="PYTHON", help="interpreter with PyTorch; also BENCH_TORCH_PYTHON"
    )
    p.add_argument("--rounds", type=int, default=9, help="turns of each contender (default 9)")
    p.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    p.add_argument("--show", action="store_true", help="print the stored results, measure nothing")
    return p


def _known(name, sections):
    if name not in sections:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(sections)}")
    return name


def show(results):
    "Print everything that is stored."
    for name, machine in results["machines"].items():
        print(*report.machine_lines(machine), sep="\n", end="\n\n")
    for section in results["tables"]:
        print(*report.section_lines(section, results), sep="\n", end="\n\n")


def main(argv=None):
    options = parser().parse_args(argv)
    results = report.read(options.out)
    if options.show:
        return show(results)
    # Which BLAS kernels are used is part of what is measured: a choice in the environment would
    # slow NumPy and leave PyTorch alone.
    chosen = os.environ.pop("OPENBLAS_CORETYPE", None)
    from bench.measure import OtherWork, machine
    from bench.sections import SECTIONS

    options.out.parent.mkdir(parents=True, exist_ok=True)  # before anything is measured
    about, start = machine(), time.perf_counter()
    about |= dict(
        set_aside=f"OPENBLAS_CORETYPE={chosen}" if chosen else None,
        kernel=about["blas"][0].split(", ")[1] if about["blas"] else "kernel unknown",
    )
    print(*report.machine_lines(about), sep="\n", end="\n\n", flush=True)
    for section in options.only:
        begun, other = time.perf_counter(), OtherWork()
        measured = SECTIONS[section](options)
        results = report.merge(results, section, measured, about, other.cores(), options.quick)
        report.write(results, options.out)  # a run that is interrupted keeps what it has
        print(
            *report.section_lines(section, results),
            f"({time.perf_counter() - begun:.0f} s)",
            sep="\n",
            end="\n\n",
            flush=True,
        )
    for path in report.draw(results, options.out.parent / "pictures"):
        print(path)
    print(f"{options.out} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
