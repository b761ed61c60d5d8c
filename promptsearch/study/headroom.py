"""What a search can gain on a task, looked at before any run: a small table and a short soft run.

Scored are random prompts of the pool and controls: the empty prompt, those that the study names,
and the best of some sets of solved examples. `room.py` says what follows from their scores. Random
prompts and the best controls are scored on half of the search split, a soft prompt and these
controls on the select split. It takes about as many tokens as a single run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from promptsearch.errors import PromptSearchError
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.headroom import HeadroomRecord, StudyHeadroomRecord
from promptsearch.records.provenance import commit, own_version
from promptsearch.records.scores import ExampleIds, Floats
from promptsearch.scoring.layout import prompt_texts
from promptsearch.search.loop import search
from promptsearch.search.plugins import find_strategy, make_strategy
from promptsearch.search.strategy import Ask, Strategy
from promptsearch.study.arena import Arena
from promptsearch.study.entries import Entry
from promptsearch.study.prepare import Prepared
from promptsearch.study.room import (
    by_group,
    gain_of_vectors,
    gain_of_words,
    gain_record,
    noise_of,
    scatter_of,
)
from promptsearch.study.run import Run
from promptsearch.tasks.examples import groups_of
from promptsearch.tasks.showing import showing
from promptsearch.tasks.task import Task

log = logging.getLogger(__name__)

#: Random prompts of the table, and the most that a row of controls adds: more than anybody writes.
_RANDOM, _CONTROLS = 24, 64
#: Sets of solved examples of which the best is a control, about as many as a row of them tries.
_SETS = 16
#: The fewest random prompts that must be scored, and groups of examples on which they are.
_FEWEST_PROMPTS, _FEWEST_GROUPS = 4, 4
#: Controls are scored on so many examples first; the fewest that are looked at in all.
_FIRST, _FEWEST = 32, 16
#: The standard errors by which a control is behind that is scored on no more.
_CLEAR = 2.0
#: What stands for all searches that train, and what makes prompts of solved examples.
_TRAINS, _SHOTS = "prompt_tuning", "exemplars"


def headroom(prepared: Prepared, evaluations: Mapping[tuple[str, str], int]) -> StudyHeadroomRecord:
    """Look at each task of a study.

    Args:
        prepared: The study.
        evaluations: Task and label of a row -> the prompts that a run of it tries.
    """
    found = [_Look(prepared, task, evaluations).record() for task in prepared.tasks]
    return StudyHeadroomRecord(
        name=prepared.config.name,
        model=prepared.lm.name,
        version=own_version(),
        commit=commit(),
        settings=prepared.config.model_dump(mode="json"),
        tasks=tuple(each for each in found if each is not None),
    )


class _Look:
    """A look at one task.

    Args:
        prepared: The study.
        task: The task.
        evaluations: As for `headroom`.
    """

    def __init__(
        self, prepared: Prepared, task: Task, evaluations: Mapping[tuple[str, str], int]
    ) -> None:
        self._prepared, self._task = prepared, task
        entries = [entry for entry in prepared.entries if not entry.strategy.reference]
        self._controls = [entry for entry in entries if entry.strategy.control]
        searches = [entry for entry in entries if entry.strategy.searches]
        self._words = [entry for entry in searches if not _trains(entry)]
        self._trained = [entry for entry in searches if _trains(entry)]
        tried = [evaluations.get((task.name, entry.given.label), 0) for entry in self._words]
        self._evaluations = int(np.median(tried)) if tried else 0
        self._tokens = 0
        self._shown: set[Prompt] = set()  # the prompts of solved examples
        self._showing: Arena  # where these are scored

    def record(self) -> HeadroomRecord | None:
        """What was found; None where no row of the study puts a prompt into the template's slots.

        So it is, too, where no random prompt can be scored.
        """
        key = next(
            (
                key
                for key in self._prepared.first
                if (key.task, key.kind, key.shows) == (self._task.name, TextPrompt.placement, False)
            ),
            None,
        )
        if key is None:
            log.warning("task '%s': no row has prompts in slots to look at", self._task.name)
            return None
        arena = self._prepared.first[key]
        self._showing = self._before_input(arena)
        random: list[Prompt] = list(arena.space.sample(np.random.default_rng(0), _RANDOM))
        named = self._named(arena)
        controls, behind = self._best(arena, named)
        ids = self._sample(arena, [*random, *controls])
        scores = self._scores(arena, "search", [*random, *controls], ids)
        known, given = scores[: len(random)], scores[len(random) :]
        known = known[np.isfinite(known).all(1)]
        if len(known) < _FEWEST_PROMPTS or not len(given) or not np.isfinite(given).all():
            log.warning("task '%s': no prompt to look at could be scored", self._task.name)
            return None
        select_ids = arena.ids("select")
        soft, why = self._soft(arena, select_ids)
        rng, draws = np.random.default_rng(1), {}
        # From here on, examples of one group are one.
        groups, examples = groups_of(self._task.splits["search"].examples, ids), len(ids)
        prompts, rivals = by_group(known, groups), by_group(given, groups)
        if prompts.shape[1] < _FEWEST_GROUPS:
            log.warning("task '%s': too few groups of examples to look at", self._task.name)
            return None
        if self._words:
            score_on = max(1, arena.score_on * prompts.shape[1] // examples)
            draws["words"] = gain_of_words(prompts, rivals, self._evaluations, score_on, rng)
        if self._trained and soft is not None:
            here = self._scores(arena, "select", controls, select_ids)
            own = groups_of(self._task.splits["select"].examples, select_ids)
            there = by_group(np.stack([soft, *here]), own)
            draws["vectors"] = gain_of_vectors(there[0], there[1:], rivals, rng)
        if not draws:
            log.warning("task '%s': the study has no search to forecast", self._task.name)
            return None
        reached = dict(zip(controls.values(), map(float, given.mean(1)), strict=True))
        # Means over the few and over all do not compare: some examples are easier than others.
        leader = reached[min(behind, key=behind.__getitem__)]
        means = {name: leader - apart for name, apart in behind.items()} | reached
        gains = {kind: gain_record([each]) for kind, each in draws.items()}
        return HeadroomRecord(
            task=self._task.name,
            measure="accuracy" if self._task.kind == "choices" else "nats",
            search=len(ids),
            select=len(select_ids),
            prompts=len(known),
            evaluations=self._evaluations,
            controls=means,
            level=float(known.mean()),
            spread=float(scatter_of(known.mean(1), noise_of(prompts) / prompts.shape[1])),
            trained=None if soft is None else float(soft.mean()),
            untrained=why,
            words=gains.get("words"),
            vectors=gains.get("vectors"),
            best=gain_record(list(draws.values())),
            tokens=self._tokens,
        )

    def _before_input(self, arena: Arena) -> Arena:
        """Where solved examples are scored, which stand before the input.

        Args:
            arena: Where all other prompts are.
        """
        prepared, task = self._prepared, arena.task
        if task.template.fixed:
            return arena
        for key, known in prepared.first.items():
            if key.task == task.name and key.shows:
                return known
        return Arena.build(
            *(replace(task, template=showing(task.template)), prepared.exact, prepared.dtype),
            *(1, arena.pool, prepared.config.score_on),
        )

    def _named(self, arena: Arena) -> dict[str, Prompt]:
        """The controls by what stands in their slots, each once."""
        found: list[Prompt] = [TextPrompt("")]
        rows = [
            (entry.given.name, entry.strategy, entry.given.options, entry.shows)
            for entry in self._controls
        ]
        # A row of random labels asks for none of its own.
        right = [each.get("labels") != "random" for name, _, each, _ in rows if name == _SHOTS]
        if not any(right):
            rows.append((_SHOTS, find_strategy(_SHOTS), {}, True))
        for name, strategy, options, shows in rows:
            first = self._first(self._showing if shows else arena, name, strategy, options)
            self._shown |= set(first if shows else ())
            found += self._best_set(first) if name == _SHOTS else first
        names: dict[str, Prompt] = {}
        for each in found:
            at = self._showing if each in self._shown else arena
            if each.trained or not _fits(at, each):
                continue
            text = " | ".join(prompt_texts(at.template, at.lm, each))
            known = names.get(text, each) == each
            names[text if known else f"{text} ({each.kind} {each.key[:4]})"] = each
        return names

    def _first(
        self, arena: Arena, name: str, strategy: type[Strategy], options: Mapping[str, object]
    ) -> list[Prompt]:
        """The first prompts of a control; none where it cannot be asked alone."""
        run = self._run(arena, name, strategy, dict(options))
        try:
            objective = run.objective(arena.searching, run.ledger())
            made, found = make_strategy(name, strategy, objective, 0, run.options), list[Prompt]()
            most = _SETS if name == _SHOTS else _CONTROLS
            while len(found) < most and (asked := made.ask()) and not isinstance(asked, Ask):
                found += asked
            return found[:most]
        except PromptSearchError as error:
            log.info("task '%s': %s is no control here: %s", self._task.name, name, error)
            return []

    def _best_set(self, sets: list[Prompt]) -> list[Prompt]:
        """The set of solved examples with the least loss on a few examples, if any can be read."""
        if not (fitting := [each for each in sets if _fits(self._showing, each)]):
            return []
        found = self._showing.exact["search"].score(fitting, self._few())
        self._tokens += found.computed
        losses = np.where(np.isfinite(found.losses), found.losses, np.inf).mean(1)
        return [fitting[int(losses.argmin())]] if np.isfinite(losses).any() else []

    def _few(self) -> ExampleIds:
        """The first examples, on which all controls are scored."""
        found: ExampleIds = np.arange(len(self._task.splits["search"]) // 2)[:_FIRST]
        return found

    def _best(
        self, arena: Arena, named: Mapping[str, Prompt]
    ) -> tuple[dict[Prompt, str], dict[str, float]]:
        """The controls that are not clearly behind on a few examples, and how far all are behind.

        That is, by mean scores, behind the one that is best there.

        Args:
            arena: The task's arena.
            named: The controls by what stands in their slots.
        """
        ids = self._few()
        scores = self._scores(arena, "search", named.values(), ids)
        means = {n: float(m) for n, m in zip(named, scores.mean(1), strict=True) if np.isfinite(m)}
        if not means:
            return {}, {}
        apart = scores[list(named).index(max(means, key=means.__getitem__))] - scores
        error = apart.std(1) / np.sqrt(len(ids))  # paired: both read the same examples
        clear = dict(zip(named, apart.mean(1) > _CLEAR * error, strict=True))
        behind = {n: float(a) for n, a in zip(named, apart.mean(1), strict=True) if n in means}
        return {named[name]: name for name in means if not clear[name]}, behind

    def _sample(self, arena: Arena, prompts: list[Prompt]) -> ExampleIds:
        """Half of the search split, as far as half of a run's tokens pay.

        Args:
            arena: The task's arena.
            prompts: All prompts that will be scored.
        """
        ids = np.arange(len(self._task.splits["search"]) // 2)
        cost = arena.exact["search"].predict(prompts, ids).cost
        share = min(1.0, self._prepared.config.budget / 2 / cost)
        found: ExampleIds = ids[: max(_FEWEST, int(share * len(ids)))]
        return found

    def _scores(
        self, arena: Arena, split: str, prompts: Iterable[Prompt], ids: ExampleIds
    ) -> Floats:
        """Scores, higher is better, shape `(prompts, examples)`; NaN in rows of failures."""
        asked = list(prompts)
        values = np.full((len(asked), len(ids)), np.nan)
        shown = np.array([prompt in self._shown for prompt in asked], dtype=bool)
        for at, rows in ((arena, ~shown), (self._showing, shown)):
            if rows.any():
                some = [prompt for prompt, wanted in zip(asked, rows, strict=True) if wanted]
                found = at.exact[split].score(some, ids)
                self._tokens += found.computed
                values[rows] = found.metric if self._task.kind == "choices" else -found.losses
        return values

    def _soft(self, arena: Arena, select_ids: ExampleIds) -> tuple[Floats | None, str]:
        """The scores of a soft prompt, trained with half of a run's budget, or why there are none.

        Args:
            arena: The task's arena.
            select_ids: The examples, which it has not seen.
        """
        strategy = find_strategy(_TRAINS)
        run = self._run(arena, _TRAINS, strategy, {})
        try:
            ledger = run.ledger()
            objective = run.objective(arena.searching, ledger)
            search(make_strategy(_TRAINS, strategy, objective, run.seed, run.options))
            self._tokens += ledger.computed
            if not (best := objective.finalists()):
                return None, "half of a run's budget does not pay for it"
            scores = self._scores(arena, "select", [best[0].prompt], select_ids)[0]
            if not np.isfinite(scores).all():
                return None, "it has no finite scores on the select split"
            return scores, ""
        except PromptSearchError as error:
            return None, str(error)

    def _run(
        self, arena: Arena, name: str, strategy: type[Strategy], options: dict[str, object]
    ) -> Run:
        """A run that is never recorded, with half of the study's budget."""
        budget = self._prepared.config.budget // 2
        return Run(arena, name, name, strategy, options, 0, budget, True, Path())


def _fits(arena: Arena, prompt: Prompt) -> bool:
    """Whether the model can read all examples that are looked at with a prompt."""
    return all(arena.exact[split].fits(prompt) for split in ("search", "select"))


def _trains(entry: Entry) -> bool:
    proposed: Iterable[type[Prompt]] = entry.strategy.proposes
    return any(kind.trained for kind in proposed)
