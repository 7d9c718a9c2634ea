"""The certificate: what is counted, what is refused, and a hash that changes with anything in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from finetune.data.certificate import Accounting, Certificate, certify
from finetune.data.chat.encoder import Encoded, TurnSpan
from finetune.errors import FinetuneError, Problem

BOS = 1
ROWS = Accounting(
    format="messages",
    why="column 'messages' holds turns",
    files={"a.jsonl": "ab" * 32},
    rows_read=10,
    dropped={"empty answer": 2},
    left_out_by_sampling=1,
    splits={"train": 4, "validation": 1, "test": 2},
    truncated=3,
)


def row(
    length: int = 10, trained: Sequence[int] = (7, 8), *, bos: int = 0, stops: bool = True, **facts: Any
) -> Encoded:
    """A row whose tokens are its positions, after `bos` begin-of-text tokens; one turn over what is trained."""
    ids = np.arange(100, 100 + length, dtype=np.int32)
    ids[:bos] = BOS
    marks = np.zeros(length, dtype=np.bool_)
    marks[list(trained)] = True
    parity = facts.pop("parity", True)
    turns = (TurnSpan(min(trained), max(trained) + 1, stops, parity),) if trained else ()
    return Encoded(input_ids=ids, trained=marks, turns=turns, **facts)


def certificate(*rows: Encoded, notes: Sequence[Problem] = (), bos: int | None = BOS) -> Certificate:
    return certify(
        rows, ROWS, where="r.yaml:4", bos_token_id=bos, stop_tokens=["<end>"], template="{{ x }}", notes=notes
    )


def said(found: Certificate) -> list[tuple[str, str]]:
    return [(problem.severity, problem.what) for problem in found.problems]


def test_everything_is_counted() -> None:
    found = certificate(
        row(10, (7, 8), bos=1, neutralised=2),
        row(20, (0, 5), bos=1, rewritten=1, proof="prefix"),
        row(30, (29,), bos=1, spliced=True),
        row(40, (39,), bos=0, stop_appended=True),
    )
    assert found.rows_kept == 7
    assert found.tokens == {"total": 100, "trained": 5}
    assert found.lengths == {"shortest": 10, "median": 25, "p95": 38, "longest": 40}
    assert found.turns == {"learned": 4, "end_of_turn_trained": 4, "eos_appended": 1}
    assert found.bos == {"0": 1, "1": 3}
    assert (found.neutralised, found.rewritten, found.spliced, found.prompt_parity) == (2, 1, 1, 4)
    assert found.mask == {"sentinel": 3, "prefix": 1}
    assert found.nothing_to_learn == 0
    assert found.passed


def test_the_first_token_of_a_row_is_never_a_label() -> None:
    found = certificate(row(5, (0,)), row(5, (3,)))
    assert found.tokens["trained"] == 1
    assert found.nothing_to_learn == 1


def test_a_tokenizer_without_bos_counts_none() -> None:
    assert certificate(row(), bos=None).bos == {}


def test_rows_of_nothing_but_bos_are_counted() -> None:
    assert certificate(row(3, (2,), bos=3)).bos == {"3": 1}


def test_nothing_to_learn_is_refused() -> None:
    for rows in ([row(10, ()), row(5, (0,))], []):
        found = certificate(*rows)
        assert not found.passed
        with pytest.raises(FinetuneError) as caught:
            found.require()
        assert str(caught.value) == (
            "r.yaml:4: no token of any training row would be learned\n    -> look at: finetune data inspect RECIPE"
        )


def test_rows_without_anything_to_learn_among_others_are_warned_of() -> None:
    found = certificate(row(), row(10, ()), row(10, ()))
    assert said(found) == [("warning", "2 training rows have no token to learn from")]
    assert found.passed


@pytest.mark.parametrize(
    ("ending", "severity", "count"), [((True, False), "warning", "1 of 2"), ((False, False), "error", "2 of 2")]
)
def test_turns_that_do_not_end_are_told(ending: tuple[bool, bool], severity: str, count: str) -> None:
    found = certificate(*(row(stops=stops) for stops in ending))
    assert said(found) == [
        (
            severity,
            f"in {count} assistant turns the end of the turn is not learned, "
            "so the model would not learn to stop there",
        )
    ]
    assert found.passed is (severity == "warning")


@pytest.mark.parametrize(
    ("rows", "severity", "what"),
    [
        (
            [row(stop_appended=True), row()],
            "note",
            "the chat template writes no end-of-turn; the tokenizer's end of text was appended to 1 rows",
        ),
        (
            [row(parity=False), row()],
            "warning",
            "in 1 of 2 assistant turns the template's generation prompt is not how it begins a given answer, so "
            "training and answering see different prompts",
        ),
        (
            [row(rewritten=3), row()],
            "warning",
            "the chat template does not write 3 messages word for word (it strips reasoning or converts texts)",
        ),
        (
            [row(bos=2), row(bos=1)],
            "error",
            "rows begin with up to 2 begin-of-text tokens: template and tokenizer each add one",
        ),
    ],
    ids=["eos appended", "prompt differs", "rewritten", "two bos"],
)
def test_what_is_odd_is_told(rows: list[Encoded], severity: str, what: str) -> None:
    found = certificate(*rows)
    assert said(found) == [(severity, what)]
    assert found.passed is (severity != "error")


def test_all_errors_are_raised_together_and_notes_come_first() -> None:
    note = Problem("data", "something was noticed", severity="note")
    found = certificate(row(10, (), bos=2), notes=[note])
    assert [problem.severity for problem in found.problems] == ["note", "error", "error"]
    with pytest.raises(FinetuneError) as caught:
        found.require()
    assert len(caught.value.problems) == 2


def test_it_is_plain_json_with_a_hash_over_the_rest() -> None:
    values = certificate(row()).as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == json.loads(json.dumps(values))
    assert values["passed"] is True
    assert values["hash"] == certificate(row()).as_dict()["hash"]
    assert len(values["hash"]) == 64
    others = [certificate(row(11)), certificate(row(), bos=None), certificate(row(), row())]
    assert len({values["hash"], *(other.as_dict()["hash"] for other in others)}) == 4
