"""Text answers end, and count with their end: against the model's own forward on one row."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from promptsearch import LanguageModel, Task
from promptsearch.errors import ModelError, TemplateError
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.chat_template import render
from promptsearch.scoring.ending import Ending
from promptsearch.scoring.joints import check_joints
from promptsearch.scoring.layout import lay_out
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_engine, tiny_task
from promptsearch.testing.tiny_tokenizers import Tokenization, tokenizer_of

#: What ends an answer: the model's end token, a line break, and a text that merges with the answer.
ENDS = ("", "\n", ". The")
EVERYTHING = np.arange(12)
TEXTS = [TextPrompt("Is the movie good or bad?"), TextPrompt("The capital")]


def row_of(lm, template, example, prompt, reference):
    """The ids of a whole row, and how many of them are an answer with its end.

    They come from the whole text, cut at once; a token that ends it stands behind.
    """
    before = template.render(example.fields, template.slot_texts(prompt.texts), "")
    whole = list(lm.lead) + lm.encode(before + reference + template.end, begins=True)
    above = len(lm.lead) + len(lm.encode(before, begins=True))
    if not template.end:
        whole.append(lm.tokenizer.eos_token_id)
    return whole, len(whole) - above


def plainly(lm, ids, count):
    """The log-probability of the last ids of a row, and whether each is the most probable one."""
    with torch.inference_mode():
        logits = lm.model(input_ids=torch.tensor([ids])).logits[0].double()
    steps = logits[len(ids) - count - 1 : -1].log_softmax(-1)
    wanted = torch.tensor(ids[len(ids) - count :])
    nats = steps.gather(-1, wanted[:, None]).sum()
    return float(nats), bool((steps.argmax(-1) == wanted).all())


@pytest.mark.parametrize("kind", [None, *get_args(Tokenization)])
def test_a_text_that_ends_answers_is_met_at_the_token_that_ends_it(kind):
    """Tokens may be parts of characters, and a text may lie across several of them."""
    model, tokenizer = tiny_model("llama")
    lm = LanguageModel(model, tokenizer_of(kind) if kind else tokenizer)
    rng = np.random.default_rng(0)
    given = [*lm.encode(" The story, é 映画. "), *lm.plain]
    some = [i for i in given if i not in lm.special.ids | lm.ends]
    for stop in ("é", ". The", "\n", "画.", "e s", "o"):
        ending = Ending(lm, stop=stop)
        for _ in range(8):
            ids = [*rng.choice(some, 12).tolist(), *lm.encode(f"story{stop} The")]
            ids = [i for i in ids if i in some]
            whole = [stop in lm.decode(ids[: k + 1]) for k in range(len(ids))]
            last = whole.index(True) + 1 if True in whole else len(ids)
            assert [ending.reached(ids[: k + 1]) for k in range(last)] == whole[:last]


def test_only_the_last_tokens_of_a_long_answer_are_decoded(llama, monkeypatch):
    decoded, decode = [], llama.tokens.decode
    monkeypatch.setattr(
        llama.tokens, "decode", lambda ids, **how: decoded.append(len(ids)) or decode(ids, **how)
    )
    ending, ids = Ending(llama, stop="\n"), llama.encode(" the story" * 100)
    assert not ending.reached(ids) and max(decoded) < 10
    assert ending.reached([*ids, *llama.encode("\n")]) and max(decoded) > 100


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("before", ["{prompt} {text} It was", "{text} {prompt} It was"])
def test_the_loss_of_a_text_is_that_of_its_answer_and_its_end(lm, before, end):
    task = tiny_task(f"{before} {{answer}}{end}", None)
    bound = task.template.bind(2)
    scores = Engine(lm, bound, task.splits["search"], None).score(TEXTS, EVERYTHING)
    assert not scores.failures and scores.choices is None
    for p, prompt in enumerate(TEXTS):
        for example in task.splits["search"].examples:
            ids, count = row_of(lm, bound, example, prompt, example.answer)
            nats, greedy = plainly(lm, ids, count)
            assert abs(scores.losses[p, example.id] + nats) < 1e-5 * count
            assert scores.metric[p, example.id] == greedy


def with_references(task):
    """The same task, whose examples have one, two or three right answers."""
    more = (" great", " very bad movie")
    examples = tuple(
        replace(example, also=more[: example.id % 3]) for example in task.splits["search"].examples
    )
    return Split("search", examples)


@pytest.mark.parametrize("end", ENDS[:2])
def test_several_right_answers_count_by_the_mean_of_their_losses_and_one_is_enough(lm, end):
    task = tiny_task("{prompt} {text} It was {answer}" + end, None)
    split, bound = with_references(task), task.template.bind(2)
    engine = Engine(lm, bound, split, None)
    scores = engine.score(TEXTS, EVERYTHING)
    for p, prompt in enumerate(TEXTS):
        for example in split.examples:
            rows = [row_of(lm, bound, example, prompt, text) for text in example.references]
            found = [plainly(lm, *row) for row in rows]
            mean = np.mean([nats for nats, _ in found])
            assert abs(scores.losses[p, example.id] + mean) < 1e-5 * max(n for _, n in rows)
            assert scores.metric[p, example.id] == any(greedy for _, greedy in found)
    tails = [len(lay_out(bound, lm, e, None).segments[1]) for e in split.examples]
    answers = [
        sum(len(lm.encode(text + end)) + (not end) for text in e.references) for e in split.examples
    ]
    assert engine.context(EVERYTHING).tolist() == [
        a + b for a, b in zip(tails, answers, strict=True)
    ]


def test_the_metric_is_one_where_greedy_decoding_gives_an_answer_and_its_end(llama):
    """The answer of a row is made what the model says; what it says next decides the metric."""
    bound = tiny_task("{prompt} {text} It was {answer}", None).template.bind(2)
    example = Example(0, {"text": "good film"}, " x", None)
    before, _ = row_of(llama, bound, example, TEXTS[0], "")
    said = []
    with torch.inference_mode():
        for _ in range(4):
            ids = torch.tensor([before[:-1] + said])
            said.append(int(llama.model(input_ids=ids).logits[0, -1].argmax()))
    answer = llama.decode(said[:3])
    for end, right in ((llama.decode(said[3:]), True), ("?!", False)):
        template = replace(bound, end=end)
        split = Split("search", (replace(example, answer=answer),))
        found = Engine(llama, template, split, None).score([TEXTS[0]], np.arange(1))
        if llama.encode(answer + end) == [*said] or not right:
            assert bool(found.metric[0, 0]) == right


def test_a_model_without_an_end_token_says_what_to_do():
    model, tokenizer = tiny_model("llama")
    tokenizer.eos_token = None
    model.generation_config.eos_token_id = None
    lm = LanguageModel(model, tokenizer, name="endless")
    task = tiny_task("{prompt} {text} It was {answer}", None)
    with pytest.raises(ModelError, match="'endless' has no token that ends a text.* such as a new"):
        Engine(lm, task.template.bind(2), task.splits["search"], None)
    task = tiny_task("{prompt} {text} It was {answer}\n", None)
    template = render(task.template, lm).bind(2)
    assert template.end_token == ""
    scores = Engine(lm, template, task.splits["search"], None).score(TEXTS, EVERYTHING)
    assert np.isfinite(scores.losses).all()
    choices = tiny_task()
    engine = Engine(lm, choices.template.bind(2), choices.splits["search"], choices.choices)
    assert np.isfinite(engine.score(TEXTS, EVERYTHING).losses).all(), "choices need no end"


def test_an_end_token_that_the_model_does_not_have_is_named(llama):
    task = tiny_task("{prompt} {text} It was {answer}", None)
    template = replace(task.template.bind(2), end_token="<|never|>")
    with pytest.raises(TemplateError, match="'<|never|>' here, which the model 'llama' does not"):
        Engine(llama, template, task.splits["search"], None)


def test_an_answer_that_holds_the_end_is_named(llama):
    task = tiny_task("{prompt} {text} It was {answer}o", None)
    with pytest.raises(TemplateError, match="answer ' .*' of search example .* holds 'o', with"):
        Engine(llama, task.template.bind(2), task.splits["search"], None)


def test_an_alias_that_holds_the_end_is_told():
    """An answer ends before that text, so it is never like the alias; the loss knows no alias."""
    aliases = {"good": ["fine", "very\nfine"], "Paris": ["a\nb", "very\nfine"]}
    task = tiny_task("{prompt} {text} It was {answer}\n", None, aliases=aliases)
    (note,) = (note for note in task.notes if "alias" in note)
    assert note.startswith(
        "2 aliases that no answer can be, since the template ends answers at '\\n'"
    )
    assert note.endswith("such as ' very\\nfine' (row 1 of the data)")
    plain = tiny_task("{prompt} {text} It was {answer}", None, aliases=aliases)
    assert not any("alias" in note for note in plain.notes)


def test_answers_to_choose_from_have_no_end(llama):
    with pytest.raises(TemplateError, match=r"has '\\n' behind {answer}, .* which have no end"):
        tiny_engine(llama, "{prompt} {text} It was {answer}\n")


@pytest.mark.parametrize("kind", ["slots", "prefix"])
def test_a_joint_of_answer_and_end_is_checked(llama, kind):
    """ " is" + " P" would be cut in another way if the end were encoded apart."""
    task = tiny_task("{prompt} {text} It was {answer}\n", None)
    from promptsearch.prompts.space import PromptSpace

    space = PromptSpace(llama.encode(" movie"), 2, llama.decode)
    template, split = task.template.bind(2).taking(kind), task.splits["search"]
    check_joints(template, llama, split, None, space)
    layout = lay_out(template, llama, split.examples[0], None)
    apart = [*llama.encode(split.examples[0].answer), *llama.encode("\n")]
    assert list(layout.answers[0]) == llama.encode(split.examples[0].answer + "\n") == apart


CHATS = {
    "turn": (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }} <|pad|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "no special token": (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    ),
    "no last word": (
        "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|pad|>"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
}
MESSAGES = [{"user": "{prompt} The {text}"}, {"assistant": "It was{answer}"}]


@pytest.mark.parametrize(
    ("chat", "token"),
    [("turn", "<|pad|>"), ("no special token", "<|end|>"), ("no last word", "<|end|>")],
)
def test_a_chat_template_says_which_token_ends_the_assistants_turn(chat, token):
    model, tokenizer = tiny_model("llama")
    tokenizer.chat_template = CHATS[chat]
    lm = LanguageModel(model, tokenizer, name="a-model")
    template = render(Template.parse(MESSAGES), lm).bind(2)
    assert template.end_token == token
    layout = lay_out(template, lm, Example(0, {"text": "film"}, " good", None), None)
    number = tokenizer.convert_tokens_to_ids(token)
    assert layout.answers == ((*lm.encode(" good"), number),)
    ending = Ending(lm, template)
    assert ending.ids == {number, *lm.ends} and ending.reached([5, number])
    tokenizer.chat_template = CHATS["no special token"]  # a later one changes nothing
    assert lay_out(template, lm, Example(0, {"text": "film"}, " good", None), None) == layout
    closed = replace(template, end="\n")
    layout = lay_out(closed, lm, Example(0, {"text": "film"}, " good", None), None)
    assert layout.answers == (tuple(lm.encode(" good\n")),)


def test_text_generation_stops_at_any_end(llama):
    template = Template.parse("{prompt} {text}{answer}\n")
    ending = Ending(llama, template, "The")
    good, line = llama.encode(" good"), llama.encode("\n")
    assert not ending.reached(good) and ending.reached([*good, *line])
    assert ending.reached([*good, llama.end])
    assert ending.text([*good, *line, *good]) == " good"
    assert ending.text([*llama.encode(" The good"), *line]) == " "


def test_the_signature_of_a_text_names_its_end_and_that_of_choices_does_not(llama):
    def signature(template, answers=None, **changes):
        task = tiny_task(template, answers)
        bound = replace(task.template.bind(2), **changes)
        return Engine(llama, bound, task.splits["search"], task.choices).signature

    text = "{prompt} {text} It was {answer}"
    found = [signature(text), signature(text, end_token="<|pad|>"), signature(text + "\n")]
    assert len(set(found)) == 3 and all("'end'" in each for each in found)
    plain = signature(text, ("bad", "good"))
    assert plain == signature(text, ("bad", "good"), end_token="<|pad|>") and "'end'" not in plain


def test_the_signature_holds_what_moves_a_score_and_nothing_else(llama, monkeypatch):
    def signature(answers=None):
        task = tiny_task("{prompt} {text} It was {answer}", answers)
        split = task.splits["search"]
        return Engine(llama, task.template.bind(2), split, task.choices).signature

    choices = ("bad", "good")
    text, chosen = signature(), signature(choices)
    monkeypatch.setattr(llama.model.config, "_name_or_path", "another/folder")
    assert (signature(), signature(choices)) == (text, chosen), "the same model from elsewhere"
    with monkeypatch.context() as patch:  # a generation_config.json of another revision
        patch.setitem(vars(llama), "ends", frozenset({5, *llama.ends}))
        assert signature() != text and signature(choices) == chosen
    for name in ("cpu", "code_of"):
        with monkeypatch.context() as patch:
            patch.setattr(f"promptsearch.scoring.surroundings.{name}", lambda *_: "another")
            assert signature() != text and signature(choices) != chosen, name


@pytest.mark.parametrize("end", ENDS[:2])
def test_hard_and_trained_prompts_end_alike(lm, end):
    task = tiny_task("{prompt:2} movie {prompt} {text} is {answer}" + end, None)
    bound, ids = task.template.bind(3), np.random.default_rng(2).choice(lm.words, size=5)
    soft = SoftPrompt(lm.vocabulary[torch.tensor(ids)])
    engine = Engine(lm, bound, task.splits["search"], None)
    losses = engine.score([HardPrompt(ids), soft], EVERYTHING).losses
    assert np.abs(losses[0] - losses[1]).max() < 1e-5
    loss = engine.loss(soft.vectors, EVERYTHING)
    assert float(loss) == pytest.approx(losses[1].mean(), abs=1e-5)


def test_a_task_remembers_how_its_answers_end():
    assert Template.parse("{prompt} {answer}.\n{{x}}").end == ".\n{x}"
    messages = [{"user": "{prompt}"}, {"assistant": "So: {answer}\n"}]
    template = Template.parse(messages)
    assert template.end == "\n" and template.taking("prefix").bind(2).end == "\n"
    for wrong, why in (
        ("{prompt} {answer}  ", "goes on with spaces behind"),
        ([{"user": "{answer} {prompt}"}, {"assistant": "x"}], "goes on behind"),
    ):
        with pytest.raises(TemplateError, match=why):
            Template.parse(wrong)
    assert isinstance(tiny_task("{prompt} {text}{answer}\n", None), Task)


@pytest.mark.parametrize(
    "text",
    [
        "{prompt} {answer} {text}",
        "{prompt} {text} {answer}\n{prompt}",
        "{prompt} {text} {answer:pll}",
    ],
)
def test_nothing_but_an_end_stands_behind_an_answer_of_a_causal_model(llama, text):
    with pytest.raises(TemplateError, match="'llama' reads from left to right: its answer comes"):
        tiny_engine(llama, text, None)
    with pytest.raises(TemplateError, match="'llama' reads from left to right"):
        render(Template.parse(text), llama)
