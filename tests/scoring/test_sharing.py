"""Whatever is shared, losses are those of one row at a time.

And what is shared is computed once.
"""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.errors import ModelError
from promptsearch.models import LanguageModel
from promptsearch.models.attention.plain import LONG
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring import sharing as plan
from promptsearch.scoring.layout import lay_out, slots_of
from promptsearch.scoring.tree import grow
from promptsearch.tasks.task import Task
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import ROWS, SPLITS, tiny_engine, tiny_task

FRONT, BEHIND, AROUND = (
    "{prompt} {text} It was {answer}",
    "{text} {prompt} {answer}",
    "The {prompt:2} movie {text} is {prompt} {answer}",
)
WAYS = {
    FRONT: ("nothing", "prompt"),
    BEHIND: ("nothing", "input"),
    AROUND: ("nothing", "prompt", "input"),
}
EVERYTHING = np.arange(12)


def make_prompts(lm, length, count=4):
    """Hard prompts that share their first tokens, a soft one, and texts."""
    rng = np.random.default_rng(0)
    first = rng.choice(lm.words, size=length)
    hard = [
        HardPrompt([*first[:-1], word]) for word in rng.choice(lm.words, size=count, replace=False)
    ]
    soft = SoftPrompt(lm.vocabulary[torch.tensor(first)] + 0.01)
    return [
        hard[0],
        soft,
        TextPrompt("Is the movie good or bad?"),
        *hard[1:],
        TextPrompt(""),
        TextPrompt("The movie"),
    ]


def shared_as(engine, way):
    """The engine, told what to share."""
    engine.rows.plan.choose = lambda slots, examples: way
    return engine


@pytest.mark.parametrize("template", [FRONT, BEHIND, AROUND])
@pytest.mark.parametrize(
    "answers", [("bad", "good"), ("bad", "very good indeed", "very bad"), None]
)
def test_all_plans_give_the_losses_of_one_row_at_a_time(lm, template, answers, monkeypatch):
    assert lm.passes.trees, "the tiny models can all share"
    task = tiny_task(template, answers, also=() if answers else ("great", "good movie"))
    prompts = make_prompts(lm, 3 if template != AROUND else 5)
    monkeypatch.setitem(
        plan.PASS_TOKENS, "cpu", 1
    )  # each tree goes alone, so that nothing is padded
    alone = shared_as(tiny_engine(lm, task), "nothing")
    ids = EVERYTHING[:6]  # texts of every beginning and every length
    expected = [
        np.concatenate([alone.score([p], np.array([e])).losses for e in ids], 1)[0] for p in prompts
    ]
    for limit in (40, 512):
        monkeypatch.setitem(plan.PASS_TOKENS, "cpu", limit)
        for way in WAYS[template]:
            for keep in (False, True):
                scores = shared_as(tiny_engine(lm, task, keep=keep), way).score(prompts, ids)
                assert not scores.failures
                assert np.abs(scores.losses - expected).max() < 1e-5 * 3, (way, limit, keep)


