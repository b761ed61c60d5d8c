"""Hostile data: rows, values, encodings and formats.

Each is refused with its row and field, or is read as the text that the file holds.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attack.case import Case, Ran
from attack.damage import PLAIN, RAW, Raw, damage_bytes, damage_file, to_text
from attack.lab import Lab
from attack.study_files import finite

COMPARE = ["compare", "study.yaml", "--out", "out"]
Rows = list[dict[str, Any]]


def _rows(count: int = 30) -> Rows:
    return [
        {"text": f"{['good film', 'I hate', 'the story'][i % 3]} {i}", "label": str(i % 2)}
        for i in range(count)
    ]


def _case(
    lab: Lab,
    row: str,
    what: str,
    name: str,
    content: bytes,
    task: dict[str, Any] | None = None,
    **study: Any,
) -> Case:
    def prepare(folder: Path) -> None:
        (folder / name).write_bytes(content)
        given = {**lab.study()["task"], "data": {"path": name}, **(task or {})}
        given = {key: value for key, value in given.items() if value is not None}
        (folder / "study.yaml").write_text(
            json.dumps(
                lab.study(task=given, strategies=[{"manual": {"prompts": ["The"]}}], **study)
            )
        )

    return Case(row, what, [COMPARE], prepare, finite)


def _csv(rows: Rows, end: str = "\n", comma: str = ",") -> str:
    def cell(value: Any) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if any(c in text for c in '",;\r\n') else text

    head = list(rows[0])
    return (
        end.join(
            [
                comma.join(head),
                *(comma.join(cell(row.get(key, "")) for key in head) for row in rows),
            ]
        )
        + end
    )


def _lines(rows: Rows) -> str:
    return "".join(to_text(row) + "\n" for row in rows)


def values(rng: random.Random, lab: Lab) -> Case:
    """One value of JSONL that is no text, in a field or as a label."""
    rows = _rows()
    key, i = rng.choice(["text", "label"]), rng.randrange(len(rows))
    value = rng.choice([*PLAIN, *(Raw(raw) for raw in RAW.values())])
    rows[i][key] = value
    return _case(
        lab,
        "4 values of data",
        f"row {i + 1}, {key} = {str(value)[:40]!r}",
        "d.jsonl",
        _lines(rows).encode("utf-8", "surrogatepass"),
    )


def lines(rng: random.Random, lab: Lab) -> Case:
    """Lines of JSONL that are none, and encodings."""
    text = _lines(_rows())
    whole = text.encode()
    ways: dict[str, bytes] = {
        "a mark": b"\xef\xbb\xbf" + whole,
        "a mark and CRLF": b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"),
        "UTF-16": text.encode("utf-16"),
        "Latin-1": text.replace("good", "göd").encode("latin-1"),
        "gzip": gzip.compress(whole, mtime=0),
        "a blank line": whole.replace(b"\n", b"\n\n\n", 1),
        "an array": json.dumps(_rows()).encode(),
        "a line of null": whole + b"null\n",
        "a line of 3": b"3\n" + whole,
        "half a line": whole + b'{"text": "x',
        "a key twice": whole + b'{"text": "x", "text": "y", "label": "0"}\n',
        "line separators": text.replace("good", "go\u2028od\u0085").encode(),
        "zeros": whole + b"\0" * 100,
        "nothing": b"",
        "blank": b"\n \n",
        "tabs": whole.replace(b" ", b"\t"),
        "one huge line": b'{"text": "' + b"x" * 20_000_000 + b'", "label": "0"}\n',
    }
    way = rng.choice(sorted(ways))
    name = "d.jsonl.gz" if way == "gzip" and rng.random() < 0.5 else "d.jsonl"
    return _case(lab, "4 encodings", f"{way} in {name}", name, ways[way])


def _answers_stay(wanted: Sequence[str]) -> Callable[[Path, Sequence[Ran]], str | None]:
    """The texts of a file's cells stand in the export's probe as they are."""

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        if ran[-1].code != 0:
            return None
        for path in (folder / "out").glob("*/*/seed0/best/prompt.json"):
            for one in json.loads(path.read_text())["probe"]:
                for told in [
                    one["answer"].strip(),
                    *(v for k, v in one["fields"].items() if k == "code"),
                ]:
                    if told not in wanted:
                        return f"exit 0 with {told!r}, which stands nowhere in the file"
        return finite(folder, ran)

    return judge


def cells(rng: random.Random, lab: Lab) -> Case:
    """Cells that look like numbers, dates, booleans or nothing: they stay as they are.

    They stand as answers and as fields.
    """
    kind = rng.choice(
        [
            ["007", "042"],
            ["1.50", "2.50"],
            ["1e3", "1E4"],
            ["true", "TRUE"],
            ["NA", "None"],
            ["nan", "NaN"],
            ["2024-01-02", "2024-1-2"],
            ["1_000", "2_000"],
            ["0x1F", "1F"],
            ["+1", "+2"],
            ["1.0", "2.0"],
            ["inf", "-inf"],
            ["00", "0"],
            ["12:30", "1:30"],
            ["1,5", "2,5"],
            ["99999999999999999999", "1"],
            ["é", "ß"],
            ["yes", "no"],
            ["null", "NULL"],
            ["-0", "0"],
        ]
    )
    rows = [
        {"text": f"good film {i}", "code": kind[i % 2], "label": kind[i % 2]} for i in range(30)
    ]
    ending = rng.choice(["csv", "parquet", "jsonl"])
    if ending == "csv":
        content = _csv(rows).encode()
    elif ending == "jsonl":
        content = _lines(rows).encode()
    else:
        content = _parquet(rows)
    answers = (
        None if rng.random() < 0.5 else dict.fromkeys(kind, "") | {kind[0]: "bad", kind[1]: "good"}
    )
    task = {"template": "{prompt} {text} {code} is {answer}", "answers": answers}
    case = _case(
        lab,
        "4 cells stay as they are",
        f"{ending}: {kind}, {'choices' if answers else 'texts'}",
        f"d.{ending}",
        content,
        task,
    )
    wanted = kind if answers is None else [*kind, "bad", "good"]
    stays = _answers_stay(wanted)

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        if ran[-1].code != 0:
            return f"refused, though it is text: {ran[-1].err.strip().splitlines()[-1][:120]}"
        return stays(folder, ran)

    case.judge = judge
    return case


def _parquet(rows: Rows, columns: dict[str, Any] | None = None) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns or {key: [row[key] for row in rows] for key in rows[0]}), buffer
    )
    return buffer.getvalue()


def columns(rng: random.Random, lab: Lab) -> Case:
    """Parquet columns that hold no text.

    They hold lists, mappings, bytes, times, floats with gaps, or categories.
    """
    import datetime
    import decimal

    n = 30
    texts, labels = [f"good film {i}" for i in range(n)], [str(i % 2) for i in range(n)]
    kinds: dict[str, list[Any]] = {
        "lists": [["a", "b"]] * n,
        "empty lists": [[]] * n,
        "mappings": [{"a": i} for i in range(n)],
        "bytes": [b"\xff\xfe"] * n,
        "times": [datetime.datetime(2024, 1, 1, i % 24) for i in range(n)],
        "dates": [datetime.date(2024, 1, 1 + i % 28) for i in range(n)],
        "decimals": [decimal.Decimal("1.50")] * n,
        "floats": [float(i % 2) for i in range(n)],
        "floats with gaps": [None if i == 3 else float(i % 2) for i in range(n)],
        "integers with gaps": [None if i == 3 else i % 2 for i in range(n)],
        "booleans": [bool(i % 2) for i in range(n)],
        "NaN": [float("nan")] * n,
        "null": [None] * n,
        "big integers": [2**62 + i % 2 for i in range(n)],
        "nested": [[[i]] for i in range(n)],
        "durations": [datetime.timedelta(i) for i in range(n)],
    }
    kind = rng.choice(sorted(kinds))
    where = rng.choice(["text", "label"])
    table = {"text": texts, "label": labels} | {where: kinds[kind]}
    return _case(
        lab, "4 values of data", f"Parquet, {where} of {kind}", "d.parquet", _parquet([], table)
    )


def csv(rng: random.Random, lab: Lab) -> Case:
    """CSV of strange shapes."""
    rows = _rows()
    text = _csv(rows)
    ways: dict[str, bytes] = {
        "semicolons": _csv(rows, comma=";").encode(),
        "tabs": _csv(rows, comma="\t").encode(),
        "a comma at the end": text.replace("\n", ",\n").encode(),
        "a cell more": text.replace("\n", ",x\n", 5).encode(),
        "a cell less": (text + "x\n").encode(),
        "an index": "".join(
            f"{'' if i == 0 else i},{line}\n" for i, line in enumerate(text.splitlines())
        ).encode(),
        "no head": text.split("\n", 1)[1].encode(),
        "a quote that never ends": (text + '"x,1\n').encode(),
        "a line end in a cell": (text + '"x\ny",1\n').encode(),
        "zeros": text.replace("good", "go\0od").encode(),
        "CR": text.replace("\n", "\r").encode(),
        "CRLF and a mark": b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        "UTF-16": text.encode("utf-16"),
        "Latin-1": text.replace("good", "gööd").encode("latin-1"),
        "a column twice": (
            "text,text,label\n" + "".join(f"a{i},b,{i % 2}\n" for i in range(30))
        ).encode(),
        "spaces in the head": text.replace("text,label", "text, label").encode(),
        "head only": b"text,label\n",
        "nothing": b"",
        "a huge cell": (text + '"' + "x" * 300_000 + '",1\n').encode(),
        "an empty label": (text + "x,\n").encode(),
        "escapes": text.replace("good", "\x1b[31mgood").encode(),
        "escape in the head": text.replace("text", "\x1b]0;owned\x07").encode(),
        "10,000 columns": (",".join(f"c{i}" for i in range(10_000)) + "\n").encode(),
    }
    way = rng.choice(sorted(ways))
    return _case(lab, "4 CSV", way, "d.csv", ways[way])


def broken(rng: random.Random, lab: Lab) -> Case:
    """Files of data with other bytes, or something else in their place."""
    ending = rng.choice(["jsonl", "csv", "parquet"])
    rows = _rows()
    content = {
        "jsonl": _lines(rows).encode(),
        "csv": _csv(rows).encode(),
        "parquet": _parquet(rows),
    }[ending]
    case = _case(lab, "4 files of data", ending, f"d.{ending}", content)
    prepare = case.prepare

    def prepared(folder: Path) -> None:
        prepare(folder)
        way = (damage_file if rng.random() < 0.5 else damage_bytes)(folder / f"d.{ending}", rng)
        case.what = f"{ending}: {way}"

    case.prepare = prepared
    return case


def long_choices(rng: random.Random, lab: Lab) -> Case:
    """Choices of many tokens, likely and unlikely: no run is lost to its own export."""
    words = (
        "the of capital city is good bad movie story France Paris Berlin review positive answer "
        "question"
    )
    words_of = words.split()
    count = rng.choice([7, 12, 20, 30, 40])
    texts = [
        " ".join(rng.choice(words_of) for _ in range(count)) for _ in range(rng.choice([2, 3, 6]))
    ]
    rows = [
        {"text": f"{rng.choice(words_of)} {rng.choice(words_of)} {i}", "label": str(i % len(texts))}
        for i in range(40)
    ]
    task = {
        "answers": {str(i): text for i, text in enumerate(texts)},
        "splits": {"search": 8, "select": 8, "test": 6},
    }
    case = _case(
        lab,
        "2 right runs are kept",
        f"{len(texts)} choices of {count} words",
        "d.jsonl",
        _lines(rows).encode(),
        task,
        budget=60_000,
    )

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        if ran[-1].code != 0:
            return f"a right run was lost: {' '.join(ran[-1].err.split())[-200:]}"
        return finite(folder, ran)

    case.judge = judge
    return case


def doubles(rng: random.Random, lab: Lab) -> Case:
    """Texts that stand there twice, with one label and with two: what was dropped is said."""
    rows = _rows(30) + [
        {**row, "label": str((int(row["label"]) + rng.choice([0, 1])) % 2)}
        for row in _rows(30)[: rng.choice([1, 5, 20])]
    ]
    rng.shuffle(rows)
    ending = rng.choice(["jsonl", "csv"])
    case = _case(
        lab,
        "4 what was dropped is told",
        f"{len(rows) - 30} doubles",
        f"d.{ending}",
        (_lines(rows) if ending == "jsonl" else _csv(rows)).encode(),
    )

    def judge(folder: Path, ran: Sequence[Ran]) -> str | None:
        if ran[-1].code == 0 and not (folder / "out/report.md").read_text().count("dropped"):
            return "exit 0, and the report does not say what was dropped"
        return finite(folder, ran)

    case.judge = judge
    return case


MAKERS = (values, lines, cells, columns, csv, broken, long_choices, doubles)
