"""CIFAR's label names, which are in a file in the folder of the images; for both the binary and the Python version.

Format: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from tinytags_tasks.corpus.class_names import CIFAR10_TAGS
from tinytags_tasks.corpus.formats.inert_pickle import load_inert
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

_CIFAR100_FILES = ("train", "test", "train.bin", "test.bin")

_NAME_FILES = {
    "labels": (("batches.meta", "label_names"), ("batches.meta.txt", "")),
    "fine_labels": (("meta", "fine_label_names"), ("fine_label_names.txt", "")),
    "coarse_labels": (("meta", "coarse_label_names"), ("coarse_label_names.txt", "")),
}
"""The files that may name the labels: a pickle with its field, or a text with one name per line."""


def cifar_label_names(files: SourceFiles, column: str) -> tuple[str, ...]:
    """Return the names of CIFAR's labels, in the order of the labels.

    Parameters
    ----------
    files
        The source: CIFAR-10 or CIFAR-100, in the binary or the Python version.
    column
        ``label``, or CIFAR-100's ``coarse_label``.

    Returns
    -------
    tuple of str
        As a file in the same folder names them; without one, CIFAR-10's own names, and none for CIFAR-100.

    Raises
    ------
    BadInputError
        If the file with the names is damaged.
    """
    paths = [file.path for file in files.files()]
    of_images = [path for path in paths if base_name(path) in _CIFAR100_FILES] or paths
    field = "labels" if of_images is paths else "fine_labels"
    return label_names_of(files, of_images[0], "coarse_labels" if column == "coarse_label" else field)


def base_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def label_names_of(files: SourceFiles, path: str, field: str) -> tuple[str, ...]:
    """Return the names of one field of labels, in the order of the labels.

    Parameters
    ----------
    files
        The source's.
    path
        A file with images; the names are in a file of the same folder.
    field
        ``labels``, ``fine_labels`` or ``coarse_labels``.

    Raises
    ------
    BadInputError
        If the file with the names is damaged.
    """
    folder = path[: -len(base_name(path))]
    for name, names_field in _NAME_FILES[field]:
        try:
            file = files.current(folder + name)
        except BadInputError:
            continue  # most copies have only one of them
        where = files.name(file.path)
        content = files.read(file.path, 0, file.size_bytes)
        if names_field:
            names = pickled_field(load_inert(content, where), names_field)
            if not isinstance(names, list) or not all(isinstance(word, bytes | str) for word in names):
                raise BadInputError(f"{where}: has no list {names_field}; download it again")
            return tuple(word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in names)
        return tuple(filter(None, map(str.strip, content.decode("utf-8", "replace").splitlines())))
    return CIFAR10_TAGS if field == "labels" else ()


def pickled_field(pickled: object, name: str) -> object:
    """Return a value of a dictionary whose keys are text, or bytes if Python 2 wrote them."""
    return pickled.get(name.encode(), pickled.get(name)) if isinstance(pickled, dict) else None
