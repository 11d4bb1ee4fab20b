"""What a document shows is declared once: the schema, what is indexed and what people see follow from it."""

import hashlib
import re
import xml.etree.ElementTree as ET

import pytest
from read_javabin import read_documents
from small_run import BLOCKS, CORPUS, KEYWORDS, SolrHere, index_all, make_run, score_all
from small_words import say, tag

from tinytags_tasks.document_fields import (
    FIELDS,
    FIRST_CHECKSUM_FIELDS,
    PICTURE_FIELDS,
    PIXEL_FIELDS,
    VECTOR_FIELD,
    Shown,
    describe,
    document_field,
    solr_names,
    values_as_json,
)
from tinytags_tasks.index.documents import document_bodies
from tinytags_tasks.search.counts import FACETS
from tinytags_tasks.search.cursor import order_of
from tinytags_tasks.search.images import read_fields
from tinytags_tasks.search.query import solr_parameters
from tinytags_tasks.search.request import SearchRequest, Sort
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import (
    compared_fields,
    documents_checksum,
    expected_checksum,
    first_checksum,
)
from tinytags_tasks.store.block_files import (
    SCHEMA,
    KeywordsReader,
    block_sources,
    read_pixels,
    read_scored,
)
from tinytags_tasks.store.configsets import CONFIGSET_FOLDER
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.run_blocks import RunBlocks

OF_SOLR = {"_version_"}
"""Fields of the schema that are Solr's own."""

FIRST_VERSION = {"id", "tag", "confidence", "votes", "block", "position", "model", "corpus", "shard", "data"}
"""Fields that every collection has, however old."""

FOUNDING = FIRST_VERSION | {"keyword", "width"}
"""Fields of the collections whose documents are pinned here."""


@pytest.fixture
def scored(storage):
    run = make_run(storage, keywords=KEYWORDS)
    score_all(storage, run)
    return run


def test_the_schema_declares_each_document_field_and_no_other() -> None:
    def flags(element: ET.Element) -> dict[str, object]:
        names = ("indexed", "stored", "docValues", "required", "multiValued")
        is_set = {flag: element.get(flag, "false") == "true" for flag in names}
        return {"type": element.get("type"), **is_set}

    schema = ET.parse(CONFIGSET_FOLDER / "schema.xml").getroot()
    in_schema = {str(field.get("name")): flags(field) for field in schema.iter("field")}
    declared = {
        field.solr_name: {
            "type": field.type,
            "indexed": field.is_searchable,
            "stored": field.is_stored,
            "docValues": field.is_countable,
            "required": field.is_required,
            "multiValued": field.is_multivalued,
        }
        for field in FIELDS
    }
    assert {name: found for name, found in in_schema.items() if name not in OF_SOLR} == declared


def test_each_document_field_is_filled_and_no_other(storage, scored) -> None:
    solr = SolrHere()
    say(storage, tag(0, "yak"))
    index_all(storage, scored, solr)
    documents = list(solr.documents(scored.collection).values())
    filled = {field.solr_name for field in FIELDS} - {VECTOR_FIELD}  # a run of a model on pixels has none
    assert {name for document in documents for name in document} == filled
    required = {field.solr_name for field in FIELDS if field.is_required}
    assert all(required <= document.keys() for document in documents)


def test_a_field_without_a_value_is_absent_and_others_read_as_what_they_are() -> None:
    document = {"accuracy": 70, "position": "17", "tag": "cat"}
    assert document_field("confidence").read(document) == 70
    assert document_field("position").read(document) == 17
    assert document_field("tag").read(document) == "cat"
    assert document_field("keyword").read(document) is None
    with pytest.raises(KeyError):
        document_field("votes").read(document)


def test_a_field_that_older_collections_lack_is_marked_as_later_and_never_required() -> None:
    later = {field.name for field in FIELDS if field.is_later}
    assert later == {field.name for field in FIELDS} - FIRST_VERSION
    assert not [field.name for field in FIELDS if field.is_later and field.is_required]


def test_every_field_that_is_shown_says_what_it_means() -> None:
    for field in FIELDS:
        assert field.meaning.endswith("."), field.name
        assert field.shown or field.name in ("shard", "word", "shuffle", "width", *PICTURE_FIELDS), field.name


