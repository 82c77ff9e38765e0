"""Pictures are values: what was drawn is read back from the figure and compared with what was
given.
"""

import base64

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from biolearn import plotting as pl

RNG = np.random.default_rng(0)
IMAGES = RNG.random((23, 20))
TRACE = np.cumsum(RNG.random((6, 8)), axis=0) - 50
HISTORY = [
    dict(
        epoch=e,
        loss_f=[3 / e, 1.0],
        loss_g=[9 / e, 2 / e],
        log_p_start=-50 + e,
        log_p_end=-40 + e,
        rms=[0.3, 0.5, 0.6 + e],
    )
    for e in (1, 2, 3)
]
ROWS = [
    dict(name="chain", mean=200.5, stderr=2.0, paper=236),
    dict(name="digits", mean=231.0, kind="control"),
    dict(name="bad", mean=-30.0, stderr=0.0),
]
STRIPS = dict(
    original=IMAGES[:3],
    masked_start=IMAGES[3:6],
    snapshots=RNG.random((2, 3, 20)),
    steps=(1, 20),
    image_shape=(5, 4),
)

WALK = dict(
    x=IMAGES[:3],
    reconstructions=0.5 * IMAGES[None, :3] * np.linspace(0, 1, 5)[:, None, None],
    trace=TRACE[:5, :3],
    image_shape=(5, 4),
)
FIELDS = {
    "in": 1 + RNG.normal(size=(12, 20)),
    "out": 5 * RNG.normal(size=(12, 20)) - 5,
}  # not symmetric about zero themselves

ALL = {
    "digit_sheet": lambda: pl.digit_sheet(IMAGES, (5, 4), rows=4, title="t"),
    "labels": lambda: pl.digit_sheet(IMAGES, (5, 4), rows=4, labels=range(23)),
    "growing_sheet": lambda: pl.growing_sheet({1: IMAGES, 20: IMAGES[::-1]}, (5, 4)),
    "sheet_pair": lambda: pl.sheet_pair(IMAGES, IMAGES[::-1], (5, 4), rows=4, title="t"),
    "inference_curve": lambda: pl.inference_curve(TRACE, title="t"),
    "inpainting_strips": lambda: pl.inpainting_strips(
        **STRIPS, visible=IMAGES[:3] > 0.5, title="t"
    ),
    "parzen_bars": lambda: pl.parzen_bars(ROWS, title="t"),
    "training_curves": lambda: pl.training_curves(HISTORY, title="t"),
    "receptive_fields": lambda: pl.receptive_fields(FIELDS, (5, 4), rows=3, title="t"),
    "latent_walk": lambda: pl.latent_walk(
        IMAGES[:10].reshape(2, 5, 20), IMAGES[10:20].reshape(2, 5, 20), (5, 4), title="t"
    ),
    "inference_walk": lambda: pl.inference_walk(**WALK).still(),
}
every_picture = pytest.mark.parametrize("draw", ALL.values(), ids=ALL.keys())


# ---------------------------------------------------------------- what holds for every picture


@every_picture
def test_returns_a_figure_and_leaves_nothing_behind(draw):
    before = dict(matplotlib.rcParams)
    fig = draw()
    assert isinstance(fig, Figure)
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == [] and dict(matplotlib.rcParams) == before


@every_picture
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_picture_is_the_same_bytes(draw, suffix, tmp_path):
    one = draw()
    first = pl.save_figure(one, tmp_path / f"a{suffix}").read_bytes()
    with matplotlib.rc_context(
        {
            "font.size": 30,
            "savefig.dpi": 10,
            "savefig.bbox": "tight",
            "svg.hashsalt": None,
            "lines.linewidth": 7,
        }
    ):
        assert (
            pl.save_figure(draw(), tmp_path / f"b{suffix}").read_bytes() == first
        )  # afresh, under the reader's own settings
    assert pl.save_figure(one, tmp_path / f"c{suffix}").read_bytes() == first  # saved a second time
    assert b"matplotlib.org" not in first or suffix == ".svg"
    assert len(first) < 400_000


