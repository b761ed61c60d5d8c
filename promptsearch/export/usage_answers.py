"""Texts as ids and answers to choose from, as the code in a model card has them."""

from __future__ import annotations

from promptsearch.export.saved import SavedPrompt
from promptsearch.models import LanguageModel
from promptsearch.tasks.normalise import answer_lengths

#: The ids of a text, in which a special token's text is only text.
IDS = """\
def ids(text, anchor, tokens):
    # Behind an anchor a text is cut as it is within a row.
    cut = tokenizer(anchor + text, add_special_tokens=False, split_special_tokens=True)
    return cut.input_ids[tokens:]


"""


def chosen_ids(prompt: SavedPrompt, lm: LanguageModel) -> dict[str, list[int]]:
    """Answer -> its token ids; where answers differ by row, those of the first example.

    Args:
        prompt: What was exported.
        lm: The model.
    """
    return {choice: lm.encode_answer(choice) for choice in _choices(prompt)}


def by_length(prompt: SavedPrompt, lm: LanguageModel) -> str:
    """A line of code that divides sums by the answers' lengths; empty where nothing divides them.

    Args:
        prompt: What was exported.
        lm: The model.
    """
    if prompt.normalise == "none":
        return ""
    found = answer_lengths(prompt.normalise, prompt.template, _choices(prompt), lm.count_answer)
    return f"sums = [nats / n for nats, n in zip(sums, {found})]  # {prompt.normalise}\n"


def _choices(prompt: SavedPrompt) -> tuple[str, ...]:
    return prompt.choices or (prompt.probe[0].options if prompt.probe else None) or ()
