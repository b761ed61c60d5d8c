"""Copies of a model with its first layers only: a stated proxy for smaller models of a family.

The first N layers stay, and the final norm and the head, which were never trained to read what they
are given then: such a copy predicts nothing. A healed one is trained for a single pass over the
sentences of the built-in task `sentences`, without their labels, as Gromov et al. (2025, "The
Unreasonable Ineffectiveness of the Deeper Layers", arXiv:2403.17887, section 3) heal what they
prune; they train adapters, here the layers are trained. The embeddings stay. The recipe draws
nothing at random: the same machine and threads give the same weights. Do not measure such a copy on
`sentences`, whose texts it has seen.
"""

from __future__ import annotations

import json
import logging
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Tokens of a row, rows of a step, the highest learning rate, and the steps in which it rises.
ROW, ROWS, RATE, RISE = 64, 4, 5e-4, 10
#: One sentence of so many is held out; the perplexity on these says whether healing helped.
HELD_OUT = 10

_log = logging.getLogger(__name__)


def shorten(whole: Path, layers: int, folder: Path, *, healed: bool) -> None:
    """Write a copy of a model with its first layers only.

    Args:
        whole: The folder of the whole model, which is built like Llama.
        layers: The number of layers to keep.
        folder: The folder to make.
        healed: Whether it is trained afterwards; it then has a file `healing.json` that says what
            its perplexity was before and after.
    """
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole)
    cut(model, layers)
    told = heal(model, *sentences(tokenizer)) if healed else {}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if told:
        (folder / "healing.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")


def cut(model: Any, layers: int) -> None:
    """Leave a model of transformers its first layers, its final norm and its head."""
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers


def sentences(tokenizer: Any) -> tuple[Tensor, Tensor]:
    """The sentences to heal with, and those that are held out.

    Returns:
        Token ids of sentences, one a line, each of shape `(rows, ROW)`.
    """
    file = files("promptsearch").joinpath("tasks", "builtin", "sentences.jsonl")
    texts = [json.loads(line)["text"] for line in file.read_text("utf-8").strip().split("\n")]
    held_out = [text for i, text in enumerate(texts) if i % HELD_OUT == 0]
    # They are sorted by where they come from, which a single pass would unlearn one by one.
    trained = [text for i, text in enumerate(texts) if i % HELD_OUT]
    mixed = [text for start in range(_STRIDE) for text in trained[start::_STRIDE]]
    return _rows(mixed, tokenizer), _rows(held_out, tokenizer)


#: The distance in the file of two sentences that stand beside each other in training.
_STRIDE = 97


def _rows(texts: list[str], tokenizer: Any) -> Tensor:
    ids: list[int] = tokenizer("\n".join(texts), add_special_tokens=False).input_ids
    whole = len(ids) // ROW * ROW
    return torch.tensor(ids[:whole]).view(-1, ROW)


def heal(model: Any, rows: Tensor, held_out: Tensor) -> dict[str, float]:
    """Train all weights of a model but its embeddings, once over rows of text.

    AdamW without decay; the rate rises over `RISE` steps and then falls to 0 in a line. Where the
    model is no better on what is held out, it stays as it was.

    Args:
        model: The model, which is changed.
        rows: Token ids, shape `(rows, tokens)`.
        held_out: Token ids to measure on, shape `(others, tokens)`.

    Returns:
        The perplexity on what is held out, `before` and `after`.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    perplexities = {"before": perplexity(model, held_out)}
    own = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in own)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    steps = math.ceil(len(rows) / ROWS)
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / RISE) * (1 - step / steps)
        batch = rows[step * ROWS : (step + 1) * ROWS]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            _log.info("healing: step %d of %d, %.3f nats a token", step, steps, loss.item())
    model.eval().requires_grad_(False)
    perplexities["after"] = perplexity(model, held_out)
    if not perplexities["after"] < perplexities["before"]:
        model.load_state_dict(before)
    _log.info("healed: perplexity %(before).4g before, %(after).4g after", perplexities)
    return perplexities


def perplexity(model: Any, rows: Tensor) -> float:
    """The perplexity of a model on rows of text, of each token but the first of a row.

    Args:
        model: The model.
        rows: Token ids, shape `(rows, tokens)`.
    """
    with torch.no_grad():
        losses = [model(input_ids=row[None], labels=row[None]).loss.item() for row in rows]
    return math.exp(sum(losses) / len(losses))
