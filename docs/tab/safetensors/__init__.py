"""The part of `safetensors` that biolearn uses, in plain Python, for where it is not built.

A file is the length of its header (8 bytes), the header in JSON, and the arrays.
"""

import json
from contextlib import contextmanager

import numpy as np

TYPES = {"BOOL": "|b1", "U8": "|u1", "I8": "|i1", "I16": "<i2", "U16": "<u2", "F16": "<f2"}
TYPES |= {"I32": "<i4", "U32": "<u4", "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8"}


class SafetensorError(Exception):
    "The file is no safetensors file."


class _File:
    "An open file; its arrays are copied out of it."

    def __init__(self, data):
        size = int.from_bytes(data[:8], "little")
        try:
            self.header = json.loads(data[8 : 8 + size])
            self.texts = self.header.pop("__metadata__", None)
            ends = [about["data_offsets"][1] for about in self.header.values()]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SafetensorError(f"Error while deserializing header: {error}") from None
        self.data = data[8 + size :]
        if len(data) < 8 + size or max(ends, default=0) != len(self.data):
            raise SafetensorError("Error while deserializing header: incomplete")

    def metadata(self):
        return self.texts

    def keys(self):
        return sorted(self.header)

    def get_tensor(self, name):
        if name not in self.header:
            raise SafetensorError(f"File does not contain tensor {name}")
        about = self.header[name]
        start, end = about["data_offsets"]
        flat = np.frombuffer(self.data[start:end], TYPES[about["dtype"]])
        return flat.reshape(about["shape"]).copy()


@contextmanager
def safe_open(path, framework):
    with open(path, "rb") as file:
        yield _File(file.read())
