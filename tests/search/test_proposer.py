import json
import os
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from rich.console import Console

from promptsearch import Strategy, TextPrompt
from promptsearch.errors import (
    BudgetExhausted,
    EndpointDown,
    ModelError,
    PromptError,
    PromptSearchError,
    RecordError,
    StrategyError,
    StudyError,
)
from promptsearch.models.endpoint import Completion, Endpoint
from promptsearch.models.tokens import Tokens
from promptsearch.records.ledger import Fare, Ledger
from promptsearch.records.load import load_results
from promptsearch.records.log import ProposalLog, RunLog
from promptsearch.report import write_report
from promptsearch.report.forecast import print_forecast
from promptsearch.search import loop
from promptsearch.search.proposer import LocalProposing, Proposer, RemoteProposing
from promptsearch.study.config import parse_config
from promptsearch.study.forecast import forecast
from promptsearch.study.prepare import prepare
from promptsearch.study.study import Study
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.proposing import PlantedProposing
from promptsearch.testing.server import Reply, Server, completion


class Counting:
    """A proposer that says what it was asked, and counts."""

    def __init__(self):
        self.calls = []

    def most(self, request):
        return len(request.split())

    def complete(self, requests, *, max_tokens, temperature, seeds, stop):
        self.calls.append((list(requests), max_tokens, temperature, list(seeds), list(stop)))
        return [
            Completion(f"{request} {seed}", self.most(request), 2)
            for request, seed in zip(requests, seeds, strict=True)
        ]


def proposer(model=None, budget=None, log=None, reserve=0, **more):
    ledger, log = Ledger(budget), log or ProposalLog()
    return Proposer(model or Counting(), ledger, log, lambda: reserve, **more), ledger


def test_requests_and_what_is_written_are_charged():
    made, ledger = proposer(budget=100)
    texts = made.generate(["a b c", "d"], seed=0, max_tokens=5)
    assert [text.rpartition(" ")[0] for text in texts] == ["a b c", "d"]
    assert (ledger.proposer, ledger.spent) == (3 + 2 + 1 + 2, 8)


@pytest.mark.parametrize("budget", [33, 32])
def test_a_larger_model_costs_more_a_token(budget):
    """It reads four tokens and may write ten, at 2 and 2.5 tokens of the LM each."""
    made, ledger = proposer(budget=budget, fare=Fare(2.0, 2.5, "price"))
    if budget < 33:
        with pytest.raises(BudgetExhausted):
            made.generate(["a b c", "d"], seed=0, max_tokens=5)
        return
    made.generate(["a b c", "d"], seed=0, max_tokens=5)
    assert ledger.proposer == 2 * 4 + 2.5 * 4


@pytest.mark.parametrize(
    ("budget", "reserve", "payable"), [(16, 0, True), (15, 0, False), (20, 4, True), (20, 5, False)]
)
def test_the_most_that_a_call_may_cost_must_be_left_beside_the_reserve(budget, reserve, payable):
    model = Counting()
    made, ledger = proposer(model, budget, reserve=reserve)
    if payable:
        made.generate(["a b c", "d e f"], seed=0, max_tokens=5)
        assert ledger.spent == 10
    else:
        with pytest.raises(BudgetExhausted):
            made.generate(["a b c", "d e f"], seed=0, max_tokens=5)
        assert (model.calls, ledger.spent) == ([], 0)


def test_same_seed_same_texts_and_another_text_for_each_request_and_call():
    def run(seed):
        made, _ = proposer()
        return [made.generate(["a", "a"], seed=seed, max_tokens=5) for _ in range(2)]

    assert run(0) == run(0)
    assert run(0) != run(1)
    (a, b), (c, d) = run(0)
    assert len({a, b, c, d}) == 4


@pytest.mark.parametrize("call", [{"requests": []}, {"max_tokens": 0}, {"temperature": -0.5}])
def test_impossible_calls_are_refused(call):
    made, _ = proposer()
    with pytest.raises(StrategyError, match="expected requests, at least one token"):
        made.generate(**{"requests": ["a"], "seed": 0, "max_tokens": 5, **call})


