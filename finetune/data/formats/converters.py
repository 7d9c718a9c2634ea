"""Rows of turns, of questions with answers and of raw text made into contents, one function a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from finetune.data.benchmarks import Benchmark
from finetune.data.formats.contents import Convert, answer_of, exchange, system_of, text_of, texts_of, value_of
from finetune.data.formats.conversations import RowRefused, as_text, conversation, is_turns, tools_of, turns_of
from finetune.data.formats.row_templates import compile_templates
from finetune.data.rows import Content, Message
from finetune.errors import FinetuneError
from finetune.recipe.schema import DataSection


def turns_converter(columns: Mapping[str, str], section: DataSection, role: str) -> Convert:
    """Read a whole conversation from the column that plays `role`, with the tools it may call."""

    def convert(fields: Mapping[str, Any]) -> Content:
        turns = turns_of(value_of(fields, columns[role]), f"column {columns[role]!r}")
        system = system_of(fields, columns)
        messages = conversation(turns, section.system if system is None else system)
        tools = tools_of(fields.get(columns["tools"]), f"column {columns['tools']!r}") if "tools" in columns else ()
        return Content(messages=(replace(messages[0], tools=tools), *messages[1:]) if tools else messages)

    return convert


def alpaca_converter(columns: Mapping[str, str], section: DataSection) -> Convert:
    """Read an instruction, its input below it, and the output."""

    def convert(fields: Mapping[str, Any]) -> Content:
        prompt = text_of(fields, columns["instruction"], empty="empty prompt")
        added = fields.get(columns["input"]) if "input" in columns else None
        if added is not None and added != "":
            prompt += "\n\n" + as_text(added, f"column {columns['input']!r}", empty="empty prompt")
        answer = answer_of(fields, columns["output"])
        return Content(messages=exchange(prompt, answer, system_of(fields, columns), section))

    return convert


def pair_converter(columns: Mapping[str, str], section: DataSection) -> Convert:
    """Read a prompt, text or turns, and its completion."""

    def convert(fields: Mapping[str, Any]) -> Content:
        system = system_of(fields, columns)
        given = value_of(fields, columns["prompt"])
        if not is_turns(given):
            prompt = as_text(given, f"column {columns['prompt']!r}", empty="empty prompt")
            return Content(messages=exchange(prompt, answer_of(fields, columns["completion"]), system, section))
        context = turns_of(given, f"column {columns['prompt']!r}")
        turns = [replace(turn, learn=False) for turn in context]
        if is_turns(value_of(fields, columns["completion"])):
            turns += turns_of(fields[columns["completion"]], f"column {columns['completion']!r}")
        else:
            turns.append(Message("assistant", answer_of(fields, columns["completion"])))
        return Content(messages=conversation(turns, section.system if system is None else system))

    return convert


def qa_converter(columns: Mapping[str, str], section: DataSection) -> Convert:
    """Read a question about a context; of several right answers the first is learned, the others are alternatives."""

    def convert(fields: Mapping[str, Any]) -> Content:
        question = text_of(fields, columns["question"], empty="empty prompt")
        parts = texts_of(fields, columns["context"], empty="empty context") if "context" in columns else []
        if "context" in columns and not parts:
            raise RowRefused("empty context", f"column {columns['context']!r} is []")
        first, *others = _answers(fields, columns["answer"])
        prompt = "\n\n".join([*parts, f"Question: {question}"]) if parts else question
        messages = exchange(prompt, first, system_of(fields, columns), section)
        return Content(messages=messages, alternatives=tuple(others))

    return convert


def _answers(fields: Mapping[str, Any], column: str) -> list[str]:
    """Return the right answers, each once; a mapping is SQuAD's, with the answers under `text`."""
    value = value_of(fields, column)
    given = {column: value["text"]} if isinstance(value, dict) and "text" in value else fields
    found = list(dict.fromkeys(texts_of(given, column, empty="empty answer")))
    if not found:
        fix = "write what is to be answered where the context holds no answer"
        raise RowRefused("empty answer", f"column {column!r} holds no answer", fix)
    return found


def raw_converter(columns: Mapping[str, str], role: str) -> Convert:
    """Read raw text, to the byte."""

    def convert(fields: Mapping[str, Any]) -> Content:
        return Content(text=text_of(fields, columns[role], empty="empty text"))

    return convert


def benchmark_converter(benchmark: Benchmark, section: DataSection) -> Convert:
    """Read a row as its benchmark does, after the recipe's system prompt where the benchmark has none."""

    def convert(fields: Mapping[str, Any]) -> Content:
        content = replace(benchmark.content(fields), benchmark=benchmark.name)
        if section.system is None or not content.messages or content.messages[0].role == "system":
            return content
        return replace(content, messages=(Message("system", section.system), *content.messages))

    return convert


def template_converter(columns: Mapping[str, str], section: DataSection, where: str) -> Convert:
    """Fill the recipe's own template.

    Raises:
        FinetuneError: there is no template, or it is no valid Jinja.
    """
    if section.template is None:
        raise FinetuneError("format 'template' needs a template", where=where, fix="add `template:` under data")
    templates = compile_templates(section.template, where=where)

    def convert(fields: Mapping[str, Any]) -> Content:
        prompt, completion = templates.render(fields)
        prompt = as_text(prompt, "the rendered prompt", empty="empty prompt")
        completion = as_text(completion, "the rendered completion", empty="empty answer")
        label = text_of(fields, columns["label"], empty="empty answer") if "label" in columns else None
        return Content(messages=exchange(prompt, completion, None, section), label=label)

    return convert
