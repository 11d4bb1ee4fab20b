"""Formats of stored records: older ones are read, newer ones are refused before anything is done with them."""

import json
import re
import sys
from contextlib import suppress
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from faulty_storage import files_under
from identity_corpora import define
from small_run import BLOCKS, CORPUS, MODEL, SparkHere, address_of, card, make_run, quiet, score_all

from tinytags_tasks import cli
from tinytags_tasks.cli import models as models_commands
from tinytags_tasks.corpus import listing as listing_module
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.definitions import StoredDefinition
from tinytags_tasks.corpus.listing import ListingFile, open_listing
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import CorruptError, FinalError, NewerFormatError
from tinytags_tasks.ingest.plan import PlanRequest as IngestRequest
from tinytags_tasks.ingest.plan import plan_ingestion
from tinytags_tasks.ingest.plan_records import GrowthPlan, IngestPlan
from tinytags_tasks.ingest.refused import IngestRefusal
from tinytags_tasks.ingest.verify import verify_corpus
from tinytags_tasks.review.frame import FrameRecord
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store import record as record_module
from tinytags_tasks.store.block_files import RECORD_KEY, read_scored
from tinytags_tasks.store.corpus_records import BlockManifest, Corpus, Growth, ShardManifest, Source, Unreadable
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.model_records import LastTraining, Training
from tinytags_tasks.store.net_records import EmbeddedBlock, NetCard
from tinytags_tasks.store.record import CHECKSUM_KEY, Record
from tinytags_tasks.store.review_records import CarriedWords, LogPart
from tinytags_tasks.store.review_sets import ChosenPicture, ReviewSet
from tinytags_tasks.store.run_records import (
    Audit,
    BlockRecord,
    BlockState,
    Change,
    Claim,
    NextPublication,
    Publication,
    Removal,
    Run,
)

PATH = "folder/record.json"
SOURCE = Source(
    path="/a", format="raw", files=1, size_bytes=2, images=3, listing_sha256="l", head_sha256="h", tail_sha256="t"
)


def samples(tmp_path):
    """Return a record of every kind."""
    definition = define("raw", tmp_path, options={"anon": True}, most_unreadable_percent=0.5)
    return [
        Corpus(
            name="größe",
            images=3,
            shard_images=2,
            blocks_per_shard=1,
            height=4,
            width=4,
            preparation="",
            source=SOURCE,
            unreadable=0,
            digest="d",
            created="2024-01-01",
            growths=(Growth(images=1, unreadable=0, source=SOURCE, sha256="g", created="2024-01-02"),),
        ),
        ShardManifest(
            corpus="pets",
            shard=0,
            first=0,
            images=1,
            image_bytes=1,
            source=SOURCE,
            blocks=(BlockManifest(number=0, first=0, images=1, sha256="b"),),
            unreadable=(Unreadable(position=0, reason="broken"),),
        ),
        card(seconds={"fit": 0.1}),
        Training(model=MODEL),
        Run(
            name="r",
            corpus="pets",
            corpus_digest="d",
            model=MODEL,
            threshold=40,
            images=3,
            blocks=2,
            collection="c",
            created="2024-01-01",
            growth="g",
            earlier="q",
        ),
        Publication(change=Change.PUBLISHED, run="r", collection="c", previous="", time="2024-01-01", host="h"),
        BlockRecord(run="r", block=0, state=BlockState.SCORED, kept_by_tag={"cat": 1}),
        Audit(run="r", collection="c", blocks=1, documents=1, sampled=1, problems={3: "lost"}, started="a", ended="b"),
        Claim(dag="d", dag_run="r"),
        Removal(folder="runs/pets-0", number="0a", by="ada", host="here", time="2024-01-01T00:00:00+00:00"),
        ReviewSet(
            run="r",
            corpus="pets",
            corpus_digest="d",
            pictures=(ChosenPicture(position=1, block=0, tag="cat", confidence=70),),
            asked=1,
            by="ann",
            created="2024-01-01",
        ),
        StoredDefinition.of(definition),
        IngestPlan(definition=definition, source=SOURCE),
        GrowthPlan(corpus="pets", number=1, source=SOURCE),
        IngestRefusal(plan_sha256="p", reason="too many are unreadable"),
        NetCard(
            version="net-0",
            height=32,
            width=32,
            dimensions=4,
            scale=0.1,
            arithmetic="int8",
            origin="n.onnx",
            parameters={"seed": 0},
            figures={"AUROC": 0.9},
            created="2024-01-01",
        ),
        EmbeddedBlock(
            corpus="pets", block=0, net="net-0", source_sha256="s", images=3, dimensions=4, sha256="e", seconds=0.1
        ),
        LastTraining(model=MODEL, request={"head": "logistic", "trees": 10}),
        LogPart(corpus="pets", first=1, last=2, words=3, sha256="l"),
        CarriedWords(corpus="pets", corpus_digest="d", upto=2),
        NextPublication(collection="c", thresholds={"cat": 60}, least_precision=80),
        FrameRecord(
            run="r",
            corpus="pets",
            corpus_digest="d",
            model=MODEL,
            tags=("cat",),
            threshold=40,
            scored="s",
            left_out="l",
            strata=(("cat 40-64", "cat", 40, 64, 3),),
            counts={"cat": (0, 3)},
            sha256="f",
        ),
    ]


