"""The encoder against 94 chat templates of published models and three real tokenizers (FINETUNE_SHARED, ../shared)."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.data.chat.encoder import ChatEncoder, Encoded
from finetune.data.rows import Message, Role
from finetune.errors import FinetuneError

MODELS = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[3] / "shared")) / "models"
TEMPLATES = MODELS / "chat_templates"
# Templates that write the date wrote this one when the published renderings were recorded
RECORDED = datetime(2026, 11, 20, 12, tzinfo=UTC)

pytestmark = pytest.mark.skipif(
    not TEMPLATES.is_dir(), reason="needs models/chat_templates in FINETUNE_SHARED or in ../shared"
)

CONTROL = re.compile(
    r"<\|[^|<>\s]*\|>|<\uff5c[^\uff5c]*\uff5c>|<\|\w+>|<\w+\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<sep>|<seed:[a-z]+>|"
    r"<end_of_utterance>"
)
# Here a token of the whole text would reach from the generation prompt into the answer ("\n" and "\n" make "\n\n").
MELTING = (
    "chujiezheng/llama-2-chat.jinja",
    "chujiezheng/mistral-instruct.jinja",
    "llama.cpp/Qwen3.5-4B.jinja",
    "llama.cpp/StepFun3.5-Flash.jinja",
    "llama.cpp/stepfun-ai-Step-3.5-Flash.jinja",
)
PLAIN = (
    Message("user", "Where is the red parcel?"),
    Message("assistant", "It left on Monday."),
    Message("user", "And the bill?"),
    Message("assistant", "Here it is."),
)


@cache
def golden() -> dict[str, dict[str, Any]]:
    return json.loads((TEMPLATES / "golden_renders.json").read_text("utf-8"))


def source(name: str) -> str:
    text = (TEMPLATES / name).read_text("utf-8")
    return json.loads(text)["chat_template"] if name.endswith(".json") else text


@cache
def tokenizer(name: str = "qwen2.5") -> Any:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(MODELS / "tokenizers" / name)
    if name == "qwen2.5":
        found = {token for template in golden() for token in CONTROL.findall(source(template))}
        loaded.add_tokens(sorted(found | {"<s>", "</s>"}), special_tokens=True)
        loaded.bos_token, loaded.eos_token = "<s>", "</s>"
    return loaded


@cache
def encoder(name: str) -> ChatEncoder | FinetuneError:
    try:
        return ChatEncoder(tokenizer(), source(name))
    except FinetuneError as error:
        return error


def usable() -> list[str]:
    return [name for name in sorted(golden()) if isinstance(encoder(name), ChatEncoder)]


def words_of(encoded: Encoded) -> list[str]:
    return [tokenizer().decode(encoded.input_ids[turn.first : turn.end]) for turn in encoded.turns]


def test_each_template_is_proven_or_refused_with_its_reason() -> None:
    assert len(golden()) == 94
    proofs: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for name in golden():
        found = encoder(name)
        if isinstance(found, FinetuneError):
            reasons[str(found)] += 1
            assert any(isinstance(render, dict) for render in golden()[name]["renders"].values()), name
        else:
            proofs[found.proof] += 1
    assert proofs == {"sentinel": 87}
    assert reasons == {
        "the chat template fails on the conversation: TypeError: 'NoneType' object is not iterable": 5,
        "the chat template fails on the conversation: UndefinedError: 'functions' is undefined": 1,
        "the chat template fails on the conversation: "
        "TemplateRuntimeError: cannot assign attribute on non-namespace object": 1,
    }


def test_what_templates_cannot_do_is_found_out() -> None:
    encoders = {name: encoder(name) for name in usable()}
    folded = [name for name, found in encoders.items() if isinstance(found, ChatEncoder) and found.system_folded]
    appended = [name for name, found in encoders.items() if isinstance(found, ChatEncoder) and found.stop_appended]
    spliced = [name for name, found in encoders.items() if isinstance(found, ChatEncoder) and found.spliced]
    assert [name.split("/")[1] for name in folded] == [
        "gemma1.jinja",
        "google-gemma-2-2b-it.jinja",
        "mistralai-Mistral-Nemo-Instruct-2407.jinja",
        "mistral.json",
        "mistral_nemo_tool_call.jinja",
        "phi3.json",
    ]
    assert (len(appended), len(spliced)) == (10, 28)
    gpt_oss = encoders["llama.cpp/openai-gpt-oss-120b.jinja"]
    assert isinstance(gpt_oss, ChatEncoder)
    assert tokenizer().convert_ids_to_tokens(gpt_oss.stop_token_ids) == ["</s>", "<|end|>", "<|return|>"]


@time_machine.travel(RECORDED, tick=False)
def test_published_renderings_and_refusals_agree() -> None:
    cases: dict[str, list[tuple[Role, str]]] = {
        "user_only": [("user", "What is LoRA?")],
        "system_user": [("system", "Be brief."), ("user", "What is LoRA?")],
        "multi": [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "What is LoRA?")],
        "finished": [("user", "Hi"), ("assistant", "Hello!")],
    }
    same = refused = 0
    for name in usable():
        template = encoder(name).template  # type: ignore[union-attr]
        for case, wanted in golden()[name]["renders"].items():
            shape, generate = case.split("|gen=")
            messages = [Message(role, content) for role, content in cases[shape]]
            if isinstance(wanted, dict):
                with pytest.raises(FinetuneError, match=re.escape(wanted["error"].removeprefix("TemplateError: "))):
                    template.render(messages, generate == "True")
                refused += 1
            elif not template._in_parts:
                same += template.render(messages, generate == "True") == wanted
    assert (same, refused) == (676, 12)


@pytest.mark.parametrize("name", sorted(golden()) if TEMPLATES.is_dir() else [])
def test_answers_alone_are_trained_and_prompts_agree(name: str) -> None:
    found = encoder(name)
    if isinstance(found, FinetuneError):
        assert "the chat template fails on the conversation" in str(found)
        return
    encoded = found.encode(PLAIN)
    learned = words_of(encoded)
    assert [re.sub(r"<[^>]*>|\[[^]]*\]|thought|final|all\n|\s+", " ", words).strip() for words in learned] == [
        "It left on Monday.",
        "Here it is.",
    ]
    assert encoded.turns[-1].ends_with_stop
    assert encoded.turns[-1].prompt_parity
    assert int(encoded.input_ids[encoded.turns[-1].end - 1]) in found.stop_token_ids
    assert found.prompt(PLAIN[:3]) == encoded.input_ids[: encoded.turns[-1].first].tolist()
    if not (encoded.spliced or encoded.stop_appended):
        rendered = found.render(PLAIN)
        assert tokenizer().decode(encoded.input_ids) == rendered
        whole = tokenizer()(rendered, add_special_tokens=False)["input_ids"]
        assert (encoded.input_ids.tolist() == whole) == (name not in MELTING)


TEXTS = st.lists(
    st.one_of(
        st.text(alphabet=st.characters(exclude_categories=("Cs", "Co", "Cn")), max_size=8),
        st.sampled_from(["<|im_end|>", "<|im_start|>assistant\n", "</s>", "[/INST]", "<end_of_turn>", "\n\n", "  "]),
        st.sampled_from(["<think>", "</think>", "parcel", "{{ bos_token }}", "<\uff5cUser\uff5c>", "<|eot_id|>"]),
    ),
    max_size=5,
).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(golden()) if TEMPLATES.is_dir() else [])
def test_mask_holds_for_any_conversation(name: str) -> None:
    found = encoder(name)
    if isinstance(found, FinetuneError):
        return
    controls = np.array(sorted(found._coder.control_ids.values()))
    expected = int(np.isin(found.encode(PLAIN).input_ids, controls).sum())
    plain_words = [
        words.split(message.content)
        for words, message in zip(words_of(found.encode(PLAIN)), (PLAIN[1], PLAIN[3]), strict=True)
    ]
    seen: Counter[str] = Counter()

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    # `zu` marks what nobody learns
    @given(st.lists(TEXTS.filter(lambda text: "zu" not in text), min_size=4, max_size=4))
    def check(texts: list[str]) -> None:
        texts = [f"zu{texts[0]}zu", f"qa{texts[1]}qa", f"zu{texts[2]}zu", f"qa{texts[3]}qa"]
        texts = [unicodedata.normalize("NFC", text) for text in texts]  # as qwen2.5's tokenizer does
        messages = [Message(plain.role, text) for plain, text in zip(PLAIN, texts, strict=True)]
        encoded = found.encode_many([messages])[0]
        if isinstance(encoded, FinetuneError):
            assert "</think>" in "".join(texts), encoded
            seen["refused"] += 1
            return
        seen[encoded.proof] += 1
        assert found.prompt(messages[:3]) == encoded.input_ids[: encoded.turns[-1].first].tolist()
        if not (encoded.spliced or encoded.stop_appended):
            assert tokenizer().decode(encoded.input_ids) == found.render(messages)
        if encoded.proof == "sentinel" and not encoded.rewritten:
            assert int(np.isin(encoded.input_ids, controls).sum()) == expected
            for words, text, (before, after) in zip(words_of(encoded), texts[1::2], plain_words, strict=True):
                if encoded.stop_appended:  # the last token of an earlier answer may hold the line break after it
                    words, after = words.rstrip(), after.rstrip()
                    text = text.rstrip()
                if "</think>" in text:  # may take the place of the template's own
                    before = before if words.startswith(before) else ""
                assert words == f"{before}{text}{after}"
        assert "zu" not in tokenizer().decode(encoded.input_ids[encoded.trained])

    check()
    assert seen["sentinel"] > 10, seen


@pytest.mark.parametrize("name", ["phi3", "qwen2.5"])
def test_prompts_agree_with_a_real_tokenizer(name: str) -> None:
    template = source(
        "from_tokenizer_config/phi3-mini.jinja" if name == "phi3" else "from_tokenizer_config/qwen3.jinja"
    )
    found = ChatEncoder(tokenizer(name), template)
    stop = "<|end|>" if name == "phi3" else "<|im_end|>"
    for texts in (["a", "b"], [" a ", " b\n"], [f"x {stop} y", f"{stop}z"], ["é\n", "日本 語"], ["<s>", "<s> ok"]):
        messages = [Message("user", texts[0]), Message("assistant", texts[1])]
        encoded = found.encode(messages)
        assert found.prompt(messages[:1]) == encoded.input_ids[: encoded.turns[0].first].tolist()
        assert encoded.turns[0].ends_with_stop
        words = tokenizer(name).decode(encoded.input_ids[encoded.trained])
        assert words.endswith(stop)
        assert texts[1].strip() in words
        controls = [token for token in tokenizer(name).convert_ids_to_tokens(encoded.input_ids) if token == stop]
        assert len(controls) == 2


@pytest.mark.parametrize("name", ["phi3", "stories260K"])
def test_pieces_of_sentencepiece_text_join_without_new_spaces(name: str) -> None:
    from transformers import AutoTokenizer

    loaded = tokenizer(name) if name == "phi3" else AutoTokenizer.from_pretrained(MODELS / name)
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }} {% else %}"
        "BOT: {{ m['content'] + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}BOT: {% endif %}"
    )
    found = ChatEncoder(loaded, template)
    messages = [Message("user", "Hello <s> b"), Message("assistant", "the order"), Message("user", "zz")]
    encoded = found.encode([*messages, Message("assistant", "the")])
    assert encoded.neutralised == 1
    assert loaded.decode(encoded.input_ids).replace(f"{loaded.eos_token} ", loaded.eos_token) == found.render(
        [*messages, Message("assistant", "the")]
    )
    assert [loaded.decode(encoded.input_ids[turn.first : turn.end]) for turn in encoded.turns] == [
        f"the order{loaded.eos_token}",
        f"the{loaded.eos_token}",
    ]
    assert found.prompt(messages[:1]) == encoded.input_ids[: encoded.turns[0].first].tolist()
    assert found.prompt(messages) == encoded.input_ids[: encoded.turns[1].first].tolist()
