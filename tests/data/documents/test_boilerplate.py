"""Nothing but markup and repeated blocks is left out of a document, whatever its text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.documents.boilerplate import clean_markdown, repeated_blocks, without_blocks

WORDS = ("bone", "a < b > c", "Map<T>", "é", "|", "&lt;", " `<div>` ", " `` ")
LINES = ("\n", "\n\n", "\r\n", "    ", "# Arm\n", "- ulna\n", "\n```\n<p>{: x}</p>\n```\n", "~~~\n", "---\n", "x: y\n")
PARTS = st.lists(st.sampled_from([*WORDS, *LINES, "\x0b", "\u2028"]), max_size=40).map("".join)
TAGS = st.sampled_from(["<div class='a b'>", "</div>", "<br/>", "{: .note}", "<x-note n=1>", "</x-note>"])
BLOCKS = ["Back to the table of contents", "Copyright 2014 by the college.", "The humerus is a bone.", "# Arm", "short"]


@settings(max_examples=300, deadline=None)
@given(text=PARTS)
def test_markdown_without_markup_is_kept_to_the_byte(text: str) -> None:
    text = "Prose. " + text  # nothing that stands first can be a front matter
    found = clean_markdown(text)
    assert found.text == text
    assert not found.stripped


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.tuples(st.sampled_from(["radius ", "ulna. "]), TAGS), min_size=1, max_size=20))
def test_tags_go_and_words_stay(words: list[tuple[str, str]]) -> None:
    found = clean_markdown("".join(word + tag for word, tag in words))
    assert found.text.split() == "".join(word for word, _ in words).split()
    assert sum(found.stripped.values()) == len(words)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from([*BLOCKS, "own 1", "own 2", "own 3"]), max_size=8), max_size=12))
def test_what_is_left_out_and_what_is_kept_make_up_the_document(documents: list[list[str]]) -> None:
    texts = ["\n\n".join(blocks) for blocks in documents]
    repeated = repeated_blocks(texts)
    for text in texts:
        kept, out = without_blocks(text, repeated)
        assert sorted([*kept.split(), *" ".join(out).split()]) == sorted(text.split())
        assert all(block in BLOCKS[:3] for block in out)
        if not out:
            assert kept == text


def test_a_document_of_repeated_blocks_alone_is_left_empty() -> None:
    texts = [f"Own text {number}.\n\n{BLOCKS[0]}" for number in range(5)]
    assert without_blocks(BLOCKS[0], repeated_blocks(texts)) == ("", [BLOCKS[0]])
    assert repeated_blocks(texts[:4]) == frozenset()
