"""Recognising: every format found or refused with its reasons. Converting: texts to the byte, bad rows by reason."""

import os
from pathlib import Path
from typing import Any

import pytest

from finetune.data.formats.examples import labels, to_examples
from finetune.data.formats.labelled import default_instruction
from finetune.data.formats.recognise import Recognition, recognise
from finetune.data.reading.sources import read_rows
from finetune.data.rows import Example, Message, Origin, Rejected, Row
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import DataSection

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "datasets"


def shared(name: str) -> str:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no data set {name} under FINETUNE_SHARED")
    return str(path)


def rows(*fields: dict[str, Any], file: str = "dir/train.jsonl") -> list[Row]:
    return [Row(Origin(file, line), each) for line, each in enumerate(fields, 1)]


def section(**settings: Any) -> DataSection:
    return DataSection.model_validate({"train": "train.jsonl"} | settings)


def convert(*fields: dict[str, Any], **settings: Any) -> tuple[list[Example], list[Rejected]]:
    found = rows(*fields)
    data = section(**settings)
    examples, rejected = to_examples(found, recognise(found, data), data)
    return list(examples), rejected


def refused(*fields: dict[str, Any], **settings: Any) -> tuple[Problem, ...]:
    with pytest.raises(FinetuneError) as caught:
        convert(*fields, **settings)
    return caught.value.problems


def turns(example: Example) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in example.messages]


def said(rejected: list[Rejected]) -> list[tuple[int, str, str]]:
    return [(bad.origin.line, bad.reason, bad.detail) for bad in rejected]


def chat(*contents: Any, first: str = "user") -> list[dict[str, Any]]:
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]


def pair(prompt: str = "prompt", completion: str = "completion") -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def answered(**keys: Any) -> list[dict[str, Any]]:
    return [*chat("a"), {"role": "assistant", "content": "b"} | keys]


CHAT = {"messages": chat("hi", "ho")}
TICKETS = [{"body": f"text {n}", "queue": "ab"[n % 2], "n": n} for n in range(6)]


# -------------------------------------------------------------------------------------------------- recognition


@pytest.mark.parametrize(
    ("fields", "name", "columns", "why"),
    [
        (CHAT, "messages", {"messages": "messages"}, "column 'messages' holds turns with role and content"),
        ({"conversations": chat("a", "b"), "id": "1"}, "messages", {"messages": "conversations"}, None),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
            "sharegpt",
            {"conversations": "conversations", "system": "system"},
            "column 'conversations' holds turns with from and value",
        ),
        (
            {"instruction": "a", "input": "", "output": "b"},
            "alpaca",
            {"instruction": "instruction", "input": "input", "output": "output"},
            "columns 'instruction', 'input' and 'output'",
        ),
        ({"prompt": "a", "completion": "b"}, "prompt_completion", pair(), None),
        ({"Question": "a", "Answer": "b", "topic": "c"}, "prompt_completion", pair("Question", "Answer"), None),
        ({"input": "a", "output": "b"}, "prompt_completion", pair("input", "output"), None),
        ({"query": "a", "response": "b"}, "prompt_completion", pair("query", "response"), None),
        ({"instruction": "a", "response": "b"}, "prompt_completion", pair("instruction", "response"), None),
        ({"text": "a b c", "url": "http://x"}, "text", {"text": "text"}, "column 'text' holds raw text"),
        ({"content": "a b c"}, "text", {"text": "content"}, None),
    ],
)
def test_formats_are_recognised(fields: dict[str, Any], name: str, columns: dict[str, str], why: str | None) -> None:
    found = recognise(rows(fields, fields), section())
    assert (found.format, found.columns) == (name, columns)
    assert found.why.endswith(" over 2 rows")
    if why:
        assert found.why == f"{why} over 2 rows"


def test_classification_is_recognised_by_labels_that_repeat() -> None:
    found = recognise(rows(*TICKETS), section())
    assert (found.format, found.columns) == ("classification", {"text": "body", "label": "queue"})
    assert found.why == "columns 'body' and 'queue'; 2 distinct short values in 'queue' over 6 rows"
    assert found.unused == ("n",)
    assert found.passed_over["alpaca"] == "no column 'instruction'"
    apart = [{"text": f"t {n}", "label": f"answer {n}"} for n in range(30)]
    (problem,) = refused(*apart)
    assert "values of 'label' do not repeat as labels do (30 distinct in 30 rows)" in problem.what
    assert "beside 'text', column 'label' may be what is to be learned" in problem.what


