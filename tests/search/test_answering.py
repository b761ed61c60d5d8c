"""What the LM answers to examples that a strategy looks at: its price, and resuming."""

import re
from dataclasses import replace

import numpy as np
import pytest

from promptsearch import TextPrompt
from promptsearch.errors import BudgetExhausted, StrategyError
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.scoring.protocol import price_of_generation
from promptsearch.search.loop import search
from promptsearch.search.metric_scorer import MetricScorer
from promptsearch.search.objective import Objective
from promptsearch.strategies.reflect import Reflect
from promptsearch.tasks.answered import Reader
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.metrics.exact_match import ExactMatch
from promptsearch.tasks.task import Task
from promptsearch.tasks.template import Template
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.proposing import PlantedProposing
from promptsearch.testing.rerun import DyingLog, Killed, trace

READER = Reader(None, ExactMatch(), Decoding(4))


class Writing(PlantedScorer):
    """Answers are texts: another one is written each time that the process is asked."""

    def __init__(self):
        super().__init__("separable")
        self.asked = 0

    def examples(self, ids):
        return [replace(example, choice=None) for example in super().examples(ids)]

    def generate(self, prompts, examples, decoding):
        self.asked += 1
        found = super().generate(prompts, examples, decoding)
        texts = [[tuple(f"{t}{self.asked}" for t in each) for each in row] for row in found.texts]
        return replace(found, texts=texts)


def objective_of(scorer, budget=None, **more):
    return scorer.objective(budget, **{"reader": READER, **more})


def following(scorer, budget=None, **more):
    """The same, with a search that follows a metric of the texts."""
    task = Task("it", Template.parse("{prompt} {text}{answer}"), None, {}, "exact_match")
    followed = MetricScorer(scorer, ExactMatch(), replace(task, decoding=READER.decoding))
    return Objective(
        followed,
        scorer.space,
        Ledger(budget),
        scored=scorer.scored,
        training=scorer.training,
        proposing=PlantedProposing(scorer.space),
        **{"reader": READER, "most": followed.most, **more},
    )


def best_of(scorer):
    return TextPrompt(scorer.space.decode(scorer.optimum.ids))


def test_choices_are_known_from_the_scores_and_cost_nothing_more():
    scorer = PlantedScorer("separable")
    objective, ids = scorer.objective(), scorer.training[:4]
    prompts = [best_of(scorer), TextPrompt("w1 w2 w3 w4")]
    evaluation = objective.evaluate(prompts, ids)
    spent = objective.ledger.spent
    for right, answers in zip(evaluation.metric, objective.answers(prompts, ids), strict=True):
        for hit, answer, example in zip(right, answers, scorer.examples(ids), strict=True):
            wanted = example.answer.strip()
            assert answer.row.references == (wanted,) and answer.row.fields == example.fields
            assert answer.row.output == (wanted if hit else "")
            assert answer.feedback == ("" if hit else f"expected {wanted!r}, got ''")
    assert objective.ledger.spent == spent
    objective.answers([TextPrompt("w5")], ids)
    assert objective.ledger.spent == spent + objective.price([TextPrompt("w5")], ids)


def test_texts_are_charged_for_what_is_read_and_written():
    scorer = Writing()
    objective, ids, prompt = objective_of(scorer), scorer.training[:3], best_of(scorer)
    (answers,) = objective.answers([prompt], ids)
    rights = [example.answer.strip() for example in scorer.examples(ids)]
    assert [answer.row.output for answer in answers] == [f"{right}1" for right in rights]
    assert answers[0].feedback == f"expected {rights[0]!r}, got '{rights[0]}1'"
    read = price_of_generation(scorer, 4, ids, 0)
    lead = int(scorer.lead(ids).sum())
    assert objective.ledger.spent == objective.ledger.computed == lead + read + 2 * len(ids)
    objective.answers([prompt], ids)
    assert objective.ledger.spent == lead + 2 * (read + 2 * len(ids)), "it is paid each time"


