"""Scoring prompts on reviews with an encoder-decoder model, against the naive loop in its dtype.

The model has the shape of T5-base and random weights: its speed is that of the real one. The
encoder sees the prompt from every token, so that one prompt costs what any other does, and a few of
them tell what 64 take. The naive loop reads both answers off one pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from benchmarks.measure import Comparison, clock, equal
from benchmarks.work import hard, reviews
from promptsearch import LanguageModel, Task
from promptsearch.models.device import pick_device
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import lay_out, slots_of

TEMPLATE = "{prompt} {text} It was {answer}"
EXAMPLES, LENGTH = np.arange(256), 5
#: Prompts of ours, and of the loop's, in a round.
OURS, THEIRS = 4, 1


def encoder_decoder(device: str) -> Comparison:
    """64 hard prompts on 256 reviews."""
    task = reviews(TEMPLATE)
    lm = _t5(task, device)
    work = "64 prompts x 256 reviews, encoder-decoder model of T5-base's shape, float32"

    def prompts(number: int) -> list[Prompt]:
        return hard(lm, OURS, LENGTH, number)

    def ours(number: int) -> float:
        fresh = _engine(lm, task)
        return clock(lambda: fresh.score(prompts(number), EXAMPLES))[0] / OURS

    def theirs(number: int) -> float:
        some = prompts(number)[:THEIRS]
        return clock(lambda: _naive(lm, task, some, EXAMPLES))[0] / THEIRS

    def check() -> str:
        few, some = prompts(0)[:1], EXAMPLES[:32]
        return equal(_engine(lm, task).score(few, some).losses, _naive(lm, task, few, some), 1e-5)

    return Comparison(
        {work: ours},
        {"float32": theirs},
        "padded loop of transformers",
        {work: {"float32": 2.0}},
        check,
    )


def _engine(lm: LanguageModel, task: Task) -> Engine:
    """The search split."""
    return Engine(lm, task.template.bind(LENGTH), task.splits["search"], task.choices)


def _naive(
    lm: LanguageModel, task: Task, prompts: Sequence[Prompt], examples: Sequence[int]
) -> np.ndarray:
    """Losses of the naive loop, shape (prompts, examples).

    It takes one prompt at a time and the data in their order, in batches of 32 that are padded on
    the right.
    """
    template, split = task.template.bind(LENGTH), task.splits["search"]
    layouts = [lay_out(template, lm, split.examples[e], task.choices) for e in examples]
    right = torch.tensor([split.examples[e].choice for e in examples])
    words = torch.tensor([answer[0] for answer in layouts[0].answers])
    pad, begun = lm.tokenizer.pad_token_id, torch.tensor([lm.passes.start], device=lm.device)
    losses = []
    for prompt in prompts:
        slots = slots_of(template, lm, prompt)
        rows = [layout.join(slots) for layout in layouts]
        found = []
        for begin in range(0, len(rows), 32):
            some = rows[begin : begin + 32]
            longest = max(map(len, some))
            padded = [[*row, *[pad] * (longest - len(row))] for row in some]
            ids = torch.tensor(padded, device=lm.device)
            with torch.inference_mode():
                logits = lm.model(
                    input_ids=ids,
                    attention_mask=(ids != pad).long(),
                    decoder_input_ids=begun.expand(len(some), -1),
                ).logits
            told = logits[:, -1, words].float().cpu()
            found.append(-told.log_softmax(-1).gather(-1, right[begin : begin + 32, None])[:, 0])
        losses.append(torch.cat(found))
    return torch.stack(losses).numpy()


def _t5(task: Task, device: str) -> LanguageModel:
    """A model of T5-base's shape, and a tokenizer like T5's made of the reviews."""
    tokenizer = Tokenizer(models.Unigram())
    marks = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always", split=True)
    trainer = trainers.UnigramTrainer(
        vocab_size=8000,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    texts = [str(e.fields["text"]) for split in task.splits.values() for e in split.examples]
    tokenizer.train_from_iterator([*sorted(texts), *[" bad good"] * 100], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = T5Config(d_model=768, d_ff=3072, num_layers=12, num_decoder_layers=12, num_heads=12)
    config.decoder_start_token_id = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = T5ForConditionalGeneration(config)
    return LanguageModel(model.to(pick_device(device)), wrapped, name="t5-base-shaped")
