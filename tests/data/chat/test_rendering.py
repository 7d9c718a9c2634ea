"""The fast way of writing chat templates is transformers' own, for every template and any conversation."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2.exceptions import SecurityError

from finetune.data.chat.rendering import Renderer
from tests.tiny import CHATML, tiny_tokenizer

TEMPLATES = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "models" / "chat_templates"
# Templates that write the date wrote this one when the published renderings were recorded
RECORDED = datetime(2026, 11, 20, 12, tzinfo=UTC)
published = pytest.mark.skipif(
    not TEMPLATES.is_dir(), reason="needs models/chat_templates in FINETUNE_SHARED or in ../shared"
)
CASES = {
    "user_only": [("user", "What is LoRA?")],
    "system_user": [("system", "Be brief."), ("user", "What is LoRA?")],
    "multi": [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "What is LoRA?")],
    "finished": [("user", "Hi"), ("assistant", "Hello!")],
}
CONVERSATIONS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.text(max_size=12) | st.just("</think>x")),
    min_size=1,
    max_size=5,
).map(lambda turns: [{"role": role, "content": content} for role, content in turns])


def written(write: Any) -> str:
    """What is written, or how it was refused."""
    try:
        return str(write())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def plainly(tokenizer: Any, source: str, messages: list[dict[str, str]], generate: bool) -> str:
    return written(
        lambda: tokenizer.apply_chat_template(
            messages, chat_template=source, add_generation_prompt=generate, tokenize=False
        )
    )


@published
@time_machine.travel(RECORDED, tick=False)
def test_every_published_rendering_and_refusal_agrees() -> None:
    golden = json.loads((TEMPLATES / "golden_renders.json").read_text("utf-8"))
    tokenizer: Any = tiny_tokenizer()
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    same = refused = 0
    for name, entry in golden.items():
        text = (TEMPLATES / name).read_text("utf-8")
        source = json.loads(text)["chat_template"] if name.endswith(".json") else text
        renderer = Renderer(tokenizer, source)
        for case, wanted in entry["renders"].items():
            shape, generate = case.split("|gen=")
            messages = [{"role": role, "content": content} for role, content in CASES[shape]]

            def write(messages: Any = messages, generate: Any = generate, renderer: Renderer = renderer) -> str:
                return renderer.write(messages, add_generation_prompt=generate == "True")

            if isinstance(wanted, dict):
                kind, _, reason = wanted["error"].partition(": ")
                found = written(write)
                assert found.startswith(f"{kind}: "), (name, case, found)
                assert reason in found, (name, case, found)
                refused += 1
            else:
                assert write() == wanted, (name, case)
                same += 1
    assert len(golden) == 94
    assert (same, refused) == (688, 64)


@published
@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.jinja")), ids=lambda path: path.stem)
def test_any_conversation_is_written_as_transformers_writes_it(path: Path) -> None:
    tokenizer = tiny_tokenizer()
    source = path.read_text("utf-8")
    renderer = Renderer(tokenizer, source)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(CONVERSATIONS, st.booleans())
    def check(messages: list[dict[str, str]], generate: bool) -> None:
        fast = written(lambda: renderer.write(messages, add_generation_prompt=generate))
        assert fast == plainly(tokenizer, source, messages, generate)

    check()


def test_what_is_not_plain_goes_the_long_way() -> None:
    tokenizer = tiny_tokenizer()
    source = CHATML + "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
    messages = [{"role": "user", "content": "a", "name": "b"}]
    tool = {"type": "function", "function": {"name": "look_up"}}
    renderer = Renderer(tokenizer, source)
    assert renderer.write(messages, add_generation_prompt=False) == "<|im_start|>user\na<|im_end|>\n"
    assert renderer.write(messages, add_generation_prompt=False, tools=[tool]).endswith("\nlook_up")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ messages[0].clear() }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0].pop('role') }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_the_sandbox_stays_closed(source: str) -> None:
    renderer = Renderer(tiny_tokenizer(), "{{ messages[0].get('role') }}" + source)
    for _ in range(2):  # what was decided once stays decided
        with pytest.raises(SecurityError):
            renderer.write([{"role": "user", "content": "a"}], add_generation_prompt=False)


def test_entries_named_like_methods_are_read_as_jinja_reads_them() -> None:
    renderer = Renderer(tiny_tokenizer(), "{{ messages[0].items }}|{{ messages[0]['role'] }}|{{ messages[0].role }}")
    text = renderer.write([{"role": "user", "content": "a"}], add_generation_prompt=False)
    assert text.startswith("<built-in method items of dict object")
    assert text.endswith("|user|user")
