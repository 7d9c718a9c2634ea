"""Files of a run for llama.cpp: made, proven, scored on the run's own task, named in report and card, refused early."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import pipeline, shipping
from finetune.errors import FinetuneError
from finetune.exporting import llama_file
from finetune.recipe import GgufExport, MergedExport, OllamaExport
from finetune.session import Run
from tests.small_runs import SmallRun, copied, small_recipe
from tests.tiny import tiny_model, tiny_tokenizer

pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def shipped(lora_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, dict[str, Any]]]:
    """A run whose recipe asks for files, and their proofs."""
    work = copied(lora_run, tmp_path_factory.mktemp("runs"))
    sections = (
        GgufExport(quantization="f16", min_top1=0.9),
        OllamaExport(quantization="q8_0", max_kl=0.1, min_top1=0.5, task_items=3),
    )
    work.recipe = work.recipe.model_copy(update={"export": sections})
    exports = pipeline.export(work)
    pipeline.report(work)
    return work, exports.proofs


def test_files_are_made_proven_and_scored(shipped: tuple[Run, dict[str, dict[str, Any]]]) -> None:
    work, proofs = shipped
    assert set(proofs) == {"merged", "model-f16.gguf", "ollama-q8_0"}
    file, ollama = proofs["model-f16.gguf"], proofs["ollama-q8_0"]
    for proof, items in ((file, 5), (ollama, 3)):
        assert proof["passed"], proof
        assert {"path", "runtime", "prompt_parity", "kl", "top1_agreement", "greedy_match"} <= proof.keys()
        assert (proof["runtime"], proof["prompt_parity"], proof["conversations"]) == ("llama.cpp", 1.0, 5)
        assert (proof["task"]["scorer"], proof["task"]["n"]) == ("exact", items)
        assert proof["task"]["verdict"] == "too few items to tell"
    assert file["kl"] < 1e-4
    assert "bits a weight (" in file["note"]
    found = sorted(path.relative_to(work.folder.exports).as_posix() for path in work.folder.exports.rglob("*.*"))
    assert [name for name in found if "gguf" in name] == ["model-f16.gguf", "ollama-q8_0/model-q8_0.gguf"]
    assert not [path for path in work.folder.exports.iterdir() if path.name.startswith(".")]


def test_report_and_card_say_what_was_found_and_how_to_run_it(
    shipped: tuple[Run, dict[str, dict[str, Any]]],
) -> None:
    work, _ = shipped
    card = (work.folder.path / "README.md").read_text(encoding="utf-8")
    page = (work.folder.path / "report.html").read_text(encoding="utf-8")
    assert "llama-cli --model exports/model-f16.gguf --temp 0" in card
    assert "ollama create run -f exports/ollama-q8_0/Modelfile\nollama run run" in card
    assert "| exports/model-f16.gguf | Prompts | the trained tokens for 5 of 5 conversations |" in card
    for text in ("exports/model-f16.gguf", "exports/ollama-q8_0", "tokens a second", "bits a weight"):
        assert text in card
        assert text in page


def test_a_second_call_makes_nothing_again(shipped: tuple[Run, dict[str, dict[str, Any]]]) -> None:
    work, proofs = shipped
    before = (work.folder.exports / "model-f16.gguf").stat().st_mtime_ns
    told: list[str] = []
    assert pipeline.export(work, tell=told.append).proofs == proofs
    assert told == []
    assert (work.folder.exports / "model-f16.gguf").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["model-f16.gguf", "ollama-q8_0", "ollama-q8_0/Modelfile", "merged"])
def test_verify_proves_what_is_there(
    name: str, shipped: tuple[Run, dict[str, dict[str, Any]]], command: Callable[..., Any]
) -> None:
    work, _ = shipped
    path = work.folder.exports / name
    said = command("verify", path, "--against", work.folder.path, "--json")
    proof = said.json()
    assert (said.code, proof["passed"]) in ((0, True), (3, False))
    assert said.code == 0 or name.startswith("ollama")
    assert (proof["prompt_parity"], proof["problems"]) == (1.0, [])
    assert proof["kl"] < 0.1


def test_a_file_that_fails_is_told_in_a_table_with_exit_code_3(
    shipped: tuple[Run, dict[str, dict[str, Any]]], tmp_path: Path, command: Callable[..., Any]
) -> None:
    from gguf import GGUFReader

    work, _ = shipped
    path = Path(shutil.copy(work.folder.exports / "model-f16.gguf", tmp_path / "bad.gguf"))
    reader = GGUFReader(path, "r+")
    field = reader.fields["tokenizer.ggml.add_bos_token"]
    field.parts[field.data[0]][0] = True
    reader.data.flush()
    said = command("verify", path, "--against", work.folder.path)
    assert said.code == 3
    lines = said.out.splitlines()
    assert lines[0] == f"{path}: NOT VERIFIED"
    assert [line.split()[-1] for line in lines[1:5]] == ["ok", lines[2].split()[-1], "MISSED", "ok"]
    assert lines[5].startswith("  the prompt begins with '<|endoftext|>', which training did not put there")


@pytest.mark.parametrize(
    ("name", "what"), [("none.gguf", "there is no such file"), ("recipe.yaml", "this is no exported file")]
)
def test_verify_refuses_what_is_no_file_of_ours(lora_run: SmallRun, name: str, what: str) -> None:
    with pytest.raises(FinetuneError, match=what):
        pipeline.verify(Run.open(lora_run.folder), lora_run.folder / name)


def test_a_file_that_is_worse_at_the_task_does_not_pass(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    answers = work.folder.evaluation / "answers.jsonl"
    trained = shipping.trained_of(work)
    section = GgufExport(quantization="f16", min_top1=0.9)
    with shipping._merged_source(work, trained) as source:
        proof = llama_file.export_gguf(section, trained, source=source, target=work.folder.exports / "x.gguf")
    records = [json.loads(line) for line in answers.read_text().splitlines()]
    # The tuned model, so it is said, was always right; the file is right as often as it is
    many = [{**record, "tuned": {**record["tuned"], "score": 1.0}} for record in records]
    answers.write_text("".join(json.dumps(record) + "\n" for record in many))
    scored = shipping._with_task(work, proof, trained, None, lambda line: None)
    assert scored.task is not None
    assert scored.task["tuned"] == 1.0
    assert scored.passed == (scored.task["verdict"] != "worse")
    answers.unlink()
    told: list[str] = []
    assert shipping._with_task(work, proof, trained, None, told.append).task is None
    assert told == ["export   the run has not been evaluated, so the file's task score is not measured"]


# ------------------------------------------------------------------------------------------------------- preflight


def test_what_cannot_be_exported_is_told_before_training(corpus: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = tiny_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "b")
    tokenizer.save_pretrained(tmp_path / "b")
    recipe = small_recipe(tmp_path / "b", corpus, tmp_path / "runs")
    recipe = recipe.model_copy(update={"export": (GgufExport(),)})
    found = pipeline.check(recipe).problems
    assert any("the architecture 'GPT2LMHeadModel' cannot be written as GGUF" in problem.what for problem in found)
    with pytest.raises(FinetuneError, match="cannot be written as GGUF"):
        pipeline.run(recipe)
    assert not (tmp_path / "runs").exists()


def test_a_template_without_a_form_in_go_is_told_before_training(corpus: Path, tmp_path: Path) -> None:
    turn = "{{ m.role }}: {{ m.content }}{% if loop.index < 3 %}!{% endif %}<|im_end|>\n"
    odd = "{% for m in messages %}" + turn + "{% endfor %}"
    tokenizer = tiny_tokenizer(odd + "{% if add_generation_prompt %}assistant: {% endif %}")
    tiny_model(tokenizer).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    recipe = small_recipe(tmp_path / "base", corpus, tmp_path / "runs")
    fine = recipe.model_copy(update={"export": (MergedExport(), GgufExport())})
    assert pipeline.check(fine).passed
    found = pipeline.check(recipe.model_copy(update={"export": (OllamaExport(),)})).problems
    assert [problem.what for problem in found if problem.severity == "error"] == [
        "the chat template cannot be put into Ollama's language: it writes earlier turns otherwise than later ones"
    ]
    assert not (tmp_path / "runs").exists()
