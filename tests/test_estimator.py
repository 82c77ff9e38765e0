"""DeepDAE for people who know scikit-learn: its own suite of checks, the same bits as the
functional core, and errors that help.
"""

import contextlib
import copy
import gc
import importlib
import os
import pickle
import struct
import sys
import types
from dataclasses import asdict, replace
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import biolearn.core.checkpoints as checkpoints
import biolearn.core.learning as learning
import biolearn.estimator as module
from biolearn.core.arrays import DeviceError, to_numpy, use_device
from biolearn.core.checkpoints import read_notes, save_model
from biolearn.core.data import load_digits, load_mnist_small, minibatches
from biolearn.core.generation import generate, inpaint
from biolearn.core.inference import Inference, infer
from biolearn.core.learning import DivergenceError, TrainConfig, new_train_state, train_step
from biolearn.core.model import decode, encode, init_model, log_p_joint
from biolearn.core.priors import fit_top_prior
from biolearn.core.rng import Random
from biolearn.estimator import DeepDAE, log_to_mlflow, log_to_tensorboard, scalars
from biolearn.reproduction.profiles import PROFILES
from biolearn.theory.stability import starting_noise

SMALL = dict(hidden=(12, 5), epochs=2, batch_size=20, noise=(0.2, 0.1, "spikes"), random_state=3)
UNITS = ("sigmoid", "softplus", "sigmoid")


def small(**overrides):
    return DeepDAE(**SMALL | overrides)


@pytest.fixture(scope="module")
def x():
    return load_digits().train[:50]


def weights(model):
    return [
        to_numpy(w)
        for pair in model.pairs
        for dense in (pair.f, pair.g)
        for w in (dense.W, dense.b)
    ]


def same(a, b):
    return all((v == w).all() for v, w in zip(weights(a), weights(b), strict=True))


def core_fit(x, seed=3, **overrides):
    "What `small().fit` should be, by the functional core."
    recipe = TrainConfig(
        **dict(
            epochs=2,
            batch_size=20,
            noise=(0.2, 0.1, "spikes"),
            rate_f=(3e-4, 1e-3),
            rate_g=(1e-3, 2e-3),
        )
        | overrides
    )
    start = init_model((x.shape[1], 12, 5), UNITS, rng=Random(seed).stream("init"))
    return *learning.fit(start, x, recipe, rng=Random(seed).stream("train"), progress=False), recipe


# ---- scikit-learn's own suite --------------------------------------------------------------------


@parametrize_with_checks([DeepDAE()])
def test_scikit_learns_own_checks_with_the_default_arguments(estimator, check):
    try:
        check(estimator)
    except SkipTest as e:
        pytest.fail(f"a check was skipped: {e}")


MORE_CHECKS = [
    "check_dataframe_column_names_consistency",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_estimators_partial_fit_n_features",
]


@pytest.mark.parametrize("name", MORE_CHECKS)
def test_checks_that_scikit_learn_keeps_for_its_own_estimators(name):
    "Feature names, tables in and out."
    if "pandas" in name or "dataframe" in name:
        pytest.importorskip("pandas")
    getattr(estimator_checks, name)("DeepDAE", DeepDAE(hidden=(8, 4), epochs=2))


def test_no_tag_switches_a_check_off():
    tags = DeepDAE().__sklearn_tags__()
    assert (
        not (
            tags.no_validation
            or tags.non_deterministic
            or tags._skip_test
            or tags.input_tags.allow_nan
            or tags.input_tags.pairwise
        )
        and tags.requires_fit
    )
    assert tags.input_tags.two_d_array and tags.transformer_tags.preserves_dtype == [
        "float64",
        "float32",
    ]


# ---- the functional core -------------------------------------------------------------------------


def test_the_defaults_are_the_papers():
    "One home for what is not said: the core's."
    profile = PROFILES["paper"]
    assert module._config(DeepDAE()) == TrainConfig() and DeepDAE().hidden == profile.hidden
    assert module._config(DeepDAE()).for_layers(2) == profile.recipe


def asked_of_fit(monkeypatch, X, **settings):
    "(model, config) with which `DeepDAE(**settings).fit(X)` calls the core."
    asked = []
    monkeypatch.setattr(
        module, "fit", lambda model, x, config, **more: asked.append((model, config))
    )
    with pytest.raises(TypeError):  # the stand-in returns nothing
        DeepDAE(**settings).fit(X)
    return asked.pop()


def test_with_nothing_said_it_trains_the_papers_recipe_for_its_depth(monkeypatch):
    digits = load_mnist_small().train
    for hidden in ((9,), (9, 8), (9, 8, 7)):
        model, config = asked_of_fit(monkeypatch, digits, hidden=hidden)
        usual = TrainConfig().for_model(model)
        assert asdict(config) == asdict(usual)  # on MNIST the noise that is found is the recipe's
        assert model.units == ("sigmoid", *("softplus",) * (len(hidden) - 1), "sigmoid")


