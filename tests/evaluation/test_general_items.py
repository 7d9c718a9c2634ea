"""General items: finetune's own are sound, a user's are read or refused with their line, and tokens are the text's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.general_items import ANSWER_TOKENS, OWN, read_prompts, read_questions, read_texts
from finetune.recipe.forgetting import ForgettingSection
from finetune.rundir import file_hash
from tests.small_runs import lines, write_lines
from tests.tiny import tiny_tokenizer

OURS = ForgettingSection()


def bytes_of(text: str) -> list[int]:
    return list(text.encode())


# ------------------------------------------------------------------------------------------------------------- ours


def test_our_texts() -> None:
    texts = lines(OWN / "texts.jsonl")
    assert len(texts) == 40
    assert len({one["text"] for one in texts}) == len({one["id"] for one in texts}) == 40
    assert len({one["domain"] for one in texts}) > 20
    assert all(250 < len(one["text"]) < 450 and one["text"].isascii() for one in texts)


def test_our_questions() -> None:
    questions = lines(OWN / "questions.jsonl")
    assert len(questions) == len({one["question"] for one in questions}) == 60
    assert {one["answer"] for one in questions} == {0, 1, 2, 3}
    assert all(len(set(one["choices"])) == 4 for one in questions)
    places = [one["answer"] for one in questions]
    # Always naming one place is as good as guessing
    assert [places.count(place) for place in range(4)] == [15, 15, 15, 15]
    right = {one["question"]: one["choices"][one["answer"]] for one in questions}
    assert right["What is the capital of Australia?"] == "Canberra"
    assert right["What is seven times eight?"] == "56"


def test_our_prompts() -> None:
    prompts = lines(OWN / "prompts.jsonl")
    assert len(prompts) == len({one["prompt"] for one in prompts}) == 24


def test_ours_are_read_with_their_hash() -> None:
    tokenizer = tiny_tokenizer()
    found = read_texts(OURS, tokenizer, context_length=512)
    assert (len(found.items), found.file) == (40, "")
    assert found.sha256 == file_hash(OWN / "texts.jsonl")
    assert len(read_questions(OURS, tokenizer, context_length=512).items) == 60
    assert len(read_prompts(OURS, bytes_of, context_length=512).items) == 24


# ------------------------------------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize("add_bos", [False, True])
@pytest.mark.parametrize("context_length", [None, 512, 64])
def test_every_token_of_a_text_counts_once_and_the_end_of_text_never(add_bos: bool, context_length: int | None) -> None:
    tokenizer = tiny_tokenizer(add_bos=add_bos)
    found = read_texts(OURS, tokenizer, context_length=context_length).items
    cut = 0
    for text in found:
        whole = tokenizer(text.text)["input_ids"]
        ids = [row[0] for row in text.rows]
        joined = [*ids[0], *(token for row in ids[1:] for token in row[1:])]
        assert joined == [*whole, tokenizer.eos_token_id]
        # A row's first token has nothing before it; of later pieces it was counted in the piece before
        counted = sum(sum(marks[1:]) for _, marks in text.rows)
        assert counted == len(whole) - 1
        assert all(len(row) <= (context_length or 10_000) for row in ids)
        cut += len(ids) > 1
    assert cut == (40 if context_length == 64 else 0)


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_question_and_each_choice_are_the_text_as_a_whole(add_bos: bool) -> None:
    tokenizer = tiny_tokenizer(add_bos=add_bos)
    asked = {one["id"]: one["question"] for one in lines(OWN / "questions.jsonl")}
    for one in read_questions(OURS, tokenizer, context_length=512).items:
        assert len(one.continuations) == 4
        assert tokenizer.decode(one.prompt, skip_special_tokens=True) == f"Question: {asked[one.id]}\nAnswer:"
        for choice, tokens in zip(one.choices, one.continuations, strict=True):
            assert tokenizer.decode(tokens) == f" {choice}"
            assert [*one.prompt, *tokens] == tokenizer(f"Question: {asked[one.id]}\nAnswer: {choice}")["input_ids"]


# ------------------------------------------------------------------------------------------------------- bad input


def refused(path: Path, kind: str, rows: list[Any], context_length: int | None = None) -> list[str]:
    section = ForgettingSection(**{kind: str(write_lines(path / "x.jsonl", rows))})
    read: dict[str, Any] = {"texts": read_texts, "questions": read_questions, "prompts": read_prompts}
    turns = bytes_of if kind == "prompts" else tiny_tokenizer()
    with pytest.raises(FinetuneError) as caught:
        read[kind](section, turns, context_length=context_length)
    return [str(problem).replace(str(path), "") for problem in caught.value.problems]


def question(**changes: Any) -> dict[str, Any]:
    return {"question": "Is it?", "choices": ["yes", "no"], "answer": 0, **changes}


def test_every_fault_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    rows = [
        question(),
        question(answer=2),
        question(answer=True),
        question(answer=None),
        question(choices=["yes"]),
        question(choices=["yes", "yes"]),
        question(choices="yes, no"),
        question(question=" "),
        '{"question"',
        question(id="x"),
        question(id="x"),
    ]
    fix = "\n    -> give the number of the right choice, from 0 to 1"
    list_fix = "\n    -> give a list of at least two different texts"
    found = refused(tmp_path, "questions", rows)
    assert found[:7] == [
        f"/x.jsonl:2: 'answer' is 2, which is the number of none of its 2 choices{fix}",
        f"/x.jsonl:3: 'answer' is True, which is the number of none of its 2 choices{fix}",
        f"/x.jsonl:4: 'answer' is None, which is the number of none of its 2 choices{fix}",
        f"/x.jsonl:5: 'choices' is ['yes']{list_fix}",
        f"/x.jsonl:6: 'choices' is ['yes', 'yes']{list_fix}",
        f"/x.jsonl:7: 'choices' is 'yes, no'{list_fix}",
        "/x.jsonl:8: 'question' is ' ', which is no text\n    -> write the question under 'question'",
    ]
    assert found[7].startswith("/x.jsonl:9: broken JSON: ")
    assert found[8] == "/x.jsonl:11: the id 'x' occurs twice\n    -> give each item an id of its own"
    assert len(found) == 9


def test_texts_that_are_none(tmp_path: Path) -> None:
    assert refused(tmp_path, "texts", [{"text": "good"}, {"words": "bad"}, {"text": 3}]) == [
        "/x.jsonl:2: 'text' is missing\n    -> write the text under 'text'",
        "/x.jsonl:3: 'text' is 3, which is no text\n    -> write the text under 'text'",
    ]
    assert "/x.jsonl:1" in refused(tmp_path, "texts", ['{"text": "a \\ud800 b"}'])[0]


@pytest.mark.parametrize("kind", ["texts", "questions", "prompts"])
def test_no_items(tmp_path: Path, kind: str) -> None:
    (found,) = refused(tmp_path, kind, [""])
    assert found.startswith("/x.jsonl: ")


def test_what_does_not_fit_the_context(tmp_path: Path) -> None:
    (found,) = refused(tmp_path, "questions", [question(), question(question="Is it? " * 40)], context_length=60)
    assert found.startswith("/x.jsonl:2: takes ")
    assert found.endswith(" tokens, and the model's context is 60\n    -> shorten it, or leave it out")
    longest = 60 - ANSWER_TOKENS
    (found,) = refused(tmp_path, "prompts", [{"prompt": "a" * longest}, {"prompt": "a" * (longest + 1)}], 60)
    assert found.startswith("/x.jsonl:2: takes 61 tokens")


def test_a_file_that_is_not_there() -> None:
    section = ForgettingSection(texts="nowhere.jsonl")
    with pytest.raises(FinetuneError, match=r"^evaluate\.forgetting\.texts: no such file: 'nowhere\.jsonl'"):
        read_texts(section, tiny_tokenizer(), context_length=None)


def test_ids_are_the_users_own_or_the_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [json.dumps({"text": "one two"}), {"id": "b", "text": "three"}])
    found = read_texts(ForgettingSection(texts=str(path)), tiny_tokenizer(), context_length=None)
    assert [one.id for one in found.items] == ["mine.jsonl:1", "b"]
    assert found.file == str(path)
    assert np.array([len(one.rows) for one in found.items]).tolist() == [1, 1]
