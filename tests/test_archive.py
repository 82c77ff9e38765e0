"""Fit to be cited, archived and run elsewhere: the files that describe the package to programs agree
with each other, the container file names what exists, and every answer to the checklists of the
field leads to its evidence.
"""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import stage


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def settings():
    parser = ConfigParser()
    parser.read_string(read("settings.ini"))
    return parser["DEFAULT"]


def targets():
    "The targets of the Makefile."
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))


# ---- CITATION.cff --------------------------------------------------------------------------------

# The schema of the Citation File Format 1.2.0: what must be there, and what may be there besides.
# (Of a reference only the part that is used here: the schema knows 64 keys of one.)
REQUIRED = {"authors", "cff-version", "message", "title"}
ALLOWED = REQUIRED | set(
    """abstract commit contact date-released doi identifiers keywords license license-url
    preferred-citation references repository repository-artifact repository-code type url
    version""".split()
)
REFERENCE_REQUIRED = {"authors", "title", "type"}
REFERENCE_ALLOWED = REFERENCE_REQUIRED | {"identifiers", "journal", "notes", "url", "year"}
PERSON = {"family-names", "given-names", "affiliation", "orcid"}


def citation():
    "CITATION.cff, every value as it is written: 0.10 is a version and no number."
    return yaml.load(read("CITATION.cff"), yaml.BaseLoader)


def test_the_citation_has_what_its_schema_requires_and_nothing_that_it_forbids():
    cff = citation()
    paper = cff["preferred-citation"]
    assert cff["cff-version"] == "1.2.0"
    assert cff["type"] in ("software", "dataset")
    assert REQUIRED <= cff.keys() <= ALLOWED
    assert REFERENCE_REQUIRED <= paper.keys() <= REFERENCE_ALLOWED
    for author in (*cff["authors"], *paper["authors"]):
        assert author.keys() == {"name"} or author.keys() <= PERSON, author
    for identifier in paper["identifiers"]:
        assert {"type", "value"} <= identifier.keys() <= {"type", "value", "description"}
        assert identifier["type"] in ("doi", "url", "swh", "other")


# ---- codemeta.json -------------------------------------------------------------------------------

# The terms of CodeMeta 3.0 (https://w3id.org/codemeta/3.0) that this file may use.
TERMS = set(
    """applicationCategory author buildInstructions citation codeRepository
    continuousIntegration contributor copyrightHolder copyrightYear dateCreated dateModified
    datePublished description developmentStatus downloadUrl email familyName funder givenName
    hasPart identifier isPartOf issueTracker keywords license maintainer name operatingSystem
    programmingLanguage publisher readme referencePublication relatedLink releaseNotes
    runtimePlatform sameAs softwareHelp softwareRequirements softwareVersion supportingData url
    version""".split()
)
TYPES = {"SoftwareSourceCode", "Organization", "Person", "schema:ScholarlyArticle"}


def codemeta():
    return json.loads(read("codemeta.json"))


def nodes(value):
    "Every object in a JSON document."
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_codemeta_uses_the_terms_of_its_vocabulary():
    made = codemeta()
    assert made.pop("@context") == "https://w3id.org/codemeta/3.0"
    assert made["@type"] == "SoftwareSourceCode"
    for node in nodes(made):
        assert node["@type"] in TYPES
        assert {key for key in node if not key.startswith("@")} <= TERMS


def names(authors):
    "Authors as plain names, whether they stand in the one form or in the other."
    return [
        one.get("name")
        or " ".join(
            one[key]
            for key in ("givenName", "given-names", "familyName", "family-names")
            if key in one
        )
        for one in authors
    ]


def test_codemeta_says_what_the_settings_say():
    made, about = codemeta(), settings()
    assert made["name"] == about["lib_name"]
    assert made["version"] == about["version"]
    assert made["description"] == about["description"]
    assert names(made["author"]) == [about["author"]]
    assert made["codeRepository"] == about["git_url"]
    assert made["url"] == about["doc_host"] + about["doc_baseurl"]
    assert made["runtimePlatform"] == f"Python {about['min_python']} to {about['max_python']}"
    assert (about["license"], made["license"]) == (
        "apache2",
        "https://spdx.org/licenses/Apache-2.0",
    )
    # the settings' 3 is "Alpha" on the package index, repostatus.org's wip "not yet stable"
    assert (about["status"], made["developmentStatus"]) == ("3", "https://www.repostatus.org/#wip")


def test_codemeta_says_what_the_citation_says():
    made, cff = codemeta(), citation()
    assert cff["title"].startswith(f"{made['name']}: ")
    assert made["version"] == cff["version"]
    assert made["license"] == f"https://spdx.org/licenses/{cff['license']}"
    assert names(made["author"]) == names(cff["authors"])
    assert made["codeRepository"] == cff["repository-code"]
    assert made["keywords"] == cff["keywords"]


def test_both_name_the_same_paper():
    made, cff = codemeta()["referencePublication"], citation()["preferred-citation"]
    (arxiv,) = [one["value"] for one in cff["identifiers"] if one["value"].startswith("arXiv:")]
    number = arxiv.removeprefix("arXiv:")
    assert made["@id"] == cff["url"] == f"https://arxiv.org/abs/{number}"
    assert made["identifier"] == f"https://doi.org/10.48550/arXiv.{number}"
    assert made["name"] == cff["title"]
    assert names(made["author"]) == names(cff["authors"])
    assert made["datePublished"] == cff["year"]
    assert number in read("README.md")


