"""The model card of an export: `README.md`, which makes the folder ready for the Hub.

Nothing is uploaded. The code on the card is complete, runs in the folder as it stands there, and
gives what the certificate says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from promptsearch.export.certificate import CERTIFICATE
from promptsearch.export.lm_eval.write import lm_eval_note
from promptsearch.export.promptfoo import promptfoo_note
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.usage import language, usage
from promptsearch.export.winners import PROMPT
from promptsearch.files import write_aside
from promptsearch.models.protocol import TextModel
from promptsearch.models.scheme import scheme_named, split_name
from promptsearch.scoring.layout import prompt_texts

CARD = "README.md"
#: Format -> what the folder holds, and the library under which the Hub lists it.
_ABOUT = {
    "cartridge": ("keys and values for PEFT (CARTRIDGE)", "peft"),
    "dspy": ("the state of a `dspy.Predict`", "dspy"),
    "json": ("the library's own format", "promptsearch"),
    "kv": ("keys and values for the cache of `transformers`", "transformers"),
    "lm-eval": ("a task of lm-evaluation-harness, with the test split", "lm-eval"),
    "mlflow": ("a template for MLflow's prompt registry", "mlflow"),
    "peft": ("a folder for PEFT", "peft"),
    "promptfoo": ("a configuration of promptfoo", "promptfoo"),
    "text": ("plain text", "transformers"),
    "vllm": ("embeddings for requests to vLLM (`prompt_embeds`)", "vllm"),
}
_VLLM_NOTE = (
    "vLLM generates from embeddings; it does not score a given text below them. Answers of one "
    "token are chosen exactly, as the most probable of the allowed ones; longer answers are "
    "generated. The server takes the same tensors, one a request, from "
    "`--enable-prompt-embeds` on.\n"
)
_DSPY_NOTE = (
    "The model is asked through a server: put yours there. DSPy writes the text that the model "
    "reads itself, around these instructions, and so the values above are not those of DSPy. "
    "`promptsearch verify` puts the instructions where the prompt stood and scores that; it does "
    "not run DSPy.\n"
)
_BEAMS_NOTE = (
    "The task's answers are the best of {} beams. Here the most probable token is written each "
    "time, so that some answers may be others.\n"
)
_MLFLOW_NOTE = (
    "The registry is the one that `mlflow.set_registry_uri` or `MLFLOW_TRACKING_URI` names. "
    "`promptsearch verify` fills the template in and scores it; it does not ask the registry.\n"
)


def write_card(prompt: SavedPrompt, to: str, lm: TextModel, folder: Path) -> None:
    """Write `README.md`.

    Args:
        prompt: What was exported.
        to: The format.
        lm: The LM.
        folder: The export's folder.
    """
    what, library = _ABOUT[to]
    about = prompt.about
    changed = not prompt.prompt.frozen
    noun = prompt.prompt.noun
    title = f"{noun[0].upper()}{noun[1:]} for {about.get('task', 'a task')}"
    given = (
        "the model itself is not part"
        if changed
        else "the model itself is not changed, and not part"
    )
    facts = about.get("model", {})
    answers = ", ".join(f"`{choice.strip()}`" for choice in prompt.choices or ())
    if prompt.text:
        end = prompt.template.end or prompt.template.end_token
        answers = f"free text{f', up to {_code(end)}' if end else ''}"
    elif prompt.options is not None:
        answers = f"those that an input lists in its field `{prompt.options}`"
    certificate = PROMPT if to == "json" else CERTIFICATE
    scheme = scheme_named(lm.name)
    kept = f" with the weights of its layers in {scheme}" if scheme else ""
    parts = [
        f"---\n{_header(prompt, to, library, lm)}\n---\n",
        f"# {title}\n",
        f"{title} and the {'' if changed else 'frozen '}language model `{_base(lm)}`{kept}, as "
        f"{what}. Found by `{about.get('strategy', '?')}` of promptsearch; {given} of this "
        "folder.\n",
        "## Task\n",
        f"Template: {_code(prompt.template.shown)}\n",
        f"Answers: {answers}. Example: {_code(str(about.get('example', '-')))}\n",
        *_text(prompt, lm),
        "## Metrics\n",
        _metrics(prompt),
        "## Use\n",
        f"In this folder:\n\n```{language(to, lm)}\n{usage(prompt, to, lm)}```\n",
        *_note(prompt, to),
        "## Certificate\n",
        f"`{certificate}` holds the hashes of the model (`{facts.get('hash', '?')}`) and its "
        f"tokenizer (`{facts.get('tokenizer_hash', '?')}`), the template, and {len(prompt.probe)} "
        "inputs with their losses in float32. "
        "`promptsearch verify .` loads this folder again, scores them anew, and compares as far as "
        "rounding lets losses agree.\n",
    ]
    write_aside(folder / CARD, "\n".join(parts))


def _note(prompt: SavedPrompt, to: str) -> list[str]:
    """What must be known of a format to use it; nothing of most."""
    if to == "lm-eval":
        return [lm_eval_note(prompt)]
    notes = {"vllm": _VLLM_NOTE, "dspy": _DSPY_NOTE, "mlflow": _MLFLOW_NOTE}
    found = promptfoo_note(prompt) if to == "promptfoo" else notes.get(to, "")
    beams = prompt.decoding.beams if prompt.text and to in ("promptfoo", "vllm") else 1
    return [note for note in (found, _BEAMS_NOTE.format(beams) if beams > 1 else "") if note]


def _text(prompt: SavedPrompt, lm: TextModel) -> list[str]:
    """The card's lines with the prompt as text; none where it is no text, or not one."""
    if not prompt.prompt.written:
        return []
    return [f"Prompt: {_code(' | '.join(prompt_texts(prompt.template, lm, prompt.prompt)))}\n"]


