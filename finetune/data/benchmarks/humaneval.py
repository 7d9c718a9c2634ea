"""HumanEval: Python functions to be completed, with hidden tests (Chen et al. 2021, arXiv:2107.03374); all are test."""

from __future__ import annotations

from finetune.data.benchmarks.benchmark import Benchmark, Fields, exchange, has
from finetune.data.formats.contents import text_of
from finetune.data.rows import Content


def _content(fields: Fields) -> Content:
    start = text_of(fields, "prompt", empty="empty prompt")
    name = text_of(fields, "entry_point", empty="no function to test")
    solution = start + text_of(fields, "canonical_solution", empty="empty answer")
    tests = f"{text_of(fields, 'test', empty='no tests')}\ncheck({name})\n"
    prompt = f"Complete this Python function. Answer with the whole function and nothing else.\n\n{start}"
    # An answer may be the whole function or its body: both run after the start of the function.
    return exchange(prompt, solution, before=start, tests=tests)


HUMANEVAL = Benchmark(
    name="humaneval",
    what="Python functions to be completed, judged by running hidden tests",
    files={"test": ("HumanEval.jsonl.gz", "HumanEval.jsonl")},
    fits=has("task_id", "prompt", "entry_point", "canonical_solution", "test"),
    content=_content,
    scorer="tests",
    hub="openai/openai_humaneval",
)
