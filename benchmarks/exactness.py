"""Does verification tell right exports from wrong ones?

Rounding is measured, and right and wrong exports are made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from promptsearch import LanguageModel
from promptsearch.errors import PromptSearchError
from promptsearch.export import FORMATS, SavedPrompt, verify
from promptsearch.export.certificate import CERTIFICATE, FORMAT
from promptsearch.export.certificate_json import to_json
from promptsearch.export.tolerance import DECIMALS, DEVIATIONS, scored
from promptsearch.files import write_json
from promptsearch.prompts.gated import GatedPrompt
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prefix import PrefixPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.weights import Weights
from promptsearch.records.scores import Floats
from promptsearch.scoring import Engine
from promptsearch.scoring.chat_template import render
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import Architecture, tiny_model

#: Right exports of eight examples each, and wrong ones.
EXPORTS, WRONG = 250, 200
#: Tokens of each choice; 0: a text answer.
ANSWERS = (1, 0, 2, 7, 1, 0, 4, 15, 1, 30, 3, 40)
_SLOTS = {
    "in front": "{prompt:3} {text} It was{answer}",
    "among anchors": "{prompt:2} film {prompt:1} {text} It was{answer}",
    "behind": "{text} {prompt:3} It was{answer}",
    "in the middle": "A film: {text} {prompt:3} is what I said. It was{answer}",
    "chat": [{"user": "Text: {text} {prompt:3} it"}, {"assistant": "It was{answer}"}],
}
_APART = {"in front": _SLOTS["in front"], "chat": _SLOTS["chat"]}
KINDS = {
    "hard": _SLOTS,
    "text": _SLOTS,
    "soft": _SLOTS,
    "prefix": _APART,
    "gated": _APART,
    "weights": _APART,
}
_TEXTS = (
    "good film",
    "I hate it",
    "warm and wise",
    "dull",
    "the best of the year",
    "too long",
    "not bad at all",
    "hm",
)
_WORDS = (
    "what",
    "I",
    "like",
    "about",
    "this",
    "old",
    "film",
    "is",
    "the",
    "very",
    "end",
    "of",
    "its",
    "story",
    "and",
    "all",
)
#: What makes an export wrong.
FAULTS = ("a token swapped", "one place off", "off by 1 %", "bfloat16", "float16")


def exactness() -> list[dict[str, Any]]:
    """Rows of three kinds: `rounding`, `exports` and `wrong`.

    They tell the rounding of each model, the exports that are right by layout, and the wrong ones
    by fault.
    """
    models = [
        LanguageModel(*tiny_model(name), name=f"tiny {name}") for name in get_args(Architecture)
    ]
    real = LanguageModel.load("smollm2-135m-instruct", device="cpu")
    rows = [row for lm in [*models, real] for row in _rounding(lm)]
    return rows + _exports(real, EXPORTS, WRONG)


# What rounding does to the sums of log-probabilities.


def _rounding(lm: LanguageModel, rows: int = 24) -> Iterator[dict[str, Any]]:
    """Sums over answers of n tokens, compared with two references.

    One is float64, the other is a row that goes on below kept keys and values.
    """
    double, rng = _in_float64(lm), np.random.default_rng(0)
    found: dict[tuple[str, str], list[Floats]] = {}
    for _ in range(rows):
        start = int(rng.integers(4, 24))
        ids = torch.tensor(rng.choice(lm.words, start + 40))[None]
        with torch.inference_mode():
            whole, exact = (
                m(input_ids=ids).logits[0, start - 1 : -1].double() for m in (lm.model, double)
            )
            above = lm.model(input_ids=ids[:, : start - 1], use_cache=True).past_key_values
            below = (
                lm.model(input_ids=ids[:, start - 1 :], past_key_values=above)
                .logits[0, :-1]
                .double()
            )
        for name, answer in (("unlikely", ids[0, start:]), ("likely", exact.argmax(-1))):
            nats = [
                each.log_softmax(-1).gather(1, answer[:, None])[:, 0].numpy()
                for each in (whole, exact, below)
            ]
            found.setdefault((name, "float64"), []).append(nats[0] - nats[1])
            found.setdefault((name, "kept beginnings"), []).append(nats[0] - nats[2])
    for (name, against), errors in found.items():
        sums = np.cumsum(np.array(errors), 1)[:, [n - 1 for n in (1, 2, 5, 10, 20, 40)]]
        units = sums / (lm.noise * np.sqrt([1, 2, 5, 10, 20, 40]))
        deviations = [round(float(x), 2) for x in np.sqrt((units**2).mean(0))]
        largest = round(float(np.abs(units).max()), 2)
        print(
            f"  {lm.name}, {name} tokens, against {against}: {deviations}, largest {largest}",
            flush=True,
        )
        about = {"rounding": lm.name, "noise": lm.noise, "tokens": name, "against": against}
        yield {
            **about,
            "deviations": deviations,
            "largest": largest,
            "nats": float(np.abs(sums).max()),
        }


def _in_float64(lm: LanguageModel) -> Any:
    """The model in float64, its norms too, which transformers computes in float32."""
    model = lm.to(torch.float64).model
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm(module)
    return model


def _norm(module: Any) -> Any:
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    scale = module.weight + ("Gemma" in type(module).__name__)
    return lambda states: (
        scale * states * torch.rsqrt(states.square().mean(-1, keepdim=True) + epsilon)
    )


# Right and wrong exports.


@dataclass(frozen=True)
class Case:
    """A prompt under a template with its answers."""

    kind: str
    place: str
    tokens: int
    saved: SavedPrompt


def cases(lm: LanguageModel, count: int) -> Iterator[Case]:
    """Random prompts over all kinds, places and answers, in turn.

    Their losses are still to be measured.
    """
    layouts = [(kind, place) for kind, places in KINDS.items() for place in places]
    for number in range(count):
        kind, place = layouts[number % len(layouts)]
        tokens = ANSWERS[(number + number // len(layouts)) % len(ANSWERS)]
        yield Case(kind, place, tokens, _saved(lm, kind, KINDS[kind][place], tokens, number))


def _saved(lm: LanguageModel, kind: str, template: Any, tokens: int, seed: int) -> SavedPrompt:
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    bound = render(Template.parse(template), lm).bind(3)
    words = rng.choice(lm.words, bound.length)
    vectors = lm.vocabulary[torch.tensor(words)]
    prompt: Prompt = HardPrompt(words)
    if kind == "text":
        prompt = TextPrompt([" ".join(rng.choice(_WORDS, 3)) for _ in bound.slots])
    elif kind == "soft":
        prompt = SoftPrompt(
            vectors + 0.5 * vectors.std() * torch.randn(vectors.shape, generator=generator)
        )
    elif kind == "prefix":
        bound = bound.taking("prefix")
        prompt = PrefixPrompt(torch.randn(3, *lm.prefix_shape, generator=generator))
    elif kind == "gated":
        bound, width = bound.taking("gated"), lm.gated_shape[2]
        rows = vectors.std() * torch.randn(3, 2, width, generator=generator)
        prompt = GatedPrompt(rows, torch.randn(2, 1, generator=generator))
    elif kind == "weights":
        bound, prompt = bound.taking("weights"), _low_rank(lm, generator)
    choices = (
        None
        if not tokens
        else (_answer(lm, " good", tokens, rng), _answer(lm, " bad", tokens, rng))
    )
    answers = choices or tuple(
        _answer(lm, " good", int(n), rng) for n in rng.integers(1, 40, len(_TEXTS))
    )
    probe = tuple(
        Example(i, {"text": text}, answers[i % len(answers)], None if choices is None else i % 2)
        for i, text in enumerate(_TEXTS)
    )
    return SavedPrompt(
        prompt=prompt, template=bound, choices=choices, about={"model": lm.facts}, probe=probe
    )


def _low_rank(lm: LanguageModel, generator: torch.Generator) -> Weights:
    tensors = {}
    for name, (into, out) in lm.weights.maps.items():
        if name.endswith(("q_proj", "v_proj", "c_attn")):
            tensors[f"{name}.lora_A"] = torch.randn(2, into, generator=generator) / into**0.5
            tensors[f"{name}.lora_B"] = 0.1 * torch.randn(out, 2, generator=generator)
    return Weights(tensors)


def _answer(lm: LanguageModel, text: str, tokens: int, rng: np.random.Generator) -> str:
    while lm.count_answer(text) < tokens:
        text += f" {rng.choice(_WORDS)}"
    return text


def wrong(prompt: Prompt, fault: str, lm: LanguageModel) -> Prompt | None:
    """The prompt with a fault; None where it has no such fault."""
    if isinstance(prompt, HardPrompt):
        ids = list(prompt.ids)
        if fault == "a token swapped":
            return HardPrompt([lm.words[lm.words.index(ids[0]) - 1], *ids[1:]])
        return HardPrompt([*ids[1:], ids[0]]) if fault == "one place off" else None
    if isinstance(prompt, TextPrompt):
        first, *rest = prompt.texts
        swapped = {
            "a token swapped": first + "s",
            "one place off": " ".join([*first.split()[1:], first.split()[0]]),
        }
        return TextPrompt([swapped[fault], *rest]) if fault in swapped else None
    if isinstance(prompt, Weights):
        return None if fault in FAULTS[:2] else Weights(_changed(dict(prompt.tensors), fault))
    if fault == "a token swapped":
        return None
    changed = _changed(dict(prompt.tensors), fault)  # type: ignore[attr-defined]
    return type(prompt).load(changed)  # type: ignore[attr-defined,no-any-return]


def _changed(tensors: dict[str, Tensor], fault: str) -> dict[str, Tensor]:
    name = next(iter(tensors))
    first = tensors[name].clone()
    if fault == "off by 1 %":
        first[0] *= 1.01
        return {**tensors, name: first}
    if fault == "one place off":
        return {**tensors, name: first.roll(1, 0)}
    dtype = torch.bfloat16 if fault == "bfloat16" else torch.float16
    return {name: tensor.to(dtype).float() for name, tensor in tensors.items()}


def _exports(lm: LanguageModel, exports: int, count: int) -> list[dict[str, Any]]:
    right: dict[tuple[str, str], list[tuple[float, float, bool]]] = {}
    bad: dict[str, list[tuple[bool, bool]]] = {fault: [] for fault in FAULTS}
    for number, case in enumerate(cases(lm, exports)):
        faulty = [(f, p) for f in FAULTS if (p := wrong(case.saved.prompt, f, lm)) is not None]
        fault, other = faulty[number // 2 % len(faulty)]
        measured, moved = measure(lm, case.saved, other)
        saved = replace(case.saved, losses=tuple(measured))
        formats = fitting(lm, saved)
        to = formats[number % len(formats)]
        found = verified(lm, saved, to)
        right.setdefault((case.kind, case.place), []).append(
            (found.distance, found.tolerance, found.same)
        )
        if sum(moves for some in bad.values() for moves, _ in some) < count:
            own = noise_of(lm, saved, measured)
            places = np.argsort(np.abs(moved - measured) / own)[-2:]
            few = replace(
                saved, probe=tuple(saved.probe[i] for i in places), losses=tuple(measured[places])
            )
            moves = bool((np.abs(moved - measured) > 10 * own)[places].any())
            bad[fault].append((moves, not verified(lm, replace(few, prompt=other), "json").same))
        print(
            (
                f"  {number + 1}: {case.kind} {case.place}, {case.tokens}, {to}: {found}; {fault} "
                f"{bad[fault][-1:]}"
            ),
            flush=True,
        )
    rows: list[dict[str, Any]] = [
        {
            "exports": f"{kind}, {place}",
            "losses": len(_TEXTS) * len(some),
            "failed": sum(not same for _, _, same in some),
            "largest": round(max(d / t for d, t, _ in some), 3),
        }
        for (kind, place), some in right.items()
    ]
    return rows + [
        {
            "wrong": fault,
            "exports_made": len(some),
            "moved": sum(moves for moves, _ in some),
            "moved_and_failed": sum(moves and fails for moves, fails in some),
            "others_failed": sum(fails and not moves for moves, fails in some),
        }
        for fault, some in bad.items()
    ]


def measure(lm: LanguageModel, saved: SavedPrompt, other: Prompt) -> tuple[Floats, Floats]:
    """The losses of a prompt and of a wrong one, scored together as a run does.

    The shape of each is `(probe,)`.
    """
    split = Split("probe", saved.probe)
    losses = Engine(lm, saved.template, split, saved.choices, keep=True).score(
        [saved.prompt, other], np.arange(len(saved.probe))
    )
    return np.round(losses.losses[0], 6), losses.losses[1]


def noise_of(lm: LanguageModel, saved: SavedPrompt, losses: Floats) -> Floats:
    """Float32's own noise on each loss, and decimals.

    The noise is the error that is usual against float64 (0.6 of `LanguageModel.noise`).
    """
    tokens = np.array(
        [scored(lm, saved.template, example, saved.choices).tokens for example in saved.probe]
    )
    share = 1.0 if saved.choices is None else -np.expm1(-losses)
    return DECIMALS / 2 + 0.6 * lm.noise * np.sqrt(tokens) * share


def fitting(lm: LanguageModel, saved: SavedPrompt) -> list[str]:
    """The formats that hold a prompt exactly."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for to, format_ in FORMATS.items():
            try:
                format_.write(saved, lm, Path(folder))
                found.append(to)
            except PromptSearchError:
                pass
    return found


