"""The engine against the plain way (laws 2 and 3).

The plain way is one example at a time through the model's own forward.
"""

import numpy as np
import pytest
import torch

from promptsearch.errors import TemplateError
from promptsearch.models import LanguageModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.scores import scores_to_json
from promptsearch.records.sealed import sealed_line
from promptsearch.scoring import Engine
from promptsearch.scoring import sharing as plan
from promptsearch.scoring.chunks import ChunkedScorer
from promptsearch.scoring.joints import check_joints
from promptsearch.scoring.layout import lay_out
from promptsearch.scoring.losses import Losses
from promptsearch.tasks.task import Task
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import ROWS, SPLITS, tiny_engine, tiny_task

TEMPLATES = (
    "{prompt} {text} It was {answer}",
    "{text} {prompt} It was {answer}",
    "{prompt:2} movie {prompt} {text} is {answer}",
)


def prompts_for(lm, length):
    rng = np.random.default_rng(0)
    ids = rng.choice(lm.words, size=(2, length))
    soft = SoftPrompt(lm.vocabulary[torch.tensor(ids[0])] + 0.01)
    return [
        HardPrompt(ids[0]),
        soft,
        TextPrompt("Is the movie good or bad?"),
        HardPrompt(ids[1]),
        TextPrompt(""),
    ]


def plain(lm, template, example, choices, prompt):
    """Log-probability and greedy flag of each answer.

    By the model's own forward on one unpadded row.
    """
    layout = lay_out(template, lm, example, choices)
    lengths = [slot.length for slot in template.slots]
    if isinstance(prompt, SoftPrompt):
        slots = list(prompt.vectors.split(lengths))
    elif isinstance(prompt, HardPrompt):
        slots = [
            lm.passes.embed(torch.tensor(part))
            for part in np.split(np.array(prompt.ids), np.cumsum(lengths)[:-1])
        ]
    else:
        slots = [
            lm.passes.embed(torch.tensor(lm.encode(t), dtype=torch.long))
            for t in template.slot_texts(prompt.texts)
        ]
    found = []
    for answer in layout.answers:
        parts = [lm.passes.embed(torch.tensor(layout.segments[0], dtype=torch.long))]
        for slot, segment in zip(slots, layout.segments[1:], strict=True):
            parts += [slot, lm.passes.embed(torch.tensor(segment, dtype=torch.long))]
        parts.append(lm.passes.embed(torch.tensor(answer)))
        row = torch.cat(parts)
        with torch.inference_mode():
            logits = (
                lm.model(inputs_embeds=row[None], attention_mask=torch.ones(1, len(row)))
                .logits[0]
                .double()
            )
        steps = logits[len(row) - len(answer) - 1 : -1].log_softmax(-1)
        nats = sum(float(step[token]) for step, token in zip(steps, answer, strict=True))
        found.append(
            (
                nats,
                all(int(step.argmax()) == token for step, token in zip(steps, answer, strict=True)),
            )
        )
    return found, max(map(len, layout.answers))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("answers", [("bad", "good"), ("bad", "very good indeed")])
def test_choices_equal_the_plain_forward(lm, template, answers):
    task = tiny_task(template, answers)
    bound = task.template.bind(3)
    engine = Engine(lm, bound, task.splits["search"], task.choices)
    prompts = prompts_for(lm, bound.length)
    scores = engine.score(prompts, np.arange(12))
    assert not scores.failures
    for p, prompt in enumerate(prompts):
        for example in task.splits["search"].examples:
            found, tokens = plain(lm, bound, example, task.choices, prompt)
            expected = torch.tensor([nats for nats, _ in found]).log_softmax(-1)
            assert (
                abs(scores.losses[p, example.id] + float(expected[example.choice])) < 1e-5 * tokens
            )
            assert np.abs(scores.choices[p, example.id] - expected.numpy()).max() < 1e-5 * tokens
            assert scores.metric[p, example.id] == (int(expected.argmax()) == example.choice)


@pytest.mark.parametrize("template", TEMPLATES)
def test_text_answers_equal_the_plain_forward_and_several_count_by_their_mean(lm, template):
    task = tiny_task(template, None, also=["great", "the capital"], aliases={"good": ["fine"]})
    bound = task.template.bind(3)
    engine = Engine(lm, bound, task.splits["search"], None)
    prompts = prompts_for(lm, bound.length)
    scores = engine.score(prompts, np.arange(12))
    for p, prompt in enumerate(prompts):
        for example in task.splits["search"].examples:
            found, tokens = plain(lm, bound, example, None, prompt)
            assert len(found) == len(example.references) == 1 + example.id % 3
            mean = np.mean([nats for nats, _ in found])
            assert abs(scores.losses[p, example.id] + mean) < 1e-5 * tokens
            assert scores.metric[p, example.id] == any(greedy for _, greedy in found)


