"""What ART's estimators take without a word and then trip over: refused here, before any work."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]
ROUNDING = 1e-6
"""How far beyond ``clip_values`` inputs may lie, in units of their range."""


def require_device_type(device_type: str | None, model: nn.Module) -> str:
    """``cpu`` or ``gpu``; None is where the model's parameters are.

    Raises:
        ValueError: another name, or ``gpu`` where torch finds no CUDA (ART would silently run on the CPU).
    """
    if device_type is None:
        return "gpu" if any(parameter.is_cuda for parameter in model.parameters()) else "cpu"
    if device_type not in ("cpu", "gpu"):
        raise ValueError(f"device_type must be 'cpu', 'gpu' (the current CUDA device) or None, got {device_type!r}")
    if device_type == "gpu" and not torch.cuda.is_available():
        raise ValueError("device_type='gpu', but torch finds no CUDA device here: use device_type='cpu'")
    return device_type


def ready_inputs(x: Any, *, shape: tuple[int, ...] | None) -> Array | Tensor:
    """``x`` (B, *shape), of any shape if that is None, integers as float32.

    Raises:
        TypeError: neither an ndarray nor a tensor.
        ValueError: another shape, no images.
    """
    if not isinstance(x, np.ndarray | Tensor):
        raise TypeError(f"inputs must be a numpy array or a torch tensor, got {type(x).__name__}")
    if isinstance(x, np.ndarray) and x.dtype == object:
        raise ValueError("inputs must be one array of numbers, got an array of objects: images must have one shape")
    if shape is not None and (len(x) == 0 or tuple(x.shape[1:]) != shape):
        raise ValueError(f"inputs must be {('B', *shape)} with B > 0, got {tuple(x.shape)}")
    return _floating(x)


def require_range(x: Array | Tensor, clip_values: Any) -> None:
    """Finite values within ``clip_values`` (of those for each channel their envelope; None is any range).

    Raises:
        ValueError: NaN or inf, values outside.
    """
    plain = x.detach() if isinstance(x, Tensor) else x
    low, high = float(plain.min()), float(plain.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("inputs contain NaN or inf; give attacks that make some on their way .attack_view()")
    if clip_values is None:
        return
    bottom, top = float(np.min(clip_values[0])), float(np.max(clip_values[1]))
    if max(bottom - low, high - top) > ROUNDING * (top - bottom):
        raise ValueError(
            f"inputs lie in [{low:.6g}, {high:.6g}], outside clip_values [{bottom:.6g}, {top:.6g}]: scale them (bytes "
            "by 1/255; mean and deviation belong in preprocessing=), or build the estimator with the clip_values of "
            "your data; give attacks that leave them on their way .attack_view()"
        )


def ready_labels(y: Any, *, images: int, classes: int, like: Array | Tensor) -> Array | Tensor:
    """Labels as (B, C), an array or a tensor as ``like`` is; indices (B,) or (B, 1) become one-hot float32.

    Raises:
        ValueError: another shape, an index that is no class, other numbers than one an image, NaN.
    """
    given = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if given.shape == (images, classes):
        one_hot = given.astype(np.float32)
    elif given.shape in ((images,), (images, 1)):
        one_hot = _one_hot(given.reshape(-1), classes)
    else:
        raise ValueError(
            f"labels must be indices ({images},) or one-hot ({images}, {classes}) for {images} images of "
            f"{classes} classes, got shape {given.shape}"
        )
    if not np.isfinite(one_hot).all():
        raise ValueError("labels contain NaN or inf")
    return torch.from_numpy(one_hot).to(like.device) if isinstance(like, Tensor) else one_hot


def ready_classes(label: Any, *, images: int, classes: int) -> Array | None:
    """The class of each image (B,) whose output is differentiated: one for all, or as labels are; None is every class.

    Raises:
        ValueError: what ``ready_labels`` refuses.
    """
    if label is None:
        return None
    given = label.detach().cpu().numpy() if isinstance(label, Tensor) else np.asarray(label)
    each = np.full(images, given) if given.ndim == 0 else given
    return np.asarray(ready_labels(each, images=images, classes=classes, like=each)).argmax(1)


def _one_hot(index: Array, classes: int) -> NDArray[np.float32]:
    whole = np.isfinite(index).all() and (index == np.floor(index)).all()
    if not whole or index.min() < 0 or index.max() >= classes:
        raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}, got {index.min()} to {index.max()}")
    return np.eye(classes, dtype=np.float32)[index.astype(np.int64)]


def _floating(x: Array | Tensor) -> Array | Tensor:
    if isinstance(x, Tensor):
        return x if x.is_floating_point() else x.float()
    x = x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float32)
    return np.ascontiguousarray(x)  # torch takes no mirrored array
