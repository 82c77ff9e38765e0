"""People's own pictures: what is read, how large it may be, what stands for white, and what the
messages say.
"""

import io
import resource
import struct
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import biolearn.cli.pictures as pictures
from biolearn.cli.pictures import (
    FULL_SCALES,
    MAX_PIXELS,
    MAX_TRAINED,
    full_scale,
    ground_behind,
    hidden_pixels,
    load_pictures,
    read_levels,
    read_png,
)
from biolearn.core.data import DataError, load_digits

DIGITS = load_digits().train[:30].reshape(-1, 8, 8)
SIXTEEN = np.round(DIGITS * 16)  # the grey levels they really have


def ink(data, **more):
    "All ink of `data`, sorted: a set of pictures, whatever their order."
    found = load_pictures(data, **more)
    return np.sort(np.concatenate([found.train, found.test]), axis=0)


EXPECTED = np.sort((SIXTEEN / 16).reshape(30, 64).astype("f4"), axis=0)


def folder_of(path, make):
    "A folder with one PNG for each digit, made by `make(digit)`, a PIL image."
    path.mkdir(parents=True)
    for i, digit in enumerate(DIGITS):
        make(digit).save(path / f"{i:02}.png")
    return path


def grey(levels):
    return Image.fromarray(np.round(levels).astype(np.uint8))


# ---- what is white -------------------------------------------------------------------------------


@pytest.mark.parametrize("top", FULL_SCALES[1:])
@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "i8"])
def test_whole_numbers_are_divided_by_what_stands_for_white(top, dtype, tmp_path):
    if top > np.iinfo(dtype).max:
        return
    np.save(tmp_path / "a.npy", np.round(DIGITS * top).astype(dtype))
    said = []
    found = ink(tmp_path / "a.npy", tell=said.append)
    assert np.abs(found - EXPECTED).max() <= 0.51 / top and found.dtype == np.float32
    assert f"{top} is white" in said[0] and "24 train, 0 valid, 6 test" in said[0]


@pytest.mark.parametrize("dtype", ["u1", "?", "f2", "f4", "f8", "g", ">f4", ">f8"])
def test_zeros_and_ones_of_any_type_are_black_and_white(dtype, tmp_path):
    np.save(tmp_path / "a.npy", (DIGITS > 0.5).astype(dtype))
    expected = np.sort((DIGITS > 0.5).reshape(30, 64).astype("f4"), axis=0)
    assert np.array_equal(ink(tmp_path / "a.npy"), expected)


def test_the_brightest_value_of_the_collection_decides_not_that_of_each_picture():
    assert [full_scale(n) for n in (0, 1, 2, 16, 17, 255, 256, 4095, 4096, 65535)] == [
        *(255, 1, 16, 16, 255, 255, 1023, 4095, 16383, 65535)
    ]


@pytest.mark.parametrize("bits, top", [(8, 255), (12, 4095), (16, 65535)])
def test_16_bit_files_with_fewer_bits_of_content(bits, top, tmp_path):
    make = lambda digit: Image.fromarray(np.round(digit * top).astype(np.uint16))
    found = ink(folder_of(tmp_path / "deep", make))
    assert np.abs(found - EXPECTED).max() <= 0.51 / top
    bright, opacity = read_png(tmp_path / "deep" / "00.png")
    assert np.abs(bright - DIGITS[0]).max() <= 0.51 / top and (opacity == 1).all()


@pytest.mark.parametrize(
    "array, said",
    [
        (DIGITS * 7.3, "numbers above 1.*Floating point numbers must lie in 0 to 1"),
        (DIGITS * 2 - 1, "numbers below 0"),
        (np.where(DIGITS > 2, 0, np.nan), "NaN"),
        ((SIXTEEN - 8).astype("i4"), "from -8 to 8"),
        ((SIXTEEN * 70000).astype("i8"), "from 0 to 1120000"),
        (DIGITS.astype("c8"), "complex64, not numbers"),
        (DIGITS.astype("U8"), "not numbers"),
    ],
)
def test_values_that_are_no_brightness_are_refused_with_what_is_accepted(array, said, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=f"a.npy.*{said}"):
        load_pictures(tmp_path / "a.npy")


