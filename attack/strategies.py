"""Plug-ins that break the contract, and plug-ins that cheat.

Their runs fail, or they gain nothing, and the rest of the study goes on.
"""

from __future__ import annotations

import json
import random
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from attack.case import Case, Ran
from attack.lab import Lab

COMPARE = ["compare", "study.yaml", "--out", "out"]
MINE = '''
import gc, json, os, sys
from pathlib import Path
import numpy as np
import torch
from promptsearch import Strategy
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt


class Honest(Strategy):
    """Draw prompts."""

    def __init__(self, objective, *, seed: int, batch: int = 4):
        super().__init__(objective, seed=seed)
        self._rng, self._batch, self.asked = np.random.default_rng(seed), batch, 0

    def ask(self):
        self.asked += 1
        return self.objective.space.sample(self._rng, self._batch)


class Mine(Honest):
    """Draw prompts, and something else."""
'''
#: What a cheat tries, each a test of the issue; whatever is refused is passed over.
CHEATS = {
    "embeddings in place": "self.objective.embeddings.mul_(0.5)",
    "embeddings through data": "self.objective.embeddings.data.mul_(0.5)",
    "embeddings through numpy": "self.objective.embeddings.detach().numpy()[:] *= 0.5",
    "embeddings through storage": (
        "torch.from_numpy(self.objective.embeddings.detach().numpy()).zero_()"
    ),
    "embeddings by set_": (
        "self.objective.embeddings.set_(torch.zeros(self.objective.embeddings.shape))"
    ),
    "budget": "self.objective.ledger.budget = 60000",
    "budget by object": "object.__setattr__(self.objective.ledger, 'budget', 60000)",
    "budget by dict": "vars(self.objective.ledger)['budget'] = 60000",
    "forward": "self.objective.ledger.forward = 0",
    "forward by dict": "vars(self.objective.ledger)['forward'] = 0",
    "charge below 0": "self.objective.ledger.charge(forward=-1000)",
    "scored": "self.objective.scored[:] = 0",
    "scored by flag": "self.objective.scored.setflags(write=True); self.objective.scored[:] = 0",
    "scored replaced": "self.objective.scored = np.array([0])",
    "pool": "self.objective.space.pool[:] = self.objective.space.pool[0]",
    "price": (
        "self.objective.price = lambda *a, **k: 0; self.objective._price_of = lambda "
        "*a: 0; type(self.objective)._price_of = lambda *a: 0"
    ),
    "ranking": "self.objective.ranking.clear()",
    "log": "self.objective.log.lines.clear()",
    "log's folder": (
        "p = next(Path(self.objective.log._folder).parents[2].glob('study.json')); self.stolen = "
        "json.loads(p.read_text())"
    ),
    "another run's result": (
        "[p.write_text(p.read_text().replace('done', 'failed')) for p in Path(self.ob"
        "jective.log._folder).parents[1].glob('before/seed0/result.json')]"
    ),
    "the cache": (
        'import sqlite3; [sqlite3.connect(p).execute("update scores set content = rep'
        "lace(content, '1', '0')\").connection.commit() for p in Path(os.environ['PROM"
        "PTSEARCH_CACHE']).glob('*.sqlite')]"
    ),
    "cache by the objective": (
        "self.objective._cache.put = lambda *a: None; self.objective._cache.get = lambda n: None"
    ),
    "weights": (
        "[p.data.zero_() for o in gc.get_objects() if isinstance(o, torch.nn.Embeddin"
        "g) for p in o.parameters()][:0] or self.objective._scorer._lm.model.get_inpu"
        "t_embeddings().weight.data.mul_(0.5)"
    ),
    "global seed": "torch.manual_seed(1); np.random.seed(1); import random; random.seed(1)",
    "threads": "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)",
    "losses": "evaluation.values[:] = 0; evaluation.losses[:] = 0",
    "losses by flag": "evaluation.losses.setflags(write=True); evaluation.losses[:] = 0",
    "evaluation kept": "self.kept = evaluation; self.kept.losses[...] = -5",
    "prompts": "prompts.clear()",
    "prompt's ids": "[object.__setattr__(p, 'ids', (1, 2)) for p in prompts]",
    "budget later": "self.objective.ledger.budget += 5000",
}
#: Bodies of classes that break the contract.
BREAKS = {
    "no super": "def __init__(self, objective, *, seed: int):\n    pass",
    "no super with own": (
        "def __init__(self, objective, *, seed: int):\n    self.x = 1\ndef ask(self):\n"
        "    return []"
    ),
    "no seed": "def __init__(self, objective):\n    pass",
    "positional seed": (
        "def __init__(self, objective, seed):\n    super().__init__(objective, seed=seed)"
    ),
    "raises": "def ask(self):\n    raise ValueError('\\x1b[31mno')",
    "raises surrogate": "def ask(self):\n    raise ValueError('\\ud83d')",
    "raises in init": "def __init__(self, objective, *, seed: int):\n    raise RuntimeError('no')",
    "raises late": (
        "def ask(self):\n    self.asked += 1\n    if self.asked > 3: raise KeyError('la"
        "te')\n    return self.objective.space.sample(self._rng, 4)"
    ),
    "exits": "def ask(self):\n    sys.exit(0)",
    "exits in init": "def __init__(self, objective, *, seed: int):\n    sys.exit(3)",
    "generator exit": "def ask(self):\n    raise GeneratorExit",
    "stop iteration": "def ask(self):\n    raise StopIteration",
    "base": "def ask(self):\n    raise type('E', (BaseException,), {})('x')",
    "recursion": "def ask(self):\n    return self.ask()",
    "memory": "def ask(self):\n    raise MemoryError",
    "os error": "def ask(self):\n    raise OSError(28, 'No space left on device')",
    "none": "def ask(self):\n    return None",
    "text": "def ask(self):\n    return 'The movie'",
    "texts": "def ask(self):\n    return ['The movie']",
    "numbers": "def ask(self):\n    return [1, 2]",
    "a mapping": "def ask(self):\n    return {1: 2}",
    "endless": (
        "def ask(self):\n    import itertools\n    return (self.objective.space.sample("
        "self._rng, 1)[0] for _ in itertools.count())"
    ),
    "nested": "def ask(self):\n    return [self.objective.space.sample(self._rng, 2)]",
    "ids out of the pool": "def ask(self):\n    return [HardPrompt([10**9, 5])]",
    "negative ids": "def ask(self):\n    return [HardPrompt([-1, -2])]",
    "wrong length": "def ask(self):\n    return [HardPrompt([300] * 50)]",
    "no ids": "def ask(self):\n    return [HardPrompt([])]",
    "surrogate": "def ask(self):\n    return [TextPrompt('\\ud83d')]",
    "escape": "def ask(self):\n    return [TextPrompt('\\x1b[31m')]",
    "NaN": "def ask(self):\n    return [SoftPrompt(torch.full((2, 32), float('nan')))]",
    "wrong width": "def ask(self):\n    return [SoftPrompt(torch.zeros(2, 7))]",
    "the same for ever": "def ask(self):\n    return [HardPrompt([300, 301])]",
    "empty for ever": "def ask(self):\n    return []",
    "twice": "def ask(self):\n    return self.objective.space.sample(self._rng, 2) * 2",
    "wrong state": "def state(self):\n    return {'a': object()}",
    "state of tensors": "def state(self):\n    return 3",
    "no method": "ask = None",
    "property": "@property\ndef ask(self):\n    raise AttributeError('x')",
    "wrong access": "access = 'everything'",
    "wrong proposes": "proposes = 3",
    "tell raises": "def tell(self, prompts, evaluation):\n    raise ZeroDivisionError",
    "tell changes": "def tell(self, prompts, evaluation):\n    evaluation.losses[:] = 0",
    "restore raises": "def restore(self, state):\n    raise ValueError",
    "options that are none": (
        "def __init__(self, objective, *, seed: int, batch: 'Nothing' = 4, **more):\n"
        "    super().__init__(objective, seed=seed)"
    ),
    "positional options": (
        "def __init__(self, objective, /, *args):\n    super().__init__(objective, seed=0)"
    ),
    "a type of its own": (
        "def ask(self):\n    return [type('P', (), {'key': 'x', 'ids': (1, 2)})()]"
    ),
    "a subclass": (
        "def ask(self):\n    class P(HardPrompt):\n        key = 'abc'\n    return [P([300, 301])]"
    ),
    "key changes": (
        "def ask(self):\n    class P(HardPrompt):\n        @property\n        def key(se"
        "lf):\n            return str(np.random.rand())\n    return [P([300, 301])]"
    ),
}
MODULES = {
    "syntax": "def (",
    "raises": "raise RuntimeError('\\x1b[31mno')",
    "exits": "import sys\nsys.exit(0)",
    "no class": "Mine = 3",
    "a function": "def Mine(objective, *, seed):\n    return None",
    "another class": "class Mine:\n    pass",
    "base": "raise KeyboardInterrupt",
    "imports nothing": "import nothing_of_this_name",
    "no ask": "from promptsearch import Strategy\nclass Mine(Strategy):\n    pass",
    "a doc of escapes": MINE.replace("Draw prompts, and something else.", "\\x1b[31mx"),
    "metaclass": (
        "class M(type):\n    def __getattribute__(c, n):\n        raise ValueError(n)\n"
        "class Mine(metaclass=M):\n    pass"
    ),
}


