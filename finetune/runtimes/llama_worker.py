"""The process that opens a GGUF file in llama.cpp: `python -I llama_worker.py`, asked and answering over pipes.

A GGUF file may come from anybody, and its reader is C++: here it can neither write files nor take the program that
asked down with it. Nothing of finetune is imported. A request is a line of JSON; an answer is a line of JSON, followed
by as many float32 as its `floats` says. Lines with only `done` tell of progress.

llama.cpp is called through the C functions that the wheel `xllamacpp` exports, as only they give the logits of every
position of a text at once; its server is used for the chat template alone, which it renders as it does for its users.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import secrets
import struct
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

# Tokens that are computed at once; answers that are continued together, and the tokens that these may take up
CHUNK, TOGETHER, TOGETHER_TOKENS = 256, 16, 16_384
# What llama.cpp writes into its parameters by default, by offset; other values would mean another layout
CONTEXT_LAYOUT = {0: 512, 4: 2048, 8: 512, 12: 1, 16: 0, 20: 0, 24: 1, 40: -1, 44: -1, 48: -1, 52: -1, 104: 1, 108: 1}
MODEL_LAYOUT = {0: 0, 8: 0, 16: -1, 20: 1}
# Bytes of llama.cpp's log that may be kept
LOG_BYTES = 1 << 22


class Parameters(ctypes.Structure):
    """Any of llama.cpp's parameter structures: larger than it, so that by-value calls may copy what they need."""

    _fields_ = (("raw", ctypes.c_uint8 * 1024),)

    def expect(self, layout: dict[int, int]) -> None:
        """Raise ValueError unless these 32-bit numbers stand at these offsets."""
        found = {offset: struct.unpack_from("<i", self.raw, offset)[0] for offset in layout}
        if found != layout:
            raise ValueError(f"this version of xllamacpp lays its parameters out otherwise: {found}")

    def put(self, values: dict[int, int]) -> None:
        """Write 32-bit numbers at these offsets."""
        for offset, value in values.items():
            struct.pack_into("<i", self.raw, offset, value)


