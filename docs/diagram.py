"""Draws the diagrams of the book, from a small vocabulary: `python docs/diagram.py [FOLDER]` writes
them to nbs/diagrams, or to FOLDER.

A network is a `Stack`: layers, from the pixels up, with the maps f (up, left) and g (down, right)
between them. A layer is clamped, half clamped, moves, or rests; a map rests or learns; either is
faint where a drawing is not about it. A wave is noise, a diamond the error of the layer that a map
predicts, three ticks are spikes, a loop is a set of synapses within a layer. Colour never carries a
meaning alone, and each drawing brings its background, light or dark as the reader's system is. Only
the standard library is needed.
"""

import sys
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "nbs" / "diagrams"
LIGHT = {"ground": "#ffffff", "ink": "#1b1f23", "soft": "#6b7280", "f": "#0b5c8a", "g": "#9a4a00"}
DARK = {"ground": "#131416", "ink": "#e6e6e6", "soft": "#9aa0a6", "f": "#7cc4f0", "g": "#f0a860"}
BAR, GAP = 34, 78  # the height of a layer, and the room between two
WIDTHS = (132, 164, 100)  # of x, h1 and h2
NAMES = ("x", "h₁", "h₂")


def style() -> str:
    "The classes of all drawings, in the colours of a light and of a dark page."

    def rules(colours):
        ground, ink, soft = colours["ground"], colours["ink"], colours["soft"]
        return (
            f".ground{{fill:{ground}}}.ink{{fill:{ink}}}.soft{{fill:{soft}}}"
            f".layer{{fill:{ground};stroke:{ink}}}.clamped{{fill:{ink};stroke:{ink}}}"
            f".inside{{fill:{ground}}}.line{{fill:none;stroke:{ink}}}"
            f".f{{fill:{colours['f']};stroke:{colours['f']}}}"
            f".g{{fill:{colours['g']};stroke:{colours['g']}}}"
            f".hollow{{fill:{ground}}}.open{{fill:none}}"
        )

    common = (
        "text{font-family:system-ui,sans-serif;font-size:15px;text-anchor:middle}"
        "text.f,text.g{stroke:none}.small{font-size:13px}.bold{font-weight:600}.faint{opacity:.25}"
    )
    dark = f"@media (prefers-color-scheme:dark){{{rules(DARK)}}}"
    return f"<style>{common}{rules(LIGHT)}{dark}</style>"


# ---- the words of the language -------------------------------------------------------------------


def text(x: float, y: float, words: str, kind: str = "ink") -> str:
    "Words, centred at `x`, their feet at `y`."
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def layer(x: float, y: float, width: float, name: str, state: str = "rests") -> list[str]:
    """A layer centred at (x, y).

    `state`: 'clamped' is filled, 'half' is filled on the left, 'moves' has an arrow to both sides,
    'noisy' a wave, 'faint' is pale, 'rests' has nothing more.
    """
    clamped = state == "clamped"
    left, top = x - width / 2, y - BAR / 2
    drawn = [
        f'<rect class="{"clamped" if clamped else "layer"}" x="{left:g}" '
        f'y="{top:g}" width="{width:g}" height="{BAR}" rx="8" stroke-width="2"/>'
    ]
    if state == "half":
        drawn.append(
            f'<rect class="clamped" x="{left:g}" y="{top:g}" width="{width / 3:g}" '
            f'height="{BAR}" rx="8"/>'
        )
    drawn.append(text(x, y + 5, name, "inside bold" if clamped else "ink bold"))
    if state == "faint":
        return [faint(drawn)]
    if state == "noisy":
        return [*drawn, noisy(x + width / 2 + 22, y, "line")]
    return drawn + (moves(x + width / 2 + 20, y) if state in ("moves", "half") else [])


def faint(drawn: list[str]) -> str:
    "The same, pale."
    return f'<g class="faint">{"".join(drawn)}</g>'


def moves(x: float, y: float) -> list[str]:
    "An arrow to both sides, centred at (x, y): the activity of a layer moves."
    return [
        f'<path class="line" stroke-width="2" d="M{x - 9:g} {y:g}h18"/>',
        f'<path class="ink" d="M{x - 13:g} {y:g}l7 -5v10zM{x + 13:g} {y:g}l-7 -5v10z"/>',
    ]


def noisy(x: float, y: float, kind: str) -> str:
    "A wave centred at (x, y): a noisy copy."
    wave = f"M{x - 12:g} {y:g}q3 -8 6 0t6 0t6 0t6 0"
    return f'<path class="{kind} open" stroke-width="2" d="{wave}"/>'