@cache
def undisturbed(lab: Lab) -> dict[str, Any]:
    """What the rows beside a plug-in find without it."""
    folder = lab.folder / "beside"
    with lab.host() as host:
        case = _case(lab, "", MINE, rows=False)
        case.judge = lambda folder, ran: None
        _, line, ran = host.attack(case, folder)
    if set(found := _found(folder)) != {"before", "after", "honest"}:
        raise SystemExit(f"the study of honest strategies failed: {line}\n{ran[-1].said}")
    return found


def _found(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((folder / "out/d").glob("*/seed0/result.json")):
        data = json.loads(path.read_text("utf-8"))
        if data["status"] == "done":
            found[data["label"]] = [
                data["winner"]["key"],
                data["select"]["losses"],
                data["test"]["losses"],
                data["spent"],
                data["budget"],
            ]
    return found


def _case(lab: Lab, what: str, module: str, row: str = "", rows: bool = True) -> Case:
    study = lab.study(
        strategies=[
            {"random": {"label": "before", "batch": 4}},
            *([{"mine_of_attack:Mine": {"label": "mine"}}] if rows else []),
            {"random": {"label": "after", "batch": 3}},
            {
                "mine_of_attack:Honest" if "class Honest" in module else "random": {
                    "label": "honest",
                    "batch": 4,
                }
            },
        ]
    )

    def prepare(folder: Path) -> None:
        (folder / "study.yaml").write_text(json.dumps(study))
        (folder / "mine_of_attack.py").write_text(module, "utf-8", errors="surrogatepass")

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        right, found = undisturbed(lab), _found(folder)
        if "class Honest" in module and ran[-1].code in (0, 1):
            for label, own in right.items():
                if label not in found:
                    return (
                        f"{label} was lost to another row: {' '.join(ran[-1].err.split())[-120:]}"
                    )
                if found[label] != own:
                    return f"{label} has {str(found[label])[:80]} beside it, alone {str(own)[:80]}"
        mine = found.get("mine")
        if mine is not None and mine[3] > 1500:
            return f"spent {mine[3]} of 1500"
        if row.startswith("5 cheats") and mine is not None and mine != right["honest"]:
            return f"it gained something: {str(mine)[:90]}, honest {str(right['honest'])[:90]}"
        return None

    return Case(row, what, [COMPARE], prepare, judge)


def _body(text: str) -> str:
    return MINE + "\n" + textwrap.indent(text, "    ") + "\n"


def cheats(rng: random.Random, lab: Lab) -> Case:
    """A strategy that draws as an honest one does, and tries something between."""
    name = rng.choice(sorted(CHEATS))
    code = CHEATS[name]
    tell = "evaluation" in code or "prompts" in code
    when = rng.choice([1, 1, 2, 3])
    attempt = (
        f"try:\n    if self.asked >= {when}:\n        {code}\nexcept Exception as error:\n"
        "    self.refused = error"
    )
    if tell:
        body = f"def tell(self, prompts, evaluation):\n{textwrap.indent(attempt, '    ')}"
    else:
        body = (
            f"def ask(self):\n    found = super().ask()\n{textwrap.indent(attempt, '    ')}\n"
            "    return found"
        )
    numbers = {
        "ledger": "4 ledger",
        "embeddings": "3 the model",
        "weights": "3 the model",
        "cache": "3 cache",
    }
    row = next(
        (f"5 cheats: {value}" for key, value in numbers.items() if key in code), "5 cheats: doors"
    )
    return _case(lab, f"{name} from ask {when}", _body(body), row)


def breaks(rng: random.Random, lab: Lab) -> Case:
    """A strategy that breaks the contract."""
    name = rng.choice(sorted(BREAKS))
    return _case(lab, name, _body(BREAKS[name]), "13 plug-ins")


def modules(rng: random.Random, lab: Lab) -> Case:
    """A plug-in's module that is none."""
    name = rng.choice(sorted(MODULES))
    return _case(lab, f"module: {name}", MODULES[name], "13 plug-ins")


MAKERS = (cheats, breaks, cheats, breaks, modules)
