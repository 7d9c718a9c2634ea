"""Numbers into GGUF's formats: `encoder(type)` gives a function from float32 rows to the bytes of a file.

q8_0 and the float formats are plain arithmetic; all others run llama.cpp's own quantiser, which the xllamacpp wheel
carries, so that the files are those that `llama-quantize` writes.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.errors import FinetuneError, missing_extra
from finetune.exporting.gguf.mixes import KINDS, PLAIN

Encoder = Callable[[torch.Tensor], NDArray[np.uint8]]
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Numbers that are worked on at once: 32 MB in float32, a few milliseconds of work
CHUNK = 1 << 23


def require_quantiser(kind: str) -> None:
    """Refuse a kind of file that needs llama.cpp's quantiser where that is missing.

    Raises:
        FinetuneError: unknown kind, or the package or its quantiser is missing.
    """
    if kind not in KINDS:
        raise FinetuneError(f"there is no GGUF kind {kind!r}", fix="choose one of " + ", ".join(KINDS))
    if kind not in PLAIN:
        _quantise_chunk()


def encoder(type_name: str) -> Encoder:
    """Return the function that writes rows of numbers in a format of `GGMLQuantizationType`.

    Raises:
        FinetuneError: llama.cpp's quantiser is needed and missing. The function itself raises OverflowError where a
            number is too large for the format, and ValueError for NaN.
    """
    if type_name in FLOATS:
        return functools.partial(_as_float, dtype=FLOATS[type_name])
    if type_name == "Q8_0":
        return _as_q8_0
    return functools.partial(_as_blocks, type_name=type_name, quantise=_quantise_chunk())


def row_bytes(type_name: str, columns: int) -> int:
    """Return the bytes of one row of so many numbers."""
    import gguf

    numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]]
    return int(columns // numbers * size)


def encode_rows(rows: torch.Tensor, type_name: str, pool: Executor, threads: int) -> list[NDArray[np.uint8]]:
    """Write rows in a format, a share in each thread; quantising leaves Python's lock, so threads help.

    Args:
        rows: any float format.
        type_name: of `GGMLQuantizationType`.
        pool: what computes.
        threads: shares to make.

    Returns:
        The bytes of each share, in order.
    """
    parts = [part for part in rows.tensor_split(threads) if part.numel()]
    return list(pool.map(encoder(type_name), parts))


def _checked(rows: torch.Tensor) -> torch.Tensor:
    """Return rows in float32.

    Raises:
        ValueError: there is a NaN or an infinity among them.
    """
    values = rows.to(torch.float32)
    if not torch.isfinite(values).all():
        raise ValueError("not a number")
    return values


def _as_float(rows: torch.Tensor, dtype: torch.dtype) -> NDArray[np.uint8]:
    values = rows.to(dtype).contiguous()
    if not torch.isfinite(values).all():
        _checked(rows)
        raise OverflowError(f"larger than {torch.finfo(dtype).max:g}")
    return values.view(torch.uint8).numpy()


def _as_q8_0(rows: torch.Tensor) -> NDArray[np.uint8]:
    import gguf

    encoded = gguf.quants.quantize(_checked(rows).contiguous().numpy(), gguf.GGMLQuantizationType.Q8_0)
    return np.asarray(encoded, dtype=np.uint8)


def _as_blocks(rows: torch.Tensor, type_name: str, quantise: Callable[..., int]) -> NDArray[np.uint8]:
    import gguf

    values = _checked(rows).contiguous().numpy()
    count, columns = values.shape
    encoded = np.empty((count, row_bytes(type_name, columns)), dtype=np.uint8)
    number = int(gguf.GGMLQuantizationType[type_name])
    written = quantise(number, values.ctypes.data, encoded.ctypes.data, 0, count, columns, None)
    if written != encoded.nbytes:
        raise RuntimeError(f"llama.cpp wrote {written} bytes of {type_name}, not {encoded.nbytes}")
    return encoded


@functools.cache
def _quantise_chunk() -> Callable[..., int]:
    """Return `ggml_quantize_chunk` of the llama.cpp inside the xllamacpp wheel (ggml.h)."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra("xllamacpp", "gguf", "a K- or I-quantised GGUF file")
    folder = Path(next(iter(spec.submodule_search_locations)))
    for library in sorted(folder.glob("xllamacpp*")):
        if library.suffix not in (".so", ".dylib", ".pyd"):
            continue
        try:
            function = ctypes.CDLL(str(library)).ggml_quantize_chunk
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_size_t
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        function.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
        return function
    raise FinetuneError(
        "the installed xllamacpp does not offer llama.cpp's quantiser (ggml_quantize_chunk)",
        where=str(folder),
        fix="pip install -U xllamacpp on Linux or macOS (the Windows wheel has none), or export "
        + ", ".join(sorted(PLAIN)),
    )
