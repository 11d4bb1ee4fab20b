"""What MkDocs runs: adds the pages that are made, and makes links work that lead out of this folder."""

import re
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import reference_pages

from tinytags_tasks.parts import PROJECT_ROOT

TAKEN_IN = {"../benchmarks/README.md": "benchmarks.md", "../CHANGELOG.md": "changes.md"}
"""Pages of the repository outside of this folder, by their path from it, and where they are in the site."""

_LINK = re.compile(r"\]\((?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, the list of decisions, and the pages that are taken in."""
    docs = Path(config.docs_dir)
    made = reference_pages() | {"adr/index.md": decisions_page(docs / "adr")}
    for outside, path in TAKEN_IN.items():
        made[path] = _links_from(normpath(docs / outside), (docs / outside).read_text(), docs)
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links to pages that are taken in lead to where they are in the site."""
    folder = str(Path(page.file.src_uri).parent)

    def lead(link: re.Match[str]) -> str:
        target = normpath(f"{folder}/{link[1]}")
        if not target.startswith("../"):
            return link[0]
        if target in TAKEN_IN:
            return f"]({relpath(TAKEN_IN[target], folder)}{link[2] or ''})"
        return link[0]  # strict builds name it

    return _LINK.sub(lead, markdown)


def decisions_page(folder: Path) -> str:
    """Return a list of the decisions, by the headings of their pages."""
    headings = {path.name: path.read_text().partition("\n")[0].lstrip("# ") for path in sorted(folder.glob("0*.md"))}
    lines = [f"- [{heading}]({name})" for name, heading in headings.items()]
    return "\n".join(
        (
            "# Decisions\n",
            "What a newcomer might otherwise undo, with the measurements behind it. 37 was withdrawn.\n",
            *lines,
        )
    )


def _links_from(place: str, text: str, docs: Path) -> str:
    """Return a page from outside, whose links lead from this folder's root."""

    def lead(link: re.Match[str]) -> str:
        target = Path(normpath(f"{Path(place).parent}/{link[1]}"))
        if target.is_relative_to(docs):
            return f"]({target.relative_to(docs)}{link[2] or ''})"
        return f"](../{target.relative_to(PROJECT_ROOT)}{link[2] or ''})"

    return _LINK.sub(lead, text)