def test_with_nothing_said_the_noise_suits_the_data(x, monkeypatch):
    first = starting_noise(x)
    s_2 = np.linalg.eigvalsh(np.cov(x.T))[-2] ** 0.5  # 8 x 8 digits
    assert first == pytest.approx(0.26 * s_2, rel=0.05) and first < 0.3
    for X in (x, 16 * x, 255 * x - 100):  # the noise is that of the visible units
        config = asked_of_fit(monkeypatch, X, hidden=(9, 8))[1]
        assert config.noise == (first, 0.1, "spikes")
        assert config.noise_end == (pytest.approx(0.8 * first, rel=0.05), 0.1, "spikes")
    assert asked_of_fit(monkeypatch, x, noise=(0.4, 0.1, "spikes"))[1].noise[0] == 0.4


def test_what_learns_on_keeps_the_noise_of_the_first_data(x, tmp_path, monkeypatch):
    quiet = x / 10
    stream = small(noise=None, data_range=(0, 1)).partial_fit(x)
    assert stream.noise_[0] == starting_noise(x) > 2 * starting_noise(quiet)
    stream.save(tmp_path / "stream.safetensors")
    loaded = DeepDAE.load(tmp_path / "stream.safetensors")
    used = []
    monkeypatch.setattr(
        module, "_pass", lambda stream, x, config, *rest: used.append(config) or np.ones((2, 2))
    )
    for estimator in (stream, loaded):
        estimator.partial_fit(quiet)
        assert used.pop().noise == stream.noise_ == loaded.noise_


def test_a_first_call_with_rows_that_do_not_differ_keeps_the_usual_noise(x):
    assert small(noise=None).partial_fit(x[:1]).noise_ == (0.5, 0.1, "spikes")
    assert small(noise=None).fit(np.ones((30, 4))).noise_[0] == 0.5


def test_what_is_set_after_fit_does_not_stand_in_the_way_of_load(x, tmp_path):
    mine = small(noise=None).fit(x).set_params(hidden=(5, 4, 3), noise=(0.1,))
    mine.save(tmp_path / "m.safetensors")
    assert DeepDAE.load(tmp_path / "m.safetensors").noise_ == mine.noise_


def test_a_pickle_from_before_the_noise_was_found_learns_on_and_is_saved(x, tmp_path):
    old = small(noise=None).fit(x)
    del old.noise_
    old.partial_fit(x)
    old.save(tmp_path / "old.safetensors")
    assert DeepDAE.load(tmp_path / "old.safetensors").noise_ == (0.5, 0.1, "spikes")


