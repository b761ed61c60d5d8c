"""The frozen language model: loading, dtype, device, and the few operations that scoring needs.

Its passes take a *forest*: trees of tokens, which may share a *trunk* whose keys and values an
earlier pass made (see `promptsearch.models.attention`). The *lead* are the special tokens before
every text, and gated prompts stand *beside* the text (see `promptsearch.models.gated`).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn.functional import pad

from promptsearch.errors import ModelError, TemplateError
from promptsearch.models.attention import Forest, UnknownAttention, attending, chains
from promptsearch.models.folder import check_complete, check_files, reason_of
from promptsearch.models.gated import Adaption
from promptsearch.models.integrity import checksum, spare_of, write_weights
from promptsearch.models.layers import Layers, Reached, UnknownLayers, find_layers, recorded_differ
from promptsearch.models.packaged import NAME, packaged_model
from promptsearch.models.rounding import rounding_noise
from promptsearch.models.tokens import Special, Tokens, load_tokenizer
from promptsearch.models.weights import ModelWeights, changed, weights_of

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: The date in chat templates that ask for one (the one that Llama 3's takes where there is no
#: clock): scores must not change overnight.
DATE = "26 Jul 2024"
_WAYS = (
    "Expected a name on the Hub (with a network), a folder with config.json and safetensors, "
    f"a .gguf file, or '{NAME}', which comes from a Python package."
)


class LanguageModel:
    """A causal LM that is never changed, with its tokenizer.

    Args:
        model: The model as `transformers.AutoModelForCausalLM` loads it; it is put into evaluation
            mode and frozen.
        tokenizer: Its tokenizer.
        name: What to call it in reports; left out, the name that it was loaded by.

    Raises:
        ModelError: The objects are no causal LM and tokenizer of `transformers`.

    Example:
        >>> lm = LanguageModel.load("smollm2-135m-instruct")  # doctest: +SKIP
    """

    def __init__(self, model: Any, tokenizer: Any, name: str | None = None) -> None:
        if (
            not callable(getattr(model, "get_output_embeddings", None))
            or model.get_output_embeddings() is None
        ):
            raise ModelError(
                f"expected a causal language model of transformers, got {type(model).__name__}"
            )
        if not callable(getattr(tokenizer, "convert_ids_to_tokens", None)):
            raise ModelError(
                f"expected a tokenizer of transformers, got {type(tokenizer).__name__}"
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self._tokens = Tokens(tokenizer)
        self.name = name or str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
        self._cast: dict[torch.dtype, LanguageModel] = {}
        self._source = self  # the model that this is a copy of, in another dtype
        self._loaded: str | None = None  # the name by which it can be loaded again
        self._spare: list[Tensor] | None = None

    @staticmethod
    def load(name: str, *, device: str = "auto") -> LanguageModel:
        """Load a model in float32.

        Args:
            name: A Hub name, a folder, a `.gguf` file, or `smollm2-135m-instruct` (packaged, needs
                no hub).
            device: `auto`, or a device as torch names it: `cpu`, `cuda`, ...

        Raises:
            ModelError: The model cannot be found or loaded, or the device does not exist.
        """
        import transformers

        if (name.startswith((".", "/", "~")) or name.endswith(".gguf")) and not Path(name).exists():
            raise ModelError(
                f"cannot load the model '{name}': there is no such file or folder. {_WAYS}"
            )
        source: dict[str, Any] = {"pretrained_model_name_or_path": name}
        if name == NAME:
            source["pretrained_model_name_or_path"] = str(packaged_model())
        elif name.endswith(".gguf"):
            path = Path(name)
            source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        try:
            # Besides GGUF only safetensors are read: other weight files are pickles, which can run
            # code.
            safe: dict[str, Any] = {} if "gguf_file" in source else {"use_safetensors": True}
            # Left out, the user is asked in the terminal whether to run a repository's code.
            source["trust_remote_code"] = False
            check_files(source)
            causal: Any = transformers.AutoModelForCausalLM
            model, info = causal.from_pretrained(
                **source, **safe, dtype=torch.float32, output_loading_info=True
            )
            check_complete(model, info)
        except ModelError as error:
            raise ModelError(f"cannot load the model '{name}': {error}") from error
        except Exception as error:  # a stranger's files: transformers may raise anything
            raise ModelError(
                f"cannot load the model '{name}': {reason_of(error)} {_WAYS}"
            ) from error
        tokenizer = load_tokenizer(name, source)
        # Exports hold the whole path, since they may be used from anywhere.
        found = str(Path(name).resolve()) if Path(name).exists() else name
        loaded = LanguageModel(model.to(pick_device(device)), tokenizer, found)
        loaded._loaded = name
        return loaded

    def to(self, dtype: torch.dtype) -> LanguageModel:
        """The same model in another dtype: a copy, made once; the original stays as it is."""
        if dtype == self.dtype:
            return self
        if dtype not in self._cast:
            with torch.device("meta"):
                copy = type(self.model)(self.model.config)
            state = {
                k: v.to(dtype) if v.is_floating_point() else v
                for k, v in self.model.state_dict().items()
            }
            copy.load_state_dict(state, assign=True)
            copy.tie_weights()
            self._cast[dtype] = LanguageModel(
                _with_buffers(copy, self.model), self.tokenizer, self.name
            )
            self._cast[dtype]._source = self._source
        return self._cast[dtype]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return self.embeddings.dtype

    @property
    def device(self) -> torch.device:
        """The device that its weights lie on."""
        return self.embeddings.device

    @property
    def embeddings(self) -> Tensor:
        """The input embeddings, shape `(vocabulary, width)`."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    @cached_property
    def vocabulary(self) -> Tensor:
        """Every token as the layers take it, shape `(vocabulary, width)`.

        These are the embeddings or, as in Gemma 3, the embeddings scaled.
        """
        probe = torch.arange(2, device=self.device)
        with torch.no_grad():
            plain = torch.equal(self.embed(probe), self.embeddings[probe])
            return (
                self.embeddings
                if plain
                else self.embed(torch.arange(len(self.embeddings), device=self.device))
            )

    @cached_property
    def parameters(self) -> int:
        """The number of weights, shared ones counted once."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def context(self) -> int | None:
        """The longest text in tokens; None where the model names no limit.

        Rotary frequencies of the types `dynamic` and `longrope` change with the longest row of a
        batch: beyond the length that the model was made for, a row's loss would depend on its
        neighbours.
        """
        config = self.model.config
        limit = getattr(config, "max_position_embeddings", None)
        given = getattr(config, "rope_parameters", None) or {}
        for rope in [given, *given.values()]:  # there is one for all layers, or one for each type
            if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope"):
                original = rope.get("original_max_position_embeddings") or getattr(
                    config, "original_max_position_embeddings", None
                )
                limit = min(limit or original, original) if original else limit
        return limit

    @cached_property
    def weights(self) -> ModelWeights:
        """Its weights, and what they belong to.

        A copy in another dtype has the weights of the original here.

        Raises:
            ModelError: The form of its layers is not known.
        """
        return weights_of(self._source.model)

    @contextmanager
    def changed(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """A context in which the model has other weights; afterwards its own again, bit for bit.

        Args:
            tensors: Changed and added weights by name, see `promptsearch.models.weights`. They are
                cast to the model's dtype, and gradients flow back to them.

        Raises:
            PromptError: The weights do not fit the model.
        """
        if tensors:  # else the model's layers may have any form
            self.weights.check(tensors)
        with changed(
            self.model,
            {name: tensor.to(self.device, self.dtype) for name, tensor in tensors.items()},
        ):
            yield

    @property
    def checksum(self) -> str:
        """20 hexadecimal digits of the weights as they are now, far quicker than `hash`."""
        return checksum(self.model)

    @property
    def versions(self) -> tuple[int, ...]:
        """How often each weight was written to in place, as torch counts it; costs nothing."""
        return tuple(weight._version for weight in self.model.parameters())

    def keep_spare(self) -> None:
        """Keep a copy of the weights, from which `restore` can take them.

        It is kept only where they cannot be loaded again and are small.
        """
        if self._source is self and self._loaded is None and self._spare is None:
            self._spare = spare_of(self.model)

    def restore(self) -> bool:
        """Bring back the weights as they were loaded, where something has written to them.

        Returns:
            Whether the weights are right now. They are not where a large model was given as an
            object, or where what was loaded is not there any more.
        """
        if self._digest() != self.hash:
            write_weights(self.model, self._right_weights())
        return self._digest() == self.hash

    def _right_weights(self) -> list[Tensor]:
        """The weights as they should be; none where there is nowhere to take them from.

        They come from the model that this is a copy of, from a spare copy, or from where the model
        was loaded.
        """
        if self._source is not self:
            return list(self._source.model.parameters()) if self._source.restore() else []
        if self._spare is None and self._loaded is not None:
            try:
                return list(
                    LanguageModel.load(self._loaded, device=str(self.device)).model.parameters()
                )
            except ModelError:  # it is not there any more
                return []
        return self._spare or []

    def check_unchanged(self) -> None:
        """Compare the weights with those that it was loaded with.

        Raises:
            ModelError: Something has written to them.
        """
        if (found := self._digest()) != self.hash:
            raise ModelError(
                f"the weights of the model '{self.name}' were changed: "
                f"their hash was {self.hash} and is {found}"
            )

    @cached_property
    def hash(self) -> str:
        """20 hexadecimal digits from a SHA-256 over all weights.

        The same model has the same hash wherever it came from.
        """
        return self._digest()

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.named_parameters()):
            content = weight.detach().cpu().contiguous()
            digest.update(f"{name}{content.dtype}{tuple(content.shape)}".encode())
            digest.update(
                memoryview(content.view(torch.uint8).numpy()).cast("B") if content.numel() else b""
            )
        return digest.hexdigest()[:20]

    @cached_property
    def tokenizer_hash(self) -> str:
        """20 hexadecimal digits from a SHA-256 over the vocabulary and a probe text's tokens."""
        return self._tokens.hash

    @property
    def facts(self) -> dict[str, Any]:
        """What exports say of the model, so that it can be found again.

        That is its name, where it is loaded from, its hashes, width and number of layers.
        """
        return {
            "name": self.name,
            "source": self.name,
            "hash": self.hash,
            "tokenizer_hash": self.tokenizer_hash,
            "width": self.embeddings.shape[1],
            "layers": getattr(self.model.config, "num_hidden_layers", None),
        }

    @property
    def served(self) -> None:
        """None: it is loaded here."""
        return None

    def searched_in(self, dtype: str) -> torch.dtype:
        """The dtype of a search on the model's device, see `pick_dtype`."""
        return pick_dtype(dtype, self.device)

    def room(self) -> int:
        """How many bytes keys and values may take by default: half of the device's memory."""
        return half_of_memory(self.device)

    @cached_property
    def lead(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer puts before every text."""
        return self._tokens.lead

    @cached_property
    def ends(self) -> frozenset[int]:
        """The ids of the tokens that end a text."""
        given = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        listed = given if isinstance(given, (list, tuple)) else [given]
        return frozenset(int(i) for i in (*listed, self.tokenizer.eos_token_id) if i is not None)

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """The token ids of a text, without special tokens.

        What looks like a special token in the text stays plain text.

        Args:
            text: Any text.
            begins: Whether it is the beginning of a row; else it stands behind other text.

        Raises:
            ModelError: The model has no embedding for one of its tokens.
        """
        ids = self._tokens.encode(text, begins=begins)
        if (beyond := max(ids, default=0)) >= self.rows:
            raise ModelError(
                f"the text {text[:60]!r} holds the token {self.decode([beyond])!r} (id {beyond}), "
                f"but the model '{self.name}' has embeddings of {self.rows} tokens only: take it "
                "out of the text, or take the tokenizer that the model was made with"
            )
        return ids

    def chat(self, messages: Sequence[tuple[str, str]]) -> str:
        """Messages as the tokenizer's chat template writes them.

        The beginning of the assistant's turn stands behind them.

        Args:
            messages: The role and the content of each message.

        Raises:
            ModelError: The tokenizer has no chat template.
            TemplateError: The chat template refuses the messages.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise ModelError(
                f"the tokenizer of the model '{self.name}' has no chat template, which says how "
                "messages are written: write the task's template as one text, or take a model "
                "that was made for chats"
            )
        given = [{"role": role, "content": content} for role, content in messages]
        try:
            text: str = self.tokenizer.apply_chat_template(
                given, tokenize=False, add_generation_prompt=True, date_string=DATE
            )
        # A stranger's template, run in the sandbox of transformers, may raise anything.
        except Exception as error:
            raise TemplateError(
                f"the chat template of the model '{self.name}' refuses messages of "
                f"{', '.join(role for role, _ in messages)}: {error or type(error).__name__}"
            ) from error
        return text

    def cut(self, text: str) -> list[str | Special]:
        """The parts of a text that is cut at its special tokens, these among the parts."""
        longest_first = sorted(map(re.escape, self._special), key=len, reverse=True)
        parts = re.split(f"({'|'.join(longest_first)})", text) if longest_first else [text]
        return [self._special.get(part, part) for part in parts if part]

    @cached_property
    def _special(self) -> dict[str, Special]:
        added = self.tokenizer.added_tokens_decoder.values()
        return {t.content: Special(t.content, t.lstrip, t.rstrip) for t in added if t.special}

    @cached_property
    def always(self) -> tuple[str, ...]:
        """The added tokens that are not special, such as those around a model's thinking.

        The tokenizer finds them in plain text, too.
        """
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(
            token.content for token in added if not token.special and token.content.strip()
        )

    def decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of token ids, exactly; `begins` as for `encode`."""
        return self._tokens.decode(ids, begins=begins)

    @property
    def anew(self) -> bool:
        """Whether a text behind a special token is cut like one at the beginning of a row."""
        return self._tokens.anew

    @property
    def anchor(self) -> tuple[str, int]:
        """The text that others are put behind, with its number of tokens, see `Tokens.anchor`."""
        return self._tokens.anchor

    @property
    def marks_beginnings(self) -> bool:
        """Whether a text is cut or read differently at the beginning of a row and behind text."""
        return self._tokens.marks_beginnings

    def count(self, text: str) -> int:
        """The number of tokens in a text."""
        return len(self.encode(text))

    @property
    def added(self) -> frozenset[int]:
        """The ids of special and other added tokens, which no text is meant to hold."""
        return self._tokens.added

    @cached_property
    def words(self) -> tuple[int, ...]:
        """The ids of the tokens that begin a word and are nothing else.

        Inside a text, each is a space followed by ASCII letters. In byte-level BPE the
        pre-tokenizer cuts out each of these, so that a sequence of them survives decoding and
        encoding; in other tokenizers a single word does. Special, added and padding tokens are
        never among them.
        """
        return self._tokens.words(self.rows)

    @cached_property
    def plain(self) -> tuple[int, ...]:
        """The ids of all tokens that texts are made of: none is added, all have an embedding."""
        return tuple(self._tokens.plain(self.rows))

    @cached_property
    def rows(self) -> int:
        """The number of tokens that the model has embeddings for, and can predict."""
        head = getattr(self.model.get_output_embeddings(), "weight", self.embeddings)
        return min(len(self.embeddings), len(head))

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids as the LM's layers take them, shape `(..., width)`.

        Args:
            ids: Token ids, shape `(...)`.
        """
        vectors: Tensor = self.model.get_input_embeddings()(ids)
        return vectors

    def hidden(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of one pass.

        Args:
            embedded: All tokens of the pass, one tree after the other, shape `(tokens, width)`.
            forest: Which token sees which. Where `trees` is False, it must be rows without branches
                and trunks.

        Returns:
            The states, shape `(tokens, width)`.
        """
        if self.trees:
            return self._hidden(embedded, forest)
        # The rows are padded to the right and need no mask: under causal attention no token sees
        # the padding behind it.
        rows = (
            embedded[forest.order]
            if forest.order is not None
            else embedded.unflatten(0, (-1, forest.size))
        )
        states = self._last(inputs_embeds=rows).flatten(0, 1)
        return states if forest.back is None else states[forest.back]

    def entering(self, layer: int, embedded: Tensor, forest: Forest) -> Tensor:
        """The hidden states that enter a layer; it and the layers above it are not computed.

        Args:
            layer: The number of the layer.
            embedded: As for `hidden`.
            forest: Which token sees which.

        Returns:
            The states, shape `(tokens, width)`.
        """
        return self._entering(self.layers, layer, embedded, forest)

    def above(self, layer: int, states: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of a pass that begins at a layer, with the states that enter it.

        The layers below it are not computed.

        Args:
            layer: The number of the layer.
            states: The states as `entering` gives them, shape `(tokens, width)`.
            forest: Which token sees which, and which gated prompt each tree attends to.

        Returns:
            The states, shape `(tokens, width)`.
        """
        return self._above(self.layers, layer, states, forest)

    def _entering(self, layers: Layers, layer: int, embedded: Tensor, forest: Forest) -> Tensor:
        with layers.ending(layer):
            try:
                self._hidden(embedded, forest)
            except Reached as reached:
                return reached.states[0]
        raise UnknownLayers(f"no pass goes through its layer {layer}")

    def _above(self, layers: Layers, layer: int, states: Tensor, forest: Forest) -> Tensor:
        with layers.beginning(layer, states[None]):
            return self._hidden(states, forest)

    def _hidden(self, embedded: Tensor, forest: Forest) -> Tensor:
        with ExitStack() as stack:
            stack.enter_context(attending(self.model, forest))
            if (beside := forest.adaption) is not None:
                join = lambda later: forest.gather(later).flatten(1)[None]  # noqa: E731
                stack.enter_context(beside.added_behind(self.layers.attentions, join))
            return self._last(inputs_embeds=embedded[None], position_ids=forest.positions[None])[0]

    def _last(self, **inputs: Tensor) -> Tensor:
        states: Tensor = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        return states

    @cached_property
    def trees(self) -> bool:
        """Whether rows can share what they begin with.

        This is tried out once, against the model's own forward. Models whose attention is
        recurrent, has biases of its own, or looks back in chunks cannot.
        """
        kinds = set(getattr(self.model.config, "layer_types", None) or ())
        shared, branches = self._probe[:-5], (self._probe[-5:-2], self._probe[-2:])
        rows = [torch.tensor([*shared, *branch], device=self.device) for branch in branches]
        try:
            if kinds - {"full_attention", "sliding_attention"}:
                raise UnknownAttention(", ".join(sorted(kinds)))
            with torch.inference_mode():
                windows = self._try_tree(len(shared), rows)
        # Whatever a stranger's model raises, its rows can still be scored one by one.
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        else:
            config = self.model.config
            slides = bool(getattr(config, "sliding_window", None)) and getattr(
                config, "use_sliding_window", True
            )
            slides = slides and (not kinds or "sliding_attention" in kinds)
            if slides == bool(windows):
                return True
            fault = "its sliding windows cannot be read"
        log.warning(
            "%s: rows cannot share what they begin with (%s); each is computed whole",
            self.name,
            fault[:200],
        )
        return False

    def _try_tree(self, shared: int, rows: Sequence[Tensor]) -> set[int]:
        """Compare two rows that begin alike with the model's own forward.

        They are computed apart, as chains, and then below the trunk that they share, as its
        branches.

        Args:
            shared: The number of tokens that both rows begin with.
            rows: The ids of each row.

        Returns:
            The sliding windows that the model's layers asked for.

        Raises:
            UnknownAttention: The states differ.
        """
        plain = [self._last(inputs_embeds=self.embed(row)[None])[0] for row in rows]
        forest = chains([len(row) for row in rows], self.device)
        apart = self._hidden(self.embed(torch.cat(list(rows))), forest)
        above = chains([shared], self.device)
        above.record = True
        self._hidden(self.embed(rows[0][:shared]), above)
        sizes = [len(row) - shared for row in rows]
        own = sum(sizes)
        seen = torch.block_diag(*(torch.ones(n, n).tril() for n in sizes)).bool().to(self.device)
        places = torch.cat([torch.arange(n) for n in sizes]).to(self.device) + shared
        branches = Forest(
            positions=places,
            size=own,
            visible=torch.cat(
                [torch.ones(own, shared, dtype=torch.bool, device=self.device), seen], 1
            )[None],
            key_positions=torch.cat([torch.arange(shared, device=self.device), places])[None],
            trunk=above.recorded[None],
        )
        below = self._hidden(self.embed(torch.cat([row[shared:] for row in rows])), branches)
        expected = (torch.cat(plain), torch.cat([p[shared:] for p in plain]))
        near = 1e-3 if self.dtype == torch.float32 else 0.1
        for ours, theirs in zip((apart, below), expected, strict=True):
            distance = float((ours - theirs).norm() / theirs.norm())
            if not distance < near:
                raise UnknownAttention(f"its states differ by {distance:.2g}")
        return forest.windows

    @cached_property
    def layers(self) -> Layers:
        """The layers one by one, tried out once against the model's own forward.

        Raises:
            ModelError: The layers cannot be told apart, or their projections are not known.
        """
        try:
            if not self.trees:
                raise UnknownLayers("its attention cannot be exchanged")
            token = self._recorded_token
            layers = find_layers(self.model.base_model, token.attended, token.heads[::2])
            with torch.inference_mode():
                self._try_layers(layers)
        # Whatever a stranger's model raises, it still takes other kinds of prompts.
        except Exception as error:
            fault = (
                str(error)
                if isinstance(error, UnknownLayers)
                else f"{type(error).__name__}: {error}"
            )
            raise ModelError(
                f"the model '{self.name}' takes no gated prompt: {fault[:200]}. "
                "Take prompts that fill slots, or prefixes"
            ) from error
        return layers

    def _try_layers(self, layers: Layers) -> None:
        """Compare what the layers do one by one with what a pass does.

        A token's projections are compared with the keys and values that the model makes, and a pass
        in two parts with a whole one.

        Raises:
            UnknownLayers: They differ.
        """
        inputs: list[Tensor] = []

        def keep(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            inputs.append(given[0] if given else named["hidden_states"])

        row = self.embed(torch.tensor(self._probe, device=self.device))
        with ExitStack() as hooks:
            for attention in layers.attentions:
                hooks.enter_context(attention.register_forward_pre_hook(keep, with_kwargs=True))
            self._hidden(row[:1], chains([1], self.device))
        if recorded_differ(layers, inputs, self._recorded_token.recorded):
            raise UnknownLayers("its layers make keys and values in a way that is not known here")
        whole, middle = self._hidden(row, chains([len(row)], self.device)), len(layers) // 2
        states = self._entering(layers, middle, row, chains([len(row)], self.device))
        parts = self._above(layers, middle, states, chains([len(row)], self.device))
        if not torch.allclose(parts, whole, atol=1e-3, rtol=1e-3):
            raise UnknownLayers(
                "a pass through some of its layers, and then the others, "
                "is not a pass through all of them"
            )

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The largest shape of gated prompts: `(layers, heads, width)`.

        Raises:
            ModelError: The model takes no gated prompts.
        """
        return len(self.layers), self.layers.heads, self.embeddings.shape[1]

    def adaption(self, prompts: Sequence[tuple[Tensor, Tensor]]) -> Adaption:
        """Gated prompts as the layers attend to them; gradients flow back.

        Args:
            prompts: The vectors and the gates of each prompt, see `GatedPrompt`.

        Raises:
            ModelError: The model takes no gated prompts.
        """
        layers = self.layers
        count, length = (
            max(len(gates) for _, gates in prompts),
            max(len(vectors) for vectors, _ in prompts),
        )
        # A prompt for fewer layers than others gets gates of zero below these, and adds nothing
        # there.
        vectors = torch.stack(
            [
                pad(
                    v.to(self.device, self.dtype), (0, 0, count - v.shape[1], 0, 0, length - len(v))
                )
                for v, _ in prompts
            ]
        )
        gates = torch.stack(
            [
                pad(
                    g.to(self.device, self.dtype).expand(-1, layers.heads),
                    (0, 0, count - len(g), 0),
                )
                for _, g in prompts
            ]
        )
        first = len(layers) - count
        keys, values = zip(
            *(layers.project(first + i, vectors[:, :, i]) for i in range(count)), strict=True
        )
        late = torch.tensor(
            [layers.fused and g.shape[1] == 1 for _, g in prompts], device=self.device
        )
        lengths = torch.tensor([len(v) for v, _ in prompts], device=self.device)
        within = torch.arange(length, device=self.device) < lengths[:, None]
        return Adaption(
            first,
            keys,
            values,
            gates.unbind(1),
            late=late if bool(late.any()) else None,
            within=None if bool(within.all()) else within,
        )

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states.

        Args:
            states: The last hidden states, shape `(rows, width)`.
            tokens: The tokens whose logits are wanted, shape `(tokens,)`; None for the whole
                vocabulary.

        Returns:
            The logits, shape `(rows, tokens)`.
        """
        head = self.model.get_output_embeddings()
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        if tokens is None:
            # The last states may have another dtype than the head, as Mamba's have.
            found = head(states.to(head.weight.dtype)).float()
        else:
            found = states.float() @ head.weight[tokens].float().T
            found = found if head.bias is None else found + head.bias[tokens].float()
        logits: Tensor = found if cap is None else cap * torch.tanh(found / cap)
        return logits

    @cached_property
    def values(self) -> int:
        """The number of numbers in one token's keys and values, in all layers together."""
        return self._recorded_token.recorded.shape[1]

    @cached_property
    def prefix_shape(self) -> tuple[int, int, int, int]:
        """The shape of one token in a prefix, `(layers, 2, key heads, size of a head)`.

        The 2 are keys, then values.

        Raises:
            ModelError: Rows of this model cannot begin with given keys and values, or the keys and
                values of its layers differ in size.
        """
        heads = self._recorded_token.heads if self.trees else []
        if len(set(heads)) != 1:
            sizes = ", ".join(f"{count} heads of {size}" for count, size in sorted(set(heads)))
            reason = (
                f"its layers have keys of different sizes ({sizes})"
                if heads
                else "its rows cannot begin with given keys"
            )
            raise ModelError(
                f"the model '{self.name}' takes no prefix: {reason}. Take prompts that fill slots"
            )
        return len(heads) // 2, 2, *heads[0]

    @cached_property
    def _recorded_token(self) -> Forest:
        forest = chains([1], self.device)
        forest.record = True
        with torch.inference_mode():
            self._hidden(self.embed(torch.tensor(self._probe[:1], device=self.device)), forest)
        return forest

    @property
    def _probe(self) -> tuple[int, ...]:
        """The lead and some other ids: a row to try the model out with."""
        rows = len(self.embeddings)
        return (*self.lead, *(i * rows // 8 for i in range(1, 8)))

    def cache(self, keys_values: Tensor) -> Any:
        """Given keys and values as a cache of `transformers`, for a row that goes on behind them.

        Args:
            keys_values: The keys and values, shape `(layers, 2, key heads, tokens, size of a
                head)`.
        """
        from transformers import DynamicCache

        layers = keys_values.to(self.device, self.dtype)
        return DynamicCache(
            [(keys[None], values[None]) for keys, values in layers], config=self.model.config
        )

    @cached_property
    def noise(self) -> float:
        """The error of a token's log-probability by rounding, in nats.

        See `promptsearch.models.rounding`.
        """
        rows = len(self.embeddings)
        ids = (*self.lead, *((2 * i + 1) * rows // 64 for i in range(32)))
        return rounding_noise(self.model, torch.tensor(ids, device=self.device))

    def check(self, *, gradients: bool = False) -> None:
        """Compare our path through the model with its own forward, in its dtype.

        Args:
            gradients: Whether prompts are trained on it, so that gradients must reach what enters
                the layers.

        Raises:
            ModelError: The two differ, since the architecture does something between layers and
                logits that is not known here; or it is no causal LM, or cannot be computed in this
                dtype.
        """
        ids = torch.tensor([self._probe], device=self.device)
        try:
            with torch.inference_mode():
                theirs, begun = (
                    self.model(input_ids=row).logits[0].float() for row in (ids, ids[:, :-3])
                )
                states = self._last(inputs_embeds=self.embed(ids))[0]
                ours = self.logits(states)
                few = self.logits(states, ids[0])
            if gradients:
                entering = self.embed(ids).detach().requires_grad_()
                (few_back,) = torch.autograd.grad(
                    self.logits(self._last(inputs_embeds=entering)[0]).sum(), entering
                )
                few = torch.cat([few.flatten(), few_back.float().flatten()])
        except Exception as error:  # a stranger's model: it may raise anything
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(f"{self._does_not_work}: {reason[:200]}{self._instead}") from error
        if not all(bool(found.isfinite().all()) for found in (theirs, ours, few)):
            raise ModelError(f"{self._does_not_work}: its numbers are not finite{self._instead}")
        exact = self.dtype == torch.float32
        if not _distance(theirs[: len(begun)], begun) < (1e-2 if exact else 0.2):
            raise ModelError(
                f"the model '{self.name}' ({type(self.model).__name__}) lets words see those "
                "behind them, as encoders do: expected a causal language model, which reads from "
                "left to right"
            )
        if not (
            torch.allclose(ours, theirs, atol=1e-3, rtol=1e-3)
            if exact
            else _distance(ours, theirs) < 0.1
        ):
            raise ModelError(
                f"the model '{self.name}' ({type(self.model).__name__}) does something between its "
                "layers and its logits that this library does not know (they differ by "
                f"{float((ours - theirs).abs().max()):.3g}): it cannot be scored here"
            )

    @property
    def _does_not_work(self) -> str:
        return (
            f"the model '{self.name}' ({type(self.model).__name__}) "
            f"cannot be computed in {str(self.dtype)[6:]}"
        )

    @property
    def _instead(self) -> str:
        return "" if self.dtype == torch.float32 else ". Set dtype to float32"


def _distance(one: Tensor, other: Tensor) -> float:
    """The distance between two tensors, relative to the second."""
    return float((one - other).norm() / other.norm().clamp(min=1e-12))


def pick_device(name: str) -> torch.device:
    """The torch device of a name; `auto` is a GPU where there is one.

    Args:
        name: `auto`, or a device as torch names it.

    Raises:
        ModelError: There is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"the device '{name}' cannot be used: {str(error).splitlines()[0]}. "
            "Expected auto, cpu or cuda."
        ) from error
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a search; `auto` is bfloat16 where the hardware multiplies it natively.

    A CPU that lacks bfloat16 computes the same numbers slowly: a warning says so.

    Args:
        name: `auto`, `float32` or `bfloat16`.
        device: The device that the search runs on.

    Raises:
        ModelError: There is no such dtype, or the GPU lacks it.
    """
    if name != "auto" and name not in DTYPES:
        raise ModelError(f"expected dtype auto, float32 or bfloat16, got '{name}'")
    native = _multiplies_bf16(device)
    if name == "auto":
        return torch.bfloat16 if native else torch.float32
    if name == "bfloat16" and not native:
        if device.type == "cuda":
            raise ModelError(
                f"the device '{device}' does not multiply bfloat16: "
                "set dtype to float32, or to auto"
            )
        log.warning(
            "'%s' is not known to multiply bfloat16 natively: "
            "float32, or dtype auto, may be faster",
            device,
        )
    return DTYPES[name]


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_multiplies_bf16()


def half_of_memory(device: torch.device) -> int:
    """Half of a device's memory, or of a container's limit where there is one, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1]) // 2
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return min(total, int(limit)) // 2 if limit.isdecimal() else total // 2


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))  # ARM has the last of these


def _with_buffers(copy: Any, source: Any) -> Any:
    """Give a model from the meta device the buffers that its state dict leaves out.

    Rotary frequencies are such buffers.
    """
    for module, original in zip(copy.modules(), source.modules(), strict=True):
        for key, buffer in original.named_buffers(recurse=False):
            if module._buffers[key] is None or module._buffers[key].is_meta:
                module._buffers[key] = buffer
        for key, value in vars(original).items():
            if isinstance(value, Tensor) and isinstance(vars(module).get(key), Tensor):
                setattr(module, key, value)  # plain attributes such as `original_inv_freq`
    return copy
