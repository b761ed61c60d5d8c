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
from typing import Any

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
class SoftPrompt:
    """Vectors in the LM's embedding space, in the order of the template's slots.

    Args:
        vectors: Shape `(length, width)`. Kept as a detached float32 copy on the CPU.
    """

    vectors: Tensor
    key: str = field(init=False)

    def __post_init__(self) -> None:
        """Copy the vectors, so that a live parameter cannot change a prompt that was already scored."""
        if self.vectors.ndim != 2:
            raise PromptError(f"a soft prompt has shape (length, width), got {tuple(self.vectors.shape)}")
        copy = self.vectors.detach().to("cpu", torch.float32, copy=True).contiguous()
        object.__setattr__(self, "vectors", copy)
        object.__setattr__(self, "key", _digest("soft", str(tuple(copy.shape)).encode() + copy.numpy().tobytes()))

    def __eq__(self, other: object) -> bool:
        """Equal content, bit for bit."""
        return isinstance(other, SoftPrompt) and self.key == other.key

    def __hash__(self) -> int:
        """Of the content."""
        return hash(self.key)


Prompt = HardPrompt | TextPrompt | SoftPrompt


def prompt_to_json(prompt: Prompt) -> dict[str, Any]:
    """The prompt as JSON values: in full for hard and text prompts, by key and shape for soft ones."""
    if isinstance(prompt, HardPrompt):
        return {"kind": "hard", "key": prompt.key, "ids": list(prompt.ids)}
    if isinstance(prompt, TextPrompt):
        return {"kind": "text", "key": prompt.key, "texts": list(prompt.texts)}
    return {"kind": "soft", "key": prompt.key, "shape": list(prompt.vectors.shape)}


def prompt_from_json(data: dict[str, Any], folder: Path | None = None) -> Prompt:
    """The reverse of `prompt_to_json`; a soft prompt's vectors are read from `folder/KEY.safetensors`.

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
        elif kind == "soft" and folder is not None:
            prompt = load_vectors(folder / f"{data['key']}.safetensors")
        else:
            raise PromptError(f"expected a prompt of kind hard, text or soft, got {kind!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(f"these data describe no prompt ({error!r}): {str(data)[:200]}") from error
    if prompt.key != data.get("key", prompt.key):
        raise PromptError(f"the prompt {data['key']} does not have the content that its key names: the file was changed")
    return prompt


def save_vectors(prompt: SoftPrompt, path: Path) -> None:
    """Write the vectors of a soft prompt as safetensors, never half."""
    write_aside(path, safetensors.torch.save({"vectors": prompt.vectors}, metadata={"key": prompt.key}))


def load_vectors(path: Path) -> SoftPrompt:
    """Read what `save_vectors` wrote.

    Raises:
        PromptError: There is no such file, or it holds something else.
    """
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise PromptError(f"cannot read the vectors of a soft prompt from {path}: {error}") from error
    if "vectors" not in tensors:
        raise PromptError(f"{path}: expected a tensor 'vectors', found {sorted(tensors)}")
    return SoftPrompt(tensors["vectors"])
