"""Scoring prompts on reviews with a masked model, against the naive loop in the same dtype.

The model has the shape of BERT-base and random weights: its speed is that of the real one. Nothing
is shared between rows of a masked model, so that one prompt costs what any other does, and a few of
them tell what 64 take.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from benchmarks.measure import Comparison, clock, equal
from benchmarks.work import hard, reviews
from promptsearch import LanguageModel, Task
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import lay_out, meeting, slots_of

TEMPLATE = "{prompt} {text} It was {answer}."
EXAMPLES, LENGTH = np.arange(256), 5
#: Prompts of ours, and of the loop's, in a round.
OURS, THEIRS = 4, 1


def masked() -> Comparison:
    """64 hard prompts on 256 reviews."""
    task = reviews(TEMPLATE)
    lm = _bert(task)
    work = "64 prompts x 256 reviews, masked model of BERT-base's shape, float32"

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
        {work: {"float32": 3.0}},
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
    the right, with all logits.
    """
    template = meeting(task.template.bind(LENGTH), lm)
    split = task.splits["search"]
    layouts = [lay_out(template, lm, split.examples[e], task.choices) for e in examples]
    right = torch.tensor([split.examples[e].choice for e in examples])
    words = torch.tensor([answer[0] for answer in layouts[0].answers])
    pad = lm.tokenizer.pad_token_id
    losses = []
    for prompt in prompts:
        slots = slots_of(template, lm, prompt)
        rows = [layout.read(slots, layout.answers[0])[0].ids for layout in layouts]
        found = []
        for begin in range(0, len(rows), 32):
            some = rows[begin : begin + 32]
            longest = max(map(len, some))
            ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in some])
            with torch.inference_mode():
                logits = lm.model(input_ids=ids, attention_mask=(ids != pad).long()).logits
            told = logits[ids == lm.tokens.mask][:, words].float()
            found.append(-told.log_softmax(-1).gather(-1, right[begin : begin + 32, None])[:, 0])
        losses.append(torch.cat(found))
    return torch.stack(losses).numpy()


def _bert(task: Task) -> LanguageModel:
    """A model of BERT-base's shape, and a tokenizer like BERT's made of the reviews."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=8000, special_tokens=special, show_progress=False
    )
    texts = [str(e.fields["text"]) for split in task.splits.values() for e in split.examples]
    tokenizer.train_from_iterator(sorted(texts), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(BertConfig())  # the defaults are BERT-base
    return LanguageModel(model, wrapped, name="bert-base-shaped")
