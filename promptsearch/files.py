"""Files that are never half written: write aside, then rename."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_aside(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a kill at any moment leaves the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with aside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Write JSON, indented for people, never half."""
    write_aside(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