def test_nothing_fits() -> None:
    with pytest.raises(FinetuneError) as caught:
        recognise(rows({"id": 1, "frage": "wer?", "antwort": "ich"}), section(), where="recipe.yaml:7")
    assert str(caught.value) == (
        "recipe.yaml:7: no format fits the columns 'id', 'frage', 'antwort'\n"
        "      messages: no column holds turns with role and content "
        "(needs a column of turns with 'role' and 'content')\n"
        "      sharegpt: no column holds turns with from and value (needs a column of turns with 'from' and 'value')\n"
        "      preference: no columns that are usually named as a better and a worse answer (needs a pair such as "
        "'chosen' and 'rejected', with 'prompt' or as whole conversations)\n"
        "      kto: no column that is usually named as a prompt (needs 'prompt', 'completion' and a 'label' of true "
        "and false)\n"
        "      alpaca: no column 'instruction' (needs columns 'instruction' and 'output')\n"
        "      multiple_choice: no columns that are usually named as choices (needs a question, choices as a list "
        "'choices' or as columns such as A to D, and an answer)\n"
        "      qa: no column that is usually named as a question (needs 'question', 'context' and 'answer')\n"
        "      prompt_completion: no columns that are usually named so (needs a pair such as 'prompt' and 'completion' "
        "or 'question' and 'answer')\n"
        "      tags: no column that is usually named as tokens (needs lists 'tokens' and 'tags' of equal length, "
        "tagged O, B-NAME and I-NAME)\n"
        "      multi_label: no column holds lists of labels, or labels divided by '|', ';' or ',' (needs a text column "
        "and a column of lists of labels, or of labels divided by '|', ';' or ',')\n"
        "      classification: no column that is usually named as a text (needs a text column and a label column whose "
        "short values repeat)\n"
        "      text: no column that is usually named so (needs a column 'text', 'content' or 'document' and no other "
        "column of texts)\n"
        "      completion: no column that is usually named so (needs a column 'completion', 'response' or 'output' and "
        "no prompt)\n"
        "    -> say which column is what, e.g. `format: prompt_completion` and `columns: {prompt: frage, completion: "
        "antwort}` under data; or write the prompt and the answer yourself with `template:`"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (CHAT | {"prompt": "a", "completion": "b"}, ["as 'messages'", "as 'prompt_completion'"]),
        (CHAT | {"conversations": [{"from": "human", "value": "x"}]}, ["as 'messages'", "as 'sharegpt'"]),
        ({"first": chat("a", "b"), "second": chat("a", "c")}, ["several columns hold turns: 'first', 'second'"]),
        (
            CHAT | {"chosen": chat("a", "b"), "rejected": chat("a", "c")},
            ["as 'messages' (column 'messages' holds turns", "as 'preference' (columns 'chosen' and 'rejected')"],
        ),
        (
            {"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"},
            ["as 'preference' (columns 'prompt', 'chosen' and 'rejected')", "as 'prompt_completion'"],
        ),
        (
            {"question": "q", "choices": ["a", "b"], "answer": "a", "instruction": "i", "output": "o"},
            ["as 'alpaca'", "as 'multiple_choice'"],
        ),
        (
            {"question": "q", "choices": ["a", "b"], "A": "a", "B": "b", "answer": "A", "x": "long words " * 20},
            ["several may be the choices: 'choices'; 'A', 'B'"],
        ),
        ({"prompt": "a", "completion": "b", "question": "c", "answer": "d"}, ["several pairs"]),
        ({"subject": "a", "body": "b", "description": "c", "queue": "x"}, ["may be the text: 'body', 'descr"]),
        ({"body": "b", "queue": "x", "category": "y"}, ["several columns may be the label: 'category', 'queue'"]),
        ({"text": "a", "code": "long words " * 20}, ["beside 'text', column 'code' may be what is to be learned"]),
    ],
)
def test_ambiguous_columns_are_refused(fields: dict[str, Any], words: list[str]) -> None:
    (problem,) = refused(*[fields] * 4)
    assert all(word in problem.what for word in words), problem.what


