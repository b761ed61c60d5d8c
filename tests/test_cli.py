"""The command line: what each command hands on, what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import UndefinedError
from typer.testing import CliRunner, Result

import promptsearch.comparison
import promptsearch.export
import promptsearch.models
import promptsearch.report
import promptsearch.search.plugins
import promptsearch.study.study
from promptsearch.cli import app
from promptsearch.errors import ModelError, StudyError
from promptsearch.study.settings.study import StudyConfig

STUDY = """\
model: a-model
task: capitals
budget: 1000
seeds: 1
strategies:
  - manual: {prompts: ["The"]}
  - random: {label: floor, batch: 4, length: 2}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY)
    return tmp_path


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=given)


class Engine:
    """Stands in for the study: keeps what it was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config: StudyConfig
        self.out: Path
        self.spread: dict[str, Any]
        self.failed: tuple[Any, ...] = ()
        self.error: BaseException | None = None
        monkeypatch.setattr(promptsearch.comparison, "compare", self._compare)
        monkeypatch.setattr(
            promptsearch.report, "print_report", lambda results, console: console.print("the table")
        )

    def _compare(self, config: StudyConfig, *, out: Path, progress: Any, **spread: Any) -> Any:
        self.config, self.out, self.spread = config, out, spread
        progress(
            promptsearch.study.study.Progress(
                "capitals/random/seed0", 1, 1, "search", 2.5, 500, 1000, 3.0
            )
        )
        if self.error is not None:
            raise self.error
        return SimpleNamespace(failing=self.failed)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


def test_help_is_fast_since_it_needs_no_torch() -> None:
    code = """
import sys
from promptsearch.cli import app
try:
    app(sys.argv[1:])
except SystemExit:
    pass
