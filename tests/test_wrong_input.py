"""Every public name is tried with what people hand in by mistake: each is refused by the name of the
argument, before any work; what is lawful is taken.
"""

import inspect
from pathlib import Path

import numpy as np
import pytest

import biolearn as bl
from biolearn.core.arrays import check_scale
from biolearn.core.inference import Inference
from biolearn.core.layers import REACH

pandas = pytest.importorskip("pandas")  # scikit-learn's own checks need it as well

SEEN = bl.half_masks((4, 4))["top"]
X = np.random.default_rng(0).random((12, 16)).astype("f4")
CONFIG = bl.TrainConfig(epochs=1, batch_size=4, n_steps=2)
MODEL = bl.fit(
    bl.init_model((16, 8, 4), ("sigmoid", "softplus", "sigmoid")), X, CONFIG, progress=False
)[0]
H = bl.infer(MODEL, X)
ESTIMATOR = bl.DeepDAE((8, 4), epochs=1, batch_size=4, random_state=0).fit(X)
NAN = X.copy()
NAN[3, 4] = np.nan


# ---- wrong values, by kind -----------------------------------------------------------------------


def changed(a, value):
    a = a.copy()
    a[1, 1] = value
    return a


def arrays(a):
    "What is handed in for an array (rows, columns) by mistake."
    return {
        "None": None,
        "text": "abc",
        "number": 3,
        "dict": {},
        "function": len,
        "list": a.tolist(),
        "empty list": [],
        "too wide": np.concatenate([a, a[:, :1]], 1),
        "one axis": a[0],
        "three axes": a[None],
        "four axes": a[None, None],
        "no rows": a[:0],
        "no columns": a[:, :0],
        "NaN": changed(a, np.nan),
        "infinite": changed(a, np.inf),
        "0..255": a * 255,
        "bytes": (a * 255).astype("u1"),
        "whole numbers": (a * 255).astype(int),
        "complex": a.astype(complex),
        "objects": a.astype(object),
        "texts": a.astype(str),
        "dates": a.astype("M8[s]"),
        "frame": pandas.DataFrame(a),
        "series": pandas.Series(a[:, 0]),
    }


NUMBERS = {
    "None": None,
    "text": "abc",
    "negative": -1,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "list": [1],
    "array": X,
    "complex": 1j,
    "yes": True,
}
WHOLE = NUMBERS | {"half": 0.5, "beyond reason": 10**30}
MODELS = {
    "None": None,
    "text": "abc",
    "estimator": ESTIMATOR,
    "path": Path("x"),
    "array": X,
    "class": bl.Model,
    "list": [MODEL],
}
RANDOMS = {"None": None, "text": "a", "half": 0.5, "yes": True, "list": [0], "array": X}
RANDOMS |= {"generator": np.random.default_rng(0)}
THINGS = {"text": "abc", "number": 3, "dict": {}, "class": bl.Inference, "array": X}
PATHS = {"None": None, "number": 3, "array": X, "list": ["a"]}
CHOICES = {"None": None, "unknown": "abc", "number": 3, "empty": "", "array": X, "list": ["cpu"]}
SIZES = {
    "None": None,
    "number": 3,
    "text": "abc",
    "empty": (),
    "one": (3,),
    "negative": (4, -1, 4),
    "zero": (4, 0, 4),
    "half": (4, 0.5, 4),
    "texts": ("a", "b", "c"),
    "array": X,
}
UNITS = {
    "None": None,
    "number": 3,
    "text": "abc",
    "empty": (),
    "few": ("sigmoid",),
    "unknown": ("sigmoid", "x", "sigmoid"),
    "numbers": (1, 2, 3),
}
MASKS = {
    "None": None,
    "text": "abc",
    "number": 3,
    "list": SEEN.tolist(),
    "floats": SEEN.astype("f4"),
    "whole numbers": SEEN.astype(int),
    "short": SEEN[:5],
    "few rows": np.ones((3, 16), bool),
    "empty": SEEN[:0],
    "objects": SEEN.astype(object),
}
STATES = {
    "None": None,
    "text": "abc",
    "pixels only": H[:1],
    "too many": H + H,
    "empty": [],
    "lists": [layer.tolist() for layer in H],
    "None inside": [None, *H[1:]],
    "upside down": H[::-1],
    "whole numbers": [layer.astype(int) for layer in H],
    "complex": [layer.astype(complex) for layer in H],
    "one axis": [layer[0] for layer in H],
    "fewer pictures": [H[0][:5], *H[1:]],
}
SHAPES = {
    "None": None,
    "number": 4,
    "text": "ab",
    "one": (16,),
    "three": (4, 4, 1),
    "negative": (-4, -4),
    "zero": (0, 4),
    "floats": (4.0, 4.0),
    "texts": ("a", "b"),
}
LABELS = {
    "text": "abc",
    "short": np.zeros(3, int),
    "floats": np.zeros(12),
    "two axes": np.zeros((12, 1), int),
    "objects": np.zeros(12, object),
    "texts": np.array(["a"] * 12),
}
GRIDS = {
    "None": None,
    "number": 0.2,
    "text": "abc",
    "one": [0.2],
    "empty": [],
    "negative": [-1, 0.2],
    "texts": ["a", "b"],
    "NaN": [float("nan"), 0.2],
    "array": X,
}
OVERRIDES = {"text": "a", "number": 3, "unknown": {"a": 1}, "list": [1]}