@pytest.mark.parametrize("template", [FRONT, BEHIND])
def test_long_rows_have_the_losses_and_gradients_of_the_models_own_forward(lm, template):
    """Their attention goes through the fused kernel, also on a CPU."""
    rows = [{"text": "the story " * (60 + i), "label": i % 2} for i in range(24)]
    engine = tiny_engine(lm, template, ("bad", "very good"), rows=rows)
    prompts = make_prompts(lm, 3)[:2]
    soft = prompts[1].vectors.clone().requires_grad_()
    ids = EVERYTHING[:3]

    def theirs(vectors):
        losses = []
        for example in ids:
            layout, nats = engine.layout(example), []
            before, behind = (lm.vocabulary[list(ids)] for ids in layout.segments)
            for answer in layout.answers:
                embedded = torch.cat([before, vectors, behind, lm.vocabulary[list(answer)]])
                logits = lm.model(inputs_embeds=embedded[None]).logits[0].log_softmax(-1)
                at = len(embedded) - len(answer) - 1
                nats.append(logits[range(at, at + len(answer)), list(answer)].sum())
            losses.append(-torch.stack(nats).log_softmax(0)[engine.examples([example])[0].choice])
        return torch.stack(losses)

    assert int((engine.lead(ids) + engine.context(ids)).min()) > LONG
    wanted = theirs(soft)
    hard = theirs(lm.vocabulary[list(prompts[0].ids)]).detach()
    for way in WAYS[template]:
        losses = torch.tensor(shared_as(engine, way).score(prompts, ids).losses)
        assert torch.allclose(losses, torch.stack([hard, wanted.detach()]).double(), atol=1e-5)
    (back,) = torch.autograd.grad(wanted.mean(), soft)
    (found,) = torch.autograd.grad(engine.loss(soft, ids), soft)
    assert torch.allclose(found, back, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("template", [FRONT, BEHIND])
def test_padding_on_the_left_changes_nothing(lm, template):
    """The model's own forward, all rows padded on the left to one length.

    The positions belong to that.
    """
    engine = tiny_engine(lm, template)
    prompt = make_prompts(lm, 3)[0]
    task = tiny_task(template)
    bound = task.template.bind(3)
    layouts = [lay_out(bound, lm, e, task.choices) for e in task.splits["search"].examples]
    rows = [layout.join(slots_of(bound, lm, prompt)) for layout in layouts]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    with torch.inference_mode():
        logits = lm.model(
            input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)
        ).logits[:, -1]
    theirs = logits[:, [a[0] for a in layouts[0].answers]].log_softmax(-1)
    assert np.abs(engine.score([prompt], EVERYTHING).choices[0] - theirs.numpy()).max() < 1e-5


def test_a_model_that_cannot_share_is_scored_row_by_row_and_that_is_said_once(caplog):
    model, tokenizer = tiny_model("llama")
    known = LanguageModel(model, tokenizer)
    prompts = make_prompts(known, 3)
    expected = tiny_engine(known, BEHIND, ("bad", "very good")).score(prompts, EVERYTHING)
    model.config.layer_types = ["chunked_attention", "full_attention"]
    stranger = LanguageModel(model, tokenizer)
    with caplog.at_level(logging.WARNING):
        found = [
            tiny_engine(stranger, BEHIND, ("bad", "very good"), keep=True).score(
                prompts, EVERYTHING
            )
            for _ in range(2)
        ]
    assert not stranger.passes.trees
    assert [r.message for r in caplog.records if "rows cannot share" in r.message].__len__() == 1
    assert (
        np.abs(found[0].losses - expected.losses).max() < 1e-5
        and found[0].computed > expected.computed
    )


def test_windows_that_cannot_be_read_are_found_out():
    """A model that limits its attention by a mask alone, and tells the attention nothing of it."""
    model, tokenizer = tiny_model("llama")
    model.config.sliding_window = 4
    assert not LanguageModel(model, tokenizer).passes.trees


def test_inputs_before_the_prompt_are_computed_once_and_kept(llama):
    engine = tiny_engine(llama, BEHIND, keep=True)
    rng = np.random.default_rng(1)
    prompts = [HardPrompt(ids) for ids in rng.permutation(llama.words)[: 3 * 4].reshape(4, 3)]
    lead = int(engine.lead(EVERYTHING).sum())
    assert engine.score(prompts[:2], EVERYTHING).computed == lead + 2 * 12 * 3
    assert engine.score(prompts[2:], EVERYTHING).computed == 2 * 12 * 3
    forgetful = tiny_engine(llama, BEHIND)
    assert [forgetful.score(prompts, EVERYTHING).computed for _ in range(2)] == [
        lead + 4 * 12 * 3
    ] * 2


