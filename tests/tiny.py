"""A tokenizer and a Llama small enough to build inside a test: `tiny_tokenizer()`, `tiny_model(tokenizer)`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>")

_SENTENCES = (
    "The customer asks where the order is and when it will arrive.",
    "Please answer with one word: billing, shipping, returns or other.",
    "user assistant system Hello! How can I help you today? Thank you.",
    "I cannot log in to my account, the password reset mail never came.",
    "You are a helpful assistant. Sort the message into one of these queues.",
    "0 1 2 3 4 5 6 7 8 9 10 20 100",
)


@lru_cache
def _trained(specials: tuple[str, ...], add_bos: bool) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        min_frequency=1,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"{specials[0]} $A", pair=f"{specials[0]} $A $B", special_tokens=[(specials[0], 0)]
        )
    return tokenizer.to_str()


def tiny_tokenizer(
    template: str | None = CHATML, specials: Sequence[str] = SPECIALS, *, add_bos: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 450 tokens: specials[0] is BOS, specials[1] pads, specials[-1] is EOS.

    Every call gives a fresh object. `template=None` gives a tokenizer without a chat template; `add_bos` one that puts
    BOS before plain text, as Llama's does.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(tuple(specials), add_bos)),
        bos_token=specials[0],
        pad_token=specials[1],
        eos_token=specials[-1],
        extra_special_tokens=list(specials[2:-1]),
        chat_template=template,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def tiny_model(tokenizer: PreTrainedTokenizerFast, **config: Any) -> LlamaForCausalLM:
    """A two-layer Llama with tied embeddings and random weights, the same ones at every call. `config` overrides."""
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    set_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(settings | config))).eval()
