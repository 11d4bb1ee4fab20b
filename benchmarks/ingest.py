"""Compare ingestion with other ways to write the same bytes to the same HDFS, on real images.

``python benchmarks/ingest.py`` starts an HDFS of its own, builds its files from the demo's images, and prints Markdown.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hdfs import InsecureClient
from machine import describe_machine, print_table
from PIL import Image

from tinytags_tasks import services
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.demo.make import OTHER_FILE, make_demo
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.services import hdfs as hdfs_service
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store.local import LocalStorage

TINY_IMAGES = 79_302_017
IMAGE_BYTES = 3_072
FILE_BYTES = 2_027_520_000  # 660,000 images
ROUNDS = 3
PICTURES = 20_000


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def build_file(path: Path, demo_file: Path, size_bytes: int) -> None:
    """Repeat the demo's images, each round shifted by one value so that no two rounds are equal."""
    images = np.fromfile(demo_file, dtype=np.uint8)
    with path.open("wb") as file:
        turn = 0
        while file.tell() < size_bytes:
            (images + np.uint8(turn)).tofile(file)
            turn += 1
        file.truncate(size_bytes)


def definition(name: str, source: Path, format_name: str = "tiny-images", **fields: object) -> CorpusDefinition:
    return CorpusDefinition.model_validate({"name": name, "source": str(source), "format": format_name, **fields})


def compare_uploads(folder: Path, settings: Settings, source: Path) -> None:
    runtime = Runtime(settings)
    client = InsecureClient(settings.address("webhdfs_url"), user=settings.hdfs_user)
    java = [
        *("java", "-cp", f"{settings.home}/services/namenode/conf:{hdfs_service.class_path(settings)}"),
        *(f"-Dtinytags.log={folder}/shell.log", "org.apache.hadoop.fs.FsShell", "-fs", settings.address("hdfs_url")),
    ]
    environment = {**os.environ, "HADOOP_USER_NAME": settings.hdfs_user}
    client.makedirs("/bench")

    def put() -> None:
        subprocess.run([*java, "-put", "-f", str(source), "/bench/put.bin"], check=True, env=environment)

    def copy_and_hash() -> None:
        subprocess.run(["cp", source, folder / "copy.bin"], check=True)
        subprocess.run(["sha256sum", folder / "copy.bin"], check=True, stdout=subprocess.DEVNULL)
        (folder / "copy.bin").unlink()

    rounds = iter(range(100))
    ways: dict[str, Callable[[], object]] = {
        "(a) `hdfs` client, `upload`": lambda: client.upload("/bench/a.bin", str(source), overwrite=True),
        "(b) Java client, `FsShell -put`": put,
        "(c) `cp` and `sha256sum`, no HDFS": copy_and_hash,
        "TinyTags: `ingest`": lambda: ingest_corpus(
            definition(f"round-{next(rounds)}", source), storage=runtime.storage, report=lambda _: None
        ),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, work in ways.items():
            seconds[way].append(timed(work))
        client.delete("/tinytags", recursive=True)
    size = source.stat().st_size
    rates = {way: size / 1e6 / statistics.median(values) for way, values in seconds.items()}
    fastest = max(rates[way] for way in list(rates)[:2])
    print_table(
        ["way", "MB/s (median)", "seconds of each round", "against the faster of (a), (b)"],
        [
            [way, f"{rates[way]:,.0f}", ", ".join(f"{value:.1f}" for value in seconds[way]), f"{rate / fastest:.2f}"]
            for way, rate in rates.items()
        ],
    )
    ours = rates["TinyTags: `ingest`"]
    total = TINY_IMAGES * IMAGE_BYTES
    print(
        f"\nProjection: {TINY_IMAGES:,} images x {IMAGE_BYTES:,} bytes = {total:,} bytes; at {ours:,.0f} MB/s that is "
        f"{total / 1e6 / ours / 60:,.0f} minutes, if the disk keeps up.\n"
    )


def measure_memory(folder: Path, source: Path) -> None:
    """Ingest 0.5, 1 and 2 GB, each in its own process, and print the peak memory of each."""
    rows = []
    for share in (4, 2, 1):
        part = folder / "part.bin"
        with source.open("rb") as whole, part.open("wb") as file:
            left = source.stat().st_size // share // IMAGE_BYTES * IMAGE_BYTES
            size = left
            while left:
                left -= file.write(whole.read(min(left, 10_000_000)))
        done = subprocess.run(
            [sys.executable, __file__, "--memory", str(part)], check=True, capture_output=True, text=True
        )
        rows.append([f"{size / 1e9:.2f}", done.stdout.strip()])
        part.unlink()
    print_table(["GB ingested into HDFS", "peak memory of the process, MB"], rows)
    print()


def ingest_alone(source: Path) -> None:
    ingest_corpus(
        definition(f"memory-{source.stat().st_size}", source), storage=Runtime().storage, report=lambda _: None
    )
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}")