@every_picture
def test_texts_stay_inside_and_do_not_overlap(draw, monkeypatch):
    """Every text that is really drawn is caught at its own drawing, and its box compared with the
    picture's and the others'.
    """
    boxes, plain_draw = [], Text.draw

    def draw_and_note(self, renderer):
        if self.get_visible() and self.get_text():
            boxes.append((self.get_text(), self.get_window_extent(renderer)))
        plain_draw(self, renderer)

    fig = draw()
    monkeypatch.setattr(Text, "draw", draw_and_note)
    FigureCanvasAgg(fig).draw()
    width, height = fig.get_size_inches() * fig.dpi
    assert boxes
    for i, (text, b) in enumerate(boxes):
        assert b.x0 > 0 and b.y0 > 0 and b.x1 < width and b.y1 < height, (
            f"{text!r} leaves the picture"
        )
        for other, c in boxes[:i]:
            apart = min(b.x1, c.x1) - max(b.x0, c.x0) < 1 or min(b.y1, c.y1) - max(b.y0, c.y0) < 1
            assert apart, f"{text!r} and {other!r} overlap"


@every_picture
def test_shows_itself_in_a_notebook(draw):
    assert draw()._repr_png_().startswith(b"\x89PNG")


def test_is_one_picture_for_a_notebook_with_and_without_pyplot():
    from IPython.core.formatters import DisplayFormatter
    from IPython.core.pylabtools import print_figure

    formatter = DisplayFormatter()
    for _ in range(2):
        shown = formatter.format(ALL["inference_curve"]())[0]
        assert sorted(shown) == ["image/png", "text/plain"]
        formatter.formatters["image/png"].for_type(
            Figure, print_figure
        )  # what %matplotlib inline does


def test_the_style_file_alone_makes_the_style():
    """A reader's own picture under `plt.style.use("biolearn.biolearn")` has the settings under
    which ours are drawn, and no others are hidden in code.
    """
    import matplotlib.style

    with pl.style():
        ours = dict(matplotlib.rcParams)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.style.use("biolearn.biolearn")
        assert {k: v for k, v in matplotlib.rcParams.items() if k != "backend"} == {
            k: v for k, v in ours.items() if k != "backend"
        }
    assert (
        set(ours["axes.prop_cycle"].by_key()["color"]) == set(pl.COLORS.values()) - {"#F0E442"}
        and ours["font.size"] == 9
    )


def test_style_restores_settings_after_an_error():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError):
        with pl.style():
            1 / 0
    assert dict(matplotlib.rcParams) == before


def test_colours_are_okabe_ito():
    assert pl.COLORS["vermilion"] == "#D55E00" and len(set(pl.COLORS.values())) == 8


# ---------------------------------------------------------------- sheets


def images_of(ax):
    return np.stack([np.asarray(image.get_array()).ravel() for image in ax.images])


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 30), rows=st.integers(1, 12), height=st.integers(1, 6), width=st.integers(1, 6)
)
def test_sheet_draws_every_digit_once_without_overlap(n, rows, height, width):
    images = np.random.default_rng(n).random((n, height * width))
    ax = pl.digit_sheet(images, (height, width), rows=rows).axes[0]
    assert np.array_equal(images_of(ax), images)
    assert all(
        image.get_clim() == (0, 1) and image.get_array().shape == (height, width)
        for image in ax.images
    )
    corners = {(round(i.get_extent()[0], 6), round(i.get_extent()[3], 6)) for i in ax.images}
    assert len(corners) == n and len({c[1] for c in corners}) <= rows
    left, right = ax.get_xlim()
    low, high = ax.get_ylim()
    for image in ax.images:
        x0, x1, bottom, top = image.get_extent()
        assert left <= x0 < x1 <= right and high <= top < bottom <= low