KINDS = ["Corpus", "ShardManifest", "ModelCard", "Training", "Run", "Publication", "BlockRecord", "Audit", "Claim"]
KINDS += [
    "LastTraining",
    "StoredDefinition",
    "IngestPlan",
    "GrowthPlan",
    "IngestRefusal",
    "NetCard",
    "EmbeddedBlock",
    "LogPart",
    "CarriedWords",
    "NextPublication",
    "FrameRecord",
    "Removal",
    "ReviewSet",
]


@pytest.fixture(params=KINDS)
def record(request, tmp_path):
    return next(sample for sample in samples(tmp_path) if type(sample).__name__ == request.param)


def with_format(storage, path, number):
    """Give a stored record another format, and no checksum; None removes the number."""
    fields = json.loads(storage.read(path))
    fields.pop("format")
    fields.pop(CHECKSUM_KEY)
    storage.write(path, json.dumps({"format": number, **fields} if number else fields).encode())


def made_by_newer(path, number=2, known=1):
    said = rf"{re.escape(path)}: made by a newer TinyTags \(format {number}, this one reads up to {known}\); upgrade"
    return pytest.raises(NewerFormatError, match=said)


# Every record


def test_records_of_every_kind_are_tested_here():
    assert sorted(kind.__name__ for kind in Record.__subclasses__() if kind.__module__ != __name__) == sorted(KINDS)


def test_a_record_says_its_format_first_and_comes_back_equal(storage, record):
    record.save(storage, PATH)
    stored = json.loads(storage.read(PATH))
    fields = [name for name, field in type(record).model_fields.items() if not field.exclude]
    assert list(stored) == ["format", *fields, CHECKSUM_KEY]
    assert stored["format"] == record.written_format
    assert type(record).load(storage, PATH) == record


def edited(stored):
    """Yield a record's JSON with each field but its format changed by itself, well-formed and of the same kind."""
    fields = json.loads(stored)
    for name, value in fields.items():
        if name == "format":
            continue
        if isinstance(value, bool) or value is None:
            changed = "x"
        elif isinstance(value, int | float):
            changed = value + 1
        elif isinstance(value, str):
            changed = f"{value}0"
        elif isinstance(value, list):
            changed = value[:-1] if value else [value]
        else:
            changed = {}
        if changed != value:
            yield name, json.dumps({**fields, name: changed}).encode()


def test_an_edited_record_is_damage_whichever_field_it_is(record):
    fields = list(edited(record.stored()))
    assert len(fields) > 1
    for name, stored in fields:
        with pytest.raises(
            CorruptError, match=rf"{PATH}: (damaged|no usable) .*`tinytags|claims it again|from a copy|to review again"
        ):
            type(record).parse(stored, PATH)
            pytest.fail(f"{name} was changed, and the record was believed")


def test_a_field_that_is_taken_away_or_added_is_damage(record):
    stored = json.loads(record.stored())
    for name in stored:
        if name not in ("format", CHECKSUM_KEY):
            with pytest.raises(CorruptError, match=r"damaged|no usable"):
                type(record).parse(json.dumps({key: stored[key] for key in stored if key != name}).encode(), PATH)
    with pytest.raises(CorruptError, match="their checksum differs"):
        type(record).parse(json.dumps({**stored, "other": 1}).encode(), PATH)


