"""The kinds of prompt, as values, and their files.

A prompt is what fills the slots of a template. Prompts are immutable; two prompts with the same content have
the same `key`, which names them in logs and caches.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import psutil
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from promptsearch.errors import FileError, PromptError, StrategyError
from promptsearch.files import opened, shown, write_aside
from promptsearch.tasks.template import Kind


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
        """Prompt tokens, for which every row is charged."""

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
    """A trained prompt of one row of numbers a token: what soft prompts, prefixes and gated prompts have in common.

    Args:
        rows: Shape `(length, ...)`.
    """

    #: The tensors' names in files, each with its dimensions: first the rows, then the other fields.
    shapes: ClassVar[dict[str, tuple[str, ...]]]

    rows: Tensor

    def __post_init__(self) -> None:
        """Check the shapes, copy the numbers and name them."""
        tensors: dict[str, Tensor] = {}
        content = b""
        sizes: dict[str, int] = {}  # dimensions of one name are of one size
        for field_name, (name, dimensions) in zip(self._fields(), self.shapes.items(), strict=True):
            given: Tensor = getattr(self, field_name)
            shape = tuple(given.shape)
            fits = len(shape) == len(dimensions) and all(
                size
                == (int(dimension) if dimension.isdecimal() else sizes.setdefault(dimension, size))
                for dimension, size in zip(dimensions, shape, strict=True)
            )
            if not fits:
                of = f" {name} of" if len(self.shapes) > 1 else ""
                raise PromptError(
                    f"a {self.kind} prompt has{of} shape ({', '.join(dimensions)}), got {shape}"
                )
            tensors[name] = _copy(given)
            object.__setattr__(self, field_name, tensors[name])
            content += str(shape).encode() + tensors[name].numpy().tobytes()
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "key", _digest(self.kind, content))

    @property
    def length(self) -> int:
        """One row a token."""
        return len(self.rows)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The rows are the file's first tensor."""
        if set(tensors) != set(cls.shapes):
            raise PromptError(
                f"expected the tensors {sorted(cls.shapes)} of a {cls.kind} prompt, found {sorted(tensors)}"
            )
        return cls(*(tensors[name] for name in cls.shapes))

    @classmethod
    def _fields(cls) -> list[str]:
        return ["rows", *list(cls.shapes)[1:]]


@dataclass(frozen=True, eq=False)
class SoftPrompt(RowsPrompt):
    """Vectors in the LM's embedding space, in the order of the template's slots.

    Args:
        rows: The vectors, shape `(length, width)`.
    """

    kind = "soft"
    shapes = {"vectors": ("length", "width")}

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
    shapes = {"keys_values": ("length", "layers", "2", "key heads", "size of a head")}


@dataclass(frozen=True, eq=False)
class GatedPrompt(RowsPrompt):
    """Vectors that the top-most layers attend to beside the text, through gates: an adaption prompt of LLaMA-Adapter.

    A layer projects its vectors by its own weights for keys and values, without positions. Its queries attend to them by a
    softmax of their own, and what comes out is added, times the gate, to the attention of the text. So such a prompt stands
    nowhere in the row, and with gates of zero it is the empty prompt.

    Args:
        rows: The vectors, shape `(length, layers, width)`: of the last so many layers, from below.
        gates: What is multiplied, shape `(layers, heads)`; or `(layers, 1)`, one for all heads, as in PEFT, which then adds
            what comes out where PEFT does: in models like GPT-2 behind the attention's output projection, not before it.
    """

    kind = "gated"
    shapes = {"vectors": ("length", "layers", "width"), "gates": ("layers", "heads")}

    gates: Tensor


#: What vectors are called beside weights, whose names all hold a dot.
VECTORS = "vectors"


