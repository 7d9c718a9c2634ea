"""Does llama.cpp have to put a space before text, as SentencePiece does? `space_prefix(tokenizer)` tries both."""

from __future__ import annotations

from typing import Any

from finetune.exporting.gguf.splitting import META

PLAIN = ("Hello there.", "1 and 2")


def space_prefix(tokenizer: Any) -> bool:
    """Return the setting with which llama.cpp's SentencePiece gives the tokenizer's own ids on chats and plain text.

    llama.cpp puts the space before the text and after each special token, or nowhere; a tokenizer of transformers may
    do it at the very beginning only. So both are imitated on conversations in the tokenizer's own template, and the
    one that errs less is taken; without a template, on plain text.
    """
    texts = _chats(tokenizer) or PLAIN
    errors = {
        setting: sum(_imitated(tokenizer, text, setting) != _own(tokenizer, text) for text in texts)
        for setting in (False, True)
    }
    return errors[True] < errors[False]


def reads_plain_text(tokenizer: Any, prefix: bool) -> bool:
    """Whether text without a template has the tokenizer's own ids in llama.cpp with this setting."""
    return all(_imitated(tokenizer, text, prefix) == _own(tokenizer, text) for text in PLAIN)


def _chats(tokenizer: Any) -> list[str]:
    from jinja2 import TemplateError

    turns = [
        {"role": "user", "content": "Hello there."},
        {"role": "assistant", "content": "1 and 2"},
        {"role": "user", "content": "Thank you."},
    ]
    found = []
    for count in (1, 3):
        try:
            found.append(tokenizer.apply_chat_template(turns[:count], tokenize=False, add_generation_prompt=True))
        except (TemplateError, ValueError, TypeError):
            continue
    return found


def _own(tokenizer: Any, text: str) -> list[str]:
    return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens)


def _imitated(tokenizer: Any, text: str, prefix: bool) -> list[str]:
    """Cut a text as llama.cpp's llm_tokenizer_spm does: specials first, each part between them merged by itself."""
    backend = tokenizer.backend_tokenizer
    added = sorted((one.content for one in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    found: list[str] = []
    after_special = True
    while text:
        position, special = min(((text.find(one), one) for one in added if one in text), default=(len(text), ""))
        if position:
            part = (" " if prefix and after_special else "") + text[:position]
            found += [token.value for token in backend.model.tokenize(part.replace(" ", META))]
            after_special = False
        if special:
            found.append(special)
            after_special = True
        text = text[position + len(special) :]
    return found
