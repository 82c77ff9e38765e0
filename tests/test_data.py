"""Data: the IDX reader against files written by hand, everything that can be wrong with a file or a
download, the splits, the minibatches.

No test needs the network: downloads come from a small HTTPS server on this machine, and the data
sets are stand-ins, whose checksums take the place of the published ones.
"""

import base64
import contextlib
import gzip
import hashlib
import os
import re
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import array_api_strict as strict
import numpy as np
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mnist_counts import TEST_DIGITS

from biolearn.core import data
from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.data import (
    DataError,
    DataNotFoundError,
    Dataset,
    from_arrays,
    load_dataset,
    load_digits,
    load_idx,
    load_mnist,
    minibatches,
    read_idx,
)
from biolearn.core.rng import Random

TYPES = {
    "u1": (0x08, "B"),
    "i1": (0x09, "b"),
    "i2": (0x0B, "h"),
    "i4": (0x0C, "i"),
    "f4": (0x0D, "f"),
    "f8": (0x0E, "d"),
}


def idx_bytes(array):
    """An IDX file written number by number with struct: an oracle that shares no line with the
    reader.
    """
    code, letter = TYPES[array.dtype.str[1:]]
    out = struct.pack("BBBB", 0, 0, code, array.ndim) + b"".join(
        struct.pack(">I", size) for size in array.shape
    )
    return out + b"".join(struct.pack(">" + letter, value) for value in array.ravel().tolist())


def fast_idx(array):
    "The same for many bytes at once."
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype("u1").tobytes()
    )


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


def put(folder, contents, name="file"):
    (folder / name).write_bytes(contents)
    return folder / name


@contextlib.contextmanager
def memory_below(limit):
    """Python's own count of the memory allocated inside, at its highest, must stay below `limit`
    bytes.
    """
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes were allocated"


# ---------------------------------------------------------------- the IDX reader


@settings(deadline=None)
@given(
    array=st.sampled_from(sorted(TYPES)).flatmap(
        lambda kind: hnp.arrays(
            kind,
            hnp.array_shapes(max_dims=4, min_side=0, max_side=4),
            elements=dict(allow_nan=False) if kind[0] == "f" else None,
        )
    ),
    packed=st.booleans(),
)
def test_reads_back_what_was_written_by_hand(scratch, array, packed):
    contents = idx_bytes(array)
    found = read_idx(put(scratch, gzip.compress(contents) if packed else contents))
    assert (
        found.dtype == array.dtype
        and found.dtype.isnative
        and found.shape == array.shape
        and found.flags.writeable
    )
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("packed", [False, True])
def test_truncation_at_every_byte_is_refused(tmp_path, packed):
    whole = idx_bytes(np.arange(12, dtype="i2").reshape(3, 4))
    if packed:
        whole = gzip.compress(whole)
    for n in range(len(whole)):
        with pytest.raises(DataError, match="some-name.*(truncated|damaged gzip)"):
            read_idx(put(tmp_path, whole[:n], "some-name"))
    read_idx(put(tmp_path, whole))