def compare_decoding(folder: Path, parquet: Path) -> None:
    """Decode images from a folder and from a Parquet file, compared with a plain Pillow loop over the same images."""
    pictures = folder / "pictures"
    pictures.mkdir()
    encoded = [row["bytes"] for row in pq.read_table(parquet, columns=["img"]).column(0).to_pylist()]
    for number in range(PICTURES):
        (pictures / f"{number:06d}.jpg").write_bytes(encoded[number % len(encoded)])
    repeated = folder / "pictures.parquet"
    with pq.ParquetWriter(repeated, pq.read_schema(parquet)) as writer:
        for _ in range(-(-PICTURES // len(encoded))):
            writer.write_table(pq.read_table(parquet))

    def one(content: bytes) -> np.ndarray:
        return np.asarray(Image.open(BytesIO(content)).convert("RGB").resize((32, 32), Image.Resampling.BOX))

    def loop_over_folder() -> None:
        with (folder / "loop.bin").open("wb") as file:
            for path in sorted(pictures.iterdir()):
                file.write(one(path.read_bytes()).tobytes())

    def loop_over_parquet() -> None:
        with (folder / "loop.bin").open("wb") as file:
            for batch in pq.ParquetFile(repeated).iter_batches(1_000, columns=["img"]):
                for row in batch.column(0).to_pylist():
                    file.write(one(row["bytes"]).tobytes())

    def ours(format_name: str, source: Path) -> None:
        store = folder / "store"
        ingest_corpus(definition("pictures", source, format_name), storage=LocalStorage(store), report=lambda _: None)
        shutil.rmtree(store)

    rows = []
    for name, loop, source in (("folder", loop_over_folder, pictures), ("parquet", loop_over_parquet, repeated)):
        loops, own = [], []
        for _ in range(ROUNDS):
            loops.append(timed(loop))
            own.append(timed(partial(ours, name, source)))
        plain, tinytags = (PICTURES / statistics.median(values) for values in (loops, own))
        rows.append([name, f"{plain:,.0f}", f"{tinytags:,.0f}", f"{tinytags / plain:.2f}"])
    print_table([f"{PICTURES:,} JPEGs of 64x64", "plain Pillow loop, images/s", "TinyTags, images/s", "ratio"], rows)


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        ingest_alone(Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), engines=["hdfs"], standard_ports=False, die_with_parent=True)
        try:
            demo = make_demo(folder / "demo", settings.demo_source, report=lambda _: None)
            source = folder / "two.bin"
            build_file(source, demo.corpus_path, FILE_BYTES)
            print(f"## Ingestion\n\n{describe_machine()}; {FILE_BYTES:,} bytes of {demo.description}, repeated.\n")
            compare_uploads(folder, settings, source)
            measure_memory(folder, source)
            compare_decoding(folder, settings.demo_source / OTHER_FILE)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
