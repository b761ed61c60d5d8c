"""The log: what a kill leaves is repaired, any other damage is named."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch import (
    GatedPrompt,
    HardPrompt,
    PrefixPrompt,
    SoftPrompt,
    TextPrompt,
    TunedPrompt,
    Weights,
)
from promptsearch.errors import PromptError, RecordError
from promptsearch.prompts.kinds import TRAINED
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog, read_log
from promptsearch.records.sealed import sealed_line, unseal
from promptsearch.testing.planted import PlantedScorer

FILE = "evaluations.jsonl"
SCORES = {"losses": [], "metric": [], "choices": None, "failures": {}, "computed": 0}
#: Kind -> makes a trained prompt of it.
MADE = {
    "soft": lambda number: SoftPrompt(torch.full((2, 3), number)),
    "prefix": lambda number: PrefixPrompt(torch.full((2, 3, 2, 1, 4), number)),
    "gated": lambda number: GatedPrompt(torch.full((2, 3, 4), number), torch.ones(3, 1)),
    "weights": lambda number: Weights({"a": torch.full((2,), number)}),
    "tuned": lambda number: TunedPrompt({"vectors": torch.full((2, 3), number)}),
}
NEW = {
    "stage": "search",
    "examples": "score_on",
    "prompts": [],
    **SCORES,
    "price": 0,
    "ledger": Ledger().to_json(),
}


@pytest.fixture
def folder(tmp_path):
    """A run's folder with four evaluations."""
    scorer = PlantedScorer("separable")
    objective = scorer.objective(log=RunLog(tmp_path))
    rng = np.random.default_rng(0)
    for _ in range(4):
        objective.evaluate(scorer.space.sample(rng, 2))
    return tmp_path


def raw_lines(folder):
    return (folder / FILE).read_bytes().splitlines(keepends=True)


def write(folder, lines):
    (folder / FILE).write_bytes(b"".join(lines))


def test_what_was_appended_is_read_back(folder):
    lines, size = read_log(folder / FILE)
    assert [line["n"] for line in lines] == [0, 1, 2, 3]
    assert size == (folder / FILE).stat().st_size
    assert lines == [unseal(json.loads(raw)) for raw in raw_lines(folder)]


def test_no_file_is_an_empty_log(tmp_path):
    assert read_log(tmp_path / FILE) == ([], 0)
    assert not RunLog(tmp_path).replaying


def test_half_a_first_line_is_dropped_before_another_is_written(folder):
    write(folder, [raw_lines(folder)[0][:-20]])
    RunLog(folder).append(NEW)
    assert [line["n"] for line in read_log(folder / FILE)[0]] == [0]


@pytest.mark.parametrize("cut", [1, 2, 30, 300])
def test_a_last_line_that_was_cut_is_dropped_and_the_file_repaired(folder, cut):
    whole = raw_lines(folder)
    write(folder, [*whole[:3], whole[3][:-cut]])
    log = RunLog(folder)
    assert raw_lines(folder) == whole[:3]
    keys = [[prompt["key"] for prompt in json.loads(raw)["prompts"]] for raw in whole[:3]]
    assert [log.replay("search", key)["n"] for key in keys] == [0, 1, 2]
    log.append(NEW | {"ledger": json.loads(whole[2])["ledger"]})
    assert [line["n"] for line in read_log(folder / FILE)[0]] == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000))
def test_wherever_a_kill_cuts_the_file_whole_lines_survive(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("run")
    scorer = PlantedScorer("separable")
    objective = scorer.objective(log=RunLog(folder))
    objective.evaluate([scorer.optimum])
    objective.evaluate(scorer.space.sample(np.random.default_rng(0), 2))
    content = (folder / FILE).read_bytes()[:cut]
    (folder / FILE).write_bytes(content)
    lines, size = read_log(folder / FILE)
    assert len(lines) == content.count(b"\n") and size == content.rfind(b"\n") + 1


def edited(raw, **changes):
    """The line with other content, sealed anew: its checksum is right."""
    line = unseal(json.loads(raw)) | changes
    return sealed_line({name: value for name, value in line.items() if value is not ...})


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"not json\n",
        lambda raw: b"\n",
        lambda raw: b"\xff\xfe\n",
        lambda raw: b"null\n",
        lambda raw: b"[1, 2]\n",
        lambda raw: b"{}\n",
        lambda raw: raw[: len(raw) // 2] + b"\n",
        lambda raw: b"",  # a line is missing: the numbers jump
        lambda raw: raw + raw,  # a line is there twice
        lambda raw: edited(raw, n=7),
        lambda raw: edited(raw, stage="somewhere"),
        lambda raw: edited(raw, losses=[]),
        lambda raw: edited(raw, prompts=...),
        lambda raw: edited(raw, seconds=...),
        lambda raw: edited(raw, seconds="long"),
        lambda raw: edited(raw, ledger=...),
        lambda raw: b"\r" + raw[:-9] + b"\n",  # a carriage return ends no line
    ],
)
def test_other_damage_names_file_and_line(folder, damage):
    lines = raw_lines(folder)
    lines[1] = damage(lines[1])
    write(folder, lines)
    number = 3 if lines[1].count(b"\n") == 2 else 2
    with pytest.raises(
        RecordError,
        match=rf"{FILE}, line {number}: this is not evaluation number {number - 1} of the run",
    ):
        RunLog(folder)


