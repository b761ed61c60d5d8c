"""The models of a study: the one that prompts are found for, and the one that proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from promptsearch.errors import StudyError
from promptsearch.models import LanguageModel
from promptsearch.models.endpoint import Endpoint, Price
from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.models.tokens import Tokens
from promptsearch.records.ledger import Fare
from promptsearch.scoring.answer_ids import answer_texts, options_of
from promptsearch.scoring.scorer import loaded
from promptsearch.search.proposer import LocalProposing, Proposing, RemoteProposing
from promptsearch.study.costs import fare_of
from promptsearch.study.entries import Entry
from promptsearch.study.pools import takes_words, words_of
from promptsearch.study.settings.model import EndpointConfig
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.task import SPLITS, Task


def load_model(config: StudyConfig, entries: Sequence[Entry], tasks: Sequence[Task]) -> TextModel:
    """The study's model, from wherever it is.

    Args:
        config: The study, of one model.
        entries: Its entries.
        tasks: Its tasks.

    Raises:
        ModelError: It cannot be loaded or reached.
        StudyError: It is behind an endpoint, and the words of the pool are not known.
    """
    (given,) = config.models
    if isinstance(given, str):
        return LanguageModel.load(
            config.source(given), device=config.device, device_map=config.device_map
        )
    examples = [(t, e) for t in tasks for split in SPLITS for e in t.splits[split].examples]
    chosen = all(options_of(example, task.choices) is not None for task, example in examples)
    if given.tokenizer:
        answers = {a for t, e in examples for a in answer_texts(t.template, e, t.choices)}
        return _behind(given, config, answers=sorted(answers), chosen=chosen)
    words = words_of(config)
    if words is None and takes_words(entries):
        raise StudyError(
            "the words of a model behind an endpoint are not known: give 'pool' as a list of words "
            "or {file: PATH}, or the model's 'tokenizer'"
        )
    # Without words of its own, it has one that no strategy of the study takes.
    return _behind(given, config, words or [" a"], chosen=chosen)


def load_proposer(config: StudyConfig, lm: TextModel, dtype: torch.dtype) -> tuple[Proposing, Fare]:
    """The model that proposes, in the search's dtype where it is computed here, and its fare.

    Args:
        config: The study.
        lm: The study's own model, which proposes where no other is named.
        dtype: The dtype of the search.

    Raises:
        ModelError: It cannot be loaded.
        StudyError: The study names a model that writes no text.
    """
    given, own = config.proposer, lm
    if isinstance(given, EndpointConfig):
        lm = _behind(given, config)
    elif given.model is not None:
        lm = LanguageModel.load(
            config.source(given.model), device=config.device, device_map=config.device_map
        )
        if not lm.family.writes:
            raise StudyError(
                f"'proposer' names '{given.model}', which is {lm.family.noun} and writes no text: "
                "name one that does, such as a causal language model"
            )
        lm.check()
    fare = fare_of(lm, own)
    if isinstance(lm, ServedModel):
        endpoint = replace(lm.endpoint, chat=lm.endpoint.chat or given.chat)
        return RemoteProposing(endpoint, tokens=lm.tokens), fare
    return LocalProposing(loaded(lm, "asked").to(dtype), chat=given.chat), fare


def _behind(
    given: EndpointConfig,
    config: StudyConfig,
    words: Sequence[str] = (),
    answers: Sequence[str] = (),
    chosen: bool = False,
) -> ServedModel:
    """A model behind an endpoint.

    Args:
        given: The endpoint.
        config: The study.
        words: The words that the model knows without a tokenizer.
        answers: The answers that it will score.
        chosen: Whether each of them is one to choose from.
    """
    source = None if given.tokenizer is None else config.source(given.tokenizer)
    tokens = None if source is None else Tokens.load(source)
    price = None
    if given.price is not None:
        price = Price(given.price.input / 1e6, given.price.output / 1e6)
    single = tokens is not None and {len(tokens.encode(answer)) for answer in answers} == {1}
    return ServedModel(
        Endpoint(
            given.endpoint,
            given.model,
            given.key,
            given.seconds,
            given.retries,
            chat=given.chat,
            parallel=given.parallel,
            price=price,
        ),
        tokens=tokens,
        tokenizer=source,
        words=words,
        listed=chosen or single,
        max_errors=given.max_errors,
        parameters=None if given.parameters is None else int(given.parameters),
    )
