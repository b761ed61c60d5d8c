"""promptsearch finds the best prompt, hard or soft, for a task and a frozen language model.

The public names are imported when they are first used, so that `promptsearch --help` does not wait
for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.comparison import compare as compare
    from promptsearch.errors import PromptSearchError as PromptSearchError
    from promptsearch.errors import UnknownName as UnknownName
    from promptsearch.export import SavedPrompt as SavedPrompt
    from promptsearch.export import load_prompt as load_prompt
    from promptsearch.export.prompted import PromptedModel as PromptedModel
    from promptsearch.models import LanguageModel as LanguageModel
    from promptsearch.prompts.calibrated import CalibratedPrompt as CalibratedPrompt
    from promptsearch.prompts.gated import GatedPrompt as GatedPrompt
    from promptsearch.prompts.hard import HardPrompt as HardPrompt
    from promptsearch.prompts.nearest import NearestPrompt as NearestPrompt
    from promptsearch.prompts.prefix import PrefixPrompt as PrefixPrompt
    from promptsearch.prompts.prompt import Prompt as Prompt
    from promptsearch.prompts.soft import SoftPrompt as SoftPrompt
    from promptsearch.prompts.text import TextPrompt as TextPrompt
    from promptsearch.prompts.verbalized import VerbalizedPrompt as VerbalizedPrompt
    from promptsearch.prompts.weights import TunedPrompt as TunedPrompt
    from promptsearch.prompts.weights import Weights as Weights
    from promptsearch.records.scores import Evaluation as Evaluation
    from promptsearch.search.objective import Objective as Objective
    from promptsearch.search.strategy import Access as Access
    from promptsearch.search.strategy import Ask as Ask
    from promptsearch.search.strategy import State as State
    from promptsearch.search.strategy import Strategy as Strategy
    from promptsearch.search.training import TrainedStrategy as TrainedStrategy
    from promptsearch.tasks.task import Task as Task

#: Public name -> the module that defines it.
_HOMES = {
    "Access": "search.strategy",
    "Ask": "search.strategy",
    "CalibratedPrompt": "prompts.calibrated",
    "Evaluation": "records.scores",
    "GatedPrompt": "prompts.gated",
    "HardPrompt": "prompts.hard",
    "LanguageModel": "models",
    "NearestPrompt": "prompts.nearest",
    "Objective": "search.objective",
    "PrefixPrompt": "prompts.prefix",
    "Prompt": "prompts.prompt",
    "PromptSearchError": "errors",
    "PromptedModel": "export.prompted",
    "SavedPrompt": "export",
    "SoftPrompt": "prompts.soft",
    "State": "search.strategy",
    "Strategy": "search.strategy",
    "Task": "tasks.task",
    "TextPrompt": "prompts.text",
    "TrainedStrategy": "search.training",
    "TunedPrompt": "prompts.weights",
    "UnknownName": "errors",
    "VerbalizedPrompt": "prompts.verbalized",
    "Weights": "prompts.weights",
    "compare": "comparison",
    "load_prompt": "export",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'promptsearch' has no attribute '{name}'")
    return getattr(importlib.import_module(f"promptsearch.{_HOMES[name]}"), name)
