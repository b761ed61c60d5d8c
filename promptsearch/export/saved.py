"""The library's own format: `prompt.json`, and `KEY.safetensors` for a trained prompt.

It holds every prompt exactly, and is its own certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from promptsearch.errors import ExportError, FileError, PromptError, RecordError
from promptsearch.export.certificate import Certificate
from promptsearch.export.certificate_json import read_json, to_json
from promptsearch.export.prompted import PromptedModel
from promptsearch.export.winners import PROMPT, unpack_winner
from promptsearch.files import write_json
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.prompts.kinds import prompt_from_json
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.sealed import read_record
from promptsearch.scoring.kinds import check_bias
from promptsearch.scoring.layout import prompt_texts
from promptsearch.scoring.ready import check_fit
from promptsearch.scoring.scorer import make_scorer
from promptsearch.tasks.task import Split

FORMAT = "promptsearch-prompt-1"


@dataclass(frozen=True, kw_only=True)
class SavedPrompt(Certificate):
    """A found prompt with all that its use needs.

    Args:
        prompt: The prompt.
        template: The template, bound to the prompt's lengths.
        choices: The answers to choose from; None where they differ by row, and for text answers.
        options: The field of a row that holds its own answers to choose from; None where there is
            none.
        normalise: The length by which log-probabilities of answers to choose from are divided.
        decoding: How text answers are generated.
        about: Everything else in `prompt.json`: model, task, strategy, losses, versions.
        probe: Examples with known losses.
        losses: The losses of these examples, in nats, shape `(probe,)`.
        texts: The text of a prompt of words in each slot, with its space; of others none.

    Example:
        >>> saved = load_prompt("results/capitals/capitals/p_tuning/seed0")  # doctest: +SKIP
        >>> list(saved.apply([{"name": "France"}]))  # doctest: +SKIP
    """

    prompt: Prompt
    texts: tuple[str, ...] = ()

    def any_model(self, given: TextModel | None = None, key: str | None = None) -> TextModel:
        """The model as every certificate finds it, checked to have all tokens of the prompt.

        Raises:
            PromptError: The model lacks a token of the prompt.
        """
        lm = super().any_model(given, key)
        if not self.prompt.trained and isinstance(lm, LanguageModel):
            slots = [some for some in self.prompt.fill(self.template) if not isinstance(some, str)]
            strange = [i for some in slots for i in some if not 0 <= i < len(lm.embeddings)]
            if strange:
                raise PromptError(
                    f"the prompt has the token {strange[0]}; '{lm.name}' has tokens from 0 to "
                    f"{len(lm.embeddings) - 1}"
                )
        return lm

    def verify(self, model: TextModel | None = None) -> float:
        """Score the probe anew and compare the losses.

        Returns:
            The largest distance, in nats per scored token.

        Raises:
            ExportError: The losses differ.
            ModelError: The model is another one.
        """
        lm = self.any_model(model)
        return self.check(lm, self.score_probe(lm))

    def score_probe(self, lm: TextModel) -> list[float]:
        """The probe's losses by the engine that measured them, in nats, shape `(probe,)`.

        Raises:
            ExportError: The prompt cannot be scored.
        """
        split = Split("probe", self.probe)
        scorer = make_scorer(lm, self.template, split, self.choices, normalise=self.normalise)
        scores = scorer.score([self.prompt], np.arange(len(self.probe)))
        if scores.failures:
            raise ExportError(f"the prompt cannot be scored: {scores.failures[0]}")
        losses: list[float] = scores.losses[0].tolist()
        return losses

    def apply(
        self, rows: Iterable[Mapping[str, Any]], model: LanguageModel | None = None
    ) -> Iterator[dict[str, Any]]:
        """Answer inputs.

        Args:
            rows: Mappings from field name to value, each with all fields of the template.
            model: The LM, if it is loaded already.

        Yields:
            Each row with `answer` added, see `PromptedModel.apply`.

        Raises:
            PromptError: A row lacks a field.
        """
        yield from PromptedModel(self.model(model), self).apply(rows)


def write_saved(saved: SavedPrompt, lm: TextModel, folder: Path) -> None:
    """Write `prompt.json` and the numbers of a trained prompt.

    Args:
        saved: Any prompt.
        lm: The LM.
        folder: Where the files go.
    """
    data = {"format": FORMAT, **to_json(saved, saved.prompt.to_json())}
    saved.prompt.save(folder)
    if saved.prompt.written:
        data["text"] = list(prompt_texts(saved.template, lm, saved.prompt))
    write_json(folder / PROMPT, data)


def score_saved(certificate: Certificate, lm: TextModel, folder: Path) -> list[float]:
    """The probe's losses with the prompt loaded again, in nats, shape `(probe,)`."""
    return load_prompt(folder).score_probe(lm)


def load_prompt(path: Path | str) -> SavedPrompt:
    """Load a found prompt.

    Args:
        path: A run's folder, or where it would be beside a slim record's file of winners; its
            folder `best`, an export of the format `json`, or a `prompt.json`.

    Raises:
        PromptError: There is no prompt, or its files are damaged.
    """
    path = Path(path)
    candidates = [path, path / PROMPT, path / "best" / PROMPT]
    file = next((p for p in candidates if p.is_file()), None)
    if file is None:
        _refuse_unexported(path)
        with TemporaryDirectory() as folder:
            if unpack_winner(path, Path(folder)):
                return load_prompt(folder)
        raise PromptError(
            f"{path} holds no prompt: expected a finished run's folder, or a folder with {PROMPT} "
            "(an export of the format json)"
        )
    certificate, data = read_json(file, [FORMAT])
    prompt = prompt_from_json(data["prompt"], file.parent)
    try:
        check_fit(prompt, certificate.template)
        check_bias(prompt, certificate.choices)
    except PromptError as error:
        raise PromptError(f"{file} is damaged: {error}") from error
    told = data.get("text")
    texts = tuple(map(str, told)) if isinstance(told, list) else ()
    return SavedPrompt(prompt=prompt, texts=texts, **vars(certificate))


def no_export(reason: object) -> str:
    """The message that a run has no export, with what to do.

    Args:
        reason: Why it has none.
    """
    return (
        f"no export: {reason} The run stands as it is, with its losses, its test score and its "
        "prompt; the same command of `promptsearch compare` tries the export again"
    )


def _refuse_unexported(run: Path) -> None:
    """Say why a finished run has no export, if it has none.

    Raises:
        PromptError: The run has no export; the message says why.
    """
    try:
        error = read_record(run / "result.json", "result", "")["export"]["error"]
    except (
        FileError,
        RecordError,
        KeyError,
        TypeError,
    ):  # no run, or a damaged one: the caller says so
        return
    raise PromptError(f"{run} has {no_export(error)}")


#: What a user of the folder runs, see `promptsearch.export.usage`.
USAGE = """\
from promptsearch import load_prompt

prompt = load_prompt(".")  # this folder
for row in prompt.apply([{fields!r}]):
    print(row)
"""