def test_a_file_from_before_the_noise_was_found_says_what_was_used(x, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAVED", ("seed_", "data_range_", "history_", "_rows"))
    path = tmp_path / "old.safetensors"
    for noise, used in ((None, 0.5), ((0.2, 0.1, "spikes"), 0.2)):
        small(noise=noise).fit(x).save(path)
        assert DeepDAE.load(path).noise_ == (used, 0.1, "spikes")
        path.unlink()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_gives_the_same_bits_as_the_core(x, dtype):
    model, history, _ = core_fit(x)
    mine = small().fit(x.astype(dtype))
    assert (
        same(mine.model_, model)
        and mine.history_ == history
        and mine.n_iter_ == 2
        and mine.data_range_ == (0, 1)
    )
    assert (mine.model_.prior.mean == model.prior.mean).all() and (
        mine.model_.prior.var == model.prior.var
    ).all()
    assert not same(small(random_state=4).fit(x).model_, model)


def test_other_ranges_are_mapped_to_the_pictures_own(x):
    model, *_ = core_fit(x)
    grey = np.round(16 * x)
    assert x.min() == 0 and x.max() == 1
    for data_range in ("auto", (0, 16)):
        mine = small(data_range=data_range).fit(grey)
        assert same(mine.model_, model) and mine.data_range_ == (0, 16)
    assert (
        np.abs(
            mine.inverse_transform(mine.transform(grey))
            - 16 * small().fit(x).inverse_transform(mine.transform(grey))
        ).max()
        < 1e-4
    )
    assert (
        mine.sample(4).max() > 2
        and (mine.inpaint(grey, np.arange(64) < 32)[:, :32] == grey[:, :32]).all()
    )
    with pytest.raises(ValueError, match="X runs from 0 to 16.*0 to 15"):
        small(data_range=(0, 15)).fit(grey)
    with pytest.raises(ValueError, match="X runs from 0 to 17.*0 to 16"):
        mine.partial_fit(grey).partial_fit(grey * 17 / 16)
    odd = np.asarray([[-0.1, 0.7]] * 20 + [[0.3, 1 / 3]], "float32") * np.float32(
        1e3
    )  # ends that float32 cannot tell exactly
    assert small().fit(odd).data_range_ == (odd.min(), odd.max())
    real = np.random.default_rng(0).normal(5, 3, (30, 4))
    assert small(units=("linear", "softplus", "sigmoid")).fit(real).data_range_ == (0, 1)
    assert small().fit(real).data_range_ == (real.min(), real.max())


@pytest.mark.parametrize("hidden", [(7,), (9, 8, 7)])
def test_other_depths(x, hidden):
    mine = DeepDAE(hidden, epochs=1, random_state=0).fit(x)
    assert (
        mine.transform(x).shape == (50, 7)
        and mine.model_.sizes == (64, *hidden)
        and mine.model_.units[-1] == "sigmoid"
    )


def test_each_method_is_what_the_core_computes(x):
    model, _, recipe = core_fit(x)
    mine, h = small().fit(x), infer(model, x, recipe.inference)
    close = dict(rtol=0, atol=1e-4)  # float32 against double, 15 steps
    np.testing.assert_allclose(mine.transform(x), h[-1], **close)
    np.testing.assert_allclose(mine.score_samples(x), log_p_joint(model, h), **close)
    assert mine.score(x) == pytest.approx(log_p_joint(model, h).mean(), abs=1e-4)
    np.testing.assert_allclose(mine.inverse_transform(h[-1]), decode(model, h[-1])[0], **close)
    assert (mine.sample(5) == generate(model, 5, rng=Random(3).stream("samples"))).all()
    assert (
        mine.sample(5, random_state=8, rounds=0)
        == generate(model, 5, rounds=0, rng=Random(8).stream("samples"))
    ).all()
    visible = np.arange(64) % 3 > 0
    assert (
        mine.inpaint(x, visible, rounds=2)
        == inpaint(model, x, visible, rounds=2, rng=Random(3).stream("inpaint"))
    ).all()
    np.testing.assert_allclose(
        mine.set_params(n_steps=0).transform(x), encode(model, x)[-1], **close
    )


def test_steps_that_are_set_later_are_those_of_every_method(x):
    mine, visible = small().fit(x), np.arange(64) % 3 > 0
    model, told = mine.model_, Inference(n_steps=4, delta=0.05, alpha=0.2)
    mine.set_params(n_steps=4, delta=0.05, alpha=0.2)
    h = infer(model, x, told)
    np.testing.assert_allclose(mine.transform(x), h[-1], rtol=0, atol=1e-4)
    np.testing.assert_allclose(mine.score_samples(x), log_p_joint(model, h), rtol=0, atol=1e-4)
    chain = replace(told, alpha=0.3)  # GENERATE has an alpha of its own
    drawn = generate(model, 5, inference=chain, rng=Random(3).stream("samples"))
    assert (mine.sample(5) == drawn).all()
    stream = Random(3).stream("inpaint")
    filled = inpaint(model, x, visible, rounds=2, inference=told, rng=stream)
    assert (mine.inpaint(x, visible, rounds=2) == filled).all()


def test_missing_entries_may_be_nan(x):
    mine, visible = small().fit(x), np.arange(64) < 32
    assert (mine.inpaint(np.where(visible, x, np.nan)) == mine.inpaint(x, visible)).all()
    real = np.random.default_rng(0).normal(
        5, 3, (30, 64)
    )  # numbers that float32 cannot hold, nor a map to [0, 1] and back
    assert (small().fit(real).inpaint(real, visible, rounds=1)[:, :32] == real[:, :32]).all()
    with pytest.raises(ValueError, match="NaN"):
        mine.inpaint(np.where(visible, x, np.nan), ~visible)
    with pytest.raises(ValueError, match="visible must have shape"):
        mine.inpaint(x, visible[:5])
    with pytest.raises(TypeError, match="booleans"):
        mine.inpaint(x, visible.astype(int))


def test_a_code_does_not_depend_on_its_neighbours(x):
    mine, order = small(hidden=(300, 40)).fit(x), np.random.default_rng(0).permutation(50)
    for read in (mine.transform, mine.score_samples):
        together = read(x)
        for other in (
            read(x[order])[np.argsort(order)],
            np.concatenate([read(x[i : i + 1]) for i in range(50)]),
        ):
            np.testing.assert_allclose(
                other, together, rtol=1e-7, atol=0
            )  # the last bit of float32: it is computed in double precision


def test_many_rows_go_in_blocks(x):
    mine, many = small().fit(x), np.tile(x, (45, 1))  # 2,250 rows: two blocks and a quarter
    np.testing.assert_allclose(mine.transform(many), np.tile(mine.transform(x), (45, 1)), rtol=1e-6)


# ---- random states -------------------------------------------------------------------------------


def test_random_states(x):
    assert small(random_state=np.int64(3)).fit(x).seed_ == 3
    states = [small(random_state=np.random.RandomState(5)).fit(x).seed_ for _ in range(2)]
    assert states[0] == states[1] != 5
    state = np.random.RandomState(5)
    assert (
        small(random_state=state).fit(x).seed_ != small(random_state=state).fit(x).seed_
    )  # it moves on, as scikit-learn wants it
    np.random.seed(0)
    a = small(random_state=None).fit(x).seed_
    np.random.seed(0)
    assert small(random_state=None).fit(x).seed_ == a
    mine = small().fit(x)
    assert (mine.sample(3) == mine.sample(3)).all() and (
        mine.sample(3) != mine.sample(3, random_state=1)
    ).any()
    for wrong in (-1, "seed", np.random.default_rng(0)):
        with pytest.raises(ValueError):
            small(random_state=wrong).fit(x)


# ---- partial_fit ---------------------------------------------------------------------------------


def by_hand(parts, seed=3):
    """partial_fit by the core's train_step, with nothing shared but the addresses of the random
    streams.
    """
    recipe = TrainConfig(
        epochs=1,
        batch_size=20,
        noise=(0.2, 0.1, "spikes"),
        rate_f=(3e-4, 1e-3),
        rate_g=(1e-3, 2e-3),
        decay=False,
    )
    start, tops = init_model((64, 12, 5), UNITS, rng=Random(seed).stream("init")), []
    state = new_train_state(start)
    for i, part in enumerate(parts):
        rng = Random(seed).stream("partial", i)
        noise = [rng.stream("noise", k) for k in range(3)]
        for batch in minibatches(part, 20, rng=rng.stream("order")):
            h, _ = train_step(state, batch, recipe, rngs=noise)
            tops.append(h[-1])
    return replace(state.model, prior=fit_top_prior(np.concatenate(tops)))


def test_partial_fit_continues_with_its_books_and_its_prior(x):
    mine, model = small(), by_hand([x[:30], x[30:], x])
    for part in (x[:30], x[30:], x):
        mine.partial_fit(part)
    for a, b in zip(weights(mine.model_), weights(model)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    np.testing.assert_allclose(mine.model_.prior.mean, model.prior.mean, atol=1e-6)
    np.testing.assert_allclose(mine.model_.prior.var, model.prior.var, rtol=1e-3, atol=1e-7)
    assert (
        mine.n_iter_ == 3
        and [e["epoch"] for e in mine.history_] == [1, 2, 3]
        and mine._stream.state.t == 2 + 1 + 3
    )


def test_partial_fit_goes_on_after_a_pickle_with_the_same_bits(x):
    mine = small().partial_fit(x)
    other = pickle.loads(pickle.dumps(mine))
    assert (
        same(mine.partial_fit(x).model_, other.partial_fit(x).model_)
        and mine.history_ == other.history_
    )


def test_partial_fit_goes_on_after_fit_and_fit_starts_anew(x):
    mine = small().fit(x)
    fitted = mine.model_
    before = [w.copy() for w in weights(fitted)]
    mine.partial_fit(x)
    assert (
        mine.n_iter_ == 3
        and not same(mine.model_, fitted)
        and all((a == b).all() for a, b in zip(before, weights(fitted)))
    )  # a model once taken does not move
    assert np.abs(weights(mine.model_)[0] - before[0]).max() < 0.01  # it is a continuation
    assert same(mine.fit(x).model_, fitted) and mine.n_iter_ == 2 and "_stream" not in mine.__dict__
    with pytest.raises(ValueError, match="12"):
        mine.set_params(hidden=(13, 5)).partial_fit(x)
    assert mine.fit(x).model_.sizes == (64, 13, 5)


def test_partial_fit_takes_new_books_for_another_optimiser(x):
    mine = small().partial_fit(x)
    assert mine.set_params(optimizer="sgd").partial_fit(x)._stream.state.t == 3


@pytest.mark.parametrize("accident", [KeyboardInterrupt, MemoryError])
def test_a_call_of_partial_fit_that_fails_leaves_everything_as_it_was(x, accident, monkeypatch):
    mine, steps = small().partial_fit(x), []
    before, twin = copy.deepcopy(mine.__dict__), copy.deepcopy(mine)

    def interrupted(*args, **kw):
        steps.append(1)
        if len(steps) == 3:
            raise accident
        return train_step(*args, **kw)

    with monkeypatch.context() as m:
        m.setattr(module, "train_step", interrupted)
        with pytest.raises(accident):
            mine.partial_fit(x)
    assert (
        len(steps) == 3
        and same(mine.model_, before["model_"])
        and mine.history_ == before["history_"]
    )
    assert same(mine.partial_fit(x).model_, twin.partial_fit(x).model_)


# ---- other kinds of arrays -----------------------------------------------------------------------


def test_every_method_on_every_backend(x, backend):
    X, mine, numpy = backend.asarray(x), small(), small().fit(x).partial_fit(x)
    mine.fit(X).partial_fit(X)
    for a, b in zip(weights(mine.model_), weights(numpy.model_)):
        if backend.name != "gpu":
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)  # a GPU has other random numbers
    codes = mine.transform(X)
    for out, shape in (
        (codes, (50, 5)),
        (mine.score_samples(X), (50,)),
        (mine.inverse_transform(codes), (50, 64)),
        (mine.sample(2), (2, 64)),
        (mine.inpaint(X, backend.asarray([True] * 32 + [False] * 32, "bool"), rounds=1), (50, 64)),
    ):
        assert (
            type(out) is type(X)
            and out.shape == shape
            and str(out.dtype).endswith("float32")
            and np.isfinite(to_numpy(out)).all()
        )
        assert backend.name in ("cpu", "gpu") or out.device == X.device
    assert isinstance(mine.score(X), float) and mine.n_features_in_ == 64
    assert mine.transform(backend.asarray([[0] * 64], "int64")).shape == (1, 5)
    for wrong in (X[:, :5], X * float("nan")):
        with pytest.raises(ValueError):
            mine.transform(wrong)


def test_arrays_from_elsewhere_are_refused(x, strict_backend):
    mine, theirs = small().fit(x), strict_backend.asarray(x)
    for call in (mine.transform, mine.partial_fit, mine.score_samples, mine.inpaint):
        with pytest.raises(
            ValueError, match="fitted on arrays of numpy, but X is one of array_api_strict"
        ):
            call(theirs)
    with pytest.raises(ValueError, match="fitted on arrays of array_api_strict"):
        small().fit(theirs).transform(x)


def test_tables(x):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x, columns=[f"pixel{i}" for i in range(64)])
    mine = small().set_output(transform="pandas").fit(table)
    codes = mine.transform(table)
    assert list(codes.columns) == [f"deepdae{i}" for i in range(5)] == list(
        mine.get_feature_names_out()
    ) and list(mine.feature_names_in_) == list(table.columns)
    assert (codes.to_numpy() == small().fit(x).transform(x)).all() and mine.inverse_transform(
        codes
    ).shape == x.shape
    with pytest.raises(ValueError, match="feature names"):
        mine.transform(table.rename(columns={"pixel3": "other"}))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        mine.transform(x)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "transform",
        "inverse_transform",
        "score_samples",
        "score",
        "inpaint",
        "sample",
        "save",
        "get_feature_names_out",
    ],
)
def test_before_fit(method, x):
    args = (
        ()
        if method in ("sample", "get_feature_names_out")
        else ("never.safetensors",)
        if method == "save"
        else (x,)
    )
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(DeepDAE(), method)(*args)


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (dict(hidden=()), ValueError, "hidden"),
        (dict(hidden=100), ValueError, "hidden"),
        (dict(hidden=(10, 0)), ValueError, "number of units"),
        (dict(units=("sigmoid", "sigmoid")), ValueError, "units needs 3"),
        (dict(units=("sigmoid", "soft", "sigmoid")), ValueError, "unit must be one of"),
        (dict(data_range=(1, 0)), ValueError, "must rise"),
        (dict(data_range="minmax"), ValueError, "data_range"),
        (dict(data_range=(0, float("inf"))), ValueError, "data_range"),
        (dict(epochs=0), ValueError, "epochs"),
        (dict(epochs=1.5), TypeError, "epochs"),
        (dict(batch_size=0), ValueError, "batch_size"),
        (dict(delta=-1), ValueError, "delta"),
        (dict(alpha=2), ValueError, "alpha"),
        (dict(noise=(0.5,)), ValueError, "noise needs 3"),
        (dict(rate_f=(1e-3,)), ValueError, "rate_f needs 2"),
        (dict(optimizer="lbfgs"), ValueError, "optimizer"),
        (dict(callbacks=print), TypeError, "list of functions"),
        (dict(callbacks=["print"]), TypeError, "list of functions"),
    ],
)
def test_wrong_parameters_are_refused_by_name_before_any_work(
    wrong, error, message, x, monkeypatch
):
    monkeypatch.setattr(learning, "train_step", lambda *a, **kw: pytest.fail("training began"))
    with pytest.raises(error, match=message):
        small(**wrong).fit(x)


