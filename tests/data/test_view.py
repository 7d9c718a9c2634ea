"""Looking at a row: every token once, what is learned marked, nothing from data becomes markup."""

from __future__ import annotations

import html
import re
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.chat.encoder import ChatEncoder
from finetune.data.rows import Message, TokenRow
from finetune.data.view import NOT_LEARNED, STYLE, as_html, as_rich, pieces, tokens
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
HOSTILE = "</span></pre><script>alert('x')</script> & \" <b>bold</b> [red]markup[/red]"


def row_of(*turns: str) -> TokenRow:
    roles = ("user", "assistant")
    messages = [Message(roles[number % 2], turn) for number, turn in enumerate(turns)]  # type: ignore[arg-type]
    encoded = ChatEncoder(TOKENIZER).encode(messages)
    return TokenRow("row", encoded.input_ids, encoded.trained)


def test_pieces_divide_where_learning_begins_and_ends() -> None:
    found = [(piece.text, piece.trained) for piece in pieces(row_of("Hello", "Hi", "Bye", "See you"), TOKENIZER)]
    assert found == [
        ("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", False),
        ("Hi<|im_end|>", True),
        ("\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", False),
        ("See you<|im_end|>", True),
        ("\n", False),
    ]


def test_tokens_say_id_text_and_whether_they_are_learned() -> None:
    row = row_of("Hello", "Hi")
    found = tokens(row, TOKENIZER)
    assert [token["id"] for token in found] == row.input_ids.tolist()
    assert [token["trained"] for token in found] == row.trained.tolist()
    assert "".join(token["text"] for token in found) == TOKENIZER.decode(row.input_ids)
    assert {type(token["trained"]) for token in found} == {bool}


def test_nothing_in_a_row_becomes_html() -> None:
    page = as_html(row_of(HOSTILE, HOSTILE), TOKENIZER)
    assert set(re.findall(r"</?(\w+)", page)) == {"pre", "span"}
    assert page.count(html.escape(HOSTILE)) == 2
    learned = re.findall(rf'<span style="{re.escape(STYLE)}">(.*?)</span>', page, re.DOTALL)
    assert [html.unescape(text) for text in learned] == [f"{HOSTILE}<|im_end|>"]


def test_nothing_in_a_row_becomes_markup_of_the_terminal() -> None:
    text = as_rich(row_of(HOSTILE, "Hi"), TOKENIZER)
    assert HOSTILE in text.plain
    assert [str(span.style) for span in text.spans] == ["dim", "black on green", "dim"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(4, 400), st.booleans()), min_size=1, max_size=30))
def test_every_token_is_shown_once(marked: list[tuple[int, bool]]) -> None:
    row = TokenRow("row", np.array([t for t, _ in marked], dtype=np.int32), np.array([m for _, m in marked]))
    found = pieces(row, TOKENIZER)
    assert all(one.trained != next_.trained for one, next_ in pairwise(found))
    assert len(tokens(row, TOKENIZER)) == len(marked)
    spans = re.findall(r'<span style="([^"]*)">', as_html(row, TOKENIZER))
    assert spans == [STYLE if piece.trained else NOT_LEARNED for piece in found]