def error(x: float, y: float, kind: str) -> str:
    "A diamond centred at (x, y): the difference of what is there and what a map says."
    return f'<path class="{kind} hollow" stroke-width="2" d="M{x:g} {y - 7:g}l7 7l-7 7l-7 -7z"/>'


def spikes(x: float, y: float, kind: str) -> str:
    "Three ticks centred at (x, y): spikes."
    ticks = "".join(f"M{x - 9:g} {y + step:g}h18" for step in (-6, 0, 6))
    return f'<path class="{kind} open" stroke-width="2" d="{ticks}"/>'


def loop(x: float, y: float) -> list[str]:
    "A loop to the right of the point (x, y), the end of a layer: synapses within it."
    return [
        f'<path class="line" stroke-width="2" d="M{x:g} {y - 8:g}c34 -14 34 30 8 16"/>',
        f'<path class="ink" d="M{x:g} {y + 8:g}l11 -6v11z"/>',
    ]


def arrow(kind: str, x: float, start: float, end: float, look: str = "rests") -> list[str]:
    """A map from the height `start` to `end`.

    `kind`: 'f' or 'g'. `look`: 'rests' is a thin line, 'learns' a thick one from a noisy copy to an
    error, 'spikes' is crossed by three ticks, 'faint' is pale.
    """
    way = 1 if end > start else -1
    learns = look == "learns"
    begin, tip = start + way * (15 if learns else 4), end - way * (17 if learns else 3)
    drawn = [
        f'<path class="{kind}" stroke-width="{5 if learns else 2}" '
        f'd="M{x:g} {begin:g}V{tip - way * 8:g}"/>',
        f'<path class="{kind}" d="M{x:g} {tip:g}l-7 {-way * 11}h14z"/>',
    ]
    if learns:
        drawn += [noisy(x, start + way * 8, kind), error(x, end - way * 8, kind)]
    if look == "spikes":
        drawn.append(spikes(x, (start + end) / 2, kind))
    return [faint(drawn)] if look == "faint" else drawn


@dataclass(frozen=True)
class Stack:
    """How a network of two hidden layers is drawn.

    Parameters
    ----------
    states
        Of x, h1, h2: what `layer` takes.
    looks
        Of the maps f1, g1, f2, g2: what `arrow` takes; those that are not named rest.
    """

    states: tuple[str, str, str]
    looks: dict[str, str]

    def draw(self, x: float, top: float) -> list[str]:
        "The network, centred at `x`, with the upper edge of its highest layer at `top`."
        heights = [top + BAR / 2 + (2 - k) * (BAR + GAP) for k in range(3)]
        drawn = []
        for k in (1, 2):
            low, high = heights[k - 1] - BAR / 2, heights[k] + BAR / 2
            for kind, side, start, end in (("f", -1, low, high), ("g", 1, high, low)):
                look = self.looks.get(f"{kind}{k}", "rests")
                drawn += arrow(kind, x + 28 * side, start, end, look)
                faint = " faint" if look == "faint" else ""
                name = kind + "₁₂"[k - 1]
                drawn.append(text(x + 52 * side, (low + high) / 2 + 5, name, kind + faint))
        for height, width, name, state in zip(heights, WIDTHS, NAMES, self.states):
            drawn += layer(x, height, width, name, state)
        return drawn


def drawing(width: int, height: int, title: str, parts: list[str]) -> str:
    "A whole drawing as SVG; `title` says what it shows to who cannot see it."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            style(),
            f'<rect class="ground" width="{width}" height="{height}" rx="6"/>',
            *parts,
            "</svg>\n",
        ]
    )


# ---- the drawings --------------------------------------------------------------------------------

MAPS = ("f1", "g1", "f2", "g2")
REST = ("rests", "rests", "rests")
INFERENCE = Stack(("clamped", "moves", "moves"), {})
TRAIN = Stack(REST, dict.fromkeys(MAPS, "learns"))
GENERATE = Stack(REST, {"f1": "faint", "f2": "faint"})


def panel(x: float, stack: Stack, title: str, lines: tuple[str, ...]) -> list[str]:
    "A stack with a title above it, and `lines` below it."
    below = [text(x, 350 + 20 * n, line, "ink small") for n, line in enumerate(lines)]
    return [text(x, 28, title, "ink bold"), *stack.draw(x, 50), *below]


