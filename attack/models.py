"""Folders of models and tokenizers that are damaged, hostile, or of kinds with traps.

Each runs, or is refused in one message.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attack.case import CANARY, Case
from attack.damage import PLAIN, Raw, copy_of, damage_bytes, damage_file, edit, hostile, to_text
from attack.lab import Lab
from attack.study_files import finite

COMPARE = ["compare", "study.yaml", "--out", "out"]


def _case(lab: Lab, rng: random.Random, row: str, harm: Callable[[Path], str]) -> Case:
    strategies: list[Any] = rng.choice(
        [[{"random": {"batch": 4}}], [{"manual": {"prompts": ["The"]}}], [{"prompt_tuning": {}}]]
    )
    dtype = rng.choice(["float32", "bfloat16", "auto"])
    case = Case(row, "", [COMPARE], judge=finite)

    def prepare(folder: Path) -> None:
        copy_of(lab.folder / "llama", folder / "model")
        study = lab.study(model="./model", strategies=strategies, dtype=dtype)
        (folder / "study.yaml").write_text(json.dumps(study))
        case.what = f"{harm(folder / 'model')} ({dtype}, {list(strategies[0])[0]})"

    case.prepare = prepare
    return case


def configs(rng: random.Random, lab: Lab) -> Case:
    """One value of the model's configuration that it cannot have."""

    def harm(folder: Path) -> str:
        path = folder / "config.json"
        data = json.loads(path.read_text())
        key = rng.choice(
            [
                "vocab_size",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
            ]
            + [
                "model_type",
                "architectures",
                "dtype",
                "torch_dtype",
                "tie_word_embeddings",
                "rope_theta",
                "rope_parameters",
                "hidden_act",
            ]
            + [
                "rms_norm_eps",
                "bos_token_id",
                "eos_token_id",
                "pad_token_id",
                "intermediate_size",
                "head_dim",
                "quantization_config",
            ]
        )
        what, data[key] = hostile(rng)
        path.write_text(to_text(data), "utf-8", errors="surrogatepass")
        return f"config.{key} = {what}"

    return _case(lab, rng, "5 model folders", harm)


def code(rng: random.Random, lab: Lab) -> Case:
    """A folder that brings code or a pickle along: nothing of it runs."""

    def harm(folder: Path) -> str:
        canary = f"import {CANARY}\nclass C: pass\n"
        path = folder / "config.json"
        data = json.loads(path.read_text())
        data["auto_map"] = {
            name: "mine.C" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
        }
        data["model_type"] = rng.choice(["mine", "llama"])
        for name in ("mine.py", "modeling_mine.py", "tokenization_mine.py"):
            (folder / name).write_text(canary)
        path.write_text(json.dumps(data))
        told = json.loads((folder / "tokenizer_config.json").read_text())
        told["auto_map"] = {"AutoTokenizer": ["mine.C", "mine.C"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
        if rng.random() < 0.4:
            (folder / "model.safetensors").unlink()
            (folder / "pytorch_model.bin").write_bytes(f"c{CANARY}\nf\n.".encode())
            return "auto_map and a pickle"
        return f"auto_map, {data['model_type']}"

    return _case(lab, rng, "5 model folders", harm)


def tokenizers(rng: random.Random, lab: Lab) -> Case:
    """A tokenizer's file with a fault.

    One value is changed, the vocabulary is larger or smaller than the embeddings, or it has
    Metaspace.
    """

    def harm(folder: Path) -> str:
        path = folder / "tokenizer.json"
        data = json.loads(path.read_text())
        way = rng.choice(
            [
                "edit",
                "larger",
                "smaller",
                "metaspace first",
                "metaspace always",
                "metaspace never",
                "prepend",
                "template",
            ]
        )
        if way == "edit":
            way, data = edit(
                {k: v for k, v in data.items() if k != "model"} | {"model": data["model"]}, rng
            )
        elif way == "larger":
            for i in range(200):
                data["model"]["vocab"][f"zz{i}"] = len(data["model"]["vocab"]) + 100
        elif way == "smaller":
            vocab = data["model"]["vocab"]
            data["model"]["vocab"] = {k: v for k, v in vocab.items() if v < 300}
            data["model"]["merges"] = []
        elif way.startswith("metaspace"):
            space = {
                "type": "Metaspace",
                "replacement": "▁",
                "prepend_scheme": way.split()[1],
                "split": True,
            }
            data["pre_tokenizer"], data["decoder"] = space, space
            data["model"]["vocab"] = {
                k.replace("Ġ", "▁"): v for k, v in data["model"]["vocab"].items()
            }
            data["model"]["merges"] = [
                [p.replace("Ġ", "▁") for p in (m if isinstance(m, list) else m.split(" "))]
                for m in data["model"]["merges"]
            ]
            data["model"]["unk_token"] = "<|pad|>"
        elif way == "prepend":
            data["normalizer"] = {"type": "Prepend", "prepend": "▁"}
        else:
            path = folder / "tokenizer_config.json"
            data = json.loads(path.read_text())
            data["chat_template"] = rng.choice(
                [
                    "{% for x in range(10**9) %}x{% endfor %}",
                    "{{ ''.__class__.__mro__ }}",
                    "{%",
                    3,
                    "{{ 1/0 }}",
                    "{{ raise_exception('\x1b[31m') }}",
                ]
            )
        path.write_text(to_text(data), "utf-8", errors="surrogatepass")
        return f"tokenizer: {way[:80]}"

    return _case(lab, rng, "5 tokenizers", harm)


def settings(rng: random.Random, lab: Lab) -> Case:
    """The tokenizer's settings with values that they cannot have."""

    def harm(folder: Path) -> str:
        path = folder / "tokenizer_config.json"
        data = json.loads(path.read_text())
        key = rng.choice(
            [
                "tokenizer_class",
                "bos_token",
                "eos_token",
                "pad_token",
                "model_max_length",
                "added_tokens_decoder",
                "chat_template",
                "extra",
            ]
        )
        value = rng.choice(
            [
                *PLAIN,
                "LlamaTokenizer",
                "T5Tokenizer",
                {"9999999": {"content": "x"}},
                {"x": {"content": 3}},
                Raw('"\\ud83d"'),
            ]
        )
        data[key] = value
        path.write_text(to_text(data), "utf-8", errors="surrogatepass")
        return f"tokenizer_config.{key} = {str(value)[:40]!r}"

    return _case(lab, rng, "5 tokenizers", harm)


def files(rng: random.Random, lab: Lab) -> Case:
    """Files of a model with other bytes, or something else in their place."""

    def harm(folder: Path) -> str:
        path = rng.choice(sorted(p for p in folder.iterdir() if p.is_file()))
        return f"{path.name}: {(damage_file if rng.random() < 0.5 else damage_bytes)(path, rng)}"

    return _case(lab, rng, "5 model folders", harm)


MAKERS = (configs, tokenizers, files, settings, code, configs, tokenizers)
