"""Answers that a server writes: a request for each, with what ends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from promptsearch.errors import EndpointError, StrategyError
from promptsearch.models.endpoint import Unfinished
from promptsearch.models.remote import ServedModel
from promptsearch.records.scores import Generated
from promptsearch.tasks.decoding import Decoding


def write_answers(
    model: ServedModel,
    texts: Mapping[int, Sequence[str]],
    names: Sequence[str],
    decoding: Decoding,
    *,
    stop: str,
    failures: dict[int, str],
) -> Generated:
    """Let a server go on with texts.

    Args:
        model: The model, behind an endpoint.
        texts: The place of each prompt that can be sent -> its text with each example.
        names: The name of each example, for seeds and messages.
        decoding: The way in which answers are generated.
        stop: The text before which answers end; empty where the server alone ends them.
        failures: The places of all other prompts, each with the reason; grows.

    Raises:
        StrategyError: Beams are asked for.
        EndpointDown: The server answers nothing any more.
    """
    if decoding.beams > 1:
        raise StrategyError(
            f"a model behind an endpoint does not search with {decoding.beams} beams: "
            "take 1 beam, or a model that is loaded here"
        )
    before, drawn = model.read, decoding.temperature > 0
    wanted = [
        Unfinished(
            text,
            decoding.tokens,
            decoding.temperature,
            decoding.top_p,
            seed if drawn else None,
            stop,
        )
        for own in texts.values()
        for text, name in zip(own, names, strict=True)
        for seed in decoding.seeds(name)
    ]
    found = iter(model.written(wanted))
    shape = (len(texts) + len(failures), len(names))
    answers: list[list[tuple[str, ...]]] = [[()] * len(names) for _ in range(shape[0])]
    ended: list[list[tuple[bool, ...]]] = [[()] * len(names) for _ in range(shape[0])]
    tokens = np.zeros(shape, dtype=np.int64)
    for i in texts:
        for column, name in enumerate(names):
            for each in list(islice(found, decoding.samples)):
                if isinstance(each, EndpointError):
                    failures.setdefault(i, f"{name}: {each}")
                    continue
                cut = bool(stop) and stop in each.text
                text = each.text.partition(stop)[0] if cut else each.text
                answers[i][column] += (text,)
                ended[i][column] += (cut or each.came_to_end(decoding.tokens),)
                tokens[i, column] += min(each.tokens_out, decoding.tokens)
    for i in failures:
        answers[i], ended[i] = [()] * len(names), [()] * len(names)
        tokens[i] = 0
    return Generated(answers, ended, tokens, model.read - before, failures)
