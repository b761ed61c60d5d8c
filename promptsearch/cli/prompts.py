"""Commands on found prompts: write them in other formats, look at these again, use them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from promptsearch.cli.console import say
from promptsearch.cli.options import Key, Model
from promptsearch.errors import FieldError, StudyError
from promptsearch.printable import printable_json
from promptsearch.tasks.fields import text_of


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run's folder: STUDY/TASK/STRATEGY/seed0.")
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="json|kv|peft|cartridge|text|vllm|lm-eval|promptfoo|dspy|mlflow",
            help="The format; json holds every prompt.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For lm-eval, which gets the test split: the folder of the study file, from which "
            "the paths of its data start; left out: the current one.",
        ),
    ] = None,
    key: Key = None,
) -> None:
    """Write a run's winner in another format, ready for the Hub; check that it scores the same.

    The check loads the export again.
    """
    from promptsearch.export import export_run

    say(str(export_run(run, to, out, key=key, data=data)))


def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="EXPORT_DIR", help="What export wrote, in any format, or a run's folder."
        ),
    ],
    model: Model = None,
    key: Key = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A server of the same model, up to and including /v1, which is to score the "
            "inputs: for text, any with OpenAI's completions API; for vllm, vLLM itself.",
        ),
    ] = None,
    served: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model, as that server calls it."),
    ] = None,
) -> None:
    """Load an export again, through its own library, and compare it with its certificate.

    The exit code is 1 where it differs.
    """
    from promptsearch.export import verify as look_again
    from promptsearch.models import LanguageModel
    from promptsearch.models.endpoint import Endpoint

    if (server is None) != (served is None):
        raise StudyError("a server needs both: --server URL, and --served NAME for its model")
    lm = LanguageModel.load(model) if model else None
    if server is None or served is None:
        seen = look_again(folder, lm, key=key)
    else:
        seen = look_again(folder, lm, server=Endpoint(server, served, key))
    verdict = "the same" if seen.same else "NOT the same"
    say(
        f"{verdict}: {seen.to}, {seen.probe} inputs, "
        f"largest difference {seen.distance:.2g} nats per scored token "
        f"(allowed: {seen.tolerance:.2g})"
    )
    if seen.unchecked:
        say(f"not checked: {seen.unchecked}")
    if seen.signature:
        say(f"measured as {seen.signature}")
    if not seen.same:
        raise typer.Exit(1)


def apply(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]EXPORT_DIR...",
            help="A found prompt: a run's folder, or what export --to json wrote; or a row's "
            "folder, STUDY/TASK/STRATEGY, whose seeds answer together. "
            'Several have names; each input has its own prompt\'s under "prompt".',
        ),
    ],
    inputs: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Inputs with the template's fields, in a file of a kind that tasks are read from; "
            "- reads JSON lines from standard input.",
        ),
    ] = "-",
    model: Model = None,
) -> None:
    """Use found prompts: read inputs, and write them with their answers as JSON lines."""
    from promptsearch.export import load_prompt
    from promptsearch.export.ensemble import is_row, load_ensemble
    from promptsearch.export.prompted import PromptedModel
    from promptsearch.models import LanguageModel
    from promptsearch.tasks.data import read_inputs

    rows = read_inputs(inputs)
    folders = _named(prompts)
    lm = LanguageModel.load(model) if model else None
    if isinstance(folders, Path):
        found = load_ensemble(folders) if is_row(folders) else load_prompt(folders)
        answered = found.apply(rows, lm)
    else:
        saved = {name: load_prompt(folder) for name, folder in folders.items()}
        answered = PromptedModel(lm or next(iter(saved.values())).model(), saved).apply(rows)
    for row in answered:
        typer.echo(printable_json(row, default=_written))


def _named(given: list[str]) -> Path | dict[str, Path]:
    """Folders by name, or a single one without a name."""
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).exists()):
        return Path(given[0])
    folders: dict[str, Path] = {}
    for each in given:
        name, equals, folder = each.partition("=")
        if not (name and equals and folder):
            raise StudyError(
                f'{each}: several prompts need names, which inputs give under "prompt": '
                "expected NAME=EXPORT_DIR"
            )
        if name in folders:
            raise StudyError(f"{each}: the name {name} is given twice")
        folders[name] = Path(folder)
    return folders


def _written(value: Any) -> str:
    """The text of a value that JSON does not know: what the model read, or else Python's form."""
    try:
        return text_of(value)
    except FieldError:
        return str(value)