def test_a_refused_fit_does_not_lose_what_was_learnt(x):
    mine = small().fit(x)
    codes = mine.transform(x)
    with pytest.raises(ValueError):
        mine.set_params(epochs=0).fit(x)
    assert (mine.transform(x) == codes).all()


def test_codes_of_the_wrong_width(x):
    with pytest.raises(ValueError, match="5 columns"):
        small().fit(x).inverse_transform(x)


def test_divergence_is_an_error_with_advice(x):
    wild = small(
        rate_f=(1.0, 1.0),
        rate_g=(1e-3, 1e-3),
        noise=(0.0, 0.3, "spikes"),
        optimizer="sgd",
        delta=2.0,
        epochs=60,
        decay=False,
    )
    with pytest.raises(DivergenceError, match="What holds it.*noise.*rate_f"):
        wild.fit(x)
    with pytest.raises(DivergenceError, match="What holds it"):
        for _ in range(60):
            wild.partial_fit(x)


# ---- watching ------------------------------------------------------------------------------------


def test_callbacks_see_a_working_estimator_after_each_epoch(x):
    seen = []

    def look(estimator, history):
        seen.append(
            (
                len(history),
                estimator.n_iter_,
                history[-1] == estimator.history_[-1],
                estimator.transform(x[:2]),
                estimator.model_,
            )
        )

    mine = small(callbacks=[look]).fit(x)
    assert (
        [s[:3] for s in seen] == [(1, 1, True), (2, 2, True)]
        and (seen[0][3] != seen[1][3]).any()
        and not same(seen[0][4], seen[1][4])
    )
    assert same(mine.model_, seen[1][4])
    mine.partial_fit(x)
    assert len(seen) == 3