def flips(contents, n_bytes):
    for bit in range(8 * n_bytes):
        yield bytes(
            [*contents[: bit // 8], contents[bit // 8] ^ (1 << bit % 8), *contents[bit // 8 + 1 :]]
        )


def test_flipped_header_bits_never_crash_nor_allocate_much(tmp_path):
    contents = idx_bytes(np.arange(24, dtype="u1").reshape(2, 3, 4))
    with memory_below(2 * data._CHUNK + 2**20):
        for flipped in flips(contents, 16):
            try:
                found = read_idx(put(tmp_path, flipped))
            except DataError as error:
                assert "file" in str(error)
            else:
                assert flipped[2] == 0x09 and found.shape == (
                    2,
                    3,
                    4,
                )  # the only flip that leaves a lawful file: int8


def test_flipped_bits_of_a_packed_file_are_noticed_or_harmless(tmp_path):
    array = np.arange(24, dtype="u1").reshape(2, 3, 4)
    packed, harmless = gzip.compress(idx_bytes(array), mtime=0), 0
    for flipped in flips(packed, len(packed)):
        try:
            found = read_idx(put(tmp_path, flipped))
        except DataError:
            continue
        np.testing.assert_array_equal(found, array)
        harmless += 1
    # six bytes of gzip's header (time, system, effort), some flags and the padding say nothing of
    # the contents
    assert harmless <= 8 * 8


@settings(deadline=None, max_examples=200)
@given(
    contents=st.binary(max_size=60),
    magic=st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x0e\x02", b"\x1f\x8b\x08\0"]),
)
def test_random_bytes_are_an_array_or_a_DataError(scratch, contents, magic):
    with contextlib.suppress(DataError):
        assert isinstance(read_idx(put(scratch, magic + contents)), np.ndarray)


@pytest.mark.parametrize(
    "contents, complaint",
    [
        (b"", "truncated"),
        (b"\0\0\x08\x02\0\0\0\x01", "truncated.*header"),
        (b"<!DOCTYPE html>", "wrong magic number 3c 21 44 4f"),
        (b"\0\0\x07\x01\0\0\0\x01a", "wrong magic"),
        (b"\0\0\x08\0a", "wrong magic"),
        (b"\0\0\x08\xff" + bytes(2000), "wrong magic"),
        (b"\0\0\x08\x01\0\0\0\x01ab", "goes on after the 1 bytes"),
        (b"\0\0\x08\x01\0\0\0\x03ab", "3 bytes of numbers, only 2"),
        (b"\0\0\x08\x02" + b"\xff" * 8, "more than the limit"),
        (b"\0\0\x0e\x04" + b"\xff" * 16, "more than the limit"),
        (
            b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8,
            "more than the limit",
        ),  # an axis of length 0 beside huge ones
        (gzip.compress(idx_bytes(np.zeros(3, "u1")), mtime=0) + b"junk", "damaged gzip"),
        (
            gzip.compress(gzip.compress(idx_bytes(np.zeros(3, "u1")), mtime=0), mtime=0),
            "wrong magic",
        ),
    ],
)
def test_each_fault_is_named(tmp_path, contents, complaint):
    with pytest.raises(DataError, match=f"(?s)the-name.*{complaint}"):
        read_idx(put(tmp_path, contents, "the-name"))


def test_a_gzip_bomb_does_not_go_off(tmp_path):
    zeros = bytes(2**26)
    after_the_end = put(tmp_path, gzip.compress(idx_bytes(np.zeros(6, "u1")) + zeros), "a")
    in_the_promise = put(
        tmp_path, gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", len(zeros)) + zeros), "b"
    )
    with memory_below(2**20):
        with pytest.raises(DataError, match="goes on after"):
            read_idx(after_the_end)
        with pytest.raises(DataError, match="limit of 1,000"):
            read_idx(in_the_promise, max_bytes=1000)
    assert read_idx(in_the_promise, max_bytes=len(zeros)).shape == (2**26,)


def test_a_promise_within_the_limit_is_not_paid_in_advance(tmp_path):
    liar = put(tmp_path, b"\0\0\x08\x01" + struct.pack(">I", 2**30) + b"few")
    with memory_below(2 * data._CHUNK + 2**20), pytest.raises(DataError, match="only 3 are there"):
        read_idx(liar)


def test_what_cannot_be_opened_says_so_and_bad_limits_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="max_bytes"):
        read_idx(tmp_path / "nowhere", max_bytes=1e6)


# ---------------------------------------------------------------- arrays and IDX pairs


@settings(deadline=None)
@given(images=hnp.arrays("u1", hnp.array_shapes(min_dims=2, max_dims=3, max_side=6)))
def test_bytes_are_divided_by_255(images):
    found = from_arrays(images)
    assert found.train.dtype == np.float32 and found.train.flags.c_contiguous
    np.testing.assert_allclose(
        found.train, images.reshape(len(images), -1) / 255, rtol=2e-7
    )  # rounded once to float32
    assert found.image_shape == (images.shape[1:] if images.ndim == 3 else (1, images.shape[1]))


@settings(deadline=None)
@given(
    images=st.sampled_from(["f2", "f4", "f8", "?"]).flatmap(
        lambda kind: hnp.arrays(
            kind,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
            elements=None if kind == "?" else dict(min_value=0, max_value=1),
        )
    )
)
def test_floats_and_booleans_keep_their_values(images):
    for given_images in (images, np.asfortranarray(images), images[::-1][::-1]):
        np.testing.assert_array_equal(from_arrays(given_images).train, images.astype("f4"))


def test_a_dataset_is_a_locked_copy():
    mine, labels = np.zeros((3, 2, 2), "f4"), np.arange(3)
    found = from_arrays(mine, train_labels=labels, name="mine")
    mine[:], labels[:] = 1, 7
    assert not found.train.any() and list(found.train_labels) == [0, 1, 2]
    assert found.valid.shape == found.test.shape == (0, 4) and found.test_labels is None
    for array in (found.train, found.train_labels, found.valid):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    with pytest.raises(AttributeError):
        found.name = "other"
    assert repr(found) == "Dataset 'mine': 3 train, 0 valid, 0 test; pictures of 2 x 2"


def test_arrays_of_a_foreign_namespace_are_brought_to_the_host():
    away = strict.asarray([[0.0, 1.0]], dtype=strict.float32, device=strict.Device("device1"))
    np.testing.assert_array_equal(from_arrays(away, test=away).test, [[0, 1]])


half = np.full((2, 4), 0.5)


@pytest.mark.parametrize(
    "arguments, error, complaint",
    [
        (dict(train=half + 1), ValueError, "train holds numbers above 1"),
        (dict(train=half, valid=half - 1), ValueError, "valid.*below 0"),
        (dict(train=half * np.nan), ValueError, "train holds NaN"),
        (dict(train=half, test=half * np.inf), ValueError, "test"),
        (dict(train=half.astype("i8")), TypeError, "train.*int64"),
        (dict(train=[["a"]]), TypeError, "train"),
        (dict(train=None), TypeError, "train"),
        (dict(train=half[0]), ValueError, "train must have 2 axes"),
        (dict(train=half[None, None]), ValueError, "train must have 2 axes"),
        (dict(train=half[:0]), ValueError, "train is empty"),
        (dict(train=half[:, :0].astype("u1")), ValueError, "train is empty"),
        (
            dict(train=half, test=half[:, :2]),
            DataError,
            r"test has images of shape \(2,\), train of \(4,\)",
        ),
        (dict(train=half.reshape(2, 2, 2), valid=half.reshape(2, 4, 1)), DataError, "valid"),
        (
            dict(train=half.reshape(2, 2, 2), test=half.reshape(2, 1, 4)),
            DataError,
            r"test has images of shape \(1, 4\), train of \(2, 2\)",
        ),
        (dict(train=half, train_labels=[0]), DataError, "train_labels.*2 images"),
        (dict(train=half, train_labels=[[0, 1]]), DataError, "train_labels"),
        (dict(train=half, train_labels=[0.0, 1.0]), TypeError, "train_labels.*float64"),
        (
            dict(train=half, valid_labels=[0, 1]),
            DataError,
            "valid_labels were given without valid images",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(arguments, error, complaint):
    with pytest.raises(error, match=complaint):
        from_arrays(**arguments)


@pytest.fixture
def pair(tmp_path):
    "A small IDX pair: (path of images, path of labels, images, labels)."
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10, 2, 3), "u1"), rng.integers(0, 5, 10).astype("u1")
    return (
        put(tmp_path, gzip.compress(fast_idx(images)), "images.gz"),
        put(tmp_path, fast_idx(labels), "labels"),
        images,
        labels,
    )


def test_an_idx_pair_becomes_a_dataset(pair):
    images_file, labels_file, images, labels = pair
    found = load_idx(
        images_file, labels_file, test_images=images_file, test_labels=labels_file, n_valid=3
    )
    assert isinstance(found, Dataset) and found.image_shape == (2, 3) and found.name == "images.gz"
    np.testing.assert_array_equal(
        found.train, images[:7].reshape(7, 6).astype("f4") / np.float32(255)
    )
    np.testing.assert_array_equal(
        found.valid, images[7:].reshape(3, 6).astype("f4") / np.float32(255)
    )
    for got, expected in (
        (found.train_labels, labels[:7]),
        (found.valid_labels, labels[7:]),
        (found.test_labels, labels),
    ):
        np.testing.assert_array_equal(got, expected)
    alone = load_idx(str(images_file), name="alone")
    assert (
        alone.train.shape == (10, 6)
        and alone.train_labels is None
        and len(alone.test) == 0
        and alone.name == "alone"
    )


def test_idx_pairs_that_are_mixed_up_are_refused(pair, tmp_path):
    images_file, labels_file, images, labels = pair
    short = put(tmp_path, fast_idx(labels[:9]), "short")
    numbers = put(tmp_path, idx_bytes(np.zeros((2, 2, 2), "i4")), "int32-images")
    floats = put(tmp_path, idx_bytes(np.full((2, 2, 2), np.nan, "f4")), "float-images")
    for arguments, complaint in [
        ((labels_file,), "labels: .*are these labels"),
        ((images_file, images_file), "images.gz: .*are these images"),
        ((images_file, short), "short: 9 labels for the 10 images"),
        ((numbers,), "int32-images: pixels"),
        ((floats,), "float-images.*NaN"),
    ]:
        with pytest.raises(DataError, match=complaint):
            load_idx(*arguments)
    with pytest.raises(DataError, match="limit of 10"):
        load_idx(images_file, max_bytes=10)
    with pytest.raises(DataError, match="need test_images"):
        load_idx(images_file, test_labels=labels_file)
    with pytest.raises(ValueError, match="n_valid"):
        load_idx(images_file, n_valid=10)
    with pytest.raises(FileNotFoundError):
        load_idx(tmp_path / "nowhere")


# ---------------------------------------------------------------- the embedded digits


def test_the_digits_are_scikit_learns_in_a_split_fixed_for_good():
    from sklearn import datasets

    source, state = datasets.load_digits(), np.random.get_state()[1].copy()
    digits = load_digits()
    assert [x.shape for x in (digits.train, digits.valid, digits.test)] == [
        (1197, 64),
        (300, 64),
        (300, 64),
    ]
    assert (
        digits.image_shape == (8, 8)
        and digits.train.dtype == np.float32
        and digits.train_labels.dtype == np.int64
    )
    together = np.concatenate([digits.train, digits.valid, digits.test]) * 16
    labels = np.concatenate([digits.train_labels, digits.valid_labels, digits.test_labels])
    rows, expected = np.c_[together, labels], np.c_[source.data, source.target]
    np.testing.assert_array_equal(
        rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)]
    )  # every picture once, with its label
    fingerprint = hashlib.sha256(
        together.astype("u1").tobytes() + labels.astype("u1").tobytes()
    ).hexdigest()
    assert fingerprint == "bb9051f7808f6bd2be944685a146506dae2988604262f96079fdcbdebefffa83"
    np.testing.assert_array_equal(
        np.random.get_state()[1], state
    )  # nobody's random numbers were touched
    np.testing.assert_array_equal(load_dataset("digits").test, digits.test)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'digits', .*'mnist', .*'emnist-letters'.*'cifar'"):
        load_dataset("cifar")


