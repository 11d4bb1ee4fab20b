"""Records of nets, and of the embeddings that they made of a corpus' blocks."""

from tinytags_tasks.store import layout
from tinytags_tasks.store.net_reviews import NetReviews
from tinytags_tasks.store.record import Record


class NetCard(Record):
    """A net: an ONNX graph that turns a picture into an embedding of whole numbers, -127 to 127.

    Attributes
    ----------
    version
        Its name and the hash of its file.
    height, width
        The pictures that it takes, in pixels; others are resized inside the graph.
    dimensions
        How many numbers an embedding has.
    scale
        An embedding's whole numbers times this are the net's own output.
    arithmetic
        ``int8`` or ``float32``.
    origin
        Where it came from: a file and its sha256, or "ships with TinyTags".
    preparation
        How the pictures were prepared that it learned from; empty if that is not known.
    licence
        The terms of what it learned from.
    data
        What it learned from.
    background_sha256, background_images, background_classes
        Its background's hash and counts; empty and 0 if it has none.
    parameters
        How it was made or imported.
    figures
        What was measured, by name.
    reviews
        The words that it was fine-tuned with, and those that the net before it was; empty if there were none.
    """

    version: str
    height: int
    width: int
    dimensions: int
    scale: float
    arithmetic: str
    origin: str
    preparation: str = ""
    licence: str = ""
    data: tuple[str, ...] = ()
    background_sha256: str = ""
    background_images: int = 0
    background_classes: int = 0
    parameters: dict[str, int | float | str]
    figures: dict[str, float]
    reviews: tuple[NetReviews, ...] = ()
    created: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the commands that write a net's card again."""
        return "import or train the same net again with `tinytags nets import` or `tinytags nets train`"


class EmbeddedBlock(Record):
    """What a file of embeddings holds; the record is kept in the file's metadata.

    Attributes
    ----------
    corpus, block, net
        Whose embeddings by which net.
    source_sha256
        Hash of the block's bytes in its shard: if the shard changes, the embeddings are made again.
    images, dimensions
        Their shape.
    sha256
        Hash of the embeddings, int8, row by row.
    seconds, host, embedded
        How long they took, where and when.
    """

    corpus: str
    block: int
    net: str
    source_sha256: str
    images: int
    dimensions: int
    sha256: str
    seconds: float = 0.0
    host: str = ""
    embedded: str = ""

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that makes a block's embeddings again."""
        net = path.split("/")[-2] if "/" in path else path
        block = layout.path_number(path)
        return f"make it again with `tinytags embed {layout.path_name(path)} --net {net} --blocks {block} --redo`"
