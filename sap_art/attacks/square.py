"""Square attack on random models: every comparison is between losses drawn afresh, the same draws for both points."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import paired_losses, prepare
from sap_art.attacks.stopping import LOOKS, Remaining, parts, standing
from sap_art.randomness import derive_seed, make_generator
from sap_art.threat import ThreatModel

INITIAL_SHARE = 0.8
HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE_LENGTH = 10_000
FINALISTS = 4

Step = Callable[[Tensor, Tensor, int, torch.Generator], Tensor]


def square(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    iterations: int = 200,
    stop_draws: int = 0,
) -> Tensor:
    """Square attack (Andriushchenko et al. 2020, arXiv:1912.00049) on the margin averaged over the view's draws.

    Random search without gradients. In each iteration the losses of the point held and of the proposed one are both
    drawn afresh, so that a lucky loss is forgotten, and on the same k draws (common random numbers), so that what they
    share does not blur the difference. No image stops on one loss. The points held after each quarter of the
    iterations meet at the end on fresh draws, and the one with the largest mean margin is returned.

    A window covers the share p of the image: p = .8 at first (as in AutoAttack, arXiv:2003.01690), halved after
    iterations 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000, and at the same fractions of any other
    number of iterations.

    Args:
        x: (B, C, H, W) in [0, 1].
        iterations: proposals an image; k (2 iterations + 4) forward passes an image, no backward ones.
        stop_draws: an image at whose point all of so many fresh draws are wrong, in one of 20 looks, is left with that
            point; 0 for never. At most so many forwards a look more.

    Raises:
        ValueError: images that are not (B, C, H, W), iterations < 1.
        FloatingPointError: the model answers with NaN or inf.
    """
    prepare(view, x, y)
    if x.ndim != 4:
        raise ValueError(f"squares need images (B, C, H, W), got {tuple(x.shape)}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    generator = make_generator(x.device, seed, "squares")
    start, propose = (_stripes, _flip) if threat.norm == "Linf" else (_tiles, _shift_mass)
    held = threat.project(x, x + threat.eps * start(x, generator))
    remaining = Remaining(held, standing(view, y, draws=stop_draws, seed=derive_seed(seed, "stop")))
    marks, looks = parts(iterations, FINALISTS), parts(iterations, LOOKS)
    finalists: list[Tensor] = []
    for iteration in range(iterations):
        origin, labels = x[remaining.images], y[remaining.images]
        side = _side(x, share=_share(iteration, iterations))
        proposed = threat.project(origin, origin + threat.eps * propose((held - origin) / threat.eps, side, generator))
        fresh = derive_seed(seed, "pair", iteration)
        new, old = paired_losses(view, (proposed, held), labels, loss="margin", seed=fresh)
        better = new > old
        held = torch.where(better[:, None, None, None], proposed, held)
        remaining.hold(held)
        finalists += [remaining.ends.clone()] * marks.count(iteration + 1)
        if iteration + 1 in looks:
            held = held[remaining.look(held, iteration)]
            if len(remaining) == 0:
                return remaining.ends
    last = [point[remaining.images] for point in finalists]
    losses = paired_losses(view, last, y[remaining.images], loss="margin", seed=derive_seed(seed, "last"))
    remaining.hold(torch.stack(last)[losses.argmax(0), torch.arange(len(remaining), device=x.device)])
    return remaining.ends


def _share(iteration: int, iterations: int) -> float:
    """The share of the image that a window covers in this iteration, counted from 0."""
    scaled = iteration * SCHEDULE_LENGTH / iterations
    return INITIAL_SHARE / 2 ** sum(scaled > mark for mark in HALVED_AT)


def _side(x: Tensor, *, share: float) -> int:
    height, width = x.shape[2:]
    return min(max(1, round(math.sqrt(share * height * width))), height, width)


# Perturbations in units of eps. Linf: corners of the cube, flipped a window at a time.


def _stripes(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each column of each channel at one sign: (B, C, 1, W)."""
    return _signs(x[:, :, :1], generator)


