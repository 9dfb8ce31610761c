"""Seeds and generators: every random number of the package comes from one of these, never from a global one."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

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


class Place(NamedTuple):
    """What the rows of a pass are: row r is draw ``draw`` + r // ``images`` of image ``image`` + r % ``images``."""

    draw: int
    image: int
    images: int


class Stream(torch.Generator):
    """The random numbers of one layer in one pass, for both kinds of consumer.

    Whatever takes numbers in order uses it as a generator. A kernel that numbers its random numbers by ``key``, image
    and draw gets the same ones however a call is cut into passes.
    """

    key: int
    place: Place


def make_stream(device: torch.device | str, place: Place, *labels: object) -> Stream:
    """The stream of a place; ``labels`` name what all passes of the call share, for example seed, call and layer."""
    stream = Stream(device=device)
    stream.key, stream.place = derive_seed(0, *labels), place
    # A CPU's generator takes the low 32 bits only; by odd factors they differ between images, and between draws.
    stream.manual_seed((stream.key + 0x9E3779B97F4A7C15 * place.draw + 0xD1B54A32D192ED03 * place.image) % 2**63)
    return stream


def numbering(generator: torch.Generator, rows: int) -> tuple[int, Place]:
    """Key and place for a kernel that numbers its random numbers; from a plain generator a key drawn for these rows."""
    if isinstance(generator, Stream):
        return generator.key, generator.place
    key = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return key, Place(0, 0, max(1, rows))