def test_nobody_to_propose_is_said():
    with pytest.raises(StrategyError, match="there is no model to propose"):
        Proposer(None, Ledger(None), ProposalLog(), lambda: 0).generate(["a"], seed=0, max_tokens=5)


# The log.


class Asking(Strategy):
    """Asks the proposer twice for each prompt that it proposes."""

    proposes = frozenset({TextPrompt})

    def ask(self) -> Sequence[TextPrompt]:
        generate = self.objective.proposer.generate
        first, second = (generate(["w1 w2", "w3"], seed=self.seed, max_tokens=5)[i] for i in (0, 1))
        return [TextPrompt(first), TextPrompt(second)]


class Killed(KeyboardInterrupt):
    """Stands for a kill: nothing may catch it."""


class DyingLog(ProposalLog):
    """Dies before, during or after the writing of one line."""

    def __init__(self, folder, at, how):
        super().__init__(folder)
        self.at, self.how = at, how

    def append(self, line):
        if self.count != self.at:
            return super().append(line)
        if self.how != "before":
            super().append(line)
        if self.how == "half":
            os.truncate(self._path, self._path.stat().st_size - 5)
        raise Killed


def run(folder, model, dying=None):
    scorer = PlantedScorer("separable")
    log = RunLog(folder)
    if dying:
        log.proposals = DyingLog(folder, *dying)
    objective = scorer.objective(scorer.budget(12), log=log, proposing=model)
    reason = loop.search(Asking(objective, seed=3))
    return (
        reason,
        [(line["prompts"], line["losses"], line["ledger"]) for line in objective.log.lines],
        objective.ledger.spent,
    )


@pytest.mark.parametrize("how", ["before", "half", "after"])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_killed_run_reads_texts_back_to_the_same_numbers(tmp_path, at, how):
    whole = run(None, Counting())
    with pytest.raises(Killed):
        run(tmp_path, Counting(), (at, how))
    model = Counting()
    assert run(tmp_path, model) == whole
    everything = Counting()
    run(None, everything)
    kept = at + (how == "after")
    assert len(model.calls) == len(everything.calls) - kept, "what was written is not written again"
    nobody = Counting()
    assert run(tmp_path, nobody) == whole
    assert nobody.calls == []


def test_a_saved_state_covers_the_calls_before_it(tmp_path, monkeypatch):
    class Stateful(Asking):
        def __init__(self, objective, *, seed):
            super().__init__(objective, seed=seed)
            self.told = 0

        def tell(self, prompts, evaluation):
            self.told += 1
            if self.told == self.dies:
                raise Killed

        def state(self):
            return loop.State({}, {"told": self.told})

        def restore(self, state):
            self.told = state.data["told"]

    monkeypatch.setattr(loop, "SAVING_SHARE", 1e9)

    def search(folder, model, dies=None):
        scorer = PlantedScorer("separable")
        objective = scorer.objective(scorer.budget(12), log=RunLog(folder), proposing=model)
        strategy = Stateful(objective, seed=3)
        strategy.dies = dies
        loop.search(strategy, folder)
        return [line["prompts"] for line in objective.log.lines], objective.ledger.to_json()

    whole = search(None, Counting())
    with pytest.raises(Killed):
        search(tmp_path, Counting(), dies=3)
    assert (tmp_path / "state.safetensors").exists()
    assert search(tmp_path, Counting()) == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[1], *lines[1:]],
        lambda lines: ["{}", *lines[1:]],
        lambda lines: ["no JSON", *lines[1:]],
        lambda lines: [json.dumps({**json.loads(lines[0]), "texts": "ab"}), *lines[1:]],
        lambda lines: [json.dumps({**json.loads(lines[0]), "price": -1}), *lines[1:]],
    ],
)
def test_other_damage_than_half_a_last_line_is_an_error(tmp_path, damage):
    run(tmp_path, Counting())
    path = tmp_path / "proposals.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(damage(lines)) + "\n")
    with pytest.raises(
        RecordError, match=r"proposals.jsonl, line 1: this is not proposal number 0"
    ):
        RunLog(tmp_path)