def test_a_pair_beside_labels_is_refused() -> None:
    (problem,) = refused(*[{"query": f"q{n}", "intent": "xy"[n % 2], "response": "r"} for n in range(4)])
    assert "as 'prompt_completion'" in problem.what
    assert "as 'classification'" in problem.what
    assert problem.fix == "write `format: prompt_completion` or `format: classification` under data"


def test_what_the_recipe_says_wins() -> None:
    both = CHAT | {"prompt": "a", "completion": "b"}
    found = recognise(rows(both), section(format="prompt_completion"))
    assert found.why == "format given in the recipe; columns 'prompt' and 'completion' over 1 rows".replace(
        "1 rows", "1 rows"
    )
    mapped = recognise(rows({"a": "x", "b": "y"}), section(columns={"prompt": "b", "completion": "a"}))
    assert (mapped.format, mapped.columns) == ("prompt_completion", {"prompt": "b", "completion": "a"})
    mapped = recognise(rows(*TICKETS), section(columns={"text": "body", "label": "n"}, format="classification"))
    assert mapped.columns == {"text": "body", "label": "n"}


def test_wrong_names_in_the_recipe_are_told_together() -> None:
    problems = refused(*TICKETS, columns={"lable": "queue", "text": "bodi"}, split={"group_by": "quue"})
    assert [problem.what for problem in problems] == [
        "unknown role 'lable' in columns",
        "columns: text names column 'bodi', which no row has",
        "split: group_by names column 'quue', which no row has",
    ]
    assert problems[0].fix.startswith("did you mean 'label'? roles of the formats: ")
    assert problems[1].fix == "did you mean 'body'? the columns are 'body', 'queue', 'n'"
    (problem,) = refused(*TICKETS, format="classification", columns={"prompt": "body"})
    assert problem.fix == "roles of format 'classification': text, label, id"
    (problem,) = refused(*TICKETS, format="alpaca")
    assert problem.what.startswith("format 'alpaca' does not fit the columns 'body', 'queue', 'n'\n")
    assert "{instruction: body, output: queue}" in problem.fix


def test_inert_settings_are_refused() -> None:
    assert refused({"text": "a"}, system="s")[0].what == "`system` does nothing in format 'text'"
    assert refused(CHAT, instruction="i")[0].what == "`instruction` does nothing in format 'messages'"
    both = {"prompt": "p", "completion": "c"}
    assert refused(both, format="prompt_completion", template=both)[0].what.startswith("`template` does nothing")


def test_labels_that_look_alike_are_noted() -> None:
    found = recognise(rows(*[{"text": f"t{n}", "label": ["Yes", "yes ", "no"][n % 3]} for n in range(9)]), section())
    assert [note.what for note in found.notes] == ["labels 'Yes' and 'yes ' differ only in case or white space"]
    assert found.notes[0].severity == "warning"


def test_no_rows() -> None:
    assert refused()[0].what == "no row could be read"


def test_a_large_corpus_is_looked_at_in_part() -> None:
    many = rows(*[{"text": f"t {n}", "label": str(n % 7)} for n in range(20_500)])
    assert recognise(many, section()).why.endswith("7 distinct short values in 'label' over a draw of 20,000 rows")


# ------------------------------------------------------------------------------------------------- conversations


def test_messages_with_parts_roles_weights_and_system() -> None:
    fields = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": " a"}, {"type": "text", "text": "b\n"}]},
            {"role": "assistant", "content": "call()", "weight": 0},
            {"role": "tool", "content": "42"},
            {"role": "assistant", "content": 42},
        ]
    }
    (example,), rejected = convert(fields, system="Other.")
    assert rejected == []
    assert example.messages == (
        Message("system", "Be brief."),
        Message("user", " ab\n"),
        Message("assistant", "call()", learn=False),
        Message("tool", "42"),
        Message("assistant", "42"),
    )
    (example,), _ = convert(CHAT, system="Other.")
    assert turns(example) == [("system", "Other."), ("user", "hi"), ("assistant", "ho")]