# ---- transparency --------------------------------------------------------------------------------


def layered(colour, ground=None):
    "Makes a digit whose ink of one `colour` is its opacity, or that lies on an opaque `ground`."

    def make(digit):
        alpha = np.round(digit * 255)
        planes = [np.full((8, 8), colour)] * 3 + [alpha]
        return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8), "RGBA")

    return make


@pytest.mark.parametrize("colour", [0, 255])
def test_ink_on_a_transparent_ground(colour, tmp_path):
    said = []
    found = ink(folder_of(tmp_path / "a", layered(colour)), tell=said.append)
    assert np.abs(found - EXPECTED).max() < 0.01
    assert f"transparent pixels on a {'bright' if colour == 0 else 'dark'} ground" in said[0]


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_transparency_in_grey_and_in_palettes(mode, tmp_path):
    def make(digit):
        if mode == "LA":
            return layered(0)(digit).convert("LA")
        image = Image.fromarray((digit > 0.5).astype(np.uint8), "P")  # 0 transparent, 1 black ink
        image.putpalette([0] * 6)
        image.info["transparency"] = 0
        return image

    expected = EXPECTED if mode == "LA" else np.sort((DIGITS > 0.5).reshape(30, 64), axis=0)
    found = ink(folder_of(tmp_path / "a", make))
    assert np.abs(found - expected).max() < 0.01


def test_transparent_corners_get_the_ground_of_the_opaque_border():
    bright, opacity = np.zeros((5, 8, 8)), np.ones((5, 8, 8))
    opacity[:, :2, :2] = 0
    assert ground_behind(bright + 0.25, opacity) == 0.25
    assert ground_behind(bright, np.zeros((5, 8, 8))) in (0.0, 1.0)  # nothing to see at all


def test_colours_in_an_array_are_as_bright_as_pillow_finds_them(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", colours)
    grey = np.stack([np.asarray(Image.fromarray(x).convert("L")) for x in colours])
    oracle = np.sort(grey.reshape(20, 64) / 255, axis=0)
    found = ink(tmp_path / "x.npy", ink="bright")
    np.testing.assert_allclose(found, oracle, rtol=0, atol=1 / 255)


@pytest.mark.parametrize(
    "shape, rows, columns",
    [((4, 8), (2, 6), (0, 8)), ((8, 4), (0, 8), (2, 6)), ((2, 1), (0, 8), (2, 6))],
)
def test_what_is_scaled_to_fit_stands_in_the_middle(shape, rows, columns):
    made = pictures.fit_into(np.ones(shape, np.float32), (8, 8), 0.25)
    wanted = np.full((8, 8), 0.25)
    wanted[slice(*rows), slice(*columns)] = 1
    assert np.array_equal(made, wanted)


def test_colours_in_an_array_become_grey(tmp_path):
    rgb = np.repeat(SIXTEEN[..., None], 3, axis=-1)
    alpha = np.full((30, 8, 8, 1), 16)
    for name, array in {
        "rgb": rgb,
        "rgba": np.concatenate([rgb, alpha], axis=-1),
        "one": SIXTEEN[..., None],
    }.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.uint8))
        assert np.abs(ink(tmp_path / f"{name}.npy") - EXPECTED).max() < 1e-6, name


# ---- pictures that teach nothing -----------------------------------------------------------------


def test_pictures_that_are_all_alike_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.repeat(SIXTEEN[:1], 30, axis=0).astype(np.uint8))
    folder_of(tmp_path / "b", lambda digit: grey(np.zeros((8, 8))))
    test_alike = np.repeat(SIXTEEN[:1], 30, axis=0)
    order = np.random.RandomState(0).permutation(30)
    test_alike[order[:24]] = SIXTEEN[:24]  # only the last fifth, the test, does not vary
    np.save(tmp_path / "c.npy", test_alike.astype(np.uint8))
    for name in ("a.npy", "b", "c.npy"):
        with pytest.raises(DataError, match=f"{name}: all .* are alike"):
            load_pictures(tmp_path / name)


