"""Ways out: one file per format, each loaded again and scored anew before it counts as written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from promptsearch.errors import ExportError, UnknownName
from promptsearch.export.peft import write_peft
from promptsearch.export.read_peft import read_peft as read_peft
from promptsearch.export.saved import SavedPrompt as SavedPrompt
from promptsearch.export.saved import export_best as export_best
from promptsearch.export.saved import load_prompt as load_prompt
from promptsearch.export.saved import write_saved
from promptsearch.export.text import write_text
from promptsearch.model import LanguageModel

#: Format -> writes it into a folder and re-scores it.
FORMATS: dict[str, Callable[[SavedPrompt, LanguageModel, Path], None]] = {
    "json": write_saved,
    "peft": write_peft,
    "text": write_text,
}


def export_run(run: Path, to: str, out: Path, *, model: LanguageModel | None = None) -> Path:
    """Write a run's winner in another format.

    Args:
        run: The folder of a finished run, or an export of the format `json`.
        to: `json` (with safetensors for trained prompts), `text` or `peft`.
        out: The folder to write; made, must be empty or missing.
        model: The LM, if it is loaded already; left out: loaded by the name in the export.

    Returns:
        `out`.

    Raises:
        UnknownName: No such format.
        ExportError: The format cannot hold the prompt exactly (with the reason), or the re-score differs.
    """
    if to not in FORMATS:
        raise UnknownName("export format", to, FORMATS)
    saved = load_prompt(run)
    if out.exists() and any(out.iterdir()):
        raise ExportError(f"{out} is not empty: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    try:
        FORMATS[to](saved, saved.model(model), out)
    except ExportError:
        for path in out.iterdir():  # an export that is not exact must not be mistaken for one
            path.unlink()
        raise
    return out
