"""Time and memory of writing GGUF: `python benchmarks/export.py [--source LLAMA_CPP] [--kinds f16 q8_0 q4_k_m]`.

A random model of the shape of Llama 3.2 1B in bfloat16, in shards as the hub has them, is converted by us and, where
its source is given, by llama.cpp's own converter, in turns and each time in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SIZES: dict[str, dict[str, int]] = {
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
}
SHARD = 1 << 30
MEASURED = """
import sys, time
start = time.perf_counter()
{code}
seconds = time.perf_counter() - start
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print("measured", seconds, int(line.split()[1]) * 1024)
"""
OURS = """
from pathlib import Path
from finetune.exporting.gguf import convert
print(convert(Path(sys.argv[1]), Path(sys.argv[2]), kind=sys.argv[3]))
"""
# Its vocabulary is left out: it knows no tokenizer made for a benchmark
THEIRS = """
sys.path.insert(0, sys.argv[4])
import convert_hf_to_gguf as official
find = official.get_model_class
def without_vocabulary(*args, **settings):
    found = find(*args, **settings)
    found.set_vocab = lambda self: None
    return found
official.get_model_class = without_vocabulary
sys.argv = ["convert", sys.argv[1], "--outfile", sys.argv[2], "--outtype", sys.argv[3]]
official.main()
"""
EMPTY = "import finetune.exporting.gguf, gguf, safetensors, transformers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--kinds", nargs="+", default=["f16", "q8_0", "q4_k_m"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", default=os.environ.get("FINETUNE_LLAMA_CPP_SOURCE"), help="of llama.cpp")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
        folder = Path(place) / "model"
        size = write_model(folder, SIZES[asked.size])
        print(f"model: {size / 1e9:.2f} GB in bfloat16; imports alone: {measure(EMPTY, [])[1] / 1e9:.2f} GB")
        for kind in asked.kinds:
            ways = {"finetune": OURS}
            if asked.source and kind in ("f16", "bf16", "q8_0"):
                ways["llama.cpp"] = THEIRS
            compare(folder, Path(place) / "it.gguf", kind, ways, asked, size)


def compare(folder: Path, target: Path, kind: str, ways: dict[str, str], asked: argparse.Namespace, size: int) -> None:
    """Run each way in turns and print the median time and the largest peak."""
    runs: dict[str, list[tuple[float, int]]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way, code in ways.items():
            runs[way].append(measure(code, [folder, target, kind, asked.source or ""]))
            target.unlink()
    for way, found in runs.items():
        seconds, peak = statistics.median(one[0] for one in found), max(one[1] for one in found)
        print(f"{kind:8} {way:10} {seconds:6.1f} s   peak {peak / 1e9:.2f} GB = {peak / size:.2f} x the model")


def measure(code: str, arguments: list[Any]) -> tuple[float, int]:
    """Run code in a process of its own; returns its seconds, imports included, and its peak of resident memory."""
    command = [sys.executable, "-c", MEASURED.format(code=code), *map(str, arguments)]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"failed after {time.perf_counter() - begun:.0f} s:\n{done.stderr[-3000:]}")
    _, seconds, peak = done.stdout.splitlines()[-1].split()
    return float(seconds), int(peak)


def write_model(folder: Path, sizes: dict[str, int]) -> int:
    """Write random weights shard by shard, as large as the hub's, and a tokenizer of bytes; returns their size."""
    config = LlamaConfig(**sizes, tie_word_embeddings=True, architectures=["LlamaForCausalLM"], dtype="bfloat16")
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()}
    del shapes["lm_head.weight"]
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    shards: list[list[str]] = [[]]
    for name, shape in shapes.items():
        if shards[-1] and 2 * sum(shapes[one].numel() for one in shards[-1]) + 2 * shape.numel() > SHARD:
            shards.append([])
        shards[-1].append(name)
    index = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(
            {name: (0.02 * torch.randn(shapes[name], generator=generator)).bfloat16() for name in names}, folder / file
        )
        index |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config.save_pretrained(folder)
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters | {"Ġa": 256, "<end>": 257}, merges=[("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return 2 * sum(shape.numel() for shape in shapes.values())


if __name__ == "__main__":
    main()
