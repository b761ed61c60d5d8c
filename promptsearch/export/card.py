"""The model card of an export: `README.md`, which makes the folder ready for the Hub.

Nothing is uploaded. The code on the card is complete, runs in the folder as it stands there, and
gives what the certificate says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.export import kv, saved, text, vllm
from promptsearch.export.certificate import CERTIFICATE
from promptsearch.export.peft import write as peft
from promptsearch.export.saved import PROMPT, SavedPrompt
from promptsearch.files import write_aside
from promptsearch.models import LanguageModel
from promptsearch.models.language_model import DATE
from promptsearch.models.packaged import NAME
from promptsearch.models.protocol import TextModel
from promptsearch.prompts.prompt import NamedPrompt, TextPrompt, TrainedPrompt, Weights
from promptsearch.scoring.layout import prompt_texts
from promptsearch.scoring.scorer import loaded

CARD = "README.md"
#: Format -> what the folder holds, and the library under which the Hub lists it.
_ABOUT = {
    "json": ("the library's own format", "promptsearch"),
    "kv": ("keys and values for the cache of `transformers`", "transformers"),
    "peft": ("a folder for PEFT", "peft"),
    "text": ("plain text", "transformers"),
    "vllm": ("embeddings for requests to vLLM (`prompt_embeds`)", "vllm"),
}
_MODEL = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

base = {name!r}
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(base)
"""
_OUR_MODEL = """\
import torch
from promptsearch import LanguageModel

base = LanguageModel.load({name!r})
model, tokenizer = base.model, base.tokenizer
"""
_FORWARD = """\
def logits(ids):
    return model(input_ids=torch.tensor([ids])).logits[0]


def generate(ids):
    row = torch.tensor([ids])
    made = model.generate(input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=32, \
do_sample=False)
    return made[0, len(ids) :]
"""
_MESSAGES = """\
import json
from pathlib import Path

fields = {fields!r}
messages = json.loads(Path("{file}").read_text("utf-8"))
*said, begun = [{{**message, "content": message["content"].format(**fields)}} for message in \
messages]
text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True{day}) + \
begun["content"]"""
_CHOOSE = """\
{text}
ids = {first}{ids}
answers = {answers!r}
sums = []
for target in answers.values():
    with torch.inference_mode():
        rows = logits(ids + target)[-len(target) - 1 : -1].double().log_softmax(-1)
    sums.append(rows.gather(-1, torch.tensor(target)[:, None]).sum())
probabilities = torch.stack(sums).softmax(0)
print(dict(zip(answers, probabilities.tolist())))
"""
_GENERATE = """\
{text}
ids = {first}{ids}
answer = tokenizer.decode(generate(ids), skip_special_tokens=True).split("\\n")[0].strip()
print(answer)
"""

_REQUEST = """\
{imports}

text = {whole!r}.format(**{fields!r})
given = {given}
headers = {headers}
request = urllib.request.Request({url!r}, json.dumps(given).encode(), headers)
with urllib.request.urlopen(request) as answer:
    print(json.load(answer)["choices"][0]{said})
"""


def write_card(prompt: SavedPrompt, to: str, lm: TextModel, folder: Path) -> None:
    """Write `README.md`.

    Args:
        prompt: What was exported.
        to: The format.
        lm: The LM.
        folder: The export's folder.
    """
    what, library = _ABOUT[to]
    about = prompt.about
    changed = isinstance(prompt.prompt, NamedPrompt)
    name = "Changed weights" if isinstance(prompt.prompt, Weights) else f"A {_kind(prompt)} prompt"
    title = f"{name} for {about.get('task', 'a task')}"
    given = (
        "the model itself is not part"
        if changed
        else "the model itself is not changed, and not part"
    )
    facts = about.get("model", {})
    answers = (
        "free text"
        if prompt.choices is None
        else ", ".join(f"`{choice.strip()}`" for choice in prompt.choices)
    )
    certificate = PROMPT if to == "json" else CERTIFICATE
    parts = [
        f"---\n{_header(prompt, to, library, lm)}\n---\n",
        f"# {title}\n",
        f"{title} and the {'' if changed else 'frozen '}language model `{_base(lm)}`, as {what}. "
        f"Found by `{about.get('strategy', '?')}` of promptsearch; {given} of this folder.\n",
        "## Task\n",
        f"Template: {_code(prompt.template.shown)}\n",
        f"Answers: {answers}. Example: {_code(str(about.get('example', '-')))}\n",
        *_text(prompt, lm),
        "## Metrics\n",
        _metrics(prompt),
        "## Use\n",
        f"In this folder:\n\n```python\n{usage(prompt, to, lm)}```\n",
        *([_VLLM_NOTE] if to == "vllm" else []),
        "## Certificate\n",
        f"`{certificate}` holds the hashes of the model (`{facts.get('hash', '?')}`) and its "
        f"tokenizer (`{facts.get('tokenizer_hash', '?')}`), the template, and {len(prompt.probe)} "
        "inputs with their losses in float32. "
        "`promptsearch verify .` loads this folder again, scores them anew, and compares as far as "
        "rounding lets losses agree.\n",
    ]
    write_aside(folder / CARD, "\n".join(parts))


