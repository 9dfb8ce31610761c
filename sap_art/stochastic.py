"""What every random model offers, whoever wrote it: single draws from a noise source of its own."""

from __future__ import annotations

import math
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor, nn

from sap_art import process
from sap_art.randomness import Place, Stream, derive_seed, make_stream

MAX_BATCH_CPU, MAX_BATCH_GPU = 64, 512

SHORT_OF_MEMORY = (
    "DefaultCPUAllocator: ",
    "std::bad_alloc",
    "could not create a primitive",
    "could not execute a primitive",
)
"""In what torch says on a CPU when memory is short; of primitives oneDNN speaks, also where it cannot make one."""

Result = TypeVar("Result")

_HALVED: ContextVar[Callable[[int], object]] = ContextVar("_HALVED", default=lambda rows: None)


class _Scope(threading.local):
    """Where this thread is: in which call, from which image on, and in which pass of it."""

    def __init__(self) -> None:
        self.call: int | None = None
        self.first_image = 0
        self.place: Place | None = None


_COUNTING = threading.Lock()


class NoiseSource:
    """One seed, independent of torch's global generator. Copies and pickles continue alike, outside of any scope.

    Each use of the model is a *call* with random numbers of its own. A call may be cut into passes, by draws and by
    images, and by whatever batch size: its numbers belong to layer, draw and image. Threads have calls of their own.
    """

    def __init__(self, seed: int | None) -> None:
        self._scope = _Scope()
        self.reseed(secrets.randbits(63) if seed is None else seed)

    def reseed(self, seed: int) -> None:
        """Start afresh from ``seed``."""
        self._seed, self._calls = seed, 0
        self._fixed: int | None = None

    @contextmanager
    def call(self) -> Generator[None]:
        """Within, all passes are parts of one call; a call within a call is part of it."""
        if self._scope.call is not None:
            yield
            return
        self._scope.call = self._next() if self._fixed is None else self._fixed
        try:
            yield
        finally:
            self._scope.call = None

    @contextmanager
    def images_from(self, first: int) -> Generator[None]:
        """Within, a batch begins with that image of the call."""
        before, self._scope.first_image = self._scope.first_image, first
        try:
            yield
        finally:
            self._scope.first_image = before

    @contextmanager
    def draws_from(self, first: int, images: int) -> Generator[None]:
        """Within, a pass is of copies of ``images`` images, for draws from that one on."""
        before, self._scope.place = self._scope.place, Place(first, self._scope.first_image, images)
        try:
            yield
        finally:
            self._scope.place = before

    def stream(self, device: torch.device, *labels: object, rows: int, batch: int) -> Stream:
        """The random numbers of one layer of ``rows`` rows in a pass of ``batch`` images; only within a call.

        Where a net folds patches or windows into the batch, rows are not images: such a layer has numbers of its own in
        each pass, which then do depend on the batch.
        """
        if self._scope.call is None:
            raise RuntimeError("noise is drawn within NoiseSource.call(): open one first")
        place = self._scope.place or Place(0, self._scope.first_image, max(1, batch))
        if rows == batch:
            return make_stream(device, place, self._scope.call, *labels)
        return make_stream(
            device, Place(0, 0, max(1, rows)), self._scope.call, *labels, "rows", place.draw, place.image
        )

    def shared_stream(self, device: torch.device, *labels: object) -> Stream:
        """The random numbers of what all images of a draw share, such as a weight tensor; only within a call."""
        if self._scope.call is None:
            raise RuntimeError("noise is drawn within NoiseSource.call(): open one first")
        draw = self._scope.place.draw if self._scope.place else 0
        return make_stream(device, Place(draw, 0, 1), self._scope.call, *labels)

    @contextmanager
    def fixed(self) -> Generator[None]:
        """Within, every call has the same random numbers; two such scopes differ."""
        before = self._fixed
        self._fixed = self._next()
        try:
            yield
        finally:
            self._fixed = before

    @contextmanager
    def seeded(self, seed: int) -> Generator[None]:
        """Within, the source runs from ``seed``, unless its noise is fixed; afterwards it goes on where it was."""
        before, scope = (self._seed, self._calls, self._fixed), self._scope
        self._seed, self._calls, self._scope = seed, 0, _Scope()
        try:
            yield
        finally:
            self._seed, self._calls, self._fixed = before
            self._scope = scope

    def _next(self) -> int:
        with _COUNTING:
            self._calls += 1
            return derive_seed(self._seed, "call", self._calls)

    def __getstate__(self) -> dict[str, int]:
        return {"seed": self._seed, "calls": self._calls}

    def __setstate__(self, state: dict[str, int]) -> None:
        self._scope, self._fixed = _Scope(), None
        self._seed, self._calls = state["seed"], state["calls"]


