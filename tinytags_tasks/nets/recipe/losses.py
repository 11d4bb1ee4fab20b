"""What a learner is taught by: labels and, for a student, its teacher's answers and embeddings."""

from collections.abc import Callable

import torch
from torch.nn import functional

from tinytags_tasks.nets.recipe.model import Learner

_TEMPERATURE = 2.0

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of images; their tags and classes; the tags and classes of what was mixed in; and the first ones' share."""


def supervised(logits: torch.Tensor, tags: torch.Tensor, classes: torch.Tensor, tag_outputs: int) -> torch.Tensor:
    """Return each image's cross-entropy on the heads that it has a label for."""
    of_tags = functional.cross_entropy(logits[:, :tag_outputs], tags.clamp_min(0), reduction="none") * (tags >= 0)
    if logits.shape[1] == tag_outputs:
        return of_tags
    of_classes = functional.cross_entropy(logits[:, tag_outputs:], classes.clamp_min(0), reduction="none")
    return of_tags + of_classes * (classes >= 0)


def divergence(logits: torch.Tensor, teacher_logits: torch.Tensor, tag_outputs: int) -> torch.Tensor:
    """Return each image's Kullback-Leibler divergence from the teacher, summed over both heads."""
    total = logits.new_zeros(len(logits))
    for head in (slice(None, tag_outputs), slice(tag_outputs, None)):
        guess = functional.log_softmax(logits[:, head] / _TEMPERATURE, 1)
        aim = functional.log_softmax(teacher_logits[:, head] / _TEMPERATURE, 1)
        total = total + functional.kl_div(guess, aim, reduction="none", log_target=True).sum(1)
    return total * _TEMPERATURE**2


def label_loss(learner: Learner) -> Loss:
    """Return the loss of learning from labels alone."""

    def loss(
        images: torch.Tensor,
        tags: torch.Tensor,
        classes: torch.Tensor,
        mixed_tags: torch.Tensor,
        mixed_classes: torch.Tensor,
        share: torch.Tensor,
    ) -> torch.Tensor:
        _, logits, _ = learner(images)
        first = supervised(logits, tags, classes, learner.tag_outputs)
        second = supervised(logits, mixed_tags, mixed_classes, learner.tag_outputs)
        return (share * first + (1 - share) * second).mean()

    return loss


def student_loss(learner: Learner, teacher: Learner | None) -> Loss:
    """Return the loss of learning from labels (0.3), the teacher's answers (0.7) and its embeddings (1)."""
    if teacher is None:
        return label_loss(learner)

    def loss(
        images: torch.Tensor,
        tags: torch.Tensor,
        classes: torch.Tensor,
        mixed_tags: torch.Tensor,
        mixed_classes: torch.Tensor,
        share: torch.Tensor,
    ) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            aim, aim_logits, _ = teacher(images)
        _, logits, guess = learner(images)
        first = supervised(logits, tags, classes, learner.tag_outputs)
        second = supervised(logits, mixed_tags, mixed_classes, learner.tag_outputs)
        labels = share * first + (1 - share) * second
        likeness = functional.cosine_similarity(guess, aim.float(), dim=1)
        distance = divergence(logits, aim_logits.float(), learner.tag_outputs)
        return (0.3 * labels + 0.7 * distance + 1 - likeness).mean()

    return loss
