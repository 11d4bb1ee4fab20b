"""The documents say what is so: their commands parse, their links lead somewhere, the reference is whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import reference
from documented_commands import PAGES, documented_commands, parse, variants

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.settings import Settings

DOCS = PROJECT_ROOT / "docs"
MADE = {"reference/settings.md", "reference/commands.md", "reference/api.md", "adr/index.md", "benchmarks.md"}
IMAGES = {"79.3 million": 79_302_017, "10⁹": 1_000_000_000}


@pytest.mark.parametrize(("page", "line"), documented_commands())
def test_a_command_in_the_documents_is_taken_by_the_command_line(page: str, line: str) -> None:
    for words in variants(line):
        parse(words)


def test_commands_of_all_pages_are_found_and_wrong_ones_are_refused() -> None:
    found = {line for _, line in documented_commands()}
    assert {"up --keep", "backfill --blocks 0", "score photos", "models list"} <= found
    assert {page for page, _ in documented_commands()} >= {"README.md", "ten-minutes.md", "operations.md"}
    assert variants("corpus list | show photos") == [["corpus", "list"]] * 2 + [["corpus", "show", "photos"]] * 2
    for wrong in (["backfills"], ["backfill", "--mend"], ["corpus", "show"], ["up", "--keep=3"]):
        with pytest.raises(Exception, match=r"."):
            parse(wrong)


def test_the_reference_has_every_setting_with_its_meaning() -> None:
    page = reference.settings_page()
    for name, field in Settings.model_fields.items():
        (row,) = re.findall(rf"^\| `TINYTAGS_{name.upper()}` \|.*$", page, re.MULTILINE)
        assert reference._cell(field.description) in row
    assert str(Path.home()) not in page
    assert str(PROJECT_ROOT) not in page


def test_the_reference_has_every_command_with_every_option() -> None:
    page = reference.commands_page()
    names = [name for name, _ in reference.leaf_commands()]
    assert len(names) > 50
    assert "runs" in names  # a group that does something itself
    for name, command in reference.leaf_commands():
        section = page.partition(f"## tinytags {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            options = parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]
            assert all(f"`{option}`" in section for option in options), (name, options)


def test_the_reference_has_every_address_of_the_api_with_its_parameters() -> None:
    described = reference.api_description()
    page = reference.api_page(described)
    assert len(described["paths"]) >= 9
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            section = page.partition(f"## {method.upper()} {path}\n")[2].partition("\n## ")[0]
            assert section, path
            assert all(f"`{each['name']}`" in section for each in operation.get("parameters", ()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text()):
        is_made = page.parent == DOCS and target in MADE
        assert is_made or (page.parent / target).exists(), target


def test_every_page_is_in_the_navigation() -> None:
    navigation = (PROJECT_ROOT / "mkdocs.yml").read_text()
    assert {page.name for page in DOCS.glob("*.md")} <= set(re.findall(r": (?:\w+/)?([\w-]+\.md)$", navigation, re.M))


def test_the_site_builds_and_every_link_in_it_leads_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert built.returncode == 0, built.stderr
    assert "TINYTAGS_SOLR_URL" in (tmp_path / "site" / "reference" / "settings" / "index.html").read_text()


def test_hours_follow_from_rates_that_the_benchmarks_have() -> None:
    measured = (PROJECT_ROOT / "benchmarks" / "README.md").read_text()
    rows = re.findall(
        r"^\| ([^|]+) \| ([\d,]+) (MB/s|images/s|documents/s) \| [^|]+ \| ([\d.]+) h \| ([\d.]+) h \|$",
        (DOCS / "sizing.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 8
    for stage, rate, unit, *hours in rows:
        assert f"| {rate} |" in measured, stage
        a_second = float(rate.replace(",", "")) * 1e6 / 3_072 if unit == "MB/s" else float(rate.replace(",", ""))
        assert hours == [f"{images / a_second / 3_600:.1f}" for images in IMAGES.values()], stage
