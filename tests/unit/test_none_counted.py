"""Images whose first choice is none of the tags are counted in every sum, and a wrong count of them is found."""

import json
from types import SimpleNamespace

import pytest
from small_nets import HALF_NET, NONE, embed, make_net_run, publish_net_model
from small_run import BLOCKS, VOTES, SolrHere, SparkHere, address_of, copy_run, index_all, make_run, quiet, score_all
from typer.testing import CliRunner

from tinytags_tasks.cli import app, blocks, common, follow, publishing, stages
from tinytags_tasks.errors import ReconcileError, TinyTagsError
from tinytags_tasks.publish.diff import DiffRequest, compare_runs
from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored, write_scored
from tinytags_tasks.store.ledger import add_up, read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import BackgroundUse
from tinytags_tasks.store.models import compare_models, describe_model
from tinytags_tasks.store.record import CHECKSUM_KEY

ALIAS = "live"

BLOCK = 4
"""Position 7, which shows none of the tags, and 8, which is kept."""


@pytest.fixture
def tinytags(storage, solr, monkeypatch):
    """Run a command on the store and Solr of the test."""
    runtime = SimpleNamespace(
        storage=storage,
        solr=solr,
        settings=SimpleNamespace(alias=ALIAS, keep_collections=1),
        onnx_providers=("CPUExecutionProvider",),
        store_address=address_of(storage),
        connect_spark=SparkHere(),
    )
    for module in (common, publishing, blocks, stages):
        monkeypatch.setattr(module, "clients", lambda: runtime)

    def run(*arguments, code=0):
        outcome = CliRunner().invoke(app, arguments)
        if isinstance(outcome.exception, TinyTagsError):
            raise outcome.exception
        assert outcome.exit_code == code, outcome.output
        return outcome.stdout

    return run


def finish(storage, solr, planned):
    score_all(storage, planned)
    solr.visible[planned.collection] = {}
    index_all(storage, planned, solr)
    return planned


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    storage, solr = LocalStorage(tmp_path_factory.mktemp("prepared") / "store"), SolrHere()
    planned = make_net_run(storage, threshold=50)
    embed(storage)
    finish(storage, solr, planned)
    publish_run(PublishRequest(planned.name, ALIAS), storage=storage, solr=solr, report=quiet)
    return storage, solr, planned


@pytest.fixture
def run(prepared, storage, solr):
    """A verified and live run of a model that knows none of the tags."""
    planned = copy_run(prepared, storage, solr)
    return planned


def edit(storage, path, **changes):
    """Change fields of a record as an older TinyTags, which wrote no checksums, would have written it."""
    fields = {**json.loads(storage.read(path)), **changes}
    del fields[CHECKSUM_KEY]
    storage.write(path, json.dumps(fields).encode())


def documents(solr, run):
    return {name: dict(document) for name, document in solr.documents(run.collection).items()}


def ledger(storage, run):
    return [record.replaced(attempts=0, indexed="", index_seconds=0.0) for record in read_ledger(storage, run)]


LEDGER_EDITS = [{"none": 0}, {"none": 2}, {"none": 0, "below": 1}, {"none": 2, "kept": 0}, {"none": 0, "unreadable": 1}]


@pytest.mark.parametrize("changes", LEDGER_EDITS, ids=str)
def test_a_wrong_none_in_the_ledger_is_named_with_its_block_and_rebuilt(storage, solr, run, tinytags, changes):
    before, records = documents(solr, run), ledger(storage, run)
    edit(storage, layout.ledger_file(run.name, BLOCK), **changes)
    said = tinytags("audit", run.name, code=1)
    assert f"block {BLOCK}: its record in the ledger is wrong: " in said
    assert f"none is {changes['none']}, and must be 1" in said
    solr.posted = 0
    tinytags("audit", run.name, "--repair")
    assert (documents(solr, run), ledger(storage, run)) == (before, records)
    assert (solr.posted, solr.deleted) == (0, [])


@pytest.mark.parametrize("changes", LEDGER_EDITS, ids=str)
def test_publishing_refuses_a_wrong_none_in_the_ledger_by_name(storage, run, tinytags, changes):
    edit(storage, layout.ledger_file(run.name, BLOCK), **changes)
    said = rf"blocks {BLOCK} \(block {BLOCK}: .*none is {changes['none']}, and must be 1.*write these records again"
    with pytest.raises(ReconcileError, match=said):
        tinytags("publish", run.name)


def test_none_that_was_moved_between_two_blocks_is_named_in_both(storage, run, tinytags):
    for block, difference in ((BLOCK, -1), (3, 1)):
        (record,) = read_ledger(storage, run, [block])
        path = layout.ledger_file(run.name, block)
        edit(storage, path, none=record.none + difference, below=record.below - difference)
    said = tinytags("audit", run.name, code=1)
    wrong = "its record in the ledger is wrong: below is"
    assert f"block {BLOCK}: {wrong} 1, and must be 0, none is 0, and must be 1" in said
    assert f"block 3: {wrong} 0, and must be 1, none is 1, and must be 0" in said
    with pytest.raises(ReconcileError, match=rf"contradicts the scored file: blocks 3-{BLOCK} "):
        tinytags("publish", run.name)


