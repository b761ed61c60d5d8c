"""The kinds of prompt, as values, and their files.

A prompt is what fills the slots of a template. Prompts are immutable; two prompts with the same
content have the same `key`, which names them in logs and caches.

Three kinds stand apart from the text, so that they put nothing into the row's own tokens: a prefix
stands in front of the row, a gated prompt beside it, and changed weights in the LM itself.
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
    """A prompt that consists of tokens of the pool, in the order of the template's slots.

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
    """A prompt that consists of any text, one piece for each slot of the template.

    Args:
        texts: The pieces; a single string fills the first slot and leaves further slots empty.
    """

    texts: tuple[str, ...]

    def __init__(self, texts: str | Sequence[str]) -> None:
        object.__setattr__(self, "texts", (texts,) if isinstance(texts, str) else tuple(texts))

    @property
    def key(self) -> str:
        """The prompt's name in logs and caches: 20 hexadecimal digits of a SHA-256."""
        return _digest("text", json.dumps(self.texts).encode())


@dataclass(frozen=True, eq=False)
class TrainedPrompt(ABC):
    """A prompt that gradient descent finds: numbers, which stand in a file of their own.

    Attributes:
        tensors: The numbers by name, as the file holds them: a detached float32 copy on the CPU,
            so that a live parameter cannot change a prompt that was already scored.
        key: The prompt's name in logs and caches, which follows from its content.
    """

    #: The kind's name in logs and keys.
    kind: ClassVar[str]

    tensors: Mapping[str, Tensor] = field(init=False, repr=False)
    key: str = field(init=False)

    @property
    @abstractmethod
    def length(self) -> int:
        """The number of prompt tokens, for which every row is charged."""

    @classmethod
    @abstractmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The prompt whose file holds these tensors.

        Args:
            tensors: The tensors by name.

        Raises:
            PromptError: They are no prompt of this kind.
        """

    @property
    def numbers(self) -> int:
        """The count of numbers that have to be stored."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def __eq__(self, other: object) -> bool:
        """Whether the other is a trained prompt with the same content, bit for bit."""
        return isinstance(other, TrainedPrompt) and self.key == other.key

    def __hash__(self) -> int:
        """The hash, which follows from the content."""
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class RowsPrompt(TrainedPrompt):
    """A trained prompt that has one row of numbers for each token.

    Soft prompts, prefixes and gated prompts have this in common.

    Args:
        rows: The numbers, one row for each token, shape `(length, ...)`.
    """

    #: The tensors' names in files, each with its dimensions: first the rows, then the other fields.
    shapes: ClassVar[dict[str, tuple[str, ...]]]

    rows: Tensor

    def __post_init__(self) -> None:
        """Check the shapes, copy the numbers and name them."""
        tensors: dict[str, Tensor] = {}
        content = b""
        sizes: dict[str, int] = {}  # dimensions with the same name have the same size
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
        """The number of rows, one for each token."""
        return len(self.rows)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The prompt whose file holds these tensors; the first one of `shapes` holds the rows."""
        if set(tensors) != set(cls.shapes):
            raise PromptError(
                f"expected the tensors {sorted(cls.shapes)} of a {cls.kind} prompt, "
                f"found {sorted(tensors)}"
            )
        return cls(*(tensors[name] for name in cls.shapes))

    @classmethod
    def _fields(cls) -> list[str]:
        return ["rows", *list(cls.shapes)[1:]]


@dataclass(frozen=True, eq=False)
class SoftPrompt(RowsPrompt):
    """A prompt of vectors in the LM's embedding space, in the order of the template's slots.

    Args:
        rows: The vectors, shape `(length, width)`.
    """

    kind = "soft"
    shapes = {"vectors": ("length", "width")}

    @property
    def vectors(self) -> Tensor:
        """The vectors, which are the rows, shape `(length, width)`."""
        return self.rows


@dataclass(frozen=True, eq=False)
class PrefixPrompt(RowsPrompt):
    """A prompt of keys and values at every layer, which stand in front of the whole row.

    All tokens of the row see them. Keys are stored as they enter the attention: in models that turn
    keys to positions, they are turned to the positions 0 to length - 1. The row's own tokens follow
    from position `length` on. The first dimension is the token, unlike in the caches of
    `transformers`: a row of this tensor, made flat, is a row of PEFT's file, and a row of what the
    scoring engine keeps.

    Args:
        rows: Keys, then values, shape `(length, layers, 2, key heads, size of a head)`.
    """

    kind = "prefix"
    shapes = {"keys_values": ("length", "layers", "2", "key heads", "size of a head")}


@dataclass(frozen=True, eq=False)
class GatedPrompt(RowsPrompt):
    """A prompt of vectors that the top-most layers attend to beside the text, through gates.

    This is the adaption prompt of LLaMA-Adapter. A layer projects its vectors by its own weights
    for keys and values, without positions. The layer's queries attend to these by a separate
    softmax; the result is multiplied by the gate and added to the attention of the text. Such a
    prompt therefore stands nowhere in the row, and with gates of zero it is the empty prompt.

    Args:
        rows: The vectors, shape `(length, layers, width)`, for the LM's last `layers` layers, the
            lowest of them first.
        gates: The factors, shape `(layers, heads)`. Shape `(layers, 1)` means one factor for all
            heads, as in PEFT; the result is then added where PEFT adds it: in models like GPT-2
            behind the attention's output projection, not before it.
    """

    kind = "gated"
    shapes = {"vectors": ("length", "layers", "width"), "gates": ("layers", "heads")}

    gates: Tensor


#: The name of the vectors among tensors by name: the names of weights all hold a dot.
VECTORS = "vectors"


@dataclass(frozen=True, eq=False)
class NamedPrompt(TrainedPrompt):
    """A trained prompt that consists of tensors by name.

    Changed weights have this in common, alone or with vectors.

    Args:
        tensors: The tensors by name.
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
        """The number of vectors, one for each token; weights count as no token."""
        return length_of(self.tensors)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The changed and added weights, by name."""
        return parted(self.tensors)[1]

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The prompt of all tensors that the file holds."""
        return cls(tensors)


