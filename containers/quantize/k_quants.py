"""K-quants (Q4_K, Q5_K, Q6_K), encoded by the very library that will decode them: ggml, inside the xllamacpp wheel.

The gguf package decodes these types and does not encode them. ggml's public C interface (ggml.h) does, and the wheel
exports it; it is called without importing the server.
"""

import ctypes
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, quant_shape_to_byte_shape

from containers.contract import StageError

K_QUANTS = (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_K, GGMLQuantizationType.Q6_K)
BLOCKS_AT_ONCE = 4096
"""Blocks of 256 weights in one call, about 1M weights and a tenth of a second: what a thread takes at a time."""


def encode(values: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Return the bytes (rows, bytes a row) of fp32 `values` (rows, columns); columns divide by 256.

    Rows are independent: the bytes do not depend on the number of threads. Raises StageError for a wheel without ggml's
    encoder.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    rows, columns = values.shape
    made = np.empty(quant_shape_to_byte_shape(values.shape, kind), dtype=np.uint8)
    step = max(1, BLOCKS_AT_ONCE * 256 // columns)

    def encode_rows(first: int) -> None:
        part, into = values[first : first + step], made[first : first + step]
        written = encoder()(int(kind), part.ctypes.data, into.ctypes.data, 0, len(part), columns, None)
        if written != into.nbytes:
            raise StageError(f"ggml wrote {written} bytes of {kind.name} where {into.nbytes} were due")

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(encode_rows, range(0, rows, step)))
    return made


@cache
def encoder() -> Any:
    """Return ggml_quantize_chunk(type, source, target, first weight, rows, columns, importance); raises StageError."""
    found = importlib.util.find_spec("xllamacpp")
    folder = Path(found.origin or "").parent if found else Path()
    for file in sorted(folder.glob("xllamacpp.*")):
        if file.suffix in (".so", ".dylib", ".pyd"):
            function = getattr(ctypes.CDLL(str(file)), "ggml_quantize_chunk", None)
            if function is not None:
                function.restype = ctypes.c_size_t
                sizes = [ctypes.c_int64] * 3
                function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *sizes, ctypes.c_void_p]
                return function
    raise StageError(
        "the installed xllamacpp does not export ggml_quantize_chunk, which writes q4_k_m and q5_k_m: "
        "leave them out of quantize.formats, or install the wheel that constraints.txt pins"
    )
