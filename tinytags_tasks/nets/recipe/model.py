"""The nets, in PyTorch: the student that ships, and the larger teacher that it learns from."""

import torch
from torch import nn
from torch.nn import functional

from tinytags_tasks.nets.recipe.shape import PIXEL_MIDDLE, PIXEL_RANGE, Shape


class Convolution(nn.Module):
    """Convolution, batch norm and, where asked, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, *, relu: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the activations."""
        images = self.norm(self.convolution(images))
        return functional.relu(images) if self.relu else images


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = Convolution(inputs, outputs, 3, stride, relu=True)
        self.second = Convolution(outputs, outputs, 3, 1, relu=False)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else Convolution(inputs, outputs, 1, stride, relu=False)
        self.out: nn.Module = nn.Identity()  # where the int8 net rounds

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the activations."""
        return self.out(functional.relu(self.second(self.first(images)) + self.shortcut(images)))


class Net(nn.Module):
    """Images (n, 3, 32, 32), scaled by :func:`scale_pixels`, to embeddings (n, width of the last stage) >= 0."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inputs, layers = 3, list[nn.Module]()
        for width, stride in shape.stem:
            layers.append(Convolution(inputs, width, 3, stride, relu=True))
            inputs = width
        for width, blocks, stride in shape.stages:
            for block in range(blocks):
                layers.append(Block(inputs, width, stride if block == 0 else 1))
                inputs = width
        self.layers = nn.Sequential(*layers)
        self.out: nn.Module = nn.Identity()
        self.width = inputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the embeddings."""
        return self.out(self.layers(images).float().mean((2, 3)))


class Learner(nn.Module):
    """A net with the heads it is taught by: the tags with "none", and the classes of general pictures.

    Two heads, since one over all classes would have to tell a CIFAR-10 cat from a Tiny-ImageNet cat, and that can be
    done by their sources alone.
    """

    def __init__(self, shape: Shape, tags: int, classes: int, teacher_width: int | None = None) -> None:
        super().__init__()
        self.net = Net(shape)
        self.tag_outputs = tags + 1
        self.heads = nn.Linear(self.net.width, self.tag_outputs + classes)
        self.imitate = nn.Linear(self.net.width, teacher_width, bias=False) if teacher_width else None

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return embeddings, the heads' logits and, for a student, its guess of the teacher's embeddings."""
        embeddings = self.net(images)
        logits = self.heads(embeddings).float()
        return embeddings, logits, None if self.imitate is None else self.imitate(embeddings).float()


def scale_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """Scale pixels of 0 to 255 to about -2 to 2."""
    return (pixels - PIXEL_MIDDLE) / PIXEL_RANGE