def test_a_byte_that_changes_in_a_record_is_never_believed(record):
    """Each byte in turn: the record is refused, or it says the same as before."""
    stored = record.stored()
    for at in range(len(stored)):
        changed = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
        with suppress(CorruptError, NewerFormatError):
            assert type(record).parse(changed, PATH) == record, f"byte {at}: {stored[max(0, at - 20) : at + 20]!r}"


def test_the_checksum_does_not_depend_on_order_and_spacing_and_covers_fields_of_later_versions(record):
    stored = json.loads(record.stored())
    assert type(record).parse(json.dumps(dict(sorted(stored.items()))).encode(), PATH) == record
    later = {**stored, "field_of_a_later_version": 1}
    later[CHECKSUM_KEY] = record_module._fields_checksum(later)
    assert type(record).parse(json.dumps(later).encode(), PATH) == record


def test_a_record_from_before_there_were_checksums_is_read(record):
    stored = json.loads(record.stored())
    del stored[CHECKSUM_KEY]
    assert type(record).parse(json.dumps(stored).encode(), PATH) == record


def test_a_record_from_before_there_were_formats_is_read(storage, record):
    record.save(storage, PATH)
    with_format(storage, PATH, None)
    assert type(record).load(storage, PATH) == record


def test_a_record_of_a_newer_tinytags_is_refused_with_both_numbers_and_the_remedy(storage, record):
    storage.write(PATH, json.dumps({"format": 7, "fields": "of another time"}).encode())
    with made_by_newer(PATH, 7, type(record).FORMAT) as caught:
        type(record).load(storage, PATH)
    assert isinstance(caught.value, FinalError)
    assert not isinstance(caught.value, CorruptError)


@pytest.mark.parametrize("number", ["two", 0, -1, 1.5, True, None, [], {}])
def test_a_format_that_is_no_number_is_damage(storage, number):
    storage.write(PATH, json.dumps({"format": number, "model": MODEL}).encode())
    if number is None:
        assert Training.load(storage, PATH).model == MODEL
        return
    with pytest.raises(CorruptError, match=r"folder/record.json: damaged \(its format is "):
        Training.load(storage, PATH)


@pytest.mark.parametrize("stored", [b"", b"[]", b"null", b'{"format": 1', b'"format"', b"\xff"])
def test_what_is_no_record_is_damage(storage, stored):
    storage.write(PATH, stored)
    with pytest.raises(CorruptError, match=r"folder/record.json: no usable Training \("):
        Training.load(storage, PATH)


def test_a_new_field_of_a_definition_raises_the_plans_format():
    """A plan contains the whole definition, and an older TinyTags mistakes an unknown field in it for damage."""
    known = {
        1: {
            *("name", "source", "format", "height", "width", "shard_images", "blocks_per_shard", "description"),
            *("pixel_order", "resize", "filter", "image_column", "keywords", "keyword_stop_list"),
            *("most_unreadable_percent", "options"),
            "format_options",  # only written for a format of another package, which an older TinyTags does not know
        }
    }
    assert set(CorpusDefinition.model_fields) == known[IngestPlan.FORMAT]


def test_only_what_hides_something_from_readers_is_kept_from_an_older_tinytags():
    shown = {"change": Change.PUBLISHED, "run": "r", "collection": "c", "previous": "", "time": "t", "host": "h"}
    for plain in (NextPublication(collection="c"), Publication(**shown)):
        assert json.loads(plain.stored())["format"] == 1
        assert type(plain).parse(plain.stored(), PATH) == plain
        hiding = plain.replaced(thresholds={"cat": 45}, least_precision=80)
        assert json.loads(hiding.stored())["format"] == 2
        assert type(plain).parse(hiding.stored(), PATH) == hiding