@pytest.mark.parametrize("accident", [KeyboardInterrupt, ZeroDivisionError])
def test_after_an_interruption_the_last_whole_epoch_is_there(x, accident, tmp_path):
    def stop(estimator, history):
        if len(history) == 2:
            raise accident

    mine = small(epochs=5, decay=False, callbacks=[stop])
    with pytest.raises(accident):
        mine.fit(x)
    whole = small(epochs=2, decay=False).fit(x)
    assert (
        mine.n_iter_ == 2
        and same(mine.model_, whole.model_)
        and (mine.transform(x) == whole.transform(x)).all()
    )
    with pytest.raises(ValueError, match="no top prior"):
        mine.sample(1)
    mine.save(tmp_path / "a.safetensors")
    mine.set_params(callbacks=None).partial_fit(x).sample(1)


def test_the_bar_shows_the_losses_on_standard_error_and_silence_is_silence(x, capsys):
    small().fit(x)
    small().partial_fit(x)
    assert capsys.readouterr() == ("", "")
    mine = small(verbose=1).fit(x)
    out, err = capsys.readouterr()
    assert (
        out == ""
        and "6/6" in err
        and all(
            f"{loss:.3g}" in err for key in ("loss_f", "loss_g") for loss in mine.history_[-1][key]
        )
    )


