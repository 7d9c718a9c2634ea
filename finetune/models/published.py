"""Tokenizers as their files say: `as_published(tokenizer, base)` undoes what transformers changes about white space.

transformers 5 builds the tokenizers of the Llama class anew and leaves out the token of a leading space; the base was
trained, and other runtimes run it, by the rules in `tokenizer.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.models.base import Base

_PROBES = (" a", "  a", "a", "a  b", "\n a", "   ", "a ")


def as_published(tokenizer: PreTrainedTokenizerBase, base: Base) -> bool:
    """Give a SentencePiece-like tokenizer the rules of its `tokenizer.json`, where it splits text otherwise.

    Args:
        tokenizer: as transformers loads it; changed in place.
        base: where its files are.

    Returns:
        Whether anything was changed.
    """
    from tokenizers import Tokenizer
    from transformers.utils import cached_file

    file = cached_file(
        base.path,
        "tokenizer.json",
        revision=base.revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        return False
    text = Path(str(file)).read_text(encoding="utf-8")
    written = json.loads(text)
    rules = json.dumps([written.get("normalizer"), written.get("pre_tokenizer")])
    if "Prepend" not in rules and "Metaspace" not in rules:
        return False
    published, own = Tokenizer.from_str(text), tokenizer.backend_tokenizer
    if all(_ids(published, probe) == _ids(own, probe) for probe in _PROBES):
        return False
    own.normalizer = published.normalizer
    own.pre_tokenizer = published.pre_tokenizer
    own.decoder = published.decoder
    return True


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