def test_a_record_of_an_older_format_is_upgraded(storage):
    class Renamed(Record):
        FORMAT = 3
        model: str

        @classmethod
        def remedy(cls, path):
            return "write it again"

        @classmethod
        def upgraded(cls, fields, number):
            return {"model": f"{fields['forest']}-{number}"}

    for number, expected in ((None, "a-1"), (2, "a-2")):
        storage.write(PATH, json.dumps({"format": number, "forest": "a"}).encode())
        assert Renamed.load(storage, PATH) == Renamed(model=expected)
    Renamed(model="b").save(storage, PATH)
    assert Renamed.load(storage, PATH).model == "b"
    with_format(storage, PATH, 4)
    with made_by_newer(PATH, 4, 3):
        Renamed.load(storage, PATH)


# What else the store holds


def test_a_scored_file_of_a_newer_tinytags_is_refused(storage):
    run = make_run(storage)
    score_all(storage, run)
    path = layout.scored_file(run.name, 0)
    table = pq.read_table(storage.root / path)
    for number, refused in ((None, False), (1, False), (2, True)):
        fields = json.loads(table.schema.metadata[RECORD_KEY])
        fields["format"] = number
        fields.pop(CHECKSUM_KEY, None)
        pq.write_table(table.replace_schema_metadata({RECORD_KEY: json.dumps(fields)}), storage.root / path)
        if refused:
            with made_by_newer(path):
                read_scored(storage, run.name, 0)
        else:
            assert read_scored(storage, run.name, 0)[1].kept == table.num_rows


def test_a_listing_of_a_newer_tinytags_is_refused(storage, monkeypatch):
    items = [ListedItem("a", 1, 0, 10, "v", member="m")]
    with monkeypatch.context() as later:
        later.setattr(listing_module, "_FORMAT", 3)
        file = ListingFile(items)
    storage.write(PATH, file.content())
    file.close()
    with made_by_newer(PATH, 3, 2):
        open_listing(storage, PATH)


def test_a_listing_from_before_there_were_formats_is_read(storage):
    file = ListingFile([ListedItem("a", 1, 0, 10, "v")])
    storage.write(PATH, file.content())
    file.close()
    table = pq.read_table(storage.root / PATH)
    pq.write_table(table.replace_schema_metadata({"images": "1"}), storage.root / PATH)
    assert [item.path for _, item in open_listing(storage, PATH).items(0, 1)] == ["a"]


# Nothing from a newer TinyTags is overwritten or mistaken for damage


def test_a_newer_ledger_is_neither_failed_nor_scored_over(storage):
    run = make_run(storage)
    score_all(storage, run)
    path = layout.ledger_file(run.name, 0)
    with_format(storage, path, 2)
    before = files_under(storage.root)
    with made_by_newer(path):
        read_ledger(storage, run)
    for redo in (False, True):
        request = ScoreRequest(run.name, tuple(range(BLOCKS)), redo=redo)
        with pytest.raises(FinalError, match="made by a newer TinyTags"):
            score_blocks(request, storage=storage, address=address_of(storage), connect_spark=SparkHere(), report=quiet)
        newer = (path, layout.scored_file(run.name, 0))
        assert {name: files_under(storage.root)[name] for name in newer} == {name: before[name] for name in newer}


def test_a_newer_manifest_is_not_called_damage_and_a_newer_plan_not_replaced(storage, tmp_path):
    make_run(storage)
    manifest = layout.shard_manifest_file(CORPUS, 0)
    with_format(storage, manifest, 2)
    with made_by_newer(manifest):
        verify_corpus(CORPUS, storage=storage, files=None)
    path = layout.ingest_plan_file(CORPUS)
    definition = IngestPlan.load(storage, path).definition
    with_format(storage, path, 2)
    before = files_under(storage.root)
    with made_by_newer(path):
        plan_ingestion(IngestRequest(definition), storage=storage, files=SourceFiles(definition.source), report=quiet)
    assert files_under(storage.root) == before


# What a person sees


def test_at_the_command_line_it_is_one_line_and_exit_code_2(storage, monkeypatch, capsys):
    path = layout.card_file(MODEL)
    card().save(storage, path)
    with_format(storage, path, 2)
    monkeypatch.setattr(models_commands, "clients", lambda: SimpleNamespace(storage=storage))
    monkeypatch.setattr(sys, "argv", ["tinytags", "models", "show", MODEL])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"tinytags: error: {path}: made by a newer TinyTags (format 2, this one reads up to 1); upgrade this TinyTags "
        "to the version that wrote it, or a later one\n"
    )
