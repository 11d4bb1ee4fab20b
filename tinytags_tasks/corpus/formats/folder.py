"""A folder of picture files."""

from collections.abc import Iterator

from tinytags_tasks.corpus.formats.base import Definition, Guess, Sample
from tinytags_tasks.corpus.formats.encoded import Encoded, EncodedReader
from tinytags_tasks.corpus.picture_kinds import ENDINGS, MORE_KINDS, kind_of
from tinytags_tasks.corpus.reader import ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError


class Folder(Encoded):
    """Picture files of a folder and its subfolders; a keyword is the name of the first folder on a file's path."""

    name = "folder"
    recognised_by = f"JPEG, PNG, WebP, {MORE_KINDS}"
    endings = ENDINGS
    keywords = ("folder",)

    def possible_keywords(self, files: SourceFiles) -> tuple[str, ...]:
        """See :meth:`Format.possible_keywords`: the listing alone says whether there are folders."""
        return ()

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`: a picture's name is enough, for a broken one is still no other format."""
        return Guess() if self.has_name(sample.file.path) or kind_of(sample.head) else None

    def list_items(self, files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
        """See :meth:`Format.list_items`: a file is an image."""
        images = in_folders = 0
        for file in files.files(*self.endings):
            images += 1
            in_folders += "/" in file.path
            folder, inside, _ = file.path.partition("/")
            keyword = folder if definition.keywords and inside else None
            yield ListedItem(file.path, 1, 0, file.size_bytes, file.version, keyword)
        if not images:
            raise BadInputError(
                f"{files.source}: holds no picture, no file that ends in {', '.join(self.endings)}; correct the "
                f"corpus' source or format{files.left_out}"
            )
        if definition.keywords and not in_folders:
            raise BadInputError(
                f"{files.source}: none of its {images:,} pictures is in a folder whose name would be the keyword; "
                "name the folder above, or leave keywords out"
            )

    def open_reader(self, definition: Definition, files: SourceFiles, listing: Listing) -> EncodedReader:
        """See :meth:`Format.open_reader`."""
        return EncodedReader(definition, files, listing)
