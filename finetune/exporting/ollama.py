"""A folder for `ollama create`: the GGUF file and a Modelfile, its template proven on real conversations of the run.

The template is always written: Ollama would otherwise guess one by likeness, and guesses short ones wrong.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.data import Message
from finetune.data.chat.templates import Template
from finetune.errors import FinetuneError
from finetune.exporting.go_template import Shape, Write, derive, execute
from finetune.exporting.llama_file import Asked, prove_file
from finetune.exporting.prompts import Parity, begin_of_text, compare_prompts
from finetune.exporting.trained import Trained
from finetune.exporting.verify import Verification
from finetune.recipe.schema import OllamaExport
from finetune.rundir import staged_folder, write_text
from finetune.runtimes import LlamaCppRuntime

MODELFILE = "Modelfile"
# Context that is asked for unless the recipe says otherwise: Ollama's own default cuts prompts at 2,048 to 4,096
CONTEXT = 8192
_COMMAND = re.compile(r'^(?P<name>[A-Z]+)[ \t]+(?:"""(?P<long>.*?)"""|(?P<short>[^\n]*))$', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """What Ollama is told of a model; `model` is the GGUF file's name beside the Modelfile."""

    model: str
    template: str
    stops: tuple[str, ...]
    num_ctx: int
    temperature: float
    system: str | None = None

    def as_text(self) -> str:
        """Write it.

        Raises:
            FinetuneError: a text that a Modelfile cannot hold.
        """
        for text in (self.template, self.system or "", *self.stops):
            if '"""' in text or text.endswith('"') or text.startswith('"') or "\n" in "".join(self.stops):
                raise FinetuneError(
                    f"a Modelfile cannot hold this text, for its quotes: {text[-60:]!r}",
                    where=MODELFILE,
                    fix="export kind: gguf, or put no quotes at the ends of data.system",
                )
        lines = [f"FROM ./{self.model}", f'TEMPLATE """{self.template}"""']
        lines += [f'PARAMETER stop "{stop}"' for stop in self.stops]
        lines += [f"PARAMETER num_ctx {self.num_ctx}", f"PARAMETER temperature {self.temperature:g}"]
        if self.system:
            lines.append(f'SYSTEM """{self.system}"""')
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, path: Path) -> Modelfile:
        """Read one of ours.

        Raises:
            FinetuneError: it cannot be read, or lacks a file or a template.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FinetuneError(f"cannot read the Modelfile: {error}", where=str(path)) from error
        said: dict[str, list[str]] = {}
        for found in _COMMAND.finditer(text):
            value = found["long"] if found["long"] is not None else found["short"].strip()
            said.setdefault(found["name"], []).append(value)
        settings = [value.split(maxsplit=1) for value in said.get("PARAMETER", ()) if " " in value]
        numbers = {name: value for name, value in settings if name != "stop"}
        if "FROM" not in said or "TEMPLATE" not in said:
            raise FinetuneError("this Modelfile has no FROM or no TEMPLATE", where=str(path), fix="export it again")
        return cls(
            model=said["FROM"][0],
            template=said["TEMPLATE"][0],
            stops=tuple(value.strip('"') for name, value in settings if name == "stop"),
            num_ctx=int(numbers.get("num_ctx", 0)),
            temperature=float(numbers.get("temperature", 0.8)),
            system=said["SYSTEM"][0] if "SYSTEM" in said else None,
        )


def writer(tokenizer: Any) -> Write:
    """Return what writes conversations by a tokenizer's chat template, the system message folded if need be."""
    template = Template(tokenizer)

    def write(messages: Sequence[Any]) -> str:
        told = [Message(one["role"], one["content"]) for one in messages]
        return template.render(template.fold(told), add_generation_prompt=True)

    return write


def go_template(tokenizer: Any, stops: Sequence[str] = (), *, adds_bos: bool) -> str:
    """Derive the Go template of a tokenizer's chat template.

    Args:
        tokenizer: the one that was trained with.
        stops: texts of the tokens that end a turn.
        adds_bos: whether llama.cpp puts the begin-of-text token there itself; the template then leaves it out.

    Raises:
        FinetuneError: the template is of no shape that can be derived.
    """
    shape = derive(writer(tokenizer), stops)
    bos = begin_of_text(tokenizer)
    return (_without_bos(shape, bos[1]) if adds_bos and bos is not None else shape).as_go()