def without(kinds, *names):
    assert kinds.keys() >= set(names)
    return {name: value for name, value in kinds.items() if name not in names}


NO_VALUES = ("NaN", "infinite", "0..255")  # of what only type and shape are looked at
LAWFUL_TO_SKLEARN = ("list", "objects", "texts", "dates", "frame")  # it converts them
PIXELS, CODES = arrays(X), arrays(H[-1])
IMAGES = without(PIXELS, "list", "frame")

# name: the function, its lawful arguments, and what is handed in for one of them in their place
WALK = {
    "fit": (
        bl.fit,
        dict(model=MODEL, x=X, config=CONFIG, rng=0, progress=False),
        dict(
            model=MODELS,
            x=PIXELS,
            config=THINGS,
            rng=RANDOMS,
            checkpoint={"number": 3, "array": X, "empty": ""},
        ),
    ),
    "fit_many": (
        bl.fit_many,
        dict(models=[MODEL], x=X, config=CONFIG, rngs=[0], progress=False),
        dict(
            models={"None": None, "model": MODEL, "empty": [], "texts": ["a"], "two": [MODEL] * 2},
            x=PIXELS,
            config=THINGS,
            rngs={"None": None, "number": 0, "few": [], "texts": ["a"]},
        ),
    ),
    "infer": (
        bl.infer,
        dict(model=MODEL, x=X),
        dict(
            model=MODELS,
            x=PIXELS,
            inference=THINGS,
            visible=without(MASKS, "None"),
            threads={"number": 3, "text": "a"},
        ),
    ),
    "encode": (
        bl.encode,
        dict(model=MODEL, x=X),
        dict(model=MODELS, x=without(PIXELS, "three axes", *NO_VALUES)),
    ),
    "decode": (
        bl.decode,
        dict(model=MODEL, h_top=H[-1]),
        dict(model=MODELS, h_top=without(CODES, "three axes", *NO_VALUES)),
    ),
    "log_p_joint": (bl.log_p_joint, dict(model=MODEL, h=H), dict(model=MODELS, h=STATES)),
    "generate": (
        bl.generate,
        dict(model=MODEL, n=3),
        dict(
            model=MODELS,
            n=WHOLE | {"zero": 0},
            rounds=WHOLE,
            inference=THINGS,
            noise=NUMBERS,
            rng=RANDOMS,
        ),
    ),
    "sample_directed": (
        bl.sample_directed,
        dict(model=MODEL, n=3),
        dict(model=MODELS, n=WHOLE | {"zero": 0}, rng=RANDOMS),
    ),
    "inpaint": (
        bl.inpaint,
        dict(model=MODEL, x=X, visible=SEEN, rounds=2),
        dict(model=MODELS, x=PIXELS, visible=MASKS, rounds=WHOLE, inference=THINGS, rng=RANDOMS),
    ),
    "half_masks": (
        bl.half_masks,
        dict(image_shape=(4, 4)),
        dict(image_shape=SHAPES, backend={"None": None, **THINGS}),
    ),
    "parzen_log_likelihood": (
        bl.parzen_log_likelihood,
        dict(test=X, samples=X, sigma=0.2),
        dict(
            test=without(PIXELS, "0..255", "too wide"),
            samples=without(PIXELS, "0..255"),
            sigma=NUMBERS | {"zero": 0},
            chunk=without(NUMBERS, "None") | {"half": 0.5, "zero": 0},
        ),
    ),
    "choose_sigma": (
        bl.choose_sigma,
        dict(valid=X, samples=X, grid=[0.1, 0.2, 0.3]),
        dict(
            valid=without(PIXELS, "0..255", "too wide"),
            samples=without(PIXELS, "0..255"),
            grid=GRIDS,
            chunk=without(NUMBERS, "None") | {"half": 0.5, "zero": 0},
        ),
    ),
    "from_arrays": (
        bl.from_arrays,
        dict(train=X),
        dict(
            train=without(PIXELS, "list", "frame", "too wide", "three axes", "bytes"),
            train_labels=LABELS,
            valid=without(PIXELS, "None", "list", "frame", "bytes"),
            test=without(PIXELS, "None", "list", "frame", "bytes"),
        ),
    ),
    "digit_sheet": (
        bl.digit_sheet,
        dict(images=X, image_shape=(4, 4)),
        dict(
            images=IMAGES,
            image_shape=SHAPES | {"of other pictures": (3, 3)},
            rows=without(WHOLE, "beyond reason") | {"zero": 0},
            labels={"number": 3, "few": ["a"], "text": "abc"},
        ),
    ),
    "init_model": (
        bl.init_model,
        dict(sizes=(16, 8, 4), units=MODEL.units),
        dict(sizes=SIZES, units=UNITS, rng=RANDOMS),
    ),
    "Model": (
        bl.Model,
        dict(pairs=MODEL.pairs),
        dict(
            pairs={
                "None": None,
                "empty": (),
                "model": MODEL,
                "texts": ("a",),
                "pair": MODEL.pairs[0],
            }
        ),
    ),
    "Inference": (
        bl.Inference,
        {},
        dict(
            n_steps=without(WHOLE, "beyond reason"),
            delta=NUMBERS,
            alpha=NUMBERS | {"two": 2},
            direction=without(THINGS, "class"),
        ),
    ),
    "TrainConfig": (
        bl.TrainConfig,
        {},
        dict(
            epochs=without(WHOLE, "beyond reason") | {"zero": 0},
            batch_size=without(WHOLE, "beyond reason") | {"zero": 0},
            n_steps=without(WHOLE, "beyond reason"),
            delta=NUMBERS,
            alpha=NUMBERS,
            noise={"number": 0.1, "text": "spikes", "negative": (-1, 0, 0), "word": ("x", 0, 0)},
            rate_f={"number": 0.1, "negative": (-1, 1), "text": "ab"},
            rate_g={"number": 0.1, "negative": (-1, 1), "text": "ab"},
            optimizer=CHOICES,
            decay={"None": None, **THINGS},
            direction=CHOICES,
        ),
    ),
    "Random": (
        bl.Random,
        dict(seed=0),
        dict(seed=without(WHOLE, "beyond reason"), backend=THINGS),
    ),
    "use_device": (bl.use_device, {}, dict(device=CHOICES)),
    "load_dataset": (bl.load_dataset, dict(name="digits"), dict(name=CHOICES)),
    "save_model": (
        bl.save_model,
        dict(path="m.safetensors", model=MODEL),
        dict(path=PATHS, model=MODELS),
    ),
    "load_model": (
        bl.load_model,
        dict(path="m.safetensors"),
        dict(path=PATHS | {"folder": "."}, backend={"None": None, **THINGS}),
    ),
    "load_trained": (
        bl.load_trained,
        dict(name="paper"),
        dict(
            name=CHOICES,
            backend={"None": None, **THINGS},
        ),
    ),
    "reproduce": (
        bl.reproduce,
        dict(out="o", only=["fig1"]),
        dict(
            profile={"None": None, **without(THINGS, "array")},
            device=without(CHOICES, "array"),
            seed=without(WHOLE, "beyond reason"),
            out={"number": 3, "array": X},
            overrides=OVERRIDES,
            cell_limit=NUMBERS,
            workers=without(WHOLE, "None", "beyond reason") | {"zero": 0},
        ),
    ),
    "trained_run": (
        bl.trained_run,
        dict(out="o"),
        dict(
            profile={"None": None, **THINGS},
            device=CHOICES,
            seed=without(WHOLE, "beyond reason"),
            out={"number": 3, "array": X},
            overrides=OVERRIDES,
        ),
    ),
    "DeepDAE": (
        lambda X, **settings: bl.DeepDAE(**settings).fit(X),
        dict(X=X, hidden=(8, 4), epochs=1, batch_size=4),
        dict(
            X=without(PIXELS, *LAWFUL_TO_SKLEARN, "too wide", "0..255", "bytes", "whole numbers"),
            hidden=without(SIZES, "one"),
            units=without(UNITS, "None"),
            data_range={"None": None, "number": 3, "one": (1,), "falls": (1, 0), "words": ("a", 1)},
            epochs=without(WHOLE, "beyond reason"),
            callbacks={"number": 3, "function": len, "texts": ["a"], "text": "abc"},
            checkpoint={"number": 3, "empty": "", "array": X},
            random_state={"negative": -1, "half": 0.5, "text": "a"},
        ),
    ),
    "DeepDAE.transform": (
        ESTIMATOR.transform,
        dict(X=X),
        dict(X=without(PIXELS, *LAWFUL_TO_SKLEARN)),
    ),
    "DeepDAE.score": (ESTIMATOR.score, dict(X=X), dict(X=without(PIXELS, *LAWFUL_TO_SKLEARN))),
    "DeepDAE.inverse_transform": (
        ESTIMATOR.inverse_transform,
        dict(X=H[-1]),
        dict(X=without(CODES, *LAWFUL_TO_SKLEARN, "0..255", "bytes", "whole numbers")),
    ),
    "DeepDAE.sample": (
        ESTIMATOR.sample,
        dict(n_samples=2),
        dict(n_samples=WHOLE | {"zero": 0}, rounds=WHOLE),
    ),
    "DeepDAE.inpaint": (
        ESTIMATOR.inpaint,
        dict(X=X, visible=SEEN),
        dict(
            X=without(PIXELS, *LAWFUL_TO_SKLEARN, "NaN"),
            visible=without(MASKS, "None", "list"),
            rounds=WHOLE,
        ),
    ),
    "DeepDAE.save": (ESTIMATOR.save, dict(path="e.safetensors"), dict(path=PATHS)),
    "DeepDAE.load": (
        bl.DeepDAE.load,
        dict(path="e.safetensors"),
        dict(path=PATHS | {"folder": "."}, device=CHOICES),
    ),
}

