"""The Python code on a model card that uses an encoder-decoder model's prompt in PEFT's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptsearch.export.saved import SavedPrompt
from promptsearch.export.usage_answers import IDS, by_length, chosen_ids
from promptsearch.models import LanguageModel
from promptsearch.scoring.ending import Ending

_ROW = """\
def logits(begun):
    with torch.inference_mode():
        return model(input_ids=row, decoder_input_ids=torch.tensor([begun])).logits[0]


text = {before!r}.format(**{fields!r})
row = torch.tensor([{first} + ids(text, {anchor!r}, {tokens}) + {close}])
start = {start}
"""
_CHOOSE = """\
answers = {answers}
sums = []
for target in answers.values():
    told = logits(start + target[:-1])[-len(target) :].double().log_softmax(-1)
    sums.append(told.gather(-1, torch.tensor(target)[:, None]).sum())
{lengths}probabilities = torch.stack(sums).softmax(0)
print(dict(zip(answers, probabilities.tolist())))
"""
#: Greedy, token by token: what `generate` of PEFT does with prompts of a decoder differs by type.
_WRITE = """\
made = []
while len(made) < {count} and not set(made) & {ends}:
    made.append(int(logits(start + made)[-1].argmax()))
print(tokenizer.decode(made, skip_special_tokens=True){cut}.strip())
"""


def seq2seq_usage(prompt: SavedPrompt, lm: LanguageModel, fields: Mapping[str, Any]) -> str:
    """Code that answers the first input, behind what makes `model` and `tokenizer`.

    A text is written greedily.

    Args:
        prompt: What was exported; it stands in front of the input.
        lm: The encoder-decoder model.
        fields: The input, as Python's `format` takes it.
    """
    template = prompt.template
    # The special tokens stand below a prefix or weights; virtual tokens have taken them in.
    begins = template.apart
    anchor, tokens = ("", 0) if begins else lm.tokens.anchor
    row = IDS + _ROW.format(
        fields=dict(fields),
        first=list(lm.lead) if begins else [],
        before=template.written[-1],
        anchor=anchor,
        tokens=tokens,
        close=list(lm.tokens.close),
        start=list(lm.passes.start),
    )
    if prompt.text:
        cut = f".partition({template.end!r})[0]" if template.end else ""
        ends = set(Ending(lm, template).ids)
        return row + _WRITE.format(count=prompt.decoding.tokens, ends=ends, cut=cut)
    answers = repr(chosen_ids(prompt, lm))
    return row + _CHOOSE.format(answers=answers, lengths=by_length(prompt, lm))
