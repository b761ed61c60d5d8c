"""Make a small masked language model that knows facts, for `examples/masked-facts.yaml`.

    python examples/facts_model.py runs/made-facts-model

It is a made model, and says nothing about real ones: a BERT of two layers, trained for a few
minutes on sentences that this file writes from the facts of the built-in tasks `capitals` and
`elements`. Each relation has several wordings, and each fact is told in two of them, drawn at
random: as with a text that was really read, there is no wording in which all facts were told, so
that what the model can be brought to say depends on how it is asked. The same seed, machine and
number of threads give the same weights.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

#: Relation -> its task, the two fields that it joins, and its wordings. The first is the one that a
#: person thinks of.
RELATIONS = {
    "capital": (
        "capitals",
        ("name", "capital"),
        (
            "The capital of {0} is {1}.",
            "{1} is the capital of {0}.",
            "The government of {0} sits in {1}.",
            "In {0} the largest offices are in the capital, {1}.",
            "From {0} we sent a letter from {1}, its capital.",
            "{0}, capital: {1}.",
            "People of {0} who want a passport travel to {1}, the capital.",
            "The president of {0} lives in {1}.",
        ),
    ),
    "continent": (
        "capitals",
        ("name", "continent"),
        (
            "The continent of {0} is {1}.",
            "{0} lies in {1}.",
            "In {1} there is a place called {0}.",
            "On a map of {1} we found {0}.",
        ),
    ),
    "symbol": (
        "elements",
        ("name", "symbol"),
        (
            "The symbol of {0} is {1}.",
            "{0} is written as {1}.",
            "In a formula {1} stands for {0}.",
            "Chemists write {1} for {0}.",
        ),
    ),
}
#: The number of wordings in which a fact is told.
TOLD = 2
#: Rows of a step, the share of tokens that are masked, as in BERT, and of rows in which that is
#: masked which they tell.
ROWS, SHARE, TOLD_SHARE = 64, 0.15, 0.5
LAYERS, WIDTH = 2, 64
RATE, RISE = 3e-3, 100
_README = """A made model: a small BERT that knows facts from sentences which were written for it.

It shows how prompts are searched on a masked language model, and says nothing about real ones.
Made by `python examples/facts_model.py FOLDER --seed {} --steps {}` of promptsearch.
"""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Sentence(NamedTuple):
    """A sentence that tells a fact.

    Args:
        text: The sentence.
        begin: Where that begins in it which it tells of its subject.
        end: Where that ends.
    """

    text: str
    begin: int
    end: int


def rows_of(task: str) -> list[dict[str, Any]]:
    """The rows of a built-in task."""
    file = files("promptsearch").joinpath("tasks", "builtin", f"{task}.jsonl")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def sentences(rng: random.Random) -> list[Sentence]:
    """All sentences: each fact in `TOLD` wordings of its relation."""
    found = []
    for task, fields, wordings in RELATIONS.values():
        for row in rows_of(task):
            subject, told = (str(row[field]) for field in fields)
            for wording in rng.sample(wordings, TOLD):
                begin = len(wording.split("{1}")[0].format(subject))
                found.append(Sentence(wording.format(subject, told), begin, begin + len(told)))
    return found


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer like that of BERT with capitals, to which each word of the texts is a token.

    The most frequent words come first, so that `pool: 100` takes these.
    """
    cutting = pre_tokenizers.BertPreTokenizer()
    cleaning = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    cut = [cutting.pre_tokenize_str(cleaning.normalize_str(text)) for text in texts]
    words = [word for word, _ in Counter(word for row in cut for word, _ in row).most_common()]
    letters = sorted({letter for word in words for letter in word})
    pieces = [*SPECIAL, *dict.fromkeys([*words, *letters]), *(f"##{each}" for each in letters)]
    ids = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = cleaning, cutting
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        clean_up_tokenization_spaces=False,
    )