# How a message may call an argument that it does not call by its name.
WORDS = {
    "n": "number of samples",
    "n_samples": "number of samples",
    "models": "model",
    "rngs": "rng",
    "sizes": "sizes|number of units",
    "hidden": "hidden|number of units",
    "units": "unit",
    "rate_f": "rate",
    "rate_g": "rate",
    "image_shape": "image",
    "h": r"\bh\b",
    "x": r"\bx\b",
    "X": r"\bX\b|\bx\b|2D array|dim [34]|0 (sample|feature)|2-dimensional|NaN|infinity|real number|to float|Complex data",
    "random_state": "[Ss]eed|RandomState",
    "path": "path| is a folder",
    "only": "notebook",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name, argument", [(n, a) for n, (_, _, args) in WALK.items() for a in args]
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_handed_in_by_mistake_is_refused_by_name(name, argument, tmp_path):
    function, lawful, wrong = WALK[name]
    taken, unclear = [], []
    for kind, value in wrong[argument].items():
        try:
            function(**lawful | {argument: value})
        except (ValueError, TypeError) as e:
            said = pytest.RaisesExc((ValueError, TypeError), match=WORDS.get(argument, argument))
            if not said.matches(e):
                unclear.append(f"{kind}: {e}")
        else:
            taken.append(kind)
    assert not taken and not unclear
    assert not [*tmp_path.iterdir()], "something was written before"


def test_every_public_name_is_tried():
    tried = {name.partition(".")[0] for name in WALK}
    assert tried == {*bl.__all__} - {"DivergenceError"}


def test_the_walk_knows_the_arguments_that_there_are():
    for name, (function, lawful, wrong) in WALK.items():
        there = inspect.signature(bl.DeepDAE if name == "DeepDAE" else function).parameters
        assert {*lawful, *wrong} - {"X"} <= {*there}, name


# ---- pictures on another scale -------------------------------------------------------------------


@pytest.mark.parametrize("scale", [255, 16, -255])
@pytest.mark.parametrize(
    "take",
    [
        lambda x: bl.infer(MODEL, x),
        lambda x: bl.inpaint(MODEL, x, SEEN),
        ESTIMATOR.transform,
        ESTIMATOR.score,
        lambda x: ESTIMATOR.inpaint(x, SEEN),
        lambda x: bl.digit_sheet(x, (4, 4)),
    ],
)
def test_pictures_on_another_scale_are_refused(take, scale):
    with pytest.raises(ValueError, match=r"runs from .* from 0 to 1: .* divided by 255"):
        take(X * scale)


def test_the_scale_of_an_estimator_is_that_of_its_data():
    estimator = bl.DeepDAE((8, 4), epochs=1, batch_size=4, data_range=(0, 255)).fit(X * 255)
    assert estimator.transform(X * 255).shape == (12, 4)
    with pytest.raises(ValueError, match="X runs from .* from 0 to 255"):
        estimator.transform(X * 255 * 255)


def test_noise_beyond_the_range_is_lawful():
    noisy = X + 0.2 * bl.Random(0).normal(X.shape)
    assert noisy.min() < 0 and noisy.max() > 1
    assert bl.infer(MODEL, noisy)[-1].shape == ESTIMATOR.transform(noisy).shape == (12, 4)


def test_hidden_pixels_may_hold_anything():
    x = np.where(SEEN, X, np.float32(255))
    assert (bl.inpaint(MODEL, x, SEEN) == bl.inpaint(MODEL, X, SEEN)).all()


def test_units_without_two_bounds_have_no_scale():
    for unit in REACH:
        model = bl.init_model((16, 8, 4), (unit, "softplus", "sigmoid"))
        if None in REACH[unit]:
            assert bl.infer(model, X * 255)[-1].shape == (12, 4)
        else:
            with pytest.raises(ValueError, match="x runs from"):
                bl.infer(model, X * 255)


def test_an_inference_called_by_itself_asks_nothing():
    assert Inference()(MODEL, X * 255)[-1].shape == (12, 4)


def test_the_scale_is_twice_the_range_wider_and_no_more(backend):
    x = backend.asarray([[-1.0, 2.0]])
    check_scale(x, "x", 0, 1)
    for beyond in (-1.01, 2.01):
        with pytest.raises(ValueError, match="x runs from"):
            check_scale(backend.asarray([[beyond, 0.5]]), "x", 0, 1)


# ---- what is lawful ------------------------------------------------------------------------------


def test_nan_stays_nan_in_the_inner_steps():
    "`encode` and `decode` run in every step of training: they do not look at numbers."
    assert np.isnan(bl.encode(MODEL, NAN)[-1][3]).all()
    assert np.isnan(bl.log_p_joint(MODEL, [NAN, *H[1:]])[3])


@pytest.mark.parametrize("kind", ["<f8", ">f4", "f2", "bool", "u1", "i8"])
def test_other_numbers_on_the_scale_are_taken(kind):
    bits = (X > 0.5).astype(kind)
    assert bl.infer(MODEL, bits)[-1].dtype == np.float32
    assert bl.inpaint(MODEL, bits, SEEN).shape == X.shape


def test_lists_and_frames_are_taken_where_scikit_learn_takes_them():
    there = ESTIMATOR.transform(X)
    for same in (X.tolist(), pandas.DataFrame(X), X.astype(object)):
        np.testing.assert_allclose(ESTIMATOR.transform(same), there, atol=1e-5)