# ---------------------------------------------------------------- MNIST: where it is looked for


SETS = ("mnist", "fashion-mnist")  # one of the contents and one of the packed files, alike named


def pack(contents):
    "The one packed file whose checksum a stand-in has."
    return gzip.compress(contents, 1, mtime=0)


def made_up(seed):
    "A stand-in for MNIST: as many pictures, of 2 x 2 pixels. {name: uncompressed contents}."
    rng = np.random.default_rng(seed)
    return {
        name: fast_idx(
            rng.integers(
                0,
                256,
                (60_000 if name.startswith("train") else 10_000,)
                + ((2, 2) if "images" in name else ()),
                "u1",
            )
        )
        for name in data.MNIST_FILES
    }


def stand_in(monkeypatch, name, contents):
    "Let the data set `name` be that of these contents, with no mirror."
    source = data._SOURCES[name]
    published = pack if source.packed else bytes
    files = {n: (hashlib.sha256(published(c)).hexdigest(), len(c)) for n, c in contents.items()}
    monkeypatch.setitem(data._SOURCES, name, replace(source, files=files, mirrors=()))


@pytest.fixture(scope="session")
def small_sets():
    "{data set of SETS: its stand-in}."
    return {name: made_up(1 + seed) for seed, name in enumerate(SETS)}


@pytest.fixture(scope="session")
def small_mnist(small_sets):
    return small_sets["mnist"]


@pytest.fixture
def places(tmp_path, monkeypatch, small_sets):
    """Three empty folders (given, environment, cache), the stand-ins' fingerprints for those
    published, and no mirror.
    """
    for name, contents in small_sets.items():
        stand_in(monkeypatch, name, contents)
    monkeypatch.setattr(
        data,
        "user_cache_path",
        lambda name, appauthor: tmp_path / "cache" if name == "biolearn" else None,
    )
    monkeypatch.setenv("BIOLEARN_DATA", str(tmp_path / "env"))
    for name in ("given", "env", "cache"):
        (tmp_path / name).mkdir()
    return tmp_path