@pytest.mark.parametrize("key", ["readme", "buildInstructions", "softwareRequirements"])
def test_what_codemeta_links_to_is_in_the_repository(key):
    made = codemeta()
    start = f"{made['codeRepository']}/blob/{settings()['branch']}/"
    assert made[key].startswith(start)
    assert (ROOT / made[key].removeprefix(start)).is_file()


# ---- the container -------------------------------------------------------------------------------


def instructions():
    "The instructions of the container file in their order: [(word, the rest)]."
    lines = [line for line in read("Containerfile").splitlines() if not line.startswith("#")]
    whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in whole.splitlines() if line]


def told(word):
    return [rest for instruction, rest in instructions() if instruction == word]


def test_the_container_starts_from_a_python_that_was_tried_pinned_to_its_patch():
    assert told("FROM") == ["${BASE}"]
    base = dict(argument.split("=", 1) for argument in told("ARG"))["BASE"]
    minor, _ = re.fullmatch(r"docker\.io/library/python:3\.(\d+)\.(\d+)-slim-[a-z]+", base).groups()
    about = settings()
    low, high = (int(about[key].split(".")[1]) for key in ("min_python", "max_python"))
    assert low <= int(minor) <= high


def test_the_container_runs_as_a_user_who_owns_what_is_written_to():
    (user,) = told("USER")
    (volume,) = told("VOLUME")
    (account,) = [run for run in told("RUN") if "useradd" in run]
    name = account.split("&&")[0].split()[-1]
    assert int(user) > 0
    assert f"--uid {user} " in account
    assert f"chown {name}:{name} {volume}" in account
    assert f"OUT={volume}" in json.loads(told("ENTRYPOINT")[0])
    words = [word for word, _ in instructions()]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert words.index("VOLUME") > words.index("USER")


def test_the_container_copies_what_exists_and_makes_what_the_makefile_makes():
    for copied in told("COPY"):
        sources = [word for word in copied.split()[:-1] if not word.startswith("--")]
        assert sources and all((ROOT / source).exists() for source in sources)
    assert json.loads(told("ENTRYPOINT")[0])[0] == "make"
    asked = set(json.loads(told("CMD")[0]))
    assert asked == {"figures"}
    for run in told("RUN"):
        asked |= set(re.findall(r"(?:^|&& )make ([a-z-]+)", run))
    asked |= set(re.findall(r"run .* biolearn ([a-z-]+)", read("Containerfile")))
    assert asked == {"figures", "test", "venv"} <= targets()


def left_out(path):
    "Does .dockerignore keep this path of the repository out of the image?"
    patterns = [line for line in read(".dockerignore").splitlines() if line and line[0] != "#"]
    folders = [path, *(parent.as_posix() for parent in Path(path).parents)]
    return any(
        fnmatch.fnmatch(folder, pattern) or fnmatch.fnmatch(folder, pattern.replace("**/", ""))
        for pattern in patterns
        for folder in folders
    )


def test_the_image_holds_what_the_repository_holds_but_for_what_only_its_host_reads():
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("not in a git repository")
    command = ["git", "-C", str(ROOT), "ls-files"]
    tracked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    out = {path for path in tracked if path and left_out(path)}
    assert len(tracked) > 300
    assert {path.split("/")[0] for path in out} <= {".github"}


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/.ready",
        "biolearn/core/__pycache__/data.cpython-312.pyc",
        "biolearn.egg-info/PKG-INFO",
        "_docs/html/index.html",
        "figures/quick/report.html",
        "figures/paper/runs/key/model.safetensors",
    ],
)
def test_the_image_holds_nothing_that_was_made_here(path):
    assert left_out(path)


# ---- the checklists ------------------------------------------------------------------------------

PAGE = read("docs/reproducibility.md")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("| asked", "|---"))
]


def links(text):
    return [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]


def commands(text):
    return re.findall(r"`make ([a-z-]+)", text)


def test_four_lists_are_answered():
    lists = re.findall(r"^## (.*)", PAGE, re.M)
    assert lists == [
        "ACM badges",
        "TMLR",
        "Reproducibility checklist of machine learning",
        "ReScience C",
    ]
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_yes_has_evidence_and_every_no_says_what_is_missing(row):
    asked, answer, evidence = row
    assert "?" in asked
    assert answer in ("yes", "partly", "no")
    assert evidence
    if answer != "no":
        assert links(evidence) or commands(evidence)
    assert set(commands(evidence)) <= targets()


@pytest.mark.parametrize("link", sorted(set(links(PAGE))))
def test_the_evidence_exists(link):
    assert (DOCS / link).exists()


def test_the_book_takes_the_page_up_with_its_links():
    book = stage.Book("https://example.org/r")
    book.add_text("reproducibility.md")
    made = book.made["reproducibility.md"].decode()
    assert "](12_stability.ipynb)" in made and "](figures/fig6_ablations.ipynb)" in made
    assert "](https://example.org/r/blob/main/CITATION.cff)" in made and "](paper.md)" in made
    assert "../" not in made and not book.wanted
    assert "\nreproducibility\n" in stage.contents()


# ---- other people's work -------------------------------------------------------------------------


def test_the_licence_of_the_digits_names_authors_terms_changes_and_its_doubts():
    text = read("biolearn/assets/mnist-small/LICENSE.md")
    for said in ("Yann LeCun", "Corinna Cortes", "Burges", "CC-BY-SA-3.0", "2,000", "500"):
        assert said in text
    assert "https://creativecommons.org/licenses/by-sa/3.0/legalcode" in text
    headings = re.findall(r"^## (.*)", text, re.M)
    assert headings == ["Changes", "How sure is the licence?", "The trained networks"]
