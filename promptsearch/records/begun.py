"""What `run.json` holds: what a run was told, and what it was made with, call by call.

The fields have the names of the file's keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from promptsearch.records.run import SettingsRecord


@dataclass(frozen=True)
class MadeWithRecord:
    """What a part of a run was made with.

    Args:
        versions: Package -> version.
        machine: What matters of the machine, see `promptsearch.records.provenance`.
    """

    versions: dict[str, str]
    machine: dict[str, Any]


@dataclass(frozen=True)
class BegunRecord:
    """What `run.json` holds from a run's beginning on: what it was told, and what it is made with.

    Args:
        settings: What it is told to do.
        versions: Package -> version, as the last call had them that went on with it.
        machine: What matters of that call's machine.
        earlier: What other calls had that made lines of its logs, each once; older records, which
            tell of the last call alone, have none.
    """

    settings: SettingsRecord
    versions: dict[str, str]
    machine: dict[str, Any]
    earlier: tuple[MadeWithRecord, ...] = ()

    @property
    def made_with(self) -> MadeWithRecord:
        """What the last call has."""
        return MadeWithRecord(self.versions, self.machine)

    def after(self, before: BegunRecord) -> BegunRecord:
        """The same of a call that goes on: what the calls before it had otherwise is kept.

        Args:
            before: What `run.json` held until then.
        """
        others = (*before.earlier, before.made_with)
        return replace(self, earlier=tuple(each for each in others if each != self.made_with))
