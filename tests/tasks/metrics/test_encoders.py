"""BERTScore and MoverScore against loops over their definitions, on a tiny random BERT."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.optimize
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from promptsearch.errors import ModelError, TaskError
from promptsearch.models.encoder import TextEncoder
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import measured
from promptsearch.tasks.metrics.metric import Answered
from promptsearch.tasks.metrics.moverscore import least_cost
from promptsearch.testing.tiny_seq2seq import tiny_seq2seq

WORDS = ["the", "cat", "sat", "on", "mat", "dog", "play", "##ing", "##s", ".", ",", "a", "red"]
ROWS = [
    Answered("the cat sat on the mat .", ("a cat sat on the mat .", "the dog sat .")),
    Answered("the dog plays , playing", ("the dogs play .",)),
    Answered("", ("the red mat",)),
    Answered("red mat", ("the red mat", "a mat", "the cat plays on a red mat , playing .")),
]


def tiny_bert(seed=0):
    """A BERT of two layers with random weights, and its tokenizer."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        **{f"{s.strip('[]').lower()}_token": s for s in special},
        model_max_length=24,
    )
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.BertModel(config, add_pooling_layer=False)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(*tiny_bert(), name="tiny-bert", layer=1)


def over(encoder, name, **options):
    return find_metric(name, {"encoder": "tiny-bert", **options}).over(encoder)


def tokens(encoder, text):
    """The states, ids and special marks of one text, from transformers alone, without a batch."""
    model, tokenizer = tiny_bert()
    given = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
    special = given.pop("special_tokens_mask")[0].bool().numpy()
    given.pop("token_type_ids", None)
    with torch.no_grad():
        states = model(**given, output_hidden_states=True).hidden_states[encoder.layer][0].numpy()
    return states, given["input_ids"][0].tolist(), special


def test_of_a_model_of_encoder_and_decoder_the_encoder_is_read(tmp_path):
    model, tokenizer = tiny_seq2seq("t5")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    (found,) = TextEncoder.load(str(tmp_path), device="cpu").states(["good film"])
    given = tokenizer("good film", return_tensors="pt").input_ids
    with torch.no_grad():
        states = model.get_encoder()(input_ids=given).last_hidden_state[0]
    assert torch.allclose(torch.from_numpy(found.states), states, atol=1e-5)


def test_states_do_not_depend_on_what_else_is_in_the_batch(encoder):
    texts = [row.output for row in ROWS] + [text for row in ROWS for text in row.references]
    for text, found in zip(texts, encoder.states(texts), strict=True):
        states, ids, special = tokens(encoder, text)
        assert found.ids.tolist() == ids and (found.special == special).all()
        assert found.states == pytest.approx(states, abs=1e-5)
    playing = encoder.states(["playing dogs"])[0]
    assert playing.pieces[1:-1] == ("play", "##ing", "dog", "##s")
    assert playing.begins[1:-1].tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("positions", "kind", "longest"),
    [(32, "Bert", 32), (32, "Roberta", 30), (-1, "Bert", 42)],
)
def test_texts_are_as_long_as_the_model_has_positions(positions, kind, longest):
    model, tokenizer = tiny_bert()
    tokenizer.model_max_length = 10**30  # it names no limit
    sizes = {**model.config.to_dict(), "max_position_embeddings": 32 if positions == 32 else 64}
    own = getattr(transformers, f"{kind}Config")(**{**sizes, "pad_token_id": 1})
    model = getattr(transformers, f"{kind}Model")(own, add_pooling_layer=False)
    model.config.max_position_embeddings = positions
    (found,) = TextEncoder(model, tokenizer, name="it").states(["the cat " * 20])
    assert len(found.ids) == longest


def weights(encoder, idf):
    """The weight of a token id, from the references of all rows."""
    texts = [tokens(encoder, text)[1] for row in ROWS for text in row.references]
    count = {i: sum(i in text for text in texts) for i in range(len(WORDS) + 5)}
    return lambda i: np.log((len(texts) + 1) / (count[i] + 1)) if idf else 1.0


