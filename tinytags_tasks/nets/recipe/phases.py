"""One learner's schedule, from the last checkpoint to its end.

A phase is a number of batches that is known beforehand. Now and then everything that it depends on is kept in a
checkpoint, so that a training that is killed goes on where it was; on a processor it ends in the same net.
"""

import math
import pickle
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tinytags_tasks.nets.onnx_file import first_line
from tinytags_tasks.nets.recipe.augment import Batches
from tinytags_tasks.nets.recipe.losses import Loss
from tinytags_tasks.nets.recipe.model import Learner
from tinytags_tasks.nets.recipe.work import Progress, Timer, Work

_RISING_STEPS, _RISING_SHARE = 800, 0.1
_LARGEST_GRADIENT = 5.0


@dataclass
class Setup:
    """Where and how to learn."""

    work: Work
    device: torch.device
    compiled: bool
    checkpoint_seconds: float


@dataclass
class Phase:
    """One learner's schedule: the rate rises over a tenth of the steps, then falls by a cosine.

    ``is_rounded`` says that its net computes as int8 will.
    """

    name: str
    steps: int
    rate: float
    is_rounded: bool = False

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        rising = min(1.0, (step + 1) / max(1, min(_RISING_STEPS, self.steps * _RISING_SHARE)))
        return self.rate * rising * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))


def run_phase(setup: Setup, phase: Phase, learner: Learner, loss: Loss, batches: Batches) -> None:
    """Train from the last checkpoint, or from the beginning, to the end of a phase."""
    optimizer = _optimizer(learner, phase.rate, is_rounded=phase.is_rounded)
    begun = _restore(setup, phase, learner, optimizer, batches)
    half = setup.device.type == "cuda" and not phase.is_rounded
    timer = Timer(setup.checkpoint_seconds)
    progress = Progress(phase.name, phase.steps, setup.work.say, done=begun)
    started = time.monotonic()
    for step in range(begun, phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = phase.rate_at(step)
        images, picked, partner, share = batches.draw(mixed=step % 2 == 0)
        labels = (batches.tags[picked], batches.classes[picked], batches.tags[partner], batches.classes[partner])
        with torch.autocast(setup.device.type, torch.bfloat16, enabled=half):
            value = loss(images.contiguous(memory_format=torch.channels_last), *labels, share)
        value.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress.at(step + 1)
        if timer.is_due():
            _keep(setup, phase, learner, optimizer, batches, step + 1)
    seconds = time.monotonic() - started
    looked_at = (phase.steps - begun) * batches.size
    setup.work.say(f"{phase.name}: learned", steps=phase.steps, images=looked_at, seconds=round(seconds))


def _optimizer(learner: nn.Module, rate: float, *, is_rounded: bool) -> torch.optim.Optimizer:
    matrices = [value for value in learner.parameters() if value.ndim > 1]
    others = [value for value in learner.parameters() if value.ndim <= 1]
    if is_rounded:  # folded weights have very different sizes: Adam's steps do not depend on the gradient's
        return torch.optim.Adam(matrices + others, rate)
    groups = [{"params": matrices, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True)


def _keep(
    setup: Setup, phase: Phase, learner: Learner, optimizer: torch.optim.Optimizer, batches: Batches, step: int
) -> None:
    state = {
        "step": step,
        "learner": learner.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": batches.generator.get_state(),
    }
    setup.work.write(f"{phase.name}.checkpoint", lambda path: torch.save(state, path))


def _restore(setup: Setup, phase: Phase, learner: Learner, optimizer: torch.optim.Optimizer, batches: Batches) -> int:
    """Go back to the last checkpoint of a phase, if there is one; return its step."""
    name = f"{phase.name}.checkpoint"
    if not setup.work.has(name):
        return 0
    try:
        state: dict[str, Any] = torch.load(setup.work.path(name), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        setup.work.say(f"{setup.work.path(name)}: damaged ({first_line(error)}); {phase.name} begins again")
        setup.work.remove(name)
        return 0
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    batches.generator.set_state(state["generator"])
    setup.work.say(f"{phase.name}: goes on after {100 * state['step'] / phase.steps:.0f} %")
    return int(state["step"])