def _flip(delta: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """One sign for each channel within a random window; twice the radius, so that the ball's edge is reached."""
    rows, columns = _window(delta, side, generator)
    inside = (_within(rows, side)[:, :, None] & _within(columns, side)[:, None])[:, None]
    return delta + 2 * inside * _signs(delta[:, :, :1, :1], generator)


# L2: the unit sphere, with mass moved from one window into another.


def _tiles(x: Tensor, generator: torch.Generator) -> Tensor:
    """A grid of about 5 x 5 bumps with random signs, of norm 1."""
    height, width = x.shape[2:]
    side = max(1, min(height, width) // 5)
    bump = _bump(side, x).repeat(math.ceil(height / side), math.ceil(width / side))[:height, :width]
    signs = _signs(x[:, :, ::side, ::side], generator)
    signs = signs.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
    return _unit(bump * signs, (1, 2, 3))


def _shift_mass(delta: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Algorithm 3 of the paper: a bump in one window takes the mass of another, and what the ball has left."""
    side = min(max(3, side + 1 - side % 2), *delta.shape[2:])
    rows, columns = _window(delta, side, generator)
    into = _within(rows, side)[:, None, :, None] & _within(columns, side)[:, None, None]
    source_rows, source_columns = _window(delta, side, generator)
    source = _within(source_rows, side)[:, None, :, None] & _within(source_columns, side)[:, None, None]
    unused = (1 - delta.square().sum((1, 2, 3), keepdim=True)).clamp(min=0) / delta.shape[1]
    mass = (delta.square() * (into | source)).sum((2, 3), keepdim=True) + unused
    bump = _bump(side, delta)[rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None]]
    turned = _bump(side, delta).T[rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None]]
    upright = _signs(delta[:, 0, :1, :1], generator) > 0
    bump = torch.where(upright, bump, turned)[:, None] * _signs(delta[:, :, :1, :1], generator)
    mixed = (bump + _unit(delta * into, (2, 3))) * into
    moved = torch.where(into, _unit(mixed, (2, 3)) * mass.sqrt(), delta * ~source)
    return _unit(moved, (1, 2, 3))


def _bump(side: int, like: Tensor) -> Tensor:
    """Two pyramids of opposite sign side by side, of norm 1: the paper's equation (2), (side, side)."""
    top = side // 2
    return _unit(torch.cat([_pyramid(top, side, like), -_pyramid(side - top, side, like)]), (0, 1))


def _pyramid(height: int, width: int, like: Tensor) -> Tensor:
    """Sum of 1 / t^2 for t from d + 1 to the number of layers, d the distance from the middle: (height, width)."""
    row = (torch.arange(height, device=like.device) - height // 2).abs()
    column = (torch.arange(width, device=like.device) - width // 2).abs()
    layers = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=like.dtype, device=like.device).square()
    return layers.flip(0).cumsum(0).flip(0)[torch.maximum(row[:, None], column)]


# Random windows.


def _window(delta: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of a random window in each image: coordinates of all rows (B, H) and columns (B, W) from its corner."""
    return tuple(  # pyright: ignore[reportReturnType]
        torch.arange(length, device=delta.device)
        - torch.randint(length - side + 1, (len(delta), 1), generator=generator, device=delta.device)
        for length in delta.shape[2:]
    )


def _within(coordinates: Tensor, side: int) -> Tensor:
    return (coordinates >= 0) & (coordinates < side)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    bits = torch.randint(2, like.shape, generator=generator, device=like.device)
    return (2 * bits - 1).to(like.dtype)


def _unit(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Divided by their norm over ``dims``; zero stays zero."""
    norm = values.square().sum(dims, keepdim=True).sqrt()
    return values / torch.where(norm > 0, norm, 1)
