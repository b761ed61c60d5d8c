"""Plain text: for people, and for servers that take text only."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from promptsearch.errors import EndpointError, ExportError, PromptError
from promptsearch.export.certificate import Certificate, check_room, standing_in_row
from promptsearch.export.saved import SavedPrompt
from promptsearch.files import write_aside
from promptsearch.model import LanguageModel
from promptsearch.model.text import TextModel
from promptsearch.prompt import TrainedPrompt
from promptsearch.scoring.layout import Ids, broken_joint, lay_out, prompt_texts
from promptsearch.scoring.scorer import loaded
from promptsearch.scoring.served import Found, Question, score_questions
from promptsearch.served import ServedModel
from promptsearch.task import Example

WHOLE = "template.txt"


def write_text(saved: SavedPrompt, lm: TextModel, folder: Path) -> None:
    """Write `prompt.txt` (one line a slot) and `template.txt` (the whole text with the data's `{field}`s).

    Args:
        saved: A hard or text prompt.
        lm: The LM.
        folder: Where the files go.

    Raises:
        ExportError: It is a trained prompt, which no text holds, or its text does not give its tokens back.
    """
    standing_in_row(saved.prompt, "text")
    if isinstance(saved.prompt, TrainedPrompt):
        raise ExportError(f"a {saved.prompt.kind} prompt is numbers, and no text holds it exactly: export it as json, peft or kv")
    if isinstance(lm, LanguageModel):  # which read tokens; a server was sent the text itself
        for example in saved.probe:
            answers = saved.choices or (example.answer,)
            layout = lay_out(saved.template, lm, example, answers)
            if fault := broken_joint(saved.template, lm, example, layout, saved.prompt, answers):
                raise ExportError(f"the text does not give the prompt's tokens back: {fault}")
    texts = prompt_texts(saved.template, lm, saved.prompt)
    whole = "".join(s + _literal(t) for s, t in zip(saved.template.segments, [*texts, ""], strict=True))
    write_aside(folder / "prompt.txt", "\n".join(texts) + "\n")
    write_aside(folder / WHOLE, whole)


def score_text(certificate: Certificate, lm: TextModel, folder: Path) -> list[float]:
    """The losses of the probe, its inputs put into `template.txt`, in nats, shape `(probe,)`.

    Raises:
        PromptError: The file is missing, or has other fields than the probe.
    """
    try:
        whole = (folder / WHOLE).read_text("utf-8")
        texts = {example.id: whole.format(**example.fields) for example in certificate.probe}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise PromptError(f"{folder / WHOLE} is missing or damaged: {error!r}") from error

    if isinstance(lm, ServedModel):
        choices = certificate.choices
        asked = [Question(texts[e.id], choices or (e.answer, *e.aliases), e.choice) for e in certificate.probe]
        answers = score_questions(lm, asked)
        if failed := next((each for each in answers if isinstance(each, EndpointError)), None):
            raise failed
        return [each.loss for each in answers if isinstance(each, Found)]
    model = loaded(lm, "read")

    def logits(example: Example, answer: Ids) -> Tensor:
        ids = [*model.lead, *model.encode(texts[example.id]), *answer]
        check_room(model, 0, len(ids))
        found: Tensor = model.model(input_ids=torch.tensor([ids], device=model.device)).logits[0]
        return found

    return certificate.losses_by(model, logits)


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
