"""Prompts as values: names by content, copies, and shapes that are refused."""

import re

import pytest
import torch

from promptsearch import GatedPrompt, PrefixPrompt, SoftPrompt, TunedPrompt, Weights
from promptsearch.errors import PromptError
from promptsearch.prompts.kinds import TRAINED, prompt_from_json
from promptsearch.prompts.trained import load_trained, save_trained

SHAPES = {"soft": [(3, 8)], "prefix": [(3, 2, 2, 1, 4)], "gated": [(3, 2, 8), (2, 4)]}


@pytest.fixture(params=SHAPES)
def prompt(request):
    generator = torch.Generator().manual_seed(0)
    return TRAINED[request.param](
        *(torch.randn(shape, generator=generator) for shape in SHAPES[request.param])
    )


def changed(prompt, change):
    """The same prompt, after something was done to its tensors."""
    return type(prompt)(*map(change, prompt.tensors.values()))


def test_content_names_a_trained_prompt(prompt):
    same, other = changed(prompt, torch.clone), changed(prompt, lambda tensor: tensor + 1e-6)
    assert same == prompt and hash(same) == hash(prompt) and other != prompt
    assert len(prompt.key) == 20 and other.key != prompt.key


def test_gates_belong_to_the_content():
    vectors, gates = torch.zeros(3, 2, 8), torch.zeros(2, 4)
    assert (
        len(
            {
                GatedPrompt(vectors, gates).key,
                GatedPrompt(vectors, gates + 1).key,
                GatedPrompt(vectors, gates[:, :1]).key,
            }
        )
        == 3
    )


def test_the_kind_and_the_shape_belong_to_the_content():
    numbers = torch.zeros(2, 2, 2, 1, 4)
    keys = {
        PrefixPrompt(numbers).key,
        PrefixPrompt(numbers.view(2, 1, 2, 2, 4)).key,
        SoftPrompt(numbers.view(2, 16)).key,
    }
    assert len(keys) == 3


def test_a_live_parameter_cannot_change_it(prompt):
    live = [torch.nn.Parameter(tensor.clone()) for tensor in prompt.tensors.values()]
    made = type(prompt)(*live)
    with torch.no_grad():
        for tensor in live:
            tensor += 1
    assert made == prompt and not any(tensor.requires_grad for tensor in made.tensors.values())


def test_numbers_are_kept_in_float32(prompt):
    assert changed(prompt, torch.Tensor.double) == prompt


@pytest.mark.parametrize(
    ("kind", "shape", "complaint"),
    [
        (SoftPrompt, (3,), r"a soft prompt has shape \(length, width\), got \(3,\)"),
        (
            PrefixPrompt,
            (3, 8),
            (
                r"a prefix prompt has shape \(length, layers, 2, key heads, size of a head\), got "
                r"\(3, 8\)"
            ),
        ),
        (PrefixPrompt, (2, 3, 1, 3, 4), r"a prefix prompt has shape .*, got \(2, 3, 1, 3, 4\)"),
        (PrefixPrompt, (3, 2, 2, 1, 4, 1), "a prefix prompt has shape"),
    ],
)
def test_other_shapes_are_refused(kind, shape, complaint):
    with pytest.raises(PromptError, match=complaint):
        kind(torch.zeros(shape))


@pytest.mark.parametrize(
    ("vectors", "gates", "complaint"),
    [
        (
            (3, 8),
            (2, 4),
            r"a gated prompt has vectors of shape \(length, layers, width\), got \(3, 8\)",
        ),
        ((3, 2, 8), (4,), r"a gated prompt has gates of shape \(layers, heads\), got \(4,\)"),
        ((3, 2, 8), (3, 4), r"a gated prompt has gates of shape \(layers, heads\), got \(3, 4\)"),
    ],
)
def test_vectors_and_gates_belong_to_the_same_layers(vectors, gates, complaint):
    with pytest.raises(PromptError, match=complaint):
        GatedPrompt(torch.zeros(vectors), torch.zeros(gates))


def test_a_trained_prompt_is_the_same_after_saving(prompt, tmp_path):
    data = prompt.to_json()
    assert data == {
        "kind": prompt.kind,
        "key": prompt.key,
        "shape": list(next(iter(prompt.tensors.values())).shape),
    }
    save_trained(prompt, tmp_path / f"{prompt.key}.safetensors")
    assert prompt_from_json(data, tmp_path) == prompt


