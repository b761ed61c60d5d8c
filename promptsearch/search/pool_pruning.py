"""Pruning a pool: only words that move the loss are left.

ClaPS: Zhou et al. 2023, "Survival of the Most Influential Prompts: Efficient Black-Box Prompt
Search via Clustering and Pruning", https://arxiv.org/abs/2310.12774. The pool's embeddings are
clustered, one word stands for each cluster, and what it does to the loss decides about the cluster.

Differs from the paper: all words of an influential cluster are kept, not only the one that was
tried; embeddings are compared by direction; and the influence is the change of the loss in nats,
from the log-probabilities themselves (the released code takes the softmax of a softmax, which hides
most of the influence).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from promptsearch.errors import StudyError
from promptsearch.files import exists
from promptsearch.models import LanguageModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.sealed import damaged, read_record, write_record
from promptsearch.scoring import Engine
from promptsearch.search.pool import Pool
from promptsearch.tasks.task import Example, Split, Task

Floats = NDArray[np.float64]
ExampleIds = NDArray[np.int64]

#: The most words that are tried, and the most training examples that they are tried on.
CLUSTERS, EXAMPLES = 100, 8
#: The number of tokens in a slot whose length the template does not fix, all of them the word that
#: is tried. On movie reviews and SmolLM2-135M, the influence of a word on 8 examples and that on 8
#: others correlate by 0.38 over 120 words; with one token they correlate by 0.08.
FILL = 5


class Pruning:
    """Finds the tokens of a pool that move the loss.

    Slots are `FILL` tokens long here, so that a study has one pool whatever the length of its
    prompts.

    Args:
        pool: The pool before it is pruned.
        keep: How many tokens are left.
        task: The task, whose template and answers are used.
        lm: The model, in the dtype of the search.
        training: Search examples that nothing is scored on.
        memory: The bytes that keys and values may take.

    Raises:
        StudyError: As many tokens are to be left as there are, or more.
    """

    def __init__(
        self,
        pool: Pool,
        keep: int,
        task: Task,
        lm: LanguageModel,
        training: Sequence[Example],
        memory: int | None = None,
    ) -> None:
        if keep >= len(pool.ids):
            raise StudyError(
                f"the pool of task '{task.name}' has {len(pool.ids)} tokens before it is pruned "
                f"to {keep} by influence: lower 'influence', or leave it out"
            )
        self._pool = pool
        self._keep = keep
        self._lm = lm
        split = Split("search", tuple(replace(e, id=i) for i, e in enumerate(training[:EXAMPLES])))
        template = task.template.bind(FILL)
        self._engine = Engine(
            lm, template, split, task.choices, normalise=task.normalise, memory=memory
        )
        self._examples = np.arange(len(split))
        self._length = template.length
        model = (str(lm.dtype), lm.hash, lm.tokenizer_hash)
        ends = (template.end or template.end_token,) if task.kind != "choices" else ()
        parts = (
            pool.ids,
            keep,
            CLUSTERS,
            template.length,
            split.hash,
            template.text,
            task.choices,
            model,
            *ends,
            *(() if task.normalise == "none" else (task.normalise,)),
        )
        #: A name for all that the result depends on.
        self.hash = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
        self.made = (
            f"the {keep:,} tokens of most influence on {len(split)} training examples, "
            f"of {len(pool.ids):,}: {pool.made}"
        )

    @cached_property
    def groups(self) -> list[ExampleIds]:
        """The places in the pool of each cluster's tokens, the nearest to its centre first."""
        return clusters(self._lm.vocabulary[list(self._pool.ids)].float().cpu().numpy(), CLUSTERS)

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts that are scored: the empty one, then a word of each cluster in all slots."""
        words = [self._pool.ids[group[0]] for group in self.groups]
        return [TextPrompt(""), *(HardPrompt([word] * self._length) for word in words)]

    @property
    def price(self) -> int:
        """The price in LM tokens, charged to each run whose prompts are made of the pool."""
        each = int(self._engine.context(self._examples).sum())
        words = len(self.groups)
        return (
            int(self._engine.lead(self._examples).sum())
            + (1 + words) * each
            + words * len(self._examples) * self._length
        )

    @property
    def cost(self) -> float:
        """What the engine will compute, in tokens, as in `Prediction.cost`."""
        return float(self._engine.predict(self.prompts, self._examples).cost)

    def influences(self) -> Floats:
        """The mean absolute change of the loss that each cluster's word brings.

        Returns:
            The changes in nats, shape `(clusters,)`.

        Raises:
            StudyError: The empty prompt, or a word, cannot be scored.
        """
        scores = self._engine.score(self.prompts, self._examples)
        if scores.failures:
            place, reason = next(iter(scores.failures.items()))
            name = "the empty prompt" if place == 0 else f"the word {self._text(place - 1)!r}"
            raise StudyError(
                f"the influence of the pool's words cannot be measured, {name} has no loss: "
                f"{reason}"
            )
        influences: Floats = np.round(np.abs(scores.losses[1:] - scores.losses[0]).mean(1), 6)
        return influences

    def supposed(self) -> Pool:
        """A pool of the right size and price, for plans: no token is spent."""
        return Pool(self._pool.ids[: self._keep], self.made, self.price)

    def find(self, folder: Path) -> Pool:
        """The pool, read from a folder, or found now and kept there.

        Args:
            folder: The folder of a study's pools.

        Raises:
            StudyError: The influence of the words cannot be measured, see `influences`.
            RecordError: The file in the folder is damaged.
        """
        path = folder / f"{self.hash}.json"
        if exists(path):
            return self._kept(path)
        influences = self.influences()
        order = np.argsort(-influences, kind="stable")
        ids = [self._pool.ids[place] for cluster in order for place in self.groups[cluster]][
            : self._keep
        ]
        tried = [
            {"word": self._text(i), "influence": float(influences[i]), "words": len(self.groups[i])}
            for i in order.tolist()
        ]
        write_record(path, "pool", {"ids": ids, "price": self.price, "clusters": tried})
        return Pool(tuple(ids), self.made, self.price)

    def _text(self, cluster: int) -> str:
        return self._lm.decode([self._pool.ids[self.groups[cluster][0]]])

    def _kept(self, path: Path) -> Pool:
        remedy = "delete it, and the study finds its pool again"
        data = read_record(path, "pool", remedy)
        try:
            ids, price = tuple(data["ids"]), data["price"]
            intact = (
                len(set(ids)) == len(ids) == self._keep
                and set(ids) <= set(self._pool.ids)
                and price == self.price
            )
        except (KeyError, TypeError):
            intact = False
        if not intact:
            raise damaged(path, "it holds another pool", remedy)
        return Pool(ids, self.made, price)


def clusters(vectors: NDArray[np.float32], count: int) -> list[ExampleIds]:
    """K-means on directions: the rows of each cluster, nearest to its centre first.

    Args:
        vectors: The rows, shape `(rows, width)`.
        count: The most clusters that are made.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    means = KMeans(min(count, len(np.unique(unit, axis=0))), n_init=1, random_state=0).fit(unit)
    distances = np.linalg.norm(unit - means.cluster_centers_[means.labels_], axis=1)
    order = np.argsort(distances, kind="stable")
    return [order[means.labels_[order] == label] for label in range(len(means.cluster_centers_))]
