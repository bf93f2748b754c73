"""What lies behind Arrow arrays, as numpy sees it; ``to_numpy`` of Arrow's own loads pandas first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_NAMES = {"double": "float64", "float": "float32", "halffloat": "float16"}


def numbers(array: pa.Array[Any], kind: str | None = None) -> np.ndarray[tuple[int], np.dtype[Any]]:
    """Give the numbers of an array as they lie there; where it has a null, any.

    Args:
        array: of numbers, or of a type that is kept as numbers.
        kind: what numpy calls these numbers; by default those that the array's type names.
    """
    name = str(array.type)
    data = array.buffers()[1]
    dtype = np.dtype(kind or _NAMES.get(name, name))
    if data is None or not len(array):
        return np.zeros(len(array), dtype)
    return np.frombuffer(memoryview(data), dtype, len(array), array.offset * dtype.itemsize)


def present(array: pa.Array[Any]) -> np.ndarray[tuple[int], np.dtype[np.bool]]:
    """Say of each value of an array whether there is one; not of a union's or of runs."""
    bits = array.buffers()[0]
    if bits is None or not len(array):
        return np.full(len(array), array.null_count == 0)
    first = array.offset // 8
    packed = np.frombuffer(memoryview(bits), np.uint8, (array.offset + len(array) + 7) // 8 - first, first)
    skip = array.offset - 8 * first
    return np.unpackbits(packed, bitorder="little")[skip : skip + len(array)].astype(np.bool)