class Batch(ctypes.Structure):
    """llama.cpp's `llama_batch`."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


def library() -> ctypes.CDLL:
    """Load llama.cpp and declare the functions used, each as (result, arguments)."""
    import xllamacpp.xllamacpp as wheel

    found = ctypes.CDLL(wheel.__file__)
    pointer, number, text = ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p
    functions: dict[str, tuple[Any, list[Any]]] = {
        "llama_model_default_params": (Parameters, []),
        "llama_context_default_params": (Parameters, []),
        "llama_model_load_from_file": (pointer, [text, Parameters]),
        "llama_init_from_model": (pointer, [pointer, Parameters]),
        "llama_free": (None, [pointer]),
        "llama_n_ctx_seq": (ctypes.c_uint32, [pointer]),
        "llama_n_batch": (ctypes.c_uint32, [pointer]),
        "llama_set_n_threads": (None, [pointer, number, number]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_model_n_ctx_train": (number, [pointer]),
        "llama_model_n_params": (ctypes.c_uint64, [pointer]),
        "llama_model_size": (ctypes.c_uint64, [pointer]),
        "llama_model_meta_val_str": (number, [pointer, text, text, ctypes.c_size_t]),
        "llama_model_chat_template": (text, [pointer, text]),
        "llama_model_desc": (number, [pointer, text, ctypes.c_size_t]),
        "llama_vocab_n_tokens": (number, [pointer]),
        "llama_vocab_bos": (number, [pointer]),
        "llama_vocab_get_add_bos": (ctypes.c_bool, [pointer]),
        "llama_vocab_is_eog": (ctypes.c_bool, [pointer, number]),
        "llama_tokenize": (number, [pointer, text, number, pointer, number, ctypes.c_bool, ctypes.c_bool]),
        "llama_batch_init": (Batch, [number, number, number]),
        "llama_batch_free": (None, [Batch]),
        "llama_decode": (number, [pointer, Batch]),
        "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [pointer, number]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
        "llama_adapter_lora_init": (pointer, [pointer, text]),
        "llama_set_adapters_lora": (number, [pointer, pointer, ctypes.c_size_t, pointer]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


class Model:
    """A GGUF file in memory, with an adapter over it if there is one."""

    def __init__(self, path: str, adapter: str | None, threads: int) -> None:
        self.path, self.threads, self.llama = path, threads, library()
        settings = self.llama.llama_model_default_params()
        settings.expect(MODEL_LAYOUT)
        # No layer on an accelerator: files are compared as the processor reads them, on every machine alike
        settings.put({16: 0})
        started = time.perf_counter()
        self.model = self.llama.llama_model_load_from_file(os.fsencode(path), settings)
        if not self.model:
            raise ValueError("llama.cpp cannot load it")
        self.adapter = self.llama.llama_adapter_lora_init(self.model, os.fsencode(adapter)) if adapter else None
        if adapter and not self.adapter:
            raise ValueError(f"llama.cpp cannot load the adapter {adapter!r} over it")
        self.load_seconds = time.perf_counter() - started
        self.vocab = self.llama.llama_model_get_vocab(self.model)
        self.width = self.llama.llama_vocab_n_tokens(self.vocab)
        self.context: Any = None
        self.shape = (0, 0)

    def facts(self) -> dict[str, Any]:
        """Return what the file says about itself, and how long loading took."""
        named = ctypes.create_string_buffer(256)
        self.llama.llama_model_desc(self.model, named, len(named))
        file_type = ctypes.create_string_buffer(32)
        self.llama.llama_model_meta_val_str(self.model, b"general.file_type", file_type, len(file_type))
        template = self.llama.llama_model_chat_template(self.model, None)
        return {
            "description": named.value.decode(errors="replace"),
            "file_type": int(file_type.value or -1),
            "vocabulary": self.width,
            "parameters": self.llama.llama_model_n_params(self.model),
            "size": self.llama.llama_model_size(self.model),
            "trained_context": self.llama.llama_model_n_ctx_train(self.model),
            "bos": self.llama.llama_vocab_bos(self.vocab),
            "adds_bos": self.llama.llama_vocab_get_add_bos(self.vocab),
            "stops": [token for token in range(self.width) if self.llama.llama_vocab_is_eog(self.vocab, token)],
            "has_template": template is not None,
            "load_seconds": self.load_seconds,
        }

    def tokenise(self, text: str) -> list[int]:
        """Return the ids that llama.cpp's server gives a prompt: BOS where the file says so, control tokens read."""
        raw = text.encode()
        room = len(raw) + 8
        ids = (ctypes.c_int32 * room)()
        count = self.llama.llama_tokenize(self.vocab, raw, len(raw), ids, room, True, True)
        if count < 0:
            raise ValueError(f"llama.cpp cannot tokenise {text[:80]!r}")
        return list(ids[:count])

    def open(self, length: int, sequences: int) -> None:
        """Make room for so many sequences of that length, all empty."""
        if self.context and self.shape[0] >= length and self.shape[1] >= sequences:
            self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
            return
        if self.context:
            self.llama.llama_free(self.context)
        settings = self.llama.llama_context_default_params()
        settings.expect(CONTEXT_LAYOUT)
        length = -(-length // CHUNK) * CHUNK
        settings.put({0: length * sequences, 4: CHUNK, 8: CHUNK, 12: sequences, 20: CHUNK, 24: CHUNK})
        self.context = self.llama.llama_init_from_model(self.model, settings)
        if not self.context:
            raise ValueError(f"llama.cpp has no room for {sequences} texts of {length} tokens")
        if self.llama.llama_n_ctx_seq(self.context) < length or self.llama.llama_n_batch(self.context) != CHUNK:
            raise ValueError("this version of xllamacpp lays its parameters out otherwise")
        self.shape = (length, sequences)
        self.llama.llama_set_n_threads(self.context, self.threads, self.threads)
        if self.adapter:
            adapters, scales = (ctypes.c_void_p * 1)(self.adapter), (ctypes.c_float * 1)(1.0)
            if self.llama.llama_set_adapters_lora(self.context, adapters, 1, scales):
                raise ValueError("llama.cpp cannot apply the adapter")

    def decode(self, entries: Sequence[tuple[int, int, int, bool]]) -> dict[int, np.ndarray]:
        """Compute (token, position, sequence, wanted) entries; return the logits of those wanted, by entry."""
        batch = self.llama.llama_batch_init(len(entries), 0, 1)
        try:
            batch.n_tokens = len(entries)
            for index, (token, position, sequence, wanted) in enumerate(entries):
                if not 0 <= token < self.width:
                    raise ValueError(f"the file has no token {token}: its vocabulary ends at {self.width}")
                batch.token[index], batch.pos[index] = token, position
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
                batch.logits[index] = wanted
            if code := self.llama.llama_decode(self.context, batch):
                raise ValueError(f"llama.cpp could not compute {len(entries)} tokens (code {code})")
        finally:
            self.llama.llama_batch_free(batch)
        return {index: self._logits(index) for index, entry in enumerate(entries) if entry[3]}

    def _logits(self, index: int) -> np.ndarray:
        found = self.llama.llama_get_logits_ith(self.context, index)
        if not found:
            raise ValueError(f"llama.cpp gives no logits at position {index}")
        return np.ctypeslib.as_array(found, (self.width,)).copy()

    def log_probabilities(self, ids: Sequence[int]) -> np.ndarray:
        """Return log p(next token) at each position."""
        self.open(len(ids), 1)
        rows = []
        for start in range(0, len(ids), CHUNK):
            part = [(token, start + index, 0, True) for index, token in enumerate(ids[start : start + CHUNK])]
            rows += list(self.decode(part).values())
        logits = np.stack(rows)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)).astype(np.float32)
        return logits

    def generate(self, prompts: Sequence[Sequence[int]], longest: int, stop: set[int]) -> Iterator[list[list[int]]]:
        """Answer prompts greedily, some at a time; a stop token is the last of its answer."""
        room = max(map(len, prompts), default=0) + longest
        size = max(1, min(TOGETHER, TOGETHER_TOKENS // room, len(prompts)))
        self.open(room, size)
        for start in range(0, len(prompts), size):
            self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
            yield self._together(prompts[start : start + size], longest, stop)

    def _together(self, prompts: Sequence[Sequence[int]], longest: int, stop: set[int]) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]
        entries = [
            (token, position, sequence, position == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        while entries:
            following = []
            for start in range(0, len(entries), CHUNK):
                part = entries[start : start + CHUNK]
                for index, logits in self.decode(part).items():
                    _, position, sequence, _ = part[index]
                    token = int(logits.argmax())
                    answers[sequence].append(token)
                    if token not in stop and len(answers[sequence]) < longest:
                        following.append((token, position + 1, sequence, True))
            entries = following
        return answers


def render(path: str, conversations: Sequence[Any]) -> list[str | dict[str, str]]:
    """Let llama.cpp's server write conversations by the file's own template; a refusal is given as its words."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.warmup, settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = False, CHUNK, 1, 0
    settings.port, settings.use_jinja = 0, True
    key = secrets.token_hex(16)
    settings.api_keys = [key]
    server = xllamacpp.Server(settings)
    return [_rendered(f"{server.listening_address}/apply-template", key, one) for one in conversations]


def _rendered(address: str, key: str, messages: Any) -> str | dict[str, str]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    asked = urllib.request.Request(address, json.dumps({"messages": messages}).encode(), headers)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=60) as answer:
            return str(json.load(answer)["prompt"])
    except urllib.error.HTTPError as error:
        return {"refused": json.loads(error.read() or b"{}").get("error", {}).get("message", str(error))}


def limit(path: str) -> None:
    """Take from this process what reading a model does not need."""
    size = os.path.getsize(path)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LOG_BYTES, LOG_BYTES))
    # The file mapped, its weights once more in the order that the processor likes, and buffers
    if sys.platform == "linux":
        room = 4 * size + (16 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are none; the first one names the file."""

    def answer(value: dict[str, Any], floats: np.ndarray | None = None) -> None:
        payload = b"" if floats is None else np.ascontiguousarray(floats, dtype=np.float32).tobytes()
        answers.write(json.dumps({**value, "floats": len(payload) // 4}).encode() + b"\n" + payload)
        answers.flush()

    model: Model | None = None
    for line in asked:
        request = json.loads(line)
        try:
            if request["ask"] == "load":
                limit(request["path"])
                model = Model(request["path"], request["adapter"], request["threads"])
                answer(model.facts())
            elif request["ask"] == "render":
                limit(request["path"])
                answer({"texts": render(request["path"], request["conversations"])})
            elif model is not None:
                asked_of(model, request, answer)
        # Whatever is wrong with the file is told to who asked; it alone knows what the file is to the user
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)})


def asked_of(model: Model, request: dict[str, Any], answer: Callable[..., None]) -> None:
    """Answer a request about a loaded model."""
    started = time.perf_counter()
    if request["ask"] == "tokenise":
        answer({"ids": [model.tokenise(text) for text in request["texts"]]})
    elif request["ask"] == "log_probabilities":
        found = model.log_probabilities(request["ids"])
        answer({"seconds": time.perf_counter() - started, "shape": found.shape}, found)
    elif request["ask"] == "generate":
        answers: list[list[int]] = []
        for some in model.generate(request["prompts"], request["longest"], set(request["stop"])):
            answers += some
            answer({"done": len(answers)})
        answer({"answers": answers, "seconds": time.perf_counter() - started})
    elif request["ask"] == "memory":
        answer({"peak": _peak()})


def _peak() -> int:
    """Return the most memory of this process, in bytes; ru_maxrss would begin with that of whoever started it."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def main() -> None:
    """Keep the pipe of answers to ourselves: whatever llama.cpp prints goes to the log."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)
    answers.flush()
    # llama.cpp's server is not asked to end in order: nothing of it is kept
    os._exit(0)


if __name__ == "__main__":
    main()