def test_sheet_fills_row_by_row_from_the_top_left():
    ax = pl.digit_sheet(IMAGES[:6], (5, 4), rows=2).axes[0]
    x, y = np.array([(i.get_extent()[0], i.get_extent()[3]) for i in ax.images]).T
    assert np.all(np.diff(x[:3]) > 0) and np.allclose(y[:3], y[0]) and y[3] > y[0] and x[3] == x[0]


def test_ink_is_dark_and_the_scale_is_fixed():
    """Half ink looks the same beside black and beside white: the rendered grey of a picture of
    constant ink is 1 - ink.
    """
    for other in (0.0, 1.0):
        fig = pl.digit_sheet(np.array([[0.5] * 4, [other] * 4]), (2, 2), rows=1)
        image = fig.axes[0].images[0]
        assert np.allclose(image.cmap(image.norm(0.5))[:3], 0.5, atol=0.01)
        assert image.cmap(image.norm(1.0))[:3] == (0, 0, 0) and image.cmap(image.norm(0.0))[:3] == (
            1,
            1,
            1,
        )


def test_labels_and_titles_are_drawn():
    ax = pl.digit_sheet(IMAGES, (5, 4), labels=[f"n{i}" for i in range(23)]).axes[0]
    assert [t.get_text() for t in ax.texts] == [f"n{i}" for i in range(23)]
    fig = pl.sheet_pair(IMAGES, IMAGES[::-1], (5, 4), titles=("a", "b"))
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"]
    assert np.array_equal(images_of(fig.axes[0]), IMAGES) and np.array_equal(
        images_of(fig.axes[1]), IMAGES[::-1]
    )


# ---------------------------------------------------------------- curves, strips, bars


def test_inference_curve_draws_mean_band_and_singles():
    ax = pl.inference_curve(TRACE, singles=[5, 0]).axes[0]
    *single, mean = ax.lines
    assert np.allclose(mean.get_ydata(), TRACE.mean(axis=1)) and np.array_equal(
        mean.get_xdata(), np.arange(6)
    )
    assert np.array_equal(single[0].get_ydata(), TRACE[:, 5]) and np.array_equal(
        single[1].get_ydata(), TRACE[:, 0]
    )
    assert all(line.get_linestyle() == "--" for line in single)
    edges = np.unique(np.round(ax.collections[0].get_paths()[0].vertices[:, 1], 9))
    error = TRACE.std(axis=1, ddof=1) / np.sqrt(8)
    assert np.allclose(
        np.sort(np.concatenate([TRACE.mean(axis=1) - error, TRACE.mean(axis=1) + error])), edges
    )
    assert ax.get_xlabel() == "step of inference" and "nats" in ax.get_ylabel()
    assert [text.get_text() for text in ax.texts] == [
        "single examples",
        "mean of 8 ± standard error",
    ]


def test_a_published_mean_stands_next_to_ours_on_one_scale():
    fig = pl.inference_curve(TRACE, published=(-55, -30))
    arrows = [text for text in fig.axes[1].texts if text.arrow_patch is not None]
    ends = [(arrow.xyann[1], arrow.xy[1]) for arrow in arrows]
    mean = TRACE.mean(axis=1)
    assert np.allclose(ends, [(mean[0], mean[-1]), (-55, -30)])
    assert fig.axes[1].get_ylim()[0] < -55 and fig.axes[1].get_ylim()[1] == 0


def test_inference_curve_of_few_examples():
    assert len(pl.inference_curve(TRACE[:, :2], singles=10).axes[0].lines) == 3
    assert len(pl.inference_curve(TRACE, singles=0).axes[0].lines) == 1


