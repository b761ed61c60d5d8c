"""One strategy, one file.

How to write one:

    \"\"\"Hill climbing: change one token of the best prompt, keep it if the loss falls.

    Paper and link, what differs from it. Beats random on the planted objective `separable`.
    \"\"\"

    class HillClimbing(Strategy):
        \"\"\"Change one token at a time.

        Args:
            objective: Scores prompts on the search split.
            seed: Seeds the changes.
            batch: Prompts in each ask.
        \"\"\"

        def __init__(self, objective: Objective, *, seed: int, batch: Count = 8) -> None:
            super().__init__(objective, seed=seed)
            self._rng, self._batch = np.random.default_rng(seed), batch

        def ask(self) -> Sequence[Prompt]:
            space, ranking = self.objective.space, self.objective.ranking
            if not ranking:
                return space.sample(self._rng, self._batch)
            rows = np.tile(space.indices(ranking[0].prompt), (self._batch, 1))  # (batch, length)
            places = self._rng.integers(space.length, size=self._batch)
            drawn = self._rng.integers(len(space.pool), size=self._batch)
            rows[np.arange(self._batch), places] = drawn
            return [space.prompt(row) for row in rows]

The keyword arguments are the options of the study file; `Count`, `Share` and `Positive` of
`promptsearch.search.options`, or `Annotated[int, Field(ge=2, le=64)]`, say what values they may
have. The core keeps the books: best so far, budget, log, resume; override `tell` to learn from
every loss. Import only `promptsearch`, never another strategy. Test with
`promptsearch.testing.conformance.StrategyConformance`. Others find the strategy by an entry point
of the group `promptsearch.strategies`, or as `module:HillClimbing` without any packaging.
"""  # noqa: D214 - the section belongs to the example
