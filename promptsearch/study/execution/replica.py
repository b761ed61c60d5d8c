"""A replica: a process that holds the model and the data of a study, and scores what it is sent.

It is started as `python -m promptsearch.study.execution.replica`, hears of its work on standard
input, and tells of it on standard output, as `wire.py` says. It ends with the process that started
it, however that ends.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from promptsearch.errors import PromptSearchError
from promptsearch.study.execution.wire import Order, heard, send, told_error


def main() -> None:
    """Hear an order, get ready, and score the chunks that come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study hears it, and ends its replicas
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever is printed must not come between the lines of the wire
    _, told = heard(sys.stdin.readline())
    order = Order(**told)
    sys.path[:] = order.path
    work: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_hear, args=(work,), daemon=True).start()
    try:
        scorers, shown = _prepared(order)
    except PromptSearchError as error:
        send(out, "failed", told_error(error))
        return
    send(out, "ready", shown)
    while True:
        send(out, "scored", _scored(scorers, work.get()))


def _prepared(order: Order) -> tuple[dict[str, Any], dict[str, str]]:
    """The scorers of the study by their names, and what they are made with."""
    import torch

    from promptsearch.study.config import parse_config
    from promptsearch.study.execution.fleet import shown_by
    from promptsearch.study.prepare import prepare
    from promptsearch.study.share import Share

    torch.set_num_threads(order.threads)
    config = parse_config(order.settings, folder=Path(order.home), source="the study")
    prepared = prepare(config, share=Share(order.threads, order.memory, begun=True, spread=True))
    return prepared.scorers, shown_by(prepared)


def _scored(scorers: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The scores of a chunk, or what it failed with."""
    import numpy as np

    from promptsearch.prompts.kinds import prompt_from_json
    from promptsearch.study.execution.scores_wire import told_scores

    try:
        prompts = [prompt_from_json(data, Path(told["folder"])) for data in told["prompts"]]
        examples = np.array(told["examples"], dtype=np.int64)
        return {
            "scores": told_scores(scorers[told["scorer"]].score(prompts, examples)),
            "error": None,
        }
    except PromptSearchError as error:
        return {"scores": None, "error": told_error(error)}


def _hear(work: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Take in chunks; where no more can come, the process has nothing to live for."""
    try:
        for line in sys.stdin:
            work.put(heard(line)[1])
    finally:  # also behind half a line, of a study that was killed
        os._exit(0)


if __name__ == "__main__":
    main()
