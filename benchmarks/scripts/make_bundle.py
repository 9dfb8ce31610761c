"""Makes the images that ship with the package: python benchmarks/scripts/make_bundle.py --data DIR.

The same data give the same bytes (with the same zlib): no dates, owners or platform marks are stored.
"""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sap_art import data

IMAGES = 512
OUTPUT = Path(__file__).resolve().parents[2] / "sap_art" / "assets" / data.BUNDLE


def main() -> None:
    parser = argparse.ArgumentParser(description=f"Write the first {IMAGES} CIFAR-10 test images as an npz file.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=f"holds {data.cifar.FOLDER}/")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE.npz", help="default: %(default)s")
    arguments = parser.parse_args()
    x, y = data.load("cifar10", n=IMAGES, source=arguments.data)
    images = (x * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    write(arguments.output, {"images": images, "labels": y.byte().numpy()})
    print(f"{arguments.output}: {IMAGES} images, {arguments.output.stat().st_size} bytes, ids {data.ids_sha256(x, y)}")


def write(path: Path, arrays: dict[str, NDArray[np.uint8]]) -> None:
    """What numpy.savez_compressed writes, by rename and without anything that differs from run to run."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for key, array in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, 9)
    os.replace(part, path)


if __name__ == "__main__":
    main()
