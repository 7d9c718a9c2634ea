"""How rows read, as a recipe says it of a corpus and of a task: formats by name, templates, what the choices are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune.recipe.section import Section

BenchmarkName = Literal[
    "pubmedqa", "medmcqa", "medquad", "mts_dialog", "mmlu", "tatqa", "banking77", "clinc", "legalbench", "spider",
    "gsm8k", "mbpp", "humaneval", "sgd", "hh_rlhf", "self_instruct",
]  # fmt: skip
DataFormat = Literal[
    "auto", "messages", "sharegpt", "alpaca", "prompt_completion", "qa", "multiple_choice", "classification",
    "multi_label", "tags", "preference", "kto", "text", "completion", "template", BenchmarkName,
]  # fmt: skip
AnswerIs = Literal["auto", "letter", "index_0", "index_1", "text"]
Header = Literal["auto"] | bool
FORMAT = (
    "How rows read; `auto` recognises it from the columns and says why. Turns: messages (OpenAI's, tools included) and "
    "sharegpt. One question: alpaca, prompt_completion, qa (with a context) and multiple_choice. Labels: "
    "classification, multi_label and tags (BIO; the answer is a JSON list of entities). Judged answers: preference and "
    "kto, of which sft learns the good ones. Raw text, learned whole: text, and completion for one without a prompt. "
    "template: written by the recipe. A benchmark's name takes its own files, prompt and official split "
    "(docs/benchmarks.md)."
)
COLUMNS = "Which column plays which role, e.g. `{text: body, label: queue}`, where the names are not usual."
TEMPLATE = "Prompt and answer as Jinja, for `format: template`."
SYSTEM = "System prompt put before every conversation that has none of its own."
INSTRUCTION = (
    "Text put before each row's text in the formats classification, multi_label, multiple_choice and tags; the default "
    "names the labels."
)
ANSWER_IS = (
    "How the answer of `format: multiple_choice` names its choice: by letter, by number from 0 or from 1, or by the "
    "choice's text. `auto` decides over all rows and refuses to guess."
)

HEADER = (
    "Whether the first line of a CSV or TSV names its columns; without it they are column_1, column_2 and so on. "
    "`auto` takes it for a row where one of its values occurs again further down in the same column, and says so."
)


class TemplateSection(Section):
    """Prompt and answer written as Jinja over the row's columns, for `format: template`."""

    prompt: str = Field(description="Jinja text of the user's turn, e.g. `Question: {{ question }}`.")
    completion: str = Field(description="Jinja text of the answer that is learned, e.g. `{{ answer }}`.")
