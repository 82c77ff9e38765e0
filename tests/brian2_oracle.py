"""Brian2, for the tests that compare with it."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys

import numpy as np
import pytest


class _WithoutPtp(importlib.machinery.SourceFileLoader):
    """Brian2 2.9.0, the last one for Python 3.11, wraps the method `ndarray.ptp`, which NumPy 2.4
    removed, and so cannot be imported beside it. This loader leaves out that one line; nothing in a
    simulation uses it. Newer versions never get here.
    """

    line = b"    ptp = wrap_function_keep_dimensions(np.ndarray.ptp)\n"

    def source_to_code(self, data, path, **kwargs):
        return super().source_to_code(data.replace(self.line, b""), path, **kwargs)

    def path_stats(self, path):
        raise OSError("always read the source: no byte code of the edited module is kept")


def import_brian2():
    """Brian2 with its NumPy code target.

    A missing Brian2 is a failure: it is a development dependency, except where it has no wheel.
    """
    if sys.version_info >= (3, 14):
        pytest.importorskip("brian2", reason="Brian2 has no wheel for this Python")
    finder = None
    if not hasattr(np.ndarray, "ptp"):

        class Finder(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name != "brian2.units.fundamentalunits":
                    return None
                spec = importlib.machinery.PathFinder.find_spec(name, path)
                return importlib.util.spec_from_file_location(
                    name, spec.origin, loader=_WithoutPtp(name, spec.origin)
                )

        sys.meta_path.insert(0, finder := Finder())
    try:
        import brian2
    finally:
        if finder is not None:
            sys.meta_path.remove(finder)
    brian2.prefs.codegen.target = "numpy"
    return brian2
