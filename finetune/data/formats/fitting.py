"""Which formats the columns of a corpus fit, and why the others do not: `fit_formats(survey_columns(rows), ...)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from finetune.data.formats.choices import CHOICE_ROLES, choice_sets, fit_choices
from finetune.data.formats.labelled import JUDGEMENT_COLUMNS, fit_classification, fit_multi_label
from finetune.data.formats.preferences import fit_kto, fit_preference
from finetune.data.formats.survey import SHORT, Fit, Survey, columns_words, listed, named, own_system
from finetune.data.formats.tags import fit_tags

ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "template": ((), ("label", "id")),
    "messages": (("messages",), ("system", "tools", "id")),
    "sharegpt": (("conversations",), ("system", "tools", "id")),
    "preference": (("chosen", "rejected"), ("prompt", "system", "id")),
    "kto": (("prompt", "completion", "label"), ("system", "id")),
    "alpaca": (("instruction", "output"), ("input", "system", "id")),
    "multiple_choice": (("question", "answer"), ("choices", *CHOICE_ROLES, "context", "system", "id")),
    "qa": (("question", "answer"), ("context", "system", "id")),
    "prompt_completion": (("prompt", "completion"), ("system", "id")),
    "tags": (("tokens", "tags"), ("id",)),
    "multi_label": (("text", "labels"), ("id",)),
    "classification": (("text", "label"), ("id",)),
    "text": (("text",), ("id",)),
    "completion": (("completion",), ("id",)),
}
"""Format -> roles it must have, roles it may have; in the order in which `auto` prefers them."""

_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("input", "output"),
    ("query", "response"),
    ("query", "answer"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("source", "target"),
    ("user", "assistant"),
)
_RAW_TEXTS = ("text", "content", "document")
# What stands beside the text of a document that was read from a file of its own
_LINEAGE = ("document", "title", "kind")
_COMPLETIONS = ("completion", "response", "output", "answer")
_CONTEXTS = ("context", "contexts", "passage", "article", "paragraph", "background", "evidence")
_CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")


def fit_formats(survey: Survey, given: Mapping[str, str], wanted: str) -> dict[str, Fit | str]:
    """Try every format in order of preference; a text in place of a Fit says why it does not fit.

    Args:
        survey: the columns.
        given: role -> column as the recipe says; it wins over names and contents.
        wanted: a format's name, or `auto`.
    """
    outcomes: dict[str, Fit | str] = {}
    for name, (required, optional) in ROLES.items():
        if name == "template" and wanted != "template":
            continue
        strange = [role for role in given if role not in required + optional]
        if wanted not in ("auto", name):
            outcomes[name] = "another format is given"
        elif strange:
            outcomes[name] = f"it has no role {strange[0]!r}"
        else:
            outcomes[name] = _FITTERS[name](survey, given, wanted == name)
    return outcomes


def _fit_template(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    return Fit(dict(given), "prompt and answer are written by the recipe's template")


def _fit_turns(kind: Literal["messages", "sharegpt"]) -> Callable[[Survey, Mapping[str, str], bool], Fit | str]:
    role = ROLES[kind][0][0]
    keys = "role and content" if kind == "messages" else "from and value"

    def holds(survey: Survey, name: str) -> bool:
        shape = survey[name].turns
        return bool(shape) and (shape == "role and content") == (kind == "messages")

    def fit(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
        halves = named(survey, ("prompt", "completion"))
        found = [name for name in survey if holds(survey, name) and name not in halves]
        found = [given[role]] if role in given else found
        if role in given and not asked and not holds(survey, given[role]):
            return f"column {given[role]!r} does not hold turns with {keys}"
        if not found:
            return f"no column holds turns with {keys}"
        if len(found) > 1:
            found = [name for name in found if name in named(survey, _CONVERSATIONS)] or found
        if len(found) > 1:
            return f"several columns hold turns: {listed(found)}"
        tools = [name for name in named(survey, ("tools", "functions")) if name != found[0]]
        columns = own_system(survey) | ({"tools": tools[0]} if tools else {}) | dict(given) | {role: found[0]}
        return Fit(columns, f"column {found[0]!r} holds turns with {survey[found[0]].turns or keys}")

    return fit


def _fit_alpaca(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    columns = {role: name for role in ("instruction", "input", "output", "system") for name in named(survey, [role])}
    columns |= given
    missing = [role for role in ("instruction", "output") if role not in columns]
    if missing:
        return f"no column {missing[0]!r}"
    return Fit(columns, columns_words(columns[role] for role in ("instruction", "input", "output") if role in columns))


def _fit_pair(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    prompts = [given["prompt"]] if "prompt" in given else []
    completions = [given["completion"]] if "completion" in given else []
    pairs = {
        (prompt, completion)
        for first, second in _PAIRS
        for prompt in prompts or named(survey, [first])
        for completion in completions or named(survey, [second])
        if prompt != completion
    }
    if not pairs:
        return "no columns that are usually named so"
    if len(pairs) > 1:
        return "several pairs: " + "; ".join(f"{first!r} and {second!r}" for first, second in sorted(pairs))
    choices = choice_sets(survey)
    if len(choices) > 1 and not asked:
        return "several may be choices that the prompt leaves out: " + "; ".join(
            listed(one.values()) for one in choices
        )
    prompt, completion = pairs.pop()
    columns = own_system(survey) | dict(given) | {"prompt": prompt, "completion": completion}
    return Fit(columns, columns_words([prompt, completion]))


def _fit_qa(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    columns = own_system(survey) | dict(given)
    usual = {"question": ("question", "query"), "answer": ("answer", "answers", "response"), "context": _CONTEXTS}
    for role, names in usual.items():
        free = [name for name in named(survey, names) if name not in columns.values()]
        if role not in columns and free:
            columns[role] = free[0]
        if role not in columns and role != "context":
            return f"no column that is usually named as {'a question' if role == 'question' else 'an answer'}"
    answers = survey[columns["answer"]]
    several = answers.mostly(answers.lists) or answers.mostly(answers.mappings)
    if not asked and "context" not in columns and not several:
        return "no column that is usually named as a context"
    return Fit(columns, columns_words(columns[role] for role in usual if role in columns))


def _fit_text(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    found = [given["text"]] if "text" in given else named(survey, _RAW_TEXTS)
    if not found:
        return "no column that is usually named so"
    if not asked and "text" not in given:
        answers = named(survey, [*JUDGEMENT_COLUMNS, *(second for _, second in _PAIRS)])
        long = [name for name, column in survey.items() if column.texts and column.mean_length > SHORT]
        known = {found[0], *(_LINEAGE if set(_LINEAGE) < survey.keys() else ())}
        others = [name for name in dict.fromkeys([*answers, *long]) if name not in known]
        if others:
            return f"beside {found[0]!r}, column {others[0]!r} may be what is to be learned"
    return Fit(dict(given) | {"text": found[0]}, f"column {found[0]!r} holds raw text")


def _fit_completion(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    found = [given["completion"]] if "completion" in given else named(survey, _COMPLETIONS)
    if not found:
        return "no column that is usually named so"
    long = [name for name, column in survey.items() if column.turns or (column.texts and column.mean_length > SHORT)]
    asking = named(survey, [*(first for first, _ in _PAIRS), *JUDGEMENT_COLUMNS, *_RAW_TEXTS, *_COMPLETIONS])
    others = [name for name in dict.fromkeys([*asking, *long]) if name != found[0]]
    if others and not asked and "completion" not in given:
        return f"beside {found[0]!r}, column {others[0]!r} may be its prompt"
    return Fit(dict(given) | {"completion": found[0]}, f"column {found[0]!r} holds completions without a prompt")


_FITTERS: dict[str, Callable[[Survey, Mapping[str, str], bool], Fit | str]] = {
    "template": _fit_template,
    "messages": _fit_turns("messages"),
    "sharegpt": _fit_turns("sharegpt"),
    "preference": fit_preference,
    "kto": fit_kto,
    "alpaca": _fit_alpaca,
    "multiple_choice": fit_choices,
    "qa": _fit_qa,
    "prompt_completion": _fit_pair,
    "tags": fit_tags,
    "multi_label": fit_multi_label,
    "classification": fit_classification,
    "text": _fit_text,
    "completion": _fit_completion,
}
