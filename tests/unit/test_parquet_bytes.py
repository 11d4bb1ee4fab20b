"""Parquet from memory: the same rows as ever, and no thread of Arrow that could abort the process at its end."""

import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinytags_tasks.store.parquet_bytes import read_parquet

# Reads what a verification reads, with any number of cores, and prints how many threads that started.
PROGRAM = """
    import os, sys, pyarrow
    pyarrow.set_cpu_count(4), pyarrow.set_io_thread_count(4)
    from tinytags_tasks.corpus.listing import ListingFile, open_listing
    from tinytags_tasks.corpus.reader import ListedItem
    from tinytags_tasks.store.local import LocalStorage
    from tinytags_tasks.store.parquet_bytes import read_parquet

    storage = LocalStorage(sys.argv[1])
    listing = ListingFile(ListedItem(f"{number}.jpg", 1, 0, 9, "1") for number in range(5_000))
    storage.write("source.parquet", listing.content())
    before = set(os.listdir("/proc/self/task"))
    assert len(list(listing.items())) == 5_000
    assert len(list(open_listing(storage, "source.parquet").items(10, 4_000))) == 4_000
    assert read_parquet(storage.read("source.parquet")).num_rows == 5_000
    print(len(set(os.listdir("/proc/self/task")) - before))
"""


def test_rows_columns_and_metadata_are_those_that_were_written():
    table = pa.table({"keyword": ["duck", None], "position": [3, 4]}).replace_schema_metadata({"key": "value"})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=1)
    assert read_parquet(sink.getvalue()).equals(table, check_metadata=True)
    assert read_parquet(sink.getvalue(), ["position"]).to_pydict() == {"position": [3, 4]}
    with pytest.raises((pa.ArrowException, OSError)):
        read_parquet(sink.getvalue()[:-20])


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_reading_starts_no_thread_that_may_outlive_it(tmp_path):
    program = "\n".join(line[4:] for line in PROGRAM.splitlines())
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