def test_strips_put_each_picture_in_its_place():
    fig = pl.inpainting_strips(**STRIPS)
    got = np.array([np.asarray(ax.images[0].get_array()).ravel() for ax in fig.axes]).reshape(
        3, 4, 20
    )
    assert np.array_equal(got[:, 0], STRIPS["original"]) and np.array_equal(
        got[:, 1], STRIPS["masked_start"]
    )
    assert np.array_equal(got[:, 2:], STRIPS["snapshots"].transpose(1, 0, 2))
    assert [ax.get_title() for ax in fig.axes[:4]] == ["original", "given", "round 1", "round 20"]
    assert (
        min(ax.get_position().height * fig.get_size_inches()[1] for ax in fig.axes) > 0.95
    )  # inches: the titles take no room from the digits


def test_strips_tint_hidden_pixels_only():
    visible = IMAGES[:3] > 0.5
    fig = pl.inpainting_strips(**STRIPS, visible=visible)
    colours = np.stack(
        [np.asarray(ax.images[0].get_array()).reshape(20, 3) for ax in fig.axes[1::4]]
    )
    grey = np.ptp(colours, axis=2) < 1e-9
    assert np.array_equal(grey, visible) and np.allclose(
        colours[visible], 1 - STRIPS["masked_start"][visible][:, None]
    )


