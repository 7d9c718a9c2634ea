"""Masking: nothing that was found stays, nothing else changes, and a second time changes nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.data.checks import mask_example, mask_text
from finetune.data.checks.masking import Mask
from finetune.data.checks.personal import NAMES, iban, luhn, personal_data, veiled
from finetune.data.rows import Example, Message, Origin
from tests.check_rows import asked, found, numbered, of_kind

PLACEHOLDER = re.compile(r"\[[A-Z_]+_[0-9]+\]")

# fmt: off
FOUND = [
    ("mail ann.lee+x@example.co.uk now", "email", "ann.lee+x@example.co.uk"),
    ("<jörg_1@bücher-shop.de>", None, ""),
    ("<joerg_1@buecher-shop.de>", "email", "joerg_1@buecher-shop.de"),
    ("IBAN DE89 3704 0044 0532 0130 00 OK", "iban", "DE89 3704 0044 0532 0130 00"),
    ("GB29NWBK60161331926819.", "iban", "GB29NWBK60161331926819"),
    ("DE89 3704 0044 0532 0130 02", None, ""),
    ("card 4111 1111 1111 1111, thanks", "card", "4111 1111 1111 1111"),
    ("5500-0055-5555-5559", "card", "5500-0055-5555-5559"),
    ("378282246310005", "card", "378282246310005"),
    ("4111 1111 1111 1112", None, ""),
    ("4444 4444 4444 4444", None, ""),
    ("SSN 123-45-6789", "ssn", "123-45-6789"),
    ("000-12-3456", None, ""),
    ("MRN: 00123456", "record_number", "MRN: 00123456"),
    ("Medical record number #A-7654321", "record_number", "Medical record number #A-7654321"),
    ("DOB 03/14/1962", "birth_date", "DOB 03/14/1962"),
    ("born on 14 March 1962 in Graz", "birth_date", "born on 14 March 1962"),
    ("the war began on 14 March 1962", None, ""),
    ("from 203.0.113.77", None, ""),
    ("from 93.184.216.34", "ip", "93.184.216.34"),
    ("from 192.168.100.12", None, ""),
    ("version 1.2.3.4 of it", None, ""),
    ("2606:4700:4700:0:0:0:0:1111", "ip", "2606:4700:4700:0:0:0:0:1111"),
    ("call +49 30 901820 today", "phone", "+49 30 901820"),
    ("call (415) 555-2671", "phone", "(415) 555-2671"),
    ("415-555-2671", "phone", "415-555-2671"),
    ("The trial had 1,234,567 patients in 2019-2021 (p = 0.00012345).", None, ""),
    ("ISBN 978-3-16-148410-0", None, ""),
    ("It costs 12345678 euros", None, ""),
]
# fmt: on


@pytest.mark.parametrize(("text", "kind", "value"), FOUND)
def test_what_is_personal_data(text: str, kind: str | None, value: str) -> None:
    places = personal_data(text)
    assert [(place.kind, text[place.start : place.end]) for place in places] == ([(kind, value)] if kind else [])


def test_check_digits() -> None:
    assert luhn("79927398713")
    assert not any(luhn(f"7992739871{digit}") for digit in "012456789")
    assert iban("GB82 WEST 1234 5698 7654 32")
    assert not iban("GB82 WEST 1234 5698 7654 33")


def test_a_placeholder_stands_for_one_value() -> None:
    text = "Write ann@a.org, bob@b.org or ANN@a.org; call +49 30 901820."
    assert mask_text(text) == "Write [EMAIL_1], [EMAIL_2] or [EMAIL_1]; call [PHONE_1]."


def test_numbers_begin_after_those_that_stand_there_already() -> None:
    assert mask_text("[EMAIL_3] wrote to ann@a.org") == "[EMAIL_3] wrote to [EMAIL_4]"


def test_a_whole_row_is_masked_but_for_its_identity() -> None:
    row = Example(
        id="ann@a.org",
        origin=Origin("ann@a.org.csv", 3),
        messages=(Message("system", "You are ann@a.org"), Message("user", "Who?"), Message("assistant", "bob@b.org")),
        rejected=(Message("assistant", "ann@a.org"),),
        metadata={"from": "bob@b.org", "size": 3},
        alternatives=("cid@c.org",),
        group="ann@a.org",
    )
    masked, counts = mask_example(row)
    assert [turn.content for turn in masked.messages] == ["You are [EMAIL_1]", "Who?", "[EMAIL_2]"]
    assert masked.rejected[0].content == "[EMAIL_1]"
    assert masked.metadata == {"from": "[EMAIL_2]", "size": 3}
    assert masked.alternatives == ("[EMAIL_3]",)
    assert (masked.id, masked.origin, masked.group) == (row.id, row.origin, row.group)
    assert counts == {"email": 5}


def test_class_names_stay_apart() -> None:
    row = asked("to ann@a.org", "ann@a.org", label="ann@a.org")
    masked, _ = mask_example(row)
    assert (masked.label, masked.reference, masked.messages[0].content) == ("ann@a.org", "ann@a.org", "to [EMAIL_1]")


def test_a_row_without_any_is_the_same_row() -> None:
    row = asked("What is 12 times 12?", "144")
    assert mask_example(row) == (row, {})


# fmt: off
PARTS = st.one_of(
    st.text(max_size=8),
    st.text("0123456789 -.:+()@/aZ_[]", max_size=24),
    st.sampled_from([text for text, _, _ in FOUND]),
    st.sampled_from([value for _, _, value in FOUND if value]),
    st.sampled_from(["[EMAIL_1]", "[CARD_12]", "EMAIL_", "]", "[", "@", "-", " "]),
)
# fmt: on
TEXTS = st.lists(PARTS, max_size=8).map("".join)


@settings(max_examples=600, deadline=None)
@given(TEXTS)
@example("a@b.org415-555-2671")
@example("4111 1111 1111 1111 DE89 3704 0044 0532 0130 00")
def test_masking_leaves_nothing_and_changes_nothing_else(text: str) -> None:
    masked = mask_text(text)
    assert personal_data(masked) == []
    assert mask_text(masked) == masked
    kept = PLACEHOLDER.split(masked)
    assert re.fullmatch(".+?".join(map(re.escape, kept)) if len(kept) > 1 else re.escape(kept[0]), text, re.DOTALL)
    mask = Mask()
    assert mask(mask.see(text)) == masked
    assert (sum(mask.counts.values()) == 0) is (masked == text)


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789", min_size=12, max_size=18), st.sampled_from(["", " ", "-"]))
def test_no_card_number_survives(digits: str, gap: str) -> None:
    body = "4" + digits[1:]
    check = next(digit for digit in "0123456789" if luhn(body + digit) or len(set(body + digit)) < 2)
    number = gap.join((body + check)[place : place + 4] for place in range(0, len(body) + 1, 4))
    if not gap or len(number.split(gap)[-1]) > 1:
        masked = mask_text(f"pay with {number} please")
        assert masked == "pay with [CARD_1] please" or not luhn(number)


def test_what_is_shown_is_never_in_clear() -> None:
    for text, kind, value in FOUND:
        if kind:
            (finding,) = of_kind(found([asked(text)]), "personal_data")
            shown = str(finding.problem(""))
            assert value not in shown
            assert NAMES[kind] in shown
            assert re.sub(r"[^0-9]", "", finding.examples[0].text)[1:] == ""
    assert veiled("ann@a.org") == "a**@*.***"


def test_counts_by_kind_and_places() -> None:
    rows = numbered(["a@b.org and c@d.org", "call +49 30 901820", "nothing"])
    (finding,) = of_kind(found(rows), "personal_data")
    assert (finding.severity, finding.count) == ("warning", 2)
    assert finding.what == "2 rows with what looks like personal data (2 e-mail, 1 phone number)"
    assert [str(seen) for seen in finding.examples] == [
        "rows.jsonl:1 (e-mail a@*.***)",
        "rows.jsonl:2 (phone number +4* ** ******)",
    ]
    assert finding.fix == (
        "set data.checks.personal_data to mask, which puts placeholders in its place, or ignore where it is public; "
        "names of people are never found this way"
    )


def test_what_the_recipe_says_of_personal_data() -> None:
    rows = numbered(["a@b.org"])
    assert [finding.severity for finding in found(rows, personal_data="error")] == ["error"]
    assert found(rows, personal_data="ignore") == []
