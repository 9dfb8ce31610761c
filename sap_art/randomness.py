"""Seeds and generators: every random number of the package comes from one of these, never from a global one."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *labels: object) -> int:
    """A seed in [0, 2**63) for one named purpose; different labels give unrelated streams.

    The labels are hashed (SHA-256), so streams do not depend on the order in which they are made.
    """
    text = "/".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(device: torch.device | str, seed: int, *labels: object) -> torch.Generator:
    """A torch generator on ``device``, seeded by ``derive_seed(seed, *labels)``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *labels))


def spawn_generator(generator: torch.Generator) -> torch.Generator:
    """A generator of its own on the same device, seeded by one draw of ``generator``."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(device=generator.device).manual_seed(seed)