def test_a_strategy_that_asks_something_else_after_a_kill_is_found_out(tmp_path):
    made, _ = proposer(log=ProposalLog(tmp_path))
    made.generate(["a"], seed=0, max_tokens=5)
    again, _ = proposer(log=ProposalLog(tmp_path))
    with pytest.raises(
        RecordError, match="proposal 0 of .*proposals.jsonl answers another request"
    ):
        again.generate(["b"], seed=0, max_tokens=5)


# Models.


@pytest.mark.parametrize("chat", [False, True])
def test_a_local_model_goes_on_with_a_text_or_answers_through_its_chat_template_and_stops(
    tiny, chat
):
    local = LocalProposing(tiny, chat=chat)
    request = "Write the best answer."
    ids = tiny.encode(request)
    if chat:
        message = [{"role": "user", "content": request}]
        ids = tiny.tokenizer.apply_chat_template(
            message, tokenize=True, add_generation_prompt=True, return_dict=True
        ).input_ids
    assert local.most(request) == len(ids)
    (found,) = local.complete([request], max_tokens=8, temperature=0, seeds=[0], stop=())
    best = list(ids)
    for _ in range(8):
        best.append(int(tiny.model(input_ids=torch.tensor([best])).logits[0, -1].argmax()))
    assert found.text == tiny.tokenizer.decode(best[len(ids) :], skip_special_tokens=True).lstrip()
    assert (found.tokens_in, found.tokens_out) == (len(ids), 8)
    stop = found.text[3:5]
    (short,) = local.complete([request], max_tokens=8, temperature=0, seeds=[0], stop=(stop,))
    assert short.text == found.text.partition(stop)[0]
    assert short.tokens_out <= 8


def test_what_a_local_model_draws_does_not_depend_on_the_other_requests(tiny):
    local = LocalProposing(tiny)
    settings = {"max_tokens": 6, "temperature": 1.0, "stop": ()}
    (alone,) = local.complete(["It was"], seeds=[5], **settings)
    assert (
        local.complete(["The capital of France is Paris", "It was"], seeds=[1, 5], **settings)[1]
        == alone
    )