def fill(folder, contents, packed=True):
    folder.mkdir(exist_ok=True)
    for name, c in contents.items():
        put(folder, pack(c) if packed else c, name + ".gz" * packed)


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "name, where, packed",
    [
        *(
            ("mnist", f"{place}{sub}", packed)
            for place in ("given", "env", "cache")
            for sub in ("", "/mnist")
            for packed in (False, True)
        ),
        ("fashion-mnist", "given", True),
        *(("fashion-mnist", f"{p}/fashion-mnist", True) for p in ("given", "env", "cache")),
    ],
)
def test_each_place_is_looked_at(places, small_sets, name, where, packed):
    fill(places / where, contents := small_sets[name], packed)
    found = load_dataset(name, places / "given")
    assert data.data_folder(name, places / "given") == places / where
    assert (
        found.name == name
        and [len(x) for x in (found.train, found.valid, found.test)]
        == [
            50_000,
            10_000,
            10_000,
        ]
        and found.image_shape == (2, 2)
    )
    pixels = np.frombuffer(contents["train-images-idx3-ubyte"][16:], "u1").reshape(-1, 4)
    np.testing.assert_array_equal(found.valid, pixels[50_000:].astype("f4") / np.float32(255))
    labels = np.frombuffer(contents["train-labels-idx1-ubyte"][8:], "u1")
    np.testing.assert_array_equal(np.r_[found.train_labels, found.valid_labels], labels)
    assert files_in(places / "cache") == (
        sorted(n + ".gz" * packed for n in contents) if where.startswith("cache") else []
    )


def test_the_order_is_given_then_environment_then_cache(places, small_mnist, monkeypatch):
    seen, verified = [], data._verified
    monkeypatch.setattr(
        data, "_verified", lambda path, *rest: seen.append(path.parent) or verified(path, *rest)
    )
    for where in (
        "cache",
        "env",
        "given",
    ):  # each place that is filled goes before those filled so far
        fill(places / where, small_mnist)
        load_dataset("mnist", places / "given")
        assert set(seen) == {places / where}
        seen.clear()
    load_mnist()
    assert set(seen) == {places / "env"}
    seen.clear()
    monkeypatch.setenv(
        "BIOLEARN_DATA", ""
    )  # empty counts as not set, for the variable and for the argument
    load_mnist("")
    assert set(seen) == {places / "cache"}


def test_files_may_be_spread_over_the_places(places, small_mnist):
    for where, name in zip(("given", "env", "cache", "given"), small_mnist):
        fill(places / where, {name: small_mnist[name]})
    assert len(load_mnist(places / "given").test) == 10_000


@pytest.mark.parametrize("how", ["raises", "stays"])
def test_a_user_without_a_home_folder_is_no_error(places, small_mnist, monkeypatch, how):
    "No HOME, and a user whom the system does not know: as in many containers."

    def homeless(*names, **kw):
        if how == "raises":
            raise RuntimeError("Could not determine home directory.")
        return Path("~/.cache/biolearn")

    monkeypatch.setattr(data, "user_cache_path", homeless)
    monkeypatch.chdir(places)
    assert data.mnist_folder(places / "given") is None
    with pytest.raises(DataNotFoundError, match="no home folder.*: none given") as caught:
        load_mnist(places / "given")  # and nothing is downloaded: there is no folder to keep it in
    assert "copy the files to" not in str(caught.value) and not (places / "~").exists()
    fill(places / "given", small_mnist)
    assert len(load_mnist(places / "given").test) == 10_000
    assert data.mnist_folder(places / "given") == places / "given"


def test_the_folder_of_mnist_is_found_without_reading(places, small_mnist, monkeypatch):
    monkeypatch.setattr(data, "_read_idx", lambda *a: pytest.fail("it was read"))
    assert data.mnist_folder() is None
    fill(places / "env" / "mnist", small_mnist)
    assert data.mnist_folder() == places / "env" / "mnist"
    monkeypatch.setenv("BIOLEARN_DATA", __file__)  # a file where a folder should be
    assert data.mnist_folder() is None


@pytest.mark.parametrize("name", SETS)
def test_a_wrong_file_ends_the_search(places, small_sets, name):
    fill(
        places / "env" / name, small_sets[name]
    )  # a good copy further on must not hide the bad one
    images, labels = (small_sets[name][f"train-{n}-ubyte"] for n in ("images-idx3", "labels-idx1"))
    title = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
    other = [n for n in SETS if n != name][0]
    mistaken = small_sets[other]["train-images-idx3-ubyte"]
    for contents, complaint in [
        (images[:-1], "truncated"),
        (images + b"!", "goes on after"),
        (b"\0" + images, "wrong magic"),
        (images[:-1] + bytes([images[-1] ^ 1]), "SHA-256"),
        (pack(labels), f"mislabelled: this is train-labels-idx1-ubyte of {title[name]}, not"),
        (pack(mistaken), f"mislabelled: .* of {title[other]}, .* a folder of its own"),
        (gzip.compress(images)[:-20], "damaged gzip"),
    ]:
        put(places / "given", contents, "train-images-idx3-ubyte")
        with pytest.raises(
            DataError, match=f"given.train-images-idx3-ubyte: .*{complaint}.*Replace this file"
        ):
            load_dataset(name, places / "given")


