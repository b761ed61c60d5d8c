"""Exports of strangers: read strictly or refused in a sentence, whatever their files hold.

Nothing of them runs.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from promptsearch.errors import PromptError, PromptSearchError
from promptsearch.export import export_run, load_prompt, read_peft, verify
from promptsearch.export.saved import write_saved
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.tensors import read_tensors

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def exports(tiny, make_saved, tmp_path_factory):
    """Exports of a hard, a soft and a low-rank prompt by `kind-format`."""
    folder, found = tmp_path_factory.mktemp("exports"), {}
    for kind, formats in {
        "hard": ("text",),
        "soft": ("peft", "vllm"),
        "prefix": ("kv",),
        "gated": ("peft",),
        "weights": ("peft",),
    }.items():
        saved = make_saved(tiny, kind, "{prompt} {text} It was{answer}", (" bad", " good"))
        found[f"{kind}-json"] = folder / f"{kind}-json"
        write_saved(saved, tiny, found[f"{kind}-json"])
        for to in formats:
            found[f"{kind}-{to}"] = export_run(
                found[f"{kind}-json"], to, folder / f"{kind}-{to}", model=tiny
            )
    return found


@pytest.fixture
def take(exports, tmp_path):
    """A copy of an export, for changing."""
    return lambda name: shutil.copytree(exports[name], tmp_path / name)


def record(folder):
    return next(
        path for path in (folder / "certificate.json", folder / "prompt.json") if path.exists()
    )


def change(path, value, *place):
    """Put a value, or JSON text in `...`, at a place of a JSON file."""
    data = json.loads(path.read_text())
    holder = data
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = "@here@"
    text = value[3:] if isinstance(value, str) and value.startswith("...") else json.dumps(value)
    path.write_text(json.dumps(data).replace('"@here@"', text))


def refused(work):
    """It ends within a second or two in one of the library's errors."""
    begin = time.monotonic()
    with pytest.raises(PromptSearchError) as caught:
        work()
    assert time.monotonic() - begin < 10
    return str(caught.value)


