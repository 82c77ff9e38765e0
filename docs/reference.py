"""The API reference: one page for each module, every public name in the order of the source,
straight from the docstrings.

The docstrings are plain text in the form that NumPy uses. Sphinx reads reStructuredText, so
whatever would mean something there is escaped; names in backticks become links where the package
has them; sections become lists; the comments of the fields of a class, behind them or above them,
come along. Modules are named without the package: core.inference.
"""

import ast
import importlib
import inspect
import io
import re
import tokenize
from functools import lru_cache
from pathlib import Path

import biolearn

PACKAGE = Path(biolearn.__file__).parent
ENTRIES = ("Parameters", "Returns", "Yields", "Raises", "Warns", "Attributes")
DESCRIBED = re.compile(r"(\w+(?:, \w+)*) : (.*)")


@lru_cache
def modules():
    """The public modules of the package, in the order of the notebooks that tell them: [(name,
    notebook)].
    """
    told = [
        (name, match[1])
        for name in names()
        if (match := re.search(r"File to edit: (?:\.\./)+nbs/(\w+)\.ipynb", source(name)))
    ]
    return sorted(told, key=lambda item: item[1])


@lru_cache
def names():
    "The modules of the package and of the packages in it, but for those with an underscore."
    paths = [p.relative_to(PACKAGE).with_suffix("") for p in PACKAGE.rglob("*.py")]
    return sorted(".".join(p.parts) for p in paths if not any(n.startswith("_") for n in p.parts))


