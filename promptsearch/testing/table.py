"""A real objective as a table: a small space was scored once, and searches read losses there.

The prices are those of the LM: what a search finds within a budget on the table, it would have
found on the model. So the true optimum is known, and twenty seeds cost seconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from promptsearch.errors import FileError, RecordError, StrategyError
from promptsearch.files import opened, write_aside
from promptsearch.models import LanguageModel
from promptsearch.plain.json import parse_json
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import read_log
from promptsearch.records.scores import ExampleIds, Floats, Generated, Scores, rows_of
from promptsearch.records.sealed import read_record
from promptsearch.scoring.protocol import Adds
from promptsearch.search.objective import FINALISTS, Objective
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.task import Example

#: A number of examples that are not scored on: some strategies count them.
_TRAINING = 1


class TableScorer:
    """Scores hard prompts from a table; what `Objective` needs instead of an LM.

    Tokens are numbered by their place in the pool. Nothing but hard prompts of the table's length
    can be scored, on the examples of the table.

    Args:
        losses: Losses in nats of all prompts, in lexicographic order of their tokens, shape
            `(pool ** length, examples)`.
        metric: 1 where the answer is right, else 0, of the same shape.
        embeddings: The LM's, of the pool's tokens, shape `(pool, width)`.
        words: The pool's tokens as text.
        price: The tokens that one prompt costs on all examples.
        lead: The tokens that all examples cost once.
        name: The name of task and model.

    Raises:
        RecordError: The numbers do not fit each other.
    """

    def __init__(
        self,
        losses: Floats,
        metric: Floats,
        embeddings: Tensor,
        words: Sequence[str],
        price: int,
        lead: int,
        name: str,
    ) -> None:
        prompts, examples = losses.shape
        length = round(np.log(prompts) / np.log(len(words))) if len(words) > 1 else 0
        if (
            length < 1
            or len(words) ** length != prompts
            or metric.shape != losses.shape
            or len(embeddings) != len(words)
        ):
            raise RecordError(f"{prompts} rows are no table of all prompts of {len(words)} tokens")
        if not np.isfinite(losses).all():
            raise RecordError(
                "a prompt of the table has no loss on some examples: the table is not whole"
            )
        self.losses, self.metric = losses, metric
        self.words, self.name = tuple(words), name
        places = np.arange(len(words))
        self.space = PromptSpace(
            places,
            length,
            lambda ids: "".join(words[i] for i in ids),
            embeddings=lambda: embeddings,
        )
        self.scored, self.training = np.arange(examples), np.arange(examples, examples + _TRAINING)
        self.signature = f"table {name} {len(words)} {length} {examples}"
        self.embeddings = embeddings
        self.white_box = None  # a table holds nothing but scores
        self._price, self._lead = price, lead

    @staticmethod
    def from_run(folder: Path, lm: LanguageModel) -> TableScorer:
        """The table that a run of `exhaustive` leaves.

        Args:
            folder: The run's, with its log.
            lm: That of the run, for the words and their embeddings.

        Raises:
            RecordError: The log is damaged, not every prompt of a space was scored in it, or it
                does not tell what one prompt costs.
        """
        log = read_log(folder / "evaluations.jsonl")[0]
        lines = [line for line in log if line["stage"] == "search"]
        again = next((line for line in log if line["stage"] == "rescore"), None)
        hard = [data["ids"] for line in lines for data in line["prompts"] if "ids" in data]
        if (
            again is None
            or len(set(map(len, hard))) != 1
            or any(line["examples"] != "score_on" or line["failures"] for line in lines)
        ):
            raise RecordError(
                f"{folder} holds no finished exhaustive search: "
                "expected every prompt scored on all of score_on"
            )
        ids = np.array(hard, dtype=np.int64)
        pool = np.unique(ids)
        rows = [row for line in lines for row in rows_of(line, len(line["losses"][0]))]
        if len(ids) != len(pool) ** ids.shape[1] or len(rows) != len(ids):
            raise RecordError(
                f"{folder} holds {len(ids)} prompts of {len(pool)} tokens at {ids.shape[1]} "
                f"places: expected all {len(pool) ** ids.shape[1]:,}. Let the run of exhaustive end"
            )
        order = np.lexsort(ids.T[::-1])
        searched = lines[-1]["ledger"]["forward"]
        each = _price_of_one(lines, again["ledger"]["forward"] - searched, len(again["prompts"]))
        if not each:
            raise RecordError(
                f"{folder} does not tell what one prompt costs: its prompts were scored in one "
                "ask, and the best of them not again. Run exhaustive with a smaller 'batch'"
            )
        lead = searched - each * len(ids)
        run = read_record(folder / "result.json", "result", "restore it, or run the study again")
        return TableScorer(
            np.stack([rows[i].losses for i in order]),
            np.stack([rows[i].metric for i in order]),
            lm.embeddings[torch.from_numpy(pool)].float().cpu(),
            [lm.decode([i]) for i in pool.tolist()],
            each,
            lead,
            f"{run['task']} on {lm.name}",
        )

    def save(self, path: Path) -> None:
        """Write the table as one file, losses in float32."""
        tensors = {
            "losses": torch.from_numpy(self.losses).float(),
            "metric": torch.from_numpy(self.metric).half(),
            "embeddings": self.embeddings.contiguous(),
        }
        about = {"words": self.words, "price": self._price, "lead": self._lead, "name": self.name}
        write_aside(path, safetensors.torch.save(tensors, metadata={"table": json.dumps(about)}))

    @staticmethod
    def load(path: Path) -> TableScorer:
        """The reverse of `save`.

        Raises:
            RecordError: There is no such table.
        """
        try:
            with opened(path), safetensors.safe_open(path, framework="pt") as file:
                about = parse_json(file.metadata()["table"])
                # The file is no dictionary, and cannot be iterated over.
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            losses, metric = (tensors[name].double().numpy() for name in ("losses", "metric"))
            return TableScorer(losses, metric, tensors["embeddings"], **about)
        except (FileError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{path} is no table of scores: {error}") from error

    @cached_property
    def values(self) -> Floats:
        """The mean loss of every prompt, shape `(prompts,)`."""
        values: Floats = self.losses.mean(1)
        return values

    @property
    def optimum_value(self) -> float:
        """The mean loss of the best prompt, in nats."""
        return float(self.values.min())

    @property
    def median_value(self) -> float:
        """The mean loss that half of all prompts are below, in nats."""
        return float(np.median(self.values))

    def objective(self, budget: int | None = None) -> Objective:
        """A fresh objective on the table.

        Args:
            budget: LM tokens; None for no limit.
        """
        ledger = Ledger(budget)
        return Objective(
            self,
            self.space,
            ledger,
            scored=self.scored,
            training=self.training,
            finalists=FINALISTS,
        )

    def budget(self, evaluations: int) -> int:
        """The budget that buys this many prompts on all examples."""
        return self._lead + evaluations * self._price

    # What Objective asks of a scorer.

    adds = Adds  # every prompt its tokens

    def length(self, prompt: Prompt) -> int:
        """Tokens of a prompt."""
        return self.space.length if prompt.length is None else prompt.length

    def fits(self, prompt: Prompt) -> bool:
        """There is no context to be longer than."""
        return True

    def context(self, examples: ExampleIds) -> ExampleIds:
        """An equal share of a prompt's price for each example, shape `(examples,)`."""
        shares = _shares(self._price - len(self.scored) * self.space.length, len(self.scored))
        return shares[examples % len(self.scored)]

    def lead(self, examples: ExampleIds) -> ExampleIds:
        """An equal share for each example, shape `(examples,)`."""
        return _shares(self._lead, len(self.scored))[examples % len(self.scored)]

    def tail(self, examples: ExampleIds) -> ExampleIds:
        """The same: the table holds no answers, shape `(examples,)`."""
        return self.context(examples)

    def readings(self, examples: ExampleIds) -> ExampleIds:
        """Once each, shape `(examples,)`."""
        return np.ones(len(examples), dtype=np.int64)

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """Looked up."""
        losses = np.full((len(prompts), len(examples)), np.nan)
        metric, failures = losses.copy(), {}
        for i, prompt in enumerate(prompts):
            if not isinstance(prompt, HardPrompt) or examples.max() >= len(self.scored):
                failures[i] = "the table holds hard prompts on its own examples only"
                continue
            place = int(np.ravel_multi_index(prompt.ids, (len(self.words),) * self.space.length))
            losses[i], metric[i] = self.losses[place, examples], self.metric[place, examples]
        return Scores(losses, metric, None, 0, failures)

    def generate(
        self, prompts: Sequence[Prompt], examples: ExampleIds, decoding: Decoding
    ) -> Generated:
        """There is no model to do it."""
        raise StrategyError(
            "a table of scores generates no answers: search for the loss on it, or score with the "
            "model that it was made with"
        )

    def examples(self, ids: ExampleIds) -> list[Example]:
        """Without text."""
        return [Example(int(i), {}, "", 0) for i in ids]

    def encode(self, text: str) -> list[int]:
        """Words of the table; the others are left out."""
        known = {word.strip(): i for i, word in enumerate(self.words)}
        return [known[word] for word in text.split() if word in known]

    def demonstrations(self, ids: ExampleIds, answers: Sequence[str] | None = None) -> list[str]:
        """There are none."""
        raise StrategyError(
            "a table of scores serves strategies that need no more than the scores of hard prompts"
        )


def _price_of_one(lines: Sequence[dict[str, Any]], again: int, best: int) -> int:
    """What one prompt costs on all examples when their lead is paid; 0 where a log does not tell.

    Args:
        lines: The log's lines of the search; the first one paid the lead.
        again: What it cost to score the best prompts again: nothing, where the search was in
            float32 as well.
        best: How many these are.
    """
    if len(lines) > 1:
        return int(lines[1]["price"]) // len(lines[1]["prompts"])
    return again // best


def _shares(total: int, count: int) -> ExampleIds:
    """Whole numbers that differ by 1 at most and add up to `total`, shape `(count,)`."""
    shares: ExampleIds = np.diff(np.arange(count + 1) * total // count)
    return shares
