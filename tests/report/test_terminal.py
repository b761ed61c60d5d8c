import io

from rich.console import Console

from promptsearch.report import load_results, print_report


def printed(study, width=100):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_report(load_results(study.folder), console)
    return console.file.getvalue()


def test_eight_strategies_fit_100_columns(make_study):
    labels = (
        "manual",
        "random",
        "evolution",
        "optuna",
        "prompt_tuning",
        "p_tuning",
        "gcg",
        "a_strategy_with_a_long_name",
    )
    text = printed(make_study(strategies=labels).fill())
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    table = text[text.index("strategy ") :]
    rows = {line.split()[0]: line for line in table.splitlines() if "±" in line}
    assert set(rows) == {*labels[:-1], "a_strategy_with_a…"}
    header = next(line for line in text.splitlines() if line.startswith("strategy"))
    assert header.split() == ["strategy", "accuracy", "loss", "gap", "tokens", "seconds", "prompt"]
    assert "␣review sentiment" in rows["evolution"]
    assert "≈␣good ␣sentiment review" in rows["p_tuning"]
    assert "(majority)" in text and "0.510" in text


def test_the_verdict_stands_above_the_table(make_study):
    text = printed(make_study().fill())
    above = " ".join(text[: text.index("strategy ")].split())
    assert "reviews: Of the searches for words, " in above
    assert " p_tuning wins with accuracy" in above


def test_a_prompt_is_neither_markup_nor_control(make_study):
    study = make_study(strategies=("random",), seeds=(0,))
    hostile = {"kind": "hard", "key": "k", "ids": [1], "text": "[red]a[/] [/nope] \x1b[2J\nb"}
    study.write(study.result("reviews", "random", 0, winner=hostile))
    text = printed(study, width=140)
    assert "[red]a[/] [/nope] \\x1b[2J⏎b" in text
    assert "\x1b[2J" not in text


def test_failures_and_missing_runs_and_single_seeds_are_said(make_study):
    study = make_study(strategies=("random", "optuna"))
    study.write(study.result("reviews", "random", 0))
    study.fail("reviews", "optuna", 1, error="[bold]no memory")
    text = printed(study)
    assert "failed reviews, optuna, seed 1: [bold]no memory" in text
    assert "still to be made: 4" in text
    assert "†" in text and "not the luck of the seed" in text


def test_a_study_without_runs(make_study):
    assert "No run has finished" in printed(make_study())
