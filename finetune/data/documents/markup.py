"""HTML, Word, reStructuredText and XML documents to Markdown-like text: `convert_html(content, name)` and its like.

HTML is the hinge: Word (mammoth) and reStructuredText (docutils) become HTML first, and HTML becomes text in one way.
Nothing is fetched, included or run; links keep their words only, pictures the words that stand for them.
"""

from __future__ import annotations

import codecs
import io
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetune.data.documents.converted import LARGEST, Converted, Unreadable
from finetune.data.reading.utf8 import decode
from finetune.errors import FinetuneError, missing_extra

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from bs4 import BeautifulSoup, Tag

_NAVIGATION = ("nav", "header", "footer")
_CODE = ("script", "style", "noscript", "template", "iframe", "object", "svg", "button")
_LANDMARKS = ("navigation", "banner", "contentinfo", "search")
_RST_SETTINGS = {
    "_disable_config": True,
    "embed_stylesheet": False,
    "file_insertion_enabled": False,
    "halt_level": 5,
    "input_encoding": "unicode",
    "math_output": "LaTeX",
    "output_encoding": "unicode",
    "raw_enabled": False,
    "report_level": 5,
    "stylesheet_path": "",
    "syntax_highlight": "none",
}
_OLE = b"\xd0\xcf\x11\xe0"
_TITLES = ("title", "article-title", "head")


def convert_html(content: bytes, name: str) -> Converted:
    """Return the text of an HTML page, without scripts, styles and navigation.

    Raises:
        FinetuneError: the extra is not installed, or the bytes are not in the encoding that the page declares, which
            is UTF-8 where it declares none.
        Unreadable: its elements are nested too deeply.
    """
    try:
        from bs4.dammit import EncodingDetector
    except ImportError:
        raise missing_extra("beautifulsoup4", "documents", "reading HTML documents") from None
    declared = EncodingDetector.find_declared_encoding(content, is_html=True)
    try:
        encoding = codecs.lookup(declared or "utf-8").name
    except LookupError:
        encoding = "utf-8"
    if encoding in ("utf-8", "ascii"):
        return _convert_page(decode(content, name))
    # Browsers take what pages call latin-1 for the larger cp1252
    encoding = "cp1252" if encoding == "iso8859-1" else encoding
    try:
        return _convert_page(content.decode(encoding))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"not {declared}, as the page declares: byte 0x{content[error.start]:02x} at byte {error.start}"
        raise FinetuneError(what, where=f"{name}:{line}", fix="save it as UTF-8") from None


def _convert_page(page: str) -> Converted:
    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        soup = BeautifulSoup(page, "html.parser")
    stripped: Counter[str] = Counter()
    heading = soup.title or soup.h1
    title = heading.get_text(" ", strip=True) if heading else ""
    for tag in list(_boilerplate(soup)):
        if not tag.decomposed:
            stripped["scripts and styles" if tag.name in _CODE else "navigations, page headers and footers"] += 1
            tag.decompose()
    _plain_inlines(soup)
    return Converted(_markdown(soup.body or soup), title, stripped)


def _boilerplate(soup: BeautifulSoup) -> Iterator[Tag]:
    """What is on a page but not of its text; a header or footer inside an article, or one with the title, stays."""
    for tag in soup.find_all(True):
        if tag.name in _CODE or (_is_landmark(tag) and tag.find("h1") is None):
            yield tag


def _is_landmark(tag: Tag) -> bool:
    if tag.name not in _NAVIGATION and tag.get("role") not in _LANDMARKS:
        return False
    return tag.name == "nav" or tag.find_parent(["article", "main", "section"]) is None


def _plain_inlines(soup: BeautifulSoup) -> None:
    """Leave of links their words, of pictures the words that stand for them, and of powers a sign."""
    for tag in soup.find_all(["title", "a", "img", "sup"]):
        words = tag.get_text(strip=True)
        if tag.name == "a" and words not in ("¶", "#"):
            tag.unwrap()
        elif tag.name == "img":
            tag.replace_with(str(tag.get("alt") or ""))
        elif tag.name == "sup" and re.fullmatch(r"[-+\u2212\u2013]?\d+", words):
            tag.insert(0, "^")
        elif tag.name in ("title", "a"):
            tag.decompose()


def _markdown(soup: Tag) -> str:
    from markdownify import MarkdownConverter

    converter = MarkdownConverter(
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        heading_style="atx",
        table_infer_header=True,
    )
    try:
        text: str = converter.convert_soup(soup)
    except RecursionError:
        raise _too_deep() from None
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip() + "\n"