def test_sharegpt_names() -> None:
    names = ["system", "human", "chatgpt", "user", "function_call", "observation", "gpt"]
    fields = {"conversations": [{"from": name, "value": name} for name in names]}
    (example,), _ = convert(fields)
    expected = ["system", "user", "assistant", "user", "assistant", "tool", "assistant"]
    assert [message.role for message in example.messages] == expected


@pytest.mark.parametrize(
    ("messages", "reason", "detail"),
    [
        (chat("a"), "no assistant answer", "the last turn is 'user'"),
        (chat("a", "b", "c"), "no assistant answer", "the last turn is 'user'"),
        ([{"role": "system", "content": "s"}], "no assistant answer", "the last turn is 'system'"),
        (chat("a", "b", first="assistant"), "roles do not alternate", "turn 1 is 'assistant' as the first turn"),
        (chat("a") + chat("b", "c"), "roles do not alternate", "turn 2 is 'user' after 'user'"),
        (
            chat("a", "b") + chat("c", first="assistant"),
            "roles do not alternate",
            "turn 3 is 'assistant' after 'assistant'",
        ),
        (
            [*chat("a", "b"), {"role": "system", "content": "s"}],
            "roles do not alternate",
            "turn 3 is 'system' after 'assistant'",
        ),
        (chat("a", ""), "empty answer", "turn 2 of column 'turns' is ''"),
        (chat("a", None), "empty answer", "turn 2 of column 'turns' is null"),
        (chat(" \n", "b"), "empty prompt", "turn 1 of column 'turns' is ' \\n'"),
        (chat({"x": 1}, "b"), "not text", "turn 1 of column 'turns' holds {'x': 1}"),
        (
            chat([{"type": "image_url"}], "b"),
            "not text",
            "turn 1 of column 'turns' has a part that is no text: {'type': 'image_url'}",
        ),
        ([{"role": "usr", "content": "a"}], "unknown role", "turn 1 of column 'turns' has role 'usr'"),
        (
            answered(thinking="Hm."),
            "unsupported part of a turn",
            "turn 2 of column 'turns' has 'thinking': 'Hm.'",
        ),
        (answered(content=None, tool_calls=[1]), "bad tool call", "call 1 of turn 2 of column 'turns' is 1"),
        (
            answered(content=None, function_call={"name": "f", "arguments": "{oops"}),
            "bad tool call",
            "call 1 of turn 2 of column 'turns' has arguments '{oops'",
        ),
        (
            [{"role": "user", "content": "a", "tool_calls": [{"function": {"name": "f"}}]}, *chat("b", "c")[1:]],
            "bad tool call",
            "turn 1 of column 'turns' is of 'user' and calls a tool",
        ),
        (answered(weight=0.5), "bad weight", "turn 2 of column 'turns' has weight 0.5"),
        (answered(weight=0), "nothing to learn", "every assistant turn has weight 0"),
        (answered(train=False), "nothing to learn", "every assistant turn has weight 0"),
        (answered(train="no"), "bad weight", "turn 2 of column 'turns' has train 'no'"),
        ("text", "not a list of turns", "column 'turns' holds 'text'"),
        (["text"], "not a list of turns", "turn 1 of column 'turns' is 'text'"),
        ([], "empty prompt", "column 'turns' is []"),
        (None, "empty prompt", "column 'turns' is null"),
    ],
)
def test_conversations_that_cannot_be_learned(messages: Any, reason: str, detail: str) -> None:
    good = {"turns": CHAT["messages"]}
    examples, rejected = convert(good, good, {"turns": messages})
    assert len(examples) == 2
    assert said(rejected) == [(3, reason, detail)]


def test_nearest_role() -> None:
    _, (bad,) = convert(CHAT, CHAT, {"messages": [{"role": "asistant", "content": "x"}]})
    assert bad.fix == "did you mean 'assistant'? known roles: system, user, assistant, tool, human, gpt"


# --------------------------------------------------------------------------------------- prompts and completions


