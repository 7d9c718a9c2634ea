"""Questions about a context, texts without a prompt, variants of ShareGPT, and conversations that call tools."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.small_rows import asked, convert, recognised, refused, said

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
TOOL = {"name": "weather", "description": "Says the weather.", "parameters": {"properties": {"city": {}}}}


# -------------------------------------------------------------------------------------------------------------- qa


@pytest.mark.parametrize(
    ("fields", "prompt", "answers"),
    [
        (
            {"question": "Who?", "context": "Ann met Bo.", "answer": "Ann"},
            "Ann met Bo.\n\nQuestion: Who?",
            ["Ann"],
        ),
        (
            {"Question": "Who?", "Contexts": ["Ann met Bo.", "It rained."], "answers": ["Ann", "Bo", "Ann"]},
            "Ann met Bo.\n\nIt rained.\n\nQuestion: Who?",
            ["Ann", "Bo"],
        ),
        (
            {"question": "Who?", "passage": "x", "answers": {"text": ["Ann", "A."], "answer_start": [0, 0]}},
            "x\n\nQuestion: Who?",
            ["Ann", "A."],
        ),
        ({"question": "Who?", "answer": ["Ann", "Bo"]}, "Who?", ["Ann", "Bo"]),
    ],
)
def test_questions_about_a_context(fields: dict[str, Any], prompt: str, answers: list[str]) -> None:
    assert recognised(fields, fields).format == "qa"
    (example, _), rejected = convert(fields, fields)
    assert (asked(example), [example.reference, *example.alternatives], rejected) == (prompt, answers, [])


def test_a_question_without_context_is_a_pair_and_fields_that_are_empty_are_rejected() -> None:
    found = recognised({"question": "Who?", "answer": "Ann"})
    assert found.format == "prompt_completion"
    assert found.passed_over["qa"] == "no column that is usually named as a context"
    good = {"question": "Who?", "context": "x", "answer": "Ann"}
    _, rejected = convert(
        good,
        good,
        good | {"context": []},
        good | {"context": ["x", None]},
        good | {"answer": []},
        good | {"answer": ""},
    )
    assert said(rejected) == [
        (3, "empty context", "column 'context' is []"),
        (4, "empty context", "item 2 of column 'context' is null"),
        (5, "empty answer", "column 'answer' holds no answer"),
        (6, "empty answer", "column 'answer' is ''"),
    ]


def test_a_question_beside_another_pair_is_refused_with_both_named() -> None:
    fields = {"question": "q", "context": "c", "answer": "a", "instruction": "i", "output": "o"}
    (problem,) = refused(*[fields] * 3)
    assert "as 'alpaca' (columns 'instruction' and 'output')" in problem.what
    assert "as 'qa' (columns 'question', 'answer' and 'context')" in problem.what


# ------------------------------------------------------------------------------------------------ without a prompt


def test_completions_without_a_prompt_are_learned_whole() -> None:
    fields = [{"id": n, "completion": f" poem {n}\n"} for n in range(3)]
    found = recognised(*fields)
    assert (found.format, found.why) == (
        "completion",
        "column 'completion' holds completions without a prompt over 3 rows",
    )
    examples, rejected = convert(*fields, {"id": 4, "completion": ""})
    assert [(example.text, example.messages) for example in examples] == [(f" poem {n}\n", ()) for n in range(3)]
    assert said(rejected) == [(4, "empty text", "column 'completion' is ''")]


def test_a_completion_beside_what_may_be_its_prompt_is_refused() -> None:
    (problem,) = refused(*[{"completion": "c", "title": "long words " * 20}] * 3)
    assert "completion: beside 'completion', column 'title' may be its prompt (needs" in problem.what
    (problem,) = refused(*[{"completion": "c", "text": "t"}] * 3)
    assert "text: beside 'text', column 'completion' may be what is to be learned" in problem.what
    assert recognised(*[{"completion": "c", "text": "t"}] * 3, columns={"completion": "text"}).format == "completion"
    (problem,) = refused({"completion": "c"}, system="s")
    assert problem.what == "`system` does nothing in format 'completion'"


# -------------------------------------------------------------------------------------------------- ShareGPT's kin


@pytest.mark.parametrize("column", ["conversation", "conversations", "messages", "dialog", "dialogue", "turns"])
@pytest.mark.parametrize(
    ("who", "says", "names"),
    [
        ("from", "value", ("human", "gpt")),
        ("role", "text", ("user", "assistant")),
        ("role", "value", ("human", "model")),
        ("from", "content", ("user", "chatgpt")),
    ],
)
def test_variants_of_sharegpt(column: str, who: str, says: str, names: tuple[str, str]) -> None:
    turns: list[dict[str, Any]] = [{who: names[number % 2], says: text} for number, text in enumerate("abcd")]
    turns[1]["weight"] = 0
    turns[3]["train"] = True
    fields = {column: turns, "other": [{who: "x", says: "y"}]}
    found = recognised(fields, fields)
    assert (found.format, found.columns["conversations"]) == ("sharegpt", column)
    assert found.why == f"column {column!r} holds turns with {who} and {says} over 2 rows"
    (example, _), rejected = convert(fields, fields)
    assert [(turn.role, turn.content, turn.learn) for turn in example.messages] == [
        ("user", "a", True),
        ("assistant", "b", False),
        ("user", "c", True),
        ("assistant", "d", True),
    ]
    assert rejected == []


# ----------------------------------------------------------------------------------------------------------- tools


def tooled(*, tools: Any = (TOOL,), call: Any = CALL) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": "Weather in Bern?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ],
        "tools": list(tools) if isinstance(tools, tuple) else tools,
    }


@pytest.mark.parametrize(
    ("tools", "call"),
    [
        ((TOOL,), CALL),
        (
            ({"type": "function", "function": TOOL},),
            CALL | {"function": {"name": "weather", "arguments": {"city": "Bern"}}},
        ),
        ('[{"name": "weather", "description": "Says the weather.", "parameters": {"properties": {"city": {}}}}]', CALL),
    ],
)
def test_tools_and_their_calls_are_kept(tools: Any, call: Any) -> None:
    (example,), rejected = convert(tooled(tools=tools, call=call), system="Be brief.")
    assert rejected == []
    system, user, calling, answer, last = example.messages
    assert system.tools == ({"type": "function", "function": TOOL},)
    assert (user.tools, last.content) == ((), "It is sunny.")
    assert calling.tool_calls == (
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}},
    )
    assert (calling.content, calling.said) == ("", '{"name":"weather","arguments":{"city":"Bern"}}')
    assert (answer.role, answer.name, answer.tool_call_id) == ("tool", "weather", "c1")


def test_a_call_may_be_what_is_learned() -> None:
    fields = {"messages": [*tooled()["messages"][:1], {"role": "assistant", "function_call": CALL["function"]}]}
    (example,), rejected = convert(fields)
    assert (example.reference, rejected) == ('{"name":"weather","arguments":{"city":"Bern"}}', [])


@pytest.mark.parametrize(
    ("tools", "detail"),
    [
        ("search", "tool 1 of column 'tools' is 'search'"),
        (({"description": "x"},), "tool 1 of column 'tools' is {'description': 'x'}"),
        (({"name": "a"}, 5), "tool 2 of column 'tools' is 5"),
    ],
)
def test_definitions_that_are_none_are_rejected(tools: Any, detail: str) -> None:
    _, rejected = convert(tooled(tools=tools))
    assert said(rejected) == [(1, "bad tool definition", detail)]
