"""Documents through the whole data stage: divided whole, cut into pieces, every piece traced to its place."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from finetune.data.corpus import read_corpus
from finetune.data.prepare import Prepared, prepare
from finetune.data.reading.sources import read_rows
from finetune.data.rows import Piece, TokenRow
from finetune.data.starter import write_starter
from finetune.recipe import PretrainObjective, Recipe, load_recipe, problems
from tests.small_runs import sentence, small_recipe
from tests.tiny import tiny_tokenizer

ANATOMY = (
    Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "datasets" / "openstax_anatomy"
)


def recipe_of(folder: Path, runs: Path, **data: object) -> Recipe:
    return small_recipe(
        Path("some/base"), folder, runs, data={"max_length": 64, **data}, objective={"kind": "pretrain"}
    )


def rows_by_split(found: Prepared) -> dict[str, list[TokenRow]]:
    tested = [row for item in found.test for row in item.rows]
    return {"train": list(found.train), "validation": list(found.validation), "test": tested}


def documents_by_split(found: Prepared) -> dict[str, set[str]]:
    return {split: {row.document for row in rows} for split, rows in rows_by_split(found).items()}


def write_handbook(folder: Path, pages: int = 30) -> Path:
    """Pages of several sections in two folders, and two copies of the first page under other names."""
    chance = random.Random(5)
    for number in range(pages):
        paragraphs = [f"## Part {part}\n\n{sentence(chance, 30)}.\n\n{sentence(chance, 40)}." for part in range(3)]
        path = folder / ("a" if number % 2 else "b") / f"page{number:02d}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    first = (folder / "b" / "page00.md").read_text(encoding="utf-8")
    for name in ("copy.md", "other.txt"):
        (folder / name).write_text(first, encoding="utf-8")
    return folder


def test_documents_stay_on_one_side_with_their_copies(tmp_path: Path) -> None:
    folder = write_handbook(tmp_path / "handbook")
    sides = set()
    for seed in range(4):
        split = {"validation": 0.2, "test": 0.2, "seed": seed}
        found = prepare(recipe_of(folder, tmp_path, split=split), tiny_tokenizer(), context_length=None)
        documents = documents_by_split(found)
        assert all(documents.values())
        assert sum(map(len, documents.values())) == len(set.union(*documents.values())) == 32
        copies = {"b/page00.md", "copy.md", "other.txt"}
        side = [split for split, names in documents.items() if names & copies]
        assert len(side) == 1
        sides.add(side[0])
        certificate = found.certificate
        assert certificate.splits == {split: len(names) for split, names in documents.items()}
        assert certificate.pieces == {split: len(rows) for split, rows in rows_by_split(found).items()}
        assert certificate.pieces["train"] > certificate.splits["train"]
    assert len(sides) > 1


def test_every_piece_is_traced_to_its_characters(tmp_path: Path) -> None:
    folder = write_handbook(tmp_path / "handbook")
    texts = {row.key: str(row.fields["text"]) for row in read_rows(str(folder)).rows}
    tokenizer = tiny_tokenizer()
    found = prepare(recipe_of(folder, tmp_path, max_length=400), tokenizer, context_length=None)
    pieces: dict[str, list[Piece]] = {}
    ids = []
    for rows in rows_by_split(found).values():
        for row in rows:
            assert len(row) <= 400
            assert row.piece is not None
            ids.append(row.id)
            pieces.setdefault(row.document, []).append(row.piece)
            text = texts[row.document][slice(*row.piece.characters)]
            # Its first token but one is where its characters begin
            skipped = row.input_ids[1 if row.piece.number > 1 else 0 :].tolist()
            assert tokenizer.decode(skipped, skip_special_tokens=True).strip() == text.strip()
    assert len(ids) == len(set(ids)) >= 64
    assert "b/page00.md#0002" in ids
    assert pieces.keys() == texts.keys()
    for name, found_pieces in pieces.items():
        assert [piece.number for piece in found_pieces] == list(range(1, len(found_pieces) + 1))
        assert "".join(texts[name][slice(*piece.characters)] for piece in found_pieces) == texts[name]
    starts = [texts[name][piece.characters[0] :] for name, cut in pieces.items() for piece in cut[1:]]
    assert sum(text.startswith("##") for text in starts) > len(starts) / 3


@pytest.mark.slow
@pytest.mark.skipif(not ANATOMY.is_dir(), reason="the real datasets are not on this machine")
def test_the_pages_of_a_textbook_are_divided_by_page(tmp_path: Path) -> None:
    found = prepare(recipe_of(ANATOMY, tmp_path, max_length=512), tiny_tokenizer(), context_length=None)
    documents = documents_by_split(found)
    assert sum(map(len, documents.values())) == len(set.union(*documents.values())) == 198
    assert found.certificate.rows_read == found.certificate.rows_kept == 198
    assert found.certificate.dropped == {}
    assert all(len(names) >= 18 for names in documents.values())


def test_a_first_recipe_for_a_folder_of_documents_learns_them_whole(tmp_path: Path) -> None:
    folder = write_handbook(tmp_path / "handbook")
    target = tmp_path / "recipe.yaml"
    assert write_starter(str(folder), "OWNER/MODEL", target).startswith("32 rows read as text")
    recipe = load_recipe(target)
    assert problems(target) == []
    assert isinstance(recipe.objective, PretrainObjective)
    assert recipe.data.train == str(folder)
    assert recipe.data.max_length <= 1024
    assert len(read_corpus(recipe).train) == 26