@dataclass(frozen=True, eq=False)
class NamedPrompt(TrainedPrompt):
    """A trained prompt of tensors by name: what changed weights, alone and with vectors, have in common.

    Args:
        tensors: By name.
    """

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
        """One vector a token; weights are none."""
        return length_of(self.tensors)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The changed and added weights, by name."""
        return parted(self.tensors)[1]

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """All that the file holds."""
        return cls(tensors)


@dataclass(frozen=True, eq=False)
class Weights(NamedPrompt):
    """Other weights of the LM, which baselines hand in in place of a prompt; no tokens are added to a row.

    A tensor with the name of one of the LM's weights takes its place while the prompt is scored. Others are added to what
    a module puts out, and end in the name of their part (the formulas stand in `promptsearch.models.weights`): `lora_A` and
    `lora_B` of a linear map; `adapter_down`, `adapter_down_bias`, `adapter_up` and `adapter_up_bias` of a layer's attention or
    MLP.

    Args:
        tensors: By name; none at all stand for the LM as it is.
    """

    kind = "weights"


@dataclass(frozen=True, eq=False)
class TunedPrompt(NamedPrompt):
    """Vectors for an LM that was tuned with them: those of a soft prompt, and other weights of the LM.

    Args:
        tensors: Weights by name, as in `Weights`, and under `vectors` the vectors in the order of the template's slots, shape
            `(length, width)`.
    """

    kind = "tuned"
    #: As in `RowsPrompt`, of the vectors; weights have the shapes that the LM's have.
    shapes: ClassVar[dict[str, tuple[str, ...]]] = {VECTORS: ("length", "width")}

    def __post_init__(self) -> None:
        """Check that there are vectors."""
        shape = tuple(self.tensors[VECTORS].shape) if VECTORS in self.tensors else None
        if shape is None or len(shape) != 2:
            found = "no such tensor" if shape is None else str(shape)
            raise PromptError(
                f"a tuned prompt has {VECTORS} of shape (length, width) beside its weights, got {found}"
            )
        super().__post_init__()

    @property
    def vectors(self) -> Tensor:
        """Shape `(length, width)`."""
        return self.tensors[VECTORS]


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


Trained = SoftPrompt | PrefixPrompt | GatedPrompt | Weights | TunedPrompt
Prompt = HardPrompt | TextPrompt | Trained
T = TypeVar("T", bound=TrainedPrompt)
E = TypeVar("E", int, str)
#: What numbers of prompts may be, in safetensors' words.
_DTYPES = ("F64", "F32", "F16", "BF16")
#: Kind -> class of the trained ones.
TRAINED: dict[
    str,
    type[SoftPrompt] | type[PrefixPrompt] | type[GatedPrompt] | type[Weights] | type[TunedPrompt],
] = {kind.kind: kind for kind in (SoftPrompt, PrefixPrompt, GatedPrompt, Weights, TunedPrompt)}
#: A trained prompt's numbers while it is trained: rows of vectors or of a prefix, the vectors and gates of a gated prompt, or
#: weights by name, those of a tuned prompt with its vectors under `vectors`.
Numbers = Tensor | tuple[Tensor, Tensor] | Mapping[str, Tensor]


def tensors_of(numbers: Numbers) -> list[Tensor]:
    """The tensors of a prompt that is being trained; of those without names the first has one row a token."""
    if isinstance(numbers, Mapping):
        return list(numbers.values())
    return [numbers] if isinstance(numbers, Tensor) else list(numbers)


def length_of(numbers: Numbers) -> int:
    """The tokens of a prompt that is being trained: weights are none."""
    if isinstance(numbers, Mapping):
        return len(numbers.get(VECTORS, ()))
    return len(tensors_of(numbers)[0])


def parted(tensors: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The vectors among tensors by name, None where there are none, and the weights."""
    return tensors.get(VECTORS), {
        name: tensor for name, tensor in tensors.items() if name != VECTORS
    }


def kind_of(prompt: type) -> Kind:
    """The kind of template that takes prompts of a class."""
    kinds: dict[type, Kind] = {
        PrefixPrompt: "prefix",
        GatedPrompt: "gated",
        Weights: "weights",
        TunedPrompt: "tuned",
    }
    return next((kind for other, kind in kinds.items() if issubclass(prompt, other)), "slots")


