"""float32 matrix products by Intel's MKL from its Python wheel (pip install mkl), called through its
C interface: to see on a processor whether they would pay. Nothing in the package uses it.
"""

import ctypes
import importlib.metadata
from pathlib import Path

import numpy as np

ROWS, PLAIN, TRANSPOSED, SEQUENTIAL = 101, 111, 112, 1  # of mkl_cblas.h and mkl_service.h


def library():
    "MKL, told to use no threads of its own; FileNotFoundError where the wheel is not installed."
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [Path(f.locate()) for f in files if f.name.startswith("libmkl_rt.so")]
    if not paths:
        raise FileNotFoundError("MKL is not installed here: pip install mkl")
    mkl = ctypes.CDLL(str(paths[0].resolve()))
    mkl.MKL_Set_Threading_Layer(SEQUENTIAL)
    pointer, number, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    mkl.cblas_sgemm.argtypes = [*[number] * 6, real, pointer, number, pointer, number, real]
    mkl.cblas_sgemm.argtypes += [pointer, number]
    return mkl


def product_by(mkl):
    "`product(a, b, out)` of float32 matrices, of which a may be a transpose."

    def product(a, b, out=None):
        if out is None:
            out = np.empty((a.shape[0], b.shape[1]), np.float32)
        flipped = not a.flags.c_contiguous
        rows = a.T if flipped else a
        if not (rows.flags.c_contiguous and b.flags.c_contiguous and out.flags.c_contiguous):
            raise ValueError(f"not in rows: {a.strides}, {b.strides}, {out.strides}")
        (m, k), n = a.shape, b.shape[1]
        order = ROWS, TRANSPOSED if flipped else PLAIN, PLAIN
        left, right = (rows.ctypes.data, rows.shape[1]), (b.ctypes.data, n)
        mkl.cblas_sgemm(*order, m, n, k, 1.0, *left, *right, 0.0, out.ctypes.data, n)
        return out

    return product


def force():
    "Make this process's training steps multiply by MKL; returns its version."
    from biolearn.core import fast_inference, layers

    mkl = library()
    layers.product = fast_inference.product = product_by(mkl)
    text = ctypes.create_string_buffer(200)
    mkl.MKL_Get_Version_String(text, len(text))
    return text.value.decode().split("Version ")[-1].split("-")[0]
