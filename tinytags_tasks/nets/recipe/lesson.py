"""What learning a net and fine-tuning one share: the pictures, their batches, phases, and what each leaves behind."""

import json
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tinytags_tasks.nets.recipe import rounding
from tinytags_tasks.nets.recipe.augment import Batches
from tinytags_tasks.nets.recipe.losses import Loss
from tinytags_tasks.nets.recipe.model import Learner, scale_pixels
from tinytags_tasks.nets.recipe.phases import Phase, Setup, run_phase
from tinytags_tasks.nets.recipe.pictures import LabelledPictures
from tinytags_tasks.nets.recipe.shape import Shape
from tinytags_tasks.nets.recipe.training import NetTraining
from tinytags_tasks.nets.recipe.tuning import NetTuning
from tinytags_tasks.nets.recipe.work import Work

_PHASES = ("teacher", "student", "rounding", "heads", "tuning")
"""Each draws its own batches: by its place here."""

_SHARE_OF_GPU = 0.6  # of its free memory, for the prepared pictures

Figures = dict[str, float]
Training = TypeVar("Training", NetTraining, NetTuning)


@torch.no_grad()
def accuracy(setup: Setup, learner: Learner, pixels: npt.NDArray[np.uint8], tags: npt.NDArray[np.int64]) -> float:
    """Return the share of test pictures that the tag head gets right, "none" aside."""
    learner.eval()
    answers = []
    for part in torch.from_numpy(pixels).split(1000):
        images = scale_pixels(part.to(setup.device).float()).permute(0, 3, 1, 2)
        logits = learner(images.contiguous(memory_format=torch.channels_last))[1]
        answers.append(logits[:, : learner.tag_outputs - 1].argmax(1).cpu().numpy())
    learner.train()
    return float((np.concatenate(answers) == tags).mean())


class Lesson(Generic[Training]):
    """What all phases share: pictures, labels and the test pictures.

    Parameters
    ----------
    training
        How.
    setup
        Where.
    bank
        uint8, shape (pictures, preparations, 32, 32, 3).
    pictures
        Their labels.
    tags, classes
        How many there are of each.
    test
        Pixels and tags of the test pictures.
    """

    def __init__(
        self,
        training: Training,
        setup: Setup,
        bank: npt.NDArray[np.uint8],
        pictures: LabelledPictures,
        tags: int,
        classes: int,
        test: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]],
    ) -> None:
        self.training: Training = training
        self.setup, self.tags, self.classes, self.test = setup, tags, classes, test
        self._bank = _placed(torch.from_numpy(bank), setup.device)
        self._tags = torch.from_numpy(pictures.tags).to(setup.device)
        self._classes = torch.from_numpy(pictures.classes).to(setup.device)
        self._times = None if pictures.times is None else torch.from_numpy(pictures.times).to(setup.device)

    def batches(self, phase: str) -> Batches:
        """Return the batches of a phase."""
        return Batches(
            self._bank,
            self._tags,
            self._classes,
            self._times,
            size=self.training.batch,
            seed=self.training.seed * 10 + _PHASES.index(phase),
            device=self.setup.device,
            compiled=self.setup.compiled,
        )

    def learner(self, shape: Shape, teacher_width: int | None = None) -> Learner:
        """Return a learner that knows nothing yet."""
        torch.manual_seed(self.training.seed)
        learner = Learner(shape, self.tags, self.classes, teacher_width)
        return learner.to(self.setup.device, memory_format=torch.channels_last)

    def run(self, name: str, rate: float, learner: Learner, loss: Loss, *, is_rounded: bool) -> None:
        """Learn in a phase, from its last checkpoint to its end."""
        maybe = torch.compile if self.setup.compiled and not is_rounded else (lambda function: function)
        phase = Phase(name, self.training.steps(name, len(self._bank)), rate, is_rounded)
        run_phase(self.setup, phase, learner, maybe(loss), self.batches(name))

    def finish(self, name: str, learner: Learner, figures: Figures, *, half: bool = False) -> None:
        """Measure a learner, and keep it in place of its checkpoints."""
        share = accuracy(self.setup, learner, *self.test)
        self.setup.work.say(f"{name}: {100 * share:.1f} % of the test pictures right", right=share)
        figures[f"{name}: test pictures right"] = round(share, 4)
        state = {key: value.half() if half else value for key, value in learner.state_dict().items()}
        kept = {"state": state, "right": share}
        self.setup.work.write(f"{name}.pt", lambda path: torch.save(kept, path))
        self.setup.work.remove(f"{name}.checkpoint")

    def finished(self, name: str, learner: Learner, figures: Figures) -> bool:
        """Load a learner that is finished; return whether there is one."""
        if not self.setup.work.has(f"{name}.pt"):
            return False
        kept = torch.load(self.setup.work.path(f"{name}.pt"), map_location="cpu", weights_only=True)
        learner.load_state_dict(kept["state"])
        figures[f"{name}: test pictures right"] = round(kept["right"], 4)
        return True

    def leave(self, student: Learner, figures: Figures) -> None:
        """Leave ``student.npz``, the rounded net, and its figures."""
        about = {"figures": figures, "parameters": _words_of(self.setup)}
        self.setup.work.write_text("learned.json", json.dumps(about, indent=2))
        self.setup.work.write("student.npz", lambda path: rounding.save(student.net, path))


def _placed(bank: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the prepared pictures in the GPU's memory if they fit, else where they are."""
    if device.type != "cuda":
        return bank
    free, _ = torch.cuda.mem_get_info(device)
    return bank.to(device) if bank.nbytes <= free * _SHARE_OF_GPU else bank


def make_setup(work: Work, checkpoint_seconds: float, *, eager: bool) -> Setup:
    """Return where to learn: on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} cores"
    work.say(f"learning on {where}", torch=torch.__version__)
    return Setup(work, device, device.type == "cuda" and not eager, checkpoint_seconds)


def _words_of(setup: Setup) -> dict[str, str]:
    """Return where a net was learned, for its card."""
    device = torch.cuda.get_device_name(setup.device) if setup.device.type == "cuda" else "processor"
    return {"learned on": device, "torch's version": torch.__version__}
