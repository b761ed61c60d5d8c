"""The models of a study: the one that prompts are found for, and the one that proposes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from promptsearch.study.settings.keys import NUMBER, WHOLE, Keys, Seconds, Whole

#: The most models of a sensible study.
MODELS = 100


def _address(value: Any) -> Any:
    """Refuse what may hold a secret, and never repeat it."""
    if isinstance(value, str) and not re.fullmatch(r"https?://[^@?#\s]+", value):
        text = (
            "expected a URL like http://HOST:PORT/v1, without user, password or query, which may "
            "be secrets: name the environment variable that holds the key with 'key'."
        )
        raise PydanticCustomError("address", "{text}", {"text": text})
    return value


def _variable(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
        text = (
            "expected the name of an environment variable, such as OPENAI_API_KEY, never the key "
            "itself."
        )
        raise PydanticCustomError("variable", "{text}", {"text": text})
    return value


class PriceConfig(Keys):
    """What a server takes for a million tokens, in any currency."""

    input: Annotated[float, Field(ge=0, le=1e9), NUMBER] = Field(
        description="for a million tokens that it reads"
    )
    output: Annotated[float, Field(ge=0, le=1e9), NUMBER] = Field(
        description="for a million tokens that it writes"
    )


class EndpointConfig(Keys):
    """A model behind a server with OpenAI's completions API: a study's own or its proposer."""

    endpoint: Annotated[str, BeforeValidator(_address)] = Field(
        description="the server's URL, up to and including /v1, such as http://localhost:8000/v1"
    )
    model: str = Field(description="the model, as the server calls it")
    key: Annotated[str, BeforeValidator(_variable)] | None = Field(
        None,
        description=(
            "the name of the environment variable that holds the server's key; left out: it wants "
            "none"
        ),
    )
    tokenizer: str | None = Field(
        None,
        description=(
            "the model's tokenizer, a folder or Hub name; left out: tokens are estimated, and "
            "pools hold any words"
        ),
    )
    parallel: Annotated[Whole, Field(le=1_000)] = Field(
        4,
        description=(
            "the most requests at a time; fewer while the server says that it is busy, or does not "
            "answer in time"
        ),
    )
    max_errors: Annotated[float, Field(ge=0, le=1), NUMBER] = Field(
        1.0,
        description=(
            "the share of the requests that may fail for good before the study ends; each that "
            "does fails its prompt"
        ),
    )
    seconds: Seconds = Field(60, description="the most seconds that an answer may take")
    retries: Annotated[int, WHOLE] = Field(
        5, ge=0, le=1_000, description="how often a request that failed is sent again"
    )
    price: PriceConfig | None = Field(
        None,
        description=(
            "what it takes for a million tokens, {input: 0.1, output: 0.4}, for max_cost; left "
            "out: nothing"
        ),
    )
    parameters: Annotated[float, Field(gt=0, le=1e15), NUMBER] | None = Field(
        None,
        description=(
            "the number of its weights, such as 7e9, from which follow FLOPs and, of a proposer, "
            "what its tokens cost; left out: not known"
        ),
    )
    chat: bool = Field(
        False,
        description=(
            "whether texts go to /chat/completions, as messages of a user; losses are then those "
            "of answers to choose from in what it lists beside its words, else 0 and 1"
        ),
    )

    def __str__(self) -> str:
        """What it is called in messages."""
        return f"{self.model} at {self.endpoint}"


class ProposerConfig(Keys):
    """The model that proposes, where it is no `EndpointConfig`."""

    model: str | None = Field(default=None, description="a local model; left out: the study's own")
    chat: bool = Field(
        default=False,
        description="whether requests go to it as messages of a chat, not as texts to go on with",
    )


def _is_served(value: Any) -> bool:
    return isinstance(value, EndpointConfig) or (isinstance(value, Mapping) and "endpoint" in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


Model = Annotated[
    Annotated[str, Tag("text")] | Annotated[EndpointConfig, Tag("mapping")],
    Discriminator(
        lambda value: "mapping" if isinstance(value, (Mapping, EndpointConfig)) else "text"
    ),
]
#: A study's model, or several.
Models = Annotated[
    Annotated[Model, Tag("one")]
    | Annotated[tuple[Model, ...], Field(min_length=1, max_length=MODELS), Tag("list")],
    Discriminator(lambda value: "list" if _is_list(value) else "one"),
]
OneProposer = Annotated[
    Annotated[
        Annotated[ProposerConfig, Tag("here")] | Annotated[EndpointConfig, Tag("served")],
        Discriminator(lambda value: "served" if _is_served(value) else "here"),
    ],
    BeforeValidator(
        lambda value: {"model": value} if isinstance(value, str) else value,
        json_schema_input_type=str | ProposerConfig | EndpointConfig,
    ),
]
