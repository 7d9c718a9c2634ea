"""Who takes part in a run's evaluation: base and tuned always, then what `evaluate.contestants` names.

Each is opened when it is its turn and given back afterwards, so that no two models beside the run's own are in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data import ChatEncoder
from finetune.errors import FinetuneError
from finetune.hardware import release_freed_memory, resolve_dtype
from finetune.models import load_model, load_tokenizer, resolve_base
from finetune.models.base import context_length
from finetune.recipe import ModelSection
from finetune.recipe.contestants import Contestant as ContestantSection
from finetune.recipe.contestants import EndpointContestant, GgufContestant, ModelContestant
from finetune.rundir import file_hash
from finetune.runtimes import EndpointRuntime, LlamaCppRuntime, Runtime
from finetune.session import Run, versions

if TYPE_CHECKING:
    from finetune.evaluation.contestants import Contestant


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """One who will answer.

    Attributes:
        name: as results say it.
        fingerprint: of all that decides its answers; kept answers of another are not taken.
        open: loads it, and gives it back when the block ends.
    """

    name: str
    fingerprint: str
    open: Callable[[], AbstractContextManager[Contestant]]


def entrants_of(work: Run, *, tell: Callable[[str], None]) -> list[Entrant]:
    """Return everyone who takes part, without loading anything.

    Args:
        work: a trained run.
        tell: told of exports that are not there yet, and of what is odd about an endpoint's answers.

    Raises:
        FinetuneError: a file that is not there, or a model that cannot be found.
    """
    computing = _computing(work.recipe.model.dtype, work)
    base = _digest("base", work.base.fingerprint, computing)
    tuned = _digest("tuned", base, *_hashes(work.folder.trained()))
    own = [
        Entrant(name="base", fingerprint=base, open=lambda: nullcontext(_own(work, work.untuned()))),
        Entrant(name="tuned", fingerprint=tuned, open=lambda: nullcontext(_own(work, work.tuned()))),
    ]
    others = [_entrant(work, section, number, tell) for number, section in enumerate(work.recipe.evaluate.contestants)]
    return [*own, *(entrant for entrant in others if entrant is not None)]


def _own(work: Run, runtime: Runtime) -> Contestant:
    """Make a contestant of a model with the run's own tokens."""
    from finetune.evaluation.contestants import Local

    return Local(
        runtime=runtime,
        tokenizer=work.tokenizer,
        context_length=context_length(work.base),
        stop=work.data.stop,
    )


def _entrant(work: Run, section: ContestantSection, number: int, tell: Callable[[str], None]) -> Entrant | None:
    where = work.recipe.where(f"evaluate.contestants.{number}")
    if isinstance(section, ModelContestant):
        return _model(work, section, where)
    if isinstance(section, EndpointContestant):
        return _endpoint(work, section, tell)
    if isinstance(section, GgufContestant):
        return _gguf(work, section.name, _gguf_file(section, where))
    path = work.folder.exports / section.name
    if not path.exists():
        tell(f"evaluate {section.name} takes part once it is exported")
        return None
    return _folder(work, section.name, path, where) if path.is_dir() else _gguf(work, section.name, path)


def _gguf_file(section: GgufContestant, where: str) -> Path:
    path = Path(section.path)
    if not path.is_file():
        raise FinetuneError(f"there is no file {path}", where=where, fix="give the path of a .gguf file")
    return path


def _model(work: Run, section: ModelContestant, where: str) -> Entrant:
    said = ModelSection(
        base=section.base,
        revision=section.revision,
        dtype=work.recipe.model.dtype if section.dtype == "auto" else section.dtype,
        trust_remote_code=section.trust_remote_code,
    )
    base = resolve_base(said, where=where)

    @contextmanager
    def opened() -> Iterator[Contestant]:
        from finetune.evaluation.contestants import Local
        from finetune.runtimes import TransformersRuntime

        tokenizer, _ = load_tokenizer(base, conversations=True)
        model = load_model(base, dtype=resolve_dtype(said.dtype, work.machine), device=work.machine.device)
        encoder = ChatEncoder(tokenizer)
        yield Local(
            runtime=TransformersRuntime(model.eval(), tokenizer, name=section.name),
            tokenizer=tokenizer,
            context_length=context_length(base),
            stop=encoder.stop_token_ids,
            encoder=encoder,
        )
        del model
        release_freed_memory()

    fingerprint = _digest("model", base.fingerprint, _computing(said.dtype, work))
    return Entrant(name=section.name, fingerprint=fingerprint, open=opened)


def _folder(work: Run, name: str, path: Path, where: str) -> Entrant:
    if not (path / "config.json").is_file():
        raise FinetuneError(
            f"exports/{path.name} is no model folder", where=where, fix="name a merged folder or a .gguf file"
        )

    @contextmanager
    def opened() -> Iterator[Contestant]:
        from finetune.runtimes import TransformersRuntime

        model = work.load_folder(path)
        yield _own(work, TransformersRuntime(model.eval(), work.tokenizer, name=name))
        del model
        release_freed_memory()

    fingerprint = _digest("folder", _computing(work.recipe.model.dtype, work), *_hashes(path))
    return Entrant(name=name, fingerprint=fingerprint, open=opened)


def _gguf(work: Run, name: str, path: Path) -> Entrant:
    @contextmanager
    def opened() -> Iterator[Contestant]:
        with LlamaCppRuntime(path, work.tokenizer, name=name) as runtime:
            yield _own(work, runtime)

    return Entrant(name=name, fingerprint=_digest("gguf", _computing("", work), file_hash(path)), open=opened)


def _endpoint(work: Run, section: EndpointContestant, tell: Callable[[str], None]) -> Entrant:
    store = work.folder.evaluation / "given" / f"endpoint-{section.name}.jsonl"

    @contextmanager
    def opened() -> Iterator[Contestant]:
        from finetune.evaluation.contestants import Remote

        with EndpointRuntime(section, name=section.name, store=store) as endpoint:
            yield Remote(section.name, endpoint, lambda remark: tell(f"evaluate {remark}"))

    said = json.dumps([section.url, section.model, section.parameters], sort_keys=True)
    return Entrant(name=section.name, fingerprint=_digest("endpoint", said), open=opened)


def _computing(dtype: str, work: Run) -> str:
    """Say with what is computed: other libraries may answer otherwise, so that their answers are not taken."""
    return f"{dtype} on {work.machine.device} with {versions()}"


def _hashes(folder: Path) -> list[str]:
    """Return the hash of every weight file; adapters and merged models have few and small ones."""
    return [f"{path.name} {file_hash(path)}" for path in sorted(folder.glob("*.safetensors"))]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