@pytest.mark.parametrize("name, title", [*zip(SETS, ("MNIST", "Fashion-MNIST"))])
def test_a_path_to_a_file_is_refused_with_advice(places, small_sets, name, title):
    fill(places / "env", small_sets[name])
    advice = f"the given path must be a folder that holds the files of {title},"
    with pytest.raises(DataError, match=advice):
        load_dataset(name, places / "env" / "t10k-labels-idx1-ubyte.gz")


@pytest.mark.parametrize("name", SETS)
def test_offline_without_a_copy_every_place_is_listed(places, monkeypatch, name):
    (places / "cache").rmdir()
    mirrors = ("http://localhost:1/m", "https://localhost:1/m/")
    monkeypatch.setitem(data._SOURCES, name, replace(data._SOURCES[name], mirrors=mirrors))
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset(name, places / "given")
    message = str(caught.value)
    for part in (
        f"{places / 'given'}: no train-images-idx3-ubyte.gz",
        f"{places / 'env'}: no train-images",
        f"{places / 'cache'}: there is no such folder",
        "http://localhost:1/m/train-images-idx3-ubyte.gz: not an HTTPS address",
        "https://localhost:1/m/train-images-idx3-ubyte.gz: <urlopen error",
        "path=",
        f"BIOLEARN_DATA, or copy the files to {places / 'cache' / name}.",
        *(name + ".gz" for name in data.MNIST_FILES),
    ):
        assert part in message
    assert isinstance(caught.value, (DataError, FileNotFoundError)) and files_in(places) == []
    monkeypatch.delenv("BIOLEARN_DATA")
    with pytest.raises(
        DataNotFoundError, match="(?s)given path: none given.*BIOLEARN_DATA: none given"
    ):
        load_dataset(name)


def test_the_fingerprints_are_those_published():
    assert {name: (sha[:8], size) for name, (sha, size) in data.MNIST_FILES.items()} == {
        "train-images-idx3-ubyte": ("ba891046", 16 + 60_000 * 784),
        "train-labels-idx1-ubyte": ("65a50cbb", 8 + 60_000),
        "t10k-images-idx3-ubyte": ("0fa7898d", 16 + 10_000 * 784),
        "t10k-labels-idx1-ubyte": ("ff7bcfd4", 8 + 10_000),
    }
    assert all(mirror.startswith("https://") for mirror in data.MNIST_MIRRORS)


def test_the_fingerprints_of_the_sets_are_sixteen_different_ones():
    files = {(name, *file) for name, s in data._SOURCES.items() for file in s.files.items()}
    checksums = {sha for _, _, (sha, _) in files}
    assert len(files) == len(checksums) == 16
    assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in checksums)
    for name, n_train, n_test, begin in [
        ("fashion-mnist", 60_000, 10_000, "train"),
        ("kmnist", 60_000, 10_000, "train"),
        ("emnist-letters", 124_800, 20_800, "emnist-letters-train"),
    ]:
        found = data._SOURCES[name].files
        assert next(iter(found)) == f"{begin}-images-idx3-ubyte" and data._SOURCES[name].packed
        assert [size for _, size in found.values()] == [
            16 + 784 * n_train,
            8 + n_train,
            16 + 784 * n_test,
            8 + n_test,
        ]
    mirrors = [mirror for source in data._SOURCES.values() for mirror in source.mirrors]
    assert all(re.fullmatch("https://.*/", mirror) for mirror in mirrors) and len(mirrors) == 5


# ---------------------------------------------------------------- MNIST's relatives


def test_only_the_packed_file_as_published_is_taken(places, small_sets):
    name = "fashion-mnist"
    for make in (bytes, lambda c: gzip.compress(c, 9, mtime=0)):
        for n, c in small_sets[name].items():
            put(places / "given", make(c), n)
        with pytest.raises(
            DataError, match="whose file has SHA-256.*Only the packed train-images-"
        ):
            load_dataset(name, places / "given")
    fill(places / "given", small_sets[name])  # the packed file goes before the other
    assert len(load_dataset(name, places / "given").test) == 10_000


@pytest.mark.parametrize("where", ["env", "cache"])
def test_mnist_is_not_mistaken_for_a_relative(places, small_sets, where):
    "Their files have the same names, and where many sets may lie each has a folder to itself."
    fill(places / where, small_sets["mnist"])
    missing = f"{places / where}: no train-images-idx3-ubyte.gz or train-images-idx3-ubyte in its"
    with pytest.raises(DataNotFoundError, match=f"{missing} subfolder fashion-mnist\n"):
        load_dataset("fashion-mnist")
    fill(places / where / "fashion-mnist", small_sets["fashion-mnist"])
    for name in SETS:
        first = np.frombuffer(small_sets[name]["t10k-images-idx3-ubyte"][16:20], "u1")
        for path in (None, places / where):  # and none is in the way of the other
            found = load_dataset(name, path).test[0]
            np.testing.assert_array_equal(found, first.astype("f4") / np.float32(255))


@pytest.fixture
def letters(places, monkeypatch):
    """A stand-in for the letters: {name: contents} of pictures of 3 x 2, and what they are when
    they stand upright: (train and valid, test).
    """
    rng = np.random.default_rng(3)
    upright = [rng.integers(0, 256, (n, 2, 3), "u1") for n in (60, 20)]
    labels = [np.arange(n, dtype="u1") % 26 + 1 for n in (60, 20)]
    arrays = [a for x, y in zip(upright, labels) for a in (np.transpose(x, (0, 2, 1)), y)]
    contents = dict(zip(data._SOURCES["emnist-letters"].files, map(idx_bytes, arrays)))
    stand_in(monkeypatch, "emnist-letters", contents)
    return contents, upright


