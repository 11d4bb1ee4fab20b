"""Pack both training sets into parts that can be carried to a machine with a GPU.

``python -m tinytags_tasks.nets.recipe.pack cifar10-train.parquet cifar10-test.parquet tiny-imagenet-200 OUT``
"""

import sys
from pathlib import Path

from tinytags_tasks.nets.recipe.pictures import read_cifar10, read_tiny_imagenet, write_part

PARTS = 3


def main() -> None:
    """Write ``OUT/cifar-0.parquet`` and ``OUT/tiny-0.parquet`` ... for each part, and ``OUT/test.parquet``."""
    cifar10, cifar10_test, tiny, out = (Path(argument) for argument in sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    write_part(out / "test.parquet", read_cifar10(cifar10_test), slice(None))
    for name, pictures in (("cifar", read_cifar10(cifar10)), ("tiny", read_tiny_imagenet(tiny))):
        rows = -(-len(pictures.encoded) // PARTS)
        for part in range(PARTS):
            write_part(out / f"{name}-{part}.parquet", pictures, slice(part * rows, (part + 1) * rows))


if __name__ == "__main__":
    main()
