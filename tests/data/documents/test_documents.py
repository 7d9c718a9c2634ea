"""Documents become rows of their own text, and all that is left out is counted."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.data.documents import Documents, read_documents
from finetune.data.reading.sources import read_rows
from finetune.errors import FinetuneError

ANATOMY = (
    Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "datasets" / "openstax_anatomy"
)
PROSE = (
    "The humerus is the long bone of the upper arm. It runs from the shoulder to the elbow, where it meets the two "
    "bones of the forearm, the radius and the ulna."
)


def read(folder: Path, **files: str | bytes) -> Documents:
    """Write files (`a_md` becomes `a.md`) and read them."""
    paths = []
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        paths.append(str(path))
    return read_documents(paths, where="r.yaml:3", folder=str(folder))


def text_of(found: Documents) -> str:
    assert found.rejected == []
    assert len(found.rows) == 1
    return str(found.rows[0].fields["text"])


def fault(found: Documents) -> tuple[str, str]:
    assert len(found.rows) == 0
    assert len(found.rejected) == 1
    return found.rejected[0].reason, found.rejected[0].detail


def notes(found: Documents) -> list[str]:
    assert all(note.severity == "note" and note.where == "r.yaml:3" for note in found.notes)
    return [note.what for note in found.notes]


def pdf(pages: list[list[str]], **options: object) -> bytes:
    """A PDF file with these lines on its pages."""
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    canvas = Canvas(out, invariant=1, **options)
    canvas.setTitle("Bones of the arm")
    for lines in pages:
        for number, line in enumerate(lines):
            canvas.drawString(72, 760 - 16 * number, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def docx() -> bytes:
    import docx

    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Confidential, page 1"
    document.add_heading("Bones of the arm", 1)
    document.add_paragraph(PROSE)
    document.add_paragraph("the clavicle", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, words in zip((c for row in table.rows for c in row.cells), ["bone", "count", "carpal", "8"], strict=True):
        cell.text = words
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------------- markdown


def test_markdown_keeps_its_words_and_loses_its_markup(tmp_path: Path) -> None:
    page = (
        '---\ntitle: "The  arm"\nlayout: page\n---\n<!-- draft -->\n<div class="note" markdown="1">\n'
        f"## Bones {{: .big}}\n\n{PROSE}<br/>\n</div>\n\nWrite `<div>` or Map<T> if 3 < 4.\n\n"
        "```html\n<div>{: kept}</div>\n```\n"
    )
    found = read(tmp_path, arm_md=page)
    assert text_of(found) == (
        f"## Bones \n\n{PROSE}\n\nWrite `<div>` or Map<T> if 3 < 4.\n\n```html\n<div>{{: kept}}</div>\n```\n"
    )
    row = found.rows[0]
    assert (row.key, row.fields["document"], row.fields["title"], row.fields["kind"]) == (
        "arm.md",
        "arm.md",
        "The arm",
        "Markdown",
    )
    assert str(row.origin) == f"{tmp_path / 'arm.md'}:1"
    assert notes(found) == [
        "1 YAML front matters were left out of 1 document",
        "1 comments were left out of 1 document",
        "4 HTML tags and attribute lists of Markdown were left out of 1 document",
    ]
    assert found.container == "1 Markdown document"
    assert list(found.files) == [str(tmp_path / "arm.md")]


def test_plain_markdown_and_text_are_kept_to_the_byte(tmp_path: Path) -> None:
    rule = f"---\n\n{PROSE}\n\n---\n\nmore\r\n\r\n\r\n\r\nend  \n\n"
    found = read(tmp_path, a_md=rule, b_txt="\ufeff  " + rule + "<p>\n")
    assert [row.fields["text"] for row in found.rows] == [rule, "  " + rule + "<p>\n"]
    assert [row.fields["title"] for row in found.rows] == ["a", "b"]
    assert notes(found) == []
    assert found.container == "1 Markdown document, 1 plain text document"


def test_broken_front_matter_is_still_left_out(tmp_path: Path) -> None:
    assert text_of(read(tmp_path, a_md=f"---\ntitle: a: b\n---\n# Arm\n\n{PROSE}\n")) == f"# Arm\n\n{PROSE}\n"


# ----------------------------------------------------------------------------------------------------------- html

PAGE = f"""<!DOCTYPE html><html><head><title>The arm</title><style>p {{}}</style></head><body>
<header><a href="/">Home</a></header><nav>menu</nav><script>track()</script>
<article><header><h1>Arm<a class="headerlink" href="#arm">¶</a></h1></header>
<p>{PROSE} About 10<sup>6</sup> cells, see <a href="https://example.org/x">the atlas</a>.</p>
<img src="data:image/png;base64,AAAA" alt="An X-ray."><ul><li>radius</li><li>ulna</li></ul>
<table><tr><th>bone</th><th>count</th></tr><tr><td>carpal</td><td>8</td></tr></table></article>
<footer>All rights reserved</footer></body></html>"""


def test_html_becomes_its_text(tmp_path: Path) -> None:
    found = read(tmp_path, arm_html=PAGE)
    assert text_of(found) == (
        f"# Arm\n\n{PROSE} About 10^6 cells, see the atlas.\n\nAn X-ray.\n\n- radius\n- ulna\n\n"
        "| bone | count |\n| --- | --- |\n| carpal | 8 |\n"
    )
    assert found.rows[0].fields["title"] == "The arm"
    assert notes(found) == [
        "2 scripts and styles were left out of 1 document",
        "3 navigations, page headers and footers were left out of 1 document",
    ]


def test_html_is_read_in_the_encoding_it_declares(tmp_path: Path) -> None:
    page = f'<meta charset="iso-8859-1"><p>Ménière\u2019s disease. {PROSE}</p>'.encode("cp1252")
    assert text_of(read(tmp_path, a_html=page)) == f"Ménière\u2019s disease. {PROSE}\n"
    with pytest.raises(FinetuneError) as caught:
        read(tmp_path, a_html=b'<meta charset="shift_jis">\n' + b"\x80\xff")
    assert str(caught.value) == (
        f"{tmp_path / 'a.html'}:2: not shift_jis, as the page declares: byte 0x80 at byte 27\n    -> save it as UTF-8"
    )


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    found = read(tmp_path, a_html="<div>" * 20_000 + PROSE)
    assert fault(found) == ("nested too deeply", "its elements stand hundreds deep in each other")
    found = read(tmp_path, a_xml="<a>" * 20_000 + PROSE + "</a>" * 20_000)
    assert fault(found) == ("nested too deeply", "its elements stand hundreds deep in each other")


# ------------------------------------------------------------------------------------------- word, rst, xml


def test_word_becomes_its_text(tmp_path: Path) -> None:
    found = read(tmp_path, arm_docx=docx())
    assert text_of(found) == (
        f"# Bones of the arm\n\n{PROSE}\n\n- the clavicle\n\n| bone | count |\n| --- | --- |\n| carpal | 8 |\n"
    )
    assert found.rows[0].fields["title"] == "Bones of the arm"


def _with_entities(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for part in old.namelist():
            data = old.read(part)
            if part == "word/document.xml":
                data = data.replace(b"?>", b'?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', 1)
            new.writestr(part, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("damage", "reason", "detail"),
    [
        (lambda content: content[:500], "broken document", "no readable zip archive: File is not a zip file"),
        (lambda content: b"\xd0\xcf\x11\xe0", "encrypted", "an encrypted document, or one of Word 97-2003"),
        (_with_entities, "XML entities", "it declares entities, which are not expanded"),
    ],
)
def test_bad_word_documents_are_rejected(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str, detail: str
) -> None:
    assert fault(read(tmp_path, a_docx=damage(docx()))) == (reason, detail)


def test_a_zip_without_a_document_is_no_word_document(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("a.txt", "a")
    assert fault(read(tmp_path, a_docx=out.getvalue())) == ("broken document", "it has no word/document.xml")


def test_restructured_text_becomes_its_text_and_includes_nothing(tmp_path: Path) -> None:
    page = (
        f"Arm\n===\n\n.. contents::\n\n{PROSE} See :bone:`ulna` and *this*.\n\n.. include:: /etc/passwd\n\n"
        ".. raw:: html\n\n   <script>x</script>\n\n.. exercise:: One\n\n   Name the carpal bones.\n\n"
        "Hand\n----\n\n- radius\n"
    )
    found = read(tmp_path, arm_rst=page)
    assert text_of(found) == (
        f"# Arm\n\n{PROSE} See :bone:`ulna` and *this*.\n\n```\n.. include:: /etc/passwd\n```\n\n"
        "```\n.. raw:: html\n\n   <script>x</script>\n```\n\n"
        "```\n.. exercise:: One\n\n   Name the carpal bones.\n```\n\n"
        "## Hand\n\n- radius\n"
    )
    assert notes(found) == ["1 navigations, page headers and footers were left out of 1 document"]


def test_xml_gives_a_paragraph_for_each_block(tmp_path: Path) -> None:
    page = f"""<?xml version="1.0" encoding="iso-8859-1"?><!DOCTYPE article><a:article xmlns:a="urn:x"><front>
    <article-title>Ménière</article-title></front><body><sec><p>One <b>two</b> three.</p><p>{PROSE}</p></sec></body>
    </a:article>""".encode("latin-1")
    found = read(tmp_path, a_xml=page)
    assert text_of(found) == f"Ménière\n\nOne two three.\n\n{PROSE}\n"
    assert found.rows[0].fields["title"] == "Ménière"
    xhtml = f'<html xmlns="http://www.w3.org/1999/xhtml"><body><nav>menu</nav><h1>Arm</h1><p>{PROSE}</p></body></html>'
    assert text_of(read(tmp_path, a_xml=xhtml)) == f"# Arm\n\n{PROSE}\n"


@pytest.mark.parametrize(
    ("page", "reason", "detail"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "XML entities", "it declares entities, which are not expanded"),
        ("<a>\n<b></a>", "broken XML", "mismatched tag: line 2, column 5"),
    ],
)
def test_bad_xml_is_rejected(tmp_path: Path, page: str, reason: str, detail: str) -> None:
    assert fault(read(tmp_path, a_xml=page)) == (reason, detail)


# ------------------------------------------------------------------------------------------------------------ pdf

LINES = [
    "The humerus is the long bone of the upper arm. It runs from the shoul-",
    "der to the elbow, where it meets the two bones of the forearm. These are",
    "the radius and the ulna.",
]


def test_pdf_becomes_paragraphs_without_running_heads(tmp_path: Path) -> None:
    pages = [
        ["Atlas of bones", "The arm", *LINES, "1 | page"],
        ["Atlas of bones", "The shoulder joins arm and trunk, and it is among the most mobile joints", "2 | page"],
        [
            "Atlas of bones",
            "of the body.",
            "A well-known bone is the clavicle, which many people have broken well-",
            "known.",
            "3 | page",
        ],
    ]
    found = read(tmp_path, arm_pdf=pdf(pages))
    assert text_of(found) == (
        "The arm\n\nThe humerus is the long bone of the upper arm. It runs from the shoulder to the elbow, where it "
        "meets the two bones of the forearm. These are the radius and the ulna.\n\nThe shoulder joins arm and trunk, "
        "and it is among the most mobile joints of the body.\n\nA well-known bone is the clavicle, which many people "
        "have broken well-known.\n"
    )
    assert found.rows[0].fields["title"] == "Bones of the arm"
    assert notes(found) == [
        "6 repeated page headers, footers and numbers of PDF pages were left out of 1 document",
    ]


def test_page_numbers_are_told_from_numbers_of_the_text(tmp_path: Path) -> None:
    pages = [
        [
            f"Chapter {page // 4 + 1}: Bones {page + 9}",
            f"Bone {page} has {page * page} names, of which {1900 + page} is the oldest",
        ]
        for page in range(12)
    ]
    pages[11] += ["It lists them so:", "- humerus", "- radius and ulna"]
    found = read(tmp_path, arm_pdf=pdf(pages))
    first, *_, last = text_of(found).rstrip().split("\n\n")
    assert first.startswith("Bone 0 has 0 names, of which 1900 is the oldest")
    assert last == "- radius and ulna"
    assert "Chapter" not in text_of(found)
    assert notes(found) == ["12 repeated page headers, footers and numbers of PDF pages were left out of 1 document"]


def test_encrypted_pdf_is_rejected_unless_it_opens_without_a_password(tmp_path: Path) -> None:
    from reportlab.lib.pdfencrypt import StandardEncryption

    locked = pdf([LINES], encrypt=StandardEncryption("secret", strength=128))
    assert fault(read(tmp_path, a_pdf=locked)) == ("encrypted", "it opens with a password only")
    owned = pdf([LINES], encrypt=StandardEncryption("", ownerPassword="secret", strength=128))
    assert text_of(read(tmp_path, a_pdf=owned)).startswith("The humerus is the long bone")


def test_pdf_without_text_or_broken_is_rejected(tmp_path: Path) -> None:
    assert fault(read(tmp_path, a_pdf=pdf([[], []]))) == ("no text layer", "its 2 pages hold pictures or nothing")
    assert fault(read(tmp_path, a_pdf=b"%PDF-1.7\nnothing"))[0] == "broken PDF"
    found = read(tmp_path, a_pdf=pdf([LINES, []]))
    assert notes(found) == ["1 PDF pages without text were left out of 1 document"]


# ------------------------------------------------------------------------------------------------------- corpora


def test_blocks_that_many_documents_repeat_are_left_out_at_their_ends(tmp_path: Path) -> None:
    legal = "Copyright 2014 by the college.\nShare it freely."
    footer = "Back to the table of contents"
    pages = {
        f"p{number}_md": f"{footer}\n\n# Page {number}\n\nBone {number}. {PROSE}\n\n{legal}\n\n{footer}\n\n"
        f"{number} more\n"
        for number in range(6)
    }
    pages["q_txt"] = f"{PROSE}\n\n{footer}\n\n{PROSE}"
    found = read(tmp_path, **pages)
    assert found.rows[1].fields["text"] == f"# Page 1\n\nBone 1. {PROSE}\n\n{footer}\n\n1 more\n"
    assert found.rows[6].fields["text"] == pages["q_txt"]
    assert notes(found) == [
        "12 blocks that many documents repeat were left out of 6 documents: 'Back to the table of contents' (6), "
        "'Copyright 2014 by the college. Share it freely.' (6)"
    ]
    assert found.container == "6 Markdown documents, 1 plain text document"


def test_copies_of_a_document_are_no_boilerplate(tmp_path: Path) -> None:
    found = read(tmp_path, **{f"p{number}_md": f"# Page\n\n{PROSE}\n" for number in range(9)})
    assert len(found.rows) == 9
    assert notes(found) == []


def test_stubs_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path, a_md="---\ntitle: A\n---\n# To be written\n", b_txt=" \n", c_md=PROSE)
    assert [row.key for row in found.rows] == ["c.md"]
    assert [(str(bad.origin), bad.reason, bad.detail) for bad in found.rejected] == [
        (f"{tmp_path / 'b.txt'}:1", "stub", "the file is empty"),
        (f"{tmp_path / 'a.md'}:1", "stub", "15 characters of text, at least 100 are needed"),
    ]


def test_every_fault_of_files_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"line\nM\xe9ni\xe8re")
    (tmp_path / "b.doc").write_text("x", encoding="utf-8")
    with pytest.raises(FinetuneError) as caught:
        read_documents([str(tmp_path / name) for name in ("a.md", "b.doc", "c.md")], where="r.yaml:3")
    assert [str(problem).splitlines()[0] for problem in caught.value.problems] == [
        f"r.yaml:3: no such file: {str(tmp_path / 'c.md')!r}",
        f"{tmp_path / 'a.md'}:2: not UTF-8: byte 0xe9 at byte 6",
        f"no document: {str(tmp_path / 'b.doc')!r}",
    ]


@pytest.mark.parametrize(
    ("package", "name", "what"),
    [
        ("bs4", "a_html", "reading HTML documents needs the package 'beautifulsoup4'"),
        ("mammoth", "a_docx", "reading Word documents needs the package 'mammoth'"),
        ("docutils", "a_rst", "reading reStructuredText documents needs the package 'docutils'"),
        ("defusedxml", "a_xml", "reading XML and Word documents needs the package 'defusedxml'"),
        ("pypdf", "a_pdf", "reading PDF documents needs the package 'pypdf'"),
    ],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, what: str
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FinetuneError) as caught:
        read(tmp_path, **{name: "x", "b_" + name[2:]: "y"})
    assert str(caught.value) == f"{what}, which is not installed\n    -> pip install 'finetune[documents]'"
    assert text_of(read(tmp_path, a_md=PROSE)) == PROSE


def test_a_folder_names_its_documents_by_their_paths(tmp_path: Path) -> None:
    for name in ("b/arm.md", "a.MD", "LICENSE.txt", "notes.odt", ".git/x.md", "source-of-pain.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}: {PROSE}", encoding="utf-8")
    found = read_rows(str(tmp_path))
    assert [row.key for row in found.rows] == ["a.MD", "b/arm.md", "source-of-pain.md"]
    (tmp_path / "a.MD").unlink()
    (tmp_path / "source-of-pain.md").unlink()
    assert [row.key for row in read_rows(str(tmp_path)).rows] == ["b/arm.md"]


def test_documents_of_a_glob_are_read_together(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.md").write_text(f"{number} {PROSE}\n\nBack to the table of contents\n", encoding="utf-8")
    found = read_rows(str(tmp_path / "*.md"))
    assert [row.key for row in found.rows] == [f"{number}.md" for number in range(6)]
    assert [row.fields["text"] for row in found.rows] == [f"{number} {PROSE}\n" for number in range(6)]
    assert found.container == "6 Markdown documents"


@pytest.mark.skipif(not ANATOMY.is_dir(), reason="the real datasets are not on this machine")
def test_every_page_of_a_textbook_is_kept_or_a_stub() -> None:
    found = read_rows(str(ANATOMY))
    stubs = [bad for bad in found.rejected if bad.reason == "stub"]
    assert len(found.rows) + len(stubs) == 198 == len(found.files)
    assert (len(found.rows), len(found.rejected), found.container) == (198, 0, "198 Markdown documents")
    assert len({row.key for row in found.rows}) == 198
    text = "\n".join(str(row.fields["text"]) for row in found.rows)
    assert 3_800_000 < len(text) < 4_490_000
    assert "layout: page" not in text
    assert "<div" not in text
