"""The library's own format: `prompt.json`, and `KEY.safetensors` beside it for a trained prompt.

It holds all that a score depends on (template, answers, hashes of model and tokenizer), and a probe: a few examples of
the select split with their losses in float32, against which any copy can be checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from promptsearch.errors import ExportError, ModelError, PromptError
from promptsearch.files import write_json
from promptsearch.model import LanguageModel
from promptsearch.prompt import PrefixPrompt, Prompt, SoftPrompt, TrainedPrompt, prompt_from_json, prompt_to_json, save_trained
from promptsearch.run import Arena
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import lay_out, prompt_texts, slots_of
from promptsearch.task import Example, Split
from promptsearch.template import Template

FORMAT = "promptsearch-prompt-1"
#: Examples in the probe, and how far a re-scored loss may lie from its own, in nats per scored token.
PROBE, TOLERANCE = 8, 1e-5


@dataclass(frozen=True)
class SavedPrompt:
    """A found prompt with all that its use needs.

    Args:
        prompt: The prompt.
        template: Bound.
        choices: The answers to choose from; None for text answers.
        about: Everything else in `prompt.json`: model, task, strategy, losses, versions.
        probe: Examples with known losses.
        losses: Theirs, in nats, shape `(probe,)`.

    Example:
        >>> saved = load_prompt("results/capitals/capitals/p_tuning/seed0")  # doctest: +SKIP
        >>> list(saved.apply([{"name": "France"}]))  # doctest: +SKIP
    """

    prompt: Prompt
    template: Template
    choices: tuple[str, ...] | None
    about: Mapping[str, Any]
    probe: tuple[Example, ...]
    losses: tuple[float, ...]

    def model(self, given: LanguageModel | None = None) -> LanguageModel:
        """The LM that the prompt was found for, in float32.

        Args:
            given: If it is loaded already.

        Raises:
            ModelError: It has other weights or another tokenizer.
        """
        facts = self.about["model"]
        lm = (given or LanguageModel.load(facts["source"])).to(torch.float32)
        for key, found in (("hash", lm.hash), ("tokenizer_hash", lm.tokenizer_hash)):
            if facts[key] != found:
                raise ModelError(
                    f"this prompt was found for the model '{facts['name']}' with {key} {facts[key]}; '{lm.name}' has {found}. "
                    "A prompt belongs to the weights that it was searched on."
                )
        return lm

    def engine(self, lm: LanguageModel, examples: Sequence[Example]) -> Engine:
        """Scores examples under the prompt's template."""
        return Engine(lm, self.template, Split("given", tuple(examples)), self.choices)

    def check(self, losses: Sequence[float]) -> float:
        """The largest distance from the probe's losses, in nats per scored token.

        Args:
            losses: The probe, scored anew, shape `(probe,)`.

        Raises:
            ExportError: It is larger than the tolerance.
        """
        distance = float(np.abs(np.subtract(losses, self.losses)).max()) / int(self.about["scored_tokens"])
        if not distance <= TOLERANCE:
            raise ExportError(
                f"the export, loaded again, is {distance:.2g} nats per scored token away from what was measured "
                f"(allowed: {TOLERANCE:g}). It is not written."
            )
        return distance

    def verify(self, model: LanguageModel | None = None) -> float:
        """Score the probe anew and compare; returns the largest distance in nats per scored token.

        Raises:
            ExportError: The losses differ.
            ModelError: The model is another one.
        """
        lm = self.model(model)
        return self.check(self.engine(lm, self.probe).score([self.prompt], np.arange(len(self.probe))).losses[0].tolist())

    def apply(self, rows: Iterable[Mapping[str, Any]], model: LanguageModel | None = None) -> Iterator[dict[str, Any]]:
        """Answer inputs.

        Args:
            rows: Field name -> value, each with the template's fields.
            model: The LM, if it is loaded already.

        Yields:
            The row with `answer`, and for tasks of choice `probabilities`: answer -> probability among the choices.

        Raises:
            PromptError: A row lacks a field.
        """
        lm = self.model(model)
        for number, row in enumerate(rows, start=1):
            missing = [name for name in self.template.fields if name not in row]
            if missing:
                raise PromptError(f"input {number} lacks the field '{missing[0]}'; it has {', '.join(map(str, row)) or 'none'}")
            fields = {name: row[name] for name in self.template.fields}
            if self.choices is not None:
                example = Example(0, fields, self.choices[0], 0)
                found = self.engine(lm, [example]).score([self.prompt], np.arange(1))
                if found.failures or found.choices is None:
                    raise PromptError(f"input {number} cannot be scored: {found.failures.get(0)}")
                shares = np.exp(found.choices[0, 0])
                answer = self.choices[int(shares.argmax())].strip()
                probabilities = {c.strip(): round(float(p), 6) for c, p in zip(self.choices, shares, strict=True)}
                yield {**row, "answer": answer, "probabilities": probabilities}
            else:
                prefix = self.prompt.rows if isinstance(self.prompt, PrefixPrompt) else None
                text = lm.generate(self.embedded(lm, Example(0, fields, "", None)), prefix=prefix)
                yield {**row, "answer": text.split("\n")[0].strip()}

    def embedded(self, lm: LanguageModel, example: Example) -> torch.Tensor:
        """The input of the LM up to the answer, without a prefix, shape `(tokens, width)`."""
        segments = lay_out(self.template, lm, example, None).segments
        if isinstance(self.prompt, SoftPrompt):
            vectors = self.prompt.vectors.to(lm.device, lm.dtype).split([slot.length or 0 for slot in self.template.slots])
        elif isinstance(self.prompt, PrefixPrompt):
            vectors = (lm.embed(_ids(lm, ())),)
        else:
            vectors = tuple(lm.embed(_ids(lm, ids)) for ids in slots_of(self.template, lm, self.prompt))
        parts = [lm.embed(_ids(lm, segments[0]))]
        for slot, segment in zip(vectors, segments[1:], strict=True):
            parts += [slot, lm.embed(_ids(lm, segment))]
        return torch.cat(parts)


