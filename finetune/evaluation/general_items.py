"""General texts, questions and prompts as token ids: `read_texts`, `read_questions`, `read_prompts`.

finetune's own ones lie in `general/`: written for this purpose, in English, of no domain that a recipe would tune for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from finetune.data import Origin, Rejected
from finetune.data.chat.encoder import Encoded, encode_texts
from finetune.data.reading.json_rows import read_json
from finetune.data.reading.packed import FileContent
from finetune.data.rows import Row
from finetune.data.tokenising.pieces import cut
from finetune.errors import FinetuneError, Problem
from finetune.recipe.forgetting import ForgettingSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN = Path(__file__).with_name("general")
ANSWER_TOKENS = 24
"""How far the base's own answer to a neutral prompt is followed."""

# Token ids, and which of them count
Marked = tuple[tuple[int, ...], tuple[bool, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralText:
    """A text to be predicted: one row, or several where it is longer than the model's context."""

    id: str
    text: str
    rows: tuple[Marked, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralQuestion:
    """A question as token ids, and its choices as continuations of them; `answer` is the right one's place."""

    id: str
    choices: tuple[str, ...]
    answer: int
    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeutralPrompt:
    """A prompt as the model is asked it."""

    id: str
    tokens: tuple[int, ...]


One = TypeVar("One", GeneralText, GeneralQuestion, NeutralPrompt)


@dataclass(frozen=True, slots=True)
class Items(Generic[One]):
    """The items of a file, with its name (empty for finetune's own) and the hash of its bytes."""

    items: tuple[One, ...]
    file: str
    sha256: str


def read_texts(
    section: ForgettingSection, tokenizer: PreTrainedTokenizerBase, *, context_length: int | None
) -> Items[GeneralText]:
    """Read the general texts.

    Args:
        section: the recipe's `evaluate.forgetting`.
        tokenizer: the models' own.
        context_length: longest text that the model takes, in tokens; longer ones are cut. None where it does not say.

    Raises:
        FinetuneError: no readable file, no texts in it, or rows that are no texts.
    """

    def made(name: str, row: Row) -> GeneralText:
        text = _words(row, "text")
        return GeneralText(id=name, text=text, rows=_text_rows(name, text, tokenizer, context_length))

    return _items(section.texts, "texts", made)


def read_questions(
    section: ForgettingSection, tokenizer: PreTrainedTokenizerBase, *, context_length: int | None
) -> Items[GeneralQuestion]:
    """Read the general questions; the arguments are those of `read_texts`.

    Raises:
        FinetuneError: no readable file, no questions in it, choices that are no list of different texts, an answer
            that is none of them, or a question longer than the context.
    """

    def made(name: str, row: Row) -> GeneralQuestion:
        question, choices, answer = _words(row, "question"), _choices(row), row.fields.get("answer")
        if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
            fix = f"give the number of the right choice, from 0 to {len(choices) - 1}"
            raise _Unfit(f"'answer' is {answer!r}, which is the number of none of its {len(choices)} choices", fix)
        prompt, *continuations = _continued(question, choices, tokenizer)
        _require_room(len(prompt) + max(map(len, continuations)), context_length)
        return GeneralQuestion(
            id=name, choices=choices, answer=answer, prompt=prompt, continuations=tuple(continuations)
        )

    return _items(section.questions, "questions", made)


def read_prompts(
    section: ForgettingSection, encode: Callable[[str], Sequence[int]], *, context_length: int | None
) -> Items[NeutralPrompt]:
    """Read the neutral prompts.

    Args:
        section: the recipe's `evaluate.forgetting`.
        encode: turns a person's words into the tokens that the model is asked.
        context_length: longest text that the model takes, in tokens; None where it does not say.

    Raises:
        FinetuneError: no readable file, no prompts in it, or a prompt that leaves no room for an answer.
    """

    def made(name: str, row: Row) -> NeutralPrompt:
        tokens = tuple(map(int, encode(_words(row, "prompt"))))
        _require_room(len(tokens) + ANSWER_TOKENS, context_length)
        return NeutralPrompt(id=name, tokens=tokens)

    return _items(section.prompts, "prompts", made)


# --------------------------------------------------------------------------------------------------------- reading


class _Unfit(Exception):
    """What is wrong with a row, and what to do about it."""


def _items(given: str | None, kind: str, made: Callable[[str, Row], One]) -> Items[One]:
    content = FileContent(given or str(OWN / f"{kind}.jsonl"), where=f"evaluate.forgetting.{kind}")
    items: dict[str, One] = {}
    problems: list[Problem] = []
    for one in read_json(content).items:
        try:
            name, row = _named(one)
            if name in items:
                raise _Unfit(f"the id {name!r} occurs twice", "give each item an id of its own")
            items[name] = made(name, row)
        except _Unfit as unfit:
            what, fix = unfit.args
            problems.append(Problem(str(one.origin), what, fix))
        except FinetuneError as error:
            problems += [Problem(str(one.origin), found.what, found.fix) for found in error.problems]
    if not items and not problems:
        problems.append(Problem(content.name, f"holds no general {kind}", f"remove evaluate.forgetting.{kind}"))
    if problems:
        raise FinetuneError.of(problems)
    return Items(tuple(items.values()), given or "", content.sha256())


def _named(one: Row | Rejected) -> tuple[str, Row]:
    if isinstance(one, Rejected):
        raise _Unfit(f"{one.reason}: {one.detail}", one.fix)
    return str(one.fields.get("id") or _place(one.origin)), one


def _place(origin: Origin) -> str:
    return f"{Path(origin.file).name}:{origin.line}"


def _words(row: Row, column: str) -> str:
    value = row.fields.get(column)
    if not isinstance(value, str) or not value.strip():
        fault = "is missing" if value is None else f"is {value!r}, which is no text"
        raise _Unfit(f"{column!r} {fault}", f"write the {column} under {column!r}")
    return value


def _choices(row: Row) -> tuple[str, ...]:
    found = row.fields.get("choices")
    texts = [one for one in found if isinstance(one, str) and one.strip()] if isinstance(found, list) else []
    if not isinstance(found, list) or len(texts) != len(found) or len(set(texts)) < max(2, len(texts)):
        raise _Unfit(f"'choices' is {found!r}", "give a list of at least two different texts")
    return tuple(texts)


def _require_room(tokens: int, context_length: int | None) -> None:
    if context_length is not None and tokens > context_length:
        raise _Unfit(
            f"takes {tokens:,} tokens, and the model's context is {context_length:,}", "shorten it, or leave it out"
        )


# ------------------------------------------------------------------------------------------------------ tokenising


def _text_rows(
    name: str, text: str, tokenizer: PreTrainedTokenizerBase, context_length: int | None
) -> tuple[Marked, ...]:
    """Return a text's tokens, in pieces where it is longer than the context; what ends a text is not its own."""
    (encoded,) = encode_texts(tokenizer, [text], longest=context_length)
    counts = _own(encoded, tokenizer)
    if encoded.starts is None or context_length is None:
        return (_marked(encoded, counts),)
    pieces = cut(name, text, encoded.starts, context_length)
    return tuple(_marked(encoded, counts, slice(*piece.tokens)) for piece in pieces)


def _continued(question: str, choices: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, ...]]:
    """Yield the tokens of the question, then those of each choice; a token that reaches over counts as choice."""
    asked = f"Question: {question.strip()}\nAnswer:"
    wholes = encode_texts(tokenizer, [f"{asked} {choice.strip()}" for choice in choices], longest=0)
    ids = [whole.input_ids[_own(whole, tokenizer)].tolist() for whole in wholes]
    begins = [int(np.searchsorted(whole.starts, len(asked))) for whole in wholes if whole.starts is not None]
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*ids, strict=False))
    first = min(*begins, sum(1 for _ in alike))
    yield tuple(ids[0][:first])
    yield from (tuple(one[first:]) for one in ids)


def _own(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Which tokens are the text's own: all but the end of text, which chat models hold unlikely after a paragraph."""
    counts = np.array(encoded.trained)
    counts[-1] &= encoded.input_ids[-1] != tokenizer.eos_token_id
    return counts


def _marked(encoded: Encoded, counts: np.ndarray, part: slice = slice(None)) -> Marked:
    return tuple(encoded.input_ids[part].tolist()), tuple(counts[part].tolist())