@dataclass(frozen=True, eq=False)
class Weights(NamedPrompt):
    """Changed weights of the LM, which baselines hand in instead of a prompt.

    They add no tokens to a row. A tensor that has the name of one of the LM's weights replaces that
    weight while the prompt is scored. Other tensors are added to a module's output, and their names
    end in the name of their part: `lora_A` and `lora_B` for a linear map; `adapter_down`,
    `adapter_down_bias`, `adapter_up` and `adapter_up_bias` for a layer's attention or MLP. The
    formulas stand in `promptsearch.models.weights`.

    Args:
        tensors: The tensors by name; an empty mapping stands for the LM as it is.
    """

    kind = "weights"


@dataclass(frozen=True, eq=False)
class TunedPrompt(NamedPrompt):
    """A prompt of vectors together with changed weights of the LM, which were tuned with them.

    Args:
        tensors: The weights by name, as in `Weights`, and under the name `vectors` the vectors of a
            soft prompt, in the order of the template's slots, shape `(length, width)`.
    """

    kind = "tuned"
    #: The dimensions of the vectors, as in `RowsPrompt`;
    #: weights have the shapes that the LM's weights have.
    shapes: ClassVar[dict[str, tuple[str, ...]]] = {VECTORS: ("length", "width")}

    def __post_init__(self) -> None:
        """Check that there are vectors, and do what all named prompts do."""
        shape = tuple(self.tensors[VECTORS].shape) if VECTORS in self.tensors else None
        if shape is None or len(shape) != 2:
            found = "no such tensor" if shape is None else str(shape)
            raise PromptError(
                f"a tuned prompt has {VECTORS} of shape (length, width) beside its weights, "
                f"got {found}"
            )
        super().__post_init__()

    @property
    def vectors(self) -> Tensor:
        """The vectors, shape `(length, width)`."""
        return self.tensors[VECTORS]


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


Trained = SoftPrompt | PrefixPrompt | GatedPrompt | Weights | TunedPrompt
Prompt = HardPrompt | TextPrompt | Trained
T = TypeVar("T", bound=TrainedPrompt)
E = TypeVar("E", int, str)
#: The types that a prompt's numbers may have in a file, in safetensors' words.
_DTYPES = ("F64", "F32", "F16", "BF16")
#: The classes of trained prompts by the names of their kinds.
TRAINED: dict[
    str,
    type[SoftPrompt] | type[PrefixPrompt] | type[GatedPrompt] | type[Weights] | type[TunedPrompt],
] = {kind.kind: kind for kind in (SoftPrompt, PrefixPrompt, GatedPrompt, Weights, TunedPrompt)}
#: A trained prompt's numbers while it is trained: rows of vectors or of a prefix; the vectors and
#: gates of a gated prompt; or weights by name, with the vectors of a tuned prompt under `vectors`.
Numbers = Tensor | tuple[Tensor, Tensor] | Mapping[str, Tensor]


