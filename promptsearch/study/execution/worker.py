"""A worker: a process that makes the cells that a study gives it, one after the other.

It is started as `python -m promptsearch.study.execution.worker`, hears of its work on standard
input, and tells of it on standard output, as `wire.py` says. It ends with the process that started
it, however that ends.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import signal
import sys
import threading
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from promptsearch.errors import PromptSearchError
from promptsearch.study.execution.wire import Order, heard, send, told_end


class _Telling(logging.Handler):
    """A handler that sends what is logged to the study."""

    def __init__(self, out: IO[str], lock: threading.Lock) -> None:
        super().__init__(logging.INFO)
        self._out = out
        self._lock = lock

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line of the log."""
        with self._lock:
            send(self._out, "log", [record.name, record.levelno, record.getMessage()])


def main() -> None:
    """Hear an order, get ready, and make the cells that come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study hears it, and ends its workers
    # A strategy may print: that must not come between the lines of the wire.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()
    work: queue.SimpleQueue[str] = queue.SimpleQueue()
    _, told = heard(sys.stdin.readline())
    order = Order(**told)
    sys.path[:] = (
        [*sys.path, *(path for path in order.path if path not in sys.path)]
        if order.guest
        else order.path
    )
    replicas = ExitStack()  # those that score for this process, once there are any
    threading.Thread(target=_hear, args=(work, order, replicas), daemon=True).start()

    def tell(kind: str, content: Any) -> None:
        with lock:
            send(out, kind, content)

    with replicas:
        try:
            cells, cache, shown = _prepared(order, tell, replicas)
        except PromptSearchError as error:
            tell("ended", told_end(error))
            return
        logger = logging.getLogger("promptsearch")
        logger.addHandler(_Telling(out, lock))
        logger.setLevel(logging.INFO)
        tell("ready", shown)
        from promptsearch.study.execution.lease import held

        while True:
            name = work.get()
            try:
                with held(Path(order.folder), name) as other:
                    if other is None:
                        cells[name].execute(cache)
                end = told_end(held=other)
            except PromptSearchError as error:
                end = told_end(error)
            tell("ended", end)


def _prepared(
    order: Order, tell: Any, replicas: ExitStack
) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """All cells of the study by name, the cache of scores, and what they are made with."""
    import torch

    from promptsearch.models.packaged import cache_folder
    from promptsearch.records.cache import ScoreCache
    from promptsearch.records.load import load_kept, load_study
    from promptsearch.study.cell import cells_of
    from promptsearch.study.config import parse_config
    from promptsearch.study.execution.fleet import shown_by
    from promptsearch.study.execution.replicas import Replicas
    from promptsearch.study.prepare import prepare
    from promptsearch.study.share import Share

    torch.set_num_threads(order.threads)
    config = parse_config(order.settings, folder=Path(order.home), source="the study")
    folder = Path(order.folder)
    prepared = prepare(config, share=Share(order.threads, order.memory, begun=True, spread=True))
    shown = shown_by(prepared)
    if config.replicas:
        hands = replicas.enter_context(Replicas(order, config.replicas, shown))
        prepared = prepared.chunked(hands)
    if prepared.prunings:
        prepared = prepared.pruned(folder)
    record = load_study(folder)
    cells = cells_of(
        list(prepared.runs(folder)),
        record,
        lambda progress: tell("progress", asdict(progress)),
        load_kept(folder, record),
    )
    cache = ScoreCache(cache_folder() / "scores.sqlite")
    return {cell.name: cell for cell in cells}, cache, shown


def _hear(work: queue.SimpleQueue[str], order: Order, replicas: ExitStack) -> None:
    """Take in the names of cells; where no more can come, the process has nothing to live for."""
    with ExitStack() as last:  # also behind half a line, of a study that was killed
        last.callback(os._exit, 0)
        if order.guest:
            last.callback(shutil.rmtree, Path(order.folder).parent, ignore_errors=True)
        last.callback(replicas.close)
        for line in sys.stdin:
            work.put(heard(line)[1])


if __name__ == "__main__":
    main()