def test_the_letters_stand_upright_and_begin_with_label_0(places, letters):
    contents, (upright, test) = letters
    fill(places / "given", contents)
    found = load_dataset("emnist-letters", places / "given")
    assert found.image_shape == (2, 3) and found.name == "emnist-letters"
    assert [len(x) for x in (found.train, found.valid, found.test)] == [40, 20, 20]
    pixels = np.concatenate([found.train, found.valid]).reshape(60, 2, 3)
    np.testing.assert_array_equal(pixels, upright.astype("f4") / np.float32(255))
    np.testing.assert_array_equal(found.test.reshape(20, 2, 3), test.astype("f4") / np.float32(255))
    np.testing.assert_array_equal(np.r_[found.train_labels, found.valid_labels], np.arange(60) % 26)
    np.testing.assert_array_equal(found.test_labels, np.arange(20))


def test_the_letters_are_not_downloaded_and_the_message_says_where_they_are(places):
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset("emnist-letters")
    message = str(caught.value)
    assert "download" not in message
    for part in (
        "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        "folder gzip",
        *(name + ".gz" for name in data._SOURCES["emnist-letters"].files),
        "into a folder emnist-letters",
    ):
        assert part in message


SHARED = Path(os.environ.get("BIOLEARN_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.mark.skipif(
    not [*SHARED.glob("t10k-labels-idx1-ubyte*"), *SHARED.glob("mnist/t10k-labels-idx1-ubyte*")],
    reason="no copy of MNIST: set BIOLEARN_DATA to the folder of one",
)
def test_the_real_mnist():
    mnist = load_mnist(SHARED, mirrors=())
    assert (
        mnist.train.shape == (50_000, 784)
        and mnist.valid.shape == mnist.test.shape == (10_000, 784)
        and mnist.image_shape == (28, 28)
    )
    labels = np.r_[
        mnist.train_labels, mnist.valid_labels
    ]  # counts and moments that are in every textbook
    assert list(labels[:5]) == [5, 0, 4, 1, 9] and list(mnist.test_labels[:5]) == [7, 2, 1, 0, 4]
    assert list(np.bincount(labels)) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert list(np.bincount(mnist.test_labels)) == TEST_DIGITS
    pixels = np.r_[mnist.train, mnist.valid]
    assert pixels.mean(dtype="f8") == pytest.approx(0.1307, abs=1e-4) and pixels.std(
        dtype="f8"
    ) == pytest.approx(0.3081, abs=1e-4)


# ---------------------------------------------------------------- downloads


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = self.server.answers.get(self.path)
        self.server.asked.append(self.path)
        if answer is None:
            self.send_error(404)
        else:
            answer(self)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # clients that hang up are what these tests are about


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture
def server(authority, places, monkeypatch):
    """An HTTPS server whose certificate is trusted: `answers` {path: function(handler)}, `asked`,
    `url`.
    """
    with authority.cert_pem.tempfile() as pem:
        monkeypatch.setenv("SSL_CERT_FILE", pem)
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        server = Server(("localhost", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.answers, server.asked, server.url = (
            {},
            [],
            f"https://localhost:{server.server_address[1]}/",
        )
        thread = threading.Thread(
            target=server.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def send(body, *, length=True, stop=None, then=None):
    """An answer with `body`, of which only `stop` bytes are sent before `then` is called and the
    connection closed.
    """

    def answer(handler):
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", str(len(body) if length is True else length))
        handler.end_headers()
        handler.wfile.write(body[:stop])
        handler.wfile.flush()
        if then:
            then()

    return answer


def redirect(where):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", where)
        handler.end_headers()

    return answer


NAME = "train-labels-idx1-ubyte"


def obtain(places, mirrors, name="mnist"):
    source = data._SOURCES[name]
    return data._obtain(source, NAME, data._places(None, source), mirrors)


@pytest.mark.parametrize("name", SETS)
def test_a_download_ends_in_the_cache_and_is_not_repeated(
    places, server, small_sets, name, monkeypatch, capfd
):
    server.answers = {f"/m/{file}.gz": send(pack(c)) for file, c in small_sets[name].items()}
    mirrors = (server.url + "m",)
    monkeypatch.setitem(data._SOURCES, name, replace(data._SOURCES[name], mirrors=mirrors))
    first = load_dataset(name)
    assert (
        files_in(places / "cache" / name)
        == files_in(places)
        == sorted(f"{file}.gz" for file in small_sets[name])
    )
    assert (
        len(server.asked) == 4 and "train-images-idx3-ubyte: 100%" in capfd.readouterr().err
    )  # the progress bar
    np.testing.assert_array_equal(load_dataset(name).test, first.test)
    assert len(server.asked) == 4


def test_mirrors_may_be_named(places, server, small_mnist):
    server.answers = {f"/m/{name}.gz": send(pack(c)) for name, c in small_mnist.items()}
    assert len(load_mnist(mirrors=[server.url + "m"]).test) == 10_000 and len(server.asked) == 4


@pytest.mark.parametrize("name", SETS)
def test_redirects_are_followed_to_https_and_length_may_be_unknown(
    places, server, small_sets, name
):
    body = small_sets[name][NAME]  # of MNIST not even packed: the contents decide
    server.answers = {
        f"/m/{NAME}.gz": redirect("/elsewhere"),
        "/elsewhere": redirect(server.url + "there"),
        "/there": send(body if name == "mnist" else pack(body), length=False),
    }
    assert obtain(places, [server.url + "m/"], name).shape == (60_000,)
    assert files_in(places) == [f"{NAME}.gz"] and obtain(places, [], name).shape == (60_000,)


def never(handler):
    raise AssertionError


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda body, url: redirect(url.replace("https", "http") + "good"), "not HTTPS: refused"),
        (lambda body, url: redirect("file:///etc/passwd"), "file:"),
        (lambda body, url: redirect("ftp://localhost/x"), "not HTTPS: refused"),
        (lambda body, url: redirect(url + "loop"), "redirect"),
        (lambda body, url: send(body, stop=1000), "cut after 1,000 of"),
        (lambda body, url: send(body, stop=0), "cut after 0 of"),
        (lambda body, url: send(body[:1000], length=False), "damaged gzip"),
        (lambda body, url: send(b"<html>oops</html>"), "the file received: wrong magic"),
        (
            lambda body, url: send(gzip.compress(fast_idx(np.zeros(60_000)))),
            "the file received: not the train-labels",
        ),
        (lambda body, url: send(b"", length=10**9), "refused: it announces 1,000,000,000 bytes"),
        (lambda body, url: send(bytes(10**6), length=False), "refused: it sends more than"),
        (
            lambda body, url: send(gzip.compress(fast_idx(np.zeros(60_000)) + bytes(10**7))),
            "goes on after",
        ),
        (lambda body, url: never, ""),
        (lambda body, url: None, "404"),
    ],
    ids="http file ftp loop cut nothing cut-unannounced html wrong-contents oversize endless bomb hang-up 404".split(),
)
@pytest.mark.parametrize("name", SETS)
def test_a_bad_mirror_leaves_nothing_and_the_next_one_is_asked(
    places, server, small_sets, name, make, complaint
):
    body = pack(small_sets[name][NAME])
    bad = make(body, server.url)
    server.answers = {
        f"/bad/{NAME}.gz": bad,
        "/loop": redirect(server.url + "loop"),
        "/good": send(body),
    }
    with pytest.raises(DataNotFoundError) as caught:
        obtain(places, [server.url + "bad/", server.url + "missing"], name)
    assert f"{server.url}bad/{NAME}.gz: " in str(caught.value) and complaint in str(caught.value)
    assert f"{server.url}missing/{NAME}.gz: HTTP Error 404" in str(
        caught.value
    )  # all mirrors are listed, each with its reason
    assert files_in(places) == [] and "/good" not in server.asked
    server.answers[f"/fine/{NAME}.gz"] = send(body)
    assert obtain(places, [server.url + "bad", server.url + "fine"], name).shape == (60_000,)
    assert files_in(places) == [f"{NAME}.gz"]


def test_a_silent_or_slow_server_is_given_up(places, server, small_mnist, monkeypatch):
    body, hold = gzip.compress(small_mnist[NAME], 1), threading.Event()
    server.answers = {
        f"/silent/{NAME}.gz": send(body, stop=1000, then=lambda: hold.wait(20)),
        f"/slow/{NAME}.gz": send(body),
    }
    monkeypatch.setattr(data, "_SILENCE", 0.3)
    try:
        with pytest.raises(DataNotFoundError, match="timed out"):
            obtain(places, [server.url + "silent"])
    finally:
        hold.set()
    monkeypatch.setattr(data, "_PATIENCE", -1)
    with pytest.raises(DataNotFoundError, match="given up: not complete"):
        obtain(places, [server.url + "slow"])
    assert files_in(places) == []


def trickle(text, hold):
    "Sends `text` byte by byte, far within the limit for silence, and never to its end."

    def answer(handler):
        for byte in text:
            if hold.wait(0.05):
                return
            try:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
            except OSError:
                return  # the client has gone
        hold.wait(20)

    return answer


STATUS = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "text",
    [b"HTTP" * 500, STATUS + b"X-Slow: 1\r\n" * 500, STATUS + b"\r\n" + b"x" * 5000],
    ids=["status line", "headers", "body"],
)
def test_the_time_limit_bounds_the_whole_conversation(places, server, monkeypatch, text):
    hold = threading.Event()
    server.answers = {f"/m/{NAME}.gz": trickle(text, hold)}
    monkeypatch.setattr(data, "_PATIENCE", 0.5)
    start = time.monotonic()
    try:
        with pytest.raises(DataNotFoundError, match="given up: not complete after 0.5 seconds"):
            obtain(places, [server.url + "m"])
        assert time.monotonic() - start < 15  # to its end it would take 25 s and more
    finally:
        hold.set()
    assert files_in(places) == []