def test_a_model_without_a_chat_template_is_no_chat(tiny, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    with pytest.raises(
        ModelError, match="'tiny-llama' has no chat template: set the proposer's 'chat' to false"
    ):
        LocalProposing(tiny, chat=True)


def test_a_request_longer_than_the_context_is_said(tiny):
    with pytest.raises(
        PromptError, match="but the model reads at most 512: show it fewer or shorter examples"
    ):
        LocalProposing(tiny).complete(
            ["good " * 600], max_tokens=8, temperature=0, seeds=[0], stop=()
        )


def writing(content):
    """What a server writes: the end of the request, and the seed that came with it."""
    return f"{content['prompt'][-2:]} {content['seed']}"


def served(path, content):
    return Reply(completion(writing(content), 3, 2))


def remote(server, **options):
    parallel = options.pop("parallel", 1)
    endpoint = Endpoint(server.url, "m", seconds=5, retries=0, pause=0.001, parallel=parallel)
    return RemoteProposing(endpoint, **options)


def test_a_remote_model_is_asked_once_a_request_in_order_and_its_bytes_bound_the_price():
    def late(path, content):  # the first answer comes last
        return Reply(
            completion(writing(content), 3, 2), seconds=0.1 * content["prompt"].startswith("é")
        )

    with Server(late) as server:
        model = remote(server, parallel=4)
        made, ledger = proposer(model)
        texts = made.generate(["é", "b"], seed=0, max_tokens=5, temperature=0.5, stop=("\n",))
        asked = sorted(server.requests, key=lambda content: content["prompt"])
    assert [(c["prompt"], c["max_tokens"], c["temperature"], c["stop"]) for c in asked] == [
        ("b", 5, 0.5, ["\n"]), ("é", 5, 0.5, ["\n"]),
    ]  # fmt: skip
    assert texts == [writing(c) for c in reversed(asked)]
    assert ledger.proposer == 10
    assert model.most("é") == 2 + model.AROUND


def test_the_tokenizer_of_a_remote_model_bounds_the_price(tiny):
    with Server(served) as server:
        model = remote(server, tokens=Tokens(tiny.tokenizer))
        assert model.most("good movie") == len(tiny.encode("good movie")) + model.AROUND


def test_what_a_server_counts_beyond_reason_is_not_charged():
    with Server(lambda path, content: Reply(completion("x", 10**6, 10**6))) as server:
        made, ledger = proposer(remote(server), budget=100)
        made.generate(["ab"], seed=0, max_tokens=5)
    assert ledger.spent == 2 + RemoteProposing.AROUND + 5


@pytest.mark.parametrize("status", [401, 503])
def test_a_server_that_is_down_stops_the_study_not_only_the_run(status):
    with (
        Server(lambda path, content: Reply({"error": "no"}, status)) as server,
        pytest.raises(EndpointDown, match=str(status)),
    ):
        proposer(remote(server))[0].generate(["a"], seed=0, max_tokens=5)


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_a_killed_run_asks_a_server_nothing_that_it_has_answered(tmp_path, how):
    with Server(served) as server:
        whole = run(None, remote(server))
        everything = len(server.requests)
        with pytest.raises(Killed):
            run(tmp_path, remote(server), (2, how))
        before = len(server.requests)
        assert run(tmp_path, remote(server)) == whole
        assert len(server.requests) - before == everything - 2 * (
            2 + (how == "after")
        )  # two requests a call
        before = len(server.requests)
        assert run(tmp_path, remote(server)) == whole
        assert len(server.requests) == before


# In a study.


def study(**more):
    return parse_config(
        {
            "name": "s",
            "model": "tiny",
            "task": "capitals",
            "budget": 60_000,
            "seeds": 1,
            "score_on": 8,
            "length": 2,
            "dtype": "float32",
            "strategies": [{"llm_proposed": {"longest": 12, "retries": 5}}],
            **more,
        }
    )


def test_a_study_runs_a_proposer_and_a_second_call_says_the_same(tiny, films, tmp_path):
    Study(study(), tmp_path / "one", lambda _: None, write_report).run(tiny, films)
    results = load_results(tmp_path / "one")
    Study(study(), tmp_path / "two", lambda _: None, write_report).run(tiny, films)
    again = load_results(tmp_path / "two")
    ours, theirs = (
        json.loads(next((tmp_path / name).rglob("result.json")).read_text())
        for name in ("one", "two")
    )
    assert ours["status"] == "done", ours
    assert ours["ledger"]["proposer"] > 0
    assert ours["spent"] <= 60_000
    own = ("seconds", "checksum")  # the one is in the other
    assert {k: v for k, v in ours.items() if k not in own} == {
        k: v for k, v in theirs.items() if k not in own
    }
    lines = [
        json.loads(line)
        for line in next((tmp_path / "one").rglob("proposals.jsonl")).read_text().splitlines()
    ]
    assert sum(line["price"] for line in lines) == ours["ledger"]["proposer"]
    assert results and again


def test_another_proposer_in_the_same_folder_is_refused(tiny, films, tmp_path):
    Study(study(), tmp_path, lambda _: None, write_report).run(tiny, films)
    tiny.model.save_pretrained(tmp_path / "other")
    tiny.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(StudyError, match="proposer was "):
        Study(study(proposer=str(tmp_path / "other")), tmp_path, lambda _: None, write_report).run(
            tiny, films
        )


def test_the_proposer_may_be_another_local_model(tiny, films, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    settings = {"max_tokens": 4, "temperature": 0.0, "seeds": [0], "stop": ()}
    own, other = (
        prepare(study(**more), tiny, films).proposing for more in ({}, {"proposer": str(tmp_path)})
    )
    assert own.complete(["It was"], **settings) == other.complete(["It was"], **settings)
    with pytest.raises(PromptSearchError, match="there is no such file or folder"):
        prepare(study(proposer="./nowhere"), tiny, films)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"endpoint": "https://x/v1"}, "the key 'model' is missing"),
        ({"model": "m", "key": "K"}, "unknown key 'key'"),
        ({"endpoint": "https://x/v1", "model": "m", "kye": "K"}, "Did you mean 'key'"),
        (
            {"endpoint": "https://x/v1", "model": "m", "key": "sk-123 secret"},
            "name of an environment variable",
        ),
        ({"endpoint": "https://u:sk-123@x/v1", "model": "m"}, "without user, password or query"),
    ],
)
def test_a_wrong_proposer_is_named_and_its_key_is_never_repeated(given, message):
    with pytest.raises(PromptSearchError, match=message) as caught:
        study(proposer=given)
    assert "sk-123" not in str(caught.value)