def _without_bos(shape: Shape, bos: str) -> Shape:
    system = shape.system and (shape.system[0].removeprefix(bos), shape.system[1])
    if shape.no_system or shape.system:
        return replace(shape, system=system, no_system=shape.no_system.removeprefix(bos))
    return replace(shape, user=(shape.user[0].removeprefix(bos), shape.user[1]))


def require_modelfile(tokenizer: Any) -> None:
    """Refuse a chat template that cannot be put into Ollama's language, before anything is trained.

    Raises:
        FinetuneError: with the reason.
    """
    bos = begin_of_text(tokenizer)
    adds = bos is not None and tokenizer("a").input_ids[:1] == [bos[0]]
    template, write = go_template(tokenizer, adds_bos=adds), writer(tokenizer)
    for roles in (("user",), ("system", "user"), ("user", "assistant", "user", "assistant", "user")):
        messages = [{"role": role, "content": f"Words of turn {turn}."} for turn, role in enumerate(roles)]
        try:
            wanted = write(messages)
        except FinetuneError:
            continue
        wanted = wanted.removeprefix(bos[1]) if adds and bos is not None else wanted
        if execute(template, messages) != wanted:
            raise FinetuneError(
                f"the chat template writes {' - '.join(roles)} otherwise than any template of Ollama's could",
                fix="export kind: gguf",
            )


def export_ollama(section: OllamaExport, trained: Trained, *, file: Verification, target: Path) -> Verification:
    """Write the folder: the file, linked where the disk can, and the Modelfile.

    Args:
        section: context and temperature.
        trained: what was trained.
        file: the GGUF file's own verification.
        target: the folder to write.

    Raises:
        FinetuneError: the template cannot be derived, or makes other prompts than training did; nothing is written.
    """
    model, name = Path(file.path), f"model-{section.quantization}.gguf"
    stops = tuple(trained.tokenizer.convert_ids_to_tokens(list(trained.stop)))
    with LlamaCppRuntime(model, trained.tokenizer, name="llama.cpp") as shipped:
        told = Modelfile(
            model=name,
            template=go_template(trained.tokenizer, stops, adds_bos=shipped.facts.adds_bos),
            stops=stops,
            num_ctx=section.num_ctx or min(CONTEXT, shipped.facts.trained_context),
            temperature=section.temperature,
            system=trained.recipe.data.system,
        )
        parity = template_parity(told.template, shipped, trained)
    if parity.problems:
        raise FinetuneError(
            f"no Modelfile was written: {'; '.join(parity.problems)}", where="export", fix="export kind: gguf"
        )
    with staged_folder(target) as aside:
        write_text(aside / MODELFILE, told.as_text())
        _link(model, aside / name)
    return replace(file, path=str(target / MODELFILE)).knowing(
        prompt_parity=parity.share, conversations=parity.conversations
    )


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def template_parity(template: str, shipped: LlamaCppRuntime, trained: Trained) -> Parity:
    """Compare the prompts of a Go template, as tokens of the file that it is for, with those of training."""
    texts = [execute(template, one.messages) if one.messages else one.text for one in trained.conversations]
    bos = begin_of_text(trained.tokenizer)
    return compare_prompts(
        trained.conversations, texts, shipped.tokenise(texts), bos=bos, who="the Modelfile's template"
    )


def prove_modelfile(path: Path, trained: Trained, asked: Asked) -> Verification:
    """Compare a Modelfile and the file beside it with what was trained.

    Args:
        path: the Modelfile.
        trained: what was trained.
        asked: bounds; those of the table where it says none.

    Raises:
        FinetuneError: it cannot be read, or llama.cpp cannot load its file.
    """
    told = Modelfile.read(path)
    model = path.parent / told.model
    proof = prove_file(model, trained, asked)
    with LlamaCppRuntime(model, trained.tokenizer, name="llama.cpp") as shipped:
        parity = template_parity(told.template, shipped, trained)
    names = {end: trained.tokenizer.convert_ids_to_tokens(end) for end in trained.ends}
    unstopped = [
        f"answers were trained to end in {name!r} (token {end}), which is no stop of the Modelfile"
        for end, name in names.items()
        if name not in told.stops
    ]
    shares = [share for share in (proof.prompt_parity, parity.share) if share is not None]
    return replace(proof, path=str(path)).knowing(
        prompt_parity=min(shares, default=None),
        problems=(*parity.problems, *unstopped),
    )
