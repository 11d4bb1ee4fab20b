"""The probe: it tells preparations apart, and not what the pictures show."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from small_run import CORPUS, card, make_corpus, pictures

from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.pictures.prepare import decode_rgb
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import DIFFERENT_LOOKS, Probe
from tinytags_tasks.store.run_identity import make_run, preparation_note
from tinytags_tasks.store.samples import sample_images
from tinytags_tasks.train import probe as probe_module
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.probe import FEWEST, probe, probe_corpus, probe_training, warn_again

REAL = Settings().demo_source
IMAGES = 800

Images = npt.NDArray[np.uint8]


def each(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    return np.stack([np.asarray(change(Image.fromarray(image)).convert("RGB")) for image in images])


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def encode(picture: Image.Image) -> Image.Image:
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=quality)
        return Image.open(io.BytesIO(encoded.getvalue()))

    return encode


def smaller_and_back(picture: Image.Image) -> Image.Image:
    return picture.resize((24, 24), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BILINEAR)


def landscapes(images: int, seed: int) -> Images:
    """Return pictures whose energy falls with frequency, as that of photographs does, each at its own contrast."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32))) + 0.02
    spectrum = np.fft.fft2(random.normal(size=(images, 3, 32, 32))) / frequency
    drawn = np.fft.ifft2(spectrum).real.transpose(0, 2, 3, 1)
    contrast = random.uniform(10, 60, (images, 1, 1, 1)) / drawn.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(random.uniform(80, 170, (images, 1, 1, 1)) + drawn * contrast, 0, 255).astype(np.uint8)


def test_pictures_that_are_prepared_alike_are_not_told_apart():
    assert probe(landscapes(IMAGES, 1), landscapes(IMAGES, 2)) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    "change", [jpeg(50), smaller_and_back, lambda picture: picture.filter(ImageFilter.GaussianBlur(0.7))]
)
def test_compression_resizing_and_blur_are_found(change):
    assert probe(landscapes(IMAGES, 1), each(landscapes(IMAGES, 2), change)) > DIFFERENT_LOOKS


def test_contrast_and_brightness_are_not_preparation():
    dark = (landscapes(IMAGES, 2) * 0.6).astype(np.uint8)
    assert probe(landscapes(IMAGES, 1), dark) < 0.85


def test_a_few_labelled_images_are_enough_against_a_large_corpus():
    corpus = landscapes(IMAGES, 2)
    assert probe(landscapes(2 * FEWEST, 1), each(corpus, jpeg(30))) > DIFFERENT_LOOKS
    assert probe(landscapes(2 * FEWEST, 1), corpus) < 0.75


def test_too_few_or_too_small_pictures_tell_nothing():
    assert probe(landscapes(FEWEST - 1, 1), landscapes(IMAGES, 2)) is None
    tiny = np.zeros((100, 15, 32, 3), dtype=np.uint8)
    assert probe(tiny, tiny) is None


def test_the_same_pictures_give_the_same_answer_whatever_the_size_of_a_batch(monkeypatch):
    one, other = landscapes(200, 1), each(landscapes(200, 2), jpeg(80))
    found = probe(one, other)
    monkeypatch.setattr(probe_module, "_BATCH_VALUES", 50_000)
    assert probe(one, other) == pytest.approx(found, abs=1e-3)


# Real pictures


def read_real(name: str, rows: int, side: int = 32) -> tuple[Images, npt.NDArray[np.int64]]:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    batch = next(pq.ParquetFile(path).iter_batches(rows, columns=["img", "label"]))
    images = [decode_rgb(encoded) for encoded in batch.column(0).field("bytes").to_pylist()]
    shrunk = [image.resize((side, side), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image) for image in shrunk]), np.array(batch.column(1).to_pylist())


def test_real_photographs_of_one_source_are_alike_and_those_of_another_are_not():
    train, _ = read_real("cifar10-train.parquet", IMAGES)
    test, _ = read_real("cifar10-test.parquet", IMAGES)
    other, _ = read_real("other-sample.parquet", IMAGES)
    assert probe(train, test) == pytest.approx(0.5, abs=0.06)
    assert probe(train, each(test, jpeg(50))) > DIFFERENT_LOOKS
    assert probe(train, each(test, smaller_and_back)) > DIFFERENT_LOOKS
    assert probe(train, other) > DIFFERENT_LOOKS


def test_animals_and_vehicles_of_one_source_are_not_told_apart():
    images, labels = read_real("cifar10-train.parquet", 2 * IMAGES)
    is_animal = np.isin(labels, (2, 3, 4, 5, 6, 7))
    assert probe(images[is_animal], images[~is_animal]) < 0.8


# A stored corpus


