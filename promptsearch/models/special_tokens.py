"""Special tokens: texts are cut at them, and a chat template writes messages with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from promptsearch.errors import ModelError, TemplateError
from promptsearch.importing import strangers

#: The date in chat templates that ask for one (the one that Llama 3's takes where there is no
#: clock): scores must not change overnight.
DATE = "26 Jul 2024"


class Special(NamedTuple):
    """A special token, as a text is cut at it.

    Args:
        content: Its text.
        lstrip: Whether it swallows the white space before it.
        rstrip: Whether it swallows the white space behind it.
    """

    content: str
    lstrip: bool
    rstrip: bool


class SpecialTokens:
    """The special tokens of a tokenizer, and what they set apart.

    Args:
        tokenizer: The tokenizer as `transformers.AutoTokenizer` loads it.
        name: The name of its model, for messages.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    def chat(self, messages: Sequence[tuple[str, str]], *, go_on: bool = True) -> str:
        """Messages as the tokenizer's chat template writes them.

        Args:
            messages: The role and the content of each message.
            go_on: Whether the beginning of the assistant's turn stands behind them.

        Raises:
            ModelError: The tokenizer has no chat template.
            TemplateError: The chat template refuses the messages.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            raise ModelError(
                f"the tokenizer of the model '{self._name}' has no chat template, which says how "
                "messages are written: write the task's template as one text, or take a model "
                "that was made for chats"
            )
        given = [{"role": role, "content": content} for role, content in messages]

        def explain(error: BaseException) -> TemplateError:
            return TemplateError(
                f"the chat template of the model '{self._name}' refuses messages of "
                f"{', '.join(role for role, _ in messages)}: {error or type(error).__name__}"
            )

        with strangers(explain):  # transformers runs a chat template in a sandbox
            text: str = self._tokenizer.apply_chat_template(
                given, tokenize=False, add_generation_prompt=go_on, date_string=DATE
            )
        return text

    def cut(self, text: str) -> list[str | Special]:
        """The parts of a text that is cut at its special tokens, these among the parts."""
        longest_first = sorted(map(re.escape, self._known), key=len, reverse=True)
        parts = re.split(f"({'|'.join(longest_first)})", text) if longest_first else [text]
        return [self._known.get(part, part) for part in parts if part]

    def id_of(self, content: str) -> int | None:
        """The id of a special token, given as text; None where the tokenizer has no such token."""
        if content not in self._known:
            return None
        return int(self._tokenizer.convert_tokens_to_ids(content))

    def text_of(self, number: int) -> str:
        """The text of a special token; empty where no special token has the id."""
        content = str(self._tokenizer.convert_ids_to_tokens(number))
        return content if content in self._known else ""

    def end(self, known: Collection[int], rows: int) -> int:
        """The id of the token that ends a text: the tokenizer's own, or else the model's.

        Args:
            known: The ids of all tokens at which the model ends a text.
            rows: The number of tokens that the model has embeddings for.

        Raises:
            ModelError: There is none, or the model has no embedding for it.
        """
        own = self._tokenizer.eos_token_id
        found = min(known, default=None) if own is None else int(own)
        if found is None or found >= rows:
            raise ModelError(
                f"the model '{self._name}' has no token that ends a text, so that a text answer "
                "would never end: write an end behind {answer} in the template, such as a newline"
            )
        return found

    @cached_property
    def _known(self) -> dict[str, Special]:
        added = self._tokenizer.added_tokens_decoder.values()
        return {t.content: Special(t.content, t.lstrip, t.rstrip) for t in added if t.special}

    @cached_property
    def ids(self) -> frozenset[int]:
        """Their ids."""
        added = self._tokenizer.added_tokens_decoder.items()
        return frozenset(int(i) for i, token in added if token.special)

    @cached_property
    def always(self) -> tuple[str, ...]:
        """The added tokens that are not special, such as those around a model's thinking.

        The tokenizer finds them in plain text, too.
        """
        added = self._tokenizer.added_tokens_decoder.values()
        return tuple(
            token.content for token in added if not token.special and token.content.strip()
        )
