"""Packaging: everything that can be said in settings.ini is said there, once; this file only passes
it on to setuptools.
"""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser()
if not parser.read(here / "settings.ini", encoding="utf-8"):
    raise SystemExit(f"setup.py: {here / 'settings.ini'} is missing")
cfg = parser["DEFAULT"]


def names(key):
    """The entries of a list with one entry a line; configparser has dropped the comments between
    them.
    """
    return [line for line in cfg[key].splitlines() if line]


notebooks, readme = cfg["notebooks_package"], here / "README.md"
measurements = cfg["measurements_package"]
minor = range(int(cfg["min_python"].split(".")[1]), int(cfg["max_python"].split(".")[1]) + 1)

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else cfg["description"],
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    # Notebooks and stored measurements are not code: they travel as the data of packages that exist
    # only in the wheel and map onto their folders.
    packages=[
        *find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
        notebooks,
        measurements,
    ],
    package_dir={notebooks: cfg["notebooks_path"], measurements: cfg["measurements_path"]},
    package_data={
        cfg["lib_path"]: ["*.mplstyle", "py.typed", "assets/*/*"],
        notebooks: ["*.ipynb"],
        measurements: names("measurements_files"),
    },
    include_package_data=False,
    zip_safe=False,
    python_requires=f">={cfg['min_python']}",
    install_requires=names("requirements"),
    extras_require={
        key.removesuffix("_requirements"): names(key)
        for key in cfg
        if key.endswith("_requirements")
    },
    entry_points={"console_scripts": [cfg["console_scripts"]]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        *(f"Programming Language :: Python :: 3.{m}" for m in minor),
    ],
)