def events(folder):
    """The scalars in the event files of `folder`, by reading TensorBoard's record format: length,
    checksum, data, checksum.
    """
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (n,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + n])
            at += n + 16
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def open_files(folder):
    "The files of `folder` that this process has open."
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(link))
    return [link for link in links if link.startswith(str(folder))]


def told(history):
    "The scalars of a history as `events` finds them."
    return {(name, e["epoch"]): value for e in history for name, value in scalars(e).items()}


def test_scalars_have_the_numbers_of_their_pairs_and_layers():
    epoch = dict(epoch=7, loss_f=[1.0, 2.0], loss_g=[3.0, 4.0], log_p_start=-6.0, log_p_end=-5.0)
    assert scalars(epoch | {"rms": [0.1, 0.2, 0.3]}) == {
        **{"loss/f_1": 1.0, "loss/f_2": 2.0, "loss/g_1": 3.0, "loss/g_2": 4.0},
        **{"log_p/start": -6.0, "log_p/end": -5.0},
        **{"rms/h_0": 0.1, "rms/h_1": 0.2, "rms/h_2": 0.3},
    }


def test_tensorboard(x, tmp_path):
    pytest.importorskip("tensorboardX")
    callback = log_to_tensorboard(tmp_path)
    mine = clone(small(callbacks=[callback])).fit(x)  # a clone logs too: nothing open is copied
    pickle.dumps(mine)
    wanted = told(mine.history_)
    assert events(tmp_path) == pytest.approx(wanted, rel=1e-6) and len(wanted) == 2 * 9


def stop(error):
    "A callback that raises `error`."

    def callback(estimator, history):
        raise error

    return callback


LISTS_FILES = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks in /proc")


@LISTS_FILES
@pytest.mark.parametrize("end", [None, RuntimeError("a callback fails"), KeyboardInterrupt()])
def test_tensorboards_files_are_closed_when_training_ends_or_fails(x, tmp_path, end):
    pytest.importorskip("tensorboardX")
    seen = []
    look = lambda estimator, history: seen.append(len(open_files(tmp_path)))
    mine = small(callbacks=[log_to_tensorboard(tmp_path), look, *([stop(end)] if end else [])])
    for n in (1, 2):  # a second one writes to a file of its own, whatever the second
        with pytest.raises(type(end)) if end else contextlib.nullcontext():
            mine.fit(x)
        assert not open_files(tmp_path) and set(seen) == {1}
        assert len([*tmp_path.iterdir()]) == n
    assert events(tmp_path) == pytest.approx(told(mine.history_), rel=1e-6)


@LISTS_FILES
def test_a_stream_has_one_file_until_its_estimator_goes(x, tmp_path):
    pytest.importorskip("tensorboardX")
    mine = small(callbacks=[log_to_tensorboard(tmp_path)])
    for _ in range(3):
        mine.partial_fit(x)
    assert len(open_files(tmp_path)) == len([*tmp_path.iterdir()]) == 1
    wanted = told(mine.history_)
    del mine
    gc.collect()
    assert not open_files(tmp_path) and events(tmp_path) == pytest.approx(wanted, rel=1e-6)


@LISTS_FILES
def test_two_fits_at_once_do_not_close_each_others_file(x, tmp_path):
    pytest.importorskip("tensorboardX")
    callback, first, second = log_to_tensorboard(tmp_path), small(), small()
    for estimator in (first, second):
        estimator.fit(x)
        callback(estimator, estimator.history_)
    callback.close(first)
    assert len(open_files(tmp_path)) == 1
    callback.close(second)
    callback.close(second)  # nothing is left to close
    assert not open_files(tmp_path)