@pytest.mark.parametrize("idf", [False, True])
def test_bertscore_is_its_definition(encoder, idf):
    weight = weights(encoder, idf)

    def f1(given, wanted):
        a, b = tokens(encoder, given), tokens(encoder, wanted)

        def cosine(i, j):
            x, y = a[0][i], b[0][j]
            return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))

        mine = [i for i in range(len(a[1])) if not a[2][i]]
        theirs = [j for j in range(len(b[1])) if not b[2][j]]
        if not mine:
            return 0.0
        precision = sum(
            weight(a[1][i]) * max(cosine(i, j) for j in range(len(b[1]))) for i in mine
        ) / sum(weight(a[1][i]) for i in mine)
        recall = sum(
            weight(b[1][j]) * max(cosine(i, j) for i in range(len(a[1]))) for j in theirs
        ) / sum(weight(b[1][j]) for j in theirs)
        return 2 * precision * recall / (precision + recall)

    found = measured(over(encoder, "bertscore", idf=idf), ROWS).statistics[:, 0]
    wanted = [max(f1(row.output, text) for text in row.references) for row in ROWS]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert found[2] == 0, "an empty output"


def test_a_text_is_its_own_best_reference(encoder):
    same = [Answered("the cat plays .", ("the cat plays .",))]
    for name in ("bertscore", "moverscore"):
        assert over(encoder, name).of(same) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [2, 4])
def test_the_least_cost_of_equal_weights_is_the_best_assignment(size):
    rng = np.random.default_rng(size)
    distances = rng.random((size, size))
    best = min(
        sum(distances[i, j] for i, j in enumerate(order)) / size
        for order in itertools.permutations(range(size))
    )
    even = np.full(size, 1 / size)
    assert least_cost(even, even, distances) == pytest.approx(best)


def test_the_least_cost_of_uneven_weights_by_hand():
    # 0.7 stands at the first place; 0.2 of it has to go to the farther one.
    cost = least_cost(
        np.array([0.7, 0.3]), np.array([0.5, 0.5]), np.array([[1.0, 3.0], [9.0, 2.0]])
    )
    assert cost == pytest.approx(0.5 * 1 + 0.2 * 3 + 0.3 * 2)


def test_the_least_cost_of_long_texts_needs_little_memory():
    distances = np.random.default_rng(0).random((128, 128))
    even = np.full(128, 1 / 128)
    tracemalloc.start()
    cost = least_cost(even, even, distances)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    places, others = scipy.optimize.linear_sum_assignment(distances)
    assert cost == pytest.approx(distances[places, others].mean())
    assert most < 16 * 2**20  # all constraints with their zeros are 32 MiB


def test_moverscore_is_its_definition(encoder):
    def score(given, wanted):
        kept = []
        for text in (given, wanted):
            states, ids, special = tokens(encoder, text)
            pieces = tiny_bert()[1].convert_ids_to_tokens(ids)
            keep = [
                k
                for k, piece in enumerate(pieces)
                if not special[k] and piece not in ".," and not piece.startswith("##")
            ]
            kept.append([states[k] / np.linalg.norm(states[k]) for k in keep])
        one, other = kept
        if not one:
            return 0.0
        distances = np.array([[np.linalg.norm(x - y) for y in other] for x in one])
        return 1 - least_cost(
            np.full(len(one), 1 / len(one)), np.full(len(other), 1 / len(other)), distances
        )

    found = measured(over(encoder, "moverscore"), ROWS).statistics[:, 0]
    wanted = [max(score(row.output, text) for text in row.references) for row in ROWS]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_the_signature_pins_layer_and_weights(encoder):
    other = TextEncoder(*tiny_bert(seed=1), name="tiny-bert", layer=1)
    signature = over(encoder, "bertscore").signature
    assert signature.startswith("bertscore|encoder:tiny-bert-L1-") and "|idf:no" in signature
    assert signature != over(other, "bertscore").signature
    assert TextEncoder(*tiny_bert(), name="tiny-bert").layer == 2


def test_an_encoder_that_was_not_handed_in_or_has_no_such_layer_is_named():
    metric = find_metric("bertscore", {"encoder": "x"})
    with pytest.raises(TaskError, match="'bertscore' has no encoder"):
        measured(metric, ROWS)
    with pytest.raises(ModelError, match="has the layers 0 to 2.*got 3"):
        TextEncoder(*tiny_bert(), name="tiny-bert", layer=3)


def test_an_encoder_is_loaded_from_a_folder(tmp_path, encoder):
    model, tokenizer = tiny_bert()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = TextEncoder.load(str(tmp_path), layer=1, device="cpu")
    (mine,), (theirs,) = loaded.states(["the cat"]), encoder.states(["the cat"])
    assert mine.states == pytest.approx(theirs.states)
    long = loaded.states(["the cat " * 50])[0]
    assert len(long.ids) == 24, "what is too long is cut off"
    with pytest.raises(ModelError, match="cannot load the model"):
        TextEncoder.load(str(tmp_path / "nothing"))
