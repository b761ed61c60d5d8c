"""Hostile exports, for `verify`, `apply` and `export`.

They are strangers' certificates, PEFT configurations, tensors and files.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attack.case import Case, Ran
from attack.damage import DEEP, copy_of, damage_bytes, damage_file, edit, hostile, to_text
from attack.lab import Lab

INPUTS = b'{"text": "good film"}\n{"text": "I hate it"}\n'
VERIFY, APPLY = ["verify", "x"], ["apply", "x"]


def _case(
    rng: random.Random,
    lab: Lab,
    row: str,
    harm: Callable[[Path], str],
    names: Sequence[str] = (),
    **more: Any,
) -> Case:
    """An export of a kind, harmed."""
    name = rng.choice(list(names) or sorted(lab.exports))
    label, _, to = name.partition("-")
    export = [
        "export",
        "x",
        "--to",
        rng.choice(["json", "kv", "peft", "text", "vllm"]),
        "--out",
        "new",
    ]
    commands = more.pop("commands", None) or [
        rng.choice([VERIFY, VERIFY, *([APPLY, export] if to == "json" else [])])
    ]
    case = Case(row, "", commands, stdin=INPUTS, judge=_numbers, **more)

    def prepare(folder: Path) -> None:
        copy_of(lab.exports[name], folder / "x")
        case.what = f"{name}: {harm(folder / 'x')} ({commands[0][0]})"

    case.prepare = prepare
    return case


def _numbers(folder: Path, ran: Sequence[Ran]) -> str | None:
    """What is written is numbers."""
    for each in ran:
        if each.code == 0 and each.argv[0] == "apply":
            for line in each.out.splitlines():
                row = json.loads(line)
                shares = row.get("probabilities", {"": 1.0}).values()
                if not all(0 <= share <= 1 for share in shares):
                    return f"exit 0 with {line[:100]}"
        if each.code == 0 and "nan" in each.out.split():
            return f"exit 0 with {each.out[:100]}"
    return None


def _refused(folder: Path, ran: Sequence[Ran]) -> str | None:
    """What is wrong is not called the same."""
    return f"exit 0: {ran[-1].out.strip()[:120]}" if ran[-1].code == 0 else None


def _record(folder: Path) -> Path:
    return next(
        path for path in (folder / "certificate.json", folder / "prompt.json") if path.exists()
    )


def _write(path: Path, data: Any) -> None:
    path.write_text(to_text(data, 1), "utf-8", errors="surrogatepass")


def certificates(rng: random.Random, lab: Lab) -> Case:
    """One value of a certificate changed."""

    def harm(folder: Path) -> str:
        what, data = edit(json.loads(_record(folder).read_text()), rng)
        _write(_record(folder), data)
        return what

    return _case(rng, lab, "14 certificates", harm)


def used_keys(rng: random.Random, lab: Lab) -> Case:
    """A value that is used for something, of a type that it should not have."""
    places: list[tuple[Any, ...]] = [
        ("template",),
        ("marks",),
        ("lengths",),
        ("lengths", 0),
        ("choices",),
        ("choices", 0),
        ("model",),
        ("model", "source"),
        ("model", "name"),
        ("model", "width"),
        ("model", "hash"),
        ("model", "served"),
        ("model", "tolerance"),
        ("scored_tokens",),
        ("probe",),
        ("probe", 0),
        ("probe", 0, "fields"),
        ("probe", 0, "fields", "text"),
        ("probe", 0, "answer"),
        ("probe", 0, "choice"),
        ("probe", 0, "aliases"),
        ("probe", 0, "loss"),
        ("prompt",),
        ("prompt", "kind"),
        ("prompt", "key"),
        ("prompt", "ids"),
        ("prompt", "ids", 0),
        ("prompt", "texts"),
        ("format",),
        ("export",),
        ("select",),
        ("test",),
        ("example",),
        ("strategy",),
        ("task",),
        ("metric",),
        ("splits",),
        ("test", "loss_interval"),
        ("test", "examples"),
    ]

    def harm(folder: Path) -> str:
        data = json.loads(_record(folder).read_text())
        place = rng.choice(places)
        holder = data
        for step in place[:-1]:
            if not (isinstance(holder, dict) and step in holder) and not (
                isinstance(holder, list) and holder
            ):
                return harm(folder)
            holder = holder[step]
        if isinstance(holder, list) and not holder or not isinstance(holder, (list, dict)):
            return harm(folder)
        what, holder[place[-1]] = hostile(rng)
        _write(_record(folder), data)
        return f"{'.'.join(map(str, place))} = {what}"

    return _case(rng, lab, "14 certificates", harm)


def wrong(rng: random.Random, lab: Lab) -> Case:
    """A prompt or a loss that is another one, whatever the certificate says of tolerances."""

    def harm(folder: Path) -> str:
        path = _record(folder)
        data = json.loads(path.read_text())
        way = rng.choice(
            [
                "a loss off",
                "a token swapped",
                "numbers 1 % off",
                "a choice swapped",
                "losses and tolerance",
            ]
        )
        tensors = [p for p in folder.glob("*.safetensors")]
        if way == "numbers 1 % off" and tensors and path.name == "certificate.json":
            from safetensors.numpy import load_file, save_file

            held = load_file(tensors[0])
            save_file(
                {name: value * 1.01 + 0.01 for name, value in held.items()},
                tensors[0],
                {"format": "pt"},
            )
        elif (
            way == "a token swapped"
            and data["prompt"]["kind"] == "hard"
            and path.name == "prompt.json"
        ):
            data["prompt"]["ids"][0] += 1
            data["prompt"].pop("key")
        elif way == "a choice swapped":
            for one in data["probe"]:
                one["choice"], one["answer"] = 1 - one["choice"], data["choices"][1 - one["choice"]]
        else:
            data["probe"][0]["loss"] += rng.choice([0.01, 0.5, 1e6, 1e-3])
        told = rng.choice(
            [
                {},
                {"tolerance": 1e9},
                {"tolerance": float("inf")},
                {"tolerance": True},
                {"tolerance": "1e9"},
                {"served": {"echo": True}},
            ]
        )
        data["model"].update(told)
        if rng.random() < 0.4:
            data["scored_tokens"] = rng.choice([10**9, 10**30, -1, 0, True, 1e300])
        path.write_text(json.dumps(data))
        return f"{way}, {told}, scored_tokens {data.get('scored_tokens')}"

    case = _case(rng, lab, "14 contradictions", harm, commands=[VERIFY])
    case.judge = _refused
    return case


PEFT: tuple[tuple[str, Any], ...] = (
    *(("r", value) for value in (0, -1, None, "8", 10**30, 1.5, True, [], float("inf"), 3)),
    *(("lora_alpha", value) for value in (None, "x", float("nan"), 1e308, 0, 10**400, [], True)),
    *(
        ("task_type", value)
        for value in (
            "x",
            None,
            "SEQ_CLS",
            "SEQ_2_SEQ_LM",
            3,
            [],
            {},
            "TOKEN_CLS",
            "FEATURE_EXTRACTION",
        )
    ),
    *(
        ("modules_to_save", value)
        for value in (["lm_head"], ["embed_tokens"], "lm_head", ["x"], 3, [None], {})
    ),
    *(
        ("target_modules", value)
        for value in (
            "(([a-z_.0-9])+)+!",
            "(.*)*.*!",
            "((m|o|d|e|l|[a-z_.0-9])*)*!",
            "[",
            "(",
            3,
            [],
            None,
            ["("],
            "all-linear",
            {"a": 1},
            [3],
            [None],
        )
    ),
    *(
        ("peft_type", value)
        for value in (
            "x",
            None,
            "IA3",
            "ADALORA",
            "XLORA",
            3,
            [],
            "POLY",
            "CPT",
            "MULTITASK_PROMPT_TUNING",
            "OFT",
            "BONE",
        )
    ),
    *(
        ("rank_pattern", value)
        for value in ({"(([a-z_.0-9])+)+!": 2}, {"^model.*(x+x+)+y": 3}, [], "x", {"q_proj": 0})
    ),
    *(("alpha_pattern", value) for value in ({"(([a-z_.0-9])+)+!": 2}, {".*": 5}, [], 3)),
    *(("layers_to_transform", value) for value in ([0], 10**30, "x", [-1], [None])),
    *(("layers_pattern", value) for value in ("(([a-z_.0-9])+)+!", ["(([a-z_.0-9])+)+!"], 3)),
    *(("exclude_modules", value) for value in ("(([a-z_.0-9])+)+!", ".*", ["q_proj"], 3)),
    *(
        ("auto_mapping", value)
        for value in ({"base_model_class": "f", "parent_library": "canary_of_attack"}, {}, 3)
    ),
    *(
        ("base_model_name_or_path", value)
        for value in ("../../x", "/dev/zero", None, 3, "\x1b[31m")
    ),
    *(("revision", value) for value in ("x", 3)),
    *(("num_virtual_tokens", value) for value in (0, -1, 10**9, 10**30, "2", None, 2.0, True, [])),
    *(("token_dim", value) for value in (0, -1, 10**12, "x", None, 1.5)),
    *(("num_layers", value) for value in (0, -1, 10**9, "2", None, 2.5)),
    *(("num_attention_heads", value) for value in (0, -1, 10**9, "x", None, 1.5)),
    *(("prompt_tuning_init", value) for value in ("TEXT", "SAMPLE_VOCAB", "x", None, 3)),
    *(("tokenizer_name_or_path", value) for value in ("/dev/zero", "canary", 3)),
    *(("tokenizer_kwargs", value) for value in ({"trust_remote_code": True}, 3)),
    *(("prefix_projection", value) for value in (True, "x", 3)),
    *(("encoder_hidden_size", value) for value in (10**12, -1, "x")),
    *(("adapter_len", value) for value in (0, -1, 10**30, "x", None)),
    *(("adapter_layers", value) for value in (0, -1, 10**9, "x", None, 1.0)),
    *(("bias", value) for value in ("all", "lora_only", 3, None)),
    *(("use_dora", value) for value in (True, "x")),
    *(("use_rslora", value) for value in (True, "x")),
    *(
        ("init_lora_weights", value)
        for value in ("pissa", "eva", "loftq", 3, "corda", "olora", "gaussian")
    ),
    *(("loftq_config", value) for value in ({"loftq_bits": 4}, 3)),
    *(("megatron_config", value) for value in ({"x": 1}, 3)),
    *(("megatron_core", value) for value in ("canary_of_attack", 3)),
    *(("fan_in_fan_out", value) for value in (True, "x")),
    *(("trainable_token_indices", value) for value in ([0], 10**9, {"x": [1]})),
    *(("layer_replication", value) for value in ([[0, 2]], [[0, 10**6]], 3)),
    *(("runtime_config", value) for value in ({"ephemeral_gpu_offload": True}, 3)),
    *(("inference_mode", value) for value in ("x", False, None)),
    *(("lora_dropout", value) for value in (2.0, -1, "x", float("nan"))),
    *(("unknown\x1b[31m", value) for value in (3, DEEP[:10])),
)


def peft_configs(rng: random.Random, lab: Lab) -> Case:
    """One or two options of PEFT with hostile values.

    They mean something else, are no options, or are a regex that never ends.
    """

    def harm(folder: Path) -> str:
        path = folder / "adapter_config.json"
        data = json.loads(path.read_text())
        own = [pair for pair in PEFT if pair[0] in data]
        told = [
            rng.choice(own if rng.random() < 0.5 and own else PEFT)
            for _ in range(rng.choice([1, 1, 2]))
        ]
        data.update(told)
        _write(path, data)
        return ", ".join(f"{key} = {str(value)[:40]}" for key, value in told)

    return _case(
        rng,
        lab,
        "14 PEFT configurations",
        harm,
        [n for n in sorted(lab.exports) if n.endswith("peft")],
        commands=[VERIFY],
    )


def peft_edits(rng: random.Random, lab: Lab) -> Case:
    """One value of a PEFT configuration changed to something that no reader expects."""

    def harm(folder: Path) -> str:
        path = folder / "adapter_config.json"
        what, data = edit(json.loads(path.read_text()), rng)
        _write(path, data)
        return what

    return _case(
        rng,
        lab,
        "14 PEFT configurations",
        harm,
        [n for n in sorted(lab.exports) if n.endswith("peft")],
        commands=[VERIFY],
    )


def tensors(rng: random.Random, lab: Lab) -> Case:
    """Headers of safetensors that lie, and numbers that are none."""

    def harm(folder: Path) -> str:
        path = rng.choice(sorted(folder.glob("*.safetensors")))
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
        name = next(key for key in header if key != "__metadata__")
        way = rng.choice(
            [
                "shape",
                "dtype",
                "offsets",
                "size of header",
                "huge header",
                "name",
                "twice",
                "nan",
                "inf",
                "empty",
                "deep",
                "metadata",
                "more",
                "sizes",
                "zeros",
            ]
        )
        what = way
        if way == "shape":
            header[name]["shape"] = rng.choice(
                [
                    [0],
                    [10**18, 10**18],
                    [-1, 4],
                    [],
                    [1] * 500,
                    ["x"],
                    None,
                    [2**63],
                    header[name]["shape"][::-1],
                ]
            )
            what = f"shape {str(header[name]['shape'])[:40]}"
        elif way == "dtype":
            header[name]["dtype"] = rng.choice(
                ["F64", "I64", "BF16", "F16", "BOOL", "U8", "x", None, "F8_E4M3", "C64", 3, "F4"]
            )
            what = f"dtype {header[name]['dtype']}"
        elif way == "sizes":  # a type of half the size, with shape and bytes that fit it
            header[name]["dtype"] = rng.choice(["BF16", "F16", "I16"])
            header[name]["shape"] = [*header[name]["shape"][:-1], 2 * header[name]["shape"][-1]]
            what = f"dtype {header[name]['dtype']}, twice the width"
        elif way == "offsets":
            header[name]["data_offsets"] = rng.choice(
                [[0, 2**63], [5, 3], [0, 0], [-4, 4], "x", [0, len(body) + 4], [0]]
            )
        elif way == "name":
            new = rng.choice(
                [
                    "../../x",
                    "",
                    "\x1b[31m",
                    "a" * 100_000,
                    "vectors.x",
                    "__class__",
                    "lm_head.weight",
                    "base_model.model.(a+)+$.lora_A.weight",
                ]
            )
            header[new] = header.pop(name)
            what = f"name {new[:20]!r}"
        elif way == "more":
            header["zz"] = {
                "dtype": "F32",
                "shape": [2],
                "data_offsets": [len(body), len(body) + 8],
            }
            body += bytes(8)
        elif way in ("nan", "inf", "zeros"):
            begin, end = header[name]["data_offsets"]
            values = bytearray(body[begin:end])
            values[:4] = struct.pack("<f", float(way)) if way != "zeros" else bytes(4)
            if way == "zeros":
                values = bytearray(len(values))
            body = body[:begin] + bytes(values) + body[end:]
        elif way == "metadata":
            header["__metadata__"] = rng.choice(
                [{"key": "x"}, {"key": 3}, [], "x", {"format": "tf"}, {"\x1b[31m": "x"}]
            )
        text = json.dumps(header).encode()
        if way == "deep":
            text = DEEP.encode()
        if way == "twice":
            text = text[:-1] + b", " + text[1:]
        claimed = len(text)
        if way == "size of header":
            claimed = rng.choice([0, 2**63, 2**64 - 1, 10**8 + 1, len(text) - 3, len(text) + 10**6])
        path.write_bytes(struct.pack("<Q", claimed) + text + body)
        if way == "empty":
            path.write_bytes(b"")
        if way == "huge header":
            with path.open("wb") as file:
                file.write(struct.pack("<Q", 99_000_000) + b"{" + b" " * 1000)
                file.truncate(rng.choice([10**8, 5 * 10**10]))  # a hole: no room on disk
        return what

    with_tensors = [
        name for name, folder in sorted(lab.exports.items()) if any(folder.glob("*.safetensors"))
    ]
    return _case(rng, lab, "14 tensors", harm, with_tensors)


def places(rng: random.Random, lab: Lab) -> Case:
    """Something else in the place of a file, or other bytes in it."""

    def harm(folder: Path) -> str:
        path = rng.choice(sorted(p for p in folder.iterdir() if p.name != "README.md"))
        return f"{path.name}: {(damage_file if rng.random() < 0.6 else damage_bytes)(path, rng)}"

    return _case(rng, lab, "14 files that are none", harm)


def outside(rng: random.Random, lab: Lab) -> Case:
    """Names that lead out of the folder, and links that do."""

    def harm(folder: Path) -> str:
        path = _record(folder)
        data = json.loads(path.read_text())
        way = rng.choice(
            [
                "key",
                "link",
                "key of a folder",
                "pickle",
                "export",
                "link to folder",
                "many files",
                "name",
            ]
        )
        held = sorted(folder.glob("*.safetensors"))
        if way == "key" and held:
            data["prompt"]["key"] = rng.choice(
                [
                    "../outside",
                    "/etc/passwd",
                    "a\x00b",
                    "x" * 300,
                    "..",
                    "",
                    "\x1b[31m",
                    "../x/" + held[0].stem,
                    "*",
                    "\ud83d",
                ]
            )
            (folder.parent / "outside.safetensors").write_bytes(held[0].read_bytes())
            way = f"key {data['prompt']['key'][:30]!r}"
        elif way == "link":
            outside = folder.parent / "outside.bin"
            target = rng.choice(held or [path])
            target.rename(outside)
            target.symlink_to(outside)
            if target == path:
                return f"{way} of {target.name}"
            way = f"{way} of {target.name}"
        elif way == "key of a folder":
            data["prompt"]["key"] = "below"
            (folder / "below.safetensors").mkdir()
        elif way == "pickle":
            (
                folder
                / rng.choice(
                    ["adapter_model.bin", "x.pt", "x.PKL", "pytorch_model.bin", "training_args.bin"]
                )
            ).write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
            for one in held[: rng.choice([0, 1])]:
                one.unlink()
        elif way == "export":
            data["export"] = rng.choice(
                ["../x", "json", "peft", "\x1b[31m", "kv", "vllm", "text", 3, None, []]
            )
            way = f"export {data['export']!r}"
        elif way == "link to folder":
            aside = folder.parent / "aside"
            folder.rename(aside)
            folder.symlink_to(aside)
            return way
        elif way == "many files":
            for i in range(2000):
                (folder / f"{i}.txt").touch()
        else:
            data["model"]["source"] = rng.choice(
                [
                    "/dev/zero",
                    "../../x",
                    "/etc",
                    "http://127.0.0.1:1/v1",
                    "\x1b[31mx",
                    "a" * 5000,
                    "",
                    ".",
                    "\ud83d",
                    "a\x00b",
                    "x.gguf",
                ]
            )
            data["model"]["name"] = rng.choice(["x", "\x1b[31m", "a" * 5000])
            way = f"source {data['model']['source'][:30]!r}"
        _write(path, data)
        return way

    return _case(rng, lab, "14 names and links", harm)


def texts(rng: random.Random, lab: Lab) -> Case:
    """Texts with fields of formats, and the other files of formats for text and llama.cpp."""

    def harm(folder: Path) -> str:
        files = [
            p
            for p in folder.iterdir()
            if p.suffix in (".txt", ".json") and p.name != "certificate.json"
        ] or [_record(folder)]
        path = rng.choice(sorted(files))
        text = rng.choice(
            [
                "{text.__class__.__mro__}",
                "{text:>999999999999}",
                "{text[0]}",
                "{0}",
                "{",
                "}",
                "{text!x}",
                "{missing}",
                "\ud83d",
                "",
                "\x1b[31m{text}",
                "{text:{text}}",
                "{text.__init__.__globals__}",
                '[{"role": "user", "content": "{text.__class__}"}]',
                "[]",
                "[1]",
                DEEP,
                "null",
                '{"a": 1}',
                "{text}" * 100_000,
                "a" * 1_000_000,
                '[{"role": "\x1b[31m", "content": "{text}"}, {"role": "assistant", "content": ""}]',
                "{text:1000000000}",
            ]
        )
        path.write_text(text, "utf-8", errors="surrogatepass")
        return f"{path.name}: {text[:40]!r}"

    names = [name for name in sorted(lab.exports) if name.endswith(("text", "kv"))]
    return _case(rng, lab, "14 texts and files of formats", harm, names, commands=[VERIFY])


def endpoints(rng: random.Random, lab: Lab) -> Case:
    """A certificate of a model behind an endpoint with a hostile address.

    Nobody is there, or the address is a secret's way out.
    """

    def harm(folder: Path) -> str:
        path = _record(folder)
        data = json.loads(path.read_text())
        told = {
            "served": rng.choice(
                [
                    True,
                    {},
                    {"endpoint": "http://127.0.0.1:1/v1", "model": "x"},
                    None,
                    [],
                    "x",
                    {"endpoint": 3},
                    {"echo": "x"},
                ]
            ),
            "source": rng.choice(
                [
                    "http://127.0.0.1:1/v1",
                    "http://user:pw@127.0.0.1:1/v1",
                    "file:///etc/passwd",
                    "gopher://x",
                    3,
                    "http://127.0.0.1:99999/v1",
                ]
            ),
            "key": rng.choice(["PATH", "HOME", None, 3, "SECRET_OF_ATTACK"]),
            "tokenizer": rng.choice([None, "/dev/zero", 3, "../x"]),
        }
        data["model"].update({key: value for key, value in told.items() if rng.random() < 0.8})
        _write(path, data)
        return str(told)[:100]

    names = [name for name in sorted(lab.exports) if name.endswith(("text", "json"))]
    secret = "sk-of-attack-0123456789abcdef"
    return _case(
        rng,
        lab,
        "8 keys",
        harm,
        names,
        commands=[[*VERIFY, "--key", "SECRET_OF_ATTACK"]],
        env={"SECRET_OF_ATTACK": secret},
        secrets=[secret],
    )


def runs(rng: random.Random, lab: Lab) -> Case:
    """A run's folder whose prompt.json is changed, or that is something else."""

    def harm(folder: Path) -> str:
        (folder / "best").mkdir()
        for path in list(folder.iterdir()):
            if path.is_file():
                os.replace(path, folder / "best" / path.name)
        if rng.random() < 0.3:
            (folder / "best").rename(folder / "aside")
            (folder / "best").symlink_to(rng.choice(["aside", "/dev/zero", "best", "/etc"]))
            return "best is a link"
        path = folder / "best/prompt.json"
        what, data = edit(json.loads(path.read_text()), rng)
        _write(path, data)
        return what

    return _case(
        rng, lab, "14 certificates", harm, [n for n in sorted(lab.exports) if n.endswith("json")]
    )


MAKERS = (
    certificates,
    used_keys,
    wrong,
    peft_configs,
    tensors,
    places,
    outside,
    texts,
    endpoints,
    peft_edits,
    runs,
    peft_configs,
    tensors,
    used_keys,
)
