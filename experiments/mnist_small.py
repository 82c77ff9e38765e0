"""Write the small part of MNIST that travels with the package (nbs/01_data.ipynb).

    python -m experiments.mnist_small

The rule: of the 50,000 training, 10,000 validation and 10,000 test digits of `load_mnist`, each in
the order of MNIST's files, the first 200, 50 and 50 of each class. The bytes of the pictures are
MNIST's. It prints the SHA-256 sums that biolearn.core.data.SMALL_FILES holds.
"""

import argparse
import gzip
import hashlib
import struct
import sys
from pathlib import Path

import numpy as np

from biolearn.core.data import (
    MNIST_FILES,
    SMALL_COUNTS,
    SMALL_FILES,
    SMALL_FOLDER,
    mnist_folder,
    read_idx,
)


def first_of_each_class(labels, n):
    "The places of the first `n` of each class in `labels`, in order."
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:n] for c in range(10)]))


def subset(folder):
    "The pictures (3000, 28, 28) and labels (3000,) chosen by the rule from MNIST in `folder`."
    x, y, x_test, y_test = (_read(folder, name) for name in MNIST_FILES)
    splits = ((x[:50_000], y[:50_000]), (x[50_000:], y[50_000:]), (x_test, y_test))
    pictures, classes = [], []
    for (images, labels), n in zip(splits, SMALL_COUNTS):
        places = first_of_each_class(labels, n // 10)
        pictures.append(images[places])
        classes.append(labels[places])
    return np.concatenate(pictures), np.concatenate(classes)


def _read(folder, name):
    "The array in the file `name` of MNIST, packed or not."
    packed = folder / f"{name}.gz"
    return read_idx(packed if packed.is_file() else folder / name)


def as_idx(array):
    "An array of bytes as the contents of an IDX file."
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m experiments.mnist_small", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    option = parser.add_argument
    option("--out", type=Path, default=SMALL_FOLDER, metavar="FOLDER", help="where to write")
    asked, found = parser.parse_args(argv), mnist_folder()
    if found is None:
        print("MNIST was not found: name its folder in BIOLEARN_DATA.", file=sys.stderr)
        return 1
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, array in zip(SMALL_FILES, subset(found)):
        contents = as_idx(array)
        (asked.out / f"{name}.gz").write_bytes(gzip.compress(contents, 9, mtime=0))
        print(f"{name}: {hashlib.sha256(contents).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