def legend(y: float) -> list[str]:
    "What the marks mean, on a line."
    return [
        f'<rect class="clamped" x="24" y="{y - 7:g}" width="22" height="14" rx="4"/>',
        text(82, y + 5, "clamped", "soft small"),
        *moves(146, y),
        text(186, y + 5, "moves", "soft small"),
        noisy(250, y, "line"),
        text(302, y + 5, "noisy copy", "soft small"),
        error(390, y, "line"),
        text(420, y + 5, "error", "soft small"),
    ]


def algorithm() -> str:
    "The two steps of Algorithm 2 that alternate, side by side."
    title = (
        "Two copies of a network with layers x, h1 and h2, maps f up and g down. INFERENCE: x is "
        "clamped, h1 and h2 move, the maps rest. TRAIN: the layers rest, and each of the four maps "
        "learns, from a noisy copy of the layer where it starts to its error at the layer where it "
        "ends."
    )
    parts = [
        *panel(
            122,
            INFERENCE,
            "INFERENCE (E-step)",
            ("states move, weights rest", "by f(below) − f(g(h))"),
        ),
        *panel(
            358,
            TRAIN,
            "TRAIN (M-step)",
            ("weights change, states rest", "by activity before × error after"),
        ),
        *legend(402),
    ]
    return drawing(480, 424, title, parts)


def small(stack: Stack, note: str, title: str, *more: str) -> str:
    "A stack for the top of a page: `note` stands above it, `more` is drawn over it."
    parts = [text(125, 22, note, "ink small"), *stack.draw(125, 34), *more]
    return drawing(250, 308, title, parts)


def pair(look: str) -> dict[str, str]:
    "How the maps of the lower pair look; those of the upper one are faint."
    return {"f1": look, "g1": look, "f2": "faint", "g2": "faint"}


SMALL = {  # name: the stack, what stands above it, what it shows
    "synapse": (
        Stack(("rests", "rests", "faint"), {**pair("faint"), "f1": "learns"}),
        "one synapse learns",
        "A network of layers x, h1 and h2; only the map f1 from x to h1 is dark, and it learns.",
    ),
    "em": (
        Stack(("clamped", "moves", "moves"), {"f1": "faint", "f2": "faint", "g1": "learns"}),
        "E-step: h moves; M-step: g learns",
        "The network with x clamped: h1 and h2 move, and the map g1 down to x learns.",
    ),
    "pair": (
        Stack(("rests", "rests", "faint"), pair("learns")),
        "one pair of maps learns",
        "The network with its upper layer faint: the maps f1 and g1 between x and h1 learn.",
    ),
    "model": (
        Stack(REST, {}),
        "the whole network",
        "The network: layers x, h1 and h2, maps f1 and f2 up, g1 and g2 down.",
    ),
    "inference": (
        INFERENCE,
        "states move, weights rest",
        "The network with x clamped; h1 and h2 move, and the maps rest.",
    ),
    "learning": (
        TRAIN,
        "weights change, states rest",
        "The network with its layers at rest; all four maps learn.",
    ),
    "generate": (
        GENERATE,
        "drawn from p(h₂)",
        "The same network, with the maps up made faint: a draw of h2 becomes h1, then x.",
    ),
    "inpainting": (
        Stack(("half", "moves", "moves"), {}),
        "known pixels clamped",
        "The network with a part of x clamped; the other pixels, h1 and h2 move.",
    ),
    "likelihood": (
        Stack(("clamped", "noisy", "noisy"), {"f1": "faint", "f2": "faint"}),
        "how probable is this x?",
        "The network with x clamped and the maps up made faint; h1 and h2 are noisy.",
    ),
    "labels": (
        Stack(("clamped", "moves", "clamped"), {}),
        "the top layer is a label",
        "The network with x and the top layer clamped: h1 moves between them.",
    ),
    "spikes": (
        Stack(REST, dict.fromkeys(MAPS, "spikes")),
        "activities travel as spikes",
        "The network with spikes on every map.",
    ),
    "noise": (
        Stack(("clamped", "noisy", "noisy"), {}),
        "inference with noise",
        "The network with x clamped and noise on h1 and h2.",
    ),
}


def lateral() -> str:
    "Synapses within the top layer."
    stack, note = Stack(REST, {"f1": "faint", "f2": "faint"}), "neurons of h₂ are connected"
    title = "The network with the maps up made faint, and a loop from the top layer to itself."
    return small(stack, note, title, *loop(176, 51))


DRAWINGS = {
    "algorithm.svg": algorithm,
    "lateral.svg": lateral,
    **{f"{name}.svg": partial(small, *drawn) for name, drawn in SMALL.items()},
}


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        (folder / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
