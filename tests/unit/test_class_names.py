"""Where a model's tags come from: each class of a labelled set is called what its owner calls it, or is asked for."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tinytags_tasks.corpus.class_names import HUB_KEY, TAGS_KEY, given_tags
from tinytags_tasks.corpus.labelled import (
    file_sha256,
    place_of,
    refuse_missing,
    refuse_other_classes,
    refuse_unnamed,
    tags_of_set,
)
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.tags import LONGEST_TAG
from tinytags_tasks.train.encoded_pictures import read_encoded, sample_pictures
from tinytags_tasks.train.images import read_labelled, read_labels, read_other, read_rows

ASK = r"its labels are numbers without names; name them with --tags \(Tags in the Dag's form\)"


def picture(seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture(seed)).save(sink, "PNG")
    return sink.getvalue()


def hub(**names: list[str]) -> dict[bytes, str]:
    """Return the metadata that the Hugging Face Hub's library writes for columns of ClassLabel."""
    features = {column: {"names": words, "_type": "ClassLabel"} for column, words in names.items()}
    return {HUB_KEY: json.dumps({"info": {"features": features}})}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a Parquet file with one picture for each label."""

    def write_file(labels, column="label", image="image", *, plain=False, metadata=None, name="mine.parquet"):
        pictures = [png(number) for number in range(len(labels))]
        structs = pa.array([{"bytes": each, "path": None} for each in pictures], pa.struct([("bytes", pa.binary())]))
        table = pa.table({image: pa.array(pictures, pa.binary()) if plain else structs, column: labels})
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(metadata), path)
        return path

    return write_file


@pytest.mark.parametrize("image", ["image", "img", "photo"])
@pytest.mark.parametrize("plain", [True, False])
def test_the_hubs_names_are_the_tags_whatever_the_column_of_pictures_is_called(write, image, plain):
    found = read_labelled(write([1, 0, 1], image=image, plain=plain, metadata=hub(label=["cat", "dog"])), None, 8, 8)
    assert (found.tags, found.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
    np.testing.assert_array_equal(found.images, [picture(0), picture(1), picture(2)])


@pytest.mark.parametrize("metadata", [None, {HUB_KEY: "{}"}, {HUB_KEY: "no JSON"}, hub(other=["a"]), hub(label=[])])
def test_numbers_without_names_are_asked_for_and_never_become_cifars(write, metadata):
    path = write([0, 1], metadata=metadata)
    for read in (tags_of_set, refuse_unnamed, lambda path: read_labels(path, None), read_encoded):
        with pytest.raises(BadInputError, match=rf"mine\.parquet: {ASK}"):
            read(path)
    assert read_labelled(path, ("cat", "dog"), 8, 8).tags == ("cat", "dog")
    assert len(sample_pictures(path, 10, 8, 8)) == 2  # for calibrating a net, which needs no names


@pytest.mark.parametrize("name", ["cifar10-train.parquet", "CIFAR_10/train.parquet"])
def test_cifars_own_files_have_cifars_names(write, name):
    assert tags_of_set(write([0, 1], name=name))[:2] == ("airplane", "automobile")
    with pytest.raises(BadInputError, match=ASK):
        tags_of_set(write([0, 1], name=name.replace("10", "100")))


def test_words_are_tags_in_their_order_and_case_and_unicode_make_no_difference(write):
    path = write([" dog", "cat", "cafe\u0301", "dog"])
    found = read_labelled(path, None, 8, 8)
    assert (found.tags, found.labels.tolist()) == (("café", "cat", "dog"), [2, 1, 0, 2])
    assert read_labelled(path, ("Dog", "CAT", "café"), 8, 8).labels.tolist() == [0, 1, 2, 0]
    assert read_other(path, ("cat", "emu"), 8, 8).labels.tolist() == [-1, 0, -1, -1]
    with pytest.raises(BadInputError, match=r"mine\.parquet: row 2: its class café is none of the tags cat, dog"):
        read_labelled(path, ("cat", "dog"), 8, 8)
    with pytest.raises(BadInputError, match=r"mine\.parquet: row 1 has no label"):
        read_labelled(write(["dog", " "]), None, 8, 8)
    with pytest.raises(BadInputError, match=r"'Cat' and 'cat' are the same tag"):
        read_labelled(write(["Cat", "cat"]), None, 8, 8)


def test_dictionaries_are_words_and_a_single_classlabel_is_the_label(write):
    assert tags_of_set(write(pa.array(["b", "a"]).dictionary_encode())) == ("a", "b")
    assert tags_of_set(write([0, 1], "labels", metadata=hub(labels=["a", "b"]))) == ("a", "b")
    with pytest.raises(BadInputError, match=r"needs a column label of integers or words; has \['image', 'kind'\]"):
        tags_of_set(write([0, 1], "kind"))


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.float64(), pa.bool_()])
def test_other_labels_are_refused_with_their_type(write, kind):
    labels = pa.array([None, None], kind)
    with pytest.raises(BadInputError, match=r"needs a column label of integers or words; its column label is"):
        tags_of_set(write(labels))


def test_images_without_a_label_are_counted_and_left_out_and_rows_stay_those_of_the_file(write):
    path = write([-1, 1, -1, 0], metadata=hub(label=["cat", "dog"]))
    found = read_labelled(path, None, 8, 8)
    assert (found.labels.tolist(), found.unlabelled) == ([1, 0], 2)
    np.testing.assert_array_equal(found.images, [picture(1), picture(3)])
    assert read_labels(path, None)[1:] == (pytest.approx([1, 0]), 2)
    np.testing.assert_array_equal(read_rows(path, np.array([1]), 8, 8), [picture(3)])
    assert [len(part) for part in read_encoded(path)[:2]] == [2, 2]
    assert read_other(path, ("cat", "dog"), 8, 8).labels.tolist() == [-1, 1, -1, 0]
    with pytest.raises(BadInputError, match=r"mine\.parquet: no image has a label \(all are -1\)"):
        read_labelled(write([-1, -1], metadata=hub(label=["cat", "dog"])), None, 8, 8)


def test_a_broken_picture_after_rows_without_a_label_is_named_by_its_own_row(write, tmp_path):
    path = write([-1, 0, 1], plain=True, metadata=hub(label=["cat", "dog"]))
    table = pq.read_table(path)
    pictures = pa.array([png(0), png(1), b"no picture"])
    pq.write_table(table.set_column(0, "image", pictures), path)
    with pytest.raises(BadInputError, match=r"mine\.parquet: row 2: .*; repair the picture or remove the row"):
        read_labelled(path, None, 8, 8)


def test_a_test_set_with_names_in_another_order_is_read_by_name(write):
    path = write([0, 1, 2], metadata=hub(label=["emu", "Dog", "cat"]))
    assert read_labelled(path, ("cat", "dog", "emu"), 8, 8).labels.tolist() == [2, 1, 0]
    assert read_other(path, ("cat", "dog"), 8, 8).labels.tolist() == [-1, 1, 0]
    assert read_labelled(path, ("un", "deux", "trois"), 8, 8).labels.tolist() == [0, 1, 2]  # named in another language
    with pytest.raises(BadInputError, match=r"row 0: its class emu is none of the tags cat, dog; correct it"):
        read_labelled(path, ("cat", "dog"), 8, 8)
    with pytest.raises(BadInputError, match=r"has 3 classes, emu, Dog, cat, and none is one of the 2 tags un, deux"):
        read_labelled(path, ("un", "deux"), 8, 8)
    with pytest.raises(BadInputError, match=r"none of its classes emu, Dog, cat is one of the tags un, deux, trois"):
        refuse_other_classes(path, ("un", "deux", "trois"))
    refuse_other_classes(path, ("cat", "gnu", "yak"))


def test_a_label_beyond_the_names_is_told_with_its_row(write):
    path = write([0, 1, 2], metadata=hub(label=["cat", "dog"]))
    with pytest.raises(
        BadInputError,
        match=r"mine\.parquet: row 2 has label 2, but there are 2 tags .*; correct it, or give as many tags",
    ):
        read_labelled(path, None, 8, 8)


def test_a_folder_of_parquet_files_is_one_set(write, tmp_path):
    for number, labels in enumerate(([0, 1], [1, 0, 1])):
        write(labels, metadata=hub(label=["cat", "dog"]), name=f"set/train-0000{number}.parquet")
    folder = tmp_path / "set"
    (folder / "_SUCCESS").touch()
    found = read_labelled(folder, None, 8, 8)
    assert (found.tags, found.labels.tolist()) == (("cat", "dog"), [0, 1, 1, 0, 1])
    assert place_of(folder, 3) == f"{folder / 'train-00001.parquet'}: row 1"
    before = file_sha256(folder)
    write([0, 0, 1], metadata=hub(label=["cat", "dog"]), name="set/train-00001.parquet")
    assert file_sha256(folder) != before
    write([0, 1], metadata={TAGS_KEY: json.dumps(["dog", "cat"])}, name="set/train-00002.parquet")
    with pytest.raises(BadInputError, match=r"set: its files name the classes differently \(cat, dog, and dog, cat\)"):
        tags_of_set(folder)


def test_partitions_of_a_table_are_tags(write, tmp_path):
    write([1, 1], "size", name="set/label=cat/part-0.parquet")
    write([1], "size", name="set/label=dog/part-0.parquet")
    found = read_labelled(tmp_path / "set", None, 8, 8)
    assert (found.tags, found.labels.tolist()) == (("cat", "dog"), [0, 0, 1])


def test_a_training_set_beside_its_test_set_is_refused(write, tmp_path):
    for part in ("train", "test"):
        write(["cat", "dog"], name=f"set/{part}-0.parquet")
    with pytest.raises(BadInputError, match=r"set: holds files of several sets \(test, train\); put each set in"):
        read_labelled(tmp_path / "set", None, 8, 8)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("cat/1.png", "dog/old/2.png")):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(png(number))
    return tmp_path / "set"


def test_a_half_published_folder_is_refused(folder):
    assert tags_of_set(folder) == ("cat", "dog")
    (folder / "emu").mkdir()
    with pytest.raises(BadInputError, match=r"set/emu: holds no pictures that can be read; put some in, or remove"):
        tags_of_set(folder)
    (folder / "emu").rmdir()
    (folder / "_temporary").mkdir()
    for read in (file_sha256, tags_of_set, lambda path: read_labels(path, ("cat", "dog"))):
        with pytest.raises(BadInputError, match=r"_temporary: the set is still being written; wait until it is"):
            read(folder)


def test_a_half_published_table_is_refused(write, tmp_path):
    write(["cat", "dog"], name="set/part-0.parquet")
    (tmp_path / "set" / "_temporary").mkdir()
    with pytest.raises(BadInputError, match=r"_temporary: the set is still being written"):
        tags_of_set(tmp_path / "set")


def test_what_file_systems_keep_is_no_empty_tag_and_a_table_beside_pictures_is_none(folder, write):
    for name in ("@eaDir", ".cache", "__MACOSX"):
        (folder / name).mkdir()
    write(["x", "y"], name="set/metadata.parquet")
    assert tags_of_set(folder) == ("cat", "dog")


def test_folders_of_parts_are_no_tags(tmp_path):
    for part in ("train", "test"):
        (tmp_path / "parts" / part).mkdir(parents=True)
        (tmp_path / "parts" / part / "1.png").write_bytes(png(1))
    with pytest.raises(
        BadInputError, match=r"parts: its folders are parts of a set \(test, train\), not tags; give one"
    ):
        tags_of_set(tmp_path / "parts")


def test_folders_written_in_two_forms_are_one_tag_and_in_two_cases_are_refused(folder):
    (folder / "cafe\u0301").mkdir()
    (folder / "cafe\u0301" / "3.png").write_bytes(png(3))
    assert tags_of_set(folder) == ("café", "cat", "dog")
    assert read_labelled(folder, ("dog", "Cat", "café"), 8, 8).labels.tolist() == [2, 1, 0]
    (folder / "Dog").mkdir()
    (folder / "Dog" / "4.png").write_bytes(png(4))
    with pytest.raises(BadInputError, match=r"'Dog' and 'dog' are the same tag .*; give each class a name of its own"):
        tags_of_set(folder)


def test_a_set_that_is_missing_is_told_before_another_is_read(folder, tmp_path):
    refuse_missing(str(folder), None)
    with pytest.raises(BadInputError, match=r"gone\.parquet: no such file"):
        refuse_missing(str(folder), str(tmp_path / "gone.parquet"))


def test_tags_are_given_as_a_list_or_as_a_file(tmp_path):
    assert given_tags("cat, dog") == (("cat", "dog"), [])
    assert given_tags("cat\ncrane, bird") == (("cat", "crane, bird"), [])
    assert given_tags(" cat,dog\n") == (("cat", "dog"), [])
    names = tmp_path / "names.txt"
    names.write_text("\ufeffcat\ncrane, bird\ncafe\u0301\n\n", encoding="utf-8")
    assert given_tags(str(names)) == (("cat", "crane, bird", "café"), [])


def test_names_that_come_again_are_numbered_and_told():
    tags, remarks = given_tags("crane,cat,Crane,crane 2,crane")
    assert tags == ("crane", "cat", "Crane 3", "crane 2", "crane 4")
    assert remarks == [
        "tags: Crane comes again (label 2), and becomes the tag 'Crane 3'",
        "tags: crane comes again (label 4), and becomes the tag 'crane 4'",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("cat,,dog", "tags: '' is not a tag: a tag has 1 to 100 printable characters"),
        ("cat,d\tog", r"tags: 'd\\tog' is not a tag"),
        ("cat,\x07", r"tags: '\\x07' is not a tag"),
        (f"cat,{'d' * (LONGEST_TAG + 1)}", "is not a tag: a tag has 1 to 100 printable characters"),
        ("cat", "tags are 'cat': give two or more names with commas between, or a file"),
        ("none-there.txt", r"or a file with a name a line \(there is no file of that name\)"),
    ],
)
def test_names_that_cannot_be_tags_are_refused_with_the_remedy(given, message):
    with pytest.raises(BadInputError, match=message):
        given_tags(given)
    assert given_tags(f"cat,{'d' * LONGEST_TAG}")[0][1] == "d" * LONGEST_TAG


def test_an_empty_line_in_a_file_of_names_is_refused_because_it_would_shift_all_after_it(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\n\ndog\n")
    with pytest.raises(BadInputError, match=r"names\.txt: line 2 is empty; write one name of a class a line"):
        given_tags(str(names))
