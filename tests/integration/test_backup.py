"""The backup of the documents: what it leaves out can be made again from the source, also if the corpus has grown."""

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import stored_files
from documented_commands import blocks_of
from growing_corpus import OLD, add_new, corpus_of, draw, ingest, pictures_of

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.runtime import Runtime

CORPUS = "pets"


def script() -> str:
    """Return the program that the page has a reader write."""
    text = "\n".join(blocks_of(PROJECT_ROOT / "docs" / "operations.md", "sh"))
    (found,) = re.findall(r"^cat > backup\.py <<'END'\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def run(folder: Path, store: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "backup.py", *arguments],
        cwd=folder,
        env={**os.environ, "TINYTAGS_STORE": store},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_a_grown_corpus_is_the_same_after_its_backup_is_restored_and_it_is_ingested(
    own_store: Runtime, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(OLD):
        draw(source / name, number)
    ingest(own_store.storage, source)
    add_new(source)
    ingest(own_store.storage, source, grow=True)
    own_store.storage.write(f"reviews/{CORPUS}/log/000001.parquet", b"words")
    (tmp_path / "backup.py").write_text(script())
    store = own_store.settings.store
    restored = Runtime(own_store.settings.model_copy(update={"store": f"{store}-restored"}))

    run(tmp_path, store, "save", "backup-of-today")
    run(tmp_path, restored.settings.store, "restore", "backup-of-today")

    kept, files = stored_files(restored), stored_files(own_store)
    assert {path for path in files if "/shards/" in path} == set(files) - set(kept)
    assert kept == {path: files[path] for path in kept}
    ingest(restored.storage, source)
    assert pictures_of(restored.storage) == pictures_of(own_store.storage)
    assert corpus_of(restored.storage).digest == corpus_of(own_store.storage).digest