def test_tensorboard_reads_it(x, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    mine = small(callbacks=[log_to_tensorboard(tmp_path)]).fit(x)
    board = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [e.value for e in board.Scalars("log_p/end")] == pytest.approx(
        [e["log_p_end"] for e in mine.history_]
    )


def test_mlflow(x, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as run:
        mine = small(callbacks=[log_to_mlflow()]).fit(x)
    client = mlflow.MlflowClient()
    for name in scalars(mine.history_[0]):
        assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] == [
            (e["epoch"], pytest.approx(scalars(e)[name])) for e in mine.history_
        ]


def test_mlflows_store_is_tried_before_training(x, monkeypatch):
    "A module in the place of MLflow, whose store refuses at first."
    logged, refusals = [], [PermissionError("no such user")]

    def search_experiments(max_results):
        if refusals:
            raise refusals.pop()

    fake = types.SimpleNamespace(
        get_tracking_uri=lambda: "sqlite:///mlflow.db",
        search_experiments=search_experiments,
        log_metrics=lambda metrics, step: logged.append((step, metrics)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with pytest.raises(RuntimeError, match="sqlite:///mlflow.db: no such user. Set another"):
        log_to_mlflow()
    mine = small(callbacks=[log_to_mlflow()]).fit(x)
    assert logged == [(e["epoch"], scalars(e)) for e in mine.history_]


@pytest.mark.parametrize(
    "make, missing",
    [
        (lambda: log_to_tensorboard("runs"), ("tensorboardX", "torch.utils.tensorboard")),
        (log_to_mlflow, ("mlflow",)),
    ],
)
def test_a_missing_tracker_is_an_error_before_training(make, missing, monkeypatch):
    load = importlib.import_module

    def without(name, *args):
        if name in missing:
            raise ImportError(name)
        return load(name, *args)

    monkeypatch.setattr(module.importlib, "import_module", without)
    with pytest.raises(ImportError, match="pip install"):
        make()


# ---- keeping -------------------------------------------------------------------------------------


def test_save_and_load(x, tmp_path):
    path = tmp_path / "digits.safetensors"
    mine = small(
        data_range=(0, np.float32(2)),
        callbacks=[print],
        random_state=np.random.RandomState(0),
        noise=[np.float64(0.2), 0.1, "spikes"],
    )
    mine.set_params(callbacks=None).fit(x).set_params(callbacks=[print]).save(path)
    other = DeepDAE.load(path)
    assert (
        type(other) is DeepDAE
        and (other.transform(x) == mine.transform(x)).all()
        and (other.sample(3) == mine.sample(3)).all()
    )
    assert (
        other.history_ == mine.history_
        and other.n_iter_ == 2
        and other.data_range_ == (0, 2)
        and other.n_features_in_ == 64
    )
    kept = {
        name: value
        for name, value in mine.get_params().items()
        if name not in ("callbacks", "random_state", "noise")
    }
    assert (
        kept.items() <= other.get_params().items()
        and other.noise == (0.2, 0.1, "spikes")
        and other.callbacks is other.random_state is None
    )
    other.partial_fit(x)
    clone(other).fit(x)
    assert list(tmp_path.iterdir()) == [path]


def test_feature_names_are_saved(x, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x).rename(columns="p{}".format)
    small().fit(table).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="feature names"):
        DeepDAE.load(tmp_path / "a.safetensors").transform(table[table.columns[::-1]])


def test_what_is_not_a_saved_estimator_is_refused(x, tmp_path):
    path = tmp_path / "a.safetensors"
    mine = small().fit(x)
    save_model(path, mine.model_)
    with pytest.raises(ValueError, match="a.safetensors holds a model, but no estimator"):
        DeepDAE.load(path)
    save_model(path, mine.model_, params={"depth": 3}, fitted={}, feature_names=None)
    with pytest.raises(ValueError, match="a.safetensors.*depth"):
        DeepDAE.load(path)
    fitting = small(checkpoint=tmp_path / "c").fit(x)
    kept = max((tmp_path / "c").rglob("*.safetensors"))
    with pytest.raises(ValueError, match="no estimator"):
        DeepDAE.load(kept)
    fitting.save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="a.safetensors is not a saved biolearn model"):
        DeepDAE.load(path)
    with pytest.raises(FileNotFoundError):
        DeepDAE.load(tmp_path / "none.safetensors")


def test_loading_for_a_gpu_that_is_not_there(x, tmp_path):
    small().fit(x).save(tmp_path / "a.safetensors")
    try:
        use_device("gpu")
    except DeviceError:
        with pytest.raises(DeviceError):
            DeepDAE.load(tmp_path / "a.safetensors", device="gpu")
    else:
        assert DeepDAE.load(tmp_path / "a.safetensors", device="gpu").sample(2).shape == (2, 64)


def test_fit_goes_on_from_a_checkpoint(x, tmp_path, monkeypatch):
    monkeypatch.setattr(
        checkpoints.time, "monotonic", lambda: 0.0
    )  # writing takes no time: a checkpoint after every epoch

    def kill(estimator, history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(checkpoint=tmp_path / "c", callbacks=[kill]).fit(x)
    epochs = []
    mine = small(
        checkpoint=tmp_path / "c",
        callbacks=[lambda estimator, history: epochs.append(len(history))],
    ).fit(x)
    whole = small().fit(x)
    assert epochs == [2] and same(mine.model_, whole.model_) and mine.history_ == whole.history_
    again = small(checkpoint=tmp_path / "c").fit(x)  # nothing left to do
    assert (
        same(again.model_, whole.model_) and again.n_iter_ == 2 and again.history_ == whole.history_
    )


def killed_after(n):
    "A callback that ends `fit` after `n` epochs, as a kill would."

    def kill(estimator, history):
        if len(history) == n:
            raise KeyboardInterrupt

    return kill


@pytest.fixture
def every_epoch(monkeypatch):
    "Writing takes no time: there is a checkpoint after every epoch."
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: 0.0)


@pytest.mark.parametrize("state", [None, 3])
def test_without_a_random_state_the_same_call_goes_on_too(state, x, tmp_path, every_epoch):
    where = dict(checkpoint=tmp_path / "c", random_state=state)
    first = small(callbacks=[killed_after(1)], **where)
    with pytest.raises(KeyboardInterrupt):
        first.fit(x)
    epochs = []
    mine = small(callbacks=[lambda estimator, history: epochs.append(len(history))], **where).fit(x)
    assert epochs == [2] and mine.seed_ == first.seed_
    assert same(mine.model_, small(random_state=mine.seed_).fit(x).model_)


def test_the_clones_of_a_search_do_not_meet_in_one_folder(x, tmp_path, recwarn):
    for state in (None, 0):
        search = GridSearchCV(
            small(checkpoint=tmp_path / str(state), random_state=state),
            {"epochs": [1, 2], "hidden": [(12, 5), (9,)], "noise": [None]},
            cv=3,
            error_score="raise",
        ).fit(x)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert len(list((tmp_path / str(state)).iterdir())) == 4 * 3 + 1


def test_a_folder_with_checkpoints_of_its_own_is_used_as_it_was(x, tmp_path, every_epoch):
    folder, epochs = tmp_path / "c", []
    with pytest.raises(KeyboardInterrupt):
        small(checkpoint=folder, callbacks=[killed_after(1)]).fit(x)
    (inner,) = folder.iterdir()
    for file in inner.iterdir():
        file.rename(folder / file.name)
    inner.rmdir()
    small(checkpoint=folder, callbacks=[lambda e, history: epochs.append(len(history))]).fit(x)
    assert epochs == [2]


@pytest.mark.parametrize("wrong", ["", 3, True])
def test_a_checkpoint_that_is_no_folder_is_refused(wrong, x, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="checkpoint must be"):
        small(checkpoint=wrong).fit(x)
    assert not list(tmp_path.iterdir())


def test_a_foreign_file_does_not_decide_where_a_later_fit_writes(x, tmp_path):
    mine = small().fit(x)
    mine.save(tmp_path / "a.safetensors")
    notes = read_notes(tmp_path / "a.safetensors")
    notes["params"] |= {"checkpoint": str(tmp_path / "theirs"), "callbacks": ["print"]}
    save_model(tmp_path / "b.safetensors", mine.model_, **notes)
    other = DeepDAE.load(tmp_path / "b.safetensors")
    assert other.checkpoint is other.callbacks is None
    other.fit(x)
    assert not (tmp_path / "theirs").exists()
    for wrong in ({"seed_": "x"}, {"data_range_": [0]}, {"history_": 3}, {"_rows": None}):
        bad = notes | {"fitted": notes["fitted"] | wrong}
        save_model(tmp_path / "c.safetensors", mine.model_, **bad)
        with pytest.raises(ValueError, match="c.safetensors.*no estimator"):
            DeepDAE.load(tmp_path / "c.safetensors")


# ---- tables as people have them ------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "g", ">f4", ">i2"]
)
def test_numbers_of_any_type_mean_the_same(dtype, x):
    grey = np.round(16 * x)
    mine, given = small().fit(grey.astype("f4")), grey.astype(dtype)
    other = small().fit(given)
    assert same(mine.model_, other.model_) and other.data_range_ == (0, 16)
    codes = mine.transform(grey.astype("f8"))
    np.testing.assert_allclose(other.transform(given), codes, rtol=0, atol=1e-6)
    assert other.transform(given).dtype in (np.float32, np.float64)
    visible = np.arange(64) < 32
    assert (other.inpaint(given, visible)[:, :32] == grey[:, :32]).all()
    assert same(small().partial_fit(given).model_, small().partial_fit(grey).model_)