def test_alpaca() -> None:
    examples, rejected = convert(
        {"instruction": "Do", "input": "this", "output": "done", "system": ""},
        {"instruction": "Do", "input": None, "output": 3.5, "system": "S"},
        {"instruction": "", "input": "x", "output": "y"},
        {"instruction": "Do", "output": True},
        {"instruction": "Do", "input": "", "output": " "},
        {"instruction": "Do", "input": ["x"], "output": "y"},
        system="Base",
    )
    assert [turns(example) for example in examples] == [
        [("system", "Base"), ("user", "Do\n\nthis"), ("assistant", "done")],
        [("system", "S"), ("user", "Do"), ("assistant", "3.5")],
        [("system", "Base"), ("user", "Do"), ("assistant", "true")],
    ]
    assert said(rejected) == [
        (3, "empty prompt", "column 'instruction' is ''"),
        (5, "empty answer", "column 'output' is ' '"),
        (6, "not text", "column 'input' holds ['x']"),
    ]


def test_completions_that_are_no_text_become_json() -> None:
    examples, rejected = convert(
        {"prompt": " p ", "completion": {"größe": [1, 2.5, None], "b": "x"}},
        {"prompt": 7, "completion": ["a", "b"]},
        {"prompt": "p", "completion": 10**20},
        {"prompt": "p", "completion": {}},
        {"prompt": "p", "completion": float("nan")},
        {"prompt": {"a": 1}, "completion": "c"},
        {"completion": "c"},
    )
    assert [turns(example) for example in examples] == [
        [("user", " p "), ("assistant", '{"größe":[1,2.5,null],"b":"x"}')],
        [("user", "7"), ("assistant", '["a","b"]')],
        [("user", "p"), ("assistant", "1" + "0" * 20)],
    ]
    assert said(rejected) == [
        (4, "empty answer", "column 'completion' is {}"),
        (5, "not text", "column 'completion' holds nan"),
        (6, "not text", "column 'prompt' holds {'a': 1}"),
        (7, "column missing", "there is no column 'prompt'"),
    ]


def test_prompts_and_completions_that_are_turns() -> None:
    examples, rejected = convert(
        {"prompt": chat("a", "b", "c"), "completion": chat("d", first="assistant")},
        {"prompt": chat("a"), "completion": "d"},
        {"prompt": "a", "completion": chat("d", first="assistant")},
        {"prompt": "a", "completion": chat("d")},
    )
    assert [[(m.content, m.learn) for m in example.messages if m.role == "assistant"] for example in examples] == [
        [("b", False), ("d", True)],
        [("d", True)],
        [("d", True)],
    ]
    assert said(rejected) == [(4, "roles do not alternate", "column 'completion' holds more than one assistant turn")]


def test_raw_text_is_kept_to_the_byte() -> None:
    examples, rejected = convert({"text": " \ta\r\n"}, {"text": " "}, {"text": None})
    assert [(example.text, example.messages) for example in examples] == [(" \ta\r\n", ())]
    assert said(rejected) == [(2, "empty text", "column 'text' is ' '"), (3, "empty text", "column 'text' is null")]


# ------------------------------------------------------------------------------------------------ classification


def test_classification_asks_for_one_of_the_classes() -> None:
    examples, rejected = convert(*TICKETS, {"body": "x", "queue": ""}, {"body": "", "queue": "a"})
    assert turns(examples[1]) == [
        (
            "user",
            "Which of these classes does the text belong to?\n"
            "Classes: a, b\nAnswer with the class only.\n\nText: text 1",
        ),
        ("assistant", "b"),
    ]
    assert labels(examples) == ("a", "b")
    assert [example.metadata for example in examples] == [{"n": n} for n in range(6)]
    assert [(line, reason) for line, reason, _ in said(rejected)] == [(7, "empty answer"), (8, "empty prompt")]


def test_further_files_have_the_classes_of_the_training_rows() -> None:
    data = section()
    training = rows(*TICKETS)
    found = recognise(training, data)
    examples, rejected = to_examples(
        rows({"body": "x", "queue": "a"}, {"body": "y", "queue": "B"}), found, data, labels=("a", "b")
    )
    assert "Classes: a, b\n" in examples[0].messages[0].content
    assert said(rejected) == [(2, "label not in training data", "column 'queue' is 'B'")]
    assert rejected[0].fix == "did you mean 'b'?"


