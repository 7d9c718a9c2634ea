"""Text out of bytes: the same text as Python's own decoder, or the exact byte and line where it goes wrong."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.reading.packed import Content, FileContent
from finetune.data.reading.utf8 import decode, head, text_lines, text_pieces
from finetune.errors import FinetuneError, Problem


def content(data: bytes) -> Content:
    return Content("a.txt", len(data), lambda: io.BytesIO(data))


def fault(data: bytes) -> Problem:
    with pytest.raises(FinetuneError) as caught:
        decode(data, "a.txt")
    for read in (text_lines, text_pieces):
        with pytest.raises(FinetuneError) as streamed:
            list(read(content(data)))
        assert streamed.value.problems == caught.value.problems
    return caught.value.problems[0]


@given(st.text().filter(lambda text: "\0" not in text))
def test_lines_are_the_text(text: str) -> None:
    data = text.encode()
    assert "".join(text_lines(content(data))) == "".join(text_pieces(content(data))) == text.removeprefix("\ufeff")
    assert [line.removesuffix("\n") for line in text_lines(content(data + b"\n"))] == text.removeprefix("\ufeff").split(
        "\n"
    )


@given(st.text(min_size=1), st.binary(min_size=1, max_size=4), st.text())
def test_the_first_bad_byte_is_the_one_that_python_names(before: str, middle: bytes, after: str) -> None:
    data = before.encode() + middle + after.encode()
    if b"\0" in data or not data.strip() or data.startswith((b"\xff\xfe", b"\xfe\xff", b"BZh", b"PAR1")):
        return
    try:
        data.decode()
        return
    except UnicodeDecodeError as error:
        start = error.start
    problem = fault(data)
    assert problem.what == f"not UTF-8: byte 0x{data[start]:02x} at byte {start}"
    assert problem.where == f"a.txt:{data.count(10, 0, start) + 1}"


@pytest.mark.parametrize("offset", [0, 1, 2**20 - 14, 2**20 - 2, 2**20 - 1, 2**20, 2**20 + 5, 2 * 2**20 - 1])
def test_faults_at_the_seams_of_blocks(offset: int) -> None:
    start = ("é\n" * (offset // 3 + 1)).encode()[:offset]
    start = start.decode("utf-8", "ignore").encode().ljust(offset, b"x")
    problem = fault(b"-" + start + b"\xe9\nrest")
    assert problem.what == f"not UTF-8: byte 0xe9 at byte {offset + 1}"
    assert problem.where == f"a.txt:{start.count(10) + 1}"
    assert "é" in problem.fix.partition("if that")[0]
    problem = fault(b"-" + start + b"\0rest\xff\0")
    assert problem.what == f"NUL byte at byte {offset + 1} (2 in the file)"
    assert problem.where == f"a.txt:{start.count(10) + 1}"


def test_characters_over_the_seams_of_blocks_are_whole(tmp_path: Path) -> None:
    text = "x" * (2**20 - 1) + "é\nü"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert list(text_lines(FileContent(str(tmp_path / "a.txt")))) == [text[:-1], "ü"]
    assert len(head(FileContent(str(tmp_path / "a.txt")))) == 2**20


def test_half_a_mark_is_no_text() -> None:
    for data in (b"\xef", b"\xef\xbb"):
        assert fault(data).what == "not UTF-8: byte 0xef at byte 0"


def test_a_mark_alone_is_empty() -> None:
    for data in (b"\xef\xbb\xbf", b"\xef\xbb\xbf \n", b""):
        with pytest.raises(FinetuneError, match=r"^a\.txt: the file is empty$"):
            head(content(data))
        with pytest.raises(FinetuneError, match=r"^a\.txt: the file is empty$"):
            decode(data, "a.txt")
    assert head(content(b" " * 2**21 + b"x")).strip() == "x"
