"""A GGUF file answering in llama.cpp, in a process of its own: `with LlamaCppRuntime(path, tokenizer, name=...)`.

The process is `llama_worker`; if it crashes or hangs, that is a fault of the file, told with its name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np

from finetune.errors import FinetuneError, missing_extra
from finetune.runtimes.protocol import Continuation, Generation, Progress, cut_at

WORKER = Path(__file__).with_name("llama_worker.py")
# Seconds without a sign of life after which the process is taken to hang
PATIENCE = 600.0
# What the process may know of our surroundings: nothing that is secret
SURROUNDINGS = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL", "SYSTEMROOT")


def require_llama_cpp(purpose: str) -> None:
    """Refuse what needs llama.cpp where it is not installed.

    Raises:
        FinetuneError: with the extra to install.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise missing_extra("xllamacpp", "gguf", purpose)


class Worker:
    """A running `llama_worker` and the pipes to it.

    Args:
        path: the GGUF file; named in messages.
        patience: seconds without a sign of life after which it is ended.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        require_llama_cpp("reading a .gguf file in llama.cpp")
        if not path.is_file():
            raise FinetuneError("there is no such file", where=str(path), fix="give the path of a .gguf file")
        self.path, self.patience = path, patience
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        kept = {name: os.environ[name] for name in SURROUNDINGS if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Else a crash calls a debugger, which takes half a minute to say nothing that we could use
            # and threads that spin while they wait burn the core that another process needs
            env={**kept, "GGML_NO_BACKTRACE": "1", "GOMP_SPINCOUNT": "20000"},
        )
        self._asked, self._answers = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self._buffer = bytearray()

    def ask(self, request: Mapping[str, Any], progress: Progress | None = None) -> tuple[dict[str, Any], np.ndarray]:
        """Send a request and wait for its answer.

        Returns:
            The answer, and its numbers.

        Raises:
            FinetuneError: the file is at fault, or the process crashed or hangs.
        """
        try:
            self._asked.write(json.dumps(request).encode() + b"\n")
            self._asked.flush()
        except BrokenPipeError:
            raise self._fault("llama.cpp crashed on this file") from None
        while True:
            answer: dict[str, Any] = json.loads(self._line())
            numbers = np.frombuffer(self._exactly(4 * answer.pop("floats")), dtype=np.float32)
            if "error" in answer:
                raise self._fault(answer["error"])
            if set(answer) == {"done"}:
                if progress is not None:
                    progress(answer["done"])
                continue
            return answer, numbers

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            self._read()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._read()
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    def _read(self) -> None:
        ready, _, _ = select.select([self._answers], [], [], self.patience)
        if not ready:
            raise self._fault(f"llama.cpp hangs on this file: no sign of life for {self.patience:g} s")
        some = os.read(self._answers.fileno(), 1 << 20)
        if not some:
            raise self._fault("llama.cpp crashed on this file")
        self._buffer += some

    def _fault(self, what: str) -> FinetuneError:
        """End the process and return what went wrong, with the last that llama.cpp said of it."""
        code = self._end()
        self._log.seek(0)
        said = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        wrong = [line for line in said if "error" in line.lower() or "assert" in line.lower()]
        cause = f" ({wrong[-1][:300]})" if wrong else f" (exit code {code})" if "crashed" in what else ""
        self._log.close()
        return FinetuneError(f"{what}{cause}", where=str(self.path), fix="export it again, or fetch it again")

    def _end(self) -> int:
        self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._asked.close()
        self._answers.close()
        return code

    def close(self) -> None:
        """End the process."""
        self._end()
        self._log.close()


def _cores() -> int:
    """Return how many threads may compute: what the user says to OpenMP, or the cores that this process has."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a GGUF file says about itself in llama.cpp, and how long loading it took.

    `stops` are the tokens that end an answer in every program on llama.cpp; `size` is that of the weights in bytes.
    """

    description: str
    file_type: int
    vocabulary: int
    parameters: int
    size: int
    trained_context: int
    bos: int
    adds_bos: bool
    stops: tuple[int, ...]
    has_template: bool
    load_seconds: float

    @property
    def quantization(self) -> str:
        """Name of the number format that most weights have, as recipes write it; empty where the file says none."""
        from gguf import LlamaFileType

        known: dict[int, str] = {
            int(one): one.name.removeprefix("MOSTLY_").removeprefix("ALL_").lower() for one in LlamaFileType
        }
        return known.get(self.file_type, "")

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes on average."""
        return 8 * self.size / max(1, self.parameters)


