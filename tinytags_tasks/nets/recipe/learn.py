"""Learn the net on one GPU: a large teacher, then the net that ships from the teacher, then its int8 rounding.

``python -m tinytags_tasks.nets.recipe.learn PARTS OUT [--teacher-seconds 270] [--student-seconds 424]``
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tinytags_tasks.nets.recipe import rounding
from tinytags_tasks.nets.recipe.augment import Batches
from tinytags_tasks.nets.recipe.classes import NONE
from tinytags_tasks.nets.recipe.model import TAG_OUTPUTS, Learner, scale_pixels
from tinytags_tasks.nets.recipe.pictures import PREPARATIONS, LabelledPictures, plain, prepare_all, read_part
from tinytags_tasks.nets.recipe.shape import SIDE, STUDENT, TEACHER, Shape

_FEWEST_STEPS = 8
_RATE = 0.5
_TEMPERATURE = 2.0
_LARGEST_GRADIENT = 5.0


@dataclass
class Setup:
    """Where and how to learn."""

    device: torch.device
    out: Path
    compiled: bool
    batch: int
    seed: int

    def say(self, text: str, **figures: object) -> None:
        """Print a line and add its figures to ``OUT/log.jsonl``."""
        print(f"{time.strftime('%H:%M:%S')} {text} {figures or ''}", flush=True)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps({"said": text, **figures}) + "\n")


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def supervised(logits: torch.Tensor, tags: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return each image's cross-entropy on the heads that it has a label for."""
    of_tags = functional.cross_entropy(logits[:, :TAG_OUTPUTS], tags.clamp_min(0), reduction="none")
    of_classes = functional.cross_entropy(logits[:, TAG_OUTPUTS:], classes.clamp_min(0), reduction="none")
    return of_tags * (tags >= 0) + of_classes * (classes >= 0)


