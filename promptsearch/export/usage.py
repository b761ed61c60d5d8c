"""Python code that uses an export: complete, run in its folder, with the certificate's answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from promptsearch.errors import ExportError
from promptsearch.export import kv, promptfoo, saved, text, vllm
from promptsearch.export.dspy import dspy_usage
from promptsearch.export.lm_eval.write import lm_eval_usage
from promptsearch.export.mlflow import mlflow_usage
from promptsearch.export.peft import write as peft
from promptsearch.export.saved import SavedPrompt
from promptsearch.export.usage_answers import by_length, chosen_ids
from promptsearch.export.usage_masked import masked_usage
from promptsearch.export.usage_seq2seq import seq2seq_usage
from promptsearch.models import LanguageModel
from promptsearch.models.packaged import is_packaged
from promptsearch.models.protocol import TextModel
from promptsearch.models.scheme import split_name
from promptsearch.models.special_tokens import DATE
from promptsearch.scoring.ending import Ending
from promptsearch.scoring.scorer import loaded

#: The model as its users load it, by its name on the Hub or, where that is ours alone, with ours.
_MODEL = """\
import torch
from transformers import {auto}, AutoTokenizer

base = {name!r}
model = {auto}.from_pretrained(base, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(base)
"""
_OUR_MODEL = """\
import torch
from promptsearch import LanguageModel

base = LanguageModel.load({name!r})
model, tokenizer = base.model, base.tokenizer
"""
#: The model's own way of writing, such as a penalty for repetitions, is none of the task's.
_PLAIN = """\
from transformers import GenerationConfig

model.generation_config = GenerationConfig()  # in place of the model's own
"""
#: A pass below a text alone.
_FORWARD = """\
def logits(ids):
    return model(input_ids=torch.tensor([ids])).logits[0]


def generate(ids, **options):
    row = torch.tensor([ids])
    made = model.generate(input_ids=row, attention_mask=torch.ones_like(row), **options)
    return made[0, len(ids) :]
"""
#: The text of a template of messages, as the tokenizer's chat template writes it.
_MESSAGES = """\
import json
from pathlib import Path

fields = {fields!r}
messages = json.loads(Path("{file}").read_text("utf-8"))
*said, begun = [{{**message, "content": message["content"].format(**fields)}} for message in \
messages]
text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True{day}) + \
begun["content"]"""
#: The answer: the most probable one, or a text that is generated up to its end.
_CHOOSE = """\
{text}
ids = {first}{ids}
answers = {answers}
sums = []
for target in answers.values():
    with torch.inference_mode():
        rows = logits(ids + target)[-len(target) - 1 : -1].double().log_softmax(-1)
    sums.append(rows.gather(-1, torch.tensor(target)[:, None]).sum())
{lengths}probabilities = torch.stack(sums).softmax(0)
print(dict(zip(answers, probabilities.tolist())))
"""
_GENERATE = """\
{text}
ids = {first}{ids}
made = generate(ids, {options})
answer = tokenizer.decode(made, skip_special_tokens=True){cut}.strip()
print(answer)
"""
#: A request to the server that a model is behind.
_REQUEST = """\
{imports}

text = {whole!r}.format(**{fields!r})
given = {given}
headers = {headers}
request = urllib.request.Request({url!r}, json.dumps(given).encode(), headers)
with urllib.request.urlopen(request) as answer:
    print(json.load(answer)["choices"][0]{said})