class Sizes(Protocol):
    """What says how large prompts are: an LM, or what scores with it."""

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`."""

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """What a token of a prefix is: `(layers, 2, key heads, size of a head)`, keys, then values."""

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """What gated prompts have at most: `(layers, heads, width)`."""


def shapes_for(
    kind: Kind, found: Sequence[Sequence[int]], length: int, sizes: Sizes
) -> tuple[tuple[int, ...], ...]:
    """The shapes that the tensors of a trained prompt should have.

    Args:
        kind: Of the prompt; not `weights`. Of a tuned prompt, the vectors alone.
        found: The shapes that they have; a gated prompt may have fewer layers than the LM, and one gate for all heads.
        length: Tokens of the prompt.
        sizes: Of the LM.
    """
    if kind == "prefix":
        return ((length, *sizes.prefix_shape),)
    if kind in ("slots", "tuned"):
        return ((length, *sizes.embeddings.shape[1:]),)
    layers, heads, width = sizes.gated_shape
    vectors, gates = found[0], found[-1]
    count = min(max(1, vectors[1]), layers) if len(vectors) > 1 else layers
    return (length, count, width), (count, 1 if len(gates) > 1 and gates[1] == 1 else heads)


def own_copy(prompt: Any) -> Prompt:
    """The same prompt in an object of its own: whoever made it may change what he holds, but not this one.

    Its key follows from its content, whatever the given one says of itself.

    Raises:
        StrategyError: It is no prompt, or its content is none.
    """
    kind = type(prompt)
    try:
        if kind is HardPrompt:
            return HardPrompt(prompt.ids)
        if kind is TextPrompt:
            return TextPrompt(tuple(str.__str__(text) for text in prompt.texts))
        if kind in TRAINED.values():
            copy: Trained = kind.load(dict(prompt.tensors))
            return copy
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise StrategyError(
            f"this {kind.__name__} holds no prompt, or was changed after it was made: {error}"
        ) from error
    raise StrategyError(
        f"expected a prompt of the library's kinds, got {kind.__name__}: propose one of these"
    )


def prompt_to_json(prompt: Prompt) -> dict[str, Any]:
    """The prompt as JSON values: in full for hard and text prompts, by key and size for trained ones."""
    if isinstance(prompt, HardPrompt):
        return {"kind": "hard", "key": prompt.key, "ids": list(prompt.ids)}
    if isinstance(prompt, TextPrompt):
        return {"kind": "text", "key": prompt.key, "texts": list(prompt.texts)}
    size = (
        {"shape": list(prompt.rows.shape)}
        if isinstance(prompt, RowsPrompt)
        else {"numbers": prompt.numbers}
    )
    return {"kind": prompt.kind, "key": prompt.key, **size}


def prompt_from_json(data: dict[str, Any], folder: Path | None = None) -> Prompt:
    """The reverse of `prompt_to_json`; a trained prompt's numbers are read from `folder/KEY.safetensors`.

    Raises:
        PromptError: The data name no known kind, or the content does not have the key beside it.
    """
    kind, key = data.get("kind"), data.get("key")
    if not isinstance(kind, str) or kind not in (
        "hard",
        "text",
        *(TRAINED if folder is not None else ()),
    ):
        raise PromptError(
            f"expected a prompt of kind hard, text, {', '.join(TRAINED)}, got {str(kind)[:80]!r}"
        )
    if not isinstance(key, str) or not re.fullmatch(
        r"[0-9a-f]{20}", key
    ):  # also the name of a file
        raise PromptError(
            f"expected the key of a prompt, 20 hexadecimal digits, got {str(key)[:80]!r}"
        )
    prompt: Prompt
    if kind == "hard":
        prompt = HardPrompt(_listed(data, "ids", int))
    elif kind == "text":
        prompt = TextPrompt(_listed(data, "texts", str))
    else:
        assert folder is not None
        prompt = load_trained(folder / f"{key}.safetensors", TRAINED[kind])
    if prompt.key != key:
        raise PromptError(
            f"the prompt {key} does not have the content that its key names: the file was changed"
        )
    return prompt


def _listed(data: Mapping[str, Any], name: str, kind: type[E]) -> list[E]:
    found = data.get(name)
    if not isinstance(found, list) or not all(type(each) is kind for each in found):
        raise PromptError(
            f"expected '{name}' of a {data['kind']} prompt as a list of {kind.__name__}s, got {str(found)[:80]!r}"
        )
    return found


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
        with opened(
            path, psutil.virtual_memory().available
        ):  # an ordinary file, which memory holds
            pass
        with safetensors.safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise PromptError(
                        f"{shown(path)}: the tensor {name[:80]!r} is of {dtype}, expected {', '.join(_DTYPES)}"
                    )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileError, OSError, safetensors.SafetensorError) as error:
        raise PromptError(
            f"cannot read the numbers of {whose} from {shown(path)}: {error}"
        ) from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise PromptError(
                f"{shown(path)}: the tensor {name[:80]!r} holds something else than numbers (NaN or infinite ones)"
            )
    return tensors
