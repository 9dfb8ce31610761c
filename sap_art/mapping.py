"""Tensors in a file without a name: the system reads what is used, and forgets it when memory is short."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class _Written(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def mapped(parts: Iterable[Tensor]) -> Tensor:
    """``torch.cat(parts)`` on the CPU, of at least one part with an element, each written when its turn comes.

    The file lies in the folder for temporary files, TMPDIR, and is gone with the tensor. What is written into the
    tensor stays in memory.
    """
    with tempfile.TemporaryFile() as file:
        arrays = (part.detach().cpu().contiguous().numpy() for part in parts)
        written = [_write(array, file) for array in arrays]
        dtype, (_, *rest) = written[0]
        rows = sum(part.shape[0] for part in written)
        return torch.from_numpy(np.memmap(file, dtype=dtype, mode="c", shape=(rows, *rest)))


def _write(array: NDArray[Any], file: IO[bytes]) -> _Written:
    try:
        file.write(array.data)
        file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error
    return _Written(array.dtype, array.shape)
