"""Wrong input to each command: one clear line with the remedy, exit code 2, no traceback."""

import io
import pickle
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import assert_one_error_line, hdfs_client, stored_files

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.ingest.plan_records import IngestPlan
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout

AWAY = {
    "hdfs": {"TINYTAGS_WEBHDFS_URL": "http://127.0.0.1:1", "TINYTAGS_HDFS_URL": "hdfs://127.0.0.1:1"},
    "solr": {"TINYTAGS_SOLR_URL": "http://127.0.0.1:1/solr"},
    "spark": {"TINYTAGS_SPARK_URL": "sc://127.0.0.1:1"},
    "airflow": {"TINYTAGS_AIRFLOW_URL": "http://127.0.0.1:1", "TINYTAGS_AIRFLOW_PASSWORD": "x"},
}


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(runtime: Runtime, model: str, pictures: dict[str, Path]) -> str:
    """A run that was only planned."""
    fields = {"source": str(pictures["corpus"]), "format": "tiny-images", "shard_images": 500, "blocks_per_shard": 2}
    ingest_corpus(make_definition("bad-input", fields), storage=runtime.storage)
    return plan_run(PlanRequest("bad-input", model, threshold=77), storage=runtime.storage).run


@pytest.mark.parametrize(
    ("arguments", "away", "message"),
    [
        ("train no-such.parquet", "", "no-such.parquet: no such file"),
        ("train {corpus}", "", "not a readable Parquet file"),
        ("train {labelled} --head forest --trees 0", "", "trees is 0: it must be 1 to 1000"),
        ("train {labelled} --seed 2147", "spark", "Spark does not answer"),
        ("score no-such-corpus --model {model}", "", "corpus no-such-corpus is not in the store"),
        ("score bad-input --model {model} --threshold 120", "", "threshold is 120"),
        ("score bad-input --model {model} --blocks 3,6", "", "block 6 is out of range"),
        ("score bad-input --model {model} --blocks 5-3", "", "runs backwards"),
        ("score bad-input --model {model} --threshold 77", "spark", "Spark does not answer"),
        ("index {run} --blocks 99", "", "block 99 is out of range"),
        ("index {run} --blocks 1", "", "block 1 is not scored; run `tinytags score"),
        ("index {run}", "solr", "Solr does not answer"),
        ("index no-such-run", "", "no-such-run: no such run; `tinytags runs` lists the runs"),
        ("publish {run}", "", "cannot be published: not verified: blocks 0-5"),
        ("publish {run}", "solr", "Solr does not answer"),
        ("ledger no-such-run", "", "no-such-run: no such run; `tinytags runs` lists the runs"),
        ("ledger {run} --blocks x", "", "'x' is not a block number"),
        ("ledger {run} --state bad", "", "'bad' is not a state"),
        ("ledger {run}", "hdfs", "HDFS does not answer"),
        ("search cat", "solr", "Solr"),
        ("search cat --min-accuracy 101", "", "out of range"),
        ("search cat --rows 0", "", "--rows is 0"),
        ("run no-such", "", "no-such.toml: no such corpus is defined"),
        ("run --labelled no-such.parquet", "", "no-such.parquet: no such file"),
        ("run --features no-such", "", "no-such: no such net"),
        ("run", "airflow", "Airflow does not answer"),
        ("up everything", "", "everything"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    tinytags_here: Command,
    pictures: dict[str, Path],
    model: str,
    run: str,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    away: str,
    message: str,
) -> None:
    if away == "solr":  # which is retried, with pauses
        monkeypatch.setattr(time, "sleep", lambda _: None)
    filled = arguments.format(corpus=pictures["corpus"], labelled=pictures["labelled"], model=model, run=run)
    assert_one_error_line(tinytags_here(*filled.split(), **AWAY.get(away, {})), message)


def test_the_command_ends_so_in_a_process_of_its_own(tinytags: Command) -> None:
    assert_one_error_line(tinytags("corpus", "add", "A", "no-such.bin"), "'A' cannot be the name of a corpus")


class RunsCode:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("ran"),)


def tar_of(path: Path, *members: tuple[str, bytes, str]) -> None:
    """Write a tar of members: name, type, and a link's target or a file's content."""
    with tarfile.open(path, "w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content
            tar.addfile(member, io.BytesIO(content.encode()))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sources, most of them bad."""
    folder = tmp_path_factory.mktemp("sources")
    for name, size in (("good", 3 * 3072), ("truncated", 3 * 3072 - 1), ("odd", 3073), ("empty", 0)):
        (folder / f"{name}.bin").write_bytes(bytes(size))
    (folder / "metadata.bin").write_bytes(bytes(2 * 768))
    (folder / "nothing").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "read.me").write_text("no picture")
    (folder / "broken").mkdir()
    for number in range(3):
        (folder / "broken" / f"{number}.jpg").write_bytes(b"no picture")
    (folder / "cifar").mkdir()
    (folder / "cifar" / "data_batch_1").write_bytes(pickle.dumps({b"data": RunsCode(), b"labels": [0]}))
    tar_of(folder / "outside.tar", ("../../a.jpg", tarfile.REGTYPE, "x"))
    tar_of(folder / "link.tar", ("a.jpg", tarfile.SYMTYPE, "/etc/passwd"))
    pq.write_table(pa.table({"label": [1, 2]}), folder / "labels.parquet")
    return folder


@pytest.mark.parametrize(
    ("name", "source", "options", "message"),
    [
        ("a", "no-such.bin", "tiny-images", "no-such.bin: no such file or folder"),
        ("a", "truncated.bin", "tiny-images", "truncated.bin: 9,215 bytes are 1 byte short of 3 images of 3,072 bytes"),
        ("a", "odd.bin", "tiny-images", "odd.bin: 3,073 bytes are 1 image of 3,072 bytes and 1 byte too many at"),
        ("a", "good.bin", "raw --height 33", "good.bin: 9,216 bytes are 288 bytes short of 3 images of 3,168 bytes"),
        ("a", "good.bin", "cifar-binary", "good.bin: 9,216 bytes are 3 bytes short of 3 images of 3,073"),
        ("a", "good.bin", "parquet", "good.bin: "),
        ("a", "good.bin", "tiny-images --keywords {sources}/metadata.bin", "and the corpus has 3 images"),
        ("a", "good.bin", "tiny-images --keywords {sources}/no.bin", "no.bin: no such file or folder"),
        ("a", "good.bin", "tiny-images --keyword-stop-list /no", "keyword_stop_list is set, but keywords is not"),
        ("a", "empty.bin", "tiny-images", "empty.bin: contains no images of the format tiny-images"),
        ("a", "nothing", "folder", "nothing: holds no "),
        ("a", "texts", "folder", "texts: holds no "),
        (
            "a",
            "broken",
            "folder",
            "3 of 3 images are unreadable, more than most_unreadable_percent = 10 allows (0 (0.jpg): ",
        ),
        ("a", "cifar", "cifar-pickle", "data_batch_1: "),
        ("a", "outside.tar", "webdataset", "outside.tar: member '../../a.jpg' at offset 0"),
        ("a", "link.tar", "webdataset", "link.tar: member 'a.jpg' at offset 0"),
        ("a", "labels.parquet", "parquet", "labels.parquet: has no column of encoded images"),
        ("../a", "good.bin", "tiny-images", "'../a' cannot be the name of a corpus"),
        ("A", "good.bin", "tiny-images", "'A' cannot be the name of a corpus"),
        ("a b", "good.bin", "tiny-images", "'a b' cannot be the name of a corpus"),
        ("\N{PILE OF POO}", "good.bin", "tiny-images", "cannot be the name of a corpus"),
        ("", "good.bin", "tiny-images", "'' cannot be the name of a corpus"),
        ("a", "good.bin", "tarball", "there is no format tarball (formats are parquet, webdataset, folder,"),
        ("a", "good.bin", "tiny-images --height 64", "images of the format tiny-images are 32x32"),
        ("a", "good.bin", "tiny-images --blocks-per-shard 0", "blocks_per_shard: Input should be greater than"),
        ("a", "good.bin", "tiny-images --option anon", "--option 'anon': write name=value"),
    ],
)
def test_a_bad_source_is_one_line_and_nothing_gets_a_final_name(
    own_store: Runtime, sources: Path, tinytags_here: Command, name: str, source: str, options: str, message: str
) -> None:
    filled = options.format(sources=sources).split()
    outcome = tinytags_here("corpus", "add", name, str(sources / source), "--replace", "--format", *filled)
    if outcome.returncode == 0:
        outcome = tinytags_here("ingest", name, TINYTAGS_STORE=own_store.settings.store)
    assert_one_error_line(outcome, message)
    assert not [path for path in stored_files(own_store) if "/shards/" in path or path.endswith("corpus.json")]
    assert not Path("ran").exists()


def test_a_limit_that_was_raised_and_a_source_that_was_moved_are_taken_from_the_new_definition(
    own_store: Runtime, tinytags_here: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(b"no picture")

    def ingest_from(source: Path, *options: str) -> subprocess.CompletedProcess[str]:
        added = tinytags_here("corpus", "add", "moved", str(source), "--replace", "--format", "folder", *options)
        assert added.returncode == 0, added.stderr
        return tinytags_here("ingest", "moved", TINYTAGS_STORE=own_store.settings.store)

    assert_one_error_line(ingest_from(folder), "raise the limit in the corpus' definition")
    outcome = ingest_from(folder.rename(tmp_path / "elsewhere"), "--most-unreadable-percent", "100")
    assert outcome.returncode == 0, outcome.stderr
    stored = IngestPlan.load(own_store.storage, layout.ingest_plan_file("moved")).definition
    assert (stored.source, stored.most_unreadable_percent) == (str(tmp_path / "elsewhere"), 100)


@pytest.fixture
def begun(own_store: Runtime, tinytags_here: Command, tmp_path: Path) -> Path:
    """The source of the corpus `begun`, which has been ingested."""
    path = tmp_path / "begun.bin"
    path.write_bytes(bytes(5 * 3072))
    add_begun(tinytags_here, path, "--shard-images", "2")
    assert tinytags_here("ingest", "begun", TINYTAGS_STORE=own_store.settings.store).returncode == 0
    return path


def add_begun(tinytags_here: Command, source: Path, *options: str) -> None:
    added = tinytags_here("corpus", "add", "begun", str(source), "--replace", "--format", "tiny-images", *options)
    assert added.returncode == 0, added.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--shard-images 3", "corpus begun was started with shard_images = 2, not 3"),
        ("--shard-images 2 --blocks-per-shard 1", "corpus begun was started with blocks_per_shard = 2, not 1"),
    ],
)
def test_another_cut_is_refused_once_begun(
    own_store: Runtime, begun: Path, tinytags_here: Command, options: str, message: str
) -> None:
    before = stored_files(own_store)
    add_begun(tinytags_here, begun, *options.split())
    assert_one_error_line(tinytags_here("ingest", "begun", TINYTAGS_STORE=own_store.settings.store), message)
    assert stored_files(own_store) == before


def test_a_source_that_changed_is_refused_once_begun(own_store: Runtime, begun: Path, tinytags_here: Command) -> None:
    before = stored_files(own_store)
    begun.write_bytes(bytes(4 * 3072))
    outcome = tinytags_here("ingest", "begun", TINYTAGS_STORE=own_store.settings.store)
    assert_one_error_line(
        outcome, f"{begun} is a different source or has changed since then (size_bytes: was 15,360, is 12,288"
    )
    assert stored_files(own_store) == before


@pytest.mark.parametrize(
    ("redo", "message"),
    [("3", "shard 3 is out of range"), ("x", "'x' is not a block number"), ("2-1", "runs backwards")],
)
def test_shards_that_are_not_there_cannot_be_written_again(
    own_store: Runtime, begun: Path, tinytags_here: Command, redo: str, message: str
) -> None:
    outcome = tinytags_here("ingest", "begun", "--redo", redo, TINYTAGS_STORE=own_store.settings.store)
    assert_one_error_line(outcome, message)


@pytest.mark.usefixtures("begun")
def test_who_may_not_write_is_told_so(own_store: Runtime, tinytags_here: Command) -> None:
    before = stored_files(own_store)
    somebody = {"TINYTAGS_HDFS_USER": "somebody-else"}
    refused = "HDFS rejected this (Permission denied: user=somebody-else, access=WRITE"
    outcome = tinytags_here("ingest", "begun", TINYTAGS_STORE="/forbidden", **somebody)
    assert_one_error_line(outcome, refused)
    store = own_store.settings.store
    assert_one_error_line(tinytags_here("ingest", "begun", "--redo", "1", TINYTAGS_STORE=store, **somebody), refused)
    assert stored_files(own_store) == before
    assert hdfs_client(own_store).status("/forbidden", strict=False) is None


def test_an_hdfs_that_is_away_is_named(sources: Path, tinytags_here: Command) -> None:
    add_begun(tinytags_here, sources / "good.bin")
    assert_one_error_line(tinytags_here("ingest", "begun", **AWAY["hdfs"]), "HDFS does not answer")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('source = "x"', "format: Field required"),
        (
            'source = "x"\nformat = "raw"\nheigth = 3',
            "heigth: Extra inputs are not permitted; did you mean height? (a newer TinyTags may know it); fields are "
            "blocks_per",
        ),
        ('source = "x', "not a readable TOML file"),
    ],
)
@pytest.mark.parametrize("command", ["ingest written", "corpus show written", "run written"])
def test_a_definition_that_a_person_wrote_wrongly_is_named_by_its_file(
    hdfs: Runtime, tinytags_here: Command, text: str, message: str, command: str
) -> None:
    path = hdfs.settings.corpora_folder / "written.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    try:
        assert_one_error_line(tinytags_here(*command.split()), f"{path}: {message}")
        listed = tinytags_here("corpus", "list")  # which names it, too, and goes on to the others
        assert listed.returncode == 1
        assert f"left out: {path}: {message}" in listed.stderr
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ingest no-such", "no-such.toml: no such corpus is defined"),
        ("corpus show no-such", "no-such.toml: no such corpus is defined"),
        ("corpus remove no-such", "no-such: no such corpus is defined"),
        ("corpus remove ../no-such", "'../no-such' cannot be the name of a corpus"),
        ("corpus verify no-such", "corpus no-such is not in the store"),
        ("corpus inspect /no/such", "/no/such: no such file or folder"),
    ],
)
def test_a_corpus_that_is_not_there_is_named(tinytags_here: Command, arguments: str, message: str) -> None:
    assert_one_error_line(tinytags_here(*arguments.split()), message)
