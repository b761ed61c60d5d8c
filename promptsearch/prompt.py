"""The kinds of prompt, as values, and their files.

A prompt is what fills the slots of a template. Prompts are immutable; two prompts with the same content have
the same `key`, which names them in logs and caches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

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
class TrainedPrompt:
    """A prompt of numbers, which gradient descent finds: what soft prompts and prefixes have in common.

    Args:
        rows: One row a token, shape `(length, ...)`. Kept as a detached float32 copy on the CPU.
    """

    #: Names the kind in logs and keys, and the tensor in files; then the rows' dimensions.
    kind: ClassVar[str]
    tensor: ClassVar[str]
    dimensions: ClassVar[tuple[str, ...]]

    rows: Tensor
    key: str = field(init=False)

    def __post_init__(self) -> None:
        """Copy the numbers, so that a live parameter cannot change a prompt that was already scored."""
        shape = tuple(self.rows.shape)
        fits = len(shape) == len(self.dimensions) and all(
            not name.isdecimal() or int(name) == size for name, size in zip(self.dimensions, shape, strict=True)
        )
        if not fits:
            raise PromptError(f"a {self.kind} prompt has shape ({', '.join(self.dimensions)}), got {shape}")
        copy = self.rows.detach().to("cpu", torch.float32, copy=True).contiguous()
        object.__setattr__(self, "rows", copy)
        object.__setattr__(self, "key", _digest(self.kind, str(shape).encode() + copy.numpy().tobytes()))

    def __eq__(self, other: object) -> bool:
        """Equal content, bit for bit."""
        return isinstance(other, TrainedPrompt) and self.key == other.key

    def __hash__(self) -> int:
        """Of the content."""
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class SoftPrompt(TrainedPrompt):
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
class PrefixPrompt(TrainedPrompt):
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


Prompt = HardPrompt | TextPrompt | SoftPrompt | PrefixPrompt
T = TypeVar("T", bound=TrainedPrompt)
#: Kind -> class of the trained ones.
TRAINED: dict[str, type[SoftPrompt] | type[PrefixPrompt]] = {SoftPrompt.kind: SoftPrompt, PrefixPrompt.kind: PrefixPrompt}


def prompt_to_json(prompt: Prompt) -> dict[str, Any]:
    """The prompt as JSON values: in full for hard and text prompts, by key and shape for trained ones."""
    if isinstance(prompt, HardPrompt):
        return {"kind": "hard", "key": prompt.key, "ids": list(prompt.ids)}
    if isinstance(prompt, TextPrompt):
        return {"kind": "text", "key": prompt.key, "texts": list(prompt.texts)}
    return {"kind": prompt.kind, "key": prompt.key, "shape": list(prompt.rows.shape)}


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
            raise PromptError(f"expected a prompt of kind hard, text, {' or '.join(TRAINED)}, got {kind!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(f"these data describe no prompt ({error!r}): {str(data)[:200]}") from error
    if prompt.key != data.get("key", prompt.key):
        raise PromptError(f"the prompt {data['key']} does not have the content that its key names: the file was changed")
    return prompt


def save_trained(prompt: TrainedPrompt, path: Path) -> None:
    """Write the numbers of a trained prompt as safetensors, never half."""
    write_aside(path, safetensors.torch.save({prompt.tensor: prompt.rows}, metadata={"key": prompt.key}))


def load_trained(path: Path, kind: type[T]) -> T:
    """Read what `save_trained` wrote.

    Raises:
        PromptError: There is no such file, or it holds something else.
    """
    tensors = read_tensors(path, f"a {kind.kind} prompt")
    if kind.tensor not in tensors:
        raise PromptError(f"{path}: expected a tensor '{kind.tensor}', found {sorted(tensors)}")
    return kind(tensors[kind.tensor])


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
