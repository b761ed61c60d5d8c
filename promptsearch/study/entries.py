"""The entries of a study: the rows of its file, each at one prompt length, found and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from promptsearch.errors import OptionError, StrategyError, StudyError, UnknownName
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.agreement import pays_as_ranked
from promptsearch.search.calling import strangers_code
from promptsearch.search.options import check_options
from promptsearch.search.plugins import find_strategy
from promptsearch.search.strategy import Strategy
from promptsearch.study.settings.strategy import StrategyConfig
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.task import Task


@dataclass(frozen=True)
class Entry:
    """One strategy of the study file, found and checked, at one prompt length.

    Args:
        given: The row as in the study file; in a sweep over lengths with a label and a length of
            its own.
        strategy: The class.
        family: The label in the study file, which the rows of a sweep share.
        source: The label of the row whose winner it starts from; None where it starts from none.
        shows: Whether its prompts are made of solved examples, which stand before the input.
        takes_words: Whether it takes words of the pool.
    """

    given: StrategyConfig
    strategy: type[Strategy]
    family: str
    source: str | None = None
    shows: bool = False
    takes_words: bool = False

    def told(
        self,
        question: Literal["asks_proposer", "shows_examples", "takes_words", "trains_on"],
        **more: Any,
    ) -> Any:
        """What the strategy says of its runs with the options of the row.

        Args:
            question: The class method that is asked.
            more: What it is told besides the options.

        Raises:
            StrategyError: The method, which may be a stranger's, failed.
        """
        options = check_options(self.given.name, self.strategy, self.given.options)
        with strangers_code(f"{self.strategy.__name__}.{question}"):
            return getattr(self.strategy, question)({**options, **more})

    def runs_once(self, draw: str) -> bool:
        """Whether one run stands for all seeds: it draws nothing, and all have the same examples.

        Args:
            draw: What draws the examples, as in the study file.
        """
        return self.strategy.deterministic and draw == "once"

    def is_ranked(self, bill: int, budget: int) -> bool:
        """Whether its runs are compared with those of other rows.

        A reference line never is, nor are rows with another bill, see `pays_as_ranked`.

        Args:
            bill: What such a run may spend, with what it brings, in LM tokens.
            budget: The study's budget.
        """
        pays = pays_as_ranked(bill, budget, control=self.strategy.control)
        return pays and not self.strategy.reference


def entries_of(config: StudyConfig) -> list[Entry]:
    """The entries of a study, in their order.

    In a sweep, each strategy has an entry at every length, unless its length is given or does not
    matter.

    Args:
        config: The study.

    Raises:
        UnknownName: There is no such strategy, option or entry to start from.
        StrategyError: A strategy cannot be loaded, or an option is wrong.
        StudyError: Two entries have one label, or one starts from what it cannot start from.
    """
    entries = []
    for place, given in enumerate(config.strategies):
        strategy = _found(config, place, given)
        proposed: Iterable[type[Prompt]] = strategy.proposes
        sized = any(kind.sized for kind in proposed)
        if isinstance(config.length, int) or given.length is not None:
            entries.append(Entry(given, strategy, given.label))
        elif not sized:
            # A text has the length that it has, weights have none: one entry for all lengths.
            entries.append(Entry(given.model_copy(update={"length": 1}), strategy, given.label))
        else:
            for length in config.lengths:
                at = given.model_copy(update={"label": f"{given.label}-{length}", "length": length})
                entries.append(Entry(at, strategy, given.label))
    labels = [entry.given.label for entry in entries]
    if twice := next((label for i, label in enumerate(labels) if label in labels[:i]), None):
        raise StudyError(
            f"two rows would be called '{twice}', one of them by the sweep over 'length': give the "
            "other a label"
        )
    return _with_sources(config, entries)


def _found(config: StudyConfig, place: int, given: StrategyConfig) -> type[Strategy]:
    """The strategy of a row, its options checked.

    Raises:
        UnknownName: There is no such strategy, or it has no such option; with the line of the study
            file.
        StrategyError: It cannot be loaded, or an option is wrong; with the line, too.
    """
    try:
        strategy = find_strategy(given.name)
        check_options(given.name, strategy, given.options)
    except (StrategyError, UnknownName) as error:
        option = error.option if isinstance(error, OptionError) else getattr(error, "name", "")
        error.args = (f"{config.at('strategies', place, given.name, option)}: {error}",)
        raise
    return strategy


def _with_sources(config: StudyConfig, entries: list[Entry]) -> list[Entry]:
    """The entries with what they start from, checked, with what they show and take.

    Raises:
        StudyError: An entry starts from itself, also by way of others, or from prompts that its
            strategy does not start from.
        UnknownName: There is no such entry.
    """
    found = [
        entry
        if entry.given.start is None
        else replace(entry, source=_source(config, entry, entry.given.start.run, entries))
        for entry in entries
    ]
    made: dict[str, Entry] = {}
    for entry in sources_first(found):
        start = made[entry.source].shows if entry.source else None
        # What is found from a prompt stands where that one does, if it is text, too.
        shows = (start and _writes(entry)) or entry.told("shows_examples", start=start)
        takes = entry.told("takes_words", start=start)
        made[entry.given.label] = replace(entry, shows=bool(shows), takes_words=bool(takes))
    return [made[entry.given.label] for entry in found]


def check_shown(entries: Sequence[Entry], tasks: Sequence[Task]) -> None:
    """Refuse to train prompts of solved examples in slots that stand behind the input.

    Args:
        entries: The entries of a study.
        tasks: Its tasks.

    Raises:
        StudyError: An entry does so; texts get a slot before the input, see `showing`.
    """
    trained = next((each for each in entries if each.shows and not _writes(each)), None)
    behind = next((task for task in tasks if not task.template.fixed), None)
    if trained and behind:
        raise StudyError(
            f"'{trained.given.label}' trains a prompt of solved examples, which stand before the "
            f"input, but the template of task '{behind.name}' has its first slot behind it: "
            f"{behind.template.text!r}. Write a template that begins with a slot"
        )


def _writes(entry: Entry) -> bool:
    """Whether all prompts of a strategy are text, of any length."""
    proposed: Iterable[type[Prompt]] = entry.strategy.proposes
    return not any(kind.sized or kind.trained for kind in proposed)


def _source(config: StudyConfig, entry: Entry, name: str, entries: Sequence[Entry]) -> str:
    """The label of the entry that another one starts from.

    Raises:
        StudyError: It cannot start there.
        UnknownName: There is no such entry.
    """
    label, strategy = entry.given.label, entry.given.name
    if not entry.strategy.starts_from:
        raise StudyError(
            f"'{label}' cannot start from '{name}': the strategy '{strategy}' starts "
            "from no other run"
        )
    named = [
        other
        for other in entries
        if other.given.label == name
        # In a sweep over lengths, the one of the same length.
        or (other.family == name and other.given.length == entry.given.length)
    ]
    if not named:
        others = [other.family for other in entries if other != entry]
        raise UnknownName(f"run under 'start' of '{label}':", name, others)
    source = named[0]
    if source == entry:
        raise StudyError(f"'{label}' names itself under 'start': name the run of another row")
    shared: Iterable[type[Prompt]] = entry.strategy.starts_from & source.strategy.proposes
    if not shared:
        can, has = (
            ", ".join(sorted(kind.__name__ for kind in kinds))
            for kinds in (entry.strategy.starts_from, source.strategy.proposes)
        )
        raise StudyError(
            f"'{label}' cannot start from '{name}', whose winner is a {has}: "
            f"'{strategy}' starts from {can}"
        )
    own, other = (each.given.length or config.lengths[0] for each in (entry, source))
    # The length of a text is known later, and its tokens are repeated.
    if own != other and any(kind.sized for kind in shared):
        raise StudyError(
            f"'{label}' has {own} prompt tokens and starts from '{name}', which has "
            f"{other}: give both the same length"
        )
    own, other = (each.given.seeds or len(config.seeds) for each in (entry, source))
    if own > other and not source.runs_once(config.draw):
        raise StudyError(
            f"'{label}' runs with {own} seeds and starts from '{name}', which runs with {other}: "
            "give both as many"
        )
    return source.given.label


def sources_first(entries: Sequence[Entry]) -> list[Entry]:
    """The entries in their order, but each after the one that it starts from.

    Args:
        entries: All entries of a study.

    Raises:
        StudyError: Some start from each other in a circle.
    """
    by_label = {entry.given.label: entry for entry in entries}
    ordered: dict[str, Entry] = {}
    for entry in entries:
        chain = [entry]
        while (source := chain[-1].source) is not None and source not in ordered:
            if by_label[source] in chain:
                circle = " from ".join(
                    f"'{each.given.label}'" for each in [*chain, by_label[source]]
                )
                raise StudyError(f"runs cannot start from each other in a circle: {circle}")
            chain.append(by_label[source])
        ordered |= {each.given.label: each for each in reversed(chain)}
    return list(ordered.values())
