"""A live transformers model as a runtime; with a PEFT adapter it can answer as its base too, from the same weights."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from finetune.hardware import keep_freed_memory, release_freed_memory
from finetune.runtimes.protocol import Generation, Progress

# PEFT's names for what it adds
_LEARNED = re.compile(r"\.lora_|\.modules_to_save\.")
# Tokens computed at once while reading prompts and scoring rows
BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
# Rows that are continued together; a CPU's step takes 34 ms for 16 rows and 94 ms for 64 (SmolLM2-135M, bfloat16)
BATCH_ROWS = {"cpu": 64, "cuda": 256}


@contextlib.contextmanager
def _one_dtype(model: Any) -> Iterator[None]:
    """Compute with learned weights rounded to the base's number format, as training did; put them back afterwards.

    Left in float32, adapters draw every input into float32 products: 77 s instead of 54 s for 150 answers on two
    cores, and modules that were trained whole do not fit their bfloat16 neighbours.
    """
    kinds = {name: value.dtype for name, value in model.named_parameters() if value.dtype.is_floating_point}
    frozen = [kinds[name] for name in kinds if not _LEARNED.search(name)]
    learned = [value for name, value in model.named_parameters() if _LEARNED.search(name)]
    originals = [value.data for value in learned]
    try:
        for value in learned:
            value.data = value.data.to(frozen[0])
        yield
    finally:
        for value, original in zip(learned, originals, strict=True):
            value.data = original


class TransformersRuntime:
    """Greedy answers and likelihoods from a causal language model.

    Args:
        model: a PreTrainedModel or PeftModel in evaluation mode.
        tokenizer: turns answers into text; pads.
        name: what the contestant is called.
        adapter: False answers as the base, with the adapter switched off.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, adapter: bool = True) -> None:
        keep_freed_memory()
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.adapter = adapter
        self.device = next(model.parameters()).device

    @contextlib.contextmanager
    def _answering(self) -> Iterator[Any]:
        """Yield the model, in evaluation mode and without gradients, the adapter on or off."""
        was_training = self.model.training
        self.model.eval()
        off = contextlib.nullcontext() if self.adapter else self.model.disable_adapter()
        try:
            with torch.inference_mode(), off, _one_dtype(self.model):
                yield self.model
        finally:
            self.model.train(was_training)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Generation]:
        """Answer each prompt greedily.

        Args:
            prompts: token ids, one list a prompt.
            max_new_tokens: longest answer.
            stop: tokens that end an answer.
            progress: called with the number of prompts answered so far.
        """
        answers: list[Generation | None] = [None] * len(prompts)
        done = 0
        with self._answering() as model:
            for batch in self._batches([len(prompt) for prompt in prompts], extra=max_new_tokens):
                inputs = self._left_padded([prompts[index] for index in batch])
                output = model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    repetition_penalty=1.0,
                    eos_token_id=list(stop),
                    pad_token_id=self.tokenizer.pad_token_id,
                )
                for index, tokens in zip(batch, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                    answers[index] = self._generation(tokens, stop)
                release_freed_memory()
                done += len(batch)
                if progress is not None:
                    progress(done)
        return [answer for answer in answers if answer is not None]

    def _generation(self, tokens: list[int], stop: Sequence[int]) -> Generation:
        end = next((position for position, token in enumerate(tokens) if token in stop), None)
        kept = tokens if end is None else tokens[:end]
        return Generation(tuple(kept), self.tokenizer.decode(kept, skip_special_tokens=True), end is not None)

    def _left_padded(self, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        width = max(len(prompt) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        attention = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            attention[row, width - len(prompt) :] = 1
        return {"input_ids": input_ids.to(self.device), "attention_mask": attention.to(self.device)}

    def _batches(self, lengths: Sequence[int], *, extra: int = 0) -> Iterator[list[int]]:
        """Yield positions in batches of like length, longest first, so that memory runs out at once or never."""
        kind = self.device.type
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        start = 0
        while start < len(order):
            width = lengths[order[start]] + extra
            size = max(1, min(BATCH_ROWS[kind], BATCH_TOKENS[kind] * (2 if extra else 1) // width))
            yield order[start : start + size]
            start += size

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> list[float]:
        """Return the summed log probability, in nats, of the marked tokens of each row.

        The first token of a row has nothing before it and is never counted.
        """
        results = [0.0] * len(rows)
        with self._answering() as model:
            for batch in self._batches([len(ids) for ids, _ in rows]):
                width = max(len(rows[index][0]) for index in batch)
                input_ids = torch.full((len(batch), width), self.tokenizer.pad_token_id)
                attention = torch.zeros((len(batch), width), dtype=torch.long)
                counted = torch.zeros((len(batch), width), dtype=torch.bool)
                for row, index in enumerate(batch):
                    ids, marks = rows[index]
                    input_ids[row, : len(ids)] = torch.tensor(np.asarray(ids, dtype=np.int64))
                    attention[row, : len(ids)] = 1
                    counted[row, : len(ids)] = torch.tensor(np.asarray(marks, dtype=bool))
                sums = self._summed(model, input_ids, attention, counted)
                for row, index in enumerate(batch):
                    results[index] = float(sums[row])
        return results

    def _summed(
        self, model: Any, input_ids: torch.Tensor, attention: torch.Tensor, counted: torch.Tensor
    ) -> torch.Tensor:
        input_ids = input_ids.to(self.device)
        logits = model(input_ids=input_ids, attention_mask=attention.to(self.device), use_cache=False).logits
        sums = torch.zeros(len(input_ids), dtype=torch.float64)
        for row in range(len(input_ids)):
            # One row at a time: a whole batch of float32 log probabilities would double the peak memory
            scores = torch.log_softmax(logits[row, :-1].float(), dim=-1)
            chosen = scores.gather(1, input_ids[row, 1:, None])[:, 0].cpu().double()
            sums[row] = chosen[counted[row, 1:]].sum()
        return sums

    def log_probabilities(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return log p(next token) at each position: float32 [length, vocabulary]."""
        with self._answering() as model:
            logits = model(input_ids=torch.tensor([list(token_ids)], device=self.device), use_cache=False).logits
            scores = torch.log_softmax(logits[0].float(), dim=-1)
        return np.asarray(scores.cpu().numpy())

    def size_bytes(self) -> int:
        """Return the bytes that the answering weights take; the adapter counts where it is switched on."""
        total = 0
        for name, parameter in self.model.named_parameters():
            if self.adapter or not (".lora_" in name or ".modules_to_save." in name):
                total += parameter.numel() * parameter.element_size()
        return total