def usage(prompt: SavedPrompt, to: str, lm: TextModel) -> str:
    """Python code that answers the probe's first input, run in the folder of the export.

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
    if lm.served:
        return _request(prompt, lm.served, fields)
    if to == "json":
        return saved.USAGE.format(fields=fields)
    lm = loaded(lm, "used like this")
    if to == "vllm":
        return vllm.USAGE.format(
            base=_base_of_vllm(lm), fields=fields, sampling=_sampling(prompt, lm)
        )
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
    own = lm.name == NAME or lm.name.endswith(".gguf")
    model = (_OUR_MODEL if own else _MODEL).format(name=lm.name)
    rest = _GENERATE if prompt.choices is None else _CHOOSE
    middle = {"kv": kv.USAGE, "peft": f"{peft.USAGE}\n\n{_FORWARD}", "text": _FORWARD}[to]
    ids = _cut(lm, begins=to == "text" or prompt.template.apart)
    answers = {choice: lm.encode(choice) for choice in prompt.choices or ()}
    return f"{model}\n{middle}\n\n" + rest.format(
        text=source, first=first, ids=ids, answers=answers
    )


def _cut(lm: LanguageModel, begins: bool) -> str:
    """Python code for the ids of a text, behind the prompt or at the beginning of a row."""
    anchor, tokens = ("", 0) if begins else lm.anchor
    given = f"{anchor!r} + text" if anchor else "text"
    behind = (
        f"[{tokens}:]  # the tokenizer cuts the beginning of a text in another way"
        if anchor
        else ""
    )
    return f"tokenizer({given}, add_special_tokens=False).input_ids{behind}"


def _request(prompt: SavedPrompt, served: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """Python code that asks the server for the answer to an input."""
    whole = "".join(s + t.replace("{", "{{").replace("}", "}}") for s, t in _pieces(prompt))
    key = served["key"]
    authorization = f', "Authorization": "Bearer " + os.environ[{key!r}]' if key else ""
    longest = max(
        len(answer.encode())
        for answer in prompt.choices or [example.answer for example in prompt.probe]
    )
    given = (
        "{'messages': [{'role': 'user', 'content': text}]" if served["chat"] else "{'prompt': text"
    )
    said = "['message']['content']" if served["chat"] else "['text']"
    return _REQUEST.format(
        imports="import json\nimport os\nimport urllib.request"
        if key
        else "import json\nimport urllib.request",
        whole=whole,
        fields=dict(fields),
        given=f"{given}, 'model': {served['model']!r}, 'max_tokens': {longest}, 'temperature': 0}}",
        url=f"{served['url']}/{'chat/' if served['chat'] else ''}completions",
        headers=f'{{"Content-Type": "application/json"{authorization}}}',
        said=said,
    )


def _pieces(prompt: SavedPrompt) -> list[tuple[str, str]]:
    """The template's segments, each with the prompt's text that follows it."""
    assert isinstance(prompt.prompt, TextPrompt)  # a server was sent nothing else
    return list(
        zip(
            prompt.template.segments,
            [*prompt.template.slot_texts(prompt.prompt.texts), ""],
            strict=True,
        )
    )


_VLLM_NOTE = (
    "vLLM generates from embeddings; it does not score a given text below them. Answers of one "
    "token are chosen exactly, as the most probable of the allowed ones; longer answers are "
    "generated. The server takes the same tensors, one a request, from "
    "`--enable-prompt-embeds` on.\n"
)


def _kind(prompt: SavedPrompt) -> str:
    kind = (
        prompt.prompt.kind
        if isinstance(prompt.prompt, TrainedPrompt)
        else type(prompt.prompt).__name__.removesuffix("Prompt")
    )
    return kind.lower()


def _tags(prompt: SavedPrompt) -> list[str]:
    return (
        ["weights"] if isinstance(prompt.prompt, Weights) else ["prompt", f"{_kind(prompt)}-prompt"]
    )


def _text(prompt: SavedPrompt, lm: TextModel) -> list[str]:
    """The card's lines with the prompt as text; none for a trained prompt."""
    if isinstance(prompt.prompt, TrainedPrompt):
        return []
    return [f"Prompt: {_code(' | '.join(prompt_texts(prompt.template, lm, prompt.prompt)))}\n"]