@lru_cache
def source(module):
    return (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


@lru_cache
def comments(module):
    "The comments of a module's source: {line: (text, whether it has the line for itself)}."
    return {
        t.start[0]: (t.string.lstrip("# "), t.line.lstrip().startswith("#"))
        for t in tokenize.generate_tokens(io.StringIO(source(module)).readline)
        if t.type == tokenize.COMMENT and not t.string.startswith("# %%")
    }


def comment(module, node):
    "What is said of a field or a constant: the comment behind it, or the lines right above it."
    said = comments(module)
    for line in range(node.lineno, node.end_lineno + 1):
        if line in said:
            return said[line][0]
    above = node.lineno
    while said.get(above - 1, ("", False))[1]:
        above -= 1
    return " ".join(said[line][0] for line in range(above, node.lineno))


@lru_cache
def definitions(module):
    return defined_in(source(module))


def defined_in(code):
    """Where names are defined in a piece of code: {name: the first definition, as a node of its
    syntax tree}, in the order of the source.
    """
    found = {}
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.setdefault(node.name, node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in getattr(node, "targets", None) or [node.target]:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, node)
    return found


def page(module, notebook):
    "The page of one module, as reStructuredText."
    loaded, where = importlib.import_module(f"biolearn.{module}"), definitions(module)
    title = f"biolearn.{module}"
    lines = [
        title,
        "=" * len(title),
        "",
        f".. py:module:: biolearn.{module}",
        "",
        *restructured(loaded.__doc__ or "", module),
        "",
        f"Written and explained in :doc:`/{notebook}`.",
        "",
    ]
    for name in public(module):
        lines += entry(module, name, getattr(loaded, name), where[name])
    foreign = [n for n in loaded.__all__ if n not in where]
    if foreign:
        lines += [
            "Also here, from other packages: " + ", ".join(f"``{n}``" for n in foreign) + ".",
            "",
        ]
    return "\n".join(lines)


def entry(module, name, value, node):
    """One name: autodoc for functions and classes; constants with the comment that stands beside or
    above them.
    """
    if inspect.isclass(value):
        return [
            f".. autoclass:: biolearn.{module}.{name}",
            "   :members:",
            "   :show-inheritance:" if issubclass(value, Exception) else "",
            "",
        ]
    if callable(value):
        return [f".. autofunction:: biolearn.{module}.{name}", ""]
    text = comment(module, node)
    shown = repr(value) if len(repr(value)) < 60 else type(value).__name__
    return [
        f".. py:data:: {name}",
        *([f"   :value: {shown}"] if len(repr(value)) < 60 else [f"   :type: {shown}"]),
        "",
        *("   " + line for line in restructured(text, module)),
        "",
    ]


@lru_cache
def public(module):
    "The names that a module offers and defines itself, in the order of its source."
    where = definitions(module)
    lists = [
        ast.literal_eval(node.value)
        for node in ast.parse(source(module)).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    # A page may have a list of its own, behind the one that the export writes.
    offered = lists[-1] if lists else []
    return sorted((n for n in offered if n in where), key=lambda n: where[n].lineno)


def fields(module, name):
    "The fields of a class: [(name, type, default or None, its comment)]."
    return [
        (
            field.target.id,
            ast.unparse(field.annotation),
            ast.unparse(field.value) if field.value else None,
            comment(module, field),
        )
        for field in definitions(module)[name].body
        if isinstance(field, ast.AnnAssign)
    ]


def restructured(text, module):
    """A plain docstring as lines of reStructuredText: a section gets a heading and an item for each
    entry, and so do lines such as `x : (batch, n_0)`; what is indented belongs to the item above.
    """
    whole = re.sub("`[^`]+`", lambda code: " ".join(code[0].split()), inspect.cleandoc(text))
    given = whole.splitlines()
    lines, section, item = [], False, False
    for line, below in zip(given, [*given[1:], ""]):
        described = DESCRIBED.match(line)
        if re.fullmatch("-{3,}", below):
            lines += ["", f".. rubric:: {line}", ""]
            section = line in ENTRIES
        elif re.fullmatch("-{3,}", line) or not line:
            lines += [""] * bool(lines and lines[-1])
        elif line[0].isspace():
            lines.append("  " * item + escaped(line.strip(), module))
        elif described or section:
            lines += [""] * bool(lines and lines[-1] and not item)
            lines.append(f"- {entry_of(line, described, module)}")
            item = True
        else:
            lines += [""] * bool(lines and lines[-1] and item)
            lines.append(escaped(line, module))
            item = False
    return lines


def entry_of(line, described, module):
    "The first line of an entry: a name as code, with what is said of it, or any other text."
    if described:
        return f"``{described[1]}``: {escaped(described[2], module)}"
    return f"``{line}``" if re.fullmatch(r"\*{0,2}\w+(, \w+)*", line) else escaped(line, module)


def escaped(line, module):
    "One line with its backticks as code or links, and everything else taken literally."
    parts = re.split(r"`([^`]+)`", line)
    return "".join(
        named(part, module) if n % 2 else re.sub(r"([\\*|_`])", r"\\\1", part)
        for n, part in enumerate(parts)
    )


def named(code, module):
    """A name in backticks: a link if this module, the module it names, or exactly one other module
    has it; code otherwise.
    """
    path, _, name = code.rpartition(".")
    path = path.removeprefix("biolearn.")
    here = [m for m in names() if m == path or m.endswith(f".{path}")] if path else [module]
    where = [m for m in here if m in names() and name in public(m)]
    where = where or [m for m in names() if not path and name in public(m)]
    if len(where) == 1:
        return rf"\ :py:obj:`{code} <biolearn.{where[0]}.{name}>`\ "
    return rf"\ ``{code}``\ "


def place(full_name):
    "The module and the name in it of an object of ours."
    path = full_name.removeprefix("biolearn.")
    module = max((m for m in names() if path.startswith(f"{m}.")), key=len)
    return module, path.removeprefix(f"{module}.")


def docstring(app, what, full_name, value, options, lines):
    "For autodoc: the docstring of an object of ours, and the fields of a class."
    module, name = place(full_name)
    lines[:] = restructured("\n".join(lines), module)
    if what == "class" and name in definitions(module):
        made = fields(module, name)
        if made:
            lines += ["", ".. rubric:: Fields", ""]
        for field, kind, default, said in made:
            lines.append(
                f"- ``{field}: {kind}{'' if default is None else f' = {default}'}``"
                + (f" – {escaped(said, module)}" if said else "")
            )
        lines.append("")


def setup(app):
    app.connect("autodoc-process-docstring", docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