@pytest.mark.parametrize("changes", [{"none": 0}, {"none": 2}, {"none": 0, "below": 1}], ids=str)
def test_a_wrong_none_in_a_scored_file_is_found_and_the_block_scored_again(storage, solr, run, tinytags, changes):
    before = documents(solr, run)
    table, scored = read_scored(storage, run.name, BLOCK)
    write_scored(storage, table, scored.replaced(**changes))
    said = tinytags("audit", run.name, code=1)
    if "below" in changes:  # the sum is right, but the file says which images are none
        assert f"block {BLOCK}: its scored file is damaged (wrong marks of none)" in said
    else:
        wrong = f"wrong kept + below + none + unreadable {1 + changes['none']}, and must be 2"
        assert f"block {BLOCK}: its scored file is damaged ({wrong})" in said
    with pytest.raises(ReconcileError, match=f"scored file is missing or not the one .*: blocks {BLOCK}; redo them"):
        tinytags("publish", run.name)
    tinytags("audit", run.name, "--repair")
    assert documents(solr, run) == before
    assert [record.none for record in read_ledger(storage, run)] == [0, 1, 0, 0, 1, 0]
    assert "everything matches" in tinytags("audit", run.name)


def test_a_scored_file_and_a_ledger_that_agree_on_a_wrong_sum_are_both_named(storage, run, tinytags):
    table, scored = read_scored(storage, run.name, BLOCK)
    again = write_scored(storage, table, scored.replaced(none=0))
    changed = {name: getattr(again, name) for name in ("none", "scored_bytes", "scored_sha256")}
    edit(storage, layout.ledger_file(run.name, BLOCK), **changed)
    assert "wrong kept + below + none + unreadable 1, and must be 2" in tinytags("audit", run.name, code=1)
    with pytest.raises(ReconcileError, match=rf"read is not kept \+ below \+ none \+ unreadable: blocks {BLOCK}"):
        tinytags("publish", run.name)


# Where it is shown

SUMMARY_SETTINGS = (
    *("airflow_page", "airflow_user", "search_page", "search_user"),
    *("webhdfs_url", "hdfs_url", "solr_url", "solr_reader_user"),
)


def test_reconciling_says_how_many_images_show_none_of_the_tags(storage, solr, run):
    lines = []
    totals = reconcile_run(run.name, storage=storage, solr=solr, report=lines.append)
    assert totals.none == len(NONE)
    assert lines == [
        f"reconciled {BLOCKS} blocks: 11 images = 4 kept + 5 below the threshold + 2 none of the tags + 0 unreadable; "
        "4 documents in Solr"
    ]


def test_the_ledger_has_a_column_of_none_where_the_model_knows_it(storage, run, tinytags):
    said = tinytags("ledger", run.name)
    assert "none" in said.splitlines()[1].split()
    assert "11 read = 4 kept + 5 below + 2 none + 0 unreadable; 4 documents" in said
    assert json.loads(tinytags("ledger", run.name, "--json"))["totals"]["none"] == 2


def test_nothing_is_said_of_none_where_the_model_does_not_know_it(storage, solr, tinytags):
    planned = finish(storage, solr, make_run(storage))
    said = tinytags("ledger", planned.name)
    assert "none" not in said
    assert " below + 0 unreadable" in said
    lines = []
    reconcile_run(planned.name, storage=storage, solr=solr, report=lines.append)
    assert "none" not in lines[0]


@pytest.mark.parametrize("knows_none", [True, False])
def test_the_table_of_a_run_shows_none_where_the_model_knows_it(storage, solr, tinytags, capsys, knows_none):
    planned = make_net_run(storage) if knows_none else make_run(storage)
    embed(storage)
    finish(storage, solr, planned)
    settings = SimpleNamespace(**dict.fromkeys(SUMMARY_SETTINGS, ""), solr_login=lambda role: None)
    runtime = SimpleNamespace(storage=storage, settings=settings)
    totals = add_up(read_ledger(storage, planned))
    follow._print_summary(runtime, planned, totals, totals.kept, "live", ())
    shown = capsys.readouterr().out
    assert ("none of the tags" in shown) is knows_none
    assert "below the threshold of 40 %" in shown


def test_a_comparison_counts_none_of_both_runs(storage, solr, run, tinytags):
    other = make_run(storage)
    score_all(storage, other)
    found = compare_runs(DiffRequest(other.name, run.name), storage=storage, report=quiet)
    assert (found.old_none, found.new_none, found.images) == (0, 2, len(VOTES))
    row = next(line for line in tinytags("diff", other.name, run.name).splitlines() if "none of the tags" in line)
    assert [cell.strip() for cell in row.split("│")[2:5]] == ["0", "2", "+2"]
    assert "none of the tags" not in tinytags("diff", other.name, other.name)


# The model


def test_a_model_says_what_it_reads_and_what_taught_it_none(storage):
    use = BackgroundUse(
        net=HALF_NET, sha256="0" * 64, images=4_000, left_out_by_name=("tabby cat",), left_out_by_look=("fox", "wolf")
    )
    described = describe_model(publish_net_model(storage, head="logistic", background=use))
    assert described["features"] == f"embeddings by net {HALF_NET}"
    assert described["head"] == "logistic"
    assert described["none"].startswith("knows images that show none of its tags")
    assert described["learned none from"] == f"4,000 general pictures that came with net {HALF_NET}"
    assert described["left out of these, because they name a tag"] == "tabby cat"
    assert described["left out of these, because a tag was found in them"] == "fox, wolf"


def test_models_with_and_without_none_are_compared_with_a_remark(storage):
    one = publish_net_model(storage)
    rows, remarks = compare_models(one, one.replaced(none=False, version="small-other"))
    assert next(row for row in rows if row[0] == "none")[2] == ""
    (remark,) = remarks
    assert remark.startswith(f"only {one.version} knows none of the tags")
