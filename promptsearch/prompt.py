"""The kinds of prompt, as values, and their files.

A prompt is what fills the slots of a template. Prompts are immutable; two prompts with the same content have
the same `key`, which names them in logs and caches.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.files import write_aside


def _digest(kind: str, content: bytes) -> str:
    return hashlib.sha256(kind.encode() + b"\0" + content).hexdigest()[:20]


@dataclass(frozen=True)
class HardPrompt:
    """Tokens of the pool, in the order of the template's slots.

    Args:
        ids: Token ids, shape `(length,)`.
    """

    ids: tuple[int, ...]

    def __init__(self, ids: Iterable[int]) -> None:
        object.__setattr__(self, "ids", tuple(int(i) for i in ids))

    @property
    def key(self) -> str:
        """The prompt's name in logs and caches: 20 hexadecimal digits of a SHA-256."""
        return _digest("hard", json.dumps(self.ids).encode())


@dataclass(frozen=True)
class TextPrompt:
    """Any text, one piece for each slot of the template.

    Args:
        texts: The pieces; a single string fills the first slot and leaves further slots empty.
    """

    texts: tuple[str, ...]

    def __init__(self, texts: str | Sequence[str]) -> None:
        object.__setattr__(self, "texts", (texts,) if isinstance(texts, str) else tuple(texts))

    @property
    def key(self) -> str:
        """The prompt's name in logs and caches."""
        return _digest("text", json.dumps(self.texts).encode())


@dataclass(frozen=True, eq=False)
class TrainedPrompt(ABC):
    """What gradient descent finds: numbers, which stand in a file of their own.

    Attributes:
        tensors: The numbers by name, as the file holds them: a detached float32 copy on the CPU, so that a live parameter
            cannot change a prompt that was already scored.
        key: The prompt's name in logs and caches: of its content.
    """

    #: Names the kind in logs and keys.
    kind: ClassVar[str]

    tensors: Mapping[str, Tensor] = field(init=False, repr=False)
    key: str = field(init=False)

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens that it puts into a row."""

    @classmethod
    @abstractmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The prompt whose file holds these.

        Raises:
            PromptError: They are no prompt of this kind.
        """

    @property
    def numbers(self) -> int:
        """How many numbers have to be stored."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def __eq__(self, other: object) -> bool:
        """Equal content, bit for bit."""
        return isinstance(other, TrainedPrompt) and self.key == other.key

    def __hash__(self) -> int:
        """Of the content."""
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class RowsPrompt(TrainedPrompt):
    """A trained prompt of one row of numbers a token: what soft prompts and prefixes have in common.

    Args:
        rows: Shape `(length, ...)`.
    """

    #: Names the tensor in files; then the rows' dimensions.
    tensor: ClassVar[str]
    dimensions: ClassVar[tuple[str, ...]]

    rows: Tensor

    def __post_init__(self) -> None:
        """Check the shape, copy the numbers and name them."""
        shape = tuple(self.rows.shape)
        fits = len(shape) == len(self.dimensions) and all(
            not name.isdecimal() or int(name) == size for name, size in zip(self.dimensions, shape, strict=True)
        )
        if not fits:
            raise PromptError(f"a {self.kind} prompt has shape ({', '.join(self.dimensions)}), got {shape}")
        rows = _copy(self.rows)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "tensors", {self.tensor: rows})
        object.__setattr__(self, "key", _digest(self.kind, str(shape).encode() + rows.numpy().tobytes()))

    @property
    def length(self) -> int:
        """One row a token."""
        return len(self.rows)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The rows are the file's one tensor."""
        if cls.tensor not in tensors:
            raise PromptError(f"expected a tensor '{cls.tensor}', found {sorted(tensors)}")
        return cls(tensors[cls.tensor])


@dataclass(frozen=True, eq=False)
class SoftPrompt(RowsPrompt):
    """Vectors in the LM's embedding space, in the order of the template's slots.

    Args:
        rows: The vectors, shape `(length, width)`.
    """

    kind = "soft"
    tensor = "vectors"
    dimensions = ("length", "width")

    @property
    def vectors(self) -> Tensor:
        """The rows, shape `(length, width)`."""
        return self.rows


