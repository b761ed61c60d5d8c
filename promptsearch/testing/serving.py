"""A language model behind the stand-in server, with what real servers were seen to do, and studies.

What is imitated was found on vLLM 0.32.0 and llama-cpp-python 0.3.36, see `results/servers`.
"""

from __future__ import annotations

import base64
import copy
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptsearch.models import LanguageModel
from promptsearch.scoring.forward import embed
from promptsearch.testing.server import Reply, Server, completion
from promptsearch.testing.tiny import WORDS

#: The pool of a `served_study`, for a server says nothing of its words.
POOL = tuple(word.strip() for word in WORDS)


def served_study(
    server: Server,
    strategies: Sequence[Any] = ("random",),
    *,
    model: Mapping[str, Any] = MappingProxyType({}),
    **changes: Any,
) -> dict[str, Any]:
    """The settings of a small study of a model behind a server.

    Args:
        server: The server.
        strategies: Its strategies, as a study file has them.
        model: What is said of the model besides, or in place of what is said here.
        changes: Other settings, or other values of these.
    """
    given = {"endpoint": server.url, "model": "tiny", "seconds": 5, "retries": 0, **model}
    settings = {
        "name": "s",
        "model": given,
        "task": "films",
        "pool": list(POOL),
        "budget": 3_000,
        "length": 2,
        "score_on": 4,
        "seeds": 1,
        "strategies": list(strategies),
    }
    return settings | changes


def with_model(
    lm: LanguageModel,
    *,
    echo: str = "straight",
    lists: bool = True,
    limit: int | None = None,
) -> Callable[[str, dict[str, Any]], Reply]:
    """Answers of a language model, which goes on with its most probable tokens.

    With them come log-probabilities of the prompt (`echo`) or of what is written. A prompt may be a
    text, token ids, embeddings (as vLLM takes them) or the messages of a chat. `allowed_token_ids`
    are the only ones that are written; log-probabilities are those of the model all the same.

    Args:
        lm: The model, a tiny one, since each request is a pass of its own.
        echo: `straight`: right. `early`: the numbers of each token stand at the one before it.
            `late`: as llama-cpp-python 0.3.36 does, each token is looked up in what the model
            expects after it. `same`: every number is -1. `none`: refused.
        lists: Whether the most probable tokens are listed for what is written.
        limit: The most of them that may be asked for, as vLLM allows 20; None for any number.
    """
    # A tokenizer of transformers remembers how it was last told to treat special tokens: the
    # client's threads, which cut texts in another way, must not change it between two steps here.
    tokenizer = copy.deepcopy(lm.tokenizer)

    def answer(path: str, content: dict[str, Any]) -> Reply:
        chat = path.endswith("/chat/completions")
        most = int(content.get("top_logprobs" if chat else "logprobs") or 0)
        echoed, embedded = bool(content.get("echo")), "prompt_embeds" in content
        if limit is not None and most > limit:
            return Reply({"error": f"{most} is more than the {limit} that are allowed"}, 400)
        if echoed and (echo == "none" or embedded):
            return Reply({"error": "echo is not offered"}, 400)
        with torch.inference_mode():
            if embedded:
                row = _embedded(lm, content["prompt_embeds"])
            else:
                row = _ids(lm, tokenizer, content)
            begin, logits = len(row), _logits(lm, row)
            written: list[int] = []
            for _ in range(int(content["max_tokens"])):
                written.append(_best(logits[-1], content.get("allowed_token_ids")))
                more = torch.tensor(written[-1:], device=lm.device)
                row = torch.cat([row, embed(lm, more, None) if embedded else more])
                logits = _logits(lm, row)
        text, counted = lm.decode(written), (begin, len(written))
        if not most or not (echoed or lists):
            return Reply(chatted(text, *counted) if chat else completion(text, *counted))
        places = [
            *[(int(t), i - 1) for i, t in enumerate(row[:begin].tolist() if echoed else ())],
            *[(t, begin + i - 1) for i, t in enumerate(written)],
        ]
        tokens = [lm.decode([t]) for t, _ in places]
        if echoed and echo == "early":
            places = [*places[1:], (places[0][0], len(row) - 1)]
        if echoed and echo == "late":  # what was written is not told
            tokens = tokens[:begin]
            places = [(t, i if i else -1) for i, (t, _) in enumerate(places[:begin])]
        found = [_place(lm, logits, *each, most) for each in places]
        if echoed and echo == "same":
            found = [(None, None), *[(-1.0, {"a": -1.0})] * (len(found) - 1)]
        if chat:
            return Reply(chatted(text, *counted, _entries(tokens, found)))
        values, best = zip(*found, strict=True)
        listed = {"tokens": tokens, "token_logprobs": values, "top_logprobs": best}
        whole = _text(lm, content) + text if echoed else text
        return Reply(completion(whole, *counted, listed))

    return answer


