"""Distil: a long prompt of words, put into few vectors or a prefix by what it makes the LM do.

A teacher prompt, such as solved examples, conditions the LM; a trained prompt is the student. It
learns to predict what the teacher predicts, so the right answers of the training inputs are never
looked at where there are answers to choose from. Snell, Klein and Zhong 2022, "Learning by
Distilling Context", arXiv:2209.15189, section 2: the student, which sees the input alone, minimises
KL(teacher || student). There the weights learn it. Here the LM is frozen, as with the vectors of
Mu, Li and Goodman 2023, "Learning to Compress Prompts with Gist Tokens", arXiv:2304.08467, which a
tuned LM writes itself; these are trained for one prompt.

`distil_prefix` trains keys and values: Eyuboglu et al. 2025, "Cartridges: Lightweight and
General-Purpose Long Context Representations via Self-Study", arXiv:2506.06266. Section 3.2: they
start from those of the teacher's first tokens; the very first token, to which all others attend,
stays as it is. PEFT calls such a prefix CARTRIDGE, and `promptsearch export` writes it in that
format.

Differs from the papers: the inputs are those of the task, not questions that the LM is made to ask
about a document (self-study). The divergence runs over the answers to choose from, or, for text,
along the right answer over the whole vocabulary; Cartridges take the 20 most probable tokens of
what the teacher wrote. AdamW has warm-up and linear decay. Where a model begins each row with a
token of its own (Gemma, Llama 3), that token stands behind the prefix, whose rows are those of the
teacher's words read without it.

Both beat random on the planted objective `separable`, where the planted prompt teaches among other
words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from promptsearch import Objective, PrefixPrompt, State, TextPrompt, TrainedStrategy
from promptsearch.errors import StrategyError
from promptsearch.prompts.numbers import Numbers
from promptsearch.records.scores import ExampleIds
from promptsearch.search.encoders import Free
from promptsearch.search.options import Count
from promptsearch.search.shown import read_shown
from promptsearch.search.training_options import Rate
from promptsearch.search.unscored import check_unscored
from promptsearch.search.views import minibatch_of

#: Tokens of a prefix that stay as they are (Cartridges, section 3.2).
FROZEN = 1


class Distil(TrainedStrategy):
    """Train vectors to predict what a longer prompt of words predicts.

    The longer prompt is drawn from the task's examples, given as a text, or, with `start: {run:
    LABEL}`, that run's winner. The vectors start from some of its tokens.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draws, initialisation and minibatches.
        shots: Solved examples in the prompt that teaches, where neither `text` nor `start` is
            given; they fill the first slot.
        text: The prompt that teaches, for the first slot: instructions, a document.
        separator: Stands behind each solved example.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        shots: Count = 4,
        text: str | None = None,
        separator: str = "\n",
        rate: Rate = 0.03,
        **training: Any,
    ) -> None:
        if text is not None and objective.start is not None:
            raise StrategyError(
                "it cannot learn from 'text' and from the run that 'start' names: give one of them"
            )
        draws = np.random.default_rng([seed, 2])  # not the stream of the minibatches
        self.teacher = _teacher(objective, text, shots, separator, draws)
        self.tokens = objective.encode(self.teacher)
        if len(self.tokens) < objective.space.length:
            raise StrategyError(
                f"the prompt that teaches has {len(self.tokens)} tokens, and is to be put into "
                f"{objective.space.length}: give a shorter 'length', or a longer prompt"
            )
        # Inputs that the teacher solves itself would teach to copy.
        said = "".join(self.teacher.texts)
        ids, seen = objective.training, set(read_shown(objective, said).examples)
        unseen = [int(i) for i in ids if int(i) not in seen]
        #: Ids of the examples whose inputs are learned from.
        self.inputs = np.array(unseen or ids, dtype=np.int64)
        #: Example -> what the teacher predicts there, once it was met.
        self.taught: dict[int, Tensor] = {}
        super().__init__(objective, seed=seed, rate=rate, **training)

    @classmethod
    def shows_examples(cls, options: Mapping[str, Any]) -> bool:
        """Whether those of another run's winner teach, or drawn ones."""
        start: bool | None = options["start"]
        return options["text"] is None if start is None else start

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """Embeddings of tokens of the teacher, drawn, in their order."""
        length = self.objective.space.length
        places = torch.randperm(len(self.tokens), generator=generator)[:length].sort().values
        ids = torch.tensor(self.tokens)[places]
        return Free(self.objective.embeddings[ids].float().cpu())

    def minibatch(self) -> ExampleIds:
        """Inputs that the teacher does not solve itself, shape `(batch,)`."""
        return minibatch_of(self.inputs, self._rng, self.options.batch)

    def loss(self, numbers: Numbers, examples: ExampleIds, visit: int) -> Tensor:
        """KL(teacher || student); what the teacher predicts of an input is asked once."""
        teaching = self.objective.teaching
        if new := [i for i in dict.fromkeys(map(int, examples)) if i not in self.taught]:
            found = teaching.predictions(self.teacher, new)
            self.taught |= zip(new, found, strict=True)
        return teaching.divergence(numbers, examples, [self.taught[int(i)] for i in examples])

    def meeting_price(self) -> int:
        """What is still to be paid for what the teacher predicts."""
        new = [i for i in self.inputs.tolist() if i not in self.taught]
        return self.objective.teaching.price(self.teacher, new) if new else 0

    def state(self) -> State:
        """That of training, and what the teacher predicted so far."""
        state = super().state()
        assert state is not None
        taught = {f"taught.{i}": tensor for i, tensor in self.taught.items()}
        return State({**state.tensors, **taught}, state.data)

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        super().restore(state)
        self.taught = {
            int(name.removeprefix("taught.")): tensor
            for name, tensor in state.tensors.items()
            if name.startswith("taught.")
        }


class DistilPrefix(Distil):
    """Train keys and values, at every layer, to predict what a longer prompt of words predicts.

    The longer prompt is chosen as for `distil`. The prefix starts from the keys and values of its
    first tokens, and the first of these stays as it is.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draws and minibatches.
        shots: Solved examples in the prompt that teaches, where neither `text` nor `start` is
            given; they fill the first slot.
        text: The prompt that teaches, for the first slot: instructions, a document.
        separator: Stands behind each solved example.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({PrefixPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        shots: Count = 4,
        text: str | None = None,
        separator: str = "\n",
        rate: Rate = 0.01,
        **training: Any,
    ) -> None:
        super().__init__(
            objective, seed=seed, shots=shots, text=text, separator=separator, rate=rate, **training
        )

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """A prefix, whose numbers are not known before the LM is asked, see `start`."""
        shape = (self.objective.space.length, *self.objective.prefix_shape)
        self._prefix = Free(torch.zeros(shape), frozen=FROZEN)
        return self._prefix

    def start(self) -> None:
        """Begin from the keys and values of the teacher's first tokens."""
        first = self.tokens[: self.objective.space.length]
        self._prefix.begin(self.objective.keys_values(first))


def _teacher(
    objective: Objective,
    text: str | None,
    shots: int,
    separator: str,
    draws: np.random.Generator,
) -> TextPrompt:
    """The prompt that teaches: another run's winner, a text, or solved examples."""
    if objective.start is not None:
        (start,) = TextPrompt.among([objective.start])
        return start
    if text is None:
        check_unscored(objective, shots)
        ids = draws.choice(objective.training, shots, replace=False)
        text = "".join(solved + separator for solved in objective.demonstrations(ids))
    return TextPrompt(text)