# ---- a password in an address is for one server and for nobody's eyes


def keep_headers(seen, then):
    def answer(handler):
        seen.append(handler.headers["Authorization"])
        then(handler)

    return answer


def test_a_password_in_a_mirrors_address_is_sent_and_never_printed(places, server, small_mnist):
    seen, mine = [], server.url.replace("https://", "https://some%40one:s%2Fcret@") + "m"
    server.answers = {
        f"/m/{NAME}.gz": keep_headers(seen, redirect(server.url + "there")),
        "/there": keep_headers(seen, lambda handler: handler.send_error(403)),
    }
    with pytest.raises(DataNotFoundError) as caught:
        obtain(places, [mine])
    assert seen == ["Basic " + base64.b64encode(b"some@one:s/cret").decode(), None]
    for text in (str(caught.value), repr(caught.value)):
        assert f"download from {server.url}m/{NAME}.gz: HTTP Error 403" in text
        assert "cret" not in text and "some%40one" not in text
    server.answers[f"/m/{NAME}.gz"] = send(gzip.compress(small_mnist[NAME], 1))
    assert obtain(places, [mine]).shape == (60_000,)


@pytest.mark.parametrize(
    "mirror",
    [
        "https://someone:secret@localhost:1/m",  # cannot be reached
        "http://someone:secret@localhost:1/m",
        "https://someone:se@secret@localhost:1/m",
        "https://someone:x/secret@localhost:1/m",
        "https://someone:secret@localhost:port/m",
        "https://someone:secret@/m",
        "https://someone:secret@[::1/m",
        "https://localhost:1/m?token=secret",
        "ftp://someone:secret@localhost/m",
    ],
)
def test_no_error_prints_a_password(places, mirror):
    with pytest.raises(DataNotFoundError) as caught:
        obtain(places, [mirror])
    error, texts = caught.value, []
    while error is not None:
        texts.append(f"{error} {error!r}")
        error = error.__cause__ or error.__context__
    assert "download from" in texts[0]
    assert not any("secret" in text or "someone" in text for text in texts)


