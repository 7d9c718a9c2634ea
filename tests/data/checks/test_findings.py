"""Each kind of finding: what is found, with its words and places, and what is left in peace."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import get_args

import pytest

from finetune.data.checks import CHECKS, KINDS, Material, check_corpus
from finetune.data.checks.answers import is_refusal
from finetune.data.checks.findings import Finding, Sighting, excerpt, rows
from finetune.data.checks.languages import language_of
from finetune.data.checks.markers import marks_of
from finetune.data.checks.writing import odd_signs
from finetune.data.rows import Example, Origin, Rejected
from finetune.recipe.schema import ChecksSection, FindingKind
from tests.check_rows import asked, found, numbered, of_kind, prose, raw


def clean(count: int = 40, words: int = 20) -> list[tuple[str, str]]:
    chance = random.Random(5)
    return [(prose(chance, words), prose(chance, words)) for _ in range(count)]


def one(rows_: list[Example], kind: str, **settings: object) -> Finding:
    (finding,) = of_kind(found(rows_, **settings), kind)  # type: ignore[arg-type]
    return finding


def test_every_kind_can_be_named_in_a_recipe_and_comes_from_a_check() -> None:
    named = {kind for kinds, _ in CHECKS for kind in kinds}
    assert named == set(get_args(FindingKind))
    assert set(KINDS) == named | {"personal_data"}


def test_a_clean_corpus_has_no_findings() -> None:
    rows_ = numbered(clean(120))
    assert found(rows_[:80], validation=rows_[80:100], test=rows_[100:]) == []
    assert found([]) == []


# ------------------------------------------------------------------------------------------------------ settings


def test_kinds_are_ignored_or_refuse() -> None:
    rows_ = numbered([*clean(), clean()[0], ("What?", "N/A")])
    assert [finding.kind for finding in found(rows_)] == ["empty_answers", "duplicates"]
    assert [finding.kind for finding in found(rows_, ignore=("duplicates",))] == ["empty_answers"]
    severities = {finding.kind: finding.severity for finding in found(rows_, error=("duplicates",))}
    assert severities == {"duplicates": "error", "empty_answers": "warning"}
    assert [finding.severity for finding in found(rows_, error=("duplicates",))] == ["error", "warning"]


def test_a_finding_tells_its_places() -> None:
    seen = tuple(Sighting(f"a.csv:{line}", "x") for line in range(1, 6))
    finding = Finding(kind="refusals", severity="warning", count=7, what="7 rows refuse", examples=seen, fix="look")
    assert str(finding.problem("recipe.yaml:3")) == (
        "recipe.yaml:3: 7 rows refuse: a.csv:1 (x), a.csv:2 (x), a.csv:3 (x), a.csv:4 (x), a.csv:5 (x) and 2 more\n"
        "    -> look"
    )
    assert finding.as_dict()["examples"][0] == {"where": "a.csv:1", "text": "x"}


def test_excerpts_are_one_short_line() -> None:
    text = "a\n b" + "x" * 200
    assert excerpt(text) == "a b" + "x" * 76 + "..."
    assert excerpt("short") == "short"
    assert excerpt("y" * 100 + "HERE" + "z" * 100, 100, 104).strip(".").replace("y", "").replace("z", "") == "HERE"
    assert (rows(1), rows(2, "training")) == ("1 row", "2 training rows")


# ---------------------------------------------------------------------------------------------------- duplicates


def test_equal_and_nearly_equal_rows() -> None:
    texts = clean(30, 30)
    prompt, answer = texts[3]
    near = (f"{prompt} indeed", answer)
    rows_ = numbered([*texts, (prompt.upper(), answer), near])
    equal, alike = one(rows_, "duplicates"), one(rows_, "near_duplicates")
    assert (equal.count, equal.severity, equal.examples[0].where) == (1, "note", "rows.jsonl:31 = rows.jsonl:4")
    assert equal.what == "1 of 32 training rows (3.1%) say what an earlier one says"
    assert (alike.count, alike.severity, alike.examples[0].where) == (1, "note", "rows.jsonl:32 ~ rows.jsonl:4")


def test_many_equal_rows_are_a_warning_and_a_row_taken_twice_is_none() -> None:
    texts = clean(10)
    assert one(numbered([*texts, *texts[:5]]), "duplicates").severity == "warning"
    twice = numbered(texts)
    assert of_kind(found([*twice, *twice]), "duplicates") == []


# -------------------------------------------------------------------------------------------------------- labels


def classes(**counts: int) -> list[Example]:
    chance = random.Random(9)
    return numbered([(prose(chance, 15), name) for name, count in counts.items() for _ in range(count)], labels=True)


def test_slips_in_class_names() -> None:
    rows_ = classes(billing=60, shipping=60, Billing=3, shiping=2, returns=50)
    assert len(of_kind(found(rows_), "label_typos")) == 1
    rows_ = [replace(row, label=None) for row in rows_]
    slips = of_kind(found(rows_), "label_typos")
    assert [slip.what for slip in slips] == [
        "classes 'Billing' (3 rows) and 'billing' (60 rows) differ only in case or white space",
        "classes 'shiping' (2 rows) and 'shipping' (60 rows) differ by one letter",
    ]
    assert [slip.examples[0].where for slip in slips] == ["rows.jsonl:121", "rows.jsonl:124"]


@pytest.mark.parametrize(
    ("rarer", "common", "slip"),
    [
        ("adress", "address", True),
        ("addresss", "address", True),
        ("adderss", "address", True),
        ("edderss", "address", False),
        ("type1", "type2", False),
        ("grade 12", "grade 1", False),
        ("yes", "yess", False),
        ("cat", "car", False),
    ],
)
def test_what_counts_as_a_slip(rarer: str, common: str, slip: bool) -> None:
    rows_ = classes(**{common: 60, "something else": 60, rarer: 1})
    assert bool(of_kind(found(rows_), "label_typos")) is slip


def test_classes_that_are_both_common_are_no_slip() -> None:
    assert of_kind(found(classes(accept=60, except_=60, expect=60)), "label_typos") == []


def test_rare_classes() -> None:
    rare = one(classes(billing=30, shipping=30, fraud=2, theft=1), "rare_labels")
    assert rare.what == "2 of 4 classes have one or two training rows"
    assert [str(seen) for seen in rare.examples] == ["rows.jsonl:61 ('fraud')", "rows.jsonl:63 ('theft')"]
    assert of_kind(found(classes(a_=2, b_=2)), "rare_labels") == []


def test_imbalance() -> None:
    uneven = one(classes(yes=90, no=10), "label_imbalance")
    assert (uneven.severity, uneven.count) == ("warning", 90)
    assert uneven.what == "class 'yes' has 90% of the training rows, 9 times those of the rarest: 90 'yes', 10 'no'"
    assert one(classes(a_=60, b_=60, c_=3), "label_imbalance").severity == "note"
    assert of_kind(found(classes(a_=60, b_=50, c_=40)), "label_imbalance") == []


def test_answers_that_repeat_are_classes_too() -> None:
    chance = random.Random(1)
    rows_ = numbered((prose(chance, 20), "no" if place % 10 else "yes") for place in range(100))
    assert one(rows_, "label_imbalance").what.startswith("class 'no' has 90% of the training rows")
    assert of_kind(found(rows_), "repeated_answers") == []


def test_equal_texts_of_two_classes() -> None:
    rows_ = [*classes(billing=20, shipping=20), asked("Where is my money?", "billing", line=41, label="billing")]
    rows_.append(asked("where is my money", "shipping", line=42, label="shipping"))
    conflict = one(rows_, "conflicting_labels")
    assert conflict.what == "1 training row with the text of another row and another class"
    assert str(conflict.examples[0]) == "rows.jsonl:42 = rows.jsonl:41 ('shipping' and 'billing')"


# ------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("answer", ["N/A", "n/a.", "None.", "-", "???", "TODO", " ", "null"])
def test_answers_that_stand_for_none(answer: str) -> None:
    empty = one(numbered([*clean(), ("Why?", answer)]), "empty_answers")
    assert (empty.count, str(empty.examples[0])) == (1, f"rows.jsonl:41 ({answer!r})")


def test_class_names_and_signs_are_answers() -> None:
    assert of_kind(found(classes(none=30, some=30)), "empty_answers") == []
    assert of_kind(found(numbered([*clean(), ("How are you?", "😊"), ("2 - 2?", "0")])), "empty_answers") == []


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I cannot help with that.", True),
        ("I'm sorry, but I can't assist with that request.", True),
        ("I\u2019m sorry, I can\u2019t do that.", True),
        ("As an AI language model, I have no opinions.", True),
        ("Well, as a large language model I do not eat.", True),
        ("I apologize, but I am unable to say.", True),
        ("We are not able to provide refunds.", True),
        ("I am sorry for your loss. Here is what to do.", False),
        ("I can help with that.", False),
        ("He said: I cannot help you.", False),
        ("I work as an AI engineer.", False),
        ("The filter can't provide clean water.", False),
    ],
)
def test_what_is_a_refusal(answer: str, refuses: bool) -> None:
    assert is_refusal(answer) is refuses


def test_refusals_are_counted() -> None:
    refused = one(numbered([*clean(), ("Why?", "I cannot help with that.")]), "refusals")
    assert refused.what == "1 of 41 rows have an answer that refuses or speaks of itself as an AI"
    assert str(refused.examples[0]) == "rows.jsonl:41 (I cannot help with that.)"


def test_one_answer_to_many_questions() -> None:
    chance = random.Random(3)
    rows_ = numbered([*clean(100), *((prose(chance, 20), "Please call our office.") for _ in range(12))])
    repeated = one(rows_, "repeated_answers")
    assert repeated.what == "12 of 112 training rows have the answer 'Please call our office.'"
    assert (repeated.severity, repeated.count, len(repeated.examples)) == ("note", 12, 5)


# -------------------------------------------------------------------------------------------- languages, writing


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The patient was admitted to the hospital with pain in the chest that had begun on that day.", "English"),
        ("Der Patient wurde mit Schmerzen in der Brust aufgenommen, die nicht enden und stark sind.", "German"),
        ("Le patient a été admis avec une douleur dans la poitrine qui est plus forte que la veille.", "French"),
        ("El paciente ingresó en el hospital con un dolor que es más fuerte por las noches y no se va.", "Spanish"),
        ("Пациент поступил в больницу жалуясь на боль", "Cyrillic script"),
        ("患者は胸の痛みで入院しました。昨日から続いています。", "Japanese"),
        ("患者因胸痛入院已经持续了一天时间", "Chinese or Japanese"),
        ("chest pain", None),
        ("ALT 45 AST 33 GGT 21 LDH 210 CRP 5 ESR 12 HB 13 WBC 7 PLT 210 NA 140 K 4 CL 101", None),
    ],
)  # fmt: skip
def test_languages_are_told_by_script_and_common_words(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_few_rows_of_another_language() -> None:
    english = "The parcel that was sent to me on Monday is not here and I have to go to the office for it, number"
    german = "Das Paket ist nicht da und ich werde es nicht bei der Post holen, weil sie mir das versprochen haben."
    rows_ = numbered([*((f"{english} {place}", "It is at the office.") for place in range(60)), (german, "Es ist da.")])
    odd = one(rows_, "languages")
    assert odd.what == "1 row in another language than most (60 English, 1 German; too short to tell: 0)"
    assert str(odd.examples[0]).startswith("rows.jsonl:61 (German: Das Paket ist nicht da")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Das MÃ¤dchen mÃ¶chte heim", "text in a wrong encoding"),
        ("It\u00e2\u20ac\u2122s wrong", "text in a wrong encoding"),
        ("caf\ufffd", "replacement characters"),
        ("a\x07bell", "control characters"),
        ("zero\u200bwidth", "invisible characters"),
        ("soft\u00adhyphen", "invisible characters"),
        ("Mädchen möchte heim; it\u2019s fine \u2014 \u2018so\u2019 5 µm, 20 °C, naïve Ærø", None),
        ("tab\tnewline\r\n", None),
        ("family 👨\u200d👩\u200d👧 and می\u200cشود", None),
        ("TNF\u03b1 and \u0394G of Москва", None),
    ],
)
def test_broken_signs(text: str, kind: str | None) -> None:
    odd = odd_signs(text)
    assert (odd[0] if odd else None) == kind


def test_broken_signs_are_counted_by_kind() -> None:
    rows_ = numbered([*clean(), "caf\ufffd", "zero\u200bwidth", "another\u200bone"])
    findings = of_kind(found(rows_), "encoding")
    assert [(finding.what, finding.examples[0].where) for finding in findings] == [
        ("1 row with replacement characters", "rows.jsonl:41"),
        ("2 rows with invisible characters", "rows.jsonl:42"),
    ]
    assert "\\u200b" in findings[1].examples[0].text


def test_letters_that_look_like_others() -> None:
    mixed = one(numbered([*clean(), "my \u0440assword", "the \u0391ccount", "TNF\u03b1 and Москва"]), "homoglyphs")
    assert mixed.what == "2 rows with words of Latin and look-alike letters mixed"
    assert [str(seen) for seen in mixed.examples] == [
        "rows.jsonl:41 (\\u0440assword)",
        "rows.jsonl:42 (\\u0391ccount)",
    ]


# ----------------------------------------------------------------------------------------------- marks, lengths


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("<|im_start|>user\nHi<|im_end|>", ["<|im_start|>", "<|im_end|>"]),
        ("[INST] Hi [/INST] Hello</s>", ["[INST]", "[/INST]", "</s>"]),
        ("### Instruction:\nSort.\n### Response:\nDone", ["### Instruction:", "### Response:"]),
        ("<start_of_turn>user", ["<start_of_turn>"]),
        ("<|start_header_id|>user<|end_header_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
        ("Human: Hi\nAssistant: Hello", ["Human:", "Assistant:"]),
        ("Human: a member of Homo sapiens", []),
        ("<s>old price</s> new price", []),
        ("a < b, x[i] and ## Heading: text", []),
    ],
)
def test_marks_of_chat_templates(text: str, marks: list[str]) -> None:
    assert [mark for mark, _ in marks_of(text)] == marks


def test_marks_say_whether_they_are_the_bases_own() -> None:
    rows_ = numbered([*clean(), "<|im_start|>user\nHi<|im_end|>"])
    own, other = (
        one(rows_, "chat_markers", template="{{ '<|im_start|>' }}"),
        one(rows_, "chat_markers", template="[INST]"),
    )
    which = "1 row with marks of a chat template inside their texts (1 <|im_start|>, 1 <|im_end|>)"
    assert own.what == f"{which}; the base's template writes the same ones"
    assert other.what == f"{which}; the base's template writes others"
    assert one(rows_, "chat_markers").what == which
    assert own.examples[0].where == "rows.jsonl:41"
    assert one([raw("Human: Hi\nAssistant: Hello", line=3)], "chat_markers").examples[0].where == "rows.jsonl:3"


def test_rows_over_the_maximum_length() -> None:
    rows_ = numbered(clean())
    material = Material(
        train=rows_,
        max_length=64,
        lengths={"median": 30, "p95": 60, "longest": 64},
        left_out=[Rejected(Origin("rows.jsonl", 50), "longer than max_length", "900 tokens, at most 64")],
        cut=rows_[:2],
    )
    (long,) = check_corpus(material, ChecksSection())
    assert str(long.problem("r.yaml:2")) == (
        "r.yaml:2: 3 rows longer than max_length 64: 1 are left out and of 2 the prompt is cut from its start "
        "(training rows in tokens, after that: median 30, p95 60, longest 64): rows.jsonl:50 (900 tokens, at most 64), "
        "rows.jsonl:1 (cut), rows.jsonl:2 (cut)\n"
        "    -> raise data.max_length where the model and the memory allow it"
    )
