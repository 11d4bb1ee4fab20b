"""Every format's listing and reader, in one place."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.cifar_pickle import CifarPickleReader, list_cifar_pickle
from tinytags_tasks.corpus.formats.encoded import EncodedReader, list_folder, list_webdataset
from tinytags_tasks.corpus.formats.fixed_records import FixedRecordsReader, list_fixed_records
from tinytags_tasks.corpus.formats.parquet import ParquetReader, list_parquet
from tinytags_tasks.corpus.reader import ListedItem, Listing, Reader
from tinytags_tasks.corpus.sources.files import SourceFiles


@dataclass(frozen=True)
class _Format:
    list_items: Callable[[SourceFiles, CorpusDefinition], Iterator[ListedItem]]
    open_reader: Callable[[CorpusDefinition, SourceFiles, Listing], Reader]


_FORMATS = {
    "tiny-images": _Format(list_fixed_records, FixedRecordsReader),
    "raw": _Format(list_fixed_records, FixedRecordsReader),
    "cifar-binary": _Format(list_fixed_records, FixedRecordsReader),
    "cifar-pickle": _Format(list_cifar_pickle, CifarPickleReader),
    "folder": _Format(list_folder, EncodedReader),
    "parquet": _Format(list_parquet, ParquetReader),
    "webdataset": _Format(list_webdataset, EncodedReader),
}


def list_items(files: SourceFiles, definition: CorpusDefinition) -> Iterator[ListedItem]:
    """Yield what a source holds, in the order of the positions.

    Raises
    ------
    BadInputError
        When the source is not of the definition's format: which file, where.
    """
    return _FORMATS[definition.format].list_items(files, definition)


def open_reader(definition: CorpusDefinition, files: SourceFiles, listing: Listing) -> Reader:
    """Return a reader of what was listed."""
    return _FORMATS[definition.format].open_reader(definition, files, listing)