def _base(lm: TextModel) -> str:
    """The model's name on the Hub, or the folder's name where it was loaded from a folder."""
    name, _ = split_name(lm.name)
    return Path(name).name if Path(name).exists() else name


def _header(prompt: SavedPrompt, to: str, library: str, lm: TextModel) -> str:
    """The card's metadata for the Hub, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    about, test = prompt.about, _measured(prompt, "test")
    task = "text-generation" if prompt.text else "text-classification"
    given: dict[str, Any] = {}
    if "metric" in test and "metric" in about:
        name = str(about.get("task", "task"))
        found = EvalResult(
            task_type=task,
            dataset_type=name,
            dataset_name=name,
            metric_type=str(about["metric"]),
            metric_value=test["metric"],
        )
        given = {"eval_results": [found], "model_name": f"{about.get('label', 'prompt')}-{name}"}
    tags = ["promptsearch", *prompt.prompt.tags, to]
    data = ModelCardData(
        base_model=_base(lm),
        library_name=library,
        pipeline_tag="fill-mask" if prompt.template.behind else "text-generation",
        tags=tags,
        **given,
    )
    return str(data.to_yaml())


def _measured(prompt: SavedPrompt, split: str) -> dict[str, Any]:
    """What was measured on a split; a file that others wrote may say less of it, or nothing."""
    found = prompt.about.get(split, {})
    return {name: value for name, value in found.items() if value is not None}


def _metrics(prompt: SavedPrompt) -> str:
    about = prompt.about
    rows = []
    for split in ("select", "test"):
        found = _measured(prompt, split)
        for name, label in (
            ("metric", str(about.get("metric", "metric"))),
            ("loss", "loss (nats per example)"),
        ):
            if name in found:
                ends = found.get(f"{name}_interval")
                between = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"
                rows.append(f"| {split} | {label} | {found[name]:.3f} | {between} |")
    if not rows:
        return "None were measured.\n"
    lines = ["| split | metric | value | 95 % interval |", "|---|---|---|---|", *rows]
    size = _measured(prompt, "test").get("examples")
    remark = f"The test split has {size} examples, and was looked at once. " if size else ""
    signature = about.get("signature", "")
    return (
        "\n".join(lines)
        + f"\n\n{remark}Intervals cover the choice of examples, not the luck of the seed.\n"
        + (f"\nSignature: {_code(signature)}\n" if signature else "")
    )


def _code(given: str) -> str:
    """The text as inline code, fenced so that backticks in it do no harm."""
    shown = given.replace("\n", "\\n")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if "`" in shown else f"`{shown}`"
