"""Learn a net: a large teacher, then the net that ships from the teacher, then its int8 rounding."""

import json

import numpy as np
import numpy.typing as npt
import torch

from tinytags_tasks.nets.recipe import rounding
from tinytags_tasks.nets.recipe.augment import Batches
from tinytags_tasks.nets.recipe.losses import Loss, label_loss, student_loss
from tinytags_tasks.nets.recipe.model import Learner, scale_pixels
from tinytags_tasks.nets.recipe.phases import Phase, Setup, run_phase
from tinytags_tasks.nets.recipe.pictures import LabelledPictures
from tinytags_tasks.nets.recipe.shape import SIZES, Shape
from tinytags_tasks.nets.recipe.training import NetTraining
from tinytags_tasks.nets.recipe.work import Work

_RATE, _RATE_BATCH = 0.5, 1536  # the rate that suits this many pictures at a time
_ROUNDING_RATE = 1e-4
_WATCHED_BATCHES = 16
_SHARE_OF_GPU = 0.6  # of its free memory, for the prepared pictures

Figures = dict[str, float]


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


class Lesson:
    """What all phases share: pictures, labels and the test pictures.

    Parameters
    ----------
    setup
        Where and how.
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
        setup: Setup,
        bank: npt.NDArray[np.uint8],
        pictures: LabelledPictures,
        tags: int,
        classes: int,
        test: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]],
    ) -> None:
        self.setup, self.tags, self.classes, self.test = setup, tags, classes, test
        self._bank = _placed(torch.from_numpy(bank), setup.device)
        self._labels = [torch.from_numpy(value).to(setup.device) for value in (pictures.tags, pictures.classes)]

    def learn(self) -> None:
        """Learn teacher, student and rounding, as far as they are not finished; leave ``student.npz`` and figures."""
        figures: Figures = {}
        teacher = self._teacher(figures)
        student = self._student(teacher, figures)
        self._round(student, teacher, figures)
        about = {"figures": figures, "parameters": words_of(self.setup)}
        self.setup.work.write_text("learned.json", json.dumps(about, indent=2))
        self.setup.work.write("student.npz", lambda path: rounding.save(student.net, path))

    def _batches(self, phase: str) -> Batches:
        training = self.setup.training
        seed = training.seed * 10 + ("teacher", "student", "rounding").index(phase)
        return Batches(
            self._bank,
            *self._labels,
            size=training.batch,
            seed=seed,
            device=self.setup.device,
            compiled=self.setup.compiled,
        )

    def _learner(self, shape: Shape, teacher_width: int | None = None) -> Learner:
        torch.manual_seed(self.setup.training.seed)
        learner = Learner(shape, self.tags, self.classes, teacher_width)
        return learner.to(self.setup.device, memory_format=torch.channels_last)

    def _phase(self, name: str) -> Phase:
        training = self.setup.training
        is_rounded = name == "rounding"
        rate = _ROUNDING_RATE if is_rounded else _RATE * training.batch / _RATE_BATCH
        return Phase(name, training.steps(name, len(self._bank)), rate, is_rounded)

    def _run(self, name: str, learner: Learner, loss: Loss) -> None:
        maybe = torch.compile if self.setup.compiled and name != "rounding" else (lambda function: function)
        run_phase(self.setup, self._phase(name), learner, maybe(loss), self._batches(name))

    def _finish(self, name: str, learner: Learner, figures: Figures, *, half: bool = False) -> None:
        """Measure a learner, and keep it in place of its checkpoints."""
        share = accuracy(self.setup, learner, *self.test)
        self.setup.work.say(f"{name}: {100 * share:.1f} % of the test pictures right", right=share)
        figures[f"{name}: test pictures right"] = round(share, 4)
        state = {key: value.half() if half else value for key, value in learner.state_dict().items()}
        kept = {"state": state, "right": share}
        self.setup.work.write(f"{name}.pt", lambda path: torch.save(kept, path))
        self.setup.work.remove(f"{name}.checkpoint")

    def _finished(self, name: str, learner: Learner, figures: Figures) -> bool:
        """Load a learner that is finished; return whether there is one."""
        if not self.setup.work.has(f"{name}.pt"):
            return False
        kept = torch.load(self.setup.work.path(f"{name}.pt"), map_location="cpu", weights_only=True)
        learner.load_state_dict(kept["state"])
        figures[f"{name}: test pictures right"] = round(kept["right"], 4)
        return True

    def _teacher(self, figures: Figures) -> Learner | None:
        if not self.setup.training.teacher_epochs:
            return None
        teacher = self._learner(SIZES[self.setup.training.size][1])
        if not self._finished("teacher", teacher, figures):
            self._run("teacher", teacher, label_loss(teacher))
            self._finish("teacher", teacher, figures, half=True)
        # From its file in both cases, so that a resumed student learns from the same teacher.
        self._finished("teacher", teacher, figures)
        teacher.eval().requires_grad_(False)
        return teacher

    def _student(self, teacher: Learner | None, figures: Figures) -> Learner:
        student = self._learner(SIZES[self.setup.training.size][0], teacher.net.width if teacher else None)
        if not self._finished("student", student, figures):
            self._run("student", student, student_loss(student, teacher))
            self._finish("student", student, figures)
        return student

    def _round(self, student: Learner, teacher: Learner | None, figures: Figures) -> None:
        """Replace the student's net by its rounded form, and go on learning for a while."""
        student.net = rounding.rounded(student.net)
        watched = self._batches("rounding")
        with torch.no_grad():
            for _ in range(_WATCHED_BATCHES):
                student.net(watched.draw(mixed=False)[0].contiguous(memory_format=torch.channels_last))
        rounding.settle(student.net)
        if not self._finished("rounding", student, figures):
            self._run("rounding", student, student_loss(student, teacher))
            self._finish("rounding", student, figures)


def _placed(bank: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the prepared pictures in the GPU's memory if they fit, else where they are."""
    if device.type != "cuda":
        return bank
    free, _ = torch.cuda.mem_get_info(device)
    return bank.to(device) if bank.nbytes <= free * _SHARE_OF_GPU else bank


def make_setup(training: NetTraining, work: Work, checkpoint_seconds: float, *, eager: bool) -> Setup:
    """Return where to learn: on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} cores"
    work.say(f"learning on {where}", torch=torch.__version__)
    return Setup(training, work, device, device.type == "cuda" and not eager, checkpoint_seconds)


def words_of(setup: Setup) -> dict[str, str]:
    """Return where a net was learned, for its card."""
    device = torch.cuda.get_device_name(setup.device) if setup.device.type == "cuda" else "processor"
    return {"learned on": device, "torch's version": torch.__version__}