class StochasticModel(nn.Module, ABC):
    """A classifier whose every call is one random draw: images (B, ...) in [0, 1] -> logits (B, C)."""

    def __init__(self, *, seed: int | None, per_example: bool) -> None:
        super().__init__()
        self.noise = NoiseSource(seed)
        self.per_example = per_example

    @property
    @abstractmethod
    def dense(self) -> nn.Module | None:
        """The deterministic counterpart, if there is one."""

    @property
    def deterministic(self) -> bool:
        """Whether the model is its own deterministic counterpart: a net without a defence."""
        return False

    @property
    @abstractmethod
    def estimators(self) -> tuple[str, ...]:
        """The gradient estimators that this model offers to an attacker."""

    @abstractmethod
    def single(self, x: Tensor, *, gradient: str | None = None) -> Tensor:
        """One draw: (B, ...) in [0, 1] -> (B, C) logits, with the named random estimator's gradient."""

    def reseed(self, seed: int) -> None:
        """Start the model's noise afresh: the same seed on the same device gives the same bits."""
        self.noise.reseed(seed)

    @contextmanager
    def seeded(self, seed: int) -> Generator[None]:
        """Within, the noise runs from ``seed``; afterwards it goes on where it was."""
        with self.noise.seeded(seed):
            yield

    @contextmanager
    def fixed_noise(self) -> Generator[None]:
        """Within, each forward pass uses the same uniforms, so it is deterministic; a mask still moves with x.

        An image's uniforms belong to its place in the batch: equal images at two places still get different draws.
        """
        with self.noise.fixed():
            yield


def draw_logits(
    model: StochasticModel, x: Tensor, draws: int, *, gradient: str | None = None, max_batch: int | None = None
) -> Tensor:
    """Independent single draws: (B, ...) -> (draws, B, C).

    Copies of the images share a batch of at most ``max_batch`` rows when each row has noise of its own, else the
    draws are made one by one. With a kernel that numbers its random numbers the batch changes rounding only.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    copies = min(draws, (max_batch or default_max_batch(x.device)) // max(1, len(x))) if model.per_example else 1
    copies = max(1, copies)
    parts: list[Tensor] = []
    with model.noise.call():
        for first in range(0, draws, copies):
            count = min(copies, draws - first)
            with model.noise.draws_from(first, max(1, len(x))):
                logits = model.single(x.repeat(count, *[1] * (x.ndim - 1)), gradient=gradient)
            if logits.ndim != 2 or len(logits) != count * len(x):
                rows = f"B = {count * len(x)}"
                raise ValueError(f"the model must return (B, C) logits, got {tuple(logits.shape)} for {rows}")
            parts.append(logits.view(count, len(x), logits.shape[-1]))
    return torch.cat(parts)


def in_blocks(model: StochasticModel, images: int, rows: int, work: Callable[[slice], Result]) -> list[Result]:
    """``work`` for the images in blocks of ``rows``, all parts of one call of the model; once if there is no image."""
    results: list[Result] = []
    with model.noise.call():
        for first in range(0, max(1, images), rows):
            with model.noise.images_from(first):
                results.append(work(slice(first, first + rows)))
    return results


def one_draw(model: StochasticModel, x: Tensor) -> Tensor:
    """One draw of a few images in one pass, or in more where memory is short: (B, ...) -> (B, C)."""

    def work(rows: int) -> Tensor:
        return torch.cat(in_blocks(model, len(x), rows, lambda part: model.single(x[part])))

    with model.noise.call():
        return halving(max(1, len(x)), work)


def default_max_batch(device: torch.device) -> int:
    """Rows a pass: few enough on a CPU for activations to stay near its caches, many on a GPU."""
    return MAX_BATCH_CPU if device.type == "cpu" else MAX_BATCH_GPU


def halving(rows: int, work: Callable[[int], Result]) -> Result:
    """``work(rows)``, begun again with half the rows a pass each time that memory is short, on a GPU or a CPU.

    Raises:
        torch.OutOfMemoryError, MemoryError, RuntimeError: what that was said by, when not even one row fits.
    """
    while True:
        try:
            return work(rows)
        except (MemoryError, RuntimeError) as error:
            if rows == 1 or not _is_of_memory(error):
                raise
        rows //= 2  # here, where nothing holds the tensors of the failed pass any more
        torch.cuda.empty_cache()
        process.release_freed_memory()
        _HALVED.get()(rows)


def _is_of_memory(error: Exception) -> bool:
    """Whether memory was short: torch has an error of its own for GPUs only."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        text in str(error) for text in SHORT_OF_MEMORY
    )


@contextmanager
def hear_halving(hear: Callable[[int], object]) -> Generator[None]:
    """Within, ``hear`` is told the rows a pass each time that ``halving`` has to do with fewer."""
    token = _HALVED.set(hear)
    try:
        yield
    finally:
        _HALVED.reset(token)


def log_mean_prob(logits: Tensor) -> Tensor:
    """Log of the mean softmax over draws: (K, B, C) -> (B, C)."""
    return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


def log_vote(logits: Tensor) -> Tensor:
    """Log of the smoothed share of votes, log((v + 1/C) / (K + 1)): (K, B, C) -> (B, C). It has no gradient."""
    draws, _, classes = logits.shape
    votes = nn.functional.one_hot(logits.argmax(-1), classes).sum(0)
    return ((votes + 1 / classes) / (draws + 1)).log().to(logits.dtype)


def require_eval(model: nn.Module) -> None:
    """Raise ValueError if batch statistics would leak between images: normalisation layers in training mode."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    training = [name for name, module in model.named_modules() if isinstance(module, kinds) and module.training]
    if training:
        raise ValueError(f"batch normalisation is in training mode ({training[0]}, …): call .eval() first")