def test_instruction_of_the_recipe_and_of_many_labels() -> None:
    examples, _ = convert(*TICKETS, instruction="Queue?")
    assert examples[0].messages[0].content == "Queue?\n\ntext 0"
    assert default_instruction(["a, b", "c"]).splitlines()[1] == "Classes: a, b; c"
    short = "Which class does the text belong to? Answer with the class only."
    assert default_instruction([str(n) for n in range(101)]) == short
    assert default_instruction(["x" * 501, "y" * 501]) == short


# ------------------------------------------------------------------------------------------------------ template


def test_template_over_columns() -> None:
    settings = {
        "template": {
            "prompt": "{% for c in contexts %}{{ c }}\n{% endfor %}{{ row['the q'] }} <b> {{ contexts | tojson }}\n",
            "completion": "{{ answer }}",
        },
        "columns": {"id": "key", "label": "answer"},
        "system": "S",
    }
    good = {"contexts": ["ü & <i>", "b"], "the q": "Q?", "answer": "yes", "key": "k1", "year": 2011}
    examples, rejected = convert(
        good,
        good | {"key": "k2", "answer": None},
        good | {"key": "k1"},
        {name: value for name, value in good.items() if name != "contexts"} | {"key": "k4"},
        good | {"key": "k5", "contexts": ["x" * 600_000, "y" * 600_000]},
        good | {"key": "k6", "answer": " "},
        good | {"key": "k7", "contexts": 5},
        good | {"key": None},
        **settings,
    )
    (example,) = examples
    assert turns(example) == [
        ("system", "S"),
        ("user", 'ü & <i>\nb\nQ? <b> ["ü & <i>", "b"]'),
        ("assistant", "yes"),
    ]
    assert (example.id, example.label, example.metadata) == ("k1", "yes", {"the q": "Q?", "year": 2011})
    assert said(rejected) == [
        (2, "column missing", "completion: a null would be printed; write {{ column or '' }} where that is meant"),
        (3, "duplicate id", "'k1' is the id of dir/train.jsonl:1 too"),
        (4, "column missing", "prompt: 'contexts' is undefined"),
        (5, "template failed", "prompt: more than 1,000,000 characters"),
        (6, "empty answer", "the rendered completion is ' '"),
        (7, "template failed", "prompt: 'int' object is not iterable"),
        (8, "no id", "column 'key' is null"),
    ]


def test_template_faults_are_told_before_any_row() -> None:
    fields = {"question": "a", "answer": "b"}
    problems = refused(fields, template={"prompt": "{{ quesion }}", "completion": "{{ anser }} {{ question }}"})
    assert [problem.what for problem in problems] == [
        "template: prompt names column 'quesion', which no row has",
        "template: completion names column 'anser', which no row has",
    ]
    assert problems[0].fix == "did you mean 'question'? the columns are 'question', 'answer'"
    problems = refused(fields, template={"prompt": "a\n{{ question }", "completion": "{% if %}"})
    assert [problem.what.split(":")[1] for problem in problems] == [" prompt, line 2", " completion, line 1"]
    assert problems[0].what.endswith(": '{{ question }'")
    (problem,) = refused(fields, format="template")
    assert problem.what == "format 'template' needs a template"


@pytest.mark.parametrize(
    "expression",
    [
        "{{ question.__class__.__mro__ }}",
        "{{ ''.__class__ }}",
        "{{ range(10**9) | list }}",
        "{{ items.append(1) }}",
        "{% for i in range(99999) %}{{ question * 100 }}{% endfor %}",
    ],
)
def test_templates_are_kept_in_a_sandbox(expression: str) -> None:
    fields = {"question": "abc", "answer": "b", "items": []}
    examples, rejected = convert(fields, template={"prompt": expression, "completion": "{{ answer }}"})
    assert examples == []
    assert [bad.reason for bad in rejected] in (["template failed"], ["column missing"])


# ---------------------------------------------------------------------------------------- identity and metadata


