"""Speed of evaluation: `python benchmarks/evaluation.py` beside lm-eval's own `hf` model, in turns, in one process.

Both sides get the same requests of the same tasks for one loaded model, on one core: choices by likelihood, with and
without examples before them, and written answers. On a CPU its seconds are counted, which other work leaves as they
are. The text is that of Python's own documentation strings, so that nothing has
to be fetched.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.data import BASE, sentences  # noqa: E402

FILE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl, train: examples.jsonl}}}}
test_split: test
fewshot_split: train
fewshot_config: {{sampler: first_n}}
num_fewshot: {shots}
doc_to_text: "Complete the sentence: {{{{question}}}}\\nAnswer:"
"""
CHOICES = FILE + "output_type: multiple_choice\ndoc_to_choice: choices\ndoc_to_target: answer\n"
WRITTEN = FILE + (
    'output_type: generate_until\ndoc_to_target: "{{{{choices[answer]}}}}"\n'
    'generation_kwargs: {{until: ["\\n"], max_gen_toks: 64, do_sample: false}}\n'
)


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Beginnings of paragraphs, each with its own continuation and three of others."""
    draw = random.Random(seed)
    texts = [text.split() for text in sentences() if 24 <= len(text.split()) <= 90]
    found = []
    for number, words in enumerate(draw.sample(texts, count)):
        cut = draw.randint(len(words) // 2, len(words) - 8)
        others = [draw.choice(texts) for _ in range(3)]
        choices = [" ".join(other[-draw.randint(4, 12) :]) for other in others]
        choices.insert(number % 4, " ".join(words[cut : cut + draw.randint(4, 12)]))
        found.append({"question": " ".join(words[:cut]), "choices": choices, "answer": number % 4})
    return found


def requests(folder: Path, name: str, text: str, shots: int, count: int) -> tuple[str, Callable[[], list[Any]]]:
    """Write a task, and return what kind of requests it has and what makes them anew."""
    from finetune.evaluation.lm_eval.engine import own_engine, quiet
    from finetune.evaluation.lm_eval.task_files import read_task_file

    for file, some in ((f"{name}.jsonl", rows(count, 0)), ("examples.jsonl", rows(8, 1))):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(text.format(name=name, shots=shots), encoding="utf-8")
    engine = own_engine(read_task_file(str(path)))

    def made() -> list[Any]:
        engine.set_fewshot_seed(0)
        with quiet():
            engine.build_all_requests()
        return list(engine.instances)

    return ("generate_until" if engine.OUTPUT_TYPE == "generate_until" else "loglikelihood"), made


def sides(dtype: str, batch_size: int) -> dict[str, Any]:
    import torch
    from lm_eval.models.huggingface import HFLM

    from finetune.evaluation.lm_eval.model import RuntimeLM
    from finetune.models import load_model, load_tokenizer, resolve_base
    from finetune.recipe.schema import ModelSection
    from finetune.runtimes import TransformersRuntime

    base = resolve_base(ModelSection(base=BASE), where="benchmark")
    tokenizer = load_tokenizer(base)[0]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(
        base, dtype=getattr(torch, dtype), device=device, quantization=None, vocabulary=len(tokenizer)
    ).eval()
    return {
        "finetune": RuntimeLM(TransformersRuntime(model, tokenizer, name="base"), tokenizer, context_length=2048),
        "lm-eval": HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=2048),
    }


def agreement(kind: str, mine: list[Any], its: list[Any]) -> str:
    if kind == "generate_until":
        return f"{sum(one == other for one, other in zip(mine, its, strict=True))} of {len(its)} answers equal"
    largest = max(abs(one[0] - other[0]) for one, other in zip(mine, its, strict=True))
    same = 0
    for start in range(0, len(its), 4):
        pair = [[one[0] for one in some[start : start + 4]] for some in (mine, its)]
        same += pair[0].index(max(pair[0])) == pair[1].index(max(pair[1]))
    return f"{same} of {len(its) // 4} choices equal, log-likelihoods within {largest:.1e}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=48)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--batch-size", type=int, default=16, help="of lm-eval's side, whose default is 1")
    options.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    given = options.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    both = sides(given.dtype, given.batch_size)
    # A device's own seconds are not those of the process
    clock = time.process_time if both["lm-eval"].device.type == "cpu" else time.perf_counter
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("lm-eval", "torch", "transformers"))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{versions}; {given.dtype}, best of {given.repeats} in turns, lm-eval in batches of {given.batch_size}")
    print()
    print("| | items | finetune, items/s | lm-eval, items/s | finetune is | |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="finetune-benchmark-") as folder:
        for name, text, shots in (("choices", CHOICES, 0), ("choices_5_shots", CHOICES, 5), ("written", WRITTEN, 0)):
            kind, made = requests(Path(folder), name, text, shots, given.items)
            seconds: dict[str, list[float]] = {side: [] for side in both}
            answers: dict[str, list[Any]] = {}
            for _ in range(given.repeats):
                for side, lm in both.items():
                    asked = made()
                    started = clock()
                    answers[side] = getattr(lm, kind)(asked, disable_tqdm=True)
                    seconds[side].append(clock() - started)
            rate = {side: given.items / min(found) for side, found in seconds.items()}
            print(
                f"| {name.replace('_', ', ', 1).replace('_', ' ')} | {given.items} | {rate['finetune']:.2f} | "
                f"{rate['lm-eval']:.2f} | {rate['finetune'] / rate['lm-eval']:.2f} times as fast | "
                f"{agreement(kind, answers['finetune'], answers['lm-eval'])} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