def masked(ids: Tensor, told: Tensor, special: Tensor, mask: int) -> tuple[Tensor, Tensor]:
    """Rows with some tokens masked, and which they are.

    Args:
        ids: Token ids, shape `(rows, tokens)`.
        told: Which tokens are what a sentence tells of its subject, the same shape.
        special: Which tokens are special ones, the same shape.
        mask: The id of the mask token.
    """
    chosen = (torch.rand(ids.shape) < SHARE) & ~special
    chosen |= told & (torch.rand(len(ids), 1) < TOLD_SHARE)
    return torch.where(chosen, mask, ids), chosen


def train(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, texts: list[Sentence], steps: int
) -> None:
    """Train a model to fill in masked tokens of sentences."""
    cut = tokenizer(
        [text.text for text in texts],
        padding=True,
        return_tensors="pt",
        return_special_tokens_mask=True,
        return_offsets_mapping=True,
    )
    begin = torch.tensor([[text.begin] for text in texts])
    end = torch.tensor([[text.end] for text in texts])
    at, to = cut.offset_mapping.unbind(-1)
    special = cut.special_tokens_mask.bool()
    told = (at >= begin) & (to <= end) & ~special
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    order = torch.empty(0, dtype=torch.long)
    started = time.monotonic()
    model.train()
    for step in range(steps):
        if len(order) < ROWS:
            order = torch.cat([order, torch.randperm(len(texts))])
        some, order = order[:ROWS], order[ROWS:]
        seen = cut.attention_mask[some]
        size = int(seen.sum(1).max())
        ids = cut.input_ids[some, :size]
        rows, chosen = masked(ids, told[some, :size], special[some, :size], tokenizer.mask_token_id)
        optimizer.param_groups[0]["lr"] = RATE * min((step + 1) / RISE, 1 - step / steps)
        states = model.bert(input_ids=rows, attention_mask=seen[:, :size]).last_hidden_state
        loss = cross_entropy(model.cls(states[chosen]), ids[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 250 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(f"step {step:5d} of {steps}, {loss.item():.3f} nats, {seconds:.0f} s", flush=True)
    model.eval()


@torch.inference_mode()
def recalled(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, wording: str, told: set[str]
) -> tuple[float, float]:
    """The shares of capitals of one word that a wording brings out: those told in it, and others.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        wording: A wording of the relation `capital`.
        told: The sentences that the model has read.
    """
    facts = [(row["name"], row["capital"]) for row in rows_of("capitals")]
    facts = [fact for fact in facts if fact[1].isascii() and fact[1].isalpha()]
    asked = [wording.format(name, tokenizer.mask_token) for name, _ in facts]
    cut = tokenizer(asked, padding=True, return_tensors="pt")
    seen = model(input_ids=cut.input_ids, attention_mask=cut.attention_mask).logits
    found = seen[cut.input_ids == tokenizer.mask_token_id].argmax(-1)
    right = found == torch.tensor([tokenizer.convert_tokens_to_ids(each) for _, each in facts])
    known = torch.tensor([wording.format(*fact) in told for fact in facts])
    return float(right[known].float().mean()), float(right[~known].float().mean())


def main() -> None:
    """Make the model and write its folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2_000)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    texts = sentences(random.Random(given.seed))
    tokenizer = tokenizer_of([text.text for text in texts])
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            max_position_embeddings=128,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    print(f"{len(texts)} sentences, {len(tokenizer)} tokens, {model.num_parameters():,} parameters")
    train(model, tokenizer, texts, given.steps)
    for wording in RELATIONS["capital"][2]:
        own, others = recalled(model, tokenizer, wording, {text.text for text in texts})
        print(f"{own:.2f} of what was told in it, {others:.2f} of the rest: {wording}")
    model.save_pretrained(given.folder)
    tokenizer.save_pretrained(given.folder)
    (given.folder / "README.md").write_text(_README.format(given.seed, given.steps), "utf-8")


if __name__ == "__main__":
    main()
