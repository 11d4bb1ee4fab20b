"""The keywords of a block: read with its documents, and proved to be those that were ingested."""

import hashlib
from dataclasses import replace

import pytest
from small_run import BLOCKS, CORPUS, KEYWORDS, make_corpus, write_keywords

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import KeywordsReader, block_sources
from tinytags_tasks.store.local import LocalStorage


def keyword_sources(storage):
    corpus = make_corpus(storage, keywords=KEYWORDS)
    return block_sources(storage, corpus, range(BLOCKS))


def test_keywords_are_read_block_by_block_and_each_file_once(storage):
    class CountsReads(LocalStorage):
        reads = ()

        def read(self, path, *arguments):
            self.reads = (*self.reads, path)
            return super().read(path, *arguments)

    sources = keyword_sources(storage)
    counting = CountsReads(storage.root)
    reader = KeywordsReader(counting)
    found = [reader.read(source) for source in sources]
    assert [len(keywords) for keywords in found] == [2, 2, 2, 1, 2, 2]
    assert [keyword for keywords in found for keyword in keywords] == list(KEYWORDS)
    assert counting.reads == (layout.keywords_file(CORPUS, 0), layout.keywords_file(CORPUS, 1))


def test_a_corpus_without_keywords_gives_none(storage):
    (source,) = block_sources(storage, make_corpus(storage), [0])
    assert KeywordsReader(storage).read(source) is None


def test_keywords_that_went_away_are_missed_with_the_remedy(storage):
    sources = keyword_sources(storage)
    storage.delete(layout.keywords_file(CORPUS, 1))
    reader = KeywordsReader(storage)
    assert reader.read(sources[0]) == list(KEYWORDS[:2])
    with pytest.raises(MissingError, match=r"00001\.keywords\.parquet: .* ingest the corpus again"):
        reader.read(sources[3])


def test_keywords_that_are_not_what_was_ingested_are_corrupt(storage):
    sources = keyword_sources(storage)
    write_keywords(storage, 0, KEYWORDS[1:7])
    with pytest.raises(CorruptError, match=r"00000\.keywords\.parquet: .*`tinytags ingest pets --redo 0`"):
        KeywordsReader(storage).read(sources[0])


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1"])
def test_a_file_that_holds_no_keywords_is_corrupt(storage, content):
    sources = keyword_sources(storage)
    storage.write(layout.keywords_file(CORPUS, 0), content)
    source = replace(sources[0], keywords_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(CorruptError, match=r"00000\.keywords\.parquet: no keywords file"):
        KeywordsReader(storage).read(source)


def test_keywords_that_end_before_a_block_does_are_corrupt(storage):
    sources = keyword_sources(storage)
    source = replace(sources[2], keywords_sha256=write_keywords(storage, 0, KEYWORDS[:5]))
    with pytest.raises(CorruptError, match="has 5 keywords, too few for block 2"):
        KeywordsReader(storage).read(source)
