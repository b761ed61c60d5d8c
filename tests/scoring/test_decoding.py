import itertools

import pytest
import torch

from promptsearch.errors import TaskError
from promptsearch.scoring.continuing import Start, go_on
from promptsearch.scoring.decoding import Beams, draw
from promptsearch.scoring.ready import InputRow, Library
from promptsearch.tasks.decoding import Decoding

NOTHING = Library([], None, None)


def rows_of(lm, *texts):
    nothing = lm.passes.place(torch.empty(0, lm.passes.values))
    return [InputRow(nothing, tuple(lm.encode(text))) for text in texts]


def drawn(lm, rows, seeds, temperature=1.0, top_p=1.0, limits=None):
    starts = [
        Start(row, 6 if limits is None else limits[i], (seed,))
        for i, (row, seed) in enumerate(zip(rows, seeds, strict=True))
    ]
    decoding = Decoding(6, temperature=temperature, top_p=top_p)
    return [w.answers[0] for w in go_on(lm, starts, NOTHING, lambda ids: False, decoding)[0]]


def test_same_seed_same_text_whatever_the_other_rows_are(tiny):
    short, long = rows_of(tiny, "The capital", "This film is very good and the story is funny. It")
    (alone,) = drawn(tiny, [short], [7])
    assert drawn(tiny, [long, short, short], [1, 7, 8])[1] == alone
    assert drawn(tiny, [short, short, short], [8, 9, 7])[2] == alone
    assert len(set(drawn(tiny, [short] * 8, range(8)))) > 4


def test_a_row_goes_on_with_its_own_generator_where_others_have_ended(tiny):
    rows = rows_of(tiny, "The capital", "It was")
    (alone,) = drawn(tiny, rows[1:], [7], limits=[8])
    assert drawn(tiny, rows, [1, 7], limits=[2, 8])[1] == alone


def test_the_global_generator_is_left_as_it_was(tiny):
    before = torch.get_rng_state()
    drawn(tiny, rows_of(tiny, "The capital"), [7])
    assert torch.equal(torch.get_rng_state(), before)


def test_without_sampling_it_is_greedy_and_so_is_a_low_temperature_or_a_small_nucleus(tiny):
    rows = rows_of(tiny, "The capital", "It was")
    starts = [Start(row, 6) for row in rows]
    found, _ = go_on(tiny, starts, NOTHING, lambda ids: False, Decoding(6))
    greedy = [written.answers[0] for written in found]
    for row, own in zip(rows, greedy, strict=True):
        whole = torch.tensor([[*row.ids, *own]])
        best = tiny.model(input_ids=whole).logits[0].argmax(-1)
        assert list(own) == best[len(row.ids) - 1 : -1].tolist()
    assert drawn(tiny, rows, [0, 1], temperature=1e-4) == greedy
    assert drawn(tiny, rows, [0, 1], top_p=1e-9) == greedy


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7)])
def test_tokens_come_as_often_as_the_model_says(temperature, top_p):
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5])
    shares = (logits / temperature).softmax(-1)
    order = shares.argsort(descending=True).tolist()
    nucleus, total = [], 0.0
    for token in order:  # the most probable ones that reach top_p together
        nucleus.append(token)
        total += float(shares[token])
        if total >= top_p:
            break
    expected = torch.zeros(5)
    expected[nucleus] = shares[nucleus] / total
    count = 4000
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    decoding = Decoding(temperature=temperature, top_p=top_p)
    found = draw(logits.expand(count, 5), decoding, generators)
    often = torch.bincount(found, minlength=5) / count
    assert torch.allclose(often, expected, atol=0.03), (often, expected)
    assert (often[expected == 0] == 0).all()


def test_a_nucleus_may_be_larger_than_what_is_sorted_at_first():
    """A flat row and a steep one, drawn together and apart."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(3000, generator=generator)
    logits = torch.stack([flat, 20 * flat])
    decoding = Decoding(temperature=1.0, top_p=0.9)
    shares, ids = flat.double().softmax(0).sort(descending=True)
    nucleus = set(ids[: int((shares.cumsum(0) < 0.9).sum()) + 1].tolist())
    assert len(nucleus) > 1024

    def both(seed):
        return [torch.Generator().manual_seed(seed + i) for i in range(2)]

    found = [draw(logits, decoding, both(seed)).tolist() for seed in range(200)]
    apart = [draw(logits[:1], decoding, both(seed)[:1]).tolist()[0] for seed in range(200)]
    assert [first for first, _ in found] == apart
    assert set(apart) <= nucleus
    assert len(set(apart)) > 150
    assert len({second for _, second in found}) < 10


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_as_many_beams_as_there_are_texts_find_the_most_probable_one(penalty):
    """Three tokens, of which 0 ends a text, three steps: all texts are tried by hand."""
    generator = torch.Generator().manual_seed(5)
    nats = {
        before: torch.randn(3, generator=generator).log_softmax(0).tolist()
        for n in range(3)
        for before in itertools.product((1, 2), repeat=n)
    }
    texts = [
        (*before, last)
        for n in range(3)
        for before in itertools.product((1, 2), repeat=n)
        for last in ((0,) if n < 2 else (0, 1, 2))
    ]

    def score(text):
        return sum(nats[text[:i]][t] for i, t in enumerate(text)) / len(text) ** penalty

    search = Beams(3, lambda ids: ids[-1] == 0, 12, penalty)
    beams = [()]
    while search.going:
        found = sorted(
            (
                (search.scores[b] + nats[beam][t], b, t)
                for b, beam in enumerate(beams)
                for t in range(3)
            ),
            reverse=True,
        )
        values, origins, tokens = map(list, zip(*found, strict=True))
        before = beams
        search.take(values, origins, tokens)
        beams = [(*before[o], t) for o, t in zip(search.origins, search.last, strict=True)]
        beams = beams[: sum(score > -1e6 for score in search.scores)]
        assert not any(0 in beam for beam in beams)
    assert search.written.answers == (max(texts, key=score),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tokens": 0}, "tokens of at least 1, got 0"),
        ({"beams": 0}, "beams of at least 1"),
        ({"temperature": -1.0}, "temperature of 0 or above, got -1.0"),
        ({"temperature": float("nan")}, "temperature of 0 or above"),
        ({"top_p": 0.0}, "top_p above 0"),
        ({"length_penalty": float("inf")}, "length_penalty between -40 and 40, got inf"),
        ({"length_penalty": float("nan")}, "length_penalty between -40 and 40, got nan"),
        ({"top_p": 0.9}, "nothing is drawn without a temperature, but top_p is 0.9"),
        ({"seed": 3}, "nothing is drawn without a temperature, but seed is 3"),
        ({"length_penalty": 2.0}, "compares beams, and 2.0 changes nothing with one"),
        ({"tokens": "3"}, "tokens to be a whole number, got '3'"),
        ({"beams": 2.0}, "beams to be a whole number, got 2.0"),
        ({"top_p": None}, "top_p to be a number, got None"),
        ({"temperature": True}, "temperature to be a number, got True"),
        ({"length_penalty": 1e30}, "length_penalty between -40 and 40"),
        ({"length_penalty": -1e300}, "length_penalty between -40 and 40"),
        ({"samples": 3}, "3 samples are all the same without a temperature"),
        ({"beams": 2, "temperature": 0.5}, "2 beams draw nothing"),
    ],
)
def test_a_way_that_means_nothing_is_refused(given, said):
    with pytest.raises(TaskError, match=said):
        Decoding(**given)
