"""From hidden states to log-probabilities of answers, losses, and right or wrong.

Logits are float32. What is added up from them is float64: forty tokens of an unlikely answer are
250 nats together, where float32 has steps of 1.5e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from promptsearch.models import LanguageModel
from promptsearch.records.scores import ExampleIds

#: The most logits over the whole vocabulary that are held at a time: 16 million are 64 MiB in
#: float32.
_LOGITS = 2**24


class Graded(NamedTuple):
    """The losses of prompts on examples.

    Args:
        losses: The losses in nats, shape `(prompts, examples)`.
        metric: Whether each answer is right, 1 or 0, shape `(prompts, examples)`.
        choices: The log-probabilities over the choices, shape `(prompts, examples, choices)`, NaN
            behind those of an example that has fewer; None for text answers.
        computed: The number of tokens that went through the LM.
    """

    losses: Tensor
    metric: Tensor
    choices: Tensor | None
    computed: int

    @staticmethod
    def joined(parts: Sequence[Graded], places: Sequence[int] = ()) -> Graded:
        """The losses of all prompts of some parts.

        Args:
            parts: The parts.
            places: The place of each prompt, part by part, among all; left out: they stand one
                after the other.
        """
        choices = [part.choices for part in parts if part.choices is not None]
        found = Graded(
            torch.cat([part.losses for part in parts]),
            torch.cat([part.metric for part in parts]),
            torch.cat(choices) if choices else None,
            sum(part.computed for part in parts),
        )
        return found.ordered(torch.tensor(places).argsort()) if places else found

    def ordered(self, order: Tensor) -> Graded:
        """The losses of the prompts at these places, shape `(prompts,)`."""
        choices = None if self.choices is None else self.choices[order]
        return Graded(self.losses[order], self.metric[order], choices, self.computed)

    def at(self, places: Sequence[int]) -> Graded:
        """The losses on the examples at these places."""
        index = torch.tensor(places)
        choices = None if self.choices is None else self.choices[:, index]
        return Graded(self.losses[:, index], self.metric[:, index], choices, self.computed)


def grade_texts(table: Tensor, begins: ExampleIds, computed: int) -> Graded:
    """The losses of text answers: the mean over an example's right answers; one of them is enough.

    Args:
        table: The log-probability of each right answer with its end, and whether all of it is
            greedy, shape `(prompts, answers, 2)`.
        begins: The places where the answers of each example begin, shape `(examples + 1,)`.
        computed: The number of tokens that went through the LM.
    """
    greedy = table[..., 1].detach().numpy()
    metric = torch.from_numpy(np.maximum.reduceat(greedy, begins[:-1], axis=1))
    counts = torch.from_numpy(np.diff(begins))
    owners = torch.repeat_interleave(torch.arange(len(counts)), counts)
    sums = table.new_zeros(len(table), len(counts)).index_add(1, owners, -table[..., 0])
    return Graded(sums / counts, metric, None, computed)


def table_of_choices(table: Tensor, begins: ExampleIds, most: int) -> Tensor:
    """The log-probabilities of answers to choose from, example by example.

    Args:
        table: In nats, shape `(prompts, answers)`.
        begins: The places where the answers of each example begin, shape `(examples + 1,)`.
        most: The largest number of an example's answers, in the whole split.

    Returns:
        Shape `(prompts, examples, most)`; -inf behind the answers of an example that has fewer.
    """
    counts = np.diff(begins)
    if (counts == most).all():
        same: Tensor = table.unflatten(1, (-1, most))
        return same
    answered = torch.from_numpy(np.arange(most) < counts[:, None])  # (examples, most)
    found = table.new_full((len(table), len(counts), most), float("-inf"))
    found[:, answered] = table
    return found


def grade_choices(
    table: Tensor,
    right: Tensor,
    computed: int,
    lengths: Tensor | None = None,
    bias: Tensor | None = None,
) -> Graded:
    """The losses of answers by choice.

    Args:
        table: The log-probabilities of the choices, or their logits, as `choice_scores` takes them,
            shape `(prompts, examples, choices)`; -inf behind those of an example that has fewer.
        right: The place of each example's right choice, shape `(examples,)`.
        computed: The number of tokens that went through the LM.
        lengths: The lengths by which they are divided, shape `(examples, choices)`, 0 behind those
            of an example that has fewer; None: nothing is divided, and all have as many.
        bias: What each prompt adds to them, in nats, shape `(prompts, choices)`; None: nothing.

    Returns:
        The losses; of `choices`, what an example does not have is NaN.
    """
    shape = table.shape[:2]
    if lengths is not None:
        table = exact(table) / lengths.clamp_min(1)
    if bias is not None:
        table = exact(table) + bias[:, None]
    nats, correct, normalised = choice_scores(table.flatten(0, 1), right.repeat(shape[0]))
    choices = normalised.unflatten(0, shape)
    if lengths is not None:
        choices = choices.masked_fill(lengths == 0, float("nan"))
    return Graded(nats.reshape(shape), correct.float().reshape(shape), choices, computed)


def choice_scores(log_probabilities: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The losses and the metric of tasks with choices.

    Args:
        log_probabilities: The summed log-probabilities of each choice's tokens, shape
            `(rows, choices)`; or, for answers of one token, logits, whose softmax over the choices
            is the same.
        right: The place of the right choice, shape `(rows,)`.

    Returns:
        Losses in nats, float64, shape `(rows,)`; whether the right choice is strictly the most
        probable one (a tie is wrong), shape `(rows,)`; and log-probabilities over the choices,
        float64, shape `(rows, choices)`.
    """
    normalised = exact(log_probabilities).log_softmax(-1)
    chosen = normalised.gather(-1, right[:, None])
    others = normalised.scatter(-1, right[:, None], float("-inf"))
    correct = chosen[:, 0] > others.max(-1).values
    return -chosen[:, 0], correct, normalised