def test_names_are_unique_and_no_alias_is_another_fields_name() -> None:
    names = [name for field in FIELDS for name in (field.name, field.alias) if name]
    assert len(set(names)) == len(names)


def test_searches_filter_sort_and_count_only_by_fields_that_allow_it() -> None:
    by_solr_name = {field.solr_name: field for field in FIELDS}
    asked = solr_parameters(SearchRequest(tags=("cat",), min_confidence=50, block=1, keyword="tabby"))
    filters = " ".join(str(each) for each in asked["fq"])
    filtered = re.findall(r"f=(\w+)|}(\w+):", filters)
    assert len(filtered) == len(asked["fq"]) == 4
    assert all(by_solr_name[one or other].is_searchable for one, other in filtered)
    sorted_by = {name for sort in Sort for name in order_of(SearchRequest(sort=sort)).fields}
    counted = {facet.field for facet in FACETS.values()}
    assert all(by_solr_name[name].is_countable for name in sorted_by | counted)


def test_a_search_reads_what_is_shown_and_pixels_only_when_asked_for() -> None:
    shown = {field.solr_name for field in FIELDS if field.shown}
    assert set(read_fields(with_pixels=False)) == shown
    assert set(read_fields(with_pixels=True)) == shown | set(PIXEL_FIELDS)


def test_values_are_written_for_people_and_for_programs() -> None:
    values = {"tag": "cat", "confidence": 70, "votes": 1, "block": 3_999, "position": 12_345, "keyword": None}
    assert [words for _, words in describe(values, Shown.CARDS)] == ["1 vote", "block 3999", "image 12,345"]
    assert document_field("votes").say(7) == "7 votes"
    assert document_field("confidence").say(70) == "70 %"
    written = values_as_json(values)
    assert written["keyword"] is None
    assert written["confidence"] == written["accuracy"] == 70  # the old name, for programs that read it


def test_scored_columns_keep_their_names_on_disk() -> None:
    assert SCHEMA.names == ["position", "tag", "votes", "accuracy"]


def test_bytes_sent_to_solr_and_checksums_are_those_of_every_earlier_version(storage, scored) -> None:
    """Otherwise every verified block of every run would differ from its record, and be indexed again."""
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    keywords = KeywordsReader(storage)
    model = "forest-0123456789ab"
    sent = hashlib.sha256()
    checksums = []
    for source in block_sources(storage, corpus, range(BLOCKS)):
        table, _ = read_scored(storage, scored.name, source.block)
        for body in document_bodies(
            table, source, read_pixels(storage, source), model, keywords.read(source), FOUNDING
        ):
            sent.update(body)
        checksums.append(first_checksum(table, CORPUS, model))
    assert solr_names(FIRST_CHECKSUM_FIELDS) == ("id", "tag", "votes", "accuracy", "model")
    assert sent.hexdigest() == "b480835c4f4f3436e10bcebf3ba07ac2f2ea8990a07c4c2ddf36acfaef34b855"
    assert checksums[0] == "14bac2ded9fe73826b4c87c3a2976386030ee65c08277264d3bf35a100f46fcf"
    together = hashlib.sha256("".join(checksums).encode()).hexdigest()
    assert together == "040ebc11fe866a1805c6b966e281b32a9f1586e282d57afedc5097feb843ba96"


def test_what_is_posted_is_what_verification_expects(storage, scored) -> None:
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    keywords = KeywordsReader(storage)
    say(storage, tag(0, "yak"), tag(3, "dog"))
    blocks = RunBlocks(scored, corpus, storage)
    every_field = {field.solr_name for field in FIELDS}
    for fields in (
        every_field,
        *(every_field - {name} for name in ("corrected", "width", "shuffle", "word", "keyword")),
    ):
        compared = set(compared_fields(fields))
        for source in block_sources(storage, corpus, range(BLOCKS)):
            table = blocks.read(source.block).table
            words = keywords.read(source)
            bodies = document_bodies(table, source, read_pixels(storage, source), "forest-0123456789ab", words, fields)
            posted = [document for body in bodies for document in read_documents(body)]
            posted = [{name: document[name] for name in compared & set(document)} for document in posted]
            expected = expected_checksum(table, source, "forest-0123456789ab", words, fields)
            assert documents_checksum(posted) == expected
    assert compared | {"keyword", *PICTURE_FIELDS} == every_field
