"""Find the marks of chat templates inside the texts: the base's own template would write them a second time."""

from __future__ import annotations

import re
from collections import Counter

from finetune.data.checks.findings import Finding, Places, counted, excerpt, rows, some
from finetune.data.checks.material import Material, texts_of

_MARKS = re.compile(
    r"<\|(?:im_start|im_end|im_sep|system|user|assistant|end|eot_id|eom_id|begin_of_text|end_of_text|endoftext"
    r"|start_header_id|end_header_id|start_of_role|end_of_role|end_of_turn\|?)\|?>"
    r"|\[/?INST\]|<</?SYS>>|\[/?SYSTEM_PROMPT\]|<start_of_turn>|<end_of_turn>|<\uff5c(?:User|Assistant)\uff5c>"
    r"|</s>\s*(?:\Z|<s>)"
    r"|^### ?(?:Instruction|Input|Response|Human|Assistant|User|System) ?:"
    r"|^(?:Human|Assistant|USER|ASSISTANT|GPT4 Correct User|GPT4 Correct Assistant): ",
    re.MULTILINE,
)
# A script of a play has such a line too; a template has one for each side
_PLAIN = {"Human: ": "Assistant: ", "Assistant: ": "Human: ", "USER: ": "ASSISTANT: ", "ASSISTANT: ": "USER: "}


def marks_of(text: str) -> list[tuple[str, int]]:
    """Return the marks of chat templates that a text holds, with their places.

    Names of speakers count as such only where both sides have one.
    """
    if "<" not in text and "[" not in text and ":" not in text:
        return []
    found = [(mark.group(), mark.start()) for mark in _MARKS.finditer(text)]
    names = {mark for mark, _ in found}
    return [(mark.strip(), place) for mark, place in found if mark not in _PLAIN or _PLAIN[mark] in names]


def check_chat_markers(material: Material) -> list[Finding]:
    """Find rows whose texts hold marks of a chat template, and say whether it is the base's own."""
    by_mark: Counter[str] = Counter()
    own, other = Places(), Places()
    for example in material.everything():
        marks = [(mark, place, text) for text in texts_of(example) for mark, place in marks_of(text)]
        if marks:
            mark, place, text = marks[0]
            by_mark.update(list(dict.fromkeys(mark for mark, _, _ in marks)))
            (own if mark in material.template else other).add(example.origin, excerpt(text, place, place + 40))
    count = own.count + other.count
    if not count:
        return []
    which = counted(by_mark.most_common(4))
    what = f"{rows(count)} with marks of a chat template inside their texts ({which})"
    if material.template:
        what += "; the base's template writes " + ("the same ones" if own.count else "others")
    return [
        Finding(
            kind="chat_markers",
            severity="warning",
            count=count,
            what=what,
            examples=some([*own.examples, *other.examples]),
            fix="give turns as turns (format messages) and leave the marks to the template; inside texts they are read "
            "as plain words",
        )
    ]