def test_a_file_of_another_kind_is_refused(prompt, tmp_path):
    save_trained(prompt, path := tmp_path / "a.safetensors")
    for other in (GatedPrompt, PrefixPrompt, SoftPrompt):
        if other is not type(prompt):
            complaint = (
                f"expected the tensors {sorted(other.shapes)} of a {other.kind} prompt, found "
                f"{sorted(prompt.shapes)}"
            )
            with pytest.raises(PromptError, match=re.escape(complaint)):
                load_trained(path, other)


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"not safetensors at all"])
def test_damaged_and_pickled_files_are_named(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(PromptError, match="cannot read the numbers of a prefix prompt from"):
        load_trained(tmp_path / "a.safetensors", PrefixPrompt)


def test_unknown_kinds_are_named():
    with pytest.raises(
        PromptError,
        match=(
            "expected a prompt of kind hard, text, calibrated, verbalized, nearest, soft, prefix, "
            "gated, weights, tuned, got 'deep'"
        ),
    ):
        prompt_from_json({"kind": "deep", "key": "k"})


def test_the_names_the_shapes_and_the_numbers_of_weights_are_their_content():
    given = {"a.x": torch.zeros(2, 3), "b.y": torch.ones(4)}
    weights = Weights(given)
    assert (
        weights
        == Weights(dict(reversed(given.items())))
        == Weights({k: v.double() for k, v in given.items()})
    )
    others = [
        {**given, "a.x": torch.zeros(3, 2)},
        {"a.z": given["a.x"], "b.y": given["b.y"]},
        {**given, "b.y": torch.zeros(4)},
        {},
    ]
    assert len({weights.key, *(Weights(other).key for other in others)}) == 5
    assert (weights.numbers, weights.length, Weights({}).numbers) == (10, 0, 0)


def test_live_parameters_cannot_change_weights():
    live = torch.nn.Parameter(torch.zeros(3))
    weights = Weights({"a": live})
    with torch.no_grad():
        live += 1
    assert (weights.tensors["a"] == 0).all() and not weights.tensors["a"].requires_grad


def test_weights_are_the_same_after_saving(tmp_path):
    weights = Weights(
        {"a.x": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), "b": torch.zeros(0)}
    )
    data = weights.to_json()
    assert data == {"kind": "weights", "key": weights.key, "numbers": 6}
    save_trained(weights, tmp_path / f"{weights.key}.safetensors")
    assert prompt_from_json(data, tmp_path) == weights


def test_a_tuned_prompt_is_vectors_and_weights():
    vectors, weights = torch.ones(3, 8), {"a.x": torch.zeros(2, 3), "b.y": torch.ones(4)}
    tuned = TunedPrompt({**weights, "vectors": vectors})
    assert (tuned.length, tuned.numbers) == (3, 34) and torch.equal(tuned.vectors, vectors)
    assert tuned.weights.keys() == weights.keys() and all(
        torch.equal(tuned.weights[n], t) for n, t in weights.items()
    )
    others = [
        {**weights, "vectors": vectors + 1},
        {**weights, "vectors": vectors, "b.y": torch.zeros(4)},
        {"vectors": vectors},
    ]
    assert (
        len(
            {
                tuned.key,
                Weights(weights).key,
                Weights(tuned.tensors).key,
                *(TunedPrompt(o).key for o in others),
            }
        )
        == 6
    )
    vectors += 1
    assert torch.equal(tuned.vectors, vectors - 1), "a copy"


@pytest.mark.parametrize(
    ("tensors", "got"),
    [
        ({}, "no such tensor"),
        ({"a.x": torch.zeros(3, 8)}, "no such tensor"),
        ({"vectors": torch.zeros(3)}, r"\(3,\)"),
    ],
)
def test_a_tuned_prompt_without_vectors_is_refused(tensors, got):
    with pytest.raises(
        PromptError,
        match=(
            r"a tuned prompt has vectors of shape \(length, width\) beside its "
            f"weights, got {got}"
        ),
    ):
        TunedPrompt(tensors)


def test_a_tuned_prompt_is_the_same_after_saving_and_no_weights(tmp_path):
    tuned = TunedPrompt(
        {
            "vectors": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),
            "b.x": torch.zeros(4),
        }
    )
    data = tuned.to_json()
    assert data == {"kind": "tuned", "key": tuned.key, "numbers": 10}
    save_trained(tuned, tmp_path / f"{tuned.key}.safetensors")
    assert prompt_from_json(data, tmp_path) == tuned
    with pytest.raises(PromptError, match="does not have the content that its key names"):
        prompt_from_json({**data, "kind": "weights"}, tmp_path)