def verified(lm: LanguageModel, saved: SavedPrompt, to: str) -> Any:
    """Write an export, whatever it scores, load it again and verify it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        FORMATS[to].write(saved, lm, folder)
        if to != "json":
            write_json(
                folder / CERTIFICATE,
                {"format": FORMAT, "export": to, **to_json(saved, saved.prompt.to_json())},
            )
        return verify(folder, lm)


def report(file: dict[str, Any]) -> str:
    """What was found, in Markdown."""
    rows: Sequence[dict[str, Any]] = file["rows"]
    right, bad = [r for r in rows if "exports" in r], [r for r in rows if "wrong" in r]
    total, failed = sum(r["losses"] for r in right), sum(r["failed"] for r in right)
    moved, caught = (sum(r[key] for r in bad) for key in ("moved", "moved_and_failed"))
    lines = [
        "# Right exports verify, wrong ones do not",
        "",
        (
            f"`{file['command']}`, {file['date']}, {file['machine']['cpu']}, "
            f"threads: {file['machine']['threads']}, torch"
        ),
        (
            f"{file['machine']['torch']}; SmolLM2-135M-Instruct in float32. {total:,} losses "
            "scored anew from exports in every"
        ),
        (
            f"format, {failed} of them failed. {moved} wrong exports moved a loss by more than "
            "ten times float32's own noise,"
        ),
        f"{caught} of them failed. Allowed are {DEVIATIONS:g} standard deviations of rounding, see",
        "`promptsearch/export/tolerance.py`.",
        "",
        "## What rounding does to sums of log-probabilities",
        "",
        (
            "In units of `LanguageModel.noise` (nats) times the root of the number of tokens: "
            "that it does not grow along a row is"
        ),
        "the rule of the root.",
        "",
        "| model | noise | tokens | against | 1 token | 2 | 5 | 10 | 20 | 40 | largest | nats |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "rounding" in r:
            cells = [
                r["rounding"],
                f"{r['noise']:.2g}",
                r["tokens"],
                r["against"],
                *map(str, r["deviations"]),
            ]
            lines.append(f"| {' | '.join(cells)} | {r['largest']} | {r['nats']:.1e} |")
    lines += [
        "",
        "## Right exports",
        "",
        "| prompt | losses | exports failed | largest share of what is allowed |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {r['exports']} | {r['losses']} | {r['failed']} | {r['largest']:.0%} |" for r in right
    ]
    lines += [
        "",
        "## Wrong exports",
        "",
        "| fault | made | moved a loss enough | of these failed | of the others failed |",
        "|---|---|---|---|---|",
    ]
    lines += [
        (
            f"| {r['wrong']} | {r['exports_made']} | {r['moved']} | {r['moved_and_failed']} | "
            f"{r['others_failed']} |"
        )
        for r in bad
    ]
    return "\n".join([*lines, ""])