PLACES = [
    ("format",),
    ("prompt",),
    ("prompt", "kind"),
    ("prompt", "key"),
    ("template",),
    ("lengths",),
    ("lengths", 0),
    ("choices",),
    ("choices", 0),
    ("model",),
    ("model", "source"),
    ("model", "width"),
    ("model", "served"),
    ("probe",),
    ("probe", 0),
    ("probe", 0, "fields"),
    ("probe", 0, "answer"),
    ("probe", 0, "choice"),
    ("probe", 0, "aliases"),
    ("probe", 0, "loss"),
    ("task",),
    ("strategy",),
]
VALUES = [
    3.5,
    -1,
    True,
    [[1]],
    {"a": [1]},
    "...1" + "0" * 400,
    "...NaN",
    "...-1e999",
    '..."\\ud83d"',
    f"...{DEEP}",
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("name", ["hard-json", "soft-vllm"])
def test_a_value_of_another_type_is_refused_by_its_place(take, tiny, name, place):
    folder = take(name)
    whole = record(folder).read_text()
    for value in VALUES:
        if (place[-1], value) in (
            ("loss", 3.5),
            ("model", {"a": [1]}),
        ):  # a loss like any other; a model of which nothing is said
            continue
        change(record(folder), value, *place)
        message = refused(lambda: verify(folder, tiny))
        assert len(message) < 1500
        record(folder).write_text(whole)
    assert verify(folder, tiny).same


@pytest.mark.parametrize(
    "content", [DEEP, "null", "3", '"x"', "[]", "{}", "", "\ufeff{}", '{"format": 1, "format": 2}']
)
@pytest.mark.parametrize("name", ["hard-json", "soft-peft", "hard-text"])
def test_json_that_is_no_certificate_is_refused(take, tiny, name, content):
    folder = take(name)
    record(folder).write_text(content, "utf-8")
    refused(lambda: verify(folder, tiny))


def test_what_a_certificate_says_twice_agrees(take, tiny):
    folder = take("hard-json")
    change(folder / "prompt.json", " good", "probe", 0, "answer")
    assert "probe.0: expected the answer" in refused(lambda: verify(folder, tiny))


def test_a_probe_that_lacks_the_templates_field_is_refused(take, tiny):
    folder = take("hard-json")
    change(folder / "prompt.json", {"other": "x"}, "probe", 1, "fields")
    assert "probe.1.fields lacks the template's field 'text'" in refused(
        lambda: verify(folder, tiny)
    )


def test_ids_that_the_model_does_not_have_are_refused(take, tiny):
    folder = take("hard-json")
    for id_ in (-1, 10**6, 10**18):
        ids = json.loads((folder / "prompt.json").read_text())["prompt"]["ids"]
        ids[0] = id_
        change(
            folder / "prompt.json",
            {"kind": "hard", "key": HardPrompt(ids).key, "ids": ids},
            "prompt",
        )
        refused(lambda: verify(folder, tiny))


OPTIONS = [
    ("weights-peft", "r", 0),
    ("weights-peft", "r", -2),
    ("weights-peft", "r", 5),
    ("weights-peft", "r", "8"),
    ("weights-peft", "lora_alpha", None),
    ("weights-peft", "lora_alpha", "x"),
    ("weights-peft", "modules_to_save", ["lm_head"]),
    ("weights-peft", "rank_pattern", {"(a+)+$": 2}),
    ("weights-peft", "task_type", "x"),
    ("soft-peft", "task_type", "x"),
    ("soft-peft", "peft_type", 3),
    ("soft-peft", "peft_type", []),
    ("soft-peft", "num_virtual_tokens", 0),
    ("soft-peft", "num_virtual_tokens", 3.0),
    ("soft-peft", "num_virtual_tokens", 10**30),
    ("gated-peft", "adapter_layers", 0),
    ("gated-peft", "adapter_len", "x"),
    ("gated-peft", "target_modules", "(([a-z_.0-9])+)+!"),
]


def test_what_a_prompt_does_not_say_of_its_model_is_told_or_not_needed(take, tiny):
    folder = take("hard-json")
    for told, said in (
        ({"hash": "x"}, f"found for a model with hash x; '{tiny.name}' has"),
        ({"name": "m", "hash": "x"}, "found for the model 'm' with hash x"),
    ):
        change(record(folder), told, "model")
        assert said in refused(lambda: load_prompt(folder).model(tiny))
    for told in ({}, {"source": None}, {"served": None, "hash": None}):
        change(record(folder), told, "model")
        assert load_prompt(folder).model(tiny).hash == tiny.hash
        assert "hand the model over" in refused(lambda: load_prompt(folder).model())


def test_a_card_says_what_was_measured_where_a_file_says_less(take, tiny, tmp_path):
    folder = take("hard-json")
    told = json.loads(record(folder).read_text())
    told |= {"test": {"metric": 0.5, "loss": None}}
    told.pop("metric", None)
    record(folder).write_text(json.dumps(told))
    out = export_run(folder, "text", tmp_path / "out", model=tiny)
    assert "| test | metric | 0.500 | - |" in (out / "README.md").read_text()


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
@pytest.mark.parametrize("shape", [(), (4,), (4, 4, 4)])
def test_low_rank_weights_of_another_number_of_dimensions_are_refused(take, tiny, part, shape):
    path = take("weights-peft") / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if part in name)
    save_file({**tensors, name: torch.ones(shape)}, path)
    refused(lambda: read_peft(path.parent, tiny))


@pytest.mark.parametrize(("name", "option", "value"), OPTIONS)
def test_options_of_peft_that_cannot_be_are_refused(take, tiny, name, option, value):
    folder = take(name)
    change(folder / "adapter_config.json", value, option)
    refused(lambda: read_peft(folder, tiny))


PASSED_ON = [
    ("weights-peft", "target_modules", "(([a-z_.0-9])+)+!"),
    ("weights-peft", "target_modules", ["(([a-z_.0-9])+)+!"]),
    ("weights-peft", "layers_pattern", "(([a-z_.0-9])+)+!"),
    ("weights-peft", "exclude_modules", "(([a-z_.0-9])+)+!"),
    ("weights-peft", "megatron_core", "os"),
    ("soft-peft", "token_dim", 0),
    ("soft-peft", "token_dim", 10**5),
    ("soft-peft", "num_layers", 7),
    ("soft-peft", "prompt_tuning_init", "TEXT"),
    ("soft-peft", "tokenizer_name_or_path", "/dev/zero"),
    ("soft-peft", "tokenizer_kwargs", {"trust_remote_code": True}),
]


