import pytest
import torch

from promptsearch.scoring import decoding
from promptsearch.scoring.decoding import Sampling, decode
from promptsearch.scoring.ready import InputRow, Library

NOTHING = Library([], None, None)


def rows_of(lm, *texts):
    nothing = torch.empty(0, lm.passes.values)
    return [InputRow(nothing, tuple(lm.encode(text))) for text in texts]


def drawn(lm, rows, seeds, temperature=1.0, top_p=1.0, tokens=6):
    sampling = Sampling(temperature, top_p, seeds)
    return decode(lm, rows, NOTHING, [tokens] * len(rows), lambda ids: False, sampling)


def test_same_seed_same_text_whatever_the_other_rows_are(tiny):
    short, long = rows_of(tiny, "The capital", "This film is very good and the story is funny. It")
    (alone,) = drawn(tiny, [short], [7])
    assert drawn(tiny, [long, short, short], [1, 7, 8])[1] == alone
    assert drawn(tiny, [short, short, short], [8, 9, 7])[2] == alone
    assert len({tuple(ids) for ids in drawn(tiny, [short] * 8, range(8))}) > 4


def test_a_row_goes_on_with_its_own_generator_where_others_have_ended(tiny):
    rows = rows_of(tiny, "The capital", "It was")
    (alone,) = drawn(tiny, rows[1:], [7], tokens=8)
    assert (
        decode(tiny, rows, NOTHING, [2, 8], lambda ids: False, Sampling(1.0, 1.0, [1, 7]))[1]
        == alone
    )


def test_the_global_generator_is_left_as_it_was(tiny):
    before = torch.get_rng_state()
    drawn(tiny, rows_of(tiny, "The capital"), [7])
    assert torch.equal(torch.get_rng_state(), before)


def test_without_sampling_it_is_greedy_and_so_is_a_low_temperature_or_a_small_nucleus(tiny):
    rows = rows_of(tiny, "The capital", "It was")
    greedy = decode(tiny, rows, NOTHING, [6, 6], lambda ids: False)
    for row, own in zip(rows, greedy, strict=True):
        whole = torch.tensor([[*row.ids, *own]])
        best = tiny.model(input_ids=whole).logits[0].argmax(-1)
        assert own == best[len(row.ids) - 1 : -1].tolist()
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
    found = decoding._draw(
        logits.expand(count, 5), Sampling(temperature, top_p, range(count)), generators
    )
    often = torch.bincount(found, minlength=5) / count
    assert torch.allclose(often, expected, atol=0.03), (often, expected)
    assert (often[expected == 0] == 0).all()
