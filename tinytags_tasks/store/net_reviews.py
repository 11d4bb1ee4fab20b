"""What a net learned from people's words."""

from tinytags_tasks.store.record import Part


class NetReviews(Part):
    """The words on one version of a corpus that a net was fine-tuned with.

    Attributes
    ----------
    corpus, corpus_digest
        The corpus' name and the version's digest.
    upto
        The number of the last request of its review log that was read.
    words
        How many pictures were said to show one of the tags, or none of them.
    weight
        How many times as often as a labelled picture each of them was drawn.
    tags
        The tags that were taught.
    of_tags, none
        How many pictures were said to show each of them, and how many to show none.
    other_tags
        Tags that people named and that were not taught, each with the number of pictures.
    positions_sha256
        Hash of the pictures' positions, see :func:`tinytags_tasks.store.lessons.positions_sha256`.
    """

    corpus: str
    corpus_digest: str
    upto: int
    words: int
    weight: int
    tags: tuple[str, ...]
    of_tags: tuple[int, ...]
    none: int
    other_tags: dict[str, int]
    positions_sha256: str

    def __str__(self) -> str:
        """Return it in words."""
        of_tags = [f"{tag} {count:,}" for tag, count in zip(self.tags, self.of_tags, strict=True)]
        shown = ", ".join([*of_tags, f"none {self.none:,}"])
        return (
            f"{self.words:,} pictures of corpus {self.corpus} (up to request {self.upto}): {shown}; each was drawn "
            f"{self.weight} times as often as a labelled one"
        )