@pytest.mark.parametrize(("name", "option", "value"), PASSED_ON)
def test_peft_itself_reads_nothing_but_what_export_writes(take, tiny, name, option, value):
    pytest.importorskip("peft")
    folder = take(name)
    change(folder / "adapter_config.json", value, option)
    assert option in refused(lambda: verify(folder, tiny))


def test_a_folder_that_others_wrote_may_name_modules_as_patterns(take, tiny):
    folder = take("weights-peft")
    prompt = read_peft(folder, tiny)
    change(folder / "adapter_config.json", "(([a-z_.0-9])+)+!", "target_modules")
    assert read_peft(folder, tiny) == prompt


def headers():
    def lie(**told):
        def change(header, body):
            name = next(key for key in header if key != "__metadata__")
            header[name] |= told
            return header, body

        return change

    yield from (
        lie(shape=[0]),
        lie(shape=[10**18, 10**18]),
        lie(shape=[-1, 4]),
        lie(shape="x"),
        lie(dtype="I64"),
        lie(dtype="F8_E4M3"),
        lie(dtype="x"),
        lie(dtype=None),
        lie(data_offsets=[0, 2**63]),
        lie(data_offsets=[5, 3]),
        lie(data_offsets="x"),
    )


@pytest.mark.parametrize("lie", list(headers()))
@pytest.mark.parametrize("name", ["soft-json", "soft-peft", "soft-vllm", "prefix-kv"])
def test_a_header_of_tensors_that_lies_is_refused(take, tiny, name, lie):
    folder = take(name)
    (path,) = folder.glob("*.safetensors")
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, body = lie(json.loads(content[8 : 8 + size]), content[8 + size :])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    refused(lambda: verify(folder, tiny))


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["soft-json", "soft-peft", "soft-vllm", "prefix-kv"])
def test_numbers_that_are_none_are_refused(take, tiny, name, number):
    folder = take(name)
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = number
    save_file(tensors, path)
    assert "holds something else than numbers" in refused(lambda: verify(folder, tiny))


@pytest.mark.parametrize("name", ["soft-json", "soft-peft", "hard-text"])
def test_what_is_no_ordinary_file_is_not_read(take, tiny, name):
    folder = take(name)
    for path in [
        p
        for p in folder.iterdir()
        if p.suffix in (".json", ".safetensors", ".txt") and p.name != "prompt.txt"
    ]:
        content = path.read_bytes()
        for make in (
            os.mkfifo,
            lambda p: p.symlink_to("/dev/zero"),
            lambda p: p.symlink_to(p.name),
            lambda p: p.mkdir(),
        ):
            path.unlink()
            make(path)
            refused(lambda: verify(folder, tiny))
            path.rmdir() if path.is_dir() else path.unlink()
            path.write_bytes(content)
    assert verify(folder, tiny).same


def test_a_file_that_is_larger_than_memory_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # a hole: no room on disk
    with pytest.raises(PromptError, match="bytes"):
        read_tensors(path)


@pytest.mark.parametrize(
    "key", ["../outside", "/etc/passwd", "..", "", "a\0b", "x" * 300, "*", 3, None]
)
def test_a_key_names_no_file_outside_of_the_folder(take, tiny, key):
    folder = take("soft-json")
    (path,) = folder.glob("*.safetensors")
    shutil.copy(path, folder.parent / "outside.safetensors")
    change(folder / "prompt.json", key, "prompt", "key")
    assert "key" in refused(lambda: load_prompt(folder))


@pytest.mark.parametrize(
    "text",
    [
        "{text.__class__}",
        "{text:>999999999999}",
        "{text[0]}",
        "{0}",
        "{",
        "}",
        "{text!x}",
        "{other}",
        "{text:{text}}",
    ],
)
def test_a_text_has_places_of_fields_and_no_formats(take, tiny, text):
    folder = take("hard-text")
    (folder / "template.txt").write_text(text)
    refused(lambda: verify(folder, tiny))


def test_pickles_are_refused_whatever_the_case_of_their_names(take, tiny):
    folder = take("soft-peft")
    (folder / "X.PKL").write_bytes(b"")
    assert "pickle" in refused(lambda: verify(folder, tiny))


def test_tensors_of_another_size_than_the_models_are_refused(take, tiny):
    folder = take("soft-vllm")
    save_file({"slot.0": torch.zeros(3, 7)}, folder / "prompt_embeds.safetensors")
    assert "shape" in refused(lambda: verify(folder, tiny))