def test_bars_show_values_errors_and_the_papers_marks():
    ax = pl.parzen_bars(ROWS).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [200.5, 231.0, -30.0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["chain", "digits", "bad"]
    assert [
        (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "D"
    ] == [(236, 0)]
    colours = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
    assert colours == [pl.COLORS["blue"], pl.COLORS["sky"], pl.COLORS["blue"]]
    (error,) = (
        ax.containers[1:]
        if len(ax.containers) == 2
        else [c for c in ax.containers if type(c).__name__ == "ErrorbarContainer"]
    )
    assert np.allclose(error[2][0].get_segments()[0][:, 0], [198.5, 202.5])
    assert (
        ax.yaxis_inverted()
        and "200.5" in ax.texts[0].get_text()
        and "236" in ax.texts[0].get_text()
    )


def test_training_curves_draw_the_history():
    fig = pl.training_curves([dict(row, extra="ignored") for row in HISTORY])
    panels = ("loss_g", "loss_f", None, "rms")
    for ax, key in zip(fig.axes, panels):
        if key is None:
            continue
        assert np.allclose(
            np.stack([line.get_ydata() for line in ax.lines], axis=1), [row[key] for row in HISTORY]
        )
    assert np.allclose(
        [line.get_ydata() for line in fig.axes[2].lines],
        [[row[k] for row in HISTORY] for k in ("log_p_start", "log_p_end")],
    )
    assert fig.axes[0].get_yscale() == "log" and fig.axes[3].get_yscale() == "linear"
    named = [[text.get_text() for text in ax.texts] for ax in fig.axes]
    assert (
        named[0] == ["g1", "g2"] and named[1] == ["f1", "f2"] and named[3] == ["h0", "h1", "h2"]
    )  # rms counts from the pixels


@pytest.mark.parametrize(
    "ends, heights",
    [
        ([], []),
        ([0, 1], [0, 1]),  # far apart: where the lines end
        ([0.5, 0.5], [0.45, 0.55]),  # the first line has the lower name
        ([0.52, 0.5, 0.0], [0.56, 0.46, 0.0]),
        ([0.5, 0.45, 0.6], [0.5167, 0.4167, 0.6167]),  # a pair that then meets a third
        ([1.0, 1.0, 0.99], [0.9, 1.0, 0.8]),  # they stay within the axes
    ],
)
def test_names_stand_where_lines_end_and_never_on_one_another(ends, heights):
    ax = Figure().add_subplot()
    for end in ends:
        ax.plot([0, 1], [0, end], label=f"to {end}")
    ax.plot([0, 1], [0, 0])
    ax.set_ylim(0, 1)
    pl.name_lines(ax, gap=0.1)
    assert [text.get_text() for text in ax.texts] == [f"to {end}" for end in ends]
    assert np.allclose([text.xy[1] for text in ax.texts], heights, atol=1e-4)
    assert [t.get_color() for t in ax.texts] == [line.get_color() for line in ax.lines[:-1]]


@pytest.mark.parametrize("layers", [1, 3])
def test_training_curves_of_any_depth_and_one_epoch(layers):
    row = dict(
        epoch=0,
        loss_f=[1.0] * layers,
        loss_g=[0.0] * layers,
        log_p_start=-1,
        log_p_end=0,
        rms=[1.0] * (layers + 1),
    )
    assert [len(ax.lines) for ax in pl.training_curves([row]).axes] == [
        layers,
        layers,
        2,
        layers + 1,
    ]


# --------------------------------------------------------------- weights, walks, films, live curves


def test_receptive_fields_have_one_symmetric_scale_per_sheet():
    fig = pl.receptive_fields(FIELDS, (5, 4), rows=3)
    for ax, weights in zip(fig.axes, FIELDS.values()):
        assert np.array_equal(images_of(ax), weights)
        for image in ax.images:
            assert image.get_clim() == (-np.abs(weights).max(), np.abs(weights).max())
        blue, white, vermilion = (np.array(ax.images[0].cmap(v)[:3]) for v in (0.0, 0.5, 1.0))
        assert (
            np.allclose(white, 1, atol=0.01)
            and matplotlib.colors.to_hex(blue).upper() == pl.COLORS["blue"]
            and matplotlib.colors.to_hex(vermilion).upper() == pl.COLORS["vermilion"]
        )
    assert [ax.get_title() for ax in fig.axes[:2]] == ["in", "out"]
    pl.receptive_fields({"dead": np.zeros((2, 20))}, (5, 4))  # nothing to scale by, and no warning


def test_latent_walk_puts_blends_under_walks():
    walks, blends = IMAGES[:10].reshape(2, 5, 20), IMAGES[10:20].reshape(2, 5, 20)
    fig = pl.latent_walk(walks, blends, (5, 4))
    got = np.array([images_of(ax)[0] for ax in fig.axes]).reshape(2, 2, 5, 20)
    assert np.array_equal(got[:, 0], walks) and np.array_equal(got[:, 1], blends)
    assert [ax.get_title() for ax in fig.axes[:5]] == ["0", "0.25", "0.5", "0.75", "1"] and [
        ax.get_ylabel() for ax in fig.axes[::5]
    ] == ["walk", "pixels"] * 2


@pytest.mark.parametrize("t", [0, 2, -1])
def test_a_frame_shows_its_own_step_and_the_curve_so_far(t):
    top, below = pl.inference_walk(**WALK).still(t).subfigs
    got = np.array([images_of(ax)[0] for ax in top.axes]).reshape(3, 3, 20)
    decoded = WALK["reconstructions"][t]
    assert (
        np.array_equal(got[0], IMAGES[:3])
        and np.array_equal(got[1], decoded)
        and np.array_equal(got[2], IMAGES[:3] - decoded)
    )
    lines = below.axes[0].lines
    for i, (line, dot) in enumerate(zip(lines[::2], lines[1::2])):
        assert np.array_equal(line.get_ydata(), TRACE[:5, i][: t % 5 + 1]) and (
            dot.get_xdata()[0],
            dot.get_ydata()[0],
        ) == (t % 5, TRACE[t % 5, i])
        assert matplotlib.colors.same_color(
            line.get_color(), top.axes[i].spines["left"].get_edgecolor()
        )


def test_a_film_is_a_gif_that_other_programs_can_play(tmp_path):
    from PIL import Image

    film = pl.inference_walk(**WALK)
    first = pl.save_figure(film, tmp_path / "a.gif").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 10}):
        assert pl.inference_walk(**WALK).gif() == first == film.gif()
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == film.n == 5 and gif.info["loop"] == 0 and len(first) < 200_000
        stay, frames = [], []
        for t in range(5):
            gif.seek(t)
            stay.append(gif.info["duration"])
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert stay == [250] * 4 + [2250]
    for t, seen in enumerate(frames):
        drawn = np.asarray(film.frame(t)).astype(int)
        assert (
            seen.shape == drawn.shape
            and np.abs(seen - drawn).mean() < 1
            and (seen[drawn.min(axis=2) == 255] == 255).all()
        )  # white stays white
    last = pl.save_figure(film, tmp_path / "a.png").read_bytes()
    film.show(0)
    assert (
        pl.save_figure(film, tmp_path / "b.png").read_bytes() == last
    )  # on paper: the last frame, whatever was shown before
    assert film.play().data == first and film._repr_png_().startswith(b"\x89PNG")


