"""Stand-ins for what ART's tests download or have beside them: digits in the place of MNIST, weights trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def write_digits(path: Path) -> None:
    """scikit-learn's digits, 8 x 8, as images of 28 x 28 in the place of MNIST."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy(digits.images / 16 * 255)[:, None]
    x = torch.nn.functional.interpolate(x, 28, mode="bilinear").clamp(0, 255).byte()[:, 0].numpy()
    y = digits.target.astype(np.uint8)
    np.savez(path, x_train=x[:1300], y_train=y[:1300], x_test=x[1300:], y_test=y[1300:])


def write_weights(folder: Path, digits: Path) -> None:
    """Into ART's folder of weights, once; the names are those that its tests load."""
    if not folder.exists():
        folder.mkdir(parents=True)
        _write_image_weights(folder, digits)
        _write_tabular_weights(folder)


def _write_image_weights(folder: Path, digits: Path) -> None:
    """Of the tests' convolution, pooling and linear layer, trained on the digits."""
    with np.load(digits) as data:
        x, y = torch.from_numpy(data["x_train"])[:, None].float() / 255, torch.from_numpy(data["y_train"]).long()
    convolution, head = (_seeded(torch.nn.Conv2d, 1, 1, 7), _seeded(torch.nn.Linear, 25, 10))
    pool = torch.nn.MaxPool2d(4)
    _train(torch.nn.Sequential(convolution, torch.nn.ReLU(), pool, torch.nn.Flatten(), head), x, y)
    values = [convolution.weight.reshape(7, 7, 1, 1), convolution.bias, head.weight.T, head.bias]
    for name, value in zip(("W_CONV2D", "B_CONV2D", "W_DENSE", "B_DENSE"), values, strict=True):
        np.save(folder / f"{name}_MNIST.npy", value.detach().numpy())


def _write_tabular_weights(folder: Path) -> None:
    """Of the tests' three linear layers, trained on the irises."""
    from sklearn.datasets import load_iris

    iris = load_iris()
    x, y = torch.from_numpy(iris.data / iris.data.max()).float(), torch.from_numpy(iris.target).long()
    layers = [_seeded(torch.nn.Linear, *sizes) for sizes in ((4, 10), (10, 10), (10, 3))]
    _train(torch.nn.Sequential(*layers), x, y)
    for number, layer in enumerate(layers, 1):
        np.save(folder / f"W_DENSE{number}_IRIS.npy", layer.weight.T.detach().numpy())
        np.save(folder / f"B_DENSE{number}_IRIS.npy", layer.bias.detach().numpy())


def _seeded(layer: Any, *sizes: int) -> Any:
    """A layer whose first weights are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251  of this process alone
        return layer(*sizes)


def _train(net: torch.nn.Module, x: Tensor, y: Tensor) -> None:
    """All images at once, 300 steps."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(300):
        loss = torch.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if loss > 0.2:
        raise RuntimeError(f"the stand-in net has not learnt its data: its loss is {float(loss):.3g}")