# ---- one odd file, other files, subfolders -------------------------------------------------------


@pytest.mark.parametrize("odd", ["00.png", "07.png", "29.png"])
def test_one_picture_of_another_size_is_named_wherever_it_stands(odd, tmp_path):
    folder = folder_of(tmp_path / "a", lambda digit: grey(digit * 255))
    grey(np.zeros((8, 9))).save(folder / odd)
    with pytest.raises(DataError, match=f"{odd} has 9 x 8 pixels, .*has 8 x 8.*1 of 30"):
        load_pictures(folder)


@pytest.mark.parametrize("broken", ["text", "jpeg", "cut", "empty"])
def test_one_broken_picture_is_named_with_why(broken, tmp_path):
    folder = folder_of(tmp_path / "a", lambda digit: grey(digit * 255))
    file = folder / "07.png"
    good = file.read_bytes()
    if broken == "jpeg":
        grey(DIGITS[0]).save(file, format="JPEG")
    else:
        file.write_bytes({"text": b"a picture", "cut": good[:60], "empty": b""}[broken])
    with pytest.raises(ValueError, match=r"07\.png is not a PNG picture") as error:
        load_pictures(folder)
    assert broken != "jpeg" or "it is a JPEG" in str(error.value)


def test_what_is_no_picture_is_passed_over_with_a_word(tmp_path):
    folder = folder_of(tmp_path / "a", lambda digit: grey(digit * 255))
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "._00.png").write_bytes(b"what a Mac leaves on foreign disks")
    (folder / "later").mkdir()
    said = []
    assert ink(folder, tell=said.append).shape == (30, 64) and "passed over: Thumbs.db" in said[0]


def test_the_pictures_of_class_subfolders_are_taken_together(tmp_path):
    for k in range(3):
        folder_of(tmp_path / "all" / str(k), lambda digit: grey(digit * (255 - k)))
    (tmp_path / "all" / "empty").mkdir()
    said = []
    found = load_pictures(tmp_path / "all", tell=said.append)
    assert len(found.train) + len(found.test) == 90 and "90 PNGs from 3 subfolders" in said[0]


def test_a_folder_without_pngs_says_what_it_holds(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no PNG files in this folder \(it holds photo.jpg"):
        load_pictures(tmp_path)


# ---- which axis is which -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, said",
    [
        ((64, 64), r"\(64, 64\), which may be one picture"),
        ((28, 28), "may be one picture"),
        ((30, 63), "at least ten pictures"),
        ((9, 8, 8), "at least ten pictures"),
        ((480, 640, 3), "at least ten pictures"),
        ((64,), "at least ten pictures"),
        ((), "at least ten pictures"),
        ((30, 0, 8), "array of shape"),
    ],
)
def test_shapes_that_are_no_pictures_or_may_be_two_things(shape, said, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=said):
        load_pictures(tmp_path / "a.npy")


# ---- bounds before memory is asked for -----------------------------------------------------------


def png_of_zeros(path, columns, rows):
    "A PNG of one grey level, as small a file as can be, whatever its size."
    squeeze = zlib.compressobj(9)
    data = b"".join(squeeze.compress(bytes(1 + columns)) for _ in range(rows)) + squeeze.flush()

    def chunk(kind, body):
        sum_ = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", sum_)

    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    return path


def test_a_small_file_that_would_unfold_to_millions_of_pixels_is_refused_unopened(tmp_path):
    bomb = png_of_zeros(tmp_path / "bomb.png", 13000, 13000)
    assert bomb.stat().st_size < 400_000
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=f"13000 x 13000 pixels.*at most {MAX_PIXELS:,}"):
        read_png(bomb)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    scale = 2**20 if sys.platform == "darwin" else 2**10
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / scale < 20