def test_memory_for_half_of_the_inputs_keeps_what_fits_beside_the_others(llama):
    lead = tiny_engine(llama, BEHIND).lead(EVERYTHING)
    each = llama.passes.values * 4
    engine = tiny_engine(llama, BEHIND, memory=int(lead[:6].sum()) * each, keep=True)
    prompts = make_prompts(llama, 3)[3:6]
    first, again = (engine.score(prompts, EVERYTHING) for _ in range(2))
    room = int(lead[:6].sum())
    fit = [
        int(lead[:n].sum())
        for n in range(len(lead))
        if lead[:n].sum() <= room - max(room // 4, lead.max())
    ]
    assert first.computed - again.computed == fit[-1] > 0
    assert np.array_equal(first.losses, again.losses), "what is kept changes no digit"
    assert np.array_equal(
        tiny_engine(llama, BEHIND, memory=int(lead[:6].sum()) * each, keep=True)
        .score(prompts, EVERYTHING)
        .losses,
        first.losses,
    )


def test_memory_smaller_than_one_example_needs_is_refused(llama):
    with pytest.raises(
        ModelError,
        match=(
            r"a memory of 100 bytes does not hold .* search example \d+: \d+ tokens of .* "
            "Expected at least"
        ),
    ):
        tiny_engine(llama, BEHIND, memory=100)


def test_an_exhaustive_walk_behind_the_input_costs_about_a_token_a_leaf(llama):
    engine = tiny_engine(llama, BEHIND, length=2, keep=True)
    pool = llama.words[:16]
    prompts = [HardPrompt([a, b]) for a in pool for b in pool]
    computed = engine.score(prompts, EVERYTHING).computed
    leaves = 256 * 12
    assert leaves <= computed - engine.lead(EVERYTHING).sum() <= 1.15 * leaves


def test_long_prompts_in_front_are_computed_once(llama):
    engine = tiny_engine(llama, FRONT)
    prompts = [
        TextPrompt(f"{word} movie is good and the story is funny. " * 6) for word in ("This", "The")
    ]
    length = sum(engine.length(p) for p in prompts)
    below = int((engine.context(EVERYTHING) - 2).sum())  # without the two answers of a token each
    assert engine.score(prompts, EVERYTHING).computed <= length + 2 * below < 12 * length


def test_choices_of_several_tokens_share_their_context(llama):
    answers = ("very bad", "very good indeed")
    engine = shared_as(tiny_engine(llama, FRONT, answers), "nothing")
    prompts = make_prompts(llama, 3)[:1]
    a, b = (llama.encode(f" {answer}") for answer in answers)
    beside = len(
        {tuple(a[:i]) for i in range(1, len(a))} | {tuple(b[:i]) for i in range(1, len(b))}
    )
    context = int(engine.context(EVERYTHING).sum()) - 12 * (len(a) + len(b))
    assert engine.score(prompts, EVERYTHING).computed == context + 12 * (3 + beside)


def test_out_of_memory_halves_the_passes_and_goes_on(llama, monkeypatch, caplog):
    prompts = make_prompts(llama, 3)
    expected = tiny_engine(llama, FRONT).score(prompts, EVERYTHING)
    real, sizes = llama.passes.hidden, []

    def small(embedded, forest):
        if len(embedded) > 60:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        sizes.append(len(embedded))
        return real(embedded, forest)

    monkeypatch.setattr(llama.passes, "hidden", small)
    with caplog.at_level(logging.WARNING):
        found = tiny_engine(llama, FRONT).score(prompts, EVERYTHING)
    assert np.abs(found.losses - expected.losses).max() < 1e-5 and max(sizes) <= 60
    assert "out of memory: from now on passes of" in caplog.text
    monkeypatch.setattr(
        llama.passes,
        "hidden",
        lambda embedded, forest: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")),
    )
    with pytest.raises(ModelError, match="does not hold one row of"):
        tiny_engine(llama, FRONT).score(prompts, EVERYTHING)


def test_an_example_asked_for_twice_is_scored_twice_and_computed_once(llama):
    engine = tiny_engine(llama, FRONT)
    prompts = make_prompts(llama, 3)[:2]
    once, twice = (engine.score(prompts, np.array(ids)) for ids in ([3, 5], [5, 3, 5]))
    assert (
        np.allclose(twice.losses, once.losses[:, [1, 0, 1]], atol=1e-6)
        and once.computed == twice.computed
    )


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=12))
def test_a_tree_holds_every_row_and_each_shared_beginning_once(rows):
    rows = sorted(rows)
    tree = grow(rows)
    for row, places in zip(rows, tree.rows, strict=True):
        assert [tree.ids[i] for i in places] == row
        assert [tree.parents[i] for i in places] == [-1, *places[:-1]]
    assert len(tree.ids) == len({tuple(row[:n]) for row in rows for n in range(1, len(row) + 1)})