def tensors_of(numbers: Numbers) -> list[Tensor]:
    """The tensors of a prompt that is being trained.

    Where they have no names, the first tensor has one row for each token.

    Args:
        numbers: The prompt's numbers, of any kind.
    """
    if isinstance(numbers, Mapping):
        return list(numbers.values())
    return [numbers] if isinstance(numbers, Tensor) else list(numbers)


def length_of(numbers: Numbers) -> int:
    """The number of tokens of a prompt that is being trained; weights count as no token."""
    if isinstance(numbers, Mapping):
        return len(numbers.get(VECTORS, ()))
    return len(tensors_of(numbers)[0])


def parted(tensors: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The vectors among tensors by name, or None where there are none; and the weights.

    Args:
        tensors: The tensors of changed weights, or of a tuned prompt.
    """
    return tensors.get(VECTORS), {
        name: tensor for name, tensor in tensors.items() if name != VECTORS
    }


def kind_of(prompt: type) -> Kind:
    """The kind of template that takes prompts of a class.

    Args:
        prompt: The class.
    """
    kinds: dict[type, Kind] = {
        PrefixPrompt: "prefix",
        GatedPrompt: "gated",
        Weights: "weights",
        TunedPrompt: "tuned",
    }
    return next((kind for other, kind in kinds.items() if issubclass(prompt, other)), "slots")


class Sizes(Protocol):
    """The sizes that prompts need to fit: an LM knows them, and so does what scores with it."""

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`."""

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """The shape for a token of a prefix: `(layers, 2, key heads, size of a head)`.

        Keys come first, then values.
        """

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The most that gated prompts can have: `(layers, heads, width)`."""


def shapes_for(
    kind: Kind, found: Sequence[Sequence[int]], length: int, sizes: Sizes
) -> tuple[tuple[int, ...], ...]:
    """The shapes that the tensors of a trained prompt should have.

    Args:
        kind: The prompt's kind, not `weights`. For a tuned prompt only the vectors count.
        found: The shapes that they have. A gated prompt may have fewer layers than the LM, and one
            gate for all heads.
        length: The number of the prompt's tokens.
        sizes: The LM's sizes.
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
    """The same prompt in a new object, which nobody who holds the given one can change.

    Its key follows from its content, whatever key the given object shows.

    Args:
        prompt: The given object, made by code that is not trusted.

    Raises:
        StrategyError: It is no prompt, or its content is no content of a prompt.
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
    """The prompt as JSON values: hard and text prompts in full, trained ones by key and size.

    Args:
        prompt: A prompt of any kind.
    """
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
    """The prompt that JSON values stand for: the reverse of `prompt_to_json`.

    Args:
        data: The JSON values.
        folder: The folder of trained prompts, whose numbers are read from `KEY.safetensors` there;
            None: trained prompts are refused.

    Raises:
        PromptError: The data name no known kind, or the content does not have the key that they
            give.
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
    # The key is also the name of a file, so that nothing but digits may stand in it.
    if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{20}", key):
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
            f"expected '{name}' of a {data['kind']} prompt as a list of {kind.__name__}s, "
            f"got {str(found)[:80]!r}"
        )
    return found


def save_trained(prompt: TrainedPrompt, path: Path) -> None:
    """Write the numbers of a trained prompt as safetensors; the file is never half written."""
    write_aside(path, safetensors.torch.save(dict(prompt.tensors), metadata={"key": prompt.key}))


def load_trained(path: Path, kind: type[T]) -> T:
    """Read what `save_trained` wrote.

    Args:
        path: The file.
        kind: The class of the prompt.

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
        PromptError: There is no such file, it is damaged, or it holds something else than finite
            floating-point numbers.
    """
    try:
        # This refuses what is no ordinary file, and a file that memory does not hold.
        with opened(path, psutil.virtual_memory().available):
            pass
        with safetensors.safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise PromptError(
                        f"{shown(path)}: the tensor {name[:80]!r} is of {dtype}, "
                        f"expected {', '.join(_DTYPES)}"
                    )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileError, OSError, safetensors.SafetensorError) as error:
        raise PromptError(
            f"cannot read the numbers of {whose} from {shown(path)}: {error}"
        ) from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise PromptError(
                f"{shown(path)}: the tensor {name[:80]!r} holds something else than numbers "
                "(NaN or infinite ones)"
            )
    return tensors
