"""Training: rows and a prepared model in, trained weights in the run folder out."""

from finetune.training.checkpoints import step_of
from finetune.training.session import Training, resume_point, total_steps, train

__all__ = ["Training", "resume_point", "step_of", "total_steps", "train"]