def test_ids_come_from_a_column_a_key_or_the_line() -> None:
    assert [example.id for example in convert(pair() | {"ID": 5}, pair() | {"ID": "x"})[0]] == ["5", "x"]
    assert [example.id for example in convert(pair() | {"id": 5}, pair() | {"id": 5})[0]] == ["train:1", "train:2"]
    assert [example.id for example in convert(pair() | {"id": 5}, pair())[0]] == ["train:1", "train:2"]
    keyed = [Row(Origin("a.json", 1), pair(), "k1"), Row(Origin("a.json", 2), pair(), "k2")]
    two = [
        Row(Origin("x/part.csv.gz", 2), pair()),
        Row(Origin("y/part.csv", 2), pair()),
        Row(Origin("z.csv", 2), pair()),
    ]
    data = section()
    found = recognise(keyed, data)
    assert [example.id for example in to_examples(keyed, found, data)[0]] == ["k1", "k2"]
    assert [example.id for example in to_examples(two, found, data)[0]] == ["x/part.csv.gz:2", "y/part.csv:2", "z:2"]


def test_groups_and_metadata() -> None:
    extra = {"long": "x" * 201, "list": [1], "null": None} | {f"m{n:02}": n for n in range(25)}
    examples, rejected = convert(
        pair() | {"customer": 7} | extra, pair() | {"customer": None}, pair(), split={"group_by": "customer"}
    )
    assert [example.group for example in examples] == ["7"]
    assert examples[0].metadata == {f"m{n:02}": n for n in range(20)}
    assert said(rejected) == [
        (2, "no group", "column 'customer' is null"),
        (3, "no group", "column 'customer' is null"),
    ]
    data = section(split={"group_by": "customer"})
    further, bad = to_examples(rows(pair()), Recognition(format="prompt_completion", columns=pair(), why=""), data)
    assert ([example.group for example in further], bad) == ([None], [])


def test_a_further_file_without_a_role_s_column_is_refused() -> None:
    data = section()
    found = recognise(rows(*TICKETS), data)
    with pytest.raises(FinetuneError, match="role 'label' names column 'queue', which no row has"):
        to_examples(rows({"body": "x", "que": "a"}), found, data)


# ----------------------------------------------------------------------------------------------------- real data


@pytest.mark.parametrize(
    ("name", "form", "count", "classes", "first_id"),
    [
        ("banking77/train.csv", "classification", 10_003, 77, "train:2"),
        ("legalbench/unfair_tos/test.tsv", "classification", 3_841, 9, "test:2"),
        ("gsm8k/test.jsonl", "prompt_completion", 1_319, 0, "test:1"),
    ],
)
def test_real_files(name: str, form: str, count: int, classes: int, first_id: str) -> None:
    source = read_rows(shared(name))
    data = section()
    found = recognise(source.rows, data)
    examples, rejected = to_examples(source.rows, found, data)
    assert (found.format, len(examples), rejected, len(labels(examples))) == (form, count, [], classes)
    assert examples[0].id == first_id
    texts = {"classification": "text", "prompt_completion": "question"}[form]
    assert all(e.messages[0].content.endswith(r.fields[texts]) for e, r in zip(examples, source.rows, strict=True))


@pytest.mark.parametrize("name", ["mbpp/mbpp.jsonl", "self_instruct/seed_tasks.jsonl"])
def test_real_files_that_need_a_word_from_the_user(name: str) -> None:
    with pytest.raises(FinetuneError, match="no format fits the columns"):
        recognise(read_rows(shared(name)).rows, section())


def test_pubmedqa_by_template() -> None:
    source = read_rows(shared("pubmedqa/ori_pqal.json"))
    data = section(
        template={
            "prompt": "{{ CONTEXTS | join('\n') }}\n\nQuestion: {{ QUESTION }}\nAnswer yes, no or maybe.",
            "completion": "{{ final_decision }}",
        }
    )
    examples, rejected = to_examples(source.rows, recognise(source.rows, data), data)
    assert (len(examples), rejected) == (1000, [])
    assert {example.reference for example in examples} == {"yes", "no", "maybe"}
    assert examples[0].id == source.rows[0].key
    assert "LONG_ANSWER" not in examples[0].metadata
