"""Exports of templates with a field within a field: they verify, and their cards work."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from promptsearch import LanguageModel, PromptedModel
from promptsearch.errors import ExportError
from promptsearch.export import export_run, verify
from promptsearch.export.saved import write_saved
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import tiny_model

TEMPLATE = "{prompt:3} %s It was {answer}"


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """Loaded from a folder, as the cards load it."""
    folder = tmp_path_factory.mktemp("llama")
    for part in tiny_model("llama"):
        part.save_pretrained(folder)
    return LanguageModel.load(str(folder), device="cpu")


@pytest.mark.parametrize("to", ["json", "kv", "text"])
def test_the_code_of_the_card_names_the_field(lm, to, make_saved, tmp_path, monkeypatch, capsys):
    flat = make_saved(lm, "hard", TEMPLATE % "{text}", (" bad", " good"))
    saved = replace(
        flat,
        template=Template.parse(TEMPLATE % "{translation.en}").bind(3),
        probe=tuple(replace(e, fields={"translation.en": e.fields["text"]}) for e in flat.probe),
    )
    (tmp_path / "best").mkdir()
    write_saved(saved, lm, tmp_path / "best")
    folder = export_run(tmp_path / "best", to, tmp_path / to, model=lm)
    assert verify(folder, lm).same
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})
    shares = [float(n) for n in re.findall(r"0\.\d+(?:e-\d+)?", capsys.readouterr().out)]
    text = saved.probe[0].fields["translation.en"]
    for row in ({"translation.en": text}, {"translation": {"en": text}}):
        found = PromptedModel(lm, saved).choose([row])[0].probabilities
        assert shares == pytest.approx(list(found.values()), abs=1e-5)


def test_a_field_within_a_text_is_refused_where_code_cannot_name_both(lm, make_saved, tmp_path):
    flat = make_saved(lm, "hard", TEMPLATE % "{text}", (" bad", " good"))
    saved = replace(
        flat,
        template=Template.parse(TEMPLATE % "{text} {text.en}").bind(3),
        probe=tuple(replace(e, fields={**e.fields, "text.en": "film"}) for e in flat.probe),
    )
    saved = replace(saved, losses=tuple(saved.score_probe(lm)))
    (tmp_path / "best").mkdir()
    write_saved(saved, lm, tmp_path / "best")
    with pytest.raises(ExportError, match=r"both \{text\} and \{text.en\} cannot be written"):
        export_run(tmp_path / "best", "kv", tmp_path / "kv", model=lm)
    assert not (tmp_path / "kv").exists()
    assert verify(export_run(tmp_path / "best", "json", tmp_path / "json", model=lm), lm).same