@dataclass(frozen=True, eq=False)
class PrefixPrompt(RowsPrompt):
    """Keys and values at every layer, which all tokens of a row see before them: they stand in front of the whole row.

    Keys are as they enter the attention, turned to the positions 0 to length - 1 where the model turns them; the row's
    own tokens follow at position `length`. The token comes first, unlike in the caches of `transformers`: a row of this
    tensor, flat, is a row of PEFT's file, and of what the scoring engine keeps.

    Args:
        rows: Keys, then values, shape `(length, layers, 2, key heads, size of a head)`.
    """

    kind = "prefix"
    tensor = "keys_values"
    dimensions = ("length", "layers", "2", "key heads", "size of a head")


@dataclass(frozen=True, eq=False)
class Weights(TrainedPrompt):
    """Other weights of the LM, which baselines hand in in place of a prompt; no tokens are added to a row.

    A tensor with the name of one of the LM's weights takes its place while the prompt is scored. Others are added to what
    a module puts out, and end in the name of their part (the formulas stand in `promptsearch.model.weights`): `lora_A` and
    `lora_B` of a linear map; `adapter_down`, `adapter_down_bias`, `adapter_up` and `adapter_up_bias` of a layer's attention or
    MLP.

    Args:
        tensors: By name; none at all stand for the LM as it is.
    """

    kind = "weights"

    tensors: Mapping[str, Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        """Copy the numbers and name them."""
        copies = {name: _copy(tensor) for name, tensor in sorted(self.tensors.items())}
        digest = hashlib.sha256(self.kind.encode())
        for name, tensor in copies.items():
            digest.update(f"\0{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        object.__setattr__(self, "tensors", copies)
        object.__setattr__(self, "key", digest.hexdigest()[:20])

    @property
    def length(self) -> int:
        """None."""
        return 0

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """All that the file holds."""
        return cls(tensors)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


Prompt = HardPrompt | TextPrompt | SoftPrompt | PrefixPrompt | Weights
T = TypeVar("T", bound=TrainedPrompt)
#: Kind -> class of the trained ones.
TRAINED: dict[str, type[SoftPrompt] | type[PrefixPrompt] | type[Weights]] = {
    SoftPrompt.kind: SoftPrompt,
    PrefixPrompt.kind: PrefixPrompt,
    Weights.kind: Weights,
}


def prompt_to_json(prompt: Prompt) -> dict[str, Any]:
    """The prompt as JSON values: in full for hard and text prompts, by key and size for trained ones."""
    if isinstance(prompt, HardPrompt):
        return {"kind": "hard", "key": prompt.key, "ids": list(prompt.ids)}
    if isinstance(prompt, TextPrompt):
        return {"kind": "text", "key": prompt.key, "texts": list(prompt.texts)}
    size = {"shape": list(prompt.rows.shape)} if isinstance(prompt, RowsPrompt) else {"numbers": prompt.numbers}
    return {"kind": prompt.kind, "key": prompt.key, **size}


def prompt_from_json(data: dict[str, Any], folder: Path | None = None) -> Prompt:
    """The reverse of `prompt_to_json`; a trained prompt's numbers are read from `folder/KEY.safetensors`.

    Raises:
        PromptError: The data name no known kind, or the content does not have the key beside it.
    """
    prompt: Prompt
    try:
        kind = data["kind"]
        if kind == "hard":
            prompt = HardPrompt(data["ids"])
        elif kind == "text":
            prompt = TextPrompt(data["texts"])
        elif kind in TRAINED and folder is not None:
            prompt = load_trained(folder / f"{data['key']}.safetensors", TRAINED[kind])
        else:
            raise PromptError(f"expected a prompt of kind hard, text, {', '.join(TRAINED)}, got {kind!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(f"these data describe no prompt ({error!r}): {str(data)[:200]}") from error
    if prompt.key != data.get("key", prompt.key):
        raise PromptError(f"the prompt {data['key']} does not have the content that its key names: the file was changed")
    return prompt


def save_trained(prompt: TrainedPrompt, path: Path) -> None:
    """Write the numbers of a trained prompt as safetensors, never half."""
    write_aside(path, safetensors.torch.save(dict(prompt.tensors), metadata={"key": prompt.key}))


def load_trained(path: Path, kind: type[T]) -> T:
    """Read what `save_trained` wrote.

    Raises:
        PromptError: There is no such file, or it holds something else.
    """
    tensors = read_tensors(path, f"a {kind.kind} prompt")
    try:
        return kind.load(tensors)
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from error


def read_tensors(path: Path, whose: str = "a prompt") -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Args:
        path: The file.
        whose: What they belong to, for the message.

    Raises:
        PromptError: There is no such file, or it is damaged.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise PromptError(f"cannot read the numbers of {whose} from {path}: {error}") from error
