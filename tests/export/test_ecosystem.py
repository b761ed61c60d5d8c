"""Winners as other tools load them: lm-evaluation-harness, promptfoo, MLflow, DSPy.

Where a tool is not installed, its reader is stood in for by what its documentation says it does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import warnings
from dataclasses import replace

import datasets
import jinja2
import pytest
import yaml

from promptsearch import LanguageModel, compare
from promptsearch.errors import ExportError, PromptError
from promptsearch.export import FORMATS, export_run, load_prompt, verify
from promptsearch.export.saved import write_saved
from promptsearch.export.variables import fill_variables, variables, with_variables
from promptsearch.scoring.layout import prompt_texts
from promptsearch.tasks.decoding import Decoding
from promptsearch.testing.server import Server
from promptsearch.testing.serving import with_model
from promptsearch.testing.tiny import tiny_model

FRONT = "{prompt:3} {text} It was {answer}"
ANCHORS = "{prompt:2} movie {prompt:1} {text} It was {answer}"
BEHIND = "{text} {prompt:3} It was {answer}"
TOOLS = ("dspy", "mlflow", "promptfoo")
MESSAGES = [{"system": "Task: {prompt:3}"}, {"user": "{text}"}, {"assistant": "It was {answer}"}]
BEGINS = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WORDS = (" bad", " good")


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None,
        reason=f"{package} is not installed: pip install -c constraints.txt {package}",
    )


@pytest.fixture(autouse=True)
def own_data_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


@pytest.fixture
def export(make_saved, tmp_path):
    """Make a prompt, save it and export it."""

    def make(lm, kind, to, template=FRONT, choices=WORDS):
        saved = make_saved(lm, kind, template, choices, 3)
        best = tmp_path / "best"
        best.mkdir(exist_ok=True)
        write_saved(saved, lm, best)
        return saved, export_run(best, to, tmp_path / to, model=lm)

    return make


def loaded(folder, chat_template=None):
    model, tokenizer = tiny_model("llama")
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return LanguageModel.load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model in a folder, as tools load it."""
    return loaded(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """A tiny chat model, whose chat template begins with a token and strips contents."""
    return loaded(tmp_path_factory.mktemp("chat"), BEGINS)


# Variables in double braces.


def test_names_are_plain_everywhere():
    names = variables(["text", "größe", "translation.en", "not", "gold", "not_"], ["gold"])
    assert names == {
        "text": "text",
        "größe": "gr__e",
        "translation.en": "translation_en",
        "not": "not_",
        "gold": "gold_",
        "not_": "not__",
    }
    for name in names.values():
        source = jinja2.Environment().from_string(f"{{{{ {name} }}}}")
        assert source.render(**{name: "a"}) == "a"


def test_variables_are_filled_in_as_a_template_is():
    names = {"text": "text", "a": "b"}
    source = with_variables("{{x}} {text} {a}{{", names, "MLflow")
    assert source == "{x} {{ text }} {{ b }}{"
    fields = {"text": "{{ b }}", "a": "é"}
    assert fill_variables(source, fields, names) == "{x} {{ b }} é{"
    assert (
        jinja2.Environment().from_string(source).render(text="{{ b }}", b="é") == "{x} {{ b }} é{"
    )


@pytest.mark.parametrize("text", ["{{{{x}}}} {text}", "{{% if", "{{# {text}", "a {{{text}"])
def test_braces_that_a_tool_would_read_are_refused(text):
    with pytest.raises(
        ExportError, match="which MLflow would take for the beginning of a variable"
    ):
        with_variables(text, {"text": "text"}, "MLflow")


# Every tool.


@pytest.mark.parametrize("to", TOOLS)
@pytest.mark.parametrize("kind", ["hard", "text"])
@pytest.mark.parametrize("choices", [WORDS, None], ids=["choices", "text"])
def test_a_text_for_a_tool_gives_the_losses_again(llama, export, to, kind, choices):
    saved, folder = export(llama, kind, to, ANCHORS if kind == "hard" else FRONT, choices)
    found = verify(folder, llama)
    assert (found.to, found.probe, found.same) == (to, 5, True)
    assert FORMATS[to].score(saved, llama, folder) == pytest.approx(saved.losses, abs=1e-5)
    card = (folder / "README.md").read_text()
    assert "promptsearch verify" in card and f"library_name: {to}" in card


@pytest.mark.parametrize("to", TOOLS)
@pytest.mark.parametrize("kind", ["hard", "text"])
@pytest.mark.parametrize("choices", [WORDS, None], ids=["choices", "text"])
def test_a_text_through_a_chat_template_gives_the_losses_again(chat, export, to, kind, choices):
    saved, folder = export(chat, kind, to, MESSAGES, choices)
    assert verify(folder, chat).same
    assert FORMATS[to].score(saved, chat, folder) == pytest.approx(saved.losses, abs=1e-5)
    if to == "mlflow":
        messages = json.loads((folder / "messages.json").read_text())
        assert [each["role"] for each in messages] == ["system", "user", "assistant"]
        assert messages[1]["content"] == "{{ text }}"


def test_dspy_takes_one_message(chat, export):
    two = [
        {"system": "Say {prompt:1} a"},
        {"user": "b {prompt:2} {text}"},
        {"assistant": "is {answer}"},
    ]
    with pytest.raises(ExportError, match="two slots of the template stand in different messages"):
        export(chat, "hard", "dspy", two)


@pytest.mark.parametrize("to", [*TOOLS, "lm-eval"])
def test_numbers_are_no_text(llama, export, tmp_path, to):
    with pytest.raises(
        ExportError, match="no text holds it exactly: export it as json, peft or kv"
    ):
        export(llama, "soft", to)
    assert not (tmp_path / to).exists()


@pytest.mark.parametrize(
    ("to", "name", "old", "new"),
    [
        ("promptfoo", "prompt.j2", "It was", "It is"),
        ("mlflow", "template.txt", "It was", "It is"),
        ("dspy", "predict.json", '"instructions": "', '"instructions": "Now '),
    ],
)
def test_another_text_is_not_the_same(llama, export, to, name, old, new):
    _, folder = export(llama, "hard", to)
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert not verify(folder, llama).same
    path.unlink()
    with pytest.raises(PromptError, match=name):
        verify(folder, llama)


@pytest.mark.parametrize("to", ["mlflow", "promptfoo"])
def test_a_variable_that_is_no_field_is_named(llama, export, to):
    _, folder = export(llama, "text", to)
    path = folder / {"mlflow": "template.txt", "promptfoo": "prompt.j2"}[to]
    path.write_text(path.read_text().replace("{{ text }}", "{{ body }}"))
    with pytest.raises(
        PromptError, match="'{{ body }}' is the place of no field; the probe has text"
    ):
        verify(folder, llama)


# promptfoo: what its documentation says of the configuration, and Nunjucks by Jinja.


def test_promptfoo_asks_for_what_is_right(llama, export):
    saved, folder = export(llama, "text", "promptfoo", choices=None)
    config = yaml.safe_load((folder / "promptfooconfig.yaml").read_text())
    assert config["prompts"] == ["file://prompt.j2"]
    assert config["defaultTest"] == {"options": {"transform": "output.trim()"}}
    (provider,) = config["providers"]
    assert provider["id"] == "openai:completion:llama" and provider["config"]["temperature"] == 0
    assert len(config["tests"]) == len(saved.probe)
    template = jinja2.Environment(keep_trailing_newline=True).from_string(
        (folder / "prompt.j2").read_text()
    )
    for test, example in zip(config["tests"], saved.probe, strict=True):
        assert test["assert"] == [{"type": "equals", "value": "Paris"}]
        text = saved.template.render(example.fields, saved.prompt.fill(saved.template), "")
        assert template.render(**test["vars"]) == text


@pytest.mark.parametrize(
    ("decoding", "asked", "said"),
    [
        (Decoding(8, temperature=0.5, top_p=0.9), {"temperature": 0.5, "top_p": 0.9}, False),
        (Decoding(8, beams=3), {"temperature": 0}, True),
    ],
)
def test_promptfoo_is_told_how_answers_are_drawn(
    llama, make_saved, tmp_path, decoding, asked, said
):
    saved = make_saved(llama, "text", "{prompt} {text} It was {answer}", None)
    (tmp_path / "best").mkdir()
    write_saved(replace(saved, decoding=decoding), llama, tmp_path / "best")
    folder = export_run(tmp_path / "best", "promptfoo", tmp_path / "out", model=llama)
    config = yaml.safe_load((folder / "promptfooconfig.yaml").read_text())
    told = config["providers"][0]["config"]
    assert {key: told[key] for key in ("temperature", "top_p") if key in told} == asked
    assert ("the best of 3 beams" in (folder / "README.md").read_text()) == said


def test_promptfoo_is_not_handed_what_it_changes(llama, make_saved, tmp_path):
    saved = make_saved(llama, "text", FRONT, None, 3)
    for number, text in enumerate(["file://x", "a {{ b }}", "ends\n"]):
        saved.probe[number].fields["text"] = text
    losses = tuple(saved.score_probe(llama))
    again = type(saved)(**{**vars(saved), "losses": losses})
    write_saved(again, llama, tmp_path / "best")
    folder = export_run(tmp_path / "best", "promptfoo", tmp_path / "out", model=llama)
    config = yaml.safe_load((folder / "promptfooconfig.yaml").read_text())
    assert len(config["tests"]) == 2
    assert "2 of the 5 inputs below are tests" in (folder / "README.md").read_text()


@pytest.mark.skipif(
    shutil.which("promptfoo") is None, reason="promptfoo is not installed: npm install -g promptfoo"
)
def test_promptfoo_itself_reads_the_folder(llama, export, tmp_path):
    saved, folder = export(llama, "hard", "promptfoo")
    config = yaml.safe_load((folder / "promptfooconfig.yaml").read_text())
    config["providers"] = ["echo"]
    (folder / "promptfooconfig.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "results.json"
    command = ["promptfoo", "eval", "--no-cache", "-o", str(out)]
    alone = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
    alone |= {"PROMPTFOO_CONFIG_DIR": str(tmp_path / "config")}
    asked = {"check": False, "capture_output": True, "timeout": 120}
    subprocess.run(command, cwd=folder, env=os.environ | alone, **asked)
    results = json.loads(out.read_text())["results"]["results"]
    found = {each["testIdx"]: each["prompt"]["raw"] for each in results}
    for number, example in enumerate(saved.probe):
        slots = prompt_texts(saved.template, llama, saved.prompt)
        assert found[number] == saved.template.render(example.fields, slots, "")


# MLflow and DSPy themselves.


@needs("mlflow")
def test_mlflow_registers_and_fills_the_template(llama, export, monkeypatch, tmp_path, capsys):
    saved, folder = export(llama, "text", "mlflow")
    text = saved.template.render(saved.probe[0].fields, saved.prompt.fill(saved.template), "")
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
        exec(compile(code_of(folder), "README.md", "exec"), {})
    assert capsys.readouterr().out.rstrip("\n") == text


@needs("dspy")
def test_dspy_loads_the_state(llama, export, tmp_path):
    saved, folder = export(llama, "text", "dspy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dspy
        from dspy.utils import DummyLM

        predict = dspy.Predict("text -> answer: Literal['bad', 'good']")
        predict.load(str(folder / "predict.json"))
        lm = DummyLM([{"answer": "good"}])
        with dspy.context(lm=lm):
            assert predict(text="a good film").answer == "good"
    assert predict.signature.instructions == saved.prompt.texts[0]
    assert saved.prompt.texts[0] in json.dumps(lm.history[0]["messages"])
    assert "Predict(\"text -> answer: Literal['bad', 'good']\")" in code_of(folder)


def code_of(folder) -> str:
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def test_dspy_keeps_no_input_within_a_prompt(llama, export):
    with pytest.raises(ExportError, match="an input stands between two slots of the template"):
        export(llama, "hard", "dspy", "{prompt:2} {text} or {prompt:1} {text} {answer}")
    _, folder = export(llama, "hard", "dspy", BEHIND)
    assert verify(folder, llama).same


# lm-evaluation-harness.

ROWS = [
    {"text": " ".join(["good film", "the story", "I hate"][: 1 + i % 3]) + f" {i}", "label": i % 2}
    for i in range(60)
]
PLACES = {"Paris": "France", "good": "I hate", "bad movie": "the story"}
SPLITS = {"search": 16, "select": 8, "test": 24}
STUDY = {"budget": 3_000, "seeds": 1, "score_on": 4, "length": 3}
CHOICE = {
    "name": "films",
    "template": "{prompt} {text} It was{answer}",
    "label": "label",
    "answers": {0: " bad", 1: " good"},
    "splits": SPLITS,
}


def study_of(tmp_path, lm, task, strategies=("random",), rows=ROWS, **others):
    """The run of a study whose file and data lie in a folder."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {**STUDY, "task": {"data": {"path": "rows.jsonl"}, **task}, "dtype": "float32"}
    given |= {"strategies": list(strategies), "model": lm and lm.name, **others}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(given))
    compare(tmp_path / "study.yaml", out=tmp_path / "study", model=lm)
    return next((tmp_path / "study").rglob("result.json")).parent


def test_a_task_folder_holds_the_test_split(base, tmp_path, unreported):
    run = study_of(tmp_path, base, CHOICE)
    folder = export_run(run, "lm-eval", tmp_path / "out", model=base, data=tmp_path)
    assert verify(folder, base).same
    (path,) = folder.glob("*.yaml")
    config = yaml.safe_load(path.read_text())
    assert path.name == "promptsearch_films_random.yaml" and config["task"] == path.stem
    assert config["doc_to_choice"] == [" bad", " good"] and config["target_delimiter"] == ""
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    assert len(rows) == 24 and set(rows[0]) == {"text", "gold"}
    known = {row["text"]: row["label"] for row in ROWS}
    assert all(known[row["text"]] == row["gold"] for row in rows)


def test_other_data_are_not_taken_for_those_that_were_tested(base, tmp_path, unreported):
    run = study_of(tmp_path, base, CHOICE)
    with pytest.raises(ExportError, match="rows.jsonl does not exist.* folder of the study file"):
        export_run(run, "lm-eval", tmp_path / "out", model=base)
    others = [{**row, "label": 1 - row["label"]} for row in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    with pytest.raises(ExportError, match="are not those that the prompt was tested on"):
        export_run(run, "lm-eval", tmp_path / "out", model=base, data=tmp_path)
    with pytest.raises(ExportError, match="stands in no study's folder"):
        alone = export_run(run, "json", tmp_path / "alone", model=base)
        shutil.move(alone, tmp_path.parent / f"{tmp_path.name}-alone")
        alone = tmp_path.parent / f"{tmp_path.name}-alone"
        export_run(alone, "lm-eval", tmp_path / "out", model=base)
    assert not (tmp_path / "out").exists()


def test_winners_of_a_server_go_the_same_way(base, tmp_path, unreported):
    with Server(with_model(base)) as server:
        model = {"endpoint": server.url, "model": "tiny", "retries": 1, "seconds": 5}
        given = {"model": model, "pool": [" good", " film", " bad", " story"], "length": 2}
        given |= {"budget": 1_000, "seeds": 1, "score_on": 2}
        sizes = {"search": 4, "select": 2, "test": 2}
        run = study_of(tmp_path, None, {**CHOICE, "splits": sizes}, **given)
        for to in (*TOOLS, "lm-eval"):
            folder = export_run(run, to, tmp_path / to, data=tmp_path)
            assert verify(folder).same
        url = server.url
    (provider,) = yaml.safe_load((tmp_path / "promptfoo/promptfooconfig.yaml").read_text())[
        "providers"
    ]
    assert provider["id"] == "openai:completion:tiny" and provider["config"]["apiBaseUrl"] == url
    assert f"dspy.LM('openai/tiny', api_base='{url}'" in code_of(tmp_path / "dspy")
    card = (tmp_path / "lm-eval" / "README.md").read_text()
    assert "lm_eval --include_path . --tasks promptsearch_films_random" in card
    assert (
        f"--model local-completions \\\n    --model_args base_url={url}/completions,model=tiny"
        in card
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: put(f, "test.jsonl", '"gold": 0', '"gold": 1'), "not hold the rows of the test"),
        (lambda f: put(f, "test.jsonl", '"gold": 0', '"gold": 7'), "expected a place among the an"),
        (
            lambda f: put(f, "test.jsonl", '"text": "', '"text": "x'),
            "not hold the rows of the test",
        ),
        (lambda f: put(f, "*.yaml", "- ' bad'", "- ' awful'"), "its answers to choose from are"),
        (lambda f: put(f, "*.yaml", "{{ text }}", "{{ body }}"), "'body' is undefined"),
        (
            lambda f: put(f, "*.yaml", "doc_to_text: ", "doc_to_text: !function a.b #"),
            "Python func",
        ),
        (lambda f: put(f, "*.yaml", "test: test", "test: https://a.b/test"), "its rows are not th"),
        (lambda f: (f / "test.jsonl").unlink(), "test.jsonl does not exist"),
    ],
)
def test_a_folder_that_was_changed_is_not_believed(base, tmp_path, unreported, change, reason):
    run = study_of(tmp_path, base, CHOICE)
    folder = export_run(run, "lm-eval", tmp_path / "out", model=base, data=tmp_path)
    change(folder)
    with pytest.raises(PromptError, match=reason):
        verify(folder, base)


def put(folder, name, old, new):
    (path,) = folder.glob(name)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_texts_that_datasets_takes_for_times_are_refused(base, tmp_path, unreported):
    rows = [{"text": f"20{i // 12 + 10}-{i % 12 + 1:02}-01", "label": i % 2} for i in range(60)]
    run = study_of(tmp_path, base, CHOICE, rows=rows)
    with pytest.raises(
        PromptError, match="`datasets` reads the field 'text' as datetime: expected"
    ):
        export_run(run, "lm-eval", tmp_path / "out", model=base, data=tmp_path)
    assert not (tmp_path / "out").exists()


TEXT = {
    "name": "places",
    "template": "{prompt} {text} is {answer}\n",
    "label": "place",
    "splits": SPLITS,
}
PLACED = [{**row, "place": list(PLACES)[i % 3]} for i, row in enumerate(ROWS)]
MULTIPLE = {
    "name": "multiple",
    "template": "{prompt} {text} is {answer}",
    "label": "label",
    "answers": {"field": "several"},
    "splits": SPLITS,
}
SEVERAL = [
    {**row, "several": [f"bad {i}", "good film", "Paris", "capital of"][i % 3 : 2 + i % 3]}
    for i, row in enumerate(ROWS)
]
CASES = {
    "choices": (CHOICE, ROWS, "acc,none"),
    "braces": ({**CHOICE, "template": "{prompt} {{% {text} {{{{ It was{answer}"}, ROWS, "acc,none"),
    "spaced": (
        {**CHOICE, "template": "{prompt} {text} It was {answer}", "answers": {0: "bad", 1: "good"}},
        ROWS,
        "acc,none",
    ),
    "options": (MULTIPLE, SEVERAL, "acc,none"),
    "characters": ({**MULTIPLE, "normalise": "characters"}, SEVERAL, "acc_norm,none"),
    "bytes": ({**MULTIPLE, "normalise": "bytes"}, SEVERAL, "acc_bytes,none"),
    "text": (TEXT, PLACED, "exact_match,answer"),
    "references": (
        {**TEXT, "label": "all"},
        [{**row, "all": [row["place"], "good", "a film"]} for row in PLACED],
        "exact_match,answer",
    ),
}


@needs("lm_eval")
@pytest.mark.parametrize("strategy", ["random", "manual"])
@pytest.mark.parametrize("name", CASES)
def test_the_harness_gives_the_reported_number(
    base, tmp_path, monkeypatch, unreported, name, strategy
):
    task, rows, metric = CASES[name]
    strategies = {"random": "random", "manual": {"manual": {"prompts": ["Is it a {%x%}?\nSay:"]}}}
    run = study_of(tmp_path, base, task, [strategies[strategy]], rows)
    folder = export_run(run, "lm-eval", tmp_path / "out", model=base, data=tmp_path)
    assert verify(folder, base).same
    reported = json.loads((run / "result.json").read_text())["test"]["metric"]
    assert harness(folder, monkeypatch)[metric] == pytest.approx(reported, abs=1e-9)
    assert 0 < reported < 1 or name in ("text", "references")


@pytest.mark.parametrize(
    ("decoding", "top_k"), [({"tokens": 3}, None), ({"tokens": 3, "temperature": 0.5}, 0)]
)
def test_the_harness_is_told_to_decode_as_the_task_says_and_not_as_the_model_does(
    base, tmp_path, unreported, decoding, top_k
):
    """Whatever a file leaves out, transformers takes from the model's folder, or has 50 for k."""
    run = study_of(tmp_path, base, {**TEXT, "decoding": decoding}, rows=PLACED)
    folder = export_run(run, "lm-eval", tmp_path / "out", model=base, data=tmp_path)
    (path,) = folder.glob("*.yaml")
    told = yaml.safe_load(path.read_text())["generation_kwargs"]
    assert {key: told.get(key) for key in ("repetition_penalty", "top_k")} == {
        "repetition_penalty": 1.0,
        "top_k": top_k,
    }
    assert "GenerationConfig()" in code_of(folder)


def harness(folder, monkeypatch):
    """What the harness itself finds, run as the card says."""
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, object] = {}
        exec(compile(code_of(folder), "README.md", "exec"), found)
    return found["found"]["results"][next(folder.glob("*.yaml")).stem]


@needs("lm_eval")
@pytest.mark.parametrize("answers", ["choices", "text"])
def test_the_harness_reads_what_a_chat_template_wrote(
    chat, tmp_path, monkeypatch, unreported, answers
):
    task = {**CHOICE, "template": MESSAGES, "answers": {0: "bad", 1: "good"}}
    if answers == "text":
        task = {**TEXT, "template": MESSAGES, "decoding": {"tokens": 6}}
    run = study_of(tmp_path, chat, task, rows=PLACED)
    folder = export_run(run, "lm-eval", tmp_path / "out", model=chat, data=tmp_path)
    assert verify(folder, chat).same and "add_bos_token=False" in code_of(folder)
    reported = json.loads((run / "result.json").read_text())["test"]["metric"]
    found = harness(folder, monkeypatch)
    assert (found.get("acc,none") or found.get("exact_match,answer", 0)) == pytest.approx(reported)
    assert answers == "text" or 0 < reported < 1


def test_what_a_chat_template_strips_is_refused(chat, tmp_path, unreported):
    rows = [{**row, "text": row["text"] + "\n"} for row in ROWS]
    task = {**CHOICE, "template": MESSAGES, "answers": {0: "bad", 1: "good"}}
    run = study_of(tmp_path, chat, task, rows=rows)
    with pytest.raises(ExportError, match=r"lm-eval would read .* on test example 0, and not"):
        export_run(run, "lm-eval", tmp_path / "out", model=chat, data=tmp_path)
    assert not (tmp_path / "out").exists()


@needs("lm_eval")
@pytest.mark.parametrize("end", ["\n", " ", ""], ids=["newline", "word", "token"])
@pytest.mark.parametrize("options", [{}, {"lowercase": True, "punctuation": False}])
def test_the_harness_counts_the_answers_that_were_counted(
    base, tmp_path, monkeypatch, unreported, end, options
):
    """Every other row's right answer is what the model says, spelled otherwise if that may be."""
    task = {**TEXT, "template": TEXT["template"].rstrip("\n") + end.replace(" ", " the")}
    task |= {"decoding": {"tokens": 6}, "metric": {"exact_match": options}}
    strategy = [{"manual": {"prompts": ["Where is it? Say:"]}}]
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    saved = load_prompt(study_of(first, base, task, strategy, PLACED))
    said = [row["answer"].strip() for row in saved.apply(PLACED, base)]
    spelled = [text.upper() + "." if options else text for text in said]
    rows = [
        {**row, "place": text if i % 2 and text.strip() else row["place"]}
        for i, (row, text) in enumerate(zip(PLACED, spelled, strict=True))
    ]
    run = study_of(second, base, task, strategy, rows)
    folder = export_run(run, "lm-eval", tmp_path / "out", model=base, data=second)
    reported = json.loads((run / "result.json").read_text())["test"]["metric"]
    found = harness(folder, monkeypatch)["exact_match,answer"]
    assert found == pytest.approx(reported, abs=1e-9) and 0.2 < reported < 0.8
