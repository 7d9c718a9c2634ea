"""Which weights learn: adapters for `lora` and `qlora`, all of them for `full`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, Problem, nearest
from finetune.models.base import Base, load_skeleton
from finetune.recipe.schema import FullMethod, LoraMethod, Method, QloraMethod

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Trainable:
    """How many parameters learn, of how many."""

    learning: int
    total: int

    def __str__(self) -> str:
        return f"{self.learning:,} of {self.total:,} parameters learn ({self.learning / self.total:.2%})"


def attach(model: Any, method: Method, *, where: str = "method") -> Any:
    """Prepare a loaded base so that the weights the recipe names learn, in float32, and no others.

    Args:
        model: a causal language model.
        method: the recipe's `method`.
        where: place of the section in the recipe, for messages.

    Returns:
        The model to train: a PeftModel for `lora` and `qlora`, `model` itself for `full`.

    Raises:
        FinetuneError: names that match no module (each with the nearest one), a rank wider than the layers, or an
            adapter on a tied head, which cannot be merged.
    """
    if isinstance(method, FullMethod):
        return model.requires_grad_(True)
    from peft import LoraConfig, TaskType, get_peft_model

    problems = _name_problems(model, method, where) + _rank_problems(model, method, where)
    if problems:
        raise FinetuneError.of(problems)
    model.requires_grad_(False)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=method.targets if isinstance(method.targets, str) else list(method.targets),
        modules_to_save=list(method.modules_to_save) or None,
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
        bias="none",
    )
    tuned = get_peft_model(model, config)
    # bfloat16 has 8 bits of precision: an update below 1/256 of the weight would be lost
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned


def check_method(base: Base, method: Method, *, where: str = "method") -> None:
    """Check the names and sizes of a method against the model's architecture, without its weights.

    Raises:
        FinetuneError: as `attach`.
    """
    if isinstance(method, FullMethod):
        return
    model = load_skeleton(base)
    problems = _name_problems(model, method, where) + _rank_problems(model, method, where)
    if problems:
        raise FinetuneError.of(problems)


def attach_trained(model: Any, folder: Path) -> Any:
    """Put a saved adapter on its base, for answering only.

    Raises:
        FinetuneError: the adapter is missing, damaged or of another architecture.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise FinetuneError(
            f"cannot put this adapter on its base: {str(error).splitlines()[0]}",
            where=str(folder),
            fix="was it trained on another base model?",
        ) from error


def count_trainable(model: nn.Module) -> Trainable:
    """Count the parameters that learn; a quantised weight counts as the numbers it stands for."""
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Trainable(learning, sum(_numbers(parameter) for parameter in model.parameters()))


def _numbers(parameter: Any) -> int:
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel() if state is not None else parameter.numel())


def _name_problems(model: Any, method: LoraMethod | QloraMethod, where: str) -> list[Problem]:
    names = [name for name, _ in model.named_modules() if name]
    last = sorted({name.rsplit(".", 1)[-1] for name in names if not name.rsplit(".", 1)[-1].isdigit()})
    targets: Iterable[str] = () if isinstance(method.targets, str) else method.targets
    problems = []
    for key, given in (("targets", targets), ("modules_to_save", method.modules_to_save)):
        for name in given:
            if not any(module == name or module.endswith(f".{name}") for module in names):
                near = nearest(name, last)
                problems.append(
                    Problem(
                        f"{where} ({key})",
                        f"no module of this model is named {name!r}",
                        f"did you mean {near!r}?" if near else f"it has {', '.join(last)}",
                    )
                )
    head = _head_name(model)
    if head in targets and model.config.tie_word_embeddings:
        problems.append(
            Problem(
                f"{where} (targets)",
                f"{head!r} shares its weight with the embedding, so an adapter on it would be wrong after merging",
                f"put it under modules_to_save instead: modules_to_save: [{head}]",
            )
        )
    return problems


def _head_name(model: Any) -> str:
    head = model.get_output_embeddings()
    return next((name.rsplit(".", 1)[-1] for name, module in model.named_modules() if module is head), "")


def _rank_problems(model: Any, method: LoraMethod | QloraMethod, where: str) -> list[Problem]:
    width = int(model.config.get_text_config().hidden_size)
    if method.rank <= width:
        return []
    what = f"rank {method.rank} is wider than the model's layers ({width}), so it would cost more than training them"
    return [Problem(f"{where} (rank)", what, "16 to 64 is usual")]
