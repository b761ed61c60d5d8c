"""The kinds of prompts by name: a kind that does not stand here is not read from files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import PromptError, StrategyError
from promptsearch.prompts.calibrated import CalibratedPrompt
from promptsearch.prompts.gated import GatedPrompt
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.nearest import NearestPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.trained import TrainedPrompt
from promptsearch.prompts.verbalized import VerbalizedPrompt
from promptsearch.prompts.weights import TunedPrompt, Weights
from promptsearch.tasks.placement import Kind

#: The classes of trained prompts by the names of their kinds.
TRAINED: dict[str, type[TrainedPrompt]] = {
    kind.kind: kind for kind in (SoftPrompt, PrefixPrompt, GatedPrompt, Weights, TunedPrompt)
}
#: The classes of all prompts by the names of their kinds.
KINDS: dict[str, type[Prompt]] = {
    HardPrompt.kind: HardPrompt,
    TextPrompt.kind: TextPrompt,
    CalibratedPrompt.kind: CalibratedPrompt,
    VerbalizedPrompt.kind: VerbalizedPrompt,
    NearestPrompt.kind: NearestPrompt,
    **TRAINED,
}


def placement_of(proposes: Iterable[type[Prompt]]) -> Kind:
    """The kind of template that takes all prompts that a strategy proposes.

    Args:
        proposes: The classes of the prompts.
    """
    slots: Kind = "slots"
    return next((kind.placement for kind in proposes if kind.placement != slots), slots)


def sampled_under(placement: Kind) -> type[Prompt]:
    """The class whose samples stand for all prompts that a template takes.

    Args:
        placement: The template's kind.
    """
    return next(kind for kind in KINDS.values() if kind.placement == placement)


def own_copy(prompt: Any) -> Prompt:
    """The same prompt in a new object, which nobody who holds the given one can change.

    Its key follows from its content, whatever key the given object shows.

    Args:
        prompt: The given object, made by code that is not trusted.

    Raises:
        StrategyError: It is no prompt, or its content is no content of a prompt.
    """
    kind = type(prompt)
    if kind not in KINDS.values():
        raise StrategyError(
            f"expected a prompt of the library's kinds, got {kind.__name__}: propose one of these"
        )
    try:
        copy: Prompt = kind.copied(prompt)
    except (PromptError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise StrategyError(
            f"this {kind.__name__} holds no prompt, or was changed after it was made: {error}"
        ) from error
    return copy


def prompt_from_json(data: Mapping[str, Any], folder: Path | None = None) -> Prompt:
    """The prompt that JSON values stand for: the reverse of `Prompt.to_json`.

    Args:
        data: The JSON values.
        folder: The folder of trained prompts, whose numbers are read from `KEY.safetensors` there;
            None: trained prompts are refused.

    Raises:
        PromptError: The data name no known kind, or the content does not have the key that they
            give.
    """
    kind, key = data.get("kind"), data.get("key")
    if not isinstance(kind, str) or kind not in KINDS or (folder is None and KINDS[kind].trained):
        raise PromptError(f"expected a prompt of kind {', '.join(KINDS)}, got {str(kind)[:80]!r}")
    # The key is also the name of a file, so that nothing but digits may stand in it.
    if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{20}", key):
        raise PromptError(
            f"expected the key of a prompt, 20 hexadecimal digits, got {str(key)[:80]!r}"
        )
    prompt = KINDS[kind].from_json(data, folder)
    if prompt.key != key:
        raise PromptError(
            f"the prompt {key} does not have the content that its key names: the file was changed"
        )
    return prompt
