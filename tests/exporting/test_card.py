"""The model card: front matter, sentences word for word, escaping, code that runs, nothing the records do not say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from finetune.evaluation import read_records
from finetune.exporting import card_markdown
from finetune.exporting.card import escaped
from finetune.rundir import RunFolder, write_json
from tests.run_records import add_training, finished_run, new_run, ticket_result, verification, whole_run
from tests.tiny import tiny_model, tiny_tokenizer

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


def card_of(folder: RunFolder) -> str:
    return card_markdown(read_records(folder))


def front_of(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(front))


def body_of(card: str) -> str:
    return card.split("---\n", 2)[2]


def code_of(card: str) -> list[str]:
    return [token.content for token in MARKDOWN.parse(body_of(card)) if token.type == "fence"]


def text_of(card: str) -> str:
    """What a reader sees, without code."""
    inlines = [token for token in MARKDOWN.parse(body_of(card)) if token.type == "inline"]
    parts = [
        child.content if child.type != "softbreak" else "\n" for token in inlines for child in token.children or ()
    ]
    return "".join(parts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    return card_of(finished_run(tmp_path_factory.mktemp("runs") / "tickets"))


def test_front_matter(finished: str) -> None:
    assert finished.startswith("---\n")
    assert front_of(finished) == {
        "library_name": "transformers",
        "license": "other",
        "license_name": "see-base-model",
        "tags": ["finetune", "sft", "lora"],
    }


def test_a_hub_base_is_named_and_a_run_without_files_to_ship_is_an_adapter(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    folder.update(base={"name": name, "revision": COMMIT, "fingerprint": f"{name}@{COMMIT}"})
    front = front_of(card_of(folder))
    assert front["base_model"] == name
    assert front["library_name"] == "peft"


def test_it_says_the_verdict_the_scores_and_the_proof(finished: str) -> None:
    text = text_of(finished)
    for sentence in (
        "Tuned is better than base on held-out: json_fields 0.85 [0.82, 0.88] against 0.06 [0.04, 0.09], "
        "difference +0.79 [0.75, 0.83] (95 %, n = 120, paired bootstrap, p < 0.001).",
        "Verified: exports/merged behaves like the trained model.",
        "held-out: json_fields (share of fields right, higher is better), 120 items, 95 % intervals.",
        "Item by item, tuned is better than base on 118, worse on 0 and equal on 2.",
        "warning: empty answer: 'answer' is empty",
        "Better than its base. Tuned is better",
        "Tested on 120 items of the recipe's own test split (held-out). The verdict is only as good as those items",
        "What the base could do before and this model can no longer do has not been measured.",
        "The files were compared with the trained model on 16 rows (exports/merged)",
    ):
        assert sentence in text
    for line in (
        "| trivial: commonest training answer | 0.15 | [0.12, 0.18] |",
        "| base | 0.06 | [0.04, 0.09] |",
        "| tuned | 0.85 | [0.82, 0.88] |",
        "| difference, tuned - base | +0.79 | [0.75, 0.83] |",
        "| exports/merged | transformers | 3.20e-05 | 0.01 | 99.71 % | 98 % | 2,113 | 16 of 16 | passed |",
        "| Rows | 1,803 read, 1,800 kept: 1,350 train, 150 validation, 300 test |",
        "| Answers end at | &lt;\\|im_end\\|&gt; &lt;\\|endoftext\\|&gt; |",
        "| Method | lora: rank 16, alpha 32, targets all-linear |",
        "| Learning rate | 0.001, cosine schedule |",
        "| Seed | 0 |",
        "| Versions | python 3.11.9, finetune 0.1.0, torch 2.13.0, transformers 5.23.0 |",
    ):
        assert f"\n{line}\n" in finished
    assert sum(token.type == "table_open" for token in MARKDOWN.parse(body_of(finished))) == 4


def test_a_whole_evaluation_is_told_in_tables(tmp_path: Path) -> None:
    card = card_of(whole_run(tmp_path / "run", forgets=True))
    text = text_of(card)
    for sentence in (
        "Better on held-out, but forgets. Tuned is better than base on held-out",
        "Corrected for 2 tasks (Holm), p < 0.001: better.",
        "No detectable difference on capitals. No detectable difference",
        "Forgets what its base could do. Tuned lost",
        "Test items of held-out stand in the training rows. 2 of 120",
        "Right before and wrong now: 2 items, named in",
        "1,000 requests to frontier cost 1.20 USD.",
        "Base and tuned got the same 180 prompts, token by token.",
        "Tested on 60 items of capitals.",
        "What it forgot was measured on 100 general items and on nothing else.",
    ):
        assert sentence in text
    for line in (
        "| slice | verdict | items | base | tuned | difference |\n|---|---|---:|---:|---:|---:|",
        "| channel = &lt;b&gt;phone&lt;/b&gt; | too few items to tell | 6 | 0.06 | 0.10 | +0.04 [-0.20, 0.28] |",
        "| T-00000 | the same to the letter | train-0 at tickets.jsonl:1 | 100 % |",
        "| general questions, share right |  | 60 | 0.50 | 0.30 | -0.20 [-0.23, -0.17] | 0.1 |",
        "| price of 1,000 requests | none asked | none asked | 1.20 USD |",
        "| dtype | base: float32, tuned: bfloat16 |",
    ):
        assert f"\n{line}\n" in card
    assert sum(token.type == "table_open" for token in MARKDOWN.parse(body_of(card))) == 4 + 1 + 7
    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert headings[:4] == ["Scores", "Forgetting", "Cost of serving", "Proof of sameness"]


def test_a_failed_verification_and_an_open_verdict_are_said(tmp_path: Path) -> None:
    result = ticket_result(n=6, base_right=0.5, tuned_right=0.5)
    text = text_of(card_of(finished_run(tmp_path / "run", passed=False, result=result)))
    assert "Verification FAILED: exports/merged does NOT behave like the trained model. Do not ship this file." in text
    assert "Too few items to tell on held-out" in text
    assert "That no difference was shown on held-out does not mean that there is none." in text


def test_nothing_is_claimed_of_an_untrained_run(tmp_path: Path) -> None:
    card = card_of(new_run(tmp_path / "run"))
    text = text_of(card)
    assert "This run has not been trained yet." in text
    assert "It has not been evaluated yet; nothing is known about how it compares with its base." in text
    assert "Nothing has been exported and verified yet." in text
    assert "It has not been tested." in text
    assert code_of(card) == []
    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert headings == ["Data", "How it is going to be trained", "Limits"]


def test_nothing_from_data_becomes_markup(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", result=ticket_result(n=12))
    harmless = [token.type for token in MARKDOWN.parse(body_of(card_of(folder)))]
    hostile = (
        "| x |\n\n# big <script>alert(1)</script> [a](javascript:alert(1)) `code` **b** ![i](x) ``` ~~s~~ $x$ {{ 7*7 }}"
    )
    folder.update(
        base={"name": hostile, "revision": None, "fingerprint": hostile},
        machine={"device": "cpu", "name": hostile, "memory": 1, "cores": 2, "native_bfloat16": True},
        identity={**folder.manifest()["identity"], "data.system": hostile},
    )
    card = card_of(folder)
    tokens = MARKDOWN.parse(body_of(card))
    assert [token.type for token in tokens] == harmless
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds == {"text", "softbreak", "strong_open", "strong_close", "code_inline", "text_special"} & kinds
    assert "<script" not in body_of(card).split("```python")[0]
    assert " ".join(hostile.split()) in text_of(card)
    for code in code_of(card):
        assert hostile in [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"), whitelist_characters="\n\t"), max_size=60))
def test_escaped_text_is_read_as_it_was_written(text: str) -> None:
    shown = MARKDOWN.parse(f"| what | found |\n|---|---|\n| x | {escaped(text)} |")
    cells = [token for token in shown if token.type == "inline"]
    assert len(cells) == 4
    assert "".join(child.content for child in cells[3].children or ()) == " ".join(text.split())
    assert {child.type for child in cells[3].children or ()} <= {"text", "text_special"}


@pytest.mark.parametrize(
    ("base", "identity", "expected"),
    [
        (
            {"name": "org/model", "revision": COMMIT, "fingerprint": f"org/model@{COMMIT}"},
            {},
            ['base_folder = "org/model"', f'base_folder, revision="{COMMIT}", dtype="auto"'],
        ),
        (
            {"name": "models/x.Q8_0.gguf", "revision": None, "fingerprint": "ab"},
            {},
            ['base_folder = "models"', 'base_folder, gguf_file="x.Q8_0.gguf", dtype="auto"'],
        ),
        (
            {"name": "package:pack/x.gguf", "revision": None, "fingerprint": "ab"},
            {},
            ['base_folder = find_spec("pack").submodule_search_locations[0]', 'gguf_file="x.gguf"'],
        ),
        (
            {"name": "models/x", "revision": None, "fingerprint": "ab"},
            {"method.kind": "qlora", "method.quantization": "nf4", "method.double_quantization": True},
            ["BitsAndBytesConfig(load_in_4bit=True", "bnb_4bit_use_double_quant=True"],
        ),
        (
            {"name": "models/x", "revision": None, "fingerprint": "ab"},
            {"method.kind": "qlora", "method.quantization": "int8", "method.double_quantization": True},
            ["quantization_config=BitsAndBytesConfig(load_in_8bit=True)"],
        ),
        (
            {"name": "models/x", "revision": None, "fingerprint": "ab"},
            {"method.kind": "full"},
            ['folder = "weights"'],
        ),
        (
            {"name": "models/x", "revision": None, "fingerprint": "ab"},
            {"objective.kind": "pretrain"},
            ['inputs = tokenizer("Your text", return_tensors="pt")'],
        ),
    ],
)
def test_code_fits_base_and_method(
    tmp_path: Path, base: dict[str, Any], identity: dict[str, Any], expected: list[str]
) -> None:
    folder = new_run(tmp_path / "run", **identity)
    folder.update(base=base)
    add_training(folder)
    (code,) = code_of(card_of(folder))
    ast.parse(code)
    for part in expected:
        assert part in code


@pytest.mark.slow
def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from peft import LoraConfig, get_peft_model

    folder = new_run(tmp_path / "run")
    add_training(folder)
    write_json(folder.exports / "verification.json", {"merged": verification().as_dict()})
    tokenizer = tiny_tokenizer()
    base = tmp_path / "base"
    for place in (base, folder.exports / "merged"):
        tiny_model(tokenizer).save_pretrained(place)
        tokenizer.save_pretrained(place)
    get_peft_model(tiny_model(tokenizer), LoraConfig(r=2)).save_pretrained(folder.path / "adapter")
    tokenizer.save_pretrained(folder.path / "adapter")
    folder.update(base={"name": str(base), "revision": None, "fingerprint": "ab"})
    monkeypatch.chdir(folder.path)
    snippets = code_of(card_of(folder))
    assert len(snippets) == 2
    for code in snippets:
        names: dict[str, Any] = {}
        exec(compile(code, "card", "exec"), names)  # the card's own code
        assert names["output"].shape[1] > names["inputs"]["input_ids"].shape[1]
        assert capsys.readouterr().out