def test_the_proposer_of_a_study_may_be_behind_an_endpoint(tiny, films, tmp_path, monkeypatch):
    monkeypatch.setenv("PROPOSER_KEY", "sk-never-seen")
    texts = ["Is the movie good?", "Say how it was.", "Judge this film.", "The review is"]
    with Server(
        lambda path, content: Reply(completion(texts[content["seed"] % 4], 9, 4))
    ) as server:
        given = {"endpoint": server.url, "model": "m", "key": "PROPOSER_KEY", "retries": 0}
        config = parse_config(study(proposer=given).model_dump())
        assert config == study(proposer=given)
        told = forecast(config, tiny, films)
        assert not server.requests
        Study(config, tmp_path / "s", lambda _: None, write_report).run(tiny, films)
        result = json.loads(next((tmp_path / "s").rglob("result.json")).read_text())
        asked = len(server.requests)
        assert all(head["Authorization"] == "Bearer sk-never-seen" for head in server.headers)
        Study(config, tmp_path / "s", lambda _: None, write_report).run(tiny, films)
        assert len(server.requests) == asked
    assert result["status"] == "done" and result["ledger"]["proposer"] == 13 * asked > 0
    assert result["winner"]["text"].strip() in texts
    assert told.runs[0].error == "" and told.runs[0].requests > 0
    console = Console(record=True, width=200)
    print_forecast(told, console)
    assert "requests; how long they take is the server's" in console.export_text()
    assert not any(
        b"sk-never" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


def test_a_study_can_be_planned(tiny, films):
    (row,) = forecast(study(), tiny, films).runs
    assert row.error == ""
    assert 0 < row.price <= 60_000
    assert row.proposals > 8


def test_the_planted_proposer_mixes_mutates_and_fails():
    space = PlantedScorer("separable", length=4).space
    settings = {"max_tokens": 9, "temperature": 1.0, "stop": ()}
    request = "Some words.\nw1 w2 w3 w4\nScore: w5 w6 w7 w8"
    texts = [
        each.text.split()
        for each in PlantedProposing(space).complete([request] * 300, seeds=range(300), **settings)
    ]
    for place, (first, second) in enumerate(
        [("w1", "w5"), ("w2", "w6"), ("w3", "w7"), ("w4", "w8")]
    ):
        often = [np.mean([words[place] == word for words in texts]) for word in (first, second)]
        assert often == pytest.approx([0.375, 0.375], abs=0.1)
    nothing = PlantedProposing(space, failing=0.5).complete(
        [request] * 300, seeds=range(300), **settings
    )
    assert np.mean([each.text == "..." for each in nothing]) == pytest.approx(0.5, abs=0.1)
