"""Language models; no other folder but `testing` imports transformers.

`LanguageModel` is imported when it is first used: what asks servers, and what reads what was found,
does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.models.language_model import LanguageModel as LanguageModel


def __getattr__(name: str) -> Any:
    if name != "LanguageModel":
        raise AttributeError(f"module 'promptsearch.models' has no attribute '{name}'")
    from promptsearch.models.language_model import LanguageModel

    return LanguageModel
