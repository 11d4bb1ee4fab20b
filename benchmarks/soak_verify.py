"""Soak ``verify_corpus``: many processes, one after the other and under load, none of which may be aborted at its end.

``python benchmarks/soak_verify.py 400`` makes a small corpus of Parquet in a temporary folder, keeps every core busy,
verifies the corpus that many times, and prints how many processes ended badly, and how. It exits with 1 if any did.
One verification takes seconds on idle cores; at 1 % of aborts, 400 miss them with a chance of 2 %.
"""

import io
import multiprocessing
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.store.local import LocalStorage

IMAGES, SIDE = 2_000, 16
VERIFY = """
import sys
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.ingest.verify import verify_corpus
from tinytags_tasks.store.local import LocalStorage

files = SourceFiles(sys.argv[2])
assert verify_corpus("soaked", storage=LocalStorage(sys.argv[1]), files=files, deep=True, report=str).is_intact
"""


def make_source(path: Path) -> None:
    """Write a Parquet file of pictures with keywords, in many row groups."""
    generator = np.random.default_rng(1)
    images = []
    for _ in range(IMAGES):
        sink = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(sink, "PNG")
        images.append(sink.getvalue())
    words = [f"word {number % 7}" for number in range(IMAGES)]
    pq.write_table(pa.table({"img": images, "word": words}), path, row_group_size=100)


def burn() -> None:
    """Keep a core busy."""
    while True:
        sum(range(100_000))


def main(runs: int) -> int:
    """Verify a corpus ``runs`` times; return 1 if a process ended badly."""
    with tempfile.TemporaryDirectory() as folder:
        store, source = Path(folder, "store"), Path(folder, "source.parquet")
        make_source(source)
        fields = {"source": str(source), "format": "parquet", "height": SIDE, "width": SIDE, "keywords": "word"}
        definition = make_definition("soaked", {**fields, "shard_images": 500, "blocks_per_shard": 5})
        ingest_corpus(definition, storage=LocalStorage(store), report=lambda line: None)
        burning = [multiprocessing.Process(target=burn, daemon=True) for _ in range(2 * multiprocessing.cpu_count())]
        for process in burning:
            process.start()
        ends: Counter[str] = Counter()
        for run in range(runs):
            done = subprocess.run([sys.executable, "-c", VERIFY, store, source], capture_output=True, text=True)
            if done.returncode:
                ends[f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"] += 1
            print(f"\r{run + 1:,} of {runs:,}, {sum(ends.values()):,} bad", end="", file=sys.stderr, flush=True)
        for process in burning:
            process.terminate()
    print(f"\n{runs:,} verifications, {sum(ends.values()):,} ended badly")
    for end, count in ends.most_common():
        print(f"{count:,} times {end}")
    return 1 if ends else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
