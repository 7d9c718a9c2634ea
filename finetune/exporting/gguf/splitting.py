"""How a tokenizer cuts text before it merges, and what llama.cpp calls that: `splitting_name(tokenizer_json)`.

The name is found from the rules in tokenizer.json, so that an extended or retrained vocabulary keeps its name.
llama.cpp's own converter hashes the ids of a sample text, which change with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.errors import FinetuneError

Rule = tuple[str, ...]

# A word with a leading space, a run of digits, punctuation or spaces (GPT-2); ByteLevel's own rule
GPT2: Rule = ("bytes",)
SINGLE_DIGITS: Rule = ("digits",)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+{end}"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*{end}"
)
_CASED_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2: Rule = ("split", _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL)
QWEN35: Rule = (
    "split",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
LLAMA3: Rule = ("split", _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL)
TEKKEN: Rule = ("split", _CASED.replace("{end}", "") + r"|\p{N}" + _CASED_TAIL)
GPT4O: Rule = ("split", _CASED.replace("{end}", _CONTRACTIONS + "?") + r"|\p{N}{1,3}" + _CASED_TAIL)

# llama.cpp's name, for a vocabulary whose merges are always followed, and for one whose whole words come first
# (ignore_merges); llama-vocab.cpp ties the second to the name
NAMES: Mapping[tuple[Rule, ...], tuple[str | None, str | None]] = {
    (GPT2,): ("gpt-2", None),
    (SINGLE_DIGITS, GPT2): ("smollm", None),
    (QWEN2,): ("qwen2", None),
    (QWEN35,): ("qwen35", None),
    (LLAMA3,): ("dbrx", "llama-bpe"),
    (TEKKEN,): (None, "tekken"),
    (GPT4O,): ("gpt-4o", None),
}
META = "▁"


def is_sentencepiece(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer works as SentencePiece's BPE does: spaces as `▁`, unknown characters as bytes."""
    return bool(tokenizer["model"].get("byte_fallback"))


def splitting_name(tokenizer: Mapping[str, Any], *, where: str) -> str:
    """Return llama.cpp's name of the way a byte-level tokenizer cuts text.

    Args:
        tokenizer: the contents of tokenizer.json.
        where: its place, for messages.

    Raises:
        FinetuneError: llama.cpp has no such rules.
    """
    whole_words = bool(tokenizer["model"].get("ignore_merges"))
    rules = tuple(_rules(tokenizer.get("pre_tokenizer")))
    if len(rules) > 1 and rules[-1] == ("encode",):
        rules = rules[:-1]
    name = NAMES.get(rules, (None, None))[whole_words]
    if name is None:
        known = ", ".join(sorted(name for pair in NAMES.values() for name in pair if name))
        raise FinetuneError(
            f"llama.cpp does not know how this tokenizer cuts text: {_shown(tokenizer.get('pre_tokenizer'))}"
            + (" with ignore_merges" if whole_words else ""),
            where=where,
            fix=f"export the merged folder instead; known are the rules of {known}, and SentencePiece's",
        )
    return name


def require_sentencepiece_rules(tokenizer: Mapping[str, Any], *, where: str) -> None:
    """Refuse a SentencePiece-like tokenizer that does more than writing spaces as `▁`.

    Raises:
        FinetuneError: llama.cpp's SentencePiece would cut otherwise.
    """
    for step in _flat(tokenizer.get("normalizer"), "normalizers"):
        plain = step["type"] == "Prepend" and step["prepend"] == META
        if not plain and not (step["type"] == "Replace" and step["content"] == META):
            raise _unlike_sentencepiece(step, where)
    for step in _flat(tokenizer.get("pre_tokenizer"), "pretokenizers"):
        meta = step["type"] == "Metaspace" and step["replacement"] == META and not step.get("split", True)
        # No space is left to split at once the normalizer has replaced them
        spaces = step["type"] == "Split" and step["pattern"] == {"String": " "}
        if not meta and not spaces:
            raise _unlike_sentencepiece(step, where)


def _unlike_sentencepiece(step: Mapping[str, Any], where: str) -> FinetuneError:
    return FinetuneError(
        f"llama.cpp's SentencePiece tokenizer has no step like {_shown(step)}",
        where=where,
        fix="export the merged folder instead",
    )


def _rules(step: Mapping[str, Any] | None) -> list[Rule]:
    """Write a pre-tokenizer in a form that does not depend on the spelling of its rules."""
    found: list[Rule] = []
    for one in _flat(step, "pretokenizers"):
        if one["type"] == "ByteLevel" and not one.get("add_prefix_space"):
            found.append(GPT2 if one.get("use_regex", True) else ("encode",))
        elif one["type"] == "Digits" and one.get("individual_digits"):
            found.append(SINGLE_DIGITS)
        elif one["type"] == "Split" and "Regex" in one["pattern"] and _keeps_all(one):
            found.append(("split", _canonical(one["pattern"]["Regex"])))
        else:
            found.append(("unknown", str(one["type"])))
    return found


def _keeps_all(split: Mapping[str, Any]) -> bool:
    """Whether the matches become the pieces: the rules match every character, so nothing lies between."""
    return (split["behavior"], bool(split["invert"])) in {("Isolated", False), ("Removed", True)}


def _canonical(regex: str) -> str:
    """Return one spelling for patterns that match the same (what follows a possessive quantifier never backtracks)."""
    regex = regex.replace("'(?i:[sdmt]|ll|ve|re)", _CONTRACTIONS).replace("?+", "?").replace("++", "+")
    return regex.replace(r"|\s*[\r\n]|", r"|\s*[\r\n]+|")


def _flat(step: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [one for part in step[inner] for one in _flat(part, inner)]
    return [step]


def _shown(step: Mapping[str, Any] | None) -> str:
    text = str(dict(step)) if step else "nothing before it merges"
    return text if len(text) <= 300 else text[:300] + " ..."
