"""A prompt as a reader sees it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from promptsearch.prompts.prompt import Prompt
from promptsearch.records.run import WinnerRecord
from promptsearch.scoring.layout import prompt_texts
from promptsearch.scoring.protocol import inside
from promptsearch.study.arena import Arena


def describe(arena: Arena, prompt: Prompt) -> dict[str, Any]:
    """A prompt as a reader sees it.

    For soft prompts these are the nearest tokens with their cosine, for deeper ones the size. The
    answer words of a prompt stand behind it, those of each class together.
    """
    if not prompt.written:
        white_box = inside(arena.exact["search"], "embeddings")
        shown = prompt.described(white_box, lambda ids: arena.lm.decode(ids))
    else:
        text = " | ".join(prompt_texts(arena.template, arena.lm, prompt))
        if prompt.answers is not None:
            told = (", ".join(map(str.strip, some)) for some in prompt.answers)
            text += f" [{' / '.join(told)}]"
        shown = {"text": text}
    known = {each.name for each in fields(WinnerRecord)}  # a store of examples is in the log
    return {name: told for name, told in {**prompt.to_json(), **shown}.items() if name in known}