def test_texts_that_a_metric_scored_are_the_same_and_paid_once():
    scorer = Writing()
    objective, ids = following(scorer), scorer.training[:3]
    prompts = [TextPrompt("w1 w2"), best_of(scorer)]
    objective.evaluate(prompts, ids)
    spent = objective.ledger.spent
    answers = objective.answers(prompts, ids)
    rights = [example.answer.strip() for example in scorer.examples(ids)]
    assert [answer.row.output for answer in answers[1]] == [f"{right}1" for right in rights]
    assert (objective.ledger.spent, scorer.asked) == (spent, 1)
    objective.answers([TextPrompt("w5")], ids)
    new = following(other := Writing())
    new.evaluate(prompts, ids)
    new.evaluate([TextPrompt("w5")], ids)
    assert (objective.ledger.spent, scorer.asked) == (new.ledger.spent, other.asked)


@pytest.mark.parametrize("short", [0, 1])
def test_the_longest_answers_and_selection_must_be_payable(short):
    scorer = Writing()
    ids, prompt = scorer.training[:3], best_of(scorer)
    most = int(scorer.lead(ids).sum()) + price_of_generation(scorer, 4, ids, 4)
    objective = objective_of(scorer, most + 20 - short, reserve=lambda lengths: 20)
    if not short:
        assert objective.answers([prompt], ids)
        return
    with pytest.raises(BudgetExhausted):
        objective.answers([prompt], ids)
    assert objective.ledger.spent == scorer.asked == 0


def test_what_cannot_be_answered_has_no_answers():
    class Lost(Writing):
        def _fails(self, prompt):
            return True

        def fits(self, prompt):
            return prompt != TextPrompt("w1")

    objective, ids = objective_of(scorer := Lost()), scorer.training[:3]
    assert objective.answers([TextPrompt("w1"), TextPrompt("w2")], ids) == [[], []]
    assert scorer.asked == 1
    choosing = PlantedScorer("separable", failing=1.0)
    assert choosing.objective().answers([TextPrompt("w1")], ids) == [[]]


def test_examples_and_readers_are_checked():
    scorer = PlantedScorer("separable")
    with pytest.raises(StrategyError, match="expected ids of search examples"):
        scorer.objective().answers([TextPrompt("w1")], [99])
    with pytest.raises(StrategyError, match="make it with a `reader`"):
        scorer.objective(reader=None).answers([TextPrompt("w1")], [0])


def test_a_metric_whose_feedback_fails_is_named():
    class Silent(ExactMatch):
        def feedback(self, row):
            raise OSError("no words")

    objective = objective_of(scorer := Writing(), reader=Reader(None, Silent()))
    with pytest.raises(StrategyError, match="feedback of the metric 'exact_match' failed.*words"):
        objective.answers([best_of(scorer)], scorer.training[:3])


def test_what_is_shown_is_a_copy():
    class Keeping(PlantedScorer):
        def __init__(self):
            super().__init__("separable")
            self.kept = super().examples(np.arange(32))

        def examples(self, ids):
            return [self.kept[i] for i in ids]

    scorer = Keeping()
    ((answer,),) = scorer.objective().answers([best_of(scorer)], [20])
    answer.row.fields["text"] = "changed"
    assert scorer.kept[20].fields["text"] == "the example number 20"


@pytest.mark.parametrize("made", [objective_of, following])
@pytest.mark.parametrize(("at", "how"), [(2, "before"), (2, "half"), (5, "after")])
def test_a_killed_run_reads_the_same_texts_again(tmp_path, made, at, how):
    """A server may write something else the second time."""

    def run(log=None, asked=0):
        scorer = Writing()
        scorer.asked = asked
        objective = made(scorer, scorer.budget(25), log=log)
        return trace(objective, search(Reflect(objective, seed=0)))

    whole = run()
    with pytest.raises(Killed):
        run(DyingLog(tmp_path, at, how))
    before = (tmp_path / "proposals.jsonl").read_text()
    assert re.search(r'"texts":\[" (no|yes)\d"', before), "a parent was read"
    again = run(RunLog(tmp_path), asked=1_000)
    assert again.lines[: at + 1] == whole.lines[: at + 1]
    assert (tmp_path / "proposals.jsonl").read_text().startswith(before)
