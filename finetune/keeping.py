"""What a run keeps of its base: `forgetting_of(work)` after training, `forgetting_watch(work, model)` meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data import Message
from finetune.data.chat.encoder import ChatEncoder, encode_text
from finetune.models.base import context_length
from finetune.recipe.forgetting import ForgettingSection
from finetune.rundir import file_hash
from finetune.session import Run

if TYPE_CHECKING:
    from finetune.evaluation.forgetting import Forgetting


def forgetting_of(work: Run) -> Forgetting:
    """Measure on general items what the trained model has lost of what its base could do.

    Raises:
        FinetuneError: items that the recipe names and that cannot be read or used.
    """
    from finetune.evaluation.forgetting import measure_forgetting

    return measure_forgetting(
        work.recipe.evaluate.forgetting,
        work.untuned(),
        work.tuned(),
        work.tokenizer,
        encode=_asking(work),
        stop=work.data.stop,
        context_length=context_length(work.base),
        seed=work.recipe.run.seed,
        confidence=work.recipe.evaluate.confidence,
    )


def general_files(section: ForgettingSection) -> dict[str, str]:
    """Return the SHA-256 of each file of general items that the recipe names."""
    named = {"texts": section.texts, "questions": section.questions, "prompts": section.prompts}
    return {key: file_hash(Path(path)) for key, path in named.items() if path is not None}


def require_general(work: Run) -> None:
    """Read the general items that an evaluation will need, so that a fault of theirs is said before training.

    Raises:
        FinetuneError: items that the recipe names and that cannot be read or used.
    """
    from finetune.evaluation.general_items import read_prompts, read_questions, read_texts

    section, longest = work.recipe.evaluate.forgetting, context_length(work.base)
    read_texts(section, work.tokenizer, context_length=longest)
    read_questions(section, work.tokenizer, context_length=longest)
    read_prompts(section, _asking(work), context_length=longest)


def forgetting_watch(work: Run, model: Any) -> Callable[[], float] | None:
    """Measure the general texts with a model that has learned nothing yet, where the recipe bounds their rise.

    Args:
        work: the run.
        model: from `work.learner()`.

    Returns:
        What measures the rise since, in bits per byte; None where `train.max_forgetting` is not set.
    """
    if work.recipe.train.max_forgetting is None:
        return None
    from finetune.evaluation.forgetting import text_rise
    from finetune.runtimes import TransformersRuntime

    runtime = TransformersRuntime(model, work.tokenizer, name="tuned")
    return text_rise(work.recipe.evaluate.forgetting, runtime, work.tokenizer, context_length=context_length(work.base))


def _asking(work: Run) -> Callable[[str], Sequence[int]]:
    """Return what turns a person's words into tokens: a conversation, or for models of raw text its beginning."""
    if work.data.raw_text:
        # Without the end of text, which stands last
        return lambda text: encode_text(work.tokenizer, text).input_ids[:-1].tolist()
    encoder = ChatEncoder(work.tokenizer)
    return lambda text: encoder.prompt((Message("user", text),))