def _too_deep() -> Unreadable:
    return Unreadable("nested too deeply", "its elements stand hundreds deep in each other")


def convert_docx(content: bytes, name: str) -> Converted:
    """Return the text of a Word document: headings, lists, tables, notes; no pictures, page headers or footers.

    Raises:
        FinetuneError: the extra is not installed.
        Unreadable: it is encrypted, broken or larger than it may be.
    """
    try:
        import mammoth
    except ImportError:
        raise missing_extra("mammoth", "documents", "reading Word documents") from None
    _check_package(content)
    try:
        result = mammoth.convert_to_html(
            io.BytesIO(content),
            convert_image=mammoth.images.img_element(lambda image: {"src": ""}),
            include_embedded_style_map=False,
            style_map="p[style-name='Title'] => h1:fresh",
        )
    except Exception as error:  # a broken document makes the library fail in any way
        raise Unreadable("broken document", f"{type(error).__name__}: {error}") from None
    converted = _convert_page(result.value)
    unknown = sum("unrecognised element" in message.message for message in result.messages)
    if unknown:
        converted.stripped["elements of Word documents that are no text (formulas, drawings)"] = unknown
    return converted


def _check_package(content: bytes) -> None:
    """Refuse a Word document that is encrypted, no Word document, too large unpacked, or has XML entities."""
    if content.startswith(_OLE):
        raise Unreadable("encrypted", "an encrypted document, or one of Word 97-2003", "save it as .docx, unencrypted")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as package:
            size = sum(part.file_size for part in package.infolist())
            if size > LARGEST:
                raise Unreadable("too large", f"{size:,} bytes unpacked, at most {LARGEST:,}", "divide it")
            for part in package.namelist():
                if part.endswith((".xml", ".rels")):
                    _parsed(package.read(part))
            if "word/document.xml" not in package.namelist():
                raise Unreadable("broken document", "it has no word/document.xml")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise Unreadable("broken document", f"no readable zip archive: {error}") from None


def convert_rst(content: bytes, name: str) -> Converted:
    """Return the text of a reStructuredText document; directives and roles of other programs stay as written.

    Raises:
        FinetuneError: the extra is not installed, or the document is not UTF-8.
        Unreadable: its elements are nested too deeply.
    """
    try:
        from docutils import nodes
        from docutils.core import publish_doctree, publish_from_doctree
    except ImportError:
        raise missing_extra("docutils", "documents", "reading reStructuredText documents") from None
    try:
        tree = publish_doctree(decode(content, name), settings_overrides=_RST_SETTINGS)
        for message in list(tree.findall(nodes.system_message)):
            message.parent.replace(message, [child for child in message if isinstance(child, nodes.literal_block)])
        page = publish_from_doctree(tree, writer="html5", settings_overrides=_RST_SETTINGS)
    except RecursionError:
        raise _too_deep() from None
    return _convert_page(page)


def convert_xml(content: bytes, name: str) -> Converted:
    """Return the text of an XML document, a paragraph for each element that holds text; entities are refused.

    Raises:
        FinetuneError: the extra is not installed.
        Unreadable: it is broken XML, declares entities, or its elements are nested too deeply.
    """
    from xml.etree.ElementTree import tostring

    root = _parsed(content)
    try:
        if _local(root) == "html":
            for element in root.iter():
                element.tag = _local(element)
            return _convert_page(tostring(root, encoding="unicode", method="html"))
        paragraphs = list(_paragraphs(root))
        titles = (_words(element) for element in root.iter() if _local(element) in _TITLES)
        return Converted("\n\n".join(paragraphs) + "\n", next(filter(None, titles), ""))
    except RecursionError:
        raise _too_deep() from None


def _parsed(content: bytes) -> Element:
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError:
        raise missing_extra("defusedxml", "documents", "reading XML and Word documents") from None
    try:
        root: Element = fromstring(content)
    except DefusedXmlException:
        raise Unreadable("XML entities", "it declares entities, which are not expanded", "write them out") from None
    except (ParseError, ValueError, LookupError) as error:
        raise Unreadable("broken XML", str(error)) from None
    return root


def _local(element: Element) -> str:
    """Return an element's name without its namespace; comments have none."""
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def _words(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _paragraphs(element: Element) -> Iterator[str]:
    """Give the text of each innermost block: an element with text of its own is one, whatever stands inside it."""
    own = [element.text, *(child.tail for child in element)]
    if not len(element) or any(text and text.strip() for text in own):
        if words := _words(element):
            yield words
        return
    for child in element:
        yield from _paragraphs(child)
