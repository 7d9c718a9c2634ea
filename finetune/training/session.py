"""Train: put rows, model and recipe together, run or resume, and leave the result in the run folder."""

from __future__ import annotations

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig

from finetune.data.rows import TokenRow
from finetune.errors import FinetuneError, Problem
from finetune.hardware import Machine, keep_freed_memory, peak_memory, require_disk
from finetune.recipe.schema import FullMethod, Recipe, TrainSection
from finetune.rundir import RunFolder, staged_folder
from finetune.tracking import Tracker
from finetune.training import checkpoints
from finetune.training.attention import row_attention, supports_rows
from finetune.training.batches import StepCollator
from finetune.training.callbacks import Cadence, ProgressBar, Tracking, cadence, stops_early
from finetune.training.trainer import RowTrainer

LEARNING_RATE = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}

# Measured on two cores with SmolLM2-135M, LoRA, bfloat16: 524 tokens/s at 600, 570 at 1200, 550 at 2400.
CPU_TOKENS = 1536


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a training run did. Losses are means per trained token, in nats; memory in bytes.

    `forgetting` is by how many bits per byte general texts have risen with the kept weights, None where that was not
    measured; `forgets` says that it is more than the recipe allows, as no checkpoint kept below.
    """

    steps: int
    kept_step: int
    epochs: float
    loss: float
    validation_loss: float | None
    tokens: int
    tokens_per_second: float
    seconds: float
    peak_memory: int
    resumed_from: int | None
    micro_batch_tokens: int
    folder: str
    forgetting: float | None = None
    forgets: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def train(
    recipe: Recipe,
    *,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[TokenRow],
    validation: Sequence[TokenRow],
    folder: RunFolder,
    machine: Machine,
    tracker: Tracker,
    resume: Path | None = None,
    quiet: bool = False,
    forgetting: Callable[[], float] | None = None,
) -> Training:
    """Train `model` on `rows` and write the result to `folder`.

    Args:
        recipe: the recipe; `train`, `method` and `run.seed` are read here.
        model: from `finetune.models.attach`; holds the kept weights afterwards, in evaluation mode.
        tokenizer: saved beside the weights.
        rows: the training rows.
        validation: rows that choose the checkpoint; may be empty.
        folder: the run folder.
        machine: what computes.
        tracker: told every step.
        resume: a checkpoint to go on from.
        quiet: no progress bar.
        forgetting: measures by how many bits per byte general texts have risen; asked where `train.max_forgetting` is
            set, which needs it.

    Raises:
        FinetuneError: the loss or gradient became NaN or infinite, out of memory, out of disk.
    """
    _require_one_process()
    keep_freed_memory()
    steps = total_steps(recipe, len(rows))
    limit = recipe.train.micro_batch_tokens or default_micro_batch(machine, model)
    eval_every, save_every = cadence(
        steps,
        eval_every=recipe.train.eval_every,
        save_every=recipe.train.save_every,
        has_validation=bool(validation),
    )
    learning_bytes = 12 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    require_disk(folder.path, 3 * learning_bytes, "checkpoints of this run")
    use_bounds = _uses_row_attention(recipe, model, machine, max(len(row) for row in rows))
    started = time.perf_counter()
    with _silence(), contextlib.ExitStack() as stack:
        trainer = RowTrainer(
            model=model,
            rows=rows,
            validation=validation,
            collator=StepCollator(limit=limit, packing=recipe.train.packing, pad_id=tokenizer.pad_token_id),
            folder=folder.checkpoints,
            facts={"run": folder.name},
            autocast=_autocast(model, machine, recipe),
            bounds_attention=use_bounds,
            max_forgetting=recipe.train.max_forgetting,
            forgetting=None if recipe.train.max_forgetting is None else forgetting,
            args=arguments(recipe, steps=steps, device=machine.device, output=folder.checkpoints),
            processing_class=tokenizer,
            callbacks=_callbacks(recipe.train, eval_every, save_every, tracker, quiet=quiet),
        )
        stack.enter_context(disable_input_dtype_casting(model))
        if use_bounds:
            stack.enter_context(row_attention(trainer.causal))
        if resume is not None and _is_over(resume, steps, recipe):
            # Interrupted between the last step and the result; the trainer would do one step more
            trainer.take_over(resume)
        else:
            _run(trainer, resume)
        kept = _keep(trainer, recipe)
    _save(model, tokenizer, folder, recipe)
    return _summary(trainer, kept, resume, limit, time.perf_counter() - started, folder)


def _callbacks(
    section: TrainSection, eval_every: int | None, save_every: int, tracker: Tracker, *, quiet: bool
) -> list[TrainerCallback]:
    kept = Cadence(
        eval_every=eval_every,
        save_every=save_every,
        early_stop=section.early_stop,
        max_forgetting=section.max_forgetting,
    )
    return [kept, Tracking(tracker), *([] if quiet else [ProgressBar()])]


def total_steps(recipe: Recipe, rows: int) -> int:
    """Return the number of optimizer steps that a recipe asks for over `rows` training rows."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    return max(1, math.ceil(recipe.train.epochs * math.ceil(rows / recipe.train.batch_size)))


def learning_rate(recipe: Recipe) -> float:
    """Return the recipe's peak learning rate, or the method's usual one."""
    return recipe.train.learning_rate or LEARNING_RATE[recipe.method.kind]