"""


def usage(prompt: SavedPrompt, to: str, lm: TextModel) -> str:
    """Code that uses the export, run in its folder: mostly Python that answers the first input.

    Args:
        prompt: What was exported.
        to: The format.
        lm: The LM.
    """
    fields = (
        dict(prompt.probe[0].fields)
        if prompt.probe
        else {name: "..." for name in prompt.template.fields}
    )
    if to == "promptfoo":
        return promptfoo.USAGE
    if to == "dspy":
        return dspy_usage(prompt, lm, fields)
    if to == "mlflow":
        return mlflow_usage(prompt, fields)
    if to == "lm-eval" and lm.served:
        return lm_eval_usage(prompt, lm)
    if lm.served:
        return _request(prompt, lm.served, fields)
    if to == "json":
        return saved.USAGE.format(fields=fields)
    lm = loaded(lm, "used like this")
    if to == "vllm":
        # The nearest that vLLM knows by a name; what it makes of int8 is its full weights.
        rounded = ', quantization="bitsandbytes"' if lm.quantised == "nf4" else ""
        return vllm.USAGE.format(
            base=_base_of_vllm(lm),
            fields=fields,
            own=repr(lm.name) if lm.quantised else "base",
            rounded=rounded,
            sampling=_sampling(prompt, lm),
        )
    own = is_packaged(lm.name) or lm.name.endswith(".gguf") or bool(lm.quantised)
    model = (_OUR_MODEL if own else _MODEL).format(name=lm.name, auto=lm.family.auto)
    special = lm.family.middle or lm.family.encodes
    if prompt.text and not special:  # the code of these writes or fills in by itself
        model += f"\n{_PLAIN}"
    if to == "lm-eval":
        return f"{model}\n{lm_eval_usage(prompt, lm)}"
    fields, imports = _formatted(fields)
    if special:
        above = "".join(f"{line}\n\n" for line in imports)
        own_usage = masked_usage if lm.family.middle else seq2seq_usage
        return f"{above}{model}\n{peft.USAGE}\n\n{own_usage(prompt, lm, fields)}"
    chat = bool(prompt.template.messages)
    if to == "text" and chat:
        day = f", date_string={DATE!r}" if "date_string" in str(lm.tokenizer.chat_template) else ""
        source = _MESSAGES.format(file=text.MESSAGES, fields=fields, day=day)
    elif to == "text":
        source = (
            "from pathlib import Path\n\ntext = "
            f'Path("{text.WHOLE}").read_text("utf-8").format(**{fields!r})'
        )
    else:
        source = f"text = {prompt.template.written[-1]!r}.format(**{fields!r})"
    # The tokenizer's special tokens stand before a text, and below a prefix or weights of PEFT's;
    # the other formats have folded them into the prompt.
    before = to == "text" or (to == "peft" and prompt.template.apart)
    first = f"{list(lm.lead)} + " if before and lm.lead and not chat else ""
    by_peft = f"{peft.USAGE}\n\n{_FORWARD}"
    middle = {"kv": kv.USAGE, "peft": by_peft, "cartridge": by_peft, "text": _FORWARD}[to]
    ids = _cut(prompt, lm, begins=to == "text" or prompt.template.apart)
    above = "".join(f"{line}\n\n" for line in imports)
    asked = _asked(prompt, lm).format(text=source, first=first, ids=ids)
    return f"{above}{model}\n{middle}\n\n{asked}"


def _asked(prompt: SavedPrompt, lm: LanguageModel) -> str:
    """Python code that answers, with places for the text and for the ids of what is read."""
    template = prompt.template
    places = {"text": "{text}", "first": "{first}", "ids": "{ids}"}
    if prompt.text:
        return _GENERATE.format(**places, options=_decoding(prompt, lm), cut=_cut_at(template.end))
    answers = _braced(repr(chosen_ids(prompt, lm)))
    return _CHOOSE.format(**places, answers=answers, lengths=by_length(prompt, lm))


def _decoding(prompt: SavedPrompt, lm: LanguageModel) -> str:
    """The options of `transformers`' `generate` with which it decodes as the prompt's task says."""
    way = prompt.decoding
    ends = sorted(Ending(lm, prompt.template).ids)
    options = [f"max_new_tokens={way.tokens}", f"eos_token_id={ends}"]
    if way.temperature:
        drawn = f"temperature={way.temperature:g}, top_p={way.top_p:g}, top_k=0"
        return ", ".join([*options, "do_sample=True", drawn])
    if way.beams > 1:
        options += [f"num_beams={way.beams}", f"length_penalty={way.length_penalty:g}"]
        if prompt.template.end:  # a single beam is cut there afterwards
            stop = _braced(repr(prompt.template.end))
            options += [f"stop_strings=[{stop}]", "tokenizer=tokenizer"]
    return ", ".join([*options, "do_sample=False"])


def _cut_at(end: str) -> str:
    """Python code that cuts a text before its end; none where a token ends it."""
    return f".partition({_braced(repr(end))})[0]" if end else ""


def _braced(text: str) -> str:
    """A text that `str.format` gives back as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def language(to: str, lm: TextModel) -> str:
    """The language of `usage`, as Markdown names it.

    Args:
        to: The format.
        lm: The LM.
    """
    return "sh" if to == "promptfoo" or (to == "lm-eval" and lm.served) else "python"