def test_a_loss_does_not_depend_on_batch_order_or_padding(lm, monkeypatch):
    task = tiny_task(TEMPLATES[0])
    bound = task.template.bind(3)
    engine = Engine(lm, bound, task.splits["search"], task.choices)
    prompts = prompts_for(lm, 3)
    together = engine.score(prompts, np.arange(12)).losses
    order = np.random.default_rng(1).permutation(12)
    assert np.abs(engine.score(prompts[::-1], order).losses[::-1] - together[:, order]).max() < 1e-5
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 1)
    engine = Engine(lm, bound, task.splits["search"], task.choices)
    assert np.abs(engine.score(prompts, np.arange(12)).losses - together).max() < 1e-5


def test_a_soft_prompt_of_token_vectors_scores_like_the_tokens(lm):
    task = tiny_task(TEMPLATES[2])
    bound = task.template.bind(3)
    engine = Engine(lm, bound, task.splits["search"], task.choices)
    ids = np.random.default_rng(2).choice(lm.words, size=bound.length)
    soft = SoftPrompt(lm.vocabulary[torch.tensor(ids)])
    losses = engine.score([HardPrompt(ids), soft], np.arange(12)).losses
    assert np.abs(losses[0] - losses[1]).max() < 1e-5


def test_the_training_loss_is_the_scored_loss_and_its_gradient_is_right(lm):
    task = tiny_task(TEMPLATES[2], None, aliases={"good": ["great", "the capital"]})
    bound = task.template.bind(2)
    engine = Engine(lm, bound, task.splits["search"], None)
    ids, examples = (
        np.random.default_rng(3).choice(lm.words, size=bound.length),
        np.array([3, 0, 5]),
    )
    vectors = lm.vocabulary[torch.tensor(ids)].clone().requires_grad_()
    loss = engine.loss(vectors, examples)
    assert loss.item() == pytest.approx(
        engine.score([SoftPrompt(vectors)], examples).losses.mean(), abs=1e-5
    )
    (gradient,) = torch.autograd.grad(loss, vectors)
    direction = torch.randn_like(vectors, dtype=torch.float32) / vectors.numel() ** 0.5
    step = 1e-2
    ahead, behind = (
        float(engine.loss(vectors.detach() + s * step * direction, examples)) for s in (1, -1)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx(
        float((gradient * direction).sum()), rel=0.05, abs=2e-3
    )
    assert (gradient.abs().sum(-1) > 0).all(), "every vector in every slot gets a gradient"


def test_the_price_is_the_tokens_from_the_first_slot_to_the_end_of_each_answer():
    lm = LanguageModel(*tiny_model("llama"))
    task = tiny_task("{text} {prompt:2} It was {answer}")
    engine = Engine(lm, task.template.bind(2), task.splits["search"], task.choices)
    example = task.splits["search"].examples[5]
    assert engine.lead(np.array([5]))[0] == len(lm.encode(example.fields["text"]))
    assert engine.context(np.array([5]))[0] == len(lm.encode(" It was")) + len(
        lm.encode(" bad")
    ) + len(lm.encode(" good"))
    assert engine.length(HardPrompt([1, 2])) == 2 and engine.length(TextPrompt("")) == 0


def test_ties_count_as_wrong():
    from promptsearch.scoring.answers import choice_scores

    losses, correct, _ = choice_scores(
        torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0, 0])
    )
    assert correct.tolist() == [False, True, False]
    assert losses[0].item() == pytest.approx(np.log(2))


@pytest.fixture
def glued():
    """The input grows onto the prompt's last word.

    " c" + "apital" are one token in the whole text.
    """
    data = [{"text": f"apital {i}", "label": i % 2} for i in range(24)]
    return Task.from_rows(
        data,
        template="{prompt}{text} It was {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits=SPLITS,
    )


@pytest.mark.parametrize("kind", ["slots", "tuned"])
def test_a_joint_that_does_not_hold_is_named(lm, glued, kind):
    split, template = glued.splits["search"], glued.template.bind(2).taking(kind)
    with pytest.raises(
        TemplateError,
        match=(
            "does not join with prompts of the pool on the search split: in example 0 .* is cut "
            "into"
        ),
    ):
        check_joints(template, lm, split, glued.choices, PromptSpace(lm.encode(" c"), 2, lm.decode))
    check_joints(template, lm, split, glued.choices, PromptSpace(lm.encode(" movie"), 2, lm.decode))


def test_text_that_does_not_join_is_a_failure_not_a_score(lm, glued):
    engine = Engine(lm, glued.template.bind(2), glued.splits["search"], glued.choices)
    scores = engine.score([TextPrompt("The c"), TextPrompt("The movie")], np.arange(12))
    assert (
        list(scores.failures) == [0]
        and "does not join with the template: in example 0" in scores.failures[0]
    )
    assert np.isnan(scores.losses[0]).all() and np.isfinite(scores.losses[1]).all()