def _base(lm: TextModel) -> str:
    """The model's name on the Hub, or the folder's name where it was loaded from a folder."""
    return Path(lm.name).name if Path(lm.name).exists() else lm.name


def _base_of_vllm(lm: LanguageModel) -> str:
    if lm.name == NAME:
        return (
            "from promptsearch.models.packaged import packaged_model\n\nbase = "
            f"str(packaged_model())  # {NAME}"
        )
    return f"base = {lm.name!r}"


def _sampling(prompt: SavedPrompt, lm: LanguageModel) -> str:
    if prompt.choices is None:
        return 'temperature=0, max_tokens=32, stop="\\n"'
    answers = [lm.encode(choice) for choice in prompt.choices]
    longest = max(map(len, answers))
    if longest == 1:
        return f"temperature=0, max_tokens=1, allowed_token_ids={[ids[0] for ids in answers]}"
    return f"temperature=0, max_tokens={longest}"


def _header(prompt: SavedPrompt, to: str, library: str, lm: TextModel) -> str:
    """The card's metadata for the Hub, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    about, test = prompt.about, prompt.about.get("test", {})
    task = "text-generation" if prompt.choices is None else "text-classification"
    given: dict[str, Any] = {}
    if "metric" in test:
        name = str(about.get("task", "task"))
        found = EvalResult(
            task_type=task,
            dataset_type=name,
            dataset_name=name,
            metric_type=str(about["metric"]),
            metric_value=test["metric"],
        )
        given = {"eval_results": [found], "model_name": f"{about.get('label', 'prompt')}-{name}"}
    tags = ["promptsearch", *_tags(prompt), to]
    data = ModelCardData(
        base_model=_base(lm),
        library_name=library,
        pipeline_tag="text-generation",
        tags=tags,
        **given,
    )
    return str(data.to_yaml())


def _metrics(prompt: SavedPrompt) -> str:
    about = prompt.about
    rows = []
    for split in ("select", "test"):
        found = about.get(split, {})
        for name, label in (
            ("metric", str(about.get("metric", "metric"))),
            ("loss", "loss (nats per example)"),
        ):
            if name in found:
                ends = found.get(f"{name}_interval")
                between = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"
                rows.append(f"| {split} | {label} | {found[name]:.3f} | {between} |")
    if not rows:
        return "None were measured.\n"
    lines = ["| split | metric | value | 95 % interval |", "|---|---|---|---|", *rows]
    size = about.get("test", {}).get("examples")
    remark = f"The test split has {size} examples, and was looked at once. " if size else ""
    signature = about.get("signature", "")
    return (
        "\n".join(lines)
        + f"\n\n{remark}Intervals cover the choice of examples, not the luck of the seed.\n"
        + (f"\nSignature: {_code(signature)}\n" if signature else "")
    )


def _code(given: str) -> str:
    """The text as inline code, fenced so that backticks in it do no harm."""
    shown = given.replace("\n", "\\n")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if "`" in shown else f"`{shown}`"
