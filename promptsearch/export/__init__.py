"""Ways out of the library: one module per format.

Every export is loaded again and scored anew before it counts as written, and again whenever it is
verified.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from promptsearch.errors import ExportError, UnknownName
from promptsearch.export.card import write_card
from promptsearch.export.certificate import (
    CERTIFICATE,
    FORMAT,
    Certificate,
    check_held,
    refuse_pickles,
)
from promptsearch.export.certificate_json import read_json, to_json
from promptsearch.export.dspy import score_dspy, write_dspy
from promptsearch.export.kv import score_kv, write_kv
from promptsearch.export.lm_eval.read import score_lm_eval
from promptsearch.export.lm_eval.write import write_lm_eval
from promptsearch.export.mlflow import score_mlflow, write_mlflow
from promptsearch.export.peft.cartridge import score_cartridge, write_cartridge
from promptsearch.export.peft.read import read_peft as read_peft
from promptsearch.export.peft.write import score_peft, write_peft
from promptsearch.export.promptfoo import score_promptfoo, write_promptfoo
from promptsearch.export.saved import SavedPrompt as SavedPrompt
from promptsearch.export.saved import load_prompt as load_prompt
from promptsearch.export.saved import score_saved, write_saved
from promptsearch.export.tested import tested_task
from promptsearch.export.text import ask_text, score_text, write_text
from promptsearch.export.vllm import ask_vllm, score_vllm, write_vllm
from promptsearch.export.vllm import vllm_requests as vllm_requests
from promptsearch.files import exists, failing, make_folder, remove, write_json
from promptsearch.models import LanguageModel
from promptsearch.models.endpoint import Endpoint
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.scoring.scorer import loaded


class Format(NamedTuple):
    """A format that prompts are exported to.

    Args:
        write: Writes a prompt into a folder, or says why the format cannot hold it exactly.
        score: Scores the certificate's probe with the folder read as its users read it; gives
            losses in nats.
        served: Whether it can also hold prompts of models behind an endpoint.
        ability: The ability of a model's family that its use takes, see `Family`; empty where any
            family has it.
        rows: Whether it holds the rows of the test split, too: `write` is then handed the task
            besides.
        unchecked: What of the folder no score shows, in words; empty where there is nothing.
        ask: Scores the probe with the folder as a server of the same model reads it, where the
            format is one for servers.
    """

    # A LanguageModel, or where `served` any TextModel, stands between prompt and folder.
    write: Callable[..., None]
    score: Callable[[Certificate, Any, Path], list[float]]
    served: bool = False
    ability: Literal["", "served", "keeps"] = ""
    rows: bool = False
    unchecked: str = ""
    ask: Callable[[Certificate, LanguageModel, Path, ServedModel], list[float]] | None = None

    def model(
        self, certificate: Certificate, given: TextModel | None, key: str | None
    ) -> TextModel:
        """The model that a prompt was found for, if the format can hold prompts of such a model.

        Args:
            certificate: The prompt's certificate.
            given: The model, if it is loaded already; None loads it.
            key: The name of the environment variable that holds the endpoint's key.

        Raises:
            ModelError: The given model is another one, or runs behind an endpoint that the format
                cannot serve.
        """
        if self.served:
            return certificate.any_model(given, key)
        return loaded(
            certificate.any_model(given, key), "read by this format: export as text or json"
        )


FORMATS: dict[str, Format] = {
    "cartridge": Format(write_cartridge, score_cartridge, ability="keeps"),
    "dspy": Format(
        write_dspy,
        score_dspy,
        served=True,
        ability="served",
        unchecked="the text that DSPy writes around the instructions",
    ),
    "json": Format(write_saved, score_saved, served=True),
    "kv": Format(write_kv, score_kv, ability="keeps"),
    "lm-eval": Format(
        write_lm_eval,
        score_lm_eval,
        served=True,
        ability="served",
        rows=True,
        unchecked="the metric, which lm-eval computes",
    ),
    "mlflow": Format(
        write_mlflow,
        score_mlflow,
        served=True,
        ability="served",
        unchecked="what stands in a registry",
    ),
    "peft": Format(write_peft, score_peft),
    "promptfoo": Format(
        write_promptfoo,
        score_promptfoo,
        served=True,
        ability="served",
        unchecked="the provider and the tests",
    ),
    "text": Format(write_text, score_text, served=True, ability="served", ask=ask_text),
    "vllm": Format(write_vllm, score_vllm, ability="served", ask=ask_vllm),
}


class Verified(NamedTuple):
    """What a second look at an export found.

    Args:
        to: The export's format.
        probe: The number of examples that were scored.
        distance: The largest distance from the certificate's losses, in nats per scored token.
        same: Whether that distance is within the tolerance.
        tolerance: The largest distance that is allowed there, in nats per scored token, see
            `promptsearch.export.tolerance`.
        signature: The line that the certificate gives with the prompt's scores, see
            `promptsearch.records.signature`; not checked, and empty in older certificates.
        unchecked: What of the folder no score shows, in words; empty where there is nothing.
    """

    to: str
    probe: int
    distance: float
    same: bool
    tolerance: float
    signature: str = ""
    unchecked: str = ""


def export_run(
    run: Path,
    to: str,
    out: Path,
    *,
    model: TextModel | None = None,
    key: str | None = None,
    data: Path | None = None,
) -> Path:
    """Write a run's winner in another format, with a certificate and a model card.

    Args:
        run: The folder of a finished run, or an export of the format `json`.
        to: `json` (with safetensors for trained prompts), `cartridge`, `kv`, `peft`, `text`,
            `vllm`, `lm-eval`, `promptfoo`, `dspy` or `mlflow`.
        out: The folder to write; it is made, or must be empty.
        model: The LM, if it is loaded already; left out: loaded by the name in the export.
        key: The name of the environment variable that holds the key, for a model behind an
            endpoint.
        data: For a format that holds the rows of the test split, the folder to which the relative
            paths of the study's data are relative; left out: the current one.

    Returns:
        `out`.

    Raises:
        UnknownName: No such format.
        ExportError: The format cannot hold the prompt exactly (with the reason), or the re-score
            differs.
    """
    if to not in FORMATS:
        raise UnknownName("export format", to, FORMATS)
    saved = load_prompt(run)
    made = not exists(out)
    if not made:
        with failing(out, "read"):
            if any(out.iterdir()):
                raise ExportError(f"{out} is not empty: name a new folder")
    lm = FORMATS[to].model(saved, model, key)
    _check_family(saved, lm, to)
    check_held(saved.prompt, to)
    rows = [tested_task(saved, run, data)] if FORMATS[to].rows else []
    make_folder(out)
    try:
        FORMATS[to].write(saved, lm, out, *rows)
        saved.check(lm, FORMATS[to].score(saved, lm, out))
        if to != "json":  # which is its own certificate
            write_json(
                out / CERTIFICATE,
                {"format": FORMAT, "export": to, **to_json(saved, saved.prompt.to_json())},
            )
        write_card(saved, to, lm, out)
    except BaseException:
        for path in list(out.iterdir()):  # an export that is not exact must not be mistaken for one
            remove(path)
        if made:
            remove(out)
        raise
    return out


def _check_family(saved: SavedPrompt, lm: TextModel, to: str) -> None:
    """Refuse a format that has no meaning for models of a family.

    Raises:
        ExportError: It has none; the message names those that have.
    """
    if not isinstance(lm, LanguageModel):
        return
    ability = FORMATS[to].ability
    if ability and not getattr(lm.family, ability):
        why = {
            "served": "which no server of language models takes, and no text up to its answer asks",
            "keeps": "in which the keys and values of a prompt depend on what stands behind it",
        }[ability]
        others = [n for n, f in FORMATS.items() if not f.ability or getattr(lm.family, f.ability)]
        raise ExportError(
            f"the format {to} has no meaning for '{lm.name}', {lm.family.noun}, {why}: its prompts "
            f"are exported as {' or '.join(others)}"
        )
    if saved.template.one_by_one and to != "json":
        raise ExportError(
            f"the format {to} has no place for answers that are read token by token "
            "({answer:pll}): export the prompt as json"
        )


def verify(
    folder: Path,
    model: TextModel | None = None,
    *,
    key: str | None = None,
    server: Endpoint | None = None,
) -> Verified:
    """Load an export through the library that it is for, and compare it with its certificate.

    Args:
        folder: An export of any format, or a finished run.
        model: The LM, if it is loaded already; left out: loaded by the name in the certificate.
        key: The name of the environment variable that holds the key, for a model behind an
            endpoint.
        server: A server of the same model, where that is to score the probe, and not the model
            here; for the formats `text` and `vllm`.

    Raises:
        ExportError: The format is none that is sent to a server.
        PromptError: The folder is no export, or is damaged, or holds a pickle (which is not
            loaded).
        ModelError: The model is not the one that the prompt was found for.
    """
    if folder.is_dir():
        refuse_pickles(folder)
    certificate: Certificate
    if (folder / CERTIFICATE).is_file():
        certificate, data = read_json(folder / CERTIFICATE, [FORMAT])
        to = str(data.get("export"))
        if to not in FORMATS:
            raise UnknownName("export format", to, FORMATS)
    else:
        certificate, to = load_prompt(folder), "json"
    lm = FORMATS[to].model(certificate, model, key)
    if server is None:
        distance = certificate.distance(lm, FORMATS[to].score(certificate, lm, folder))
    else:
        if (ask := FORMATS[to].ask) is None:
            asked = ", ".join(sorted(name for name, each in FORMATS.items() if each.ask))
            raise ExportError(
                f"an export of the format '{to}' is not sent to a server: expected one of {asked}"
            )
        here = loaded(lm, "compared with a server")
        there = ServedModel(server, tokens=here.tokens, listed=not certificate.text)
        distance = certificate.distance(there, ask(certificate, here, folder, there))
    return Verified(
        to,
        len(certificate.probe),
        distance.found,
        distance.same,
        distance.allowed,
        certificate.about.get("signature", ""),
        FORMATS[to].unchecked,
    )