def _ids(lm: LanguageModel, ids: Sequence[int]) -> torch.Tensor:
    return torch.tensor(list(ids), dtype=torch.long, device=lm.device)


def export_best(arena: Arena, winner: Prompt, result: Mapping[str, Any], folder: Path) -> None:
    """Write a run's winner, load it again, and score its probe anew.

    Args:
        arena: Of the run.
        winner: The prompt.
        result: What `result.json` will hold.
        folder: The run's folder `best`.

    Raises:
        ExportError: The loaded prompt scores differently.
    """
    examples = arena.task.splits["select"].examples[:PROBE]
    losses = result["select"]["losses"][:PROBE]
    lm, example = arena.lm, examples[0]
    answers = [arena.lm.encode(e.answer) for e in examples]
    saved = SavedPrompt(
        prompt=winner,
        template=arena.template,
        choices=arena.task.choices,
        about={
            "model": {"name": lm.name, "source": lm.name, "hash": lm.hash, "tokenizer_hash": lm.tokenizer_hash},
            "task": arena.task.name,
            "strategy": result["strategy"],
            "label": result["label"],
            "seed": result["seed"],
            "splits": {name: split.hash for name, split in arena.task.splits.items()},
            "metric": arena.task.metric,
            "select": {key: result["select"][key] for key in ("loss", "metric")},
            "test": {key: result["test"][key] for key in ("loss", "metric")},
            "example": f"{example.fields} -> {example.answer!r}",
            "scored_tokens": 1 if arena.task.choices is not None else max(map(len, answers)),
        },
        probe=examples,
        losses=tuple(losses),
    )
    write_saved(saved, lm, folder)


def write_saved(saved: SavedPrompt, lm: LanguageModel, folder: Path) -> None:
    """Write `prompt.json` and the numbers of a trained prompt, load them again, and score the probe anew.

    Raises:
        ExportError: The loaded prompt scores differently.
    """
    data = {
        "format": FORMAT,
        "prompt": prompt_to_json(saved.prompt),
        "template": saved.template.text,
        "lengths": [slot.length for slot in saved.template.slots],
        "choices": None if saved.choices is None else list(saved.choices),
        **saved.about,
        "probe": [
            {"fields": dict(e.fields), "answer": e.answer, "choice": e.choice, "aliases": list(e.aliases), "loss": loss}
            for e, loss in zip(saved.probe, saved.losses, strict=True)
        ],
    }
    if isinstance(saved.prompt, TrainedPrompt):
        save_trained(saved.prompt, folder / f"{saved.prompt.key}.safetensors")
    else:
        data["text"] = list(prompt_texts(saved.template, lm, saved.prompt))
    write_json(folder / "prompt.json", data)
    load_prompt(folder).verify(lm)


def load_prompt(path: Path | str) -> SavedPrompt:
    """Load a found prompt.

    Args:
        path: A run's folder, its folder `best`, an export of the format `json`, or a `prompt.json`.

    Raises:
        PromptError: There is no prompt, or its files are damaged.
    """
    path = Path(path)
    candidates = [path, path / "prompt.json", path / "best" / "prompt.json"]
    file = next((p for p in candidates if p.is_file()), None)
    if file is None:
        raise PromptError(f"{path} holds no prompt: expected a finished run's folder, or a folder with prompt.json")
    try:
        data = json.loads(file.read_text("utf-8"))
        if data["format"] != FORMAT:
            raise PromptError(f"{file} has the format {data['format']!r}, this version reads {FORMAT!r}")
        template = Template.parse(data["template"])
        if data["prompt"]["kind"] == PrefixPrompt.kind:
            template = template.in_front()
        slots = tuple(replace(slot, length=n) for slot, n in zip(template.slots, data["lengths"], strict=True))
        probe = tuple(Example(i, e["fields"], e["answer"], e["choice"], tuple(e["aliases"])) for i, e in enumerate(data["probe"]))
        return SavedPrompt(
            prompt=prompt_from_json(data["prompt"], file.parent),
            template=replace(template, slots=slots),
            choices=None if data["choices"] is None else tuple(data["choices"]),
            about={
                k: v for k, v in data.items() if k not in ("format", "prompt", "template", "lengths", "choices", "probe", "text")
            },
            probe=probe,
            losses=tuple(e["loss"] for e in data["probe"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PromptError(f"{file} is damaged: {error!r}") from error
