"The part of `safetensors.numpy` that biolearn uses."

import json
from pathlib import Path

import numpy as np

from . import TYPES, _File

CODES = {np.dtype(name): code for code, name in TYPES.items()}


def save(arrays):
    header, parts, offset = {}, [], 0
    last_type_first = lambda item: (-list(CODES).index(item[1].dtype), item[0])
    for name, array in sorted(arrays.items(), key=last_type_first):
        ends = [offset, offset := offset + array.nbytes]
        header[name] = {"dtype": CODES[array.dtype], "shape": array.shape, "data_offsets": ends}
        parts.append(array.tobytes())
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(parts)


def save_file(arrays, path):
    Path(path).write_bytes(save(arrays))


def load_file(path):
    file = _File(Path(path).read_bytes())
    return {name: file.get_tensor(name) for name in file.keys()}
