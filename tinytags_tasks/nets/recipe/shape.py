"""The shapes of the nets, and how pixels enter them; read by the code that learns and by the code that writes ONNX."""

from dataclasses import dataclass

SIDE = 32
PIXEL_MIDDLE = 128
PIXEL_RANGE = 64  # a power of two, so that (pixel - 128) / 64 is exact in int8's arithmetic, too
WEIGHT_LEVELS = 63  # 7 bits: two products and their sum then fit the 16 bits that processors without VNNI add up in
EMBEDDING_LEVELS = 127  # an embedding is a whole number of 0 to 127 times one scale, so that int8 stores it exactly


@dataclass(frozen=True)
class Shape:
    """Plain convolutions first, each (width, stride); then stages of residual blocks, each (width, blocks, stride)."""

    stem: tuple[tuple[int, int], ...]
    stages: tuple[tuple[int, int, int], ...]


STUDENT = Shape(((32, 1), (64, 2)), ((64, 1, 1), (128, 2, 2), (256, 2, 2)))
TEACHER = Shape(((64, 1),), ((64, 1, 1), (192, 2, 2), (448, 2, 2), (768, 2, 2)))

SIZES: dict[str, tuple[Shape, Shape]] = {
    "general32": (STUDENT, TEACHER),
    "small": (
        Shape(((16, 1), (32, 2)), ((32, 1, 1), (64, 1, 2), (128, 1, 2))),
        Shape(((32, 1),), ((32, 1, 1), (64, 1, 2), (128, 1, 2), (256, 1, 2))),
    ),
    "tiny": (
        Shape(((8, 2), (16, 2)), ((32, 1, 1), (64, 1, 2))),
        Shape(((16, 1),), ((16, 1, 2), (32, 1, 2), (64, 1, 2))),
    ),
}
"""Student and teacher, by name; an embedding has as many numbers as the student's last stage is wide."""
