"""Examples to tokens within the maximum length; what does not fit is cut, left out or refused, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune.data.chat import ChatEncoder, Encoded, encode_texts
from finetune.data.rows import Example, Message, Rejected
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import DataSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# How many rows of one kind of fault are told one by one
TOLD = 10


class Encoding:
    """Encodes examples within the maximum length, and keeps account of what does not fit."""

    def __init__(
        self, section: DataSection, tokenizer: PreTrainedTokenizerBase, encoder: ChatEncoder | None, where: str
    ) -> None:
        self.section = section
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.where = where
        self.dropped: list[Rejected] = []
        self.truncated = 0
        self._overlong: list[tuple[Example, int]] = []
        self._refused: list[tuple[Example, FinetuneError]] = []

    def encode(self, examples: Sequence[Example]) -> list[tuple[Example, Encoded]]:
        """Encode what fits, or can be made to fit as the recipe says."""
        if self.encoder is None:
            return [piece for example in examples for piece in self._pieces(example)]
        results = self.encoder.encode_many([example.messages for example in examples])
        kept = []
        for example, result in zip(examples, results, strict=True):
            if isinstance(result, FinetuneError):
                self._refuse(example, result)
            elif len(result.input_ids) <= self.section.max_length:
                kept.append((example, result))
            elif self.section.overlong == "truncate_prompt":
                kept += self._shorten(example, result)
            else:
                self._leave_out(example, len(result.input_ids))
        return kept

    def _refuse(self, example: Example, error: FinetuneError) -> None:
        problem = error.problems[0]
        if self.section.on_bad_row == "drop":
            self.dropped.append(Rejected(example.origin, "refused by the chat template", problem.what, problem.fix))
        else:
            self._refused.append((example, error))

    def _leave_out(self, example: Example, length: int) -> None:
        if self.section.overlong == "drop":
            detail = f"{length:,} tokens, at most {self.section.max_length:,}"
            self.dropped.append(Rejected(example.origin, "longer than max_length", detail))
        else:
            self._overlong.append((example, length))

    def _pieces(self, example: Example) -> list[tuple[Example, Encoded]]:
        """Cut a long text into consecutive pieces; nothing of it is lost."""
        whole = encode_texts(self.tokenizer, [example.text or ""])[0]
        size = self.section.max_length
        if len(whole.input_ids) <= size:
            return [(example, whole)]
        self.truncated += 1
        # Neighbours share one token: each piece's first token is never a label, having nothing before it
        starts = range(0, len(whole.input_ids) - 1, size - 1)
        return [
            (
                example,
                replace(whole, input_ids=whole.input_ids[s : s + size], trained=whole.trained[s : s + size], turns=()),
            )
            for s in starts
        ]

    def _shorten(self, example: Example, encoded: Encoded) -> list[tuple[Example, Encoded]]:
        """Cut the longest user turn from its start until the row fits; the answer is never cut."""
        assert self.encoder is not None  # noqa: S101 - only conversations have prompts
        messages = list(example.messages)
        excess = len(encoded.input_ids) - self.section.max_length
        for _ in range(8):
            users = [index for index, message in enumerate(messages[:-1]) if message.role == "user"]
            if not users:
                break
            longest = max(users, key=lambda index: len(messages[index].content))
            shorter = _without_start(messages[longest], excess, self.tokenizer)
            if not shorter.content.strip():
                break
            messages[longest] = shorter
            result = self.encoder.encode_many([messages])[0]
            if isinstance(result, FinetuneError):
                break
            if len(result.input_ids) <= self.section.max_length:
                self.truncated += 1
                return [(replace(example, messages=tuple(messages)), result)]
            excess = len(result.input_ids) - self.section.max_length
        reason = "longer than max_length without its prompt"
        self.dropped.append(Rejected(example.origin, reason, f"{len(encoded.input_ids):,} tokens"))
        return []

    def raise_problems(self) -> None:
        """Refuse rows that do not fit or that the template refuses, all of them at once.

        Raises:
            FinetuneError: there are such rows and the recipe does not say to drop them.
        """
        problems = [
            Problem(str(example.origin), f"this row cannot be written in chat form: {error.problems[0].what}", "")
            for example, error in self._refused[:TOLD]
        ]
        if len(self._refused) > TOLD:
            problems.append(Problem("", f"and {len(self._refused) - TOLD:,} more rows that the template refuses"))
        if self._overlong:
            longest = max(length for _, length in self._overlong)
            examples = ", ".join(f"{example.origin} ({length:,})" for example, length in self._overlong[:3])
            problems.append(
                Problem(
                    self.where,
                    f"{len(self._overlong):,} rows are longer than max_length {self.section.max_length:,}: {examples}",
                    f"set data.max_length to {longest} or more, or data.overlong to truncate_prompt or drop",
                )
            )
        if problems:
            raise FinetuneError.of(problems)

    def notes(self, encoder: ChatEncoder | None) -> list[Problem]:
        """Say what the encoding changed."""
        notes = []
        if self.truncated:
            how = "raw texts were cut into pieces" if encoder is None else "rows had their prompt cut from its start"
            notes.append(Problem(self.where, f"{self.truncated:,} {how} to fit max_length", "", "note"))
        if encoder is not None and encoder.system_folded:
            what = "the chat template takes no system message; it was put before the first user message"
            notes.append(Problem("model.chat_template", what, "", "note"))
        if encoder is not None and encoder.template.dated:
            what = "the chat template writes today's date, so a run resumed on another day learns from other tokens"
            notes.append(Problem("model.chat_template", what, "set model.chat_template to one without it", "warning"))
        return notes


def _without_start(message: Message, tokens: int, tokenizer: PreTrainedTokenizerBase) -> Message:
    """Return a message without its first `tokens` tokens, cut between characters."""
    offsets = tokenizer(message.content, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    cut = offsets[tokens][0] if tokens < len(offsets) else len(message.content)
    return replace(message, content=message.content[cut:])
