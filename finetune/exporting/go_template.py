"""A chat template in Go's template language, as Ollama reads it, derived from the Jinja template by writing with it.

`derive(write)` finds the constant pieces between the turns and puts them together in one fixed shape; `execute` runs
a template of that shape as Ollama would, so that it can be compared with the original on real conversations.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetune.errors import FinetuneError

# Writes messages, with the generation prompt; raises FinetuneError where the template refuses them
Write = Callable[[Sequence[Mapping[str, str]]], str]

# Words that no template has, and that no template changes
SYSTEM, USERS, ANSWERS = "Sxqzsys0", ("Uxqzusr0", "Uxqzusr1", "Uxqzusr2"), ("Axqzans0", "Axqzans1")
_TOKEN = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The constant texts around each part of a prompt; `no_system` opens one that has no system message.

    `system_always` tells apart templates that take no system message at all, for which there is no `system`.
    """

    system: tuple[str, str] | None
    no_system: str
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str

    def as_go(self) -> str:
        """Return the template in Go's language, of the `.Messages` form."""
        opening = _text(self.no_system)
        if self.system is not None:
            before, after = map(_text, self.system)
            other = f"{{{{ else }}}}{opening}" if opening else ""
            opening = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{other}{{{{ end }}}}"
        user, assistant = ([_text(part) for part in pair] for pair in (self.user, self.assistant))
        return (
            f"{opening}{{{{ range .Messages }}}}"
            f'{{{{ if eq .Role "user" }}}}{user[0]}{{{{ .Content }}}}{user[1]}'
            f'{{{{ else if eq .Role "assistant" }}}}{assistant[0]}{{{{ .Content }}}}{assistant[1]}'
            f"{{{{ end }}}}{{{{ end }}}}{_text(self.generation)}"
        )


def _text(constant: str) -> str:
    """Return a constant as it stands in a Go template inside triple quotes."""
    escaped = constant.replace("{{", '{{ "{{" }}')
    # Quotes in a row, or at an end, could be taken for those around the Modelfile's text
    return re.sub(r'"{2,}|^"|"$', lambda found: '{{ "' + found.group().replace('"', '\\"') + '" }}', escaped)


def derive(write: Write, stops: Sequence[str] = ()) -> Shape:
    """Find the shape of a chat template.

    Args:
        write: the template.
        stops: texts of the tokens that end a turn. Any cut between turns gives the same prompts; behind these it
            reads best.

    Raises:
        FinetuneError: it is of no such shape, with the reason.
    """
    (head, *between, tail) = _pieces(write, system=False)
    if between[0] != between[2] or between[1] != between[3]:
        raise _no_shape("it writes earlier turns otherwise than later ones")
    answer, question = between[:2]
    openings = [head]
    system_before = ""
    try:
        before, after, *rest = _pieces(write, system=True)
        if rest != [*between, tail]:
            raise _no_shape("a system message changes what stands around later turns")
        openings, system_before = [head, after], before
    except _Missing:
        after = None
    user = _common([text[::-1] for text in (*openings, question)])[::-1]
    user = user[_behind(user, stops, last=True) :]
    closing = _common([answer, tail])
    closing = closing[: _behind(closing, stops, last=False) or len(closing)]
    return Shape(
        system=None if after is None else (system_before, after.removesuffix(user)),
        no_system=head.removesuffix(user),
        user=(user, closing),
        assistant=(answer.removeprefix(closing), question.removesuffix(user)),
        generation=tail.removeprefix(closing),
    )


def _common(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in same)


def _behind(text: str, stops: Sequence[str], *, last: bool) -> int:
    """Return the place behind the first or last of these words and the blanks that follow it; 0 without one."""
    words = "|".join(map(re.escape, stops)) or "(?!)"
    places = [found.end() for found in re.finditer(rf"(?:{words})\s*", text)]
    return 0 if not places else places[-1] if last else places[0]


class _Missing(Exception):
    """The template takes no system message."""


def _pieces(write: Write, *, system: bool) -> list[str]:
    """Return the constant texts before, between and after the turns of a conversation."""
    turns = [("user", USERS[0]), ("assistant", ANSWERS[0]), ("user", USERS[1]), ("assistant", ANSWERS[1])]
    turns = [*([("system", SYSTEM)] if system else []), *turns, ("user", USERS[2])]
    try:
        text = write([{"role": role, "content": word} for role, word in turns])
    except FinetuneError as error:
        if system:
            raise _Missing from error
        raise
    if system and SYSTEM not in text:
        raise _Missing
    words = [word for _, word in turns]
    if any(text.count(word) != 1 for word in words):
        raise _no_shape("it leaves a turn out, or writes one twice")
    places = [text.index(word) for word in words]
    if places != sorted(places):
        raise _no_shape("it writes turns in another order")
    return re.split("|".join(words), text)