@pytest.mark.parametrize("answers", [(" very bad", " good indeed"), None])
def test_a_row_that_would_lie_in_the_prompts_trunk_altogether_is_not_scored_so(llama, answers):
    """An empty text behind the prompt, and answers of several tokens.

    Nothing of the row would be left to read from.
    """
    texts = ["", *(f" {row['text']}" for row in ROWS[1:])]
    labels = [i % 2 if answers else (" good", " bad movie")[i % 2] for i in range(len(texts))]
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    given = {"answers": dict(enumerate(answers))} if answers else {}
    task = Task.from_rows(
        rows, template="Say: {prompt}{text}{answer}", label="label", splits=SPLITS, **given
    )
    split = next(
        split for split in task.splits.values() if "" in [e.fields["text"] for e in split.examples]
    )
    engine, other = (Engine(llama, task.template.bind(3), split, task.choices) for _ in range(2))
    prompts, ids = make_prompts(llama, 3), np.arange(len(split))
    assert shared_as(other, "prompt").predict(prompts, ids).cost == np.inf
    alone = np.array(
        [[engine.score([p], np.array([e])).losses[0, 0] for e in ids] for p in prompts]
    )
    assert np.isfinite(alone).all() and np.allclose(
        engine.score(prompts, ids).losses, alone, atol=1e-5
    )


@pytest.mark.parametrize("way", ["nothing", "prompt"])
def test_prediction_counts_a_slot_behind_the_input_once_for_each_example(llama, way):
    template = "{prompt} {text} so {prompt} is {answer}"
    task = Task.from_rows(
        [
            {"text": f"{i} {row['text']}", "label": row["label"]} for i, row in enumerate(ROWS)
        ],  # begin differently
        template=template,
        label="label",
        answers={0: "bad", 1: "good"},
        splits=SPLITS,
    )
    engine = Engine(llama, task.template.bind(3), task.splits["search"], task.choices)
    prompts = [
        TextPrompt((f"The movie {i}, is it", "good or bad or just the capital " * 3))
        for i in range(3)
    ]
    said = shared_as(engine, way).predict(prompts, EVERYTHING)
    assert said.tokens == pytest.approx(engine.score(prompts, EVERYTHING).computed, rel=0.05)


def test_a_pass_holds_so_many_copies_of_long_trunks_and_no_more(llama, monkeypatch):
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 8)
    engine = tiny_engine(llama, BEHIND)
    prompts, widths = make_prompts(llama, 3), []
    forward = engine.rows.forward

    def watched(wave, groups, *others):
        if wave.trunks:
            widths.append(
                (len(groups), len(groups) * max(len(wave.trunks[g.trunk]) for g in groups))
            )
        return forward(wave, groups, *others)

    engine.rows.forward = watched
    expected = tiny_engine(llama, BEHIND).score(prompts, EVERYTHING).losses
    assert np.allclose(
        shared_as(engine, "input").score(prompts, EVERYTHING).losses, expected, atol=1e-5
    )
    assert widths and all(count == 1 or copies <= 8 * 8 for count, copies in widths)
