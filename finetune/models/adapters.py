"""Which weights learn: adapters for `lora` and `qlora`, all of them for `full`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, Problem, nearest
from finetune.models.base import Base, load_skeleton
from finetune.models.faults import first_line, unreadable
from finetune.recipe.schema import FullMethod, LoraMethod, Method, QloraMethod

if TYPE_CHECKING:
    from torch import nn


# The names that PEFT gives them
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


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
        FinetuneError: names that match no module (each with the nearest one) or modules that take no adapter, a rank
            wider than the layers, or an adapter on a weight that embedding and head share, which cannot be merged.
    """
    if isinstance(method, FullMethod):
        return model.requires_grad_(True).float()
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


def check_method(base: Base, method: Method, *, where: str = "method") -> Trainable:
    """Check the names and sizes of a method against the model's architecture, without its weights.

    Returns:
        How many parameters would learn.

    Raises:
        FinetuneError: as `attach`.
    """
    return count_trainable(attach(load_skeleton(base), method, where=where))


def attach_trained(model: Any, folder: Path) -> Any:
    """Put a saved adapter on its base, for answering only.

    Raises:
        FinetuneError: the adapter is missing, damaged or of another architecture.
    """
    from peft import PeftModel

    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        # Without this PEFT would go and look for the file on the hub
        if not (folder / name).is_file():
            raise FinetuneError(f"this adapter has no {name}", where=str(folder), fix="finetune train RECIPE")
    try:
        tuned = PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()
        strangers = _unmatched(tuned, folder / ADAPTER_WEIGHTS)
    except unreadable() as error:
        raise FinetuneError(
            f"cannot put this adapter on its base: {first_line(error)}",
            where=str(folder),
            fix="was it trained on another base model?",
        ) from error
    if strangers:
        raise FinetuneError(
            f"cannot put this adapter on its base: {len(strangers)} tensors are on one side only, among them "
            f"{strangers[0]!r}",
            where=str(folder),
            fix="was it trained on another base model?",
        )
    return tuned


def _unmatched(tuned: Any, weights: Path) -> list[str]:
    """List the low-rank tensors that only the file or only the model has; PEFT passes over them in silence."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as handle:
        saved = set(handle.keys())
    wanted = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    return sorted(name for name in saved ^ wanted if ".lora_" in name)


def count_trainable(model: nn.Module) -> Trainable:
    """Count the parameters that learn; a quantised weight counts as the numbers it stands for."""
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Trainable(learning, sum(_numbers(parameter) for parameter in model.parameters()))


def _numbers(parameter: Any) -> int:
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel() if state is not None else parameter.numel())


def _name_problems(model: Any, method: LoraMethod | QloraMethod, where: str) -> list[Problem]:
    targets: Sequence[str] = () if isinstance(method.targets, str) else method.targets
    problems = []
    for key, given in (("targets", targets), ("modules_to_save", method.modules_to_save)):
        for name in given:
            problems += _unknown_name(model, name, f"{where} ({key})")
    for name in method.modules_to_save:
        problems += _loose_name(model, name, f"{where} (modules_to_save)")
    for name in targets:
        problems += _unfit_target(model, name, f"{where} (targets)")
        if name in method.modules_to_save:
            problems.append(
                Problem(
                    f"{where} (targets)",
                    f"{name!r} is under targets and under modules_to_save, and can learn in one way only",
                    "take it out of one of them",
                )
            )
    return problems


def _matching(model: Any, name: str) -> list[Any]:
    """List the modules that PEFT takes a name for: of that path, or with a path that ends in it."""
    return [module for path, module in model.named_modules() if path == name or path.endswith(f".{name}")]


def _unknown_name(model: Any, name: str, where: str) -> list[Problem]:
    if _matching(model, name):
        return []
    last = sorted({path.rpartition(".")[2] for path, _ in model.named_modules() if path})
    words = [word for word in last if not word.isdigit()]
    near = nearest(name, words)
    return [
        Problem(
            where,
            f"no module of this model is named {name!r}",
            f"did you mean {near!r}?" if near else f"it has {', '.join(words)}",
        )
    ]


def _loose_name(model: Any, name: str, where: str) -> list[Problem]:
    """Refuse a name that PEFT, which compares mere endings here, would also take for other modules."""
    meant = _matching(model, name)
    paths = {id(module): path for path, module in model.named_modules()}
    others = [path for path, module in model.named_modules() if path.endswith(name) and module not in meant]
    if not meant or not others:
        return []
    what = f"{name!r} would also train {others[0]!r}" + (f" and {len(others) - 1} more" if len(others) > 1 else "")
    return [Problem(where, what, f"give the whole path: {paths[id(meant[0])]}")]


def _unfit_target(model: Any, name: str, where: str) -> list[Problem]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    matching = _matching(model, name)
    unfit = [module for module in matching if not isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, Conv1D))]
    if unfit:
        what = f"{name!r} is a {type(unfit[0]).__name__}; only linear layers and embeddings take an adapter"
        fix = "name the linear layers inside it, or put it under modules_to_save"
        return [Problem(where, what, fix)]
    shared = model.config.tie_word_embeddings and (model.get_input_embeddings(), model.get_output_embeddings())
    if shared and any(module is end for module in matching for end in shared):
        what = f"{name!r} shares its weight with the {_other_end(model, matching)}, so an adapter on it would be wrong"
        fix = f"put it under modules_to_save instead: modules_to_save: [{name}]"
        return [Problem(where, f"{what} after merging", fix)]
    return []


def _other_end(model: Any, matching: Sequence[Any]) -> str:
    return "head" if any(module is model.get_input_embeddings() for module in matching) else "embedding"


def _rank_problems(model: Any, method: LoraMethod | QloraMethod, where: str) -> list[Problem]:
    width = int(model.config.get_text_config().hidden_size)
    if method.rank <= width:
        return []
    what = f"rank {method.rank} is wider than the model's layers ({width}), so it would cost more than training them"
    return [Problem(f"{where} (rank)", what, "16 to 64 is usual")]
