"""The Python code on a model card that uses a masked model's prompt in PEFT's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptsearch.export.saved import SavedPrompt
from promptsearch.export.usage_answers import IDS, by_length, chosen_ids
from promptsearch.models import LanguageModel
from promptsearch.scoring.filling import unwritten

_ROW = """\
def told(count):
    row = above + [{mask}] * count + below
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([row])).logits[0, -len(row) :]
    return logits[len(above) : len(above) + count].double().log_softmax(-1)


fields = {fields!r}
above = {first} + ids({before!r}.format(**fields), {anchor!r}, {tokens})
below = ids({behind!r}.format(**fields), {inner!r}, {cut}) + {close}
"""
_CHOOSE = """\
answers = {answers}
sums = []
for target in answers.values():
    sums.append(told(len(target)).gather(-1, torch.tensor(target)[:, None]).sum())
{lengths}probabilities = torch.stack(sums).softmax(0)
print(dict(zip(answers, probabilities.tolist())))
"""
_FILL = """\
nats = told({count})
nats[:, {others}] = float("-inf")
head = ids({inner!r}, "", 0)
made = tokenizer.decode(head + nats.argmax(-1).tolist())
print(made[len(tokenizer.decode(head)) :].strip())
"""


def masked_usage(prompt: SavedPrompt, lm: LanguageModel, fields: Mapping[str, Any]) -> str:
    """Code that answers the first input, behind what makes `model` and `tokenizer`.

    Args:
        prompt: What was exported; it stands in front of the input.
        lm: The masked model.
        fields: The input, as Python's `format` takes it.
    """
    template = prompt.template
    *_, before, behind = template.written
    # The special tokens stand below a prefix or weights; virtual tokens have taken them in.
    begins = template.apart
    anchor, tokens = ("", 0) if begins else lm.tokens.anchor
    inner, cut = lm.tokens.anchor
    row = IDS + _ROW.format(
        mask=lm.tokens.mask,
        fields=dict(fields),
        first=list(lm.lead) if begins else [],
        before=before,
        anchor=anchor,
        tokens=tokens,
        behind=behind,
        inner=inner,
        cut=cut,
        close=list(lm.tokens.close),
    )
    if prompt.text:
        others = unwritten(lm, len(lm.embeddings))
        return row + _FILL.format(count=prompt.decoding.tokens, others=others, inner=inner)
    answers = repr(chosen_ids(prompt, lm))
    return row + _CHOOSE.format(answers=answers, lengths=by_length(prompt, lm))
