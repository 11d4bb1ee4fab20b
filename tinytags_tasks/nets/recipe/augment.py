"""Augmentation of each batch, on the GPU: crop, flip, colours, cutout, cutmix."""

import torch

from tinytags_tasks.nets.recipe.model import scale_pixels
from tinytags_tasks.nets.recipe.pictures import PLAIN
from tinytags_tasks.nets.recipe.shape import SIDE

_SHIFT = 4
_CUTOUT = 8
LABELLED_SHARE = 0.45
_PLAIN_SHARE = 0.3
_NUMBERS = 16  # random numbers per image


class Batches:
    """Draws batches from all preparations of both sets; ``bank`` is uint8, (pictures, preparations, 32, 32, 3).

    ``times``, int64, (pictures,): how many times as often as another picture each is drawn; None draws all alike.
    The bank may lie in the memory of the GPU, or where it does not fit, in that of the machine.
    """

    def __init__(
        self,
        bank: torch.Tensor,
        tags: torch.Tensor,
        classes: torch.Tensor,
        times: torch.Tensor | None = None,
        *,
        size: int,
        seed: int,
        device: torch.device,
        compiled: bool,
    ) -> None:
        self.preparations = bank.shape[1]
        self.bank = bank.view(-1, SIDE, SIDE, 3)
        self.tags, self.classes = tags, classes
        self.size, self.device = size, device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        of_labelled = torch.nonzero(classes < 0).flatten()
        self.of_labelled = of_labelled if times is None else of_labelled.repeat_interleave(times[of_labelled])
        self.of_general = torch.nonzero(classes >= 0).flatten()
        self._augment = torch.compile(augment) if compiled else augment
        self._mix = torch.compile(mix) if compiled else mix

    def _numbers(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device)

    def _pick(self, pictures: torch.Tensor, count: int) -> torch.Tensor:
        return pictures[(self._numbers(count) * len(pictures)).long()]

    def draw(self, *, mixed: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images, the numbers of their pictures and of the pictures mixed in, and the first ones' share (n,)."""
        from_labelled = round(self.size * LABELLED_SHARE) if len(self.of_general) else self.size
        picked = torch.cat(
            [self._pick(self.of_labelled, from_labelled), self._pick(self.of_general, self.size - from_labelled)]
        )
        numbers = self._numbers(self.size, _NUMBERS)
        places = picked * self.preparations + _preparations(numbers, self.preparations)
        images = self._augment(self.bank[places.to(self.bank.device)].to(self.device), numbers)
        if not mixed:
            return images, picked, picked, torch.ones(self.size, device=self.device)
        order = torch.randperm(self.size, generator=self.generator, device=self.device)
        images, share = self._mix(images, order, self._numbers(3))
        return images, picked, picked[order], share.repeat(self.size)


def _preparations(numbers: torch.Tensor, preparations: int) -> torch.Tensor:
    of_plain, of_others = numbers[:, 1] * PLAIN, PLAIN + numbers[:, 1] * (preparations - PLAIN)
    is_plain = numbers[:, 0] < (_PLAIN_SHARE if preparations > PLAIN else 1.0)
    return torch.where(is_plain, of_plain, of_others).long()


def augment(pixels: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Shift, flip, recolour and cut holes: pixels, uint8, (n, 32, 32, 3), to scaled images, float, (n, 3, 32, 32)."""
    steps = torch.arange(SIDE, device=pixels.device)
    rows = _reflect(steps[None] + (numbers[:, 2:3] * (2 * _SHIFT + 1)).long() - _SHIFT)
    columns = _reflect(steps[None] + (numbers[:, 3:4] * (2 * _SHIFT + 1)).long() - _SHIFT)
    columns = torch.where(numbers[:, 4:5] < 0.5, SIDE - 1 - columns, columns)
    each = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    images = pixels[each, rows[:, :, None], columns[:, None, :]].float()
    images = _recolour(scale_pixels(images), numbers)
    top, left = numbers[:, 11:12] * SIDE, numbers[:, 12:13] * SIDE
    inside = ((steps[None] - top).abs() < _CUTOUT / 2)[:, :, None] & ((steps[None] - left).abs() < _CUTOUT / 2)[:, None]
    images = images.masked_fill((inside & (numbers[:, 13] < 0.5)[:, None, None])[..., None], 0.0)
    return images.permute(0, 3, 1, 2)


def _reflect(places: torch.Tensor) -> torch.Tensor:
    places = places.abs()
    return torch.where(places > SIDE - 1, 2 * (SIDE - 1) - places, places)


def _recolour(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    def uniform(column: int, low: float, high: float) -> torch.Tensor:
        return (low + (high - low) * numbers[:, column])[:, None, None, None]

    grey = images.mean(3, keepdim=True)
    saturation = torch.where(numbers[:, 5, None, None, None] < 0.05, 0.0, uniform(6, 0.6, 1.4))
    images = grey + (images - grey) * saturation
    middle = images.mean((1, 2, 3), keepdim=True)
    images = middle + (images - middle) * uniform(7, 0.7, 1.3) + uniform(8, -0.3, 0.3)
    tint = torch.stack([numbers[:, 9], torch.zeros_like(numbers[:, 9]), numbers[:, 10]], 1) * 0.2 - 0.1
    return images * (1 + tint[:, None, None, :])


def mix(images: torch.Tensor, order: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste a rectangle of each image's partner over it (cutmix); return the share that is left, too."""
    steps = torch.arange(SIDE, device=images.device)
    half = (1 - numbers[0]).sqrt() * SIDE / 2
    rows = (steps + 0.5 - numbers[1] * SIDE).abs() < half
    columns = (steps + 0.5 - numbers[2] * SIDE).abs() < half
    inside = rows[:, None] & columns[None, :]
    return torch.where(inside, images[order], images), 1 - inside.float().mean()