def token_nats(logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The log-probabilities of tokens; only what is read off each row of logits becomes float64.

    Args:
        logits: The logits, float32, shape `(rows, vocabulary)`.
        rows: The row from which each token is predicted, shape `(tokens,)`.
        targets: The tokens, shape `(tokens,)`.

    Returns:
        Nats, negative, float64, shape `(tokens,)`.
    """
    peaks = logits.detach().amax(-1)
    shares = (logits - peaks[:, None]).exp_().sum(-1)
    totals = exact(peaks) + exact(shares).log()
    return exact(logits[rows, targets]) - totals[rows.to(totals.device)]


def exact(numbers: Tensor) -> Tensor:
    """The numbers in float64; on the CPU if their device has no float64, as Apple's has not."""
    return (numbers.cpu() if numbers.device.type == "mps" else numbers).double()


def answer_scores(
    lm: LanguageModel,
    states: Tensor,
    rows: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> Tensor:
    """The log-probability of each answer, and whether greedy decoding gives all of its tokens.

    Args:
        lm: The model.
        states: The last hidden states of a pass, shape `(tokens, width)`.
        rows: The places from which each answer's tokens are predicted, one for each token.
        answers: The tokens of each answer.

    Returns:
        Float64, shape `(answers, 2)`: the summed log-probability in nats (negative), and 1 or 0.
    """
    device = states.device
    places = torch.tensor([place for row in rows for place in row], device=device)
    targets = torch.tensor([token for answer in answers for token in answer], device=device)
    owners = torch.repeat_interleave(
        torch.arange(len(rows), device=device), torch.tensor([len(r) for r in rows], device=device)
    )
    # Answers that begin alike share their first predictions.
    wanted, row_of = places.unique(return_inverse=True)
    every, nats, greedy = [], [], []
    size = max(1, _LOGITS // len(lm.embeddings))
    for begin in range(0, len(wanted), size):
        logits = lm.passes.logits(states[wanted[begin : begin + size]])
        here = ((row_of >= begin) & (row_of < begin + size)).nonzero()[:, 0]
        at = row_of[here] - begin
        every.append(here)
        nats.append(token_nats(logits, at, targets[here]))
        greedy.append(logits.argmax(-1)[at] == targets[here])
    found, wrong = torch.cat(nats), ~torch.cat(greedy)
    owner = owners[torch.cat(every)].to(found.device)
    sums = found.new_zeros(len(rows)).index_add(0, owner, found)
    misses = found.new_zeros(len(rows)).index_add(0, owner, wrong.to(found))
    return torch.stack([sums, (misses == 0).float()], -1)
