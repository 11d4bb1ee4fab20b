"""Fine-tune a net: new heads on what it sees already, then the whole net, in the arithmetic in which it ships."""

from tinytags_tasks.nets.recipe import rounding
from tinytags_tasks.nets.recipe.base import Base
from tinytags_tasks.nets.recipe.lesson import Figures, Lesson
from tinytags_tasks.nets.recipe.losses import label_loss
from tinytags_tasks.nets.recipe.tuning import NetTuning

_HEADS_RATE, _RATE = 1e-2, 1e-4


class Tuning(Lesson[NetTuning]):
    """A net that goes on learning."""

    def learn(self, base: Base) -> None:
        """Learn heads, then all of the net, as far as they are not finished; leave ``student.npz`` and figures."""
        figures: Figures = {}
        learner = self.learner(base.shape)
        learner.net = rounding.restored(base.arrays, base.shape).to(self.setup.device)
        for name, rate in (("heads", _HEADS_RATE), ("tuning", _RATE)):
            # Heads that know nothing would spoil what the net sees.
            learner.net.requires_grad_(name == "tuning")
            if not self.finished(name, learner, figures):
                self.run(name, rate, learner, label_loss(learner), is_rounded=True)
                self.finish(name, learner, figures)
        self.leave(learner, figures)