def test_booleans_and_lists(x):
    ink = x > 0.5
    wanted = small().fit(ink.astype("f4")).model_
    assert same(small().fit(ink).model_, wanted)
    assert same(small().fit(ink.astype(float).tolist()).model_, wanted)


def test_small_whole_numbers_take_no_more_room_than_float32(x):
    assert module._unmasked(np.zeros((9, 4), "u1"), False).dtype == np.float32
    assert small().fit(np.round(x * 16).astype("u1")).transform(x).dtype == np.float32


def test_a_mask_is_not_ignored(x):
    masked = np.ma.masked_array(x, mask=np.zeros_like(x, bool))
    mine = small().fit(masked)  # nothing is masked
    assert same(mine.model_, small().fit(x).model_)
    masked[:, 32:] = np.ma.masked
    for method in (small().fit, small().partial_fit, mine.transform, mine.score):
        with pytest.raises(ValueError, match="masked array, and 1600 of its entries"):
            method(masked)
    assert (mine.inpaint(masked) == mine.inpaint(x, np.arange(64) < 32)).all()
    grey = np.ma.masked_array(np.round(16 * x).astype("u1"), mask=masked.mask)
    whole = small().fit(np.round(16 * x))
    assert np.isfinite(whole.inpaint(grey)).all()


# ---- in company ----------------------------------------------------------------------------------


def test_in_a_pipeline_and_a_grid_search():
    digits = load_digits()
    x, y = 16 * digits.train[:300], digits.train_labels[:300]
    pipeline = make_pipeline(
        small(hidden=(60, 20), rate_g=(3e-3, 3e-3)), LogisticRegression(max_iter=1000)
    )
    search = GridSearchCV(
        pipeline,
        {"deepdae__epochs": [1, 20], "deepdae__hidden": [(60, 20)]},
        cv=2,
        error_score="raise",
    ).fit(x, y)
    assert search.best_score_ > 0.5 and len(set(search.cv_results_["mean_test_score"])) == 2
    assert search.predict(x).shape == (300,) and search.best_estimator_[0].data_range_ == (0, 16)
    alone = GridSearchCV(small(), {"epochs": [1, 5]}, cv=2).fit(x)  # by its own score
    assert alone.best_params_ == {"epochs": 5} and alone.best_score_ < 0
