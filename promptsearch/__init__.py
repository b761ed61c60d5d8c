"""promptsearch finds the best prompt for a task and a frozen language model, hard and soft prompts side by side.

The public names are imported when they are first used, so that `promptsearch --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.errors import PromptSearchError as PromptSearchError
    from promptsearch.errors import UnknownName as UnknownName
    from promptsearch.evaluation import Evaluation as Evaluation
    from promptsearch.export import SavedPrompt as SavedPrompt
    from promptsearch.export import load_prompt as load_prompt
    from promptsearch.model import LanguageModel as LanguageModel
    from promptsearch.objective import Objective as Objective
    from promptsearch.prompt import GatedPrompt as GatedPrompt
    from promptsearch.prompt import HardPrompt as HardPrompt
    from promptsearch.prompt import PrefixPrompt as PrefixPrompt
    from promptsearch.prompt import Prompt as Prompt
    from promptsearch.prompt import SoftPrompt as SoftPrompt
    from promptsearch.prompt import TextPrompt as TextPrompt
    from promptsearch.prompt import TunedPrompt as TunedPrompt
    from promptsearch.prompt import Weights as Weights
    from promptsearch.prompted import PromptedModel as PromptedModel
    from promptsearch.strategy import Access as Access
    from promptsearch.strategy import Ask as Ask
    from promptsearch.strategy import State as State
    from promptsearch.strategy import Strategy as Strategy
    from promptsearch.study import compare as compare
    from promptsearch.task import Task as Task
    from promptsearch.training import TrainedStrategy as TrainedStrategy

_HOMES = {
    "Access": "strategy",
    "Ask": "strategy",
    "Evaluation": "evaluation",
    "GatedPrompt": "prompt",
    "HardPrompt": "prompt",
    "LanguageModel": "model",
    "Objective": "objective",
    "PrefixPrompt": "prompt",
    "Prompt": "prompt",
    "PromptSearchError": "errors",
    "PromptedModel": "prompted",
    "SavedPrompt": "export",
    "SoftPrompt": "prompt",
    "State": "strategy",
    "Strategy": "strategy",
    "Task": "task",
    "TextPrompt": "prompt",
    "TrainedStrategy": "training",
    "TunedPrompt": "prompt",
    "UnknownName": "errors",
    "Weights": "prompt",
    "compare": "study",
    "load_prompt": "export",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'promptsearch' has no attribute '{name}'")
    return getattr(importlib.import_module(f"promptsearch.{_HOMES[name]}"), name)
