"""What stands in documents without being of their text: front matter, markup in Markdown, blocks that many repeat."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from finetune.data.documents.converted import Converted, one_line

_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n(?P<yaml>.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# An element of HTML, or one with a hyphen in its name as custom elements have: `<cnx-pi class="x">`, but not `<T>`
_TAG = re.compile(
    r"</?(?:a|abbr|article|aside|b|blockquote|br|caption|center|cite|code|col|colgroup|dd|del|details|div|dl|dt|em"
    r"|figcaption|figure|font|footer|h[1-6]|header|hr|i|iframe|img|ins|kbd|li|main|mark|nav|ol|p|pre|q|s|section|small"
    r"|span|strong|sub|summary|sup|table|tbody|td|tfoot|th|thead|tr|tt|u|ul|video|[a-z]+-[a-z-]+)"
    r"(?:\s+[\w:.-]+(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+))?)*\s*/?>",
    re.IGNORECASE,
)
_ATTRIBUTES = re.compile(r"\{:[^{}\n]*\}")
_INLINE_CODE = re.compile(r"(?<!`)(`+)(?!`)(?:[^\n]|\n(?!\s*\n))+?(?<!`)\1(?!`)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)

_BLOCK = re.compile(r"[ \t]*\S[^\n]*(?:\n[ \t]*\S[^\n]*)*")
_LEGAL = re.compile(
    r"licen[cs]ed under|all rights reserved|creative commons|copyright|©|terms of (?:use|service)|privacy policy", re.I
)
# Blocks from either end of a document that may be its header or footer, and how short they may be
_EDGE = 8
_SHORTEST = 16
# Among how many documents a block counts as repeated: at least five, and one in twenty
_FEWEST = 5
_SHARE = 0.05


def clean_markdown(text: str) -> Converted:
    """Leave front matter, comments, HTML tags and kramdown attribute lists out of Markdown; code is left alone.

    The words between tags stay. `title` is that of the front matter, else the first heading.
    """
    stripped: Counter[str] = Counter()
    title = ""
    found = _FRONT_MATTER.match(text)
    fields = _fields(found["yaml"]) if found else None
    if found and fields is not None:
        stripped["YAML front matters"] += 1
        title = one_line(fields.get("title"))
        text = text[found.end() :]
    parts = []
    for part, is_code in _code_apart(text):
        if not is_code:
            part, comments = _COMMENT.subn("", part)
            part, tags = _TAG.subn("", part)
            part, lists = _ATTRIBUTES.subn("", part)
            stripped.update({"comments": comments, "HTML tags and attribute lists of Markdown": tags + lists})
        parts.append(part)
    changed = any(stripped.values())
    text = "".join(parts)
    if changed:
        text = re.sub(r"\n(?:[ \t]*\n){2,}", "\n\n", text).strip("\n") + "\n"
    heading = _HEADING.search(text)
    return Converted(text, title or (heading[1] if heading else ""), +stripped)


def _fields(text: str) -> dict[str, Any] | None:
    """Return what a front matter says, or None where the text between two rules is no front matter."""
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        lines = [line for line in text.splitlines() if line.strip()]
        return {} if lines and all(re.match(r"[\w-]+:|[ \t]|#|- ", line) for line in lines) else None
    return found if isinstance(found, dict) else {} if found is None else None


def _code_apart(text: str) -> Iterator[tuple[str, bool]]:
    """Divide Markdown into code and the rest, in order."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt()
    parser.core.ruler.disable("inline")
    lines = _LINE.findall(text)
    blocks = [token.map for token in parser.parse(text) if token.type in ("fence", "code_block") and token.map]
    place = 0
    for first, end in [*blocks, [len(lines), len(lines)]]:
        rest = "".join(lines[place:first])
        done = 0
        for match in _INLINE_CODE.finditer(rest):
            yield rest[done : match.start()], False
            yield match[0], True
            done = match.end()
        yield rest[done:], False
        yield "".join(lines[first:end]), True
        place = end


def repeated_blocks(texts: Iterable[str]) -> frozenset[bytes]:
    """Find the blocks that many documents repeat at their ends, and the legal ones that they repeat anywhere.

    A block is what stands between blank lines. Equal documents count once; headings are never among the blocks.
    """
    seen: set[bytes] = set()
    counts: Counter[bytes] = Counter()
    for text in texts:
        whole = _key(text)
        if whole not in seen:
            seen.add(whole)
            counts.update({_key(text[slice(*place)]) for place in _candidates(text)})
    needed = max(_FEWEST, len(seen) * _SHARE)
    return frozenset(key for key, count in counts.items() if count >= needed)


def without_blocks(text: str, repeated: frozenset[bytes]) -> tuple[str, list[str]]:
    """Leave out of a text the repeated blocks at its ends, and legal ones anywhere; also return what was left out."""
    places = _places(text)
    same = [_may_repeat(text[slice(*place)]) and _key(text[slice(*place)]) in repeated for place in places]
    first = next((place for place, is_repeated in enumerate(same) if not is_repeated), len(same))
    last = next((place for place in reversed(range(len(same))) if not same[place]), -1)
    out = [
        place
        for place, is_repeated in enumerate(same)
        if is_repeated and (place < first or place > last or _LEGAL.search(text[slice(*places[place])]))
    ]
    if not out:
        return text, []
    parts, done = [], 0
    for place in out:
        parts.append(text[done : places[place][0]])
        done = places[place][1]
    kept = re.sub(r"\n(?:[ \t]*\n){2,}", "\n\n", "".join([*parts, text[done:]])).strip("\n")
    return (kept + "\n" if kept else ""), [text[slice(*places[place])] for place in out]


def _places(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _BLOCK.finditer(text)]


def _candidates(text: str) -> list[tuple[int, int]]:
    places = _places(text)
    edges = {*places[:_EDGE], *places[-_EDGE:]}
    return [
        place
        for place in places
        if (place in edges or _LEGAL.search(text[slice(*place)])) and _may_repeat(text[slice(*place)])
    ]


def _may_repeat(block: str) -> bool:
    return len(block.strip()) >= _SHORTEST and _HEADING.match(block) is None


def _key(block: str) -> bytes:
    return hashlib.blake2b(" ".join(block.split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()
