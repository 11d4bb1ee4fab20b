"""Learn a net: a large teacher, then the net that ships from the teacher, then its int8 rounding."""

import torch

from tinytags_tasks.nets.recipe import rounding
from tinytags_tasks.nets.recipe.lesson import Figures, Lesson
from tinytags_tasks.nets.recipe.losses import label_loss, student_loss
from tinytags_tasks.nets.recipe.model import Learner
from tinytags_tasks.nets.recipe.shape import SIZES
from tinytags_tasks.nets.recipe.training import NetTraining

_RATE, _RATE_BATCH = 0.5, 1536  # the rate that suits this many pictures at a time
_ROUNDING_RATE = 1e-4
_WATCHED_BATCHES = 16


class Learning(Lesson[NetTraining]):
    """A net from nothing."""

    def learn(self) -> None:
        """Learn teacher, student and rounding, as far as they are not finished; leave ``student.npz`` and figures."""
        figures: Figures = {}
        teacher = self._teacher(figures)
        student = self._student(teacher, figures)
        self._round(student, teacher, figures)
        self.leave(student, figures)

    @property
    def _rate(self) -> float:
        return _RATE * self.training.batch / _RATE_BATCH

    def _teacher(self, figures: Figures) -> Learner | None:
        if not self.training.teacher_epochs:
            return None
        teacher = self.learner(SIZES[self.training.size][1])
        if not self.finished("teacher", teacher, figures):
            self.run("teacher", self._rate, teacher, label_loss(teacher), is_rounded=False)
            self.finish("teacher", teacher, figures, half=True)
        # From its file in both cases, so that a resumed student learns from the same teacher.
        self.finished("teacher", teacher, figures)
        teacher.eval().requires_grad_(False)
        return teacher

    def _student(self, teacher: Learner | None, figures: Figures) -> Learner:
        student = self.learner(SIZES[self.training.size][0], teacher.net.width if teacher else None)
        if not self.finished("student", student, figures):
            self.run("student", self._rate, student, student_loss(student, teacher), is_rounded=False)
            self.finish("student", student, figures)
        return student

    def _round(self, student: Learner, teacher: Learner | None, figures: Figures) -> None:
        """Replace the student's net by its rounded form, and go on learning for a while."""
        student.net = rounding.rounded(student.net)
        watched = self.batches("rounding")
        with torch.no_grad():
            for _ in range(_WATCHED_BATCHES):
                student.net(watched.draw(mixed=False)[0].contiguous(memory_format=torch.channels_last))
        rounding.settle(student.net)
        if not self.finished("rounding", student, figures):
            self.run("rounding", _ROUNDING_RATE, student, student_loss(student, teacher), is_rounded=True)
            self.finish("rounding", student, figures)
