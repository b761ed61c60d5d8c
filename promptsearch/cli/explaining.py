"""The command that asks what makes winners win."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptsearch.cli.console import log_errors_only, say
from promptsearch.cli.options import Out, Quiet, Set
from promptsearch.errors import PromptSearchError


def explain(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="The study file of a study that has run.")
    ],
    out: Out = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Say what makes the hard winners of a study win, and write its report again.

    The winner of each search is scored on the select split without each of its pieces, shuffled,
    and with near words in place of its own. No run is charged, and none changes.
    """
    from promptsearch.study.config import load_config

    config = load_config(study, set_ or ())
    if quiet:
        log_errors_only()
    from promptsearch.report import load_results, write_models_report, write_report
    from promptsearch.study.explain import explain as explained
    from promptsearch.study.finished import is_finished, made_of, note_finished
    from promptsearch.study.members import Member, members, on_each

    folder = Path(out) if out else Path("results") / config.name
    found, several = members(config), isinstance(config.model, tuple)
    counts: list[int] = []

    def work(member: Member) -> None:
        home = folder / member.name if several else folder
        made, finished = made_of(member.config), is_finished(home, member.config)
        record = explained(member.config, home, lambda told: None if quiet else say(told))
        counts.append(len(record.winners))
        write_report(home)
        if finished:  # the next call of `compare` has nothing more to do than before
            note_finished(load_results(home), member.config, made)

    def failed(member: Member, error: PromptSearchError) -> None:
        if not several:
            raise error
        say(f"error: {member.name}: {error}", err=True)

    done = on_each(found, work, failed)
    if several and done:
        write_models_report(folder)
    if not quiet and done:
        say(f"{sum(counts)} winners are explained; the report lies in {folder / 'report.html'}.")
    if done < len(found):
        raise typer.Exit(1 if done else 2)
