"""A tokenizer as GGUF metadata: `read_vocabulary(folder, ...)` reads, `write_vocabulary(writer, ...)` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError
from finetune.exporting.gguf.prefix import reads_plain_text, space_prefix
from finetune.exporting.gguf.splitting import META, is_sentencepiece, require_sentencepiece_rules, splitting_name

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# Texts by which llama.cpp takes a token for the end of an answer, whatever the file says (llama-vocab.cpp)
KNOWN_ENDS = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>"),
        *("<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>"),
    }
)
# What a file without scores would hold for tokens that no merge makes; llama.cpp never joins pieces into them
UNMERGED = -1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What a GGUF file says about a tokenizer; ids of special tokens by llama.cpp's names for them."""

    model: str
    splitting: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    ids: dict[str, int]
    add_bos: bool
    add_eos: bool
    space_prefix: bool | None
    template: str | list[dict[str, str]] | None
    strips_right: bool
    notes: tuple[str, ...]


def read_vocabulary(folder: Path, *, size: int, stop: Sequence[int], bos: int | None) -> Vocabulary:
    """Read the tokenizer of a model folder.

    Args:
        folder: with tokenizer.json.
        size: rows of the model's embedding; more than the tokenizer has are padded.
        stop: tokens that end an answer.
        bos: the model's begin-of-text token, where the tokenizer names none.

    Raises:
        FinetuneError: no fast tokenizer, more tokens than the model has, or rules that llama.cpp does not have.
    """
    tokenizer = _load(folder)
    where = str(folder / "tokenizer.json")
    # The effective rules: what is in the file may be changed by the class that loads it
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    if rules["model"]["type"] != "BPE":
        raise FinetuneError(
            f"a tokenizer of type {rules['model']['type']!r} cannot be written as GGUF",
            where=where,
            fix="supported are byte-level BPE and SentencePiece's BPE; export the merged folder instead",
        )
    sentencepiece = is_sentencepiece(rules)
    if sentencepiece:
        require_sentencepiece_rules(rules, where=where)
    else:
        _require_plain_bpe(rules, where)
    tokens, types = _tokens(rules, size, where)
    first, last = _added(tokenizer)
    prefix = space_prefix(tokenizer) if sentencepiece else None
    return Vocabulary(
        model="llama" if sentencepiece else "gpt2",
        splitting="default" if sentencepiece else splitting_name(rules, where=where),
        tokens=tokens,
        types=types,
        scores=_scores(rules, tokens) if sentencepiece else None,
        merges=None if sentencepiece else [" ".join(pair) for pair in _merges(rules)],
        ids=_special_ids(tokenizer, stop, bos, size, where),
        add_bos=first,
        add_eos=last,
        space_prefix=prefix,
        template=_template(tokenizer.chat_template),
        strips_right=any(one["rstrip"] for one in rules["added_tokens"]),
        notes=(*_notes(rules), *_prefix_note(tokenizer, prefix)),
    )


def write_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    """Write a vocabulary with gguf's `GGUFWriter`."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.splitting)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    for name, token in vocabulary.ids.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.template is not None:
        writer.add_chat_template(vocabulary.template)


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetuneError(
            f"the tokenizer cannot be loaded: {str(error).splitlines()[0]}",
            where=str(folder),
            fix="the folder needs a tokenizer.json",
        ) from error
    if not tokenizer.is_fast:
        raise FinetuneError(
            f"the tokenizer {type(tokenizer).__name__} has no rules that could be written as GGUF",
            where=str(folder),
            fix="use a base with a tokenizer.json",
        )
    return tokenizer


def _require_plain_bpe(rules: Mapping[str, Any], where: str) -> None:
    model, normalizer = rules["model"], rules.get("normalizer")
    normal = normalizer["type"] if normalizer else "NFC"
    marked = [name for name in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if marked or normal != "NFC":
        said = f"{marked[0]} {model[marked[0]]!r}" if marked else f"the normalizer {normal!r}"
        raise FinetuneError(
            f"llama.cpp's byte-level tokenizer has nothing like {said}",
            where=where,
            fix="export the merged folder instead",
        )


def _tokens(rules: Mapping[str, Any], size: int, where: str) -> tuple[list[str], list[int]]:
    """Return the text and the type of every row of the embedding."""
    from gguf import TokenType

    unknown = rules["model"].get("unk_token")
    found = {number: (text, TokenType.NORMAL) for text, number in rules["model"]["vocab"].items()}
    if is_sentencepiece(rules):
        found = {
            number: (text, TokenType.BYTE if BYTE.fullmatch(text) else kind) for number, (text, kind) in found.items()
        }
    for one in rules["added_tokens"]:
        kind = TokenType.CONTROL if one["special"] else TokenType.USER_DEFINED
        # llama.cpp looks for these in the text as it was before spaces become ▁
        text = one["content"] if one["special"] else one["content"].replace(META, " ")
        found[one["id"]] = (text, TokenType.UNKNOWN if text == unknown else kind)
    if max(found) >= size:
        raise FinetuneError(
            f"the tokenizer has tokens up to number {max(found)}, the model only {size} rows",
            where=where,
            fix="resize the model's embedding (model.resize_token_embeddings) and export again",
        )
    rows = [found.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(size)]
    return [text for text, _ in rows], [int(kind) for _, kind in rows]


def _merges(rules: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair)  # type: ignore[misc]
        for pair in rules["model"]["merges"]
    ]


def _scores(rules: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    """Rebuild SentencePiece's scores: the token that is merged first has the highest, 0, the next -1 and so on."""
    rank: dict[str, float] = {}
    for left, right in _merges(rules):
        rank.setdefault(left + right, -float(len(rank)))
    return [rank.get(text, UNMERGED) for text in tokens]