def test_record_keeps_the_film_beside_the_picture(tmp_path):
    import biolearn.reproduction.claims as claims
    import biolearn.reproduction.report as report

    film = pl.inference_walk(**WALK)
    claims.record("fig9_walk", film, [], out=tmp_path, caption="A walk.")
    assert {p.name for p in tmp_path.iterdir()} == {
        f"fig9_walk.{s}" for s in ("png", "svg", "gif", "json")
    } and (tmp_path / "fig9_walk.gif").read_bytes() == film.gif()
    entry = report._entry(tmp_path / "fig9_walk.json", "fig9")
    assert set(entry["files"]) == {p.name for p in tmp_path.iterdir()}
    assert claims.drawn_by("fig9", ("fig9",), tmp_path) == [tmp_path / "fig9_walk.json"]
    assert 'src="data:image/gif;base64,' in report._html_figure(
        {"pictures": {"fig9_walk": entry}}, "fig9_walk", tmp_path
    ) and report._shown("fig9_walk", entry) == ["fig9_walk.gif"]
    claims.record(
        "fig9_walk", film.still(), [], out=tmp_path, caption="No walk."
    )  # yesterday's film must not stay
    assert not (tmp_path / "fig9_walk.gif").exists()


CELL = """from biolearn.plotting import LiveCurves
history, live = [], LiveCurves(3, every={every})
for e in (1, 2, 3):
    history.append(dict(epoch=e, loss_f=[3 / e], loss_g=[9 / e], log_p_start=-50 + e, log_p_end=-40 + e, rms=[0.3, 0.5]))
    live(None, history)"""


def test_live_curves_leave_one_picture_in_an_executed_notebook():
    """A real kernel: every drawing goes to the same output, and the last epoch is drawn even if the
    one before was a moment ago.
    """
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(CELL.format(every=every)) for every in (0, 1000)]
    )
    NotebookClient(book, kernel_name="python3", timeout=120).execute()
    names = {}
    exec(CELL.format(every=0), names)  # here there is no notebook: nothing is drawn
    last = pl.training_curves(names["history"])._repr_png_()
    assert names["live"].output is None
    for cell in book.cells:
        (shown,) = cell.outputs
        assert (
            shown.output_type == "display_data"
            and base64.b64decode(shown.data["image/png"]) == last
        )