def divergence(logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """Return each image's Kullback-Leibler divergence from the teacher, summed over both heads."""
    total = logits.new_zeros(len(logits))
    for head in (slice(None, TAG_OUTPUTS), slice(TAG_OUTPUTS, None)):
        guess = functional.log_softmax(logits[:, head] / _TEMPERATURE, 1)
        aim = functional.log_softmax(teacher_logits[:, head] / _TEMPERATURE, 1)
        total = total + functional.kl_div(guess, aim, reduction="none", log_target=True).sum(1)
    return total * _TEMPERATURE**2


def teacher_loss(learner: Learner) -> Loss:
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
        first, second = supervised(logits, tags, classes), supervised(logits, mixed_tags, mixed_classes)
        return (share * first + (1 - share) * second).mean()

    return loss


def student_loss(learner: Learner, teacher: Learner) -> Loss:
    """Return the loss of learning from labels (0.3), the teacher's answers (0.7) and its embeddings (1)."""

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
        first, second = supervised(logits, tags, classes), supervised(logits, mixed_tags, mixed_classes)
        labels = share * first + (1 - share) * second
        likeness = functional.cosine_similarity(guess, aim.float(), dim=1)
        return (0.3 * labels + 0.7 * divergence(logits, aim_logits) + 1 - likeness).mean()

    return loss


def train(
    setup: Setup, name: str, learner: nn.Module, loss: Loss, batches: Batches, seconds: float, **options: float
) -> None:
    """Train for some seconds; the rate rises over ``rising_steps`` and falls by a cosine of the time that has passed.

    The clock decides, not a number of steps: a step takes longer later than at first, and a lease ends when it ends.
    """
    rate, rounded = options["rate"], bool(options.get("rounded"))
    optimizer = _optimizer(learner, rate, rounded=rounded)
    half = setup.device.type == "cuda" and not rounded
    step, passed, started = 0, 0.0, time.monotonic()
    while step < _FEWEST_STEPS or passed < 1:
        rising = min(1.0, (step + 1) / options.get("rising_steps", 800))
        for group in optimizer.param_groups:
            group["lr"] = rate * rising * (0.5 + 0.5 * math.cos(math.pi * passed))
        images, picked, partner, share = batches.draw(mixed=step % 2 == 0)
        labels = (batches.tags[picked], batches.classes[picked], batches.tags[partner], batches.classes[partner])
        with torch.autocast(setup.device.type, torch.bfloat16, enabled=half):
            value = loss(images.contiguous(memory_format=torch.channels_last), *labels, share)
        value.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        passed = min(1.0, (time.monotonic() - started) / seconds)
        if step == 1 or step % 2000 == 0:
            setup.say(f"{name}: step {step}", loss=value.item(), seconds=round(time.monotonic() - started))
    if setup.device.type == "cuda":
        torch.cuda.synchronize()
    setup.say(f"{name}: done", steps=step, images=step * setup.batch, seconds=round(time.monotonic() - started))


def _optimizer(learner: nn.Module, rate: float, *, rounded: bool) -> torch.optim.Optimizer:
    matrices = [value for value in learner.parameters() if value.ndim > 1]
    others = [value for value in learner.parameters() if value.ndim <= 1]
    if rounded:  # folded weights have very different sizes: steps that do not depend on the gradient's size suit them
        return torch.optim.Adam(matrices + others, rate)
    groups = [{"params": matrices, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True)


@torch.no_grad()
def accuracy(setup: Setup, learner: Learner, test: LabelledPictures) -> dict[str, float]:
    """Return the share of CIFAR-10's test pictures that the tag head gets right, with and without "none"."""
    learner.eval()
    pixels = torch.from_numpy(np.stack([plain(encoded, encode_again=False) for encoded in test.encoded]))
    answers = []
    for part in pixels.split(1000):
        images = scale_pixels(part.to(setup.device).float()).permute(0, 3, 1, 2)
        answers.append(learner(images.contiguous(memory_format=torch.channels_last))[1][:, :TAG_OUTPUTS].cpu())
    logits, tags = torch.cat(answers), torch.tensor(test.tags)
    learner.train()
    return {
        "ten_tags": (logits[:, :NONE].argmax(1) == tags).float().mean().item(),
        "with_none": (logits.argmax(1) == tags).float().mean().item(),
    }


def load_bank(setup: Setup, parts: Path, expected: int, processes: int) -> tuple[torch.Tensor, LabelledPictures]:
    """Read and prepare each part as it arrives, until there are ``expected``; return all preparations and labels."""
    done, banks, labels = set[Path](), list[torch.Tensor](), list[LabelledPictures]()
    while len(done) < expected:
        for path in sorted(set(parts.glob("*-[0-9].parquet")) - done):
            pictures = read_part(path)
            bank = np.empty((len(pictures.encoded), PREPARATIONS, SIDE, SIDE, 3), np.uint8)
            seed = setup.seed * 1_000_000_000 + len(done) * 1_000_000
            prepare_all(pictures.encoded, bank, first_seed=seed, processes=processes)
            done.add(path)
            banks.append(torch.from_numpy(bank).to(setup.device))
            labels.append(pictures)
            setup.say(f"prepared {path.name}", pictures=len(bank))
        time.sleep(0.2)
    tags = np.concatenate([part.tags for part in labels])
    classes = np.concatenate([part.classes for part in labels])
    return torch.cat(banks), LabelledPictures([], tags, classes)


def make_learner(setup: Setup, shape: Shape, teacher_width: int | None = None) -> Learner:
    """Return a fresh learner, seeded."""
    torch.manual_seed(setup.seed)
    return Learner(shape, teacher_width).to(setup.device, memory_format=torch.channels_last)


def learn_rounding(setup: Setup, student: Learner, loss: Loss, batches: Batches, seconds: float) -> None:
    """Replace the student's net by its rounded form and go on learning for a while."""
    student.net = rounding.rounded(student.net)
    with torch.no_grad():
        for _ in range(16):
            student.net(batches.draw(mixed=False)[0].contiguous(memory_format=torch.channels_last))
    rounding.settle(student.net)
    train(setup, "rounding", student, loss, batches, seconds, rate=1e-4, rising_steps=100, rounded=True)


def learn(setup: Setup, arguments: argparse.Namespace) -> None:
    """Learn teacher and student; leave ``student.npz`` and the log in the folder."""
    maybe = torch.compile if setup.compiled else (lambda function: function)
    bank, labels = load_bank(setup, arguments.parts, arguments.expected, arguments.processes)
    test = read_part(arguments.parts / "test.parquet")
    tags, classes = (torch.from_numpy(value).to(setup.device) for value in (labels.tags, labels.classes))
    batches = Batches(bank, tags, classes, size=setup.batch, seed=setup.seed, compiled=setup.compiled)
    teacher = make_learner(setup, TEACHER)
    train(setup, "teacher", teacher, maybe(teacher_loss(teacher)), batches, arguments.teacher_seconds, rate=_RATE)
    setup.say("teacher: CIFAR-10 test", **accuracy(setup, teacher, test))
    torch.save({name: value.half() for name, value in teacher.state_dict().items()}, setup.out / "teacher.pt")
    teacher.eval().requires_grad_(False)
    student = make_learner(setup, STUDENT, teacher.net.width)
    loss = student_loss(student, teacher)
    train(setup, "student", student, maybe(loss), batches, arguments.student_seconds, rate=_RATE)
    setup.say("student: CIFAR-10 test", **accuracy(setup, student, test))
    torch.save(student.state_dict(), setup.out / "student.pt")
    learn_rounding(setup, student, student_loss(student, teacher), batches, arguments.rounding_seconds)
    setup.say("rounded student: CIFAR-10 test", **accuracy(setup, student, test))
    rounding.save(student.net, setup.out / "student.npz")


def main() -> None:
    """Read the command line and learn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--expected", type=int, default=6, help="parts to wait for")
    parser.add_argument("--teacher-seconds", type=float, default=270)
    parser.add_argument("--student-seconds", type=float, default=424)
    parser.add_argument("--rounding-seconds", type=float, default=30)
    parser.add_argument("--batch", type=int, default=1536)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    learn(Setup(device, arguments.out, not arguments.eager, arguments.batch, arguments.seed), arguments)


if __name__ == "__main__":
    main()
