"""Self-Instruct: 175 seed tasks, and 252 tasks of users as test (Wang et al. 2023, arXiv:2212.10560)."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.data.benchmarks.benchmark import Benchmark, Fields, exchange, has
from finetune.data.formats.contents import text_of
from finetune.data.rows import Content, Rejected, Row


def _rows(record: Row) -> Iterator[Row | Rejected]:
    """Make a row of each instance of a task."""
    instances = record.fields["instances"]
    if isinstance(instances, dict):  # the hub's copy: lists side by side
        pairs = zip(instances["input"], instances["output"], strict=True)
        instances = [{"input": given, "output": wanted} for given, wanted in pairs]
    if not instances:
        yield Rejected(record.origin, "no instances", "the task has no instances")
    task = {"task": record.fields["id"], "instruction": record.fields["instruction"]}
    for number, instance in enumerate(instances, 1):
        yield Row(record.origin, {**task, **instance}, key=f"{record.fields['id']}:{number}")


def _content(fields: Fields) -> Content:
    prompt = text_of(fields, "instruction", empty="empty prompt")
    if fields.get("input"):
        prompt += "\n\n" + text_of(fields, "input", empty="empty prompt")
    return exchange(prompt, text_of(fields, "output", empty="empty answer"))


SELF_INSTRUCT = Benchmark(
    name="self_instruct",
    what="instructions with instances",
    files={"train": ("seed_tasks.jsonl",), "test": ("user_oriented_instructions.jsonl",)},
    fits=has("id", "instruction", "instances"),
    content=_content,
    scorer="token_f1",
    hub="yizhongw/self_instruct",
    group="task",
    rows=_rows,
)
