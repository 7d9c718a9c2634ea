"""MBPP: short Python tasks with their tests (Austin et al. 2021, arXiv:2108.07732).

The official split goes by number: 1-10 examples for prompts (here in training), 11-510 test, 511-600 validation,
601-974 training. Windows line ends in the programs become plain ones.
"""

from __future__ import annotations

from finetune.data.benchmarks.benchmark import Benchmark, Fields, Split, either, exchange, has
from finetune.data.formats.contents import text_of, texts_of
from finetune.data.rows import Content, Row


def _split(row: Row) -> Split:
    number = int(row.fields["task_id"])
    return "test" if 10 < number <= 510 else "validation" if 510 < number <= 600 else "train"


def _content(fields: Fields) -> Content:
    task = text_of(fields, "text" if "text" in fields else "prompt", empty="empty prompt")
    code = text_of(fields, "code", empty="empty answer").replace("\r\n", "\n")
    tests = "\n".join(texts_of(fields, "test_list", empty="no tests")).replace("\r\n", "\n")
    before = "\n".join(fields.get("test_imports") or [])
    setup = str(fields.get("test_setup_code") or "").replace("\r\n", "\n")
    prompt = f"{task}\nYour Python code should pass these tests:\n{tests}\nAnswer with the code only."
    # The setup uses the solution's classes and runs after it.
    return exchange(prompt, code, before=before, tests=f"{setup}\n{tests}")


MBPP = Benchmark(
    name="mbpp",
    what="short Python tasks, judged by running their tests",
    files={"": ("mbpp.jsonl",)},
    fits=either(has("text", "code", "task_id", "test_list"), has("prompt", "code", "task_id", "test_list")),
    content=_content,
    scorer="tests",
    hub="google-research-datasets/mbpp",
    leak_fields=("challenge_test_list",),
    split=_split,
)
