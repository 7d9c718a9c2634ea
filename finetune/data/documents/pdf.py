"""The running text of a PDF file, without repeated page headers and footers: `convert_pdf(content, name)`."""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from finetune.data.documents.converted import Converted, Unreadable, one_line
from finetune.errors import missing_extra

if TYPE_CHECKING:
    from pypdf import PdfReader

# Lines at the top and bottom of a page that may be its header or footer, and on which share of the pages
_EDGE = 3
_SHARE = 1 / 3
_FEWEST = 3
# A line that reaches this far goes on in the next one; a shorter one ends a paragraph, a heading or an item
_FULL = 0.8
_NUMBER = re.compile(r"^[0-9]{1,5}\b|\b[0-9]{1,5}$|(?<=[Pp]age )[0-9]{1,5}\b")
_ITEM = re.compile(r"[\u2022\u2023\u25aa\u25cf\u25e6\u2013*-]\s")
_SPLIT_WORD = re.compile(r"([^\W\d_]+)[-\u2010]$")
_LIGATURES = {0xAD: None, 0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl"}


def convert_pdf(content: bytes, name: str) -> Converted:
    """Return the text of a PDF file: lines joined to paragraphs, divided words put together, ligatures written out.

    Raises:
        FinetuneError: the extra is not installed.
        Unreadable: it is encrypted, broken, or has pictures of text only.
    """
    try:
        import pypdf
    except ImportError:
        raise missing_extra("pypdf", "documents", "reading PDF documents") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            fix = "save it without its password, e.g. `qpdf --decrypt --password=... OLD NEW`"
            raise Unreadable("encrypted", "it opens with a password only", fix)
        pages = [page.extract_text().translate(_LIGATURES).splitlines() for page in reader.pages]
        title = _title(reader)
    except Unreadable:
        raise
    except Exception as error:  # a broken file makes the library fail in any way
        raise Unreadable("broken PDF", f"{type(error).__name__}: {error}", "save or fetch it again") from None
    pages = [[line.strip() for line in page] for page in pages]
    empty = sum(not any(page) for page in pages)
    if empty == len(pages):
        fix = "run text recognition first, e.g. `ocrmypdf OLD NEW`"
        raise Unreadable("no text layer", f"its {len(pages)} pages hold pictures or nothing", fix)
    stripped = Counter({"PDF pages without text": empty} if empty else {})
    pages, repeated = _without_running_heads(pages)
    if repeated:
        stripped["repeated page headers, footers and numbers of PDF pages"] = repeated
    return Converted(_joined(pages), title, stripped)


def _title(reader: PdfReader) -> str:
    return one_line(reader.metadata.title) if reader.metadata else ""


def _without_running_heads(pages: Sequence[list[str]]) -> tuple[list[list[str]], int]:
    """Leave out lines at the edge of pages that are no text of theirs, and count them."""
    edges = [_edges(page) for page in pages]
    running = _running_heads([[page[place] for place in places] for page, places in zip(pages, edges, strict=True)])
    kept, count = [], 0
    for number, (page, places) in enumerate(zip(pages, edges, strict=True)):
        outermost = (min(places, default=0), max(places, default=0))
        heads = {place for place in places if running(page[place], number, place in outermost)}
        count += len(heads)
        rest = "\n".join(line for place, line in enumerate(page) if place not in heads)
        kept.append(rest.strip().splitlines())
    return kept, count


def _running_heads(edges: Sequence[Sequence[str]]) -> Callable[[str, int, bool], bool]:
    """Learn from the lines at the edges of all pages which are headers, footers or page numbers.

    These are the same on a third of the pages and at least three; or they hold the number of the page, counted as a
    third of the pages do, and nothing else, or what three pages have around it, or are outermost and end in it.
    """
    same = Counter(line for page in edges for line in set(page))
    shapes = Counter(shape for page in edges for shape in {_shape(line) for line in page})
    firsts = Counter(
        first for number, page in enumerate(edges) for first in {one for line in page for one in _firsts(line, number)}
    )
    needed = max(_FEWEST, len(edges) * _SHARE)

    def is_head(line: str, page: int, outermost: bool) -> bool:
        if same[line] >= needed:
            return True
        shape = _shape(line)
        around = shape == "#" or shapes[shape] >= _FEWEST or (outermost and shape.endswith("#"))
        return around and any(firsts[first] >= needed for first in _firsts(line, page))

    return is_head


def _edges(page: Sequence[str]) -> set[int]:
    filled = [place for place, line in enumerate(page) if line]
    return {*filled[:_EDGE], *filled[-_EDGE:]}


def _firsts(line: str, page: int) -> set[int]:
    """Return the number that the first page would have if this line held that of its own page."""
    return {int(found) - page for found in _NUMBER.findall(line)}


def _shape(line: str) -> str:
    """Return a line with each number made alike."""
    return re.sub(r"\d+", "#", " ".join(line.split()))


def _joined(pages: Sequence[Sequence[str]]) -> str:
    """Join lines that reach the right margin to the next one, over pages too."""
    words = Counter(re.findall(r"\w+(?:-\w+)*", " ".join(line.lower() for page in pages for line in page)))
    paragraphs = [""]
    goes_on = False
    for page in pages:
        lengths = sorted(len(line) for line in page if line)
        margin = lengths[len(lengths) * 9 // 10] * _FULL if lengths else 0
        for line in page:
            if line and goes_on and not _ITEM.match(line):
                paragraphs[-1] = _continued(paragraphs[-1], line, words)
            elif line:
                paragraphs.append(line)
            goes_on = bool(line) and len(line) >= margin
    return "\n\n".join(paragraphs[1:]) + "\n"


def _continued(before: str, line: str, words: Counter[str]) -> str:
    """Join a line to the text before it; a word divided at the line's end is written as elsewhere in the document."""
    divided = _SPLIT_WORD.search(before)
    if divided is None or not line[:1].islower():
        return f"{before} {line}"
    rest = re.match(r"\w+", line)
    first, second = divided[1].lower(), rest[0].lower() if rest else ""
    hyphenated = words[f"{first}-{second}"] > words[f"{first}{second}"]
    return (before if hyphenated else before[: divided.end(1)]) + line
