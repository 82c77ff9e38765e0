"""The page `play` of the book, on which a trained network runs in the reader's browser.

`python docs/play.py FOLDER` writes it, with the network and some digits from the package, to
FOLDER; Sphinx does the same with every build. `python docs/play.py --measure` measures in Chromium
how quick it is.
"""

import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path

import headless
import numpy as np

from biolearn.core.data import load_mnist_small
from biolearn.core.model import weights_of
from biolearn.core.shipped import load_trained

PAGE = Path(__file__).parent / "play"
DATA = "data.js"
DIGITS_OF_A_CLASS = 2
MOST_BYTES = 6_000_000
GOALS = {  # what is measured: seconds that are allowed
    "first picture, after the files are there": 2.0,
    "completion, 20 rounds of 15 steps": 3.0,
    "one GENERATE": 0.5,
}
MEASURE = """
const median = (numbers) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const has = (node, name) => new Promise((resolve) => {
  const look = () => (node.dataset[name] ? resolve(Number(node.dataset[name])) : setTimeout(look, 10));
  look();
});
async function again(part, button) {
  const node = document.getElementById(part);
  const seconds = [];
  for (let k = 0; k < given.times; k += 1) {
    await has(node, "seconds");
    delete node.dataset.seconds;
    document.getElementById(button).click();
    seconds.push(await has(node, "seconds"));
  }
  return median(seconds);
}
const first = await has(document.documentElement, "firstPicture");
return [first, await again("draw", "draw-again"), await again("dream", "dream-new")];
"""


class PlayError(Exception):
    "The page cannot be made from what the package has."


def digits():
    """The digits that the page offers: of each class the first test digits of MNIST's small part,
    as bytes (n, 784), 0 to 255.
    """
    data = load_mnist_small()
    rows = [np.flatnonzero(data.test_labels == c)[:DIGITS_OF_A_CLASS] for c in range(10)]
    return np.rint(data.test[np.concatenate(rows)] * 255).astype(np.uint8)


def arrays():
    """What the page computes with, {name: array}: the weights as the package has them, in 16 bits;
    the paper's prior, and the mixture, whose network must be the same, in 16 bits.
    """
    paper, mixture = load_trained("paper"), load_trained("mixture")
    made = {name: w.astype(np.float16) for name, w in weights_of(paper).items()}
    for name, weight in weights_of(mixture).items():
        if not np.array_equal(weight, made[name]):
            raise PlayError(f"the networks `paper` and `mixture` differ in {name}.")
    return {
        **made,
        "prior.mean": paper.prior.mean,
        "prior.var": paper.prior.var,
        "mixture.mean": mixture.prior.mean.astype(np.float16),
        "mixture.var": mixture.prior.var.astype(np.float16),
        "mixture.weight": mixture.prior.weight,
        "digits": digits(),
    }


def packed(arrays):
    """The script that holds the arrays: a header that says where each begins, and their bytes.

    A page that was opened as a file may load a script, and nothing else.
    """
    header, parts, offset = {}, [], 0
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        header[name] = {"dtype": str(array.dtype), "shape": array.shape, "offset": offset}
        parts.append(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        offset += len(parts[-1])
    text = base64.b64encode(b"".join(parts)).decode()
    return f'"use strict";\nconst PLAY_DATA = {{header: {json.dumps(header)}, base64: "{text}"}};\n'


def write(folder):
    "The whole page, into `folder`."
    folder = Path(folder)
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    (folder / DATA).write_text(packed(arrays()), encoding="utf-8")


def setup(app):
    "For Sphinx: the page is written beside the others."

    def finish(app, error):
        if error is None and app.builder.name == "html":
            write(Path(app.outdir) / "play")

    app.connect("build-finished", finish)
    return {"parallel_read_safe": True}


def measure(times=5):
    """Prints how heavy the page is and how long it takes in Chromium (the median of `times`, but
    for the first picture), beside what is allowed; False if anything is above that.
    """
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        weight = sum(path.stat().st_size for path in Path(folder).iterdir())
        with headless.Page(folder, "index.html", headless.browsers()["chromium"]) as page:
            seconds = page.run(MEASURE, {"times": times})
    print(f"{'weight of the page':42} {weight / 1e6:5.2f} MB (allowed: {MOST_BYTES / 1e6:g})")
    for (name, allowed), measured in zip(GOALS.items(), seconds):
        print(f"{name:42} {measured:5.2f} s  (allowed: {allowed:g})")
    return weight < MOST_BYTES and all(s < most for s, most in zip(seconds, GOALS.values()))


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        sys.exit(not measure())
    write(sys.argv[1])
