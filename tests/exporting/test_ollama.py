"""Modelfiles: word for word, proven on real conversations, refused where they would ask something else."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.exporting import Trained, export_ollama, prove_file, prove_modelfile
from finetune.exporting.llama_file import Asked
from finetune.exporting.ollama import Modelfile, go_template, require_modelfile
from finetune.recipe import OllamaExport
from tests.tiny import tiny_tokenizer

pytest.importorskip("xllamacpp")

MODELS = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[3] / "shared")) / "models"
TEMPLATES = MODELS / "chat_templates"
TOLD = Modelfile(
    model="model.gguf",
    template="{{ range .Messages }}{{ .Content }}{{ end }}",
    stops=("<|im_end|>", "<|endoftext|>"),
    num_ctx=4096,
    temperature=0.2,
    system='Say "yes" or no.\nNothing else',
)


def test_a_modelfile_word_for_word() -> None:
    assert TOLD.as_text() == (
        "FROM ./model.gguf\n"
        'TEMPLATE """{{ range .Messages }}{{ .Content }}{{ end }}"""\n'
        'PARAMETER stop "<|im_end|>"\n'
        'PARAMETER stop "<|endoftext|>"\n'
        "PARAMETER num_ctx 4096\n"
        "PARAMETER temperature 0.2\n"
        'SYSTEM """Say "yes" or no.\nNothing else"""\n'
    )


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    for told in (TOLD, replace(TOLD, system=None, stops=())):
        (tmp_path / "Modelfile").write_text(told.as_text(), encoding="utf-8")
        assert replace(Modelfile.read(tmp_path / "Modelfile"), model=told.model) == told


@pytest.mark.parametrize("system", ['Say """x"""', 'Say "x"', '"x" is said'])
def test_quotes_that_would_end_a_text_are_refused(system: str) -> None:
    with pytest.raises(FinetuneError, match=r"^Modelfile: a Modelfile cannot hold this text"):
        replace(TOLD, system=system).as_text()


@pytest.mark.parametrize("text", ["", "FROM x\n", 'TEMPLATE """x"""\n'])
def test_a_modelfile_without_its_parts_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(text)
    with pytest.raises(FinetuneError, match="this Modelfile has no FROM or no TEMPLATE"):
        Modelfile.read(tmp_path / "Modelfile")


def test_the_folder_is_whole_and_proven(trained: Trained, whole: Path, tmp_path: Path) -> None:
    section = OllamaExport(quantization="f16", temperature=0.5)
    file = prove_file(whole, trained, Asked())
    proof = export_ollama(section, trained, file=file, target=tmp_path / "ollama")
    assert (proof.passed, proof.prompt_parity, proof.conversations) == (True, 1.0, 5)
    assert proof.path == str(tmp_path / "ollama" / "Modelfile")
    assert sorted(path.name for path in (tmp_path / "ollama").iterdir()) == ["Modelfile", "model-f16.gguf"]
    assert (tmp_path / "ollama" / "model-f16.gguf").read_bytes() == whole.read_bytes()
    told = Modelfile.read(tmp_path / "ollama" / "Modelfile")
    assert (told.model, told.num_ctx, told.temperature, told.system) == ("./model-f16.gguf", 512, 0.5, None)
    assert told.stops == ("<|im_end|>",)
    again = prove_modelfile(tmp_path / "ollama" / "Modelfile", trained, Asked())
    assert (again.passed, again.prompt_parity, again.kl) == (True, 1.0, proof.kl)


DAMAGES = {
    "another template": (
        ("<|im_start|>user\n{{ .Content }}", "<|im_start|>user: {{ .Content }}"),
        "the Modelfile's template writes another prompt (5 of 5 conversations, first q0: ': ",
    ),
    "a begin-of-text token": (
        ("{{ range", "<|endoftext|>{{ range"),
        "the prompt begins with '<|endoftext|>', which training did not put there or put there once (5 of 5",
    ),
    "no stop": (
        ('PARAMETER stop "<|im_end|>"', 'PARAMETER stop "<|fin|>"'),
        "answers were trained to end in '<|im_end|>' (token 3), which is no stop of the Modelfile",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_modelfile_is_refused_with_the_reason(
    damage: str, trained: Trained, whole: Path, tmp_path: Path
) -> None:
    (before, after), why = DAMAGES[damage]
    told = replace(TOLD, model=whole.name, template=go_template(trained.tokenizer, adds_bos=False), system=None)
    text = told.as_text()
    assert before in text
    (tmp_path / "Modelfile").write_text(text.replace(before, after, 1))
    (tmp_path / whole.name).hardlink_to(whole)
    proof = prove_modelfile(tmp_path / "Modelfile", trained, Asked())
    assert not proof.passed
    (problem,) = proof.problems
    assert problem.startswith(why)


def test_a_template_that_asks_otherwise_on_real_conversations_is_not_written(
    trained: Trained, whole: Path, tmp_path: Path
) -> None:
    # It trims what people say, which Go's templates cannot, and the conversations have blanks at their ends
    tokenizer = tiny_tokenizer(tiny_tokenizer().chat_template.replace("['content']", "['content'] | trim"))
    one = trained.conversations[0]
    blank = replace(one, messages=({"role": "user", "content": one.messages[0]["content"] + "  "},))
    other = Trained(
        trained.recipe,
        base=trained.base,
        folder=trained.folder,
        tokenizer=tokenizer,
        rows=trained.rows,
        conversations=[blank],
        stop=trained.stop,
        machine=trained.machine,
    )
    file = prove_file(whole, trained, Asked())
    with pytest.raises(FinetuneError) as caught:
        export_ollama(OllamaExport(), other, file=file, target=tmp_path / "ollama")
    assert str(caught.value).startswith(
        "export: no Modelfile was written: the Modelfile's template writes another prompt (1 of 1 conversations, first "
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not TEMPLATES.is_dir(), reason="needs models/chat_templates in FINETUNE_SHARED or in ../shared")
def test_templates_of_published_models() -> None:
    """94 templates: 86 can be put into Ollama's language, 7 cannot be trained with, 1 changes earlier turns."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(MODELS / "tokenizers" / "qwen2.5")
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    names = sorted(json.loads((TEMPLATES / "golden_renders.json").read_text("utf-8")))
    found: Counter[str] = Counter()
    for name in names:
        text = (TEMPLATES / name).read_text("utf-8")
        tokenizer.chat_template = json.loads(text)["chat_template"] if name.endswith(".json") else text
        try:
            require_modelfile(tokenizer)
            found["derived"] += 1
        except FinetuneError as error:
            found[str(error).partition("\n")[0].partition(": ")[0]] += 1
    assert found == {
        "derived": 86,
        "the chat template fails on the conversation": 7,
        "the chat template cannot be put into Ollama's language": 1,
    }