def test_damage_leaves_the_file_as_it_was(folder):
    lines = raw_lines(folder)
    write(folder, [lines[0], b"?\n", lines[2][:-3]])
    before = (folder / FILE).read_bytes()
    with pytest.raises(RecordError):
        RunLog(folder)
    assert (folder / FILE).read_bytes() == before


def test_a_replay_about_other_prompts_is_refused(folder):
    log = RunLog(folder)
    with pytest.raises(
        RecordError, match="evaluation 0 of .* is about other prompts than the run proposes now"
    ):
        log.replay("search", ["other"])


def test_a_replay_at_another_stage_is_refused(folder):
    log = RunLog(folder)
    keys = [prompt["key"] for prompt in json.loads(raw_lines(folder)[0])["prompts"]]
    with pytest.raises(RecordError, match="evaluation 0"):
        log.replay("select", keys)


def test_working_time_adds_up_over_processes(folder):
    lines = raw_lines(folder)
    write(folder, [*lines[:3], edited(lines[3], seconds=100.0)])
    log = RunLog(folder)
    assert 100 <= log.seconds < 110
    log.skip(4)
    log.append(NEW | {"ledger": json.loads(lines[3])["ledger"]})
    assert read_log(folder / FILE)[0][-1]["seconds"] >= 100


def test_lines_that_a_state_covers_are_known_and_not_replayed(folder):
    log = RunLog(folder)
    assert [line["n"] for line in log.ahead(3)] == [0, 1, 2] and not log.lines
    log.skip(3)
    assert log.replaying and [line["n"] for line in log.lines] == [0, 1, 2]


def test_a_state_that_covers_more_than_the_log_holds_is_refused(folder):
    with pytest.raises(RecordError, match="covers 5 evaluations, but the log holds 4"):
        RunLog(folder).ahead(5)


def test_the_log_knows_when_an_earlier_process_had_ended_the_search(folder):
    lines = raw_lines(folder)
    write(folder, [*lines[:2], edited(lines[2], stage="rescore"), edited(lines[3], stage="select")])
    log = RunLog(folder)
    assert not log.searched
    log.skip(2)
    assert log.searched
    log.skip(2)
    assert not log.searched


@pytest.mark.parametrize("kind", TRAINED)
def test_the_numbers_of_trained_prompts_are_kept_until_others_are(tmp_path, kind):
    one, two = (MADE[kind](float(i)) for i in range(2))
    log = RunLog(tmp_path)
    assert log.prompt(one.to_json()) is None
    log.keep([one])
    log.keep([one, two])
    assert [log.prompt(prompt.to_json()) for prompt in (one, two)] == [one, two]
    log.keep_only([two])
    assert [log.prompt(prompt.to_json()) for prompt in (one, two)] == [None, two]


def test_in_memory_nothing_is_kept():
    log, prompt = RunLog(), MADE["soft"](0.0)
    log.keep([prompt])
    log.keep_only([])
    assert log.prompt(prompt.to_json()) is None


def test_hard_and_text_prompts_are_in_the_log_in_full(tmp_path):
    log = RunLog(tmp_path)
    for prompt in (HardPrompt([3, 4]), TextPrompt(["a", "b"])):
        log.keep([prompt])
        log.keep_only([])
        assert log.prompt(prompt.to_json()) == prompt
    assert not list(tmp_path.iterdir())


def test_a_changed_prompt_is_found_by_its_key(folder):
    log = RunLog(folder)
    data = HardPrompt([3, 4]).to_json() | {"ids": [3, 5]}
    with pytest.raises(PromptError, match="does not have the content that its key names"):
        log.prompt(data)


def test_losses_that_are_no_numbers_are_never_written(tmp_path):
    log = RunLog(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        log.append(NEW | {"prompts": ["p"], "losses": [[float("nan")]]})
    assert read_log(tmp_path / FILE)[0] == []


def test_vectors_that_were_changed_on_disk_are_found_by_their_key(tmp_path):
    log, prompt, other = (
        RunLog(tmp_path),
        SoftPrompt(torch.zeros(2, 3)),
        SoftPrompt(torch.ones(2, 3)),
    )
    log.keep([prompt, other])
    files = tmp_path / "finalists"
    (files / f"{other.key}.safetensors").replace(files / f"{prompt.key}.safetensors")
    assert log.prompt(prompt.to_json()) is None, "they are not believed"