class LlamaCppRuntime:
    """Greedy answers and likelihoods from a GGUF file. Close it, or use it in a `with` block.

    Args:
        path: the GGUF file.
        tokenizer: turns answers into text; the one that the model was trained with.
        name: what the contestant is called.
        adapter: a GGUF adapter to put over the file.
        threads: processor threads; unset takes one a core.
        patience: seconds without a sign of life after which the file is taken to be at fault.

    Raises:
        FinetuneError: llama.cpp is not installed, or cannot load the file.
    """

    def __init__(
        self,
        path: Path,
        tokenizer: Any,
        *,
        name: str,
        adapter: Path | None = None,
        threads: int | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.path, self.tokenizer, self.name = path, tokenizer, name
        self._worker = Worker(path, patience=patience)
        found, _ = self._worker.ask(
            {
                "ask": "load",
                "path": str(path.resolve()),
                "adapter": str(adapter.resolve()) if adapter else None,
                "threads": threads or _cores(),
            }
        )
        self.facts = FileFacts(**{**found, "stops": tuple(found["stops"])})
        self._seconds, self._tokens = 0.0, 0

    def __enter__(self) -> LlamaCppRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process that holds the file."""
        self._worker.close()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        until: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> list[Generation]:
        """Answer each prompt greedily; the arguments are those of the protocol. Stop texts save no time here."""
        asked = {
            "ask": "generate",
            "prompts": [list(map(int, prompt)) for prompt in prompts],
            "longest": max_new_tokens,
            "stop": list(stop),
        }
        found, _ = self._worker.ask(asked, progress)
        self._seconds += found["seconds"]
        self._tokens += sum(map(len, found["answers"]))
        return [self._generation(tokens, stop, until) for tokens in found["answers"]]

    def _generation(self, tokens: list[int], stop: Sequence[int], until: Sequence[str]) -> Generation:
        ended = bool(tokens) and tokens[-1] in stop
        kept = tokens[:-1] if ended else tokens
        text = str(self.tokenizer.decode(kept, skip_special_tokens=True))
        cut = cut_at(text, until)
        return Generation(tuple(kept), text if cut is None else cut, ended or cut is not None)

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> list[float]:
        """Return the summed log probability, in nats, of the marked tokens of each row; the first never counts."""
        return [self._scored(ids, marks).log_likelihood for ids, marks in rows]

    def _scored(self, ids: Sequence[int], marks: Sequence[bool]) -> Continuation:
        places = np.flatnonzero(np.asarray(marks[1:], dtype=bool))
        scores, following = self.log_probabilities(ids)[places], np.asarray(ids[1:], dtype=np.int64)[places]
        chosen = scores[np.arange(len(places)), following].astype(np.float64)
        return Continuation(float(chosen.sum()), bool((scores.argmax(-1) == following).all()))

    def score_continuations(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[Continuation]]:
        """Return how likely each of a prompt's continuations is; every one is read with its prompt."""
        return [
            [self._scored([*prompt, *one], [False] * len(prompt) + [True] * len(one)) for one in those]
            for prompt, those in zip(prompts, continuations, strict=True)
        ]

    def choice_log_likelihoods(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Return, for each prompt, the log probability in nats of each of its continuations."""
        scored = self.score_continuations(prompts, continuations)
        return [[one.log_likelihood for one in those] for those in scored]

    def log_probabilities(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return log p(next token) at each position: float32 [length, vocabulary]."""
        found, numbers = self._worker.ask({"ask": "log_probabilities", "ids": list(map(int, token_ids))})
        return numbers.reshape(found["shape"])

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids that llama.cpp's server gives prompts: BOS where the file says so, control tokens read."""
        found, _ = self._worker.ask({"ask": "tokenise", "texts": list(texts)})
        ids: list[list[int]] = found["ids"]
        return ids

    def size_bytes(self) -> int:
        """Return the bytes that the weights take."""
        return self.facts.size

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens answered in a second, reading prompts included; None before it has answered."""
        return self._tokens / self._seconds if self._seconds else None

    def peak_memory(self) -> int:
        """Return the most memory, in bytes, that the process had so far; the mapped file counts."""
        found, _ = self._worker.ask({"ask": "memory"})
        return int(found["peak"])


def rendered(
    path: Path, conversations: Sequence[Sequence[Mapping[str, str]]], *, patience: float = PATIENCE
) -> list[str | None]:
    """Write conversations, with the generation prompt, by the chat template inside a GGUF file, in llama.cpp.

    Args:
        path: the GGUF file.
        conversations: messages of `role` and `content`.
        patience: seconds without a sign of life after which the file is taken to be at fault.

    Returns:
        The prompts without BOS where llama.cpp adds it itself; None for a conversation that the template refuses.

    Raises:
        FinetuneError: llama.cpp is not installed, or cannot load the file or its template.
    """
    worker = Worker(path, patience=patience)
    try:
        asked = {"ask": "render", "path": str(path.resolve()), "conversations": [list(one) for one in conversations]}
        found, _ = worker.ask(asked)
    finally:
        worker.close()
    return [text if isinstance(text, str) else None for text in found["texts"]]