def default_micro_batch(machine: Machine, model: Any) -> int:
    """Return how many tokens to compute at once where the recipe leaves it open.

    A CPU gains nothing beyond about a thousand. On a GPU half of the free memory goes to activations: per token and
    layer about 16 numbers of the hidden width and 8 of the intermediate one, two bytes each.
    """
    if machine.device != "cuda":
        return CPU_TOKENS
    config = model.config.get_text_config()
    widths = 16 * config.hidden_size + 8 * getattr(config, "intermediate_size", 4 * config.hidden_size)
    free, _ = torch.cuda.mem_get_info()
    return int(min(16384, max(512, 0.5 * free / (2 * widths * config.num_hidden_layers))))


def arguments(recipe: Recipe, *, steps: int, device: str, output: Path) -> SFTConfig:
    """Map a recipe to TRL's arguments: the one place where both are named.

    Batches, packing, loss, precision, checkpoints and logging are ours, so theirs are switched off.
    """
    section = recipe.train
    with warnings.catch_warnings():
        # transformers 5.23 renames gradient_checkpointing to activation_checkpointing; 5.17 knows only the old name
        warnings.simplefilter("ignore", FutureWarning)
        return _sft_config(recipe, section, steps, device, output)


def _sft_config(recipe: Recipe, section: TrainSection, steps: int, device: str, output: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=section.batch_size,
        gradient_accumulation_steps=1,
        learning_rate=learning_rate(recipe),
        lr_scheduler_type=section.schedule,
        warmup_steps=math.ceil(section.warmup * steps),
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        gradient_checkpointing=section.gradient_checkpointing,
        optim="adamw_torch_fused",
        seed=recipe.run.seed,
        data_seed=recipe.run.seed,
        use_cpu=device == "cpu",
        bf16=False,
        fp16=False,
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=device == "cuda",
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        push_to_hub=False,
    )


def _require_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise FinetuneError(
            "started as one of several processes, and training uses one device",
            where="WORLD_SIZE",
            fix="start it without torchrun or accelerate launch",
        )


def _autocast(model: Any, machine: Machine, recipe: Recipe) -> torch.dtype | None:
    """What learns is float32; products are computed in the dtype of the frozen weights."""
    from finetune.hardware import resolve_dtype

    dtype = resolve_dtype(recipe.model.dtype, machine)
    return None if dtype == torch.float32 else dtype


def _uses_row_attention(recipe: Recipe, model: Any, machine: Machine, longest: int) -> bool:
    explicit = recipe.model.attention != "auto"
    return (
        recipe.train.packing
        and machine.device == "cpu"
        and not explicit
        and supports_rows(model.config, longest=longest)
    )


@contextlib.contextmanager
def _silence() -> Any:
    """Keep TRL from reporting each trainer to the hub; it asks this switch, which is read at import."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def _is_over(checkpoint: Path, steps: int, recipe: Recipe) -> bool:
    """Whether nothing is left to train after a checkpoint: it is of the last step, or of the one that stopped early."""
    history = checkpoints.read_history(checkpoint)
    stopped = stops_early(history, recipe.train.early_stop, recipe.train.max_forgetting)
    return (checkpoints.step_of(checkpoint) or 0) >= steps or stopped


def _run(trainer: RowTrainer, resume: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except torch.OutOfMemoryError as error:
        raise FinetuneError(
            f"out of memory at step {trainer.state.global_step + 1}",
            where="train.micro_batch_tokens",
            fix=f"set it below {trainer.collator.limit}; the result stays the same",
        ) from error


def _keep(trainer: RowTrainer, recipe: Recipe) -> int:
    """Put the weights that the recipe wants kept into the model; returns their step."""
    last = int(trainer.state.global_step)
    if recipe.train.keep == "last" or not trainer.validation:
        return last
    whole = {checkpoints.step_of(path) or 0 for path in checkpoints.all_checkpoints(trainer.folder)}
    best = trainer.best_of(whole)
    if best is None or best == last:
        return last
    trainer.take_back(trainer.folder / f"step-{best}")
    return best


def _save(model: Any, tokenizer: PreTrainedTokenizerBase, folder: RunFolder, recipe: Recipe) -> None:
    model.eval()
    name = "weights" if isinstance(recipe.method, FullMethod) else "adapter"
    with staged_folder(folder.path / name) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        (aside / "README.md").unlink(missing_ok=True)


def _summary(
    trainer: RowTrainer, kept: int, resume: Path | None, limit: int, seconds: float, folder: RunFolder
) -> Training:
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    looks = [entry for entry in history if "eval_loss" in entry and entry["step"] == kept]
    look = looks[-1] if looks else {}
    bound, forgotten = trainer.max_forgetting, look.get("eval_forgetting")
    meter = trainer.meter
    return Training(
        steps=int(trainer.state.global_step),
        kept_step=kept,
        epochs=float(trainer.state.epoch or 0.0),
        loss=losses[-1],
        validation_loss=look.get("eval_loss"),
        forgetting=forgotten,
        forgets=bound is not None and forgotten is not None and forgotten > bound,
        tokens=meter.tokens,
        tokens_per_second=meter.tokens / meter.seconds if meter.seconds else 0.0,
        seconds=seconds,
        peak_memory=peak_memory(),
        resumed_from=checkpoints.step_of(resume) if resume else None,
        micro_batch_tokens=limit,
        folder=str(folder.trained()),
    )


def resume_point(folder: RunFolder) -> tuple[Path | None, list[Problem]]:
    """Return the checkpoint that an interrupted run goes on from, and what was passed over."""
    return checkpoints.newest_whole(folder.checkpoints)
