"""What is kept of the reference studies is small, whole, and makes its reports again."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from promptsearch.export import load_prompt
from promptsearch.records.explained import EXPLAINED
from promptsearch.records.headroom import HEADROOM
from promptsearch.records.load import load_results
from promptsearch.records.models import MODELS, load_models
from promptsearch.records.slim import SLIM
from promptsearch.report.across_pages import models_to_markdown
from promptsearch.report.markdown import to_markdown

RESULTS = Path(__file__).parent.parent / "results"
#: The records of studies of one model, those below a study of several among them.
STUDIES = sorted(str(path.parent.relative_to(RESULTS)) for path in RESULTS.glob(f"**/{SLIM}"))
#: Those of several models.
SEVERAL = sorted(path.parent.name for path in RESULTS.glob(f"*/{MODELS}"))

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (RESULTS.parent / ".git").exists(),
    reason="what is kept is what git tracks",
)


def kept():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "results"], cwd=RESULTS.parent, capture_output=True, check=True
    )
    paths = [RESULTS.parent / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.exists()]


def test_it_is_small():
    sizes = {path: path.stat().st_size for path in kept()}
    assert sum(sizes.values()) <= 7_000_000  # a study of five seeds and 16 rows takes about one
    assert [path for path, size in sizes.items() if size > 1_000_000] == []


def test_every_study_is_a_slim_record_of_eight_files_and_stands_in_the_list():
    listed = re.findall(r"\]\(([\w-]+)/report\.md\)", (RESULTS / "README.md").read_text("utf-8"))
    assert sorted(listed) == sorted([*SEVERAL, *(s for s in STUDIES if "/" not in s)]) != []
    files, more = kept(), {EXPLAINED, HEADROOM}
    for name in STUDIES:
        own = [path.name for path in files if (RESULTS / name) in path.parents]
        assert len([each for each in own if each not in more]) == 8
    assert [path for path in files if path.name == "result.json"] == []


@pytest.mark.parametrize("name", SEVERAL)
def test_the_report_of_several_models_is_made_of_their_records_to_the_byte(name):
    made = models_to_markdown(load_models(RESULTS / name))
    assert made.encode() == (RESULTS / name / "report.md").read_bytes()


@pytest.mark.parametrize("name", STUDIES)
def test_the_report_is_made_of_the_record_to_the_byte(name):
    made = to_markdown(load_results(RESULTS / name))
    assert made.encode() == (RESULTS / name / "report.md").read_bytes()


def test_the_winners_that_the_docs_name_can_be_loaded():
    found = load_prompt(RESULTS / "reference-capitals" / "capitals" / "p_tuning" / "seed0")
    assert found.prompt.key == "339096ed878bd1d01ef6" and found.about["task"] == "capitals"
