"""A process that has imported everything, and forks itself for each command.

A command then costs well under a second.

It runs under the interpreter of the checkout that is attacked, and so imports nothing of this
package. One JSON object a line comes in (`argv`, `cwd`, `env`, `stdin`, `traps`, `signals`,
`patience`), and one goes out (`code`, `hang`, `seconds`).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path[:] = [
    entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent
]

#: Memory that a command may take beside what the host has; seconds that it may work in all;
#: seconds between two looks.
MEMORY, LONGEST, LOOK = 6 << 30, 60.0, 0.02
#: After so many seconds signals are sent, whether the command handles them or not.
UNHEARD = 5.0


def serve() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _warm(Path(sys.argv[1]))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


def _warm(lab: Path) -> None:
    """Import all that commands import, by running a few.

    The first host makes the tiny model, too.
    """
    import logging

    import torch

    torch.set_num_threads(1)
    from promptsearch.search.listing import known_strategies
    from promptsearch.search.plugins import find_strategy
    from promptsearch.testing.tiny import tiny_model

    if not (lab / "llama").exists():
        model, tokenizer = tiny_model("llama")
        model.save_pretrained(lab / "making")
        tokenizer.save_pretrained(lab / "making")
        (lab / "making").rename(lab / "llama")
    for name in known_strategies():
        find_strategy(name)
    out = lab / f"warm-{os.getpid()}"
    out.mkdir()
    os.environ["PROMPTSEARCH_CACHE"] = str(out)
    _warmed(["compare", str(lab / "study.yaml"), "--out", str(out / "study"), "-q"])
    _warmed(["verify", str(out / "study/d/random/seed0")])
    import promptsearch.models.remote
    import promptsearch.report.forecast
    import promptsearch.study.forecast
    import promptsearch.testing.bench  # noqa: F401

    logging.getLogger().handlers.clear()


def _warmed(argv: list[str]) -> None:
    """A command in the host itself, which keeps what it imported."""
    from promptsearch.cli import app

    try:
        app(argv, prog_name="promptsearch")
    except SystemExit as error:
        if error.code:
            raise RuntimeError(f"{argv} ended with {error.code}") from error


def _command(argv: list[str]) -> int:
    """A command as its users run it."""
    from promptsearch import cli

    if (
        main := getattr(cli, "main", None)
    ) is None:  # in old checkouts, `__main__` runs when it is imported
        from promptsearch.__main__ import main

    sys.argv = ["promptsearch", *argv]
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def _answer(given: dict[str, Any]) -> dict[str, Any]:
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(given)
    cwd, pending = Path(given["cwd"]), sorted(given.get("signals", []))
    seen, idle, used, looked, total = None, 0.0, 0.0, begin, 0.0
    hang, ready = False, None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        now = time.monotonic()
        if ready is None and (_listens(child) or now - begin > UNHEARD):
            ready = now
        while pending and ready is not None and now - ready >= pending[0][0]:
            os.kill(child, pending.pop(0)[1])
        if now - looked > 0.5:
            # Time counts while it has the processor or waits for something, not while it waits for
            # the processor.
            state, cpu = _cpu(child)
            charge = cpu - used if state == "R" else now - looked
            now_seen = _grown(cwd, [given["out"], given["err"]])
            idle, total = (0.0 if now_seen != seen else idle + charge), total + charge
            seen, used, looked = now_seen, cpu, now
            if hang := idle > given.get("patience", 10.0) or total > LONGEST:
                os.killpg(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                break
        time.sleep(LOOK)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "hang": hang,
        "seconds": round(time.monotonic() - begin, 2),
    }


def _listens(pid: int) -> bool:
    """Whether a process handles SIGTERM by now: one that comes earlier ends any program."""
    try:
        with open(f"/proc/{pid}/status") as file:
            caught = next(line for line in file if line.startswith("SigCgt")).split()[1]
    except (OSError, StopIteration):
        return True
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _cpu(pid: int) -> tuple[str, float]:
    import psutil

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return (
            "R" if process.status() == psutil.STATUS_RUNNING else "S"
        ), times.user + times.system
    except psutil.NoSuchProcess:
        return "S", 0.0


def _grown(folder: Path, said: list[str]) -> list[tuple[str, int, int]]:
    """What has to change for a command to be said to go on: names, sizes and times of files.

    They are all files of its folder, and those with what it `said`: a line is progress, too.
    """
    found = []
    files = [f"{path}/{name}" for path, _, names in os.walk(folder) for name in names]
    for file in [*files, *said]:
        try:
            stat = os.lstat(file)
        except OSError:
            continue
        found.append((file, stat.st_size, stat.st_mtime_ns))
    return found


def _child(given: dict[str, Any]) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(given["cwd"])
        for number, name in ((0, given["stdin"]), (1, given["out"]), (2, given["err"])):
            opened = os.open(
                name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            )
            os.dup2(opened, number)
            os.close(opened)
        for key in given.get("unset", []):
            os.environ.pop(key, None)
        os.environ.update(given["env"])
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdin = os.fdopen(os.dup(0), encoding="utf-8")
        for trap in given.get("traps", []):
            _set(trap, os.path.realpath(given["cwd"]))
        code = _command(given["argv"])
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _set(trap: dict[str, Any], below: str) -> None:
    """A trap below the folder: an operation fails with `errno`, or the process gets a `signal`.

    From the `at`-th event on, each such operation fails; the signal comes at that event only.
    Events are those of `sys.audit` (`open` for writing is `write`, any other is `read`), `fsync`,
    and `cache` for a write to the cache.
    """
    count = [0]

    def strike(event: str, path: Any) -> None:
        if event != trap["event"]:
            return
        place = (
            os.path.realpath(os.fsdecode(path))
            if isinstance(path, (str, bytes, os.PathLike))
            else below
        )
        if not place.startswith(below) or trap.get("name", "") not in place:
            return
        count[0] += 1
        if "signal" in trap and count[0] == trap["at"]:
            os.kill(os.getpid(), trap["signal"])
        if "errno" in trap and count[0] >= trap["at"]:
            raise OSError(trap["errno"], os.strerror(trap["errno"]), str(path))

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
            event = "write" if flags & (os.O_WRONLY | os.O_RDWR) else "read"
        if event == trap["event"] and args:
            strike(event, args[0])

    sys.addaudithook(audit)
    fsync = os.fsync
    os.fsync = lambda file: (strike("fsync", None), fsync(file))[1]
    from promptsearch.records.cache import ScoreCache

    put = ScoreCache.put

    def put_or_strike(self: Any, *args: Any, **named: Any) -> Any:
        strike("cache", None)
        found = put(self, *args, **named)
        strike("cached", None)
        return found

    ScoreCache.put = put_or_strike


if __name__ == "__main__":
    serve()
