"""A live transformers model as a runtime; with a PEFT adapter it can answer as its base too, from the same weights."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteriaList

from finetune.hardware import keep_freed_memory, release_freed_memory
from finetune.runtimes.cached_rows import takes_rows
from finetune.runtimes.decoding import Limits, answers, ender
from finetune.runtimes.protocol import Continuation, Generation, Progress, cut_at
from finetune.runtimes.scoring import score_after, score_rows

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


@contextlib.contextmanager
def _even_head(model: Any) -> Iterator[None]:
    """Lay out what the head reads without gaps, which the last positions of many rows have between them.

    On a CPU, torch 2.13 multiplies bfloat16 with gaps at a hundredth of the speed: 8 s for 32 rows of SmolLM2-135M.
    """
    head = model.get_output_embeddings()
    hook = head and head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
    try:
        yield
    finally:
        if hook:
            hook.remove()


class TransformersRuntime:
    """Greedy answers and likelihoods from a causal language model.

    Args:
        model: a PreTrainedModel or PeftModel in evaluation mode.
        tokenizer: turns answers into text; pads.
        name: what the contestant is called.
        adapter: False answers as the base, with the adapter switched off.
        share: read what prompts have in common once. False computes every row of continuations by itself, with the
            very figures that lm-eval has; else they differ by what the order of additions does (1e-5 nats in float32).
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, adapter: bool = True, share: bool = True) -> None:
        keep_freed_memory()
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.adapter = adapter
        self.share = share
        self.device = next(model.parameters()).device

    @contextlib.contextmanager
    def _answering(self) -> Iterator[Any]:
        """Yield the model, in evaluation mode and without gradients, the adapter on or off."""
        was_training = self.model.training
        self.model.eval()
        off = contextlib.nullcontext() if self.adapter else self.model.disable_adapter()
        try:
            with torch.inference_mode(), off, _one_dtype(self.model), _even_head(self.model):
                yield self.model
        finally:
            self.model.train(was_training)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        until: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> list[Generation]:
        """Answer each prompt greedily.

        Args:
            prompts: token ids, one list a prompt.
            max_new_tokens: longest answer.
            stop: tokens that end an answer.
            until: texts that end an answer, and are no part of it.
            progress: called with the number of prompts answered so far.
        """
        given: list[Generation | None] = [None] * len(prompts)
        done = 0
        with self._answering() as model:
            said = self._said_in_turn if takes_rows(model) else self._said_in_batches
            for ended in said(model, prompts, max_new_tokens, stop, until):
                for index, tokens in ended:
                    given[index] = self._generation(tokens, stop, until)
                release_freed_memory()
                done += len(ended)
                if progress is not None:
                    progress(done)
        return [answer for answer in given if answer is not None]

    def _said_in_turn(
        self, model: Any, prompts: Sequence[Sequence[int]], longest: int, stop: Sequence[int], until: Sequence[str]
    ) -> Iterator[list[tuple[int, list[int]]]]:
        kind = self.device.type
        limits = Limits(longest=longest, rows=BATCH_ROWS[kind], tokens=2 * BATCH_TOKENS[kind])
        ends = ender(stop, until, self._text)
        return answers(model, prompts, limits, pad=self.tokenizer.pad_token_id, ends=ends)

    def _said_in_batches(
        self, model: Any, prompts: Sequence[Sequence[int]], longest: int, stop: Sequence[int], until: Sequence[str]
    ) -> Iterator[list[tuple[int, list[int]]]]:
        """Answer by the library's own decoding: models with other than plain attention keep more than keys."""
        ends = ender(stop, until, self._text)
        for batch in self._batches([len(prompt) for prompt in prompts], extra=longest):
            inputs = self._left_padded([prompts[index] for index in batch])
            width = inputs["input_ids"].shape[1]

            # The library's own stop texts may begin in the prompt
            def ended(ids: torch.Tensor, _: Any, width: int = width) -> torch.Tensor:
                return torch.tensor([ends(row) for row in ids[:, width:].tolist()], device=ids.device)

            output = model.generate(
                **inputs,
                max_new_tokens=longest,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                eos_token_id=list(stop),
                pad_token_id=self.tokenizer.pad_token_id,
                stopping_criteria=StoppingCriteriaList([ended]),
            )
            said = output[:, width:].tolist()
            # What ended before the others is filled up with padding
            yield [(index, _up_to_end(tokens, ends)) for index, tokens in zip(batch, said, strict=True)]

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _generation(self, tokens: list[int], stop: Sequence[int], until: Sequence[str] = ()) -> Generation:
        end = next((position for position, token in enumerate(tokens) if token in stop), None)
        kept = tokens if end is None else tokens[:end]
        text = self._text(kept)
        cut = cut_at(text, until)
        return Generation(tuple(kept), text if cut is None else cut, end is not None or cut is not None)

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
        with self._answering() as model:
            scored = score_rows(model, rows, self._batches, self.tokenizer.pad_token_id)
        return [float(figures.double().sum()) for figures, _ in scored]

    def score_continuations(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[Continuation]]:
        """Return how likely each of a prompt's continuations is; a prompt, and what prompts start with, is read once.

        Raises:
            ValueError: a prompt or a continuation without a token.
        """
        if not all(map(len, prompts)) or not all(len(one) for those in continuations for one in those):
            raise ValueError("prompts and continuations need a token at least")
        kind, pad = self.device.type, self.tokenizer.pad_token_id
        with self._answering() as model:
            if self.share and takes_rows(model):
                rows, tokens = 2 * BATCH_ROWS[kind], 2 * BATCH_TOKENS[kind]
                return score_after(model, prompts, continuations, pad, rows=rows, tokens=tokens)
            whole = [
                ([*prompt, *one], [False] * len(prompt) + [True] * len(one))
                for prompt, those in zip(prompts, continuations, strict=True)
                for one in those
            ]
            scored = iter(score_rows(model, whole, self._batches, pad, sparing=self.share))
        # Summed in float32 as lm-eval does, so that equal figures have equal sums
        return [
            [Continuation(float(figures.sum()), greedy) for figures, greedy in islice(scored, len(those))]
            for those in continuations
        ]

    def choice_log_likelihoods(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Return, for each prompt, the log probability in nats of each of its continuations."""
        scored = self.score_continuations(prompts, continuations)
        return [[one.log_likelihood for one in those] for those in scored]

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


def _up_to_end(tokens: list[int], ends: Callable[[list[int]], bool]) -> list[int]:
    """Return the tokens up to the one that ends the answer."""
    return next((tokens[:count] for count in range(1, len(tokens) + 1) if ends(tokens[:count])), tokens)
