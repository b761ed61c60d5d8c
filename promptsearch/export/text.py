"""Plain text: for people, and for servers that take text only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from promptsearch.errors import ExportError
from promptsearch.export.saved import SavedPrompt
from promptsearch.files import write_aside
from promptsearch.model import LanguageModel
from promptsearch.prompt import TextPrompt, TrainedPrompt
from promptsearch.scoring.layout import prompt_texts
from promptsearch.template import Template


def write_text(saved: SavedPrompt, lm: LanguageModel, folder: Path) -> None:
    """Write `prompt.txt` (one line a slot) and `template.txt` (the whole text with the data's `{field}`s).

    `template.txt` is read again, filled with the probe's inputs and scored from its text alone.

    Args:
        saved: A hard or text prompt.
        lm: The LM.
        folder: Where the files go.

    Raises:
        ExportError: It is a trained prompt, which no text holds, or its text does not give its tokens back.
    """
    if isinstance(saved.prompt, TrainedPrompt):
        raise ExportError(f"a {saved.prompt.kind} prompt is numbers, and no text holds it exactly: export it as json or peft")
    texts = prompt_texts(saved.template, lm, saved.prompt)
    whole = "".join(s + _literal(t) for s, t in zip(saved.template.segments, [*texts, ""], strict=True))
    write_aside(folder / "prompt.txt", "\n".join(texts) + "\n")
    write_aside(folder / "template.txt", whole)
    # Scored as one text in front of the answer: no slot, no ids.
    again = (folder / "template.txt").read_text("utf-8")
    plain = Template.parse("{prompt}" + again + ("{answer}" if not saved.template.answer_space else " {answer}"))
    reread = SavedPrompt(TextPrompt(""), plain, saved.choices, saved.about, saved.probe, saved.losses)
    scores = reread.engine(lm, saved.probe).score([TextPrompt("")], np.arange(len(saved.probe)))
    if scores.failures:
        raise ExportError(f"the text does not give the prompt's tokens back: {scores.failures[0]}")
    saved.check(scores.losses[0].tolist())


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
