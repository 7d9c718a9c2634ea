"""TRL's trainer with our batches, loss and checkpoints; optimizer, schedule, clipping and resume stay its own."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerState
from trl import SFTTrainer

from finetune.data.rows import TokenRow
from finetune.errors import FinetuneError
from finetune.training import checkpoints
from finetune.training.attention import attention, row_bounds
from finetune.training.batches import MicroBatch, RowDataset, StepBatch, StepCollator, first_row
from finetune.training.callbacks import Meter
from finetune.training.loss import backbone, head_is_plain, softcap, trained_token_loss

# Validation rows that are laid out together
_AT_ONCE = 1024


class RowTrainer(SFTTrainer):  # type: ignore[misc]
    """Learns from whole optimizer steps of token rows.

    Differs from its parent in three places: `training_step` goes through the micro-batches of a step with a loss
    that is normalised over all of them, `evaluate` measures the loss of the validation rows the same way, and
    checkpoints are written whole or not at all.
    """

    def __init__(
        self,
        *,
        model: Any,
        rows: Sequence[TokenRow],
        validation: Sequence[TokenRow],
        collator: StepCollator,
        folder: Path,
        facts: dict[str, Any],
        autocast: torch.dtype | None,
        bounds_attention: bool,
        max_forgetting: float | None = None,
        forgetting: Callable[[], float] | None = None,
        **trainer: Any,
    ) -> None:
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        super().__init__(model=model, train_dataset=first_row(rows), data_collator=collator, **trainer)
        self.train_dataset = RowDataset(rows)
        self.remove_callback(PrinterCallback)
        for parameter in learning:
            # TRL narrows what learns on a quantised base to bfloat16, where small updates are lost
            parameter.data = parameter.data.float()
        # TRL's own fused head is not used; without it the model's forward is its class's again
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        vars(causal).pop("forward", None)
        self.causal = causal
        self.plain_head = head_is_plain(causal)
        self.validation = validation
        self.collator = collator
        self.folder = folder
        self.facts = facts
        self.autocast = autocast
        self.bounds_attention = bounds_attention
        self.max_forgetting = max_forgetting
        self.forgetting = forgetting
        self.usual_attention = causal.config._attn_implementation
        self.meter = Meter()

    def training_step(self, model: Any, inputs: StepBatch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Accumulate the gradients of one optimizer step; returns its mean loss per trained token."""
        started = time.perf_counter()
        model.train()
        total = torch.zeros((), device=self.args.device)
        for micro_batch in inputs["micro_batches"]:
            loss = self.summed_loss(micro_batch) / max(1, inputs["trained_tokens"])
            self.accelerator.backward(loss)
            total += loss.detach()
        if not torch.isfinite(total):
            raise self._diverged(f"the loss became {total.item()}", inputs["row_ids"])
        self.meter.add(inputs["tokens"], started)
        self._rows_of_step = inputs["row_ids"]
        return total

    def summed_loss(self, micro_batch: MicroBatch) -> torch.Tensor:
        """Return the negative log-likelihood, in nats, summed over the micro-batch's trained tokens."""
        batch = self._prepare_input(micro_batch)
        inputs, targets = batch["inputs"], batch["targets"]
        if self.bounds_attention:
            inputs = {**inputs, "row_bounds": row_bounds(micro_batch["lengths"])}
        with self._precision():
            if self.plain_head:
                hidden = backbone(self.causal)(**inputs, use_cache=False).last_hidden_state
                return trained_token_loss(hidden, self.causal.get_output_embeddings(), targets, softcap(self.causal))
            logits = self.causal(**inputs, use_cache=False).logits.float()
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.args.device.type, dtype=self.autocast)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):
            raise self._diverged(f"the gradient's norm became {float(norm)}", self._rows_of_step)
        return norm

    def _diverged(self, what: str, row_ids: list[str]) -> FinetuneError:
        last, _ = checkpoints.newest_whole(self.folder)
        kept = f"the last good checkpoint, {last.name}, is kept" if last else "no checkpoint had been written"
        rows = ", ".join(row_ids[:8]) + (", ..." if len(row_ids) > 8 else "")
        return FinetuneError(
            f"{what} at step {self.state.global_step + 1}; {kept}; the step's rows: {rows}",
            where="train.learning_rate",
            fix="lower the learning rate, or look at these rows",
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return and log the mean loss per trained token over all validation rows, and what has been forgotten."""
        self.model.eval()
        total, trained = 0.0, 0
        for first in range(0, len(self.validation), _AT_ONCE):
            batch = self.collator.lay_out(self.validation[first : first + _AT_ONCE])
            trained += batch["trained_tokens"]
            with torch.no_grad():
                total += float(sum(self.summed_loss(micro_batch) for micro_batch in batch["micro_batches"]))
        metrics = {"eval_loss": total / max(1, trained)}
        if self.forgetting is not None:
            with attention(self.causal, self.usual_attention):
                metrics["eval_forgetting"] = self.forgetting()
        self.log(dict(metrics))
        handler: Any = self.callback_handler
        control: Any = vars(self)["control"]
        self.control = handler.on_evaluate(self.args, self.state, control, metrics)
        self.model.train()
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add tokens and speed to what is logged for a step."""
        if "loss" in logs:
            logs = {**logs, "tokens": self.meter.tokens, "tokens_per_second": self.meter.rate()}
        Trainer.log(self, logs)

    def floating_point_ops(self, inputs: Any) -> float:
        """Not counted: the parent's estimate knows neither micro-batches nor frozen weights."""
        return 0.0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        with checkpoints.new_checkpoint(self.folder, step, self.facts) as aside:
            folder = self.args.output_dir
            self.args.output_dir = str(aside)
            try:
                # Not the parent's: that writes a model card of its own into each checkpoint
                Trainer._save_checkpoint(self, model, trial)
            finally:
                self.args.output_dir = folder
        kept = {checkpoints.step_of(path) or 0 for path in checkpoints.all_checkpoints(self.folder)}
        checkpoints.retain(self.folder, best=self.best_of(kept))

    def best_of(self, steps: set[int]) -> int | None:
        """Return which of these steps stands best so far, or None where the validation rows were looked at in none."""
        return checkpoints.best_step(self.state.log_history, steps, self.max_forgetting)

    def take_back(self, checkpoint: Path) -> None:
        """Load the weights of a checkpoint into the model."""
        self._load_from_checkpoint(str(checkpoint))

    def take_over(self, checkpoint: Path) -> None:
        """Be where a checkpoint was saved: its weights, its step and its history."""
        self.take_back(checkpoint)
        self.state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE))
