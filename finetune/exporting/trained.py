"""What was trained, as every exported file is compared with it: `Trained`, observed once however many files follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from finetune.data import Message, TestItem
from finetune.data.chat.templates import Template
from finetune.data.chat.tokens import TextCoder
from finetune.exporting.merge import DEQUANTISED, merge_bases, trained_model
from finetune.exporting.prompts import Conversation
from finetune.exporting.verify import Observation, ProofRow, observe
from finetune.hardware import Machine
from finetune.models import Base, attach_trained, load_model, quantization
from finetune.recipe.schema import Recipe
from finetune.runtimes import TransformersRuntime


class Trained:
    """A trained result and the real rows of its run.

    Args:
        recipe: the run's recipe.
        base: what was tuned.
        folder: the run's `adapter/` or `weights/`.
        tokenizer: the one that was trained with.
        rows: real rows of the run.
        conversations: real prompts of the run.
        stop: tokens that end an answer.
        machine: what computes.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        base: Base,
        folder: Path,
        tokenizer: Any,
        rows: Sequence[ProofRow],
        conversations: Sequence[Conversation],
        stop: Sequence[int],
        machine: Machine,
    ) -> None:
        self.recipe, self.base, self.folder, self.tokenizer = recipe, base, folder, tokenizer
        self.rows, self.conversations = tuple(rows), tuple(conversations)
        self.stop, self.machine = tuple(stop), machine
        self._observed: Observation | None = None

    @property
    def is_observed(self) -> bool:
        return self._observed is not None

    def observe(self, model: Any) -> Observation:
        """Record what the trained model, already in memory, predicts and answers."""
        runtime = TransformersRuntime(model.eval(), self.tokenizer, name="the trained model")
        self._observed = observe(runtime, self.rows, stop=self.stop)
        return self._observed

    @property
    def observed(self) -> Observation:
        """What the trained model predicts and answers, over a quantised base on the weights as training saw them."""
        if self._observed is not None:
            return self._observed
        into = merge_bases(self.recipe)[0]
        if into != DEQUANTISED:
            return self.observe(trained_model(self.recipe, self.base, self.folder, into=into, machine=self.machine))
        quantised = load_model(
            self.base,
            dtype=torch.float32,
            device=self.machine.device,
            quantization=quantization(self.recipe.method),
        )
        return self.observe(attach_trained(quantised, self.folder))

    @property
    def ends(self) -> tuple[int, ...]:
        """The stop tokens that trained answers really end in."""
        answers = [[token for token in row.whole[len(row.prompt) :] if token in self.stop] for row in self.rows]
        return tuple(sorted({found[0] for found in answers if found}))

    @staticmethod
    def renderer(tokenizer: Any) -> Callable[[Sequence[Mapping[str, str]]], str]:
        """Return what writes messages by a tokenizer's template, with the generation prompt."""
        templates: list[Template] = []

        def render(messages: Sequence[Mapping[str, str]]) -> str:
            if not templates:
                templates.append(Template(tokenizer))
            told = [Message(one["role"], one["content"]) for one in messages]  # type: ignore[arg-type]
            return templates[0].render(told, add_generation_prompt=True)

        return render


def conversations_of(items: Sequence[TestItem], tokenizer: Any, at_most: int) -> list[Conversation]:
    """Return the first held-out rows that any client could send: plain turns or raw text, without control tokens.

    Rows with tools are left out, as clients send those beside the messages, and rows in which people wrote control
    tokens: training takes these as text, and a server reads them.

    Args:
        items: held-out rows.
        tokenizer: the one that was trained with.
        at_most: so many conversations.
    """
    template = Template(tokenizer) if any(item.example.messages for item in items) else None
    controls = TextCoder(tokenizer).control_pattern
    found: list[Conversation] = []
    for item in items:
        example, texts = item.example, [one.content for one in item.example.context] + [item.example.text or ""]
        tooled = any(one.tools or one.tool_calls or one.role == "tool" for one in example.context)
        if len(found) == at_most or tooled or any(controls.search(text) for text in texts):
            continue
        if template is None:
            ids = tuple(tokenizer(example.text).input_ids)
            found.append(Conversation(example.id, (), example.text or "", ids))
        elif example.messages:
            folded = template.fold(example.context)
            text = template.render(folded, add_generation_prompt=True)
            messages = tuple({"role": one.role, "content": one.content} for one in folded)
            found.append(Conversation(example.id, messages, text, tuple(item.prompt)))
    return found