def test_live_curves_are_silent_outside_a_notebook(capsys):
    live = pl.LiveCurves(1)
    live(None, HISTORY[:1])
    assert live.output is None and capsys.readouterr() == ("", "")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: pl.digit_sheet(IMAGES[:, :19], (5, 4)),
            ValueError,
            r"images has shape \(23, 19\), where \(any, 20\)",
        ),
        (lambda: pl.digit_sheet(IMAGES[0], (5, 4)), ValueError, "images has shape"),
        (lambda: pl.digit_sheet(IMAGES[:0], (5, 4)), ValueError, "images has shape"),
        (lambda: pl.digit_sheet(IMAGES * np.nan, (5, 4)), ValueError, "images holds NaN"),
        (lambda: pl.digit_sheet("digits", (5, 4)), TypeError, "images must be a NumPy array"),
        (lambda: pl.digit_sheet(IMAGES, (5, 4, 1)), ValueError, "image_shape"),
        (lambda: pl.digit_sheet(IMAGES, (5, 4), rows=0), ValueError, "rows"),
        (
            lambda: pl.digit_sheet(IMAGES, (5, 4), labels=["a"]),
            ValueError,
            "labels must be 23 texts, one for each image",
        ),
        (lambda: pl.sheet_pair(IMAGES, IMAGES[:, :5], (5, 4)), ValueError, "right has shape"),
        (
            lambda: pl.growing_sheet({1: IMAGES, 2: IMAGES[:3]}, (5, 4)),
            ValueError,
            "every epoch needs as many samples, got",
        ),
        (lambda: pl.sheet_pair(IMAGES, IMAGES, (5, 4), titles=("a",)), ValueError, "titles"),
        (lambda: pl.inference_curve(TRACE[0]), ValueError, "trace has shape"),
        (lambda: pl.inference_curve(TRACE[:, :1]), ValueError, "one example"),
        (lambda: pl.inference_curve(TRACE, singles=[99]), IndexError, "99"),
        (
            lambda: pl.inpainting_strips(**(STRIPS | dict(steps=(1,)))),
            ValueError,
            "snapshots has shape",
        ),
        (
            lambda: pl.inpainting_strips(**(STRIPS | dict(masked_start=IMAGES[:2]))),
            ValueError,
            "masked_start has shape",
        ),
        (
            lambda: pl.inpainting_strips(**STRIPS, visible=np.ones((2, 20))),
            ValueError,
            "visible|broadcast",
        ),
        (lambda: pl.parzen_bars([]), ValueError, "empty"),
        (lambda: pl.parzen_bars([dict(name="a")]), ValueError, "lacks"),
        (lambda: pl.parzen_bars([dict(name="a", mean=1, sterr=2)]), ValueError, "unknown keys"),
        (lambda: pl.parzen_bars([dict(name="a", mean=np.nan)]), ValueError, "not finite"),
        (lambda: pl.parzen_bars([dict(name="a", mean=1, kind="x")]), ValueError, "kind"),
        (lambda: pl.training_curves([]), ValueError, "empty"),
        (lambda: pl.receptive_fields({}, (5, 4)), ValueError, "fields is empty"),
        (
            lambda: pl.receptive_fields({"in": FIELDS["in"], "out": FIELDS["out"][:5]}, (5, 4)),
            ValueError,
            r"out has shape \(5, 20\)",
        ),
        (
            lambda: pl.latent_walk(IMAGES[None, :5], IMAGES[None, :4], (5, 4)),
            ValueError,
            "blends has shape",
        ),
        (
            lambda: pl.inference_walk(**(WALK | dict(trace=TRACE[:4, :3]))),
            ValueError,
            "trace has shape",
        ),
        (
            lambda: pl.inference_walk(**(WALK | dict(reconstructions=np.full((5, 3, 20), np.nan)))),
            ValueError,
            "reconstructions holds NaN",
        ),
        (
            lambda: pl.training_curves([{k: v for k, v in HISTORY[0].items() if k != "rms"}]),
            ValueError,
            "'rms'",
        ),
        (
            lambda: pl.training_curves([HISTORY[0], dict(HISTORY[1], loss_f=[1.0])]),
            ValueError,
            "'loss_f'",
        ),
        (
            lambda: pl.training_curves([dict(HISTORY[0], log_p_end=np.nan)]),
            ValueError,
            "log_p_end holds NaN",
        ),
    ],
)
def test_refuses(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_save_refuses(tmp_path):
    fig = ALL["inference_curve"]()
    with pytest.raises(ValueError, match="must end in"):
        pl.save_figure(fig, tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match="make it first"):
        pl.save_figure(fig, tmp_path / "no" / "a.png")


def test_importing_is_light():
    import subprocess
    import sys

    code = (
        "import sys, biolearn.plotting; sys.exit('matplotlib' if 'matplotlib' in "
        "sys.modules else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