def _cut(prompt: SavedPrompt, lm: LanguageModel, begins: bool) -> str:
    """Python code for the ids of a text, behind the prompt or at the beginning of a row."""
    anchor, tokens = ("", 0) if begins else lm.tokens.anchor
    given = f"{anchor!r} + text" if anchor else "text"
    behind = (
        f"[{tokens}:]  # the tokenizer cuts the beginning of a text in another way"
        if anchor
        else ""
    )
    # A special token's text in an input is only text; a chat template's marks are tokens.
    split = "" if prompt.template.messages else ", split_special_tokens=True"
    return f"tokenizer({given}, add_special_tokens=False{split}).input_ids{behind}"


def _formatted(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fields as Python's `format` takes them, and what their code imports.

    `{translation.en}` asks `translation` for its attribute `en`.

    Raises:
        ExportError: A field stands within another one, which is a text.
    """
    for name in fields:
        if within := next((other for other in fields if other.startswith(f"{name}.")), None):
            raise ExportError(
                f"code that fills in both {{{name}}} and {{{within}}} cannot be written: give one "
                "of these fields another name in the data and in the template, or export it as json"
            )
    found: dict[str, Any] = {}
    for name, value in fields.items():
        *outer, last = name.split(".")
        inner = found
        for part in outer:
            inner = vars(inner.setdefault(part, SimpleNamespace()))
        inner[last] = value
    nested = any("." in name for name in fields)
    return found, ["from types import SimpleNamespace as namespace"] * nested


def _request(prompt: SavedPrompt, served: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """Python code that asks the server for the answer to an input."""
    fields, more = _formatted(fields)
    whole = "".join(s + t.replace("{", "{{").replace("}", "}}") for s, t in _pieces(prompt))
    key = served["key"]
    authorization = f', "Authorization": "Bearer " + os.environ[{key!r}]' if key else ""
    way = prompt.decoding
    longest = way.tokens
    drawn = f", 'top_p': {way.top_p:g}" if way.top_p != 1 else ""
    if not prompt.text:
        options = prompt.choices or [t for e in prompt.probe for t in e.options or ()]
        longest = max(len(answer.encode()) for answer in options)
    stop = f", 'stop': [{prompt.template.end!r}]" if prompt.text and prompt.template.end else ""
    given = (
        "{'messages': [{'role': 'user', 'content': text}]" if served["chat"] else "{'prompt': text"
    )
    said = "['message']['content']" if served["chat"] else "['text']"
    return _REQUEST.format(
        imports="\n".join(
            ["import json", *["import os"] * bool(key), *more, "import urllib.request"]
        ),
        whole=whole,
        fields=dict(fields),
        given=f"{given}, 'model': {served['model']!r}, 'max_tokens': {longest}, "
        f"'temperature': {way.temperature:g}{drawn}{stop}}}",
        url=f"{served['url']}/{'chat/' if served['chat'] else ''}completions",
        headers=f'{{"Content-Type": "application/json"{authorization}}}',
        said=said,
    )


def _pieces(prompt: SavedPrompt) -> list[tuple[str, str]]:
    """The template's segments, each with the prompt's text that follows it."""
    return list(
        zip(
            prompt.template.segments,
            [*map(str, prompt.prompt.fill(prompt.template)), ""],  # a server was sent nothing else
            strict=True,
        )
    )


def _base_of_vllm(lm: LanguageModel) -> str:
    name, _ = split_name(lm.name)
    if is_packaged(name):
        return (
            "from promptsearch.models.packaged import packaged_model\n\nbase = "
            f"str(packaged_model({name!r}))"
        )
    return f"base = {name!r}"


def _sampling(prompt: SavedPrompt, lm: LanguageModel) -> str:
    if prompt.text:
        way, ends = prompt.decoding, sorted(Ending(lm, prompt.template).ids)
        stop = f", stop={prompt.template.end!r}" if prompt.template.end else ""
        drawn = f"temperature={way.temperature:g}, top_p={way.top_p:g}"
        return f"{drawn}, max_tokens={way.tokens}, stop_token_ids={ends}{stop}"
    answers = list(chosen_ids(prompt, lm).values())
    longest = max(map(len, answers))
    if longest == 1:
        return f"temperature=0, max_tokens=1, allowed_token_ids={[ids[0] for ids in answers]}"
    return f"temperature=0, max_tokens={longest}"