print([m for m in ("torch", "transformers", "datasets", "pandas", "matplotlib") \
if m in sys.modules])
"""
    for arguments in (
        [],
        ["--help"],
        ["compare", "--help"],
        ["tasks"],
        ["schema"],
        ["strategies"],
        ["--version"],
        ["compare", "none.yaml"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1] == "[]", arguments
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "compare",
        "plan",
        "search",
        "report",
        "explain",
        "export",
        "verify",
        "strategies",
        "tasks",
        "apply",
        "schema",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    assert f"\n  {command} " in run("--help").stdout
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: promptsearch {command}" in result.stdout.replace("root", "promptsearch")


def test_a_wrong_command_or_option_is_wrong_input() -> None:
    assert run("compar").exit_code == 2
    assert "compare" in run("compar").stderr
    assert run("compare", "study.yaml", "--ouT", "x").exit_code == 2
    assert run("compare").exit_code == 2


@pytest.mark.parametrize(
    ("options", "spread"),
    [
        ([], {}),
        (["--workers", "3"], {"workers": 3}),
        (["--shard", "2/5"], {"shard": (2, 5)}),
        (["--shard", "2/5", "--mixed"], {"shard": (2, 5), "mixed": True}),
        (["--ray", "head:1"], {"ray": "head:1"}),
    ],
    ids=["alone", "workers", "shard", "mixed", "ray"],
)
def test_the_runs_are_spread_as_asked(
    engine: Engine, options: list[str], spread: dict[str, Any]
) -> None:
    result = run("compare", "study.yaml", *options)
    assert result.exit_code == 0, result.output
    here = {"workers": 0, "shard": None, "mixed": False, "ray": None}
    assert engine.spread == here | spread
    assert ("the table" in result.output) == ("--shard" not in options)


def test_a_shard_of_another_form_is_refused(engine: Engine) -> None:
    for wrong in ("2", "a/b", "1/", "-1/2"):
        result = run("compare", "study.yaml", f"--shard={wrong}")
        assert result.exit_code == 2 and "expected I/N" in result.output
    assert run("compare", "study.yaml", "--workers", "0").exit_code == 2


def test_a_fault_of_a_library_is_shown_as_it_is(engine: Engine) -> None:
    """Its message may be read-only, which must not hide it behind an error of ours."""
    engine.error = UndefinedError("no such name")
    assert isinstance(run("compare", "study.yaml").exception, UndefinedError)


def test_compare_runs_the_study_and_says_where_the_report_lies(engine: Engine) -> None:
    result = run(
        "compare", "study.yaml", "--out", "there", "--set", "budget=2000", "--set", "seeds=3"
    )
    assert result.exit_code == 0
    assert (engine.config.budget, engine.config.seeds, engine.out) == (
        2000,
        (0, 1, 2),
        Path("there"),
    )
    assert result.stdout == "the table\nThe report lies in there/report.html.\n"
    assert result.stderr == (
        "[1/1] capitals/random/seed0: search, best loss 2.5000, 500 tokens (50%), about 0:03 left\n"
    )


def test_a_study_lies_in_results_under_its_name(engine: Engine) -> None:
    run("compare", "study.yaml")
    assert engine.out == Path("results/study")


def test_plan_prints_the_bill_and_runs_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "promptsearch.study.forecast.forecast", lambda config, workers, look: (config, workers)
    )
    monkeypatch.setattr(
        "promptsearch.report.forecast.print_forecast",
        lambda found, console: console.print(found[0].budget, found[1]),
    )
    result = run("plan", "study.yaml", "--set", "budget=2000")
    assert (result.exit_code, result.stdout) == (0, "2000 0\n")
    assert run("plan", "study.yaml", "--workers", "3").stdout.endswith(" 3\n")
    assert not hasattr(engine, "config") or engine.config is None


@pytest.mark.parametrize("kind", [ModelError, StudyError])
def test_plan_prints_the_bill_of_each_model_that_can_be_loaded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def forecast(config: StudyConfig, workers: int, look: bool) -> StudyConfig:
        if config.model == "a/gone":
            raise kind("there is no model 'a/gone'")
        return config

    monkeypatch.setattr("promptsearch.study.forecast.forecast", forecast)
    monkeypatch.setattr(
        "promptsearch.report.forecast.print_forecast",
        lambda found, console: console.print(found.model),
    )
    result = run("plan", "study.yaml", "--set", "model=[a/one, a/gone, b/two]")
    assert (result.exit_code, result.stdout) == (1, "\none:\na/one\n\ngone:\n\ntwo:\nb/two\n")
    assert result.stderr == "error: there is no model 'a/gone'\n"
    assert run("plan", "study.yaml", "--set", "model=a/gone").exit_code == 2
    assert run("plan", "study.yaml", "--set", "model=[a/gone]").exit_code == 2
    assert run("plan", "study.yaml", "--set", "model=[a/one, b/two]").exit_code == 0


def test_failed_runs_are_named_and_give_exit_code_1(engine: Engine) -> None:
    engine.failed = (
        SimpleNamespace(task="capitals", label="floor", seed=0, error="it returned no tokens"),
    )
    result = run("compare", "study.yaml")
    assert result.exit_code == 1
    assert result.stderr.endswith("error: capitals/floor/seed0 failed: it returned no tokens\n")
    assert "the table" in result.stdout


def test_quiet_prints_errors_only(engine: Engine) -> None:
    result = run("compare", "study.yaml", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    engine.failed = (SimpleNamespace(task="capitals", label="floor", seed=0, error="no"),)
    assert run("compare", "study.yaml", "-q").output == "error: capitals/floor/seed0 failed: no\n"


def test_wrong_input_gives_one_message_and_exit_code_2(engine: Engine) -> None:
    result = run("compare", "study.yaml", "--set", "buget=5")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "error: study.yaml, --set buget: unknown key 'buget'. Did you mean 'budget'?"
    )
    assert result.stderr.count("\n") == 1
    engine.error = ModelError("there is no model 'a-model'")
    result = run("compare", "study.yaml", "-q")
    assert (result.exit_code, result.stderr, result.stdout) == (
        2,
        "error: there is no model 'a-model'\n",
        "",
    )


def test_a_bug_stays_a_traceback(engine: Engine) -> None:
    engine.error = RuntimeError("a bug")
    assert isinstance(run("compare", "study.yaml").exception, RuntimeError)


def test_stopping_says_how_to_go_on(engine: Engine) -> None:
    engine.error = KeyboardInterrupt()
    result = run("compare", "study.yaml", "-q")
    assert (result.exit_code, result.stderr) == (
        130,
        "stopped. Nothing is lost: the same command goes on from here.\n",
    )


def test_search_on_a_built_in_task(engine: Engine) -> None:
    result = run(
        "search",
        "evolution",
        "--task",
        "capitals",
        "-o",
        "batch=8",
        "-o",
        "length=4",
        "--set",
        "budget=5000",
    )
    assert result.exit_code == 0
    (row,) = engine.config.strategies
    assert (row.name, row.options, row.length) == ("evolution", {"batch": 8}, 4)
    assert (engine.config.model, engine.config.tasks, engine.config.budget) == (
        "smollm2-135m-instruct",
        ("capitals",),
        5000,
    )
    assert engine.out == Path("results/capitals-evolution")


def test_search_takes_one_row_of_a_study(engine: Engine) -> None:
    run("search", "floor", "--study", "study.yaml", "--option", "batch=2", "--set", "budget=77")
    (row,) = engine.config.strategies
    assert (row.name, row.label, row.length, row.options) == ("random", "floor", 2, {"batch": 2})
    assert (engine.config.budget, engine.config.model, engine.config.name) == (
        77,
        "a-model",
        "study-floor",
    )
    run("search", "mine:Mine", "--study", "study.yaml")  # one that the study does not name
    assert [r.name for r in engine.config.strategies] == ["mine:Mine"]
    assert engine.out == Path("results/study-Mine")


def test_search_takes_along_what_a_row_starts_from(engine: Engine, tmp_path: Path) -> None:
    text = Path("study.yaml").read_text().partition("strategies:")[0]
    rows = [
        "random",
        "{gcg: {start: {run: random}}}",
        "{prompt_tuning: {start: {run: gcg}}}",
        "manual",
    ]
    (tmp_path / "chain.yaml").write_text(f"{text}strategies: [{', '.join(rows)}]")
    run("search", "prompt_tuning", "--study", str(tmp_path / "chain.yaml"), "-o", "batch=2")
    assert [(row.name, row.options) for row in engine.config.strategies] == [
        ("prompt_tuning", {"batch": 2}),
        ("gcg", {}),
        ("random", {}),
    ]
    run("search", "gcg", "--study", str(tmp_path / "chain.yaml"), "-o", "start={run: manual}")
    assert [row.name for row in engine.config.strategies] == ["gcg", "manual"]


def test_search_keeps_where_the_runs_of_a_study_are_made(engine: Engine) -> None:
    run("search", "floor", "--study", "study.yaml", "--set", "execution={ray: {address: auto}}")
    assert engine.config.execution.ray.address == "auto"


@pytest.mark.parametrize("where", [["--task", "capitals"], ["--study", "study.yaml"]])
def test_search_names_what_is_no_strategy(where: list[str], engine: Engine) -> None:
    assert run("search", "no such one", *where).exit_code == 0  # the study is read, and then
    assert engine.config.strategies[0].name == "no such one"  # the strategy is looked for


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to search on: either --task NAME (a built-in task) or --study FILE"),
        (
            ["--task", "capitals", "--study", "study.yaml"],
            "say what to search on: either --task NAME",
        ),
        (["--task", "capitals", "-o", "batch"], "--option batch: expected KEY=VALUE"),
        (["--task", "capitals", "-o", "batch={5"], "--option batch, line 1: this is not YAML"),
        (
            ["--task", "capitals", "-o", "length=no"],
            "the command line: strategies.0.random.length is 'no'; expected a whole number.",
        ),
        (
            ["--task", "capitals", "--set", "budget=x"],
            "the command line, --set budget: budget is 'x'; expected a whole number.",
        ),
    ],
)
def test_search_needs_to_know_on_what(engine: Engine, arguments: list[str], message: str) -> None:
    result = run("search", "random", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")


def test_strategies_are_listed_and_a_broken_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    known = promptsearch.search.listing.entry_points(group="promptsearch.strategies")
    broken = EntryPoint("torn", "no_such_module:Torn", "promptsearch.strategies")
    monkeypatch.setattr(promptsearch.search.listing, "entry_points", lambda group: [*known, broken])
    result = run("strategies")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert {
        "manual",
        "random",
        "exhaustive",
        "evolution",
        "optuna",
        "prompt_tuning",
        "p_tuning",
    } <= set(lines)
    assert "broken: the strategy 'torn' cannot be loaded: ModuleNotFoundError" in lines["torn"]
    assert "scores" in lines["random"]
    assert "HardPrompt" in lines["random"]


def test_a_strategy_of_the_current_folder_is_explained_with_its_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "my_strategies.py").write_text('''
from promptsearch import Strategy

class Mine(Strategy):
    """Propose nothing.

    More about [nothing].

    Args:
        words: Words [a, b] to avoid.
        depth: How deep.
    """

    def __init__(self, objective, *, seed: int, words: list[str], depth: int = 3):
        super().__init__(objective, seed=seed)

    def ask(self):
        return []
''')
    result = run("strategies", "my_strategies:Mine")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines() if line]
    assert lines[0] == "my_strategies:Mine: Propose nothing."
    assert lines[1] == "More about [nothing]."
    assert lines[3] == "words list[str] (required) Words [a, b] to avoid."
    assert lines[4] == "depth int 3 How deep."
    assert lines[5].startswith("label str 'Mine' ")


def test_an_unknown_strategy_gets_a_hint() -> None:
    result = run("strategies", "rando")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: unknown strategy 'rando'. Did you mean 'random'?")


def test_tasks_are_listed_and_shown() -> None:
    assert "capitals  Name the capital of a country or territory" in run("tasks").stdout
    assert (
        'template: "{prompt} capital {prompt} {name} is {answer}."'
        in run("tasks", "capitals").stdout
    )
    result = run("tasks", "capitls")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: unknown task 'capitls'. Did you mean 'capitals'?")
    shown = run("tasks", "sentences").stdout
    assert "TF-IDF + logistic regression" in shown and "most frequent answer" in shown


def test_report_reads_the_folder_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        promptsearch.report, "load_results", lambda folder, trust_code: f"results of {folder}"
    )
    monkeypatch.setattr(
        promptsearch.report,
        "write_pages",
        lambda results, lengths: Path(results.removeprefix("results of ")) / "report.html",
    )
    monkeypatch.setattr(
        promptsearch.report, "print_report", lambda results, console: console.print(results)
    )
    result = run("report", "there")
    assert (result.exit_code, result.stdout) == (
        0,
        "results of there\nThe report lies in there/report.html.\n",
    )


def test_a_folder_that_is_no_study_is_wrong_input() -> None:
    result = run("report", "none")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "none" in result.stderr


def test_export_hands_on_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        promptsearch.export,
        "export_run",
        lambda run, to, out, key, data: f"{run} as {to} in {out} with {key} from {data}",
    )
    assert (
        run("export", "a/run", "--to", "peft", "--out", "there").stdout
        == "a/run as peft in there with None from None\n"
    )
    assert (
        run("export", "a/run", "--to", "text", "--out", "there", "--key", "A", "--data", "d").stdout
        == "a/run as text in there with A from d\n"
    )
    assert run("export", "a/run", "--to", "peft").exit_code == 2


def test_an_unknown_format_gets_a_hint() -> None:
    result = run("export", "a/run", "--to", "pfet", "--out", "there")
    assert result.exit_code == 2
    assert "Did you mean 'peft'?" in result.stderr


@pytest.mark.parametrize(
    ("same", "code", "word"), [(True, 0, "the same: kv"), (False, 1, "NOT the same: kv")]
)
@pytest.mark.parametrize(
    ("signature", "told"), [("", ""), ("task:1|budget:9", "measured as task:1|budget:9\n")]
)
def test_verify_says_how_far_an_export_is_off(
    monkeypatch: pytest.MonkeyPatch, same: bool, code: int, word: str, signature: str, told: str
) -> None:
    calls: list[Any] = []
    found = promptsearch.export.Verified("kv", 8, 2.5e-7, same, 1e-5, signature)
    monkeypatch.setattr(
        promptsearch.export, "verify", lambda *given, key: calls.append((*given, key)) or found
    )
    monkeypatch.setattr(promptsearch.models.LanguageModel, "load", lambda name: f"model {name}")
    result = run("verify", "an/export", "--model", "small")
    assert result.exit_code == code and calls == [(Path("an/export"), "model small", None)]
    far = "largest difference 2.5e-07 nats per scored token (allowed: 1e-05)"
    assert result.stdout == f"{word}, 8 inputs, {far}\n{told}"


def test_a_folder_that_is_no_export_is_wrong_input() -> None:
    result = run("verify", "none")
    assert result.exit_code == 2 and result.stderr.startswith("error: none holds no prompt")


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for a saved prompt: echoes the rows, and keeps what it was called with."""
    calls: list[Any] = []

    def apply(rows: Any, model: Any) -> Iterator[dict[str, Any]]:
        calls.append(model)
        for row in rows:
            yield {**row, "answer": "Café"}

    monkeypatch.setattr(
        promptsearch.export,
        "load_prompt",
        lambda path: calls.append(path) or SimpleNamespace(apply=apply),
    )
    monkeypatch.setattr(promptsearch.models.LanguageModel, "load", lambda name: f"model {name}")
    return calls