def test_answers_that_are_the_same_to_the_tokenizer_are_refused(lm):
    task = tiny_task(TEMPLATES[0], ("bad", "good"))
    with pytest.raises(TemplateError, match="to the same tokens"):
        Engine(lm, task.template.bind(2), task.splits["search"], (" good", " good"))


def test_an_answer_that_begins_with_another_is_refused(lm):
    """Its probability is that of the other one times that of the rest: it could never be chosen."""
    task = tiny_task(TEMPLATES[0], ("good", "good movie"))
    with pytest.raises(
        TemplateError, match="' good' is the beginning of ' good movie', which can then never be"
    ):
        Engine(lm, task.template.bind(2), task.splits["search"], task.choices)


def test_scores_after_memory_ran_out_have_another_name(lm, monkeypatch):
    task = tiny_task(TEMPLATES[0])
    engine = Engine(lm, task.template.bind(2), task.splits["search"], task.choices)
    before, forward = engine.signature, engine.rows.forward
    calls = []

    def full(wave, groups, *others):
        calls.append(len(groups))
        if len(groups) > 1 and len(calls) == 1:
            raise RuntimeError("out of memory")
        return forward(wave, groups, *others)

    engine.rows.forward = full
    engine.score([HardPrompt(lm.words[:2])], np.arange(12))
    assert engine.signature != before and len(calls) > 2


def test_an_example_longer_than_the_context_is_named_never_cut(lm):
    task = Task.from_rows(
        [*ROWS, {"text": "good " * 5000, "label": 1}],
        template=TEMPLATES[0],
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 19, "select": 3, "test": 3},
    )
    with pytest.raises(
        TemplateError,
        match=r"example \d+ has 50\d\d tokens .* reads at most .* shorten the example",
    ):
        for split in task.splits.values():
            Engine(lm, task.template.bind(2), split, task.choices)


def test_a_text_that_cannot_go_into_the_template_does_not_fit_and_fails_alone(lm):
    task = Task.from_rows(
        ROWS,
        template="{prompt} {text} It was {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 12, "select": 3, "test": 3},
    )
    engine = Engine(lm, task.template.bind(2), task.splits["search"], task.choices)
    texts = [TextPrompt("good"), TextPrompt(["one", "too many"]), TextPrompt("good " * 5000)]
    assert [engine.fits(text) for text in texts] == [True, False, False]
    scores = engine.score(texts, np.arange(4))
    assert set(scores.failures) == {1, 2} and np.isfinite(scores.losses[0]).all()


def test_a_text_with_a_token_that_the_model_lacks_does_not_fit_and_fails_alone():
    model, tokenizer = tiny_model("llama")
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.add_tokens(["filmstrip"])
    engine = tiny_engine(LanguageModel(model, tokenizer, name="small"))
    texts = [TextPrompt("a filmstrip"), TextPrompt("a film")]
    assert [engine.fits(text) for text in texts] == [False, True]
    scores = engine.score(texts, np.arange(2))
    assert list(scores.failures) == [0] and "embeddings of" in scores.failures[0]
    assert np.isfinite(scores.losses[1]).all()


def test_a_loss_that_is_not_finite_is_a_failure_with_prompt_and_example(lm):
    task = tiny_task(TEMPLATES[0])
    engine = Engine(lm, task.template.bind(2), task.splits["search"], task.choices)
    bad = SoftPrompt(torch.full((2, lm.vocabulary.shape[1]), float("nan")))
    good = SoftPrompt(lm.vocabulary[:2])
    scores = engine.score([bad, good], np.arange(12))
    assert (
        list(scores.failures) == [0]
        and f"the loss of prompt {bad.key} on search example 0 is nan" in scores.failures[0]
    )
    assert np.isnan(scores.losses[0]).all() and np.isfinite(scores.losses[1]).all()


class Here:
    """Scores chunks one after the other."""

    def scored(self, name, scorer, parts):
        return [scorer.score(*part) for part in parts]


@pytest.mark.parametrize(("field", "value"), [("losses", np.nan), ("choices", -np.inf)])
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "in chunks"])
def test_a_prompt_that_fails_on_one_example_keeps_no_score_of_others(
    llama, monkeypatch, field, value, cut
):
    of_prompts, engine = Losses.of_prompts, tiny_engine(llama)
    scorer = ChunkedScorer("it", engine, 1, Here()) if cut else engine
    bad, good = TextPrompt("movie"), TextPrompt("film")

    def odd(self, prompts, examples):
        found = of_prompts(self, prompts, examples)
        if prompts[0] == bad and 3 in examples:
            getattr(found, field)[0, list(examples).index(3)].view(-1)[-1] = value
        return found

    monkeypatch.setattr(Losses, "of_prompts", odd)
    scores = scorer.score([bad, good], np.arange(6))
    assert list(scores.failures) == [0]
    assert f"prompt {bad.key} on search example 3 is {value}" in scores.failures[0]
    for found in (scores.losses, scores.metric, scores.choices):
        assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    assert sealed_line(scores_to_json(scores))
