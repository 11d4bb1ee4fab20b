"""Phrases that were translated word by word. Add one only if it is never right in plain technical English."""

import re
from pathlib import Path

import pytest

from tinytags_tasks.parts import PROJECT_ROOT

PLACES = (
    *("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "mkdocs.yml", "docs", "notebooks", "benchmarks"),
    *("solr", "dags", "plugins", "tinytags_tasks"),
)
ENDINGS = {".md", ".py", ".html", ".js", ".css", ".xml", ".toml", ".yml", ".ipynb"}

STUMBLES = {
    r"\b(?:nobody|not|nothing) any ?more\b|\bstands? no more\b": "no longer, does not exist",
    r"\banew\b": "again",
    r"\btold (?:by|with|of)\b|\bis told\b(?! (?:apart|from))": "reported, says",
    r"\bof yours\b": "your, our",
    r"\bwhat became of\b": "the state of, the result",
    r"\b(?:that|which) (?:it|the \w+) (?:has|have) not(?=[.,:;)]|$)": "that does not exist, that is missing",
    r"\blets who\b|\bwho may act on them\b": "users who may, lets users",
    r"\bas often as (?:it|that) is\b|\bwhen it is so\b|\bno \w+'s fault\b": "say what happens",
    r"\bso many (?:times|a \w+)\b": "number, ratio",
    r"\b(?:a|an|one) \w+ an? (?:body|call|document|group|round|session|shard|task)\b": "one per",
    r"\b(?:thereby|whereof|therefrom|by the way of|in the very moment)\b": "plain words",
}


def texts() -> list[Path]:
    found = [path for place in PLACES for path in (PROJECT_ROOT / place, *(PROJECT_ROOT / place).rglob("*"))]
    return [path for path in found if path.is_file() and (path.suffix in ENDINGS or path.name == "Makefile")]


@pytest.mark.parametrize("phrase", STUMBLES)
def test_text_reads_as_a_native_engineer_would_write_it(phrase: str) -> None:
    for path in texts():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not re.search(phrase, line, re.IGNORECASE), f"{path}:{number}: write: {STUMBLES[phrase]}"