def test_apply_answers_lines_of_standard_input(saved: list[Any]) -> None:
    result = run("apply", "an/export", given='{"name": "France"}\n\n{"name": "Peru"}\n')
    assert result.exit_code == 0
    assert (
        result.stdout
        == '{"name": "France", "answer": "Café"}\n{"name": "Peru", "answer": "Café"}\n'
    )
    assert saved == [Path("an/export"), None]


def test_apply_answers_a_file_with_another_model(saved: list[Any]) -> None:
    # A line separator inside a text is no end of a line.
    Path("rows.jsonl").write_text('{"name": "a\u2028b"}\n', "utf-8")
    result = run("apply", "an/export", "--input", "rows.jsonl", "--model", "small")
    assert json.loads(result.stdout.removesuffix("\n")) == {"name": "a\u2028b", "answer": "Café"}
    assert saved == [Path("an/export"), "model small"]


def test_apply_takes_several_prompts_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promptsearch.export, "load_prompt", lambda path: f"prompt of {path}")
    monkeypatch.setattr(promptsearch.models.LanguageModel, "load", lambda name: f"model {name}")
    calls: list[Any] = []

    class Stub:
        def __init__(self, *given: Any) -> None:
            calls.append(given)

        def apply(self, rows: Any) -> Iterator[dict[str, Any]]:
            yield from ({**row, "answer": "yes"} for row in rows)

    monkeypatch.setattr("promptsearch.export.prompted.PromptedModel", Stub)
    result = run(
        "apply",
        "films=a/b",
        "capitals=c",
        "--model",
        "small",
        given='{"prompt": "films", "text": "x"}\n',
    )
    assert result.stdout == '{"prompt": "films", "text": "x", "answer": "yes"}\n'
    assert calls == [("model small", {"films": "prompt of a/b", "capitals": "prompt of c"})]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "b=c"], "error: a: several prompts need names"),
        (["a=b", "a=c"], "error: a=c: the name a is given twice"),
        (["=b"], "error: =b: several prompts need names"),
    ],
)
def test_wrong_names_of_prompts_are_named(given: list[str], message: str) -> None:
    result = run("apply", *given)
    assert result.exit_code == 2 and result.stderr.startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"a": 1}\n{"a": \n', "error: <stdin>, line 2: this is not JSON: Expecting value"),
        (
            "[1]\n",
            'error: <stdin>, line 1: expected an object with fields, such as {"text": "..."}',
        ),
    ],
)
def test_a_wrong_line_is_named(saved: list[Any], given: str, message: str) -> None:
    result = run("apply", "an/export", given=given)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


def test_inputs_that_do_not_exist_are_wrong_input(saved: list[Any]) -> None:
    result = run("apply", "an/export", "--input", "none.jsonl")
    assert result.exit_code == 2
    assert "none.jsonl" in result.stderr


def test_the_schema_is_json() -> None:
    assert json.loads(run("schema").stdout)["title"] == "A study of promptsearch"


def test_the_version_is_that_of_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "promptsearch", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0.1.0\n"


@pytest.mark.parametrize(("name", "starts"), [("coordinate", True), ("random", False)])
def test_a_strategy_says_whether_it_can_begin_at_another_run(name, starts):
    found = CliRunner().invoke(app, ["strategies", name])
    assert found.exit_code == 0 and ("{run: LABEL}" in found.output) == starts


def test_an_address_that_is_none_is_named(tmp_path):
    given = {"name": "s", "model": "m", "task": "capitals", "strategies": ["random"], "budget": 9}
    with pytest.raises(StudyError, match="--ray: got 'nonsense'; expected auto"):
        promptsearch.comparison.compare(given, out=tmp_path / "out", ray="nonsense")
