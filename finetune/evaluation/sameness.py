"""Proof that contestants were asked the same in the same way: `sameness(results, circumstances)` refuses what was not.

`circumstances_of(runtime, ...)` says how a runtime answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, Problem, some
from finetune.evaluation.compare import BASE, TUNED, TaskResult
from finetune.runtimes import LlamaCppRuntime, Runtime, TransformersRuntime
from finetune.runtimes.transformers_runtime import BATCH_ROWS, BATCH_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What must be equal for all who answer the run's own tokens, and for base and tuned
SHARED = ("template", "tokenizer")
PAIRED = (*SHARED, "dtype", "batch", "versions")
WORDS = {
    "template": "chat template",
    "tokenizer": "tokenizer",
    "dtype": "number format",
    "batch": "batches",
    "versions": "versions of the libraries",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """How a contestant answers; values that are equal read equal.

    Attributes:
        template: SHA-256 of the chat template; empty where texts have none.
        tokenizer: SHA-256 of the tokenizer; empty where it is not known.
        dtype: number format of the weights.
        batch: how much is computed at once.
        versions: of the libraries that answer, by name.
        own_words: it was given conversations, which it writes in its own template and tokens.
    """

    template: str
    tokenizer: str
    dtype: str
    batch: str
    versions: Mapping[str, str]
    own_words: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sameness:
    """What was the same, by contestant; hashes are SHA-256. `versions` are those that base and tuned have."""

    items: str
    prompts: dict[str, str]
    template: dict[str, str]
    tokenizer: dict[str, str]
    dtype: dict[str, str]
    batch: dict[str, str]
    versions: dict[str, str]
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """Return it in values of strict JSON."""
        return {key: getattr(self, key) for key in self.__slots__}


def circumstances_of(
    runtime: Runtime, tokenizer: PreTrainedTokenizerBase, versions: Mapping[str, str], *, own_words: bool = False
) -> Circumstances:
    """Say how a model on this machine answers.

    Args:
        runtime: who answers.
        tokenizer: what writes its prompts.
        versions: of the libraries.
        own_words: the tokenizer is the contestant's own, not that of the run.
    """
    template = str(tokenizer.get_chat_template()) if tokenizer.chat_template else ""
    dtype, batch = "", ""
    if isinstance(runtime, TransformersRuntime):
        kind = runtime.device.type
        dtype = str(runtime.model.dtype).removeprefix("torch.")
        batch = f"{BATCH_ROWS[kind]} rows, {BATCH_TOKENS[kind]:,} tokens at most, on {kind}"
    elif isinstance(runtime, LlamaCppRuntime):
        dtype, batch = runtime.facts.quantization or runtime.facts.description, "one row at a time, in llama.cpp"
    return Circumstances(
        template=_hash([template]) if template else "",
        tokenizer=tokenizer_hash(tokenizer),
        dtype=dtype,
        batch=batch,
        versions=dict(versions),
        own_words=own_words,
    )


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of what turns text into tokens: the whole tokenizer, or of slow ones the vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return _hash([backend.to_str()])
    return _hash(f"{token}\0{number}" for token, number in sorted(tokenizer.get_vocab().items()))


def sameness(results: Sequence[TaskResult], circumstances: Mapping[str, Circumstances]) -> Sameness:
    """Prove that all contestants were asked the same.

    Items and prompts must be equal for all; template and tokenizer for all who answer the run's own tokens; number
    format, batches and versions for base and tuned, so that nothing but the tuning tells them apart. A contestant that
    writes conversations in its own words must have been given the same conversations. What else differs is said.

    Args:
        results: every task.
        circumstances: of everyone who answered.

    Raises:
        FinetuneError: each way in which a contestant was not asked the same.
    """
    problems = [problem for name in circumstances if name != BASE for problem in _unequal(name, results, circumstances)]
    if problems:
        raise FinetuneError.of(problems)
    by_name: dict[str, dict[str, str]] = {
        key: {name: getattr(one, key) for name, one in circumstances.items() if getattr(one, key)}
        for key in PAIRED
        if key != "versions"
    }
    return Sameness(
        items=_hash(_asked(results, None)),
        prompts={name: _hash(_asked(_with(results, name), name)) for name in circumstances},
        versions=dict(circumstances[BASE].versions),
        sentence=_sentence(results, circumstances),
        **by_name,
    )


# -------------------------------------------------------------------------------------------------------- comparing


def _with(results: Sequence[TaskResult], name: str) -> list[TaskResult]:
    """The tasks that a contestant took part in."""
    return [result for result in results if name in result.contestants]


def _asked(results: Iterable[TaskResult], name: str | None) -> list[str]:
    """Say of each item of each task what a contestant was asked; of nobody, what the item is."""
    return [
        f"{result.task}\0{item.id}\0"
        + (f"{item.reference}\0{item.asked_hash}" if name is None else result.contestants[name][place].prompt_hash)
        for result in results
        for place, item in enumerate(result.items)
    ]


def _unequal(name: str, results: Sequence[TaskResult], circumstances: Mapping[str, Circumstances]) -> Sequence[Problem]:
    """Return what keeps a contestant from being compared with base."""
    own, base = circumstances[name], circumstances[BASE]
    found = list(_other_items(name, results, own_words=own.own_words))
    keys = () if own.own_words else PAIRED if name == TUNED else SHARED
    for key in keys:
        mine, its = getattr(own, key), getattr(base, key)
        if mine != its:
            found.append(
                Problem(
                    "evaluation",
                    f"{name!r} and {BASE!r} differ in their {WORDS[key]}: {_difference(its, mine)}",
                    "let both answer again in one go" if name == TUNED else f"leave {name!r} out of the comparison",
                )
            )
    return found


def _other_items(name: str, results: Sequence[TaskResult], *, own_words: bool) -> Iterable[Problem]:
    for result in _with(results, name):
        answers, where = result.contestants[name], f"evaluation of {result.task}"
        if [given.item_id for given in answers] != [item.id for item in result.items]:
            yield Problem(where, f"{name!r} did not answer the same items as {BASE!r}", "let all answer again")
            continue
        wanted = [
            item.asked_hash if own_words else given.prompt_hash
            for item, given in zip(result.items, result.contestants[BASE], strict=True)
        ]
        other = [given.item_id for given, asked in zip(answers, wanted, strict=True) if given.prompt_hash != asked]
        if other:
            what = "conversations" if own_words else "prompts"
            yield Problem(
                where,
                f"{name!r} was given other {what} than {BASE!r} on {len(other):,} of {result.n:,} items: "
                f"{some(map(repr, other))}",
                "let all answer again, with one chat template and one system prompt",
            )


def _difference(base: Any, own: Any) -> str:
    if isinstance(base, Mapping):
        names = sorted(name for name in base.keys() | own.keys() if base.get(name) != own.get(name))
        return some(f"{name} {base.get(name, 'none')} and {own.get(name, 'none')}" for name in names)
    return f"{_short(base)} and {_short(own)}"


def _short(value: str) -> str:
    return f"SHA-256 {value[:12]}" if len(value) == 64 else value or "none"


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


# ------------------------------------------------------------------------------------------------------------ words


def _sentence(results: Sequence[TaskResult], circumstances: Mapping[str, Circumstances]) -> str:
    count = sum(result.n for result in results)
    base = circumstances[BASE]
    native = [name for name, one in circumstances.items() if not one.own_words]
    alike = [name for name in native if all(getattr(circumstances[name], key) == getattr(base, key) for key in PAIRED)]
    kept = [WORDS[key] for key in PAIRED if key != "dtype" and getattr(base, key)]
    said = [
        f"{_names(alike)} answered the same prompts of the same {count:,} items (SHA-256 "
        f"{_hash(_asked(results, None))[:12]}), with equal {_names([*kept, f'number format ({base.dtype})'])}"
    ]
    said += [
        f"{name} got the same prompts and differs in {_names(_others(circumstances[name], base))}"
        for name in native
        if name not in alike
    ]
    own = [name for name, one in circumstances.items() if one.own_words]
    if own:
        said.append(f"{_names(own)} got the same conversations, written in its own template and tokens")
    return "; ".join(said) + "."


def _others(own: Circumstances, base: Circumstances) -> list[str]:
    pairs = ((key, getattr(base, key), getattr(own, key)) for key in PAIRED)
    return [f"{WORDS[key]} ({_difference(its, mine)})" for key, its, mine in pairs if its != mine]


def _names(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