def _special_ids(tokenizer: Any, stop: Sequence[int], bos: int | None, size: int, where: str) -> dict[str, int]:
    names = {"bos": "bos", "eos": "eos", "unk": "unk", "pad": "pad", "sep": "sep", "mask": "mask"}
    found = {name: getattr(tokenizer, f"{theirs}_token_id", None) for name, theirs in names.items()}
    if found["bos"] is None and bos is not None and bos < size:
        found["bos"] = bos
    ids = {name: int(token) for name, token in found.items() if token is not None}
    if "eos" not in ids and stop:
        ids["eos"] = stop[0]
    # llama.cpp has two more places for tokens that end an answer, and takes some by their text
    others = [token for token in stop if token != ids.get("eos")]
    unknown = [token for token in others if tokenizer.convert_ids_to_tokens(token) not in KNOWN_ENDS]
    if len(unknown) > 2:
        raise FinetuneError(
            f"GGUF has room for three tokens that end an answer, this model has {len(unknown) + 1}",
            where=where,
            fix="leave fewer in eos_token_id of generation_config.json",
        )
    places = unknown + [token for token in others if token not in unknown]
    return ids | dict(zip(("eot", "eom"), places, strict=False))


def _added(tokenizer: Any) -> tuple[bool, bool]:
    """Return whether llama.cpp shall put BOS before and EOS after a prompt.

    With a chat template the prompt is what the template writes: nothing comes before it that it does not begin with,
    nothing after it. Where the template writes BOS itself, llama.cpp leaves its own out.
    """
    plain = tokenizer("a").input_ids
    first = bool(plain) and plain[0] == tokenizer.bos_token_id
    last = bool(plain) and plain[-1] == tokenizer.eos_token_id
    if not tokenizer.chat_template:
        return first, last
    opening = tokenizer.bos_token or ""
    return first and bool(opening) and rendered(tokenizer).startswith(opening), False


def rendered(tokenizer: Any) -> str:
    """Return a short conversation as the tokenizer's template writes it; empty where it cannot."""
    from jinja2 import TemplateError

    turns = [{"role": "user", "content": "Hello there."}]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except (TemplateError, ValueError, TypeError):
        return ""


def _template(template: Any) -> str | list[dict[str, str]] | None:
    if isinstance(template, Mapping):
        return [{"name": name, "template": text} for name, text in template.items()]
    return template or None


def _notes(rules: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    if rules.get("normalizer") and rules["normalizer"]["type"] == "NFC":
        found.append("llama.cpp does not compose characters (NFC): text with separate accents has other tokens there")
    stripping = [one["content"] for one in rules["added_tokens"] if one["lstrip"] or one["single_word"]]
    if stripping:
        found.append(f"llama.cpp keeps the space before {stripping[0]!r}, the tokenizer drops it")
    return tuple(found)


def _prefix_note(tokenizer: Any, prefix: bool | None) -> tuple[str, ...]:
    if prefix is None or reads_plain_text(tokenizer, prefix):
        return ()
    return ("chats have the tokenizer's own tokens in llama.cpp, text without a template begins otherwise there",)