def _no_shape(why: str) -> FinetuneError:
    return FinetuneError(
        f"the chat template cannot be put into Ollama's language: {why}",
        fix="export kind: gguf, whose embedded template llama.cpp, LM Studio and Ollama's newer versions read",
    )


# -------------------------------------------------------------------------------------------------------- executing


def execute(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """Run a Go template of `Shape`'s form as Ollama does.

    Ollama joins turns of one role that follow each other, and all system messages, with an empty line.

    Args:
        template: Go's template language: texts, `if`, `else`, `end`, `range .Messages`, `.System`, `.Content`,
            `eq .Role`, quoted strings.
        messages: turns of `role` and `content`.

    Raises:
        FinetuneError: the template says anything else.
    """
    joined: list[dict[str, str]] = []
    for one in messages:
        if joined and joined[-1]["role"] == one["role"]:
            joined[-1]["content"] += f"\n\n{one['content']}"
        else:
            joined.append(dict(one))
    system = "\n\n".join(one["content"] for one in joined if one["role"] == "system")
    nodes, _, closing = _parse(list(_tokens(template)), 0)
    if closing:
        raise FinetuneError(f"{{{{ {closing} }}}} closes nothing", where="TEMPLATE")
    return "".join(_run(nodes, joined, system, None))


@dataclass(frozen=True, slots=True)
class _Node:
    """A text, a value, or a block with its branches: (condition, nodes), the last one's condition empty for else."""

    kind: str
    value: str = ""
    branches: tuple[tuple[str, tuple[_Node, ...]], ...] = ()


def _tokens(template: str) -> Iterator[tuple[str, str]]:
    at = 0
    for found in _TOKEN.finditer(template):
        if found.start() > at:
            yield "text", template[at : found.start()]
        yield "code", found[1].strip()
        at = found.end()
    if at < len(template):
        yield "text", template[at:]


def _parse(tokens: Sequence[tuple[str, str]], at: int) -> tuple[list[_Node], int, str]:
    """Parse up to an `end` or `else`; return the nodes, the position behind it, and that word or nothing."""
    nodes: list[_Node] = []
    while at < len(tokens):
        kind, value = tokens[at]
        at += 1
        if kind == "text":
            nodes.append(_Node("text", value))
        elif value == "end" or value.startswith("else"):
            return nodes, at, value
        elif value.startswith(("if ", "range ")):
            branches, closing = [], value
            while closing != "end":
                inside, at, following = _parse(tokens, at)
                if not following:
                    raise FinetuneError(f"{{{{ {value} }}}} is never closed", where="TEMPLATE")
                branches.append((closing.removeprefix("else").strip(), tuple(inside)))
                closing = following
            nodes.append(_Node("block", branches=tuple(branches)))
        else:
            nodes.append(_Node("value", value))
    return nodes, at, ""


def _run(
    nodes: Sequence[_Node], messages: Sequence[Mapping[str, str]], system: str, turn: Mapping[str, str] | None
) -> Iterator[str]:
    for node in nodes:
        if node.kind == "text":
            yield node.value
        elif node.kind == "value":
            yield _value(node.value, system, turn)
        elif node.branches[0][0] == "range .Messages":
            for one in messages:
                yield from _run(node.branches[0][1], messages, system, one)
        else:
            taken = next((inside for condition, inside in node.branches if _holds(condition, system, turn)), ())
            yield from _run(taken, messages, system, turn)


def _value(code: str, system: str, turn: Mapping[str, str] | None) -> str:
    if code == ".System" and turn is None:
        return system
    if code == ".Content" and turn is not None:
        return turn["content"]
    if found := _LITERAL.fullmatch(code):
        return found[1].replace('\\"', '"')
    raise FinetuneError(f"{{{{ {code} }}}} is not among what is understood here", where="TEMPLATE")


def _holds(condition: str, system: str, turn: Mapping[str, str] | None) -> bool:
    if condition == "":
        return True
    if condition == "if .System":
        return bool(system)
    found = re.fullmatch(r'if eq \.Role "(\w+)"', condition)
    if found is None or turn is None:
        raise FinetuneError(f"{{{{ {condition} }}}} is not among what is understood here", where="TEMPLATE")
    return turn["role"] == found[1]
