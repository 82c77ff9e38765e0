"""The API reference: one page for each module, every public name in the order of the source,
straight from the docstrings.

The docstrings are plain text. Sphinx reads reStructuredText, so whatever would mean something there
is escaped; names in backticks become links where the package has them; lines like
`x : (batch, n_0) float32` become a list; the comments beside the fields of a class come along.
"""

import ast
import importlib
import inspect
import io
import pkgutil
import re
import tokenize
from functools import lru_cache
from pathlib import Path

import biolearn

DESCRIBED = re.compile(r"\s*(\w+(?:, \w+)*) : (.*)")


@lru_cache
def modules():
    """The public modules of the package, in the order of the notebooks that tell them: [(name,
    notebook or None)].
    """
    told = {
        name: match[1]
        for name in names()
        if (match := re.search(r"File to edit: \.\./nbs/(\w+)\.ipynb", source(name)))
    }
    return sorted(told.items(), key=lambda item: item[1])


@lru_cache
def names():
    return [m.name for m in pkgutil.iter_modules(biolearn.__path__) if not m.name.startswith("_")]


@lru_cache
def source(module):
    return (Path(biolearn.__path__[0]) / f"{module}.py").read_text(encoding="utf-8")


@lru_cache
def comments(module):
    "The comments of a module's source: {line: text}."
    return {
        t.start[0]: t.string.lstrip("# ")
        for t in tokenize.generate_tokens(io.StringIO(source(module)).readline)
        if t.type == tokenize.COMMENT
    }


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
    said = comments(module)
    text = next(
        (said[line] for line in range(node.lineno, node.end_lineno + 1) if line in said),
        said.get(node.lineno - 1, ""),
    )
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
    return sorted(
        (n for n in importlib.import_module(f"biolearn.{module}").__all__ if n in where),
        key=lambda n: where[n].lineno,
    )


def fields(module, name):
    "A line for each field of a class written as `name: type = default  # comment`."
    said, node = comments(module), definitions(module)[name]
    return [
        (
            field.target.id,
            ast.unparse(field.annotation),
            ast.unparse(field.value) if field.value else None,
            said.get(field.lineno, ""),
        )
        for field in node.body
        if isinstance(field, ast.AnnAssign)
    ]


def restructured(text, module):
    "A plain docstring as lines of reStructuredText."
    lines, item = [], False
    for line in inspect.cleandoc(text).splitlines():
        described = DESCRIBED.match(line)
        if described:
            lines += ([] if item or not lines or not lines[-1] else [""]) + [
                f"- ``{described[1]}``: {escaped(described[2], module)}"
            ]
            item = True
        elif not line.strip():
            lines.append("")
            item = False
        else:
            lines.append(("  " if item else "") + escaped(line.strip(), module))
    return lines


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
    where = [m for m in ([path] if path else [module]) if m in names() and name in public(m)] or [
        m for m in names() if not path and name in public(m)
    ]
    if len(where) == 1:
        return rf"\ :py:obj:`{code} <biolearn.{where[0]}.{name}>`\ "
    return rf"\ ``{code}``\ "


def docstring(app, what, full_name, value, options, lines):
    "For autodoc: the docstring of an object of ours, and the fields of a class."
    module, _, name = full_name.removeprefix("biolearn.").partition(".")
    lines[:] = restructured("\n".join(lines), module)
    if what == "class" and name in definitions(module):
        made = fields(module, name)
        if made:
            lines += ["", ".. rubric:: Fields", ""]
        for field, kind, default, comment in made:
            lines.append(
                f"- ``{field}: {kind}{'' if default is None else f' = {default}'}``"
                + (f" – {escaped(comment, module)}" if comment else "")
            )
        lines.append("")


def setup(app):
    app.connect("autodoc-process-docstring", docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
