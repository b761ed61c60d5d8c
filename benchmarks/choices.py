"""Log-likelihoods of answers of several tokens, against lm-eval's `HFLM`."""

from __future__ import annotations

import numpy as np

from benchmarks.measure import Comparison, Side, clock, equal
from benchmarks.work import load, reviews
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine

EXAMPLES = np.arange(64)
ANSWERS = ("not worth the price of a ticket", "well worth the price of a ticket")


def choices(device: str) -> Comparison:
    """One prompt, 64 reviews, two answers of seven tokens."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    task, models = reviews("{text} {prompt} {answer}", ANSWERS), load(device)
    prompt = TextPrompt("All in all, the film is")
    examples = [task.splits["search"].examples[i] for i in EXAMPLES]
    contexts = [f"{e.fields['text']} {prompt.texts[0]}" for e in examples]
    requests = [
        Instance("loglikelihood", {}, (context, choice), index)
        for context in contexts
        for index, choice in enumerate(task.choices or ())
    ]

    engines = {
        name: Engine(lm, task.template.bind(6), task.splits["search"], task.choices)
        for name, lm in models.items()
    }

    def score(name: str) -> np.ndarray:
        found = engines[name].score([prompt], EXAMPLES).choices
        assert found is not None
        return found[0]

    def theirs(name: str) -> np.ndarray:
        nats = np.array(
            [x for x, _ in peers[name].loglikelihood(requests, disable_tqdm=True)]
        ).reshape(-1, len(ANSWERS))
        return nats - np.logaddexp.reduce(nats, axis=1, keepdims=True)

    def peer(name: str) -> Side:
        return lambda number: clock(lambda: theirs(name))[0]

    peers = {
        n: HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=32, device=device)
        for n, lm in models.items()
    }
    work = f"log-likelihood of multi-token choices, 64 reviews x {len(ANSWERS)} answers"
    return Comparison(
        {work: lambda number: clock(lambda: score("bfloat16"))[0]},
        {name: peer(name) for name in models},
        "lm-eval's HFLM, batches of 32",
        {work: {"bfloat16": 2.0}},
        lambda: equal(score("float32"), theirs("float32"), 1e-4),
    )
