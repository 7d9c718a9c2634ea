"""Jinja to Go by probing: the text word for word, what Ollama does when it runs it, and templates that have no form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.exporting.go_template import Shape, derive, execute
from tests.tiny import CHATML

LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set s = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ (s if loop.first else '') + m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
DEFAULTED = (
    "{% if messages[0].role != 'system' %}<|system|>\nBe kind.<|end|>\n{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n"
)


def writing(source: str) -> Any:
    template = jinja2.Environment(keep_trailing_newline=True).from_string(source)

    def write(messages: Sequence[Mapping[str, str]]) -> str:
        return template.render(messages=messages, add_generation_prompt=True)

    return write


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": roles[index % 2], "content": text} for index, text in enumerate(contents)]


def test_chatml_word_for_word() -> None:
    assert derive(writing(CHATML), ("<|im_end|>",)).as_go() == (
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
        '{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        "{{ end }}{{ end }}<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("source", [CHATML, LLAMA2, DEFAULTED], ids=["chatml", "llama-2", "default system"])
@pytest.mark.parametrize("stops", [(), ("<|im_end|>", "<|end|>", "</s>")], ids=["anywhere", "at stops"])
@pytest.mark.parametrize("system", [None, "Sort the mail."])
@pytest.mark.parametrize("length", [1, 3, 5])
def test_it_writes_what_jinja_writes(source: str, stops: tuple[str, ...], system: str | None, length: int) -> None:
    write = writing(source)
    messages = turns(*[f"Words {index}\n of {{{{ a }}}} turn" for index in range(length)], system=system)
    assert execute(derive(write, stops).as_go(), messages) == write(messages)


@given(st.lists(st.text(max_size=20).filter(bool), min_size=1, max_size=5), st.text(max_size=20))
def test_any_words_go_through_unchanged(contents: list[str], system: str) -> None:
    write = writing(CHATML)
    messages = turns(*contents[: len(contents) - 1 + len(contents) % 2], system=system or None)
    assert execute(derive(write).as_go(), messages) == write(messages)


@pytest.mark.parametrize(
    "constant", ['"', '""', '"""', '"x"', "{{", "{{ .System }}", "}}", "{{ end }}", "\\", '\\"', "-", "`", "\n\n "]
)
def test_constants_that_look_like_code_stay_text(constant: str) -> None:
    pieces = {"system": (constant, constant), "no_system": constant, "user": (constant, "")}
    shape = Shape(assistant=("", constant), generation=constant, **pieces)  # type: ignore[arg-type]
    go = shape.as_go()
    assert '"""' not in go
    assert not go.startswith('"')
    assert not go.endswith('"')
    assert execute(go, turns("U")) == constant + constant + "U" + constant
    assert execute(go, turns("U", "A", system="S")) == f"{constant}S{constant}{constant}UA{constant}{constant}"


def test_ollama_joins_turns_of_one_role() -> None:
    messages = [*turns("a"), *turns("b", "c"), *turns("d")]
    assert execute("{{ range .Messages }}[{{ .Content }}]{{ end }}", messages) == "[a\n\nb][c][d]"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "{% for m in messages %}{% if loop.last %}LAST {% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            "it writes earlier turns otherwise than later ones",
        ),
        ("{% for m in messages[-1:] %}{{ m.content }}{% endfor %}", "it leaves a turn out, or writes one twice"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "it leaves a turn out, or writes one"),
        ("{% for m in messages|reverse %}{{ m.content }}|{% endfor %}", "it writes turns in another order"),
        (
            "{% for m in messages %}{{ m.content }}{% if messages[0].role == 'system' %}!{% endif %}\n{% endfor %}",
            "a system message changes what stands around later turns",
        ),
    ],
)
def test_a_template_without_such_a_form_is_refused_with_the_reason(source: str, why: str) -> None:
    with pytest.raises(FinetuneError, match=f"^the chat template cannot be put into Ollama's language: {why}"):
        derive(writing(source))


@pytest.mark.parametrize(
    ("go", "why"),
    [
        ("{{ end }}", "{{ end }} closes nothing"),
        ("{{ if .System }}x", "{{ if .System }} is never closed"),
        ("{{ .Prompt }}", "{{ .Prompt }} is not among what is understood here"),
        ("{{ if .Tools }}x{{ end }}", "{{ if .Tools }} is not among what is understood here"),
        ("{{ .Content }}", "{{ .Content }} is not among what is understood here"),
    ],
)
def test_other_code_is_refused_rather_than_guessed(go: str, why: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        execute(go, turns("a"))
    assert str(caught.value) == f"TEMPLATE: {why}"