def test_a_sample_is_spread_over_the_corpus_and_leaves_out_what_could_not_be_read(storage):
    corpus = make_corpus(storage, unreadable=(2, 9))
    every = sample_images(storage, corpus, 1_000)
    assert np.array_equal(every, np.delete(pictures(), (2, 9), axis=0))
    some = sample_images(storage, corpus, 5)
    assert 3 <= len(some) <= 5
    assert np.array_equal(some, sample_images(storage, corpus, 5))
    assert sample_images(storage, corpus, 0).shape == (0, 32, 32, 3)


def test_a_sample_reads_only_a_part_of_a_large_corpus(storage, monkeypatch):
    corpus = make_corpus(storage)
    lengths = []
    read = LocalStorage.read

    def counted(self, path, offset=0, length=None):
        if path.endswith(".bin"):
            lengths.append(length)
        return read(self, path, offset, length)

    monkeypatch.setattr(LocalStorage, "read", counted)
    sample_images(storage, corpus, 4)
    assert sum(lengths) <= 4 * corpus.image_bytes


def test_a_missing_or_short_shard_names_the_command_that_writes_it(storage):
    corpus = make_corpus(storage)
    path = layout.shard_file(CORPUS, 0)
    storage.write(path, storage.read(path)[:100])
    with pytest.raises(CorruptError, match=f"tinytags ingest {CORPUS} --redo 0"):
        sample_images(storage, corpus, 100)
    storage.delete(path)
    with pytest.raises(MissingError, match=f"tinytags ingest {CORPUS}"):
        sample_images(storage, corpus, 100)


def test_a_probe_names_the_corpus_that_it_saw(storage, monkeypatch):
    corpus = make_corpus(storage)
    monkeypatch.setattr(probe_module, "FEWEST", 5)
    found = probe_corpus(landscapes(30, 1), CORPUS, storage)
    assert (found.corpus, found.corpus_digest) == (CORPUS, corpus.digest)
    assert (found.labelled_images, found.corpus_images) == (30, 11)
    monkeypatch.setattr(probe_module, "FEWEST", 12)
    assert probe_corpus(landscapes(30, 1), CORPUS, storage) is None
    with pytest.raises(MissingError):
        probe_corpus(landscapes(30, 1), "nowhere", storage)


def test_a_training_for_a_corpus_warns_and_an_existing_model_warns_again(storage, tmp_path, monkeypatch):
    corpus = make_corpus(storage)
    monkeypatch.setattr(probe_module, "FEWEST", 5)
    monkeypatch.setattr(probe_module, "_FOLDS", 3)
    images = landscapes(30, 1)
    write_labelled_parquet(tmp_path / "labelled.parquet", images, np.arange(30) % 2, ("a", "b"))
    request = TrainRequest(str(tmp_path / "labelled.parquet"), corpus=CORPUS)
    said: list[str] = []
    found = probe_training(request, 30, storage, said.append)
    assert (found.corpus_digest, found.labelled_images) == (corpus.digest, 30)
    assert said == ([f"warning: {found.warning}"] if found.warning else [])
    assert probe_training(replace(request, corpus=None), 30, storage, said.append) is None
    said.clear()
    known = card(probe=different(corpus), labelled_images=30)
    warn_again(replace(request, labelled="nothing is read"), known, storage, said.append)
    assert said == [f"warning: {known.probe.warning}"]
    with pytest.raises(MissingError, match="corpus nowhere is not in the store"):
        warn_again(replace(request, corpus="nowhere"), known, storage, said.append)


# What a run says


def different(corpus: Corpus, auroc: float = 0.95) -> Probe:
    return Probe(
        corpus=corpus.name, corpus_digest=corpus.digest, labelled_images=2_000, corpus_images=2_000, auroc=auroc
    )


def test_a_run_warns_of_another_preparation_and_says_what_to_do(storage):
    corpus = make_corpus(storage)
    told_apart = card(probe=different(corpus))
    run = make_run(corpus, told_apart, 40, "solr", "")
    assert "prepared in different ways" in run.description
    assert "AUROC 0.95" in run.description
    assert "use labelled images of the corpus itself" in run.description
    assert preparation_note(corpus, card(probe=different(corpus, 0.89))) == ""


def test_the_warning_is_about_the_corpus_that_was_probed_and_names_no_other_run(storage):
    corpus = make_corpus(storage)
    again = corpus.replaced(digest="0" * 64)
    told_apart = card(probe=different(corpus))
    assert preparation_note(again, told_apart) == ""
    assert make_run(corpus, told_apart, 40, "solr", "").name == make_run(corpus, card(), 40, "solr", "").name


def test_both_notes_are_there_if_both_are_known(storage):
    corpus = make_corpus(storage)
    note = preparation_note(corpus, card(preparation="cut by hand", probe=different(corpus)))
    assert note.startswith(f"its images: {corpus.preparation}; those that the model learned from: cut by hand; the ")
