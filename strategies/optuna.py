"""Optuna: the genetic algorithm NSGA-II, or tree-structured Parzen estimators.

T. Akiba et al. 2019, "Optuna: A Next-generation Hyperparameter Optimization Framework",
arXiv:1907.10902; J. Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", NeurIPS;
K. Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II",
https://doi.org/10.1109/4235.996017.

Differs from the papers: tokens take the place of hyperparameters, and NSGA-II has one objective and
small generations.

Token ids have no order that means something, so TPE over them is worse than random. Over a
shortlist for each position (the tokens as categories) it works, but its cost grows with the list
and the trials. Hence, for `tpe`, each position starts with a random shortlist of the pool. When the
Optuna study holds `2 * WINDOW` trials, it begins anew: each shortlist keeps the half that stood in
the best of the last `WINDOW` trials, fresh tokens of the pool take the other places, and those of
these trials that use only kept tokens are carried over. NSGA-II moves whole tokens between prompts
and draws new ones uniformly: it needs no shortlist and takes integers, indices into the pool.

Beats random on the planted objectives `separable` and `pairwise`; TPE does in nine of ten searches
of 300 evaluations. On tables of a real model's losses (`results/tables`) neither sampler beats it
with more than 16 of 20 seeds within 200 evaluations; `bayesian` and `coordinate` do.

The leading coordinates of the tokens' embeddings in place of categories, with the nearest word for
each point, were tried with Optuna's CMA-ES and found no better prompts there than random.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from pydantic import Field
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from promptsearch import Evaluation, Objective, Prompt, Strategy
from promptsearch.errors import StrategyError
from promptsearch.search.options import Count

#: The most trials that TPE carries over; it never looks at more than twice as many and one batch.
WINDOW = 100
#: The number of prompts in a generation of NSGA-II: small, since a run has some hundred evaluations
#: and not ten thousand.
POPULATION = 20
#: How many proposals a sampler is asked for, at most, until one is new.
_TRIES = 4
#: How a secret is named in the query of a database's URL; names of files, as `passfile`, are none.
_SECRET = re.compile(r"(pass(word|wd|phrase)?|pwd|secret|token|access_?key|api_?key) *=", re.I)

Row = tuple[int, ...]  # (length,) indices into the pool


class Optuna(Strategy):
    """Let Optuna propose tokens.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the sampler and the shortlists.
        sampler: `nsga2` (crosses and mutates the best prompts) or `tpe` (models good and bad tokens
            of a shortlist).
        shortlist: Tokens that `tpe` chooses from at each position.
        batch: Prompts in each ask: small ones learn faster, large ones score faster.
        storage: A file (SQLite) or a URL of a database in which optuna-dashboard can show the
            search. It is output only: a study of the same model, task, options and seed is
            replaced when the run starts or goes on. Options are recorded, so it may hold no
            password: the database's client reads that from the environment (`PGPASSWORD`) or a file
            of its own (`~/.pgpass`).

    Raises:
        StrategyError: `shortlist` is below 2, `batch` below 1, or `storage` holds a secret.
    """

    writes: ClassVar[frozenset[str]] = frozenset({"storage"})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        sampler: Literal["tpe", "nsga2"] = "nsga2",
        shortlist: Annotated[Count, Field(ge=2)] = 64,
        batch: Count = 8,
        storage: str | None = None,
    ) -> None:
        super().__init__(objective, seed=seed)
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # no line for each study and trial
        self._tpe, self._batch = sampler == "tpe", batch
        self._rng = np.random.default_rng(seed)
        self._pool, length = len(objective.space.pool), objective.space.length
        self._values: dict[Row, float] = {}
        self._trials: list[Trial] = []
        if self._tpe:
            self._size = min(shortlist, self._pool)
            self._begin(
                [self._rng.choice(self._pool, self._size, replace=False) for _ in range(length)]
            )
        else:
            self.tokens = {f"token {k}": np.arange(self._pool) for k in range(length)}
            self._domains: dict[str, BaseDistribution] = _integers(self._pool, length)
            nsga2 = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
            self._study = optuna.create_study(sampler=nsga2)
        self._shown = (
            None if storage is None else _replace_study(storage, self._title(sampler, shortlist))
        )

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Refuse a URL of a database that holds what may be a secret: options are recorded."""
        if options["storage"] is not None:
            _check_storage(options["storage"])

    def ask(self) -> Sequence[Prompt]:
        """Proposals of the sampler, `batch` of them; none when the whole space has been scored."""
        if len(self._values) == self.objective.space.size:
            return []
        if self._tpe and len(told := self.told()) >= 2 * WINDOW:
            self.renew(told[-WINDOW:])
        self._trials = [self._fresh() for _ in range(self._batch)]
        return [self.objective.space.prompt(_row(trial)) for trial in self._trials]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Hand the losses to the sampler, which leaves a failed prompt out as a failed trial."""
        for trial, value in zip(self._trials, evaluation.values, strict=True):
            self._finish(trial, float(value))
            if self._shown is not None and _row(trial) not in self._values:
                self._shown.add_trial(self._copy(trial, float(value)))
            self._values[_row(trial)] = float(value)

    def _fresh(self) -> Trial:
        """A trial of a prompt that was not scored before; of a random one where a few tries fail.

        When the sampler proposes a prompt again, it is told that prompt's loss again, and so learns
        that it has been there.
        """
        for _ in range(_TRIES):
            trial = self._study.ask(self._domains)
            if _row(trial) not in self._values:
                return trial
            self._finish(trial, self._values[_row(trial)])
        self._study.enqueue_trial(
            {name: int(self._rng.choice(tokens)) for name, tokens in self.tokens.items()}
        )
        return self._study.ask(self._domains)

    def _finish(self, trial: Trial, value: float) -> None:
        if np.isfinite(value):
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def told(self) -> list[FrozenTrial]:
        """The trials that the study learns from, oldest first."""
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _begin(self, shortlists: list[NDArray[np.int64]]) -> None:
        """Begin a study of TPE without trials over shortlists, each of shape `(shortlist,)`."""
        self.tokens = {f"token {k}": np.sort(tokens) for k, tokens in enumerate(shortlists)}
        self._domains = {
            name: CategoricalDistribution(tokens.tolist()) for name, tokens in self.tokens.items()
        }
        # Both flags are given because their defaults differ between versions: tokens are drawn
        # jointly, and away from prompts of the same batch, which have no loss yet.
        tpe = optuna.samplers.TPESampler(
            seed=int(self._rng.integers(2**32)), multivariate=True, constant_liar=True
        )
        self._study = optuna.create_study(sampler=tpe)

    def renew(self, window: list[FrozenTrial]) -> None:
        """Begin anew with the good half of each shortlist and fresh tokens.

        Args:
            window: The last trials: their best say what is good, and those within the new
                shortlists are carried over.
        """
        best = sorted(window, key=lambda trial: trial.values[0])
        shortlists = []
        for name in self._domains:
            kept = list(dict.fromkeys(int(trial.params[name]) for trial in best))[: self._size // 2]
            others = np.setdiff1d(np.arange(self._pool), kept)
            shortlists.append(
                np.append(kept, self._rng.choice(others, self._size - len(kept), replace=False))
            )
        self._begin(shortlists)
        for trial in window:
            if all(trial.params[name] in tokens for name, tokens in self.tokens.items()):
                self._study.add_trial(
                    create_trial(
                        params=trial.params, distributions=self._domains, value=trial.values[0]
                    )
                )

    def _copy(self, trial: Trial, value: float) -> FrozenTrial:
        """The trial as the dashboard shows it, with the prompt's text."""
        failed = not np.isfinite(value)
        prompt = self.objective.space.prompt(_row(trial))
        return create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            value=None if failed else value,
            params=trial.params,
            distributions=_integers(self._pool, len(trial.params)),
            user_attrs={"prompt": self.objective.space.decode(prompt.ids)},
        )

    def _title(self, *options: object) -> str:
        """The name of the study, by what makes the run: scorer, examples, space, options, seed."""
        examples = [
            (dict(e.fields), e.answer) for e in self.objective.examples(self.objective.scored)
        ]
        content = repr(
            (
                self.objective.log.signature,  # model and template are part of it
                examples,
                self.objective.space.pool.tolist(),
                self.objective.space.length,
                options,
                self._batch,
            )
        )
        return (
            f"promptsearch {options[0]} seed {self.seed} "
            f"{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        )


def _row(trial: Trial) -> Row:
    return tuple(int(index) for index in trial.params.values())


def _integers(pool: int, length: int) -> dict[str, BaseDistribution]:
    return {f"token {k}": IntDistribution(0, pool - 1) for k in range(length)}


def _check_storage(storage: str) -> None:
    """Refuse a URL that cannot be read or holds a secret; no message repeats it."""
    if "://" not in storage:
        return
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        raise StrategyError(
            "the URL 'storage' cannot be read: expected a file, or a URL such as "
            "postgresql://USER@HOST/DATABASE"
        ) from None
    told = (f"{name}={value}" for name, value in url.query.items())
    if url.password is not None or any(map(_SECRET.search, told)):
        raise StrategyError(
            "the URL 'storage' holds a password or another secret, and options are recorded: leave "
            "it out, and let the database's client read it from the environment or a file of its "
            "own (PGPASSWORD or ~/.pgpass for PostgreSQL, ?read_default_file=~/.my.cnf for MySQL)"
        )


def _replace_study(storage: str, name: str) -> optuna.Study:
    url = storage if "://" in storage else f"sqlite:///{storage}"
    if name in optuna.get_all_study_names(url):
        optuna.delete_study(study_name=name, storage=url)
    return optuna.create_study(study_name=name, storage=url)