def test_a_redirect_with_a_password_is_refused_and_not_printed(places, server):
    to = server.url.replace("https://", "https://someone:secret@") + "there"
    server.answers = {f"/m/{NAME}.gz": redirect(to)}
    with pytest.raises(DataNotFoundError) as caught:
        obtain(places, [server.url + "m"])
    assert "refused" in str(caught.value) and "secret" not in str(caught.value)


def test_a_certificate_nobody_vouches_for_is_refused(places, server, small_mnist, monkeypatch):
    server.answers = {f"/m/{NAME}.gz": send(gzip.compress(small_mnist[NAME], 1))}
    with trustme.CA().cert_pem.tempfile() as other:
        monkeypatch.setenv("SSL_CERT_FILE", other)
        with pytest.raises(DataNotFoundError, match="(?i)certificate verify failed"):
            obtain(places, [server.url + "m"])
    assert files_in(places) == [] and server.asked == []


@pytest.mark.skipif(os.name == "nt", reason="signals to oneself differ on Windows")
def test_an_interrupt_leaves_nothing_and_is_not_swallowed(places, server, small_mnist):
    body, hold, seen = gzip.compress(small_mnist[NAME], 1), threading.Event(), []

    def interrupt():
        hold.wait(0.3)
        seen.extend(files_in(places))
        os.kill(os.getpid(), signal.SIGINT)
        hold.wait(20)

    server.answers = {
        f"/m/{NAME}.gz": send(body, stop=1000, then=interrupt),
        f"/fine/{NAME}.gz": send(body),
    }
    try:
        with pytest.raises(KeyboardInterrupt):
            obtain(places, [server.url + "m", server.url + "fine"])
    finally:
        hold.set()
    assert seen == []  # it was under way; what has come is not yet a file
    assert files_in(places) == [] and f"/fine/{NAME}.gz" not in server.asked


def test_a_cache_that_cannot_be_written_is_a_reason_like_any_other(places, server, small_mnist):
    (places / "cache").rmdir()
    put(places, b"", "a-file")
    server.answers = {f"/m/{NAME}.gz": send(gzip.compress(small_mnist[NAME], 1))}
    where = [("the cache folder", places / "a-file" / "cache", ("mnist",))]
    with pytest.raises(
        DataNotFoundError, match="(?s)no such folder.*download from.*[Nn]ot a directory|exist"
    ):
        data._obtain(data._SOURCES["mnist"], NAME, where, [server.url + "m"])


# ---------------------------------------------------------------- minibatches

AWAY = strict.Device("device1")


@settings(deadline=None)
@given(
    n=st.integers(1, 40),
    width=st.integers(1, 3),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["f4", "f8", "i8"]),
)
def test_every_row_exactly_once_on_any_namespace(n, width, batch_size, seed, kind):
    x = np.arange(n * width).reshape(n, width).astype(kind)
    batches = list(minibatches(x, batch_size, rng=Random(seed)))
    sizes = [len(batch) for batch in batches]
    assert (
        sizes[:-1] == [batch_size] * (len(sizes) - 1)
        and 1 <= sizes[-1] <= batch_size
        and all(b.dtype == x.dtype for b in batches)
    )
    rows = np.concatenate(batches)
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], x)
    there = strict.asarray(x, device=AWAY)
    for rng in (
        Random(seed),
        Random(seed, Backend(strict, AWAY)),
    ):  # the same order from the host's stream and from the device's
        away = list(minibatches(there, batch_size, rng=rng))
        assert all(b.device == AWAY and b.dtype == there.dtype for b in away)
        np.testing.assert_array_equal(np.concatenate([to_numpy(b) for b in away]), rows)


def test_the_order_is_the_streams_and_every_row_gets_everywhere():
    x = np.arange(5.0)[:, None]
    order = lambda rng: np.concatenate(list(minibatches(x, 2, rng=rng)))[:, 0].astype(int)
    root = Random(3)
    np.testing.assert_array_equal(order(root.stream("epoch", 1)), order(root.stream("epoch", 1)))
    counts = np.zeros((5, 5))
    for epoch in range(2000):
        counts[np.arange(5), order(root.stream("epoch", epoch))] += 1
    assert abs(counts / 2000 - 0.2).max() < 5 * np.sqrt(
        0.2 * 0.8 / 2000
    )  # five standard errors, 25 cells


def test_batches_are_the_callers_own():
    x = np.zeros((4, 2), "f4")
    x.flags.writeable = False
    for batch in minibatches(x, 3, rng=Random(0)):
        batch += 1
    assert not x.any()


def test_minibatches_refuses_the_impossible_at_the_call():
    x = np.zeros((3, 2))
    for wrong, error in [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="batch_size"):
            minibatches(x, wrong, rng=Random(0))
    with pytest.raises(ValueError, match="at least one row"):
        minibatches(x[:0], 1, rng=Random(0))
    with pytest.raises(TypeError):
        minibatches([[1.0]], 1, rng=Random(0))
    with pytest.raises(TypeError, match="rng"):
        minibatches(x, 1)


# ---------------------------------------------------------------- import


def test_importing_is_light():
    code = (
        "import sys, biolearn.core.data\n"
        "print(*({'sklearn', 'matplotlib', 'tqdm', 'cupy', 'papermill'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert done.stdout.strip() == ""