def chatted(
    text: str, tokens_in: int, tokens_out: int, entries: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The content of an answer to a chat.

    Args:
        text: What was written.
        tokens_in: Tokens of the messages.
        tokens_out: Tokens of the text.
        entries: For each token of the text its log-probability, and those of the most probable.
    """
    found = completion(text, tokens_in, tokens_out, None if entries is None else {})
    (choice,) = found["choices"]
    choice["message"] = {"role": "assistant", "content": choice.pop("text")}
    choice["logprobs"] = None if entries is None else {"content": entries}
    return found


def _ids(lm: LanguageModel, tokenizer: Any, content: Mapping[str, Any]) -> Tensor:
    """The ids of what was sent, shape `(tokens,)`; a chat's by the tokenizer."""
    if "messages" in content:
        said = [(message["role"], message["content"]) for message in content["messages"]]
        ids = tokenizer(lm.special.chat(said), add_special_tokens=False).input_ids
    elif isinstance(content["prompt"], str):
        ids = [*lm.lead, *lm.encode(content["prompt"], begins=True)]
    else:
        ids = content["prompt"]
    return torch.tensor(ids, dtype=torch.long, device=lm.device)


def _embedded(lm: LanguageModel, given: str) -> Tensor:
    """The embeddings that were sent, shape `(tokens, width)`.

    They come as base64 of what `torch.save` writes: an archive whose numbers are a file of their
    own, in float32. The pickle beside them is not opened.
    """
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(given))) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data/0")]
        numbers = np.frombuffer(archive.read(name), dtype=np.float32)
    return torch.tensor(numbers).reshape(-1, lm.embeddings.shape[1]).to(lm.device)


def _text(lm: LanguageModel, content: Mapping[str, Any]) -> str:
    given = content["prompt"]
    return given if isinstance(given, str) else lm.decode(given, begins=True)


def _logits(lm: LanguageModel, row: Tensor) -> Tensor:
    """Log-probabilities in nats behind each token of a row of ids or embeddings.

    Shape `(tokens, vocabulary)`.
    """
    given = {"input_ids": row[None]} if row.ndim == 1 else {"inputs_embeds": row[None]}
    found: Tensor = lm.model(**given).logits[0].double().log_softmax(-1)
    return found


def _best(logits: Tensor, allowed: Sequence[int] | None) -> int:
    """The most probable token of those that are allowed, by logits of shape `(vocabulary,)`."""
    if allowed is None:
        return int(logits.argmax())
    return allowed[int(logits[list(allowed)].argmax())]


def _place(
    lm: LanguageModel, logits: Tensor, token: int, row: int, most: int
) -> tuple[float | None, dict[str, float] | None]:
    """A token's log-probability in a row, and those of the most probable ones beside its own.

    Both are None where nothing stands before the token (row -1).
    """
    if row < 0:
        return None, None
    own = float(logits[row, token])
    values, tokens = logits[row].topk(min(most, logits.shape[-1]))
    listed = {lm.decode([int(t)]): float(v) for t, v in zip(tokens, values, strict=True)}
    return own, listed | {lm.decode([token]): own}


def _entries(
    tokens: Sequence[str], found: Sequence[tuple[float | None, Mapping[str, float] | None]]
) -> list[dict[str, Any]]:
    """Tokens and their log-probabilities, in the form of a chat."""
    return [
        {
            "token": token,
            "logprob": value,
            "top_logprobs": [{"token": t, "logprob": v} for t, v in (likely or {}).items()],
        }
        for token, (value, likely) in zip(tokens, found, strict=True)
    ]