def test_photos_too_large_to_train_on_are_told_so(tmp_path):
    for i in range(10):
        png_of_zeros(tmp_path / f"{i}.png", 1920, 1080)
    with pytest.raises(DataError, match=f"1920 x 1080 pixels.*at most {MAX_TRAINED:,}.*trained on"):
        load_pictures(tmp_path)
    np.save(tmp_path / "a.npy", np.zeros((10, 300, 300), np.uint8))
    with pytest.raises(DataError, match="300 x 300 pixels"):
        load_pictures(tmp_path / "a.npy")
    assert read_levels(tmp_path / "0.png").levels.shape == (1080, 1920)  # to in-paint it is


def test_an_array_that_no_memory_would_hold_is_refused_by_its_header(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (2**22, 28, 28)}
    )
    with open(tmp_path / "a.npy", "wb") as file:
        file.write(head.getvalue())
        file.truncate(len(head.getvalue()) + 2**22 * 784)  # a hole: it takes no room on the disk
    with pytest.raises(DataError, match="a.npy holds 4194304 x 28 x 28 numbers; at most"):
        load_pictures(tmp_path / "a.npy")


def test_hiding_half_of_a_photo_takes_no_list_of_its_pixels():
    opacity = np.ones((3000, 4000), np.float32)
    tracemalloc.start()
    hidden = hidden_pixels(opacity, None, "right")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert hidden[:, 2000:].all() and not hidden[:, :2000].any()
    assert peak < 40 * opacity.size  # bytes: it was 120 for each pixel


# ---- damaged files -------------------------------------------------------------------------------


def damaged():
    whole = io.BytesIO()
    np.savez_compressed(whole, images=SIXTEEN.astype(np.uint8))
    data = whole.getvalue()
    yield "cut", data[: len(data) // 2]
    yield "no directory", data[:-30]
    yield "flipped", data[:80] + bytes(b ^ 255 for b in data[80:120]) + data[120:]
    yield "text", b"numbers"
    yield "empty", b""
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("images.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': ")
    yield "header cut", other.getvalue()
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("images.npy", b"no array")
    yield "no array", other.getvalue()
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("readme.txt", b"hello")
    yield "no array at all", other.getvalue()


@pytest.mark.parametrize("data", [pytest.param(d, id=name) for name, d in damaged()])
def test_a_damaged_npz_is_named_and_is_no_defect_of_ours(data, tmp_path):
    (tmp_path / "mine.npz").write_bytes(data)
    with pytest.raises(DataError, match="mine.npz"):
        load_pictures(tmp_path / "mine.npz")


@pytest.mark.parametrize("n", [0, 5, 10, 60, 100])
def test_a_damaged_npy_is_named(n, tmp_path):
    np.save(tmp_path / "mine.npy", SIXTEEN)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "mine.npy").read_bytes()[:n])
    with pytest.raises(DataError, match="cut.npy"):
        load_pictures(tmp_path / "cut.npy")


def test_suffixes_in_capitals_are_the_same_suffixes(tmp_path):
    with open(tmp_path / "A.NPY", "wb") as file:
        np.save(file, SIXTEEN.astype(np.uint8))
    with open(tmp_path / "B.NPZ", "wb") as file:
        np.savez(file, SIXTEEN.astype(np.uint8))
    folder = folder_of(tmp_path / "c", lambda digit: grey(digit * 255))
    for file in list(folder.iterdir()):
        file.rename(file.with_suffix(".PNG"))
    for name in ("A.NPY", "B.NPZ", "c"):
        assert np.abs(ink(tmp_path / name) - EXPECTED).max() < 0.003


def test_a_file_of_no_known_kind_says_what_is_accepted(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(DataError, match="a.txt is not an IDX file.*Accepted are.*folder of PNGs"):
        load_pictures(tmp_path / "a.txt")
    grey(DIGITS[0] * 255).save(tmp_path / "one.png")
    with pytest.raises(DataError, match="one.png is one picture: name the folder"):
        load_pictures(tmp_path / "one.png")
    assert pictures.load_pictures("digits").name == "digits"
