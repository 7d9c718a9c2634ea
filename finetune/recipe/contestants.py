"""Who answers beside base and tuned, one section a kind: `Contestant` is their union, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune.recipe.section import Section

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
# Neither user and password nor a key in the query: recipes are copied and shown
ADDRESS = r"^https?://[^@?#\s]+$"
VARIABLE = r"^[A-Z_][A-Z0-9_]*$"
CURRENCY = r"^[A-Z]{3}$"
PRICE = "unset means that requests are not priced."


class NamedContestant(Section):
    """What contestants from elsewhere have in common: how reports call them."""

    name: str = Field(
        pattern=NAME,
        description="What the contestant is called in results and reports; each name once, and neither base nor tuned.",
    )


class ModelContestant(NamedContestant):
    """Another model, from the hub or from this machine, answering the same questions in its own chat template."""

    kind: Literal["model"] = "model"
    base: str = Field(
        description="Hub id, local folder, `.gguf` file that is read as weights, or `package:NAME/FILE.gguf`."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model; unset means its main branch.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number format that it computes in; `auto` means that of this run's own model."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model. Needs `revision` to be a full commit hash."
    )


class ExportContestant(Section):
    """A file that this run exported, so that merging and quantising are judged on the task itself."""

    kind: Literal["export"] = "export"
    name: str = Field(
        pattern=NAME,
        description="File or folder under the run's `exports/`, e.g. `merged` or `model-q8_0.gguf`; also what the "
        "contestant is called.",
    )


class GgufContestant(NamedContestant):
    """A GGUF file that answers in llama.cpp."""

    kind: Literal["gguf"] = "gguf"
    path: str = Field(description="The `.gguf` file; it must have the vocabulary of this run's base.")


class Endpoint(Section):
    """An OpenAI-compatible service for chat completions: vLLM, Ollama, llama.cpp's server, a frontier API."""

    url: str = Field(
        pattern=ADDRESS,
        description="Address of the API, e.g. `http://localhost:11434/v1`; `/chat/completions` is added.",
    )
    model: str = Field(min_length=1, description="The model's name as the endpoint knows it.")
    api_key_env: str | None = Field(
        None,
        pattern=VARIABLE,
        description="Name of the environment variable that holds the key; the key itself never stands in a recipe. "
        "Unset sends none.",
    )
    parameters: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict,
        description="Sent with each request beside `temperature: 0` and `max_tokens`, e.g. `{reasoning_effort: low}`; "
        "null leaves one of those out where the model does not take it.",
    )
    price_per_million_input: float | None = Field(
        None, ge=0, description=f"Price of a million tokens of questions; {PRICE}"
    )
    price_per_million_output: float | None = Field(
        None, ge=0, description=f"Price of a million tokens of answers; {PRICE}"
    )
    currency: str | None = Field(
        None, pattern=CURRENCY, description="Currency of the prices, in three letters; unset means USD."
    )
    concurrency: int = Field(4, ge=1, le=256, description="Requests under way at once.")
    timeout: float = Field(120.0, gt=0, description="Seconds after which a request is given up and tried again.")
    retries: int = Field(
        6,
        ge=0,
        description="How often a request is tried again after a timeout, a broken connection, too many requests (429) "
        "or a fault of the server (5xx), waiting twice as long each time, or as long as the server asks.",
    )


class EndpointContestant(NamedContestant, Endpoint):
    """A model behind an OpenAI-compatible endpoint: what the small model would replace, on the same questions."""

    kind: Literal["endpoint"] = "endpoint"


Contestant = Annotated[
    ModelContestant | ExportContestant | GgufContestant | EndpointContestant, Field(discriminator="kind")
]
