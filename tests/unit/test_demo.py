"""The demo's files, from each of its three sources."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tinytags_tasks.corpus.class_names import CIFAR10_TAGS
from tinytags_tasks.corpus.demo import make as demo_module
from tinytags_tasks.corpus.demo.drawn import SCRIBBLE, SHAPES, draw_pictures
from tinytags_tasks.corpus.demo.make import Demo, make_demo, write_labelled_parquet
from tinytags_tasks.corpus.formats.fixed_records import RecordLayout, to_row_major
from tinytags_tasks.corpus.labelled import decode_image, read_labelled_set
from tinytags_tasks.errors import BadInputError

NOWHERE = Path("no", "such", "folder")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "DRAWN_IMAGES", 60)
    monkeypatch.setattr(demo_module, "DRAWN_LABELLED", 40)
    monkeypatch.setattr(demo_module, "DRAWN_TEST", 20)
    monkeypatch.setattr(demo_module, "CIFAR10_URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def images_of(demo: Demo) -> npt.NDArray[np.uint8]:
    layout = RecordLayout(32, 32, "columns")
    return to_row_major(np.fromfile(demo.corpus_path, dtype=np.uint8).reshape(-1, layout.record_bytes), layout)


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "demo.lock"}


def corner_picture(side: int, colour: int) -> bytes:
    """Return a picture that is white in its upper right corner only, so that swapped axes are noticed."""
    pixels = np.full((side, side, 3), colour, dtype=np.uint8)
    pixels[: side // 4, -side // 4 :] = 255
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, rows, side in (
        (demo_module.TRAIN_FILE, 20, 32),
        (demo_module.TEST_FILE, 30, 32),
        (demo_module.OTHER_FILE, 25, 64),
    ):
        pictures = [{"bytes": corner_picture(side, row), "path": None} for row in range(rows)]
        labels = [row % 10 for row in range(rows)]
        pq.write_table(pa.table({"img": pa.array(pictures, image_type), "label": labels}), folder / name)
    return folder


def test_photographs_lie_where_the_positions_say(tmp_path: Path, source: Path) -> None:
    demo = make_demo(tmp_path / "demo", source, report=lambda _: None)

    assert (demo.corpus_name, demo.origin, demo.tags) == ("demo", "photographs", CIFAR10_TAGS)
    assert demo.labelled_path == source / demo_module.TRAIN_FILE
    assert demo.test_path == source / demo_module.TEST_FILE
    images = images_of(demo)
    assert len(images) == 55
    listing = pq.read_table(demo.corpus_path.parent / "positions.parquet").to_pylist()
    pictures = {
        name: pq.read_table(source / name)["img"].to_pylist()
        for name in (demo_module.TEST_FILE, demo_module.OTHER_FILE)
    }
    assert len({(row["source"], row["row"]) for row in listing}) == 55
    for row in listing:
        expected = decode_image(pictures[row["source"]][row["row"]]["bytes"], 32)
        np.testing.assert_array_equal(images[row["position"]], expected)
        assert row["label"] == row["row"] % 10
    assert images[0][0, 31].tolist() == [255, 255, 255]
    assert images[0][31, 0].tolist() != [255, 255, 255]


def test_both_sources_are_mixed(tmp_path: Path, source: Path) -> None:
    demo = make_demo(tmp_path / "demo", source, report=lambda _: None)
    sources = pq.read_table(demo.corpus_path.parent / "positions.parquet")["source"].to_pylist()
    assert len(set(sources[:20])) == len(set(sources[-20:])) == 2


def test_a_demo_that_stands_is_not_made_again(tmp_path: Path, source: Path) -> None:
    first = make_demo(tmp_path / "demo", source, report=lambda _: None)
    before = stamps(tmp_path / "demo")
    lines: list[str] = []
    assert make_demo(tmp_path / "demo", source, report=lines.append) == first
    assert stamps(tmp_path / "demo") == before
    assert not lines


@pytest.mark.parametrize("name", ["demo.bin", "demo.json", "positions.parquet"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_demo_that_is_not_whole_is_made_again(tmp_path: Path, source: Path, name: str, damage: str) -> None:
    folder = tmp_path / "demo"
    first = make_demo(folder, source, report=lambda _: None)
    whole = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(whole[:100])
    assert make_demo(folder, source, report=lambda _: None) == first
    assert (folder / name).read_bytes() == whole


def test_a_failure_leaves_no_half_file(tmp_path: Path, source: Path) -> None:
    table = pq.read_table(source / demo_module.OTHER_FILE).to_pydict()
    table["img"][7]["bytes"] = b"no picture"
    pq.write_table(pa.table(table), source / demo_module.OTHER_FILE)
    with pytest.raises(BadInputError, match=r"other-sample\.parquet"):
        make_demo(tmp_path / "demo", source, report=lambda _: None)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["demo.lock"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="file"):
        make_demo(tmp_path / "file" / "demo", NOWHERE, report=lambda _: None)


def test_photographs_replace_drawn_pictures_once_they_are_there(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "demo"
    assert make_demo(folder, NOWHERE, report=lambda _: None, download=False).origin == "drawn"
    assert make_demo(folder, source, report=lambda _: None, download=False).origin == "photographs"


def test_an_incomplete_source_is_said_and_passed_over(tmp_path: Path, source: Path) -> None:
    (source / demo_module.OTHER_FILE).unlink()
    lines: list[str] = []
    assert make_demo(tmp_path / "demo", source, report=lines.append, download=False).origin == "drawn"
    assert "lacks other-sample.parquet" in lines[0]


def test_drawn_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    first = make_demo(tmp_path / "a", NOWHERE, report=lambda _: None, download=False)
    second = make_demo(tmp_path / "b", NOWHERE, report=lambda _: None, download=False)
    assert first.corpus_path.read_bytes() == second.corpus_path.read_bytes()
    assert first.labelled_path.read_bytes() == second.labelled_path.read_bytes()


def test_the_drawn_demo_has_labelled_shapes_and_a_corpus_with_scribbles(tmp_path: Path) -> None:
    demo = make_demo(tmp_path, NOWHERE, report=lambda _: None, download=False)
    assert (demo.corpus_name, demo.tags) == ("drawn", SHAPES)
    assert "not photographs" in demo.description
    assert demo.test_path is not None
    assert len(read_labelled_set(demo.labelled_path).images) == 40
    assert read_labelled_set(demo.test_path).tags == SHAPES
    assert len(images_of(demo)) == 60
    assert SCRIBBLE in pq.read_table(tmp_path / "positions.parquet")["label"].to_pylist()


def test_each_shape_differs_from_the_ground_and_the_others() -> None:
    images, labels = next(draw_pictures(400, seed=1, batch=400))
    means = np.stack([images[labels == label].mean(axis=(0, 3)) for label in range(len(SHAPES))])
    distances = np.abs(means[:, np.newaxis] - means[np.newaxis]).mean(axis=(2, 3))
    assert np.all(distances[~np.eye(len(SHAPES), dtype=bool)] > 5)
    assert np.all(means.max(axis=(1, 2)) - means.min(axis=(1, 2)) > 60)


def test_a_labelled_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(1_003, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(1_003) % 3
    write_labelled_parquet(tmp_path / "set.parquet", images, labels, ("one", "zwei", "drei ü"))
    found = read_labelled_set(tmp_path / "set.parquet")
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.tags == ("one", "zwei", "drei ü")


def cifar10_archive(images: npt.NDArray[np.uint8], names: tuple[str, ...]) -> bytes:
    """Return a small archive in CIFAR-10's own layout; each batch holds the same images."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    labels = (np.arange(len(images)) % 10).astype(np.uint8)
    batch = np.concatenate([labels[:, np.newaxis], planes], axis=1).tobytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(batch)
            tar.addfile(member, io.BytesIO(batch))
    return packed.getvalue()


BATCHES = ("batches.meta.txt", *(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
IMAGES = np.random.default_rng(5).integers(256, size=(12, 32, 32, 3), dtype=np.uint8)


class ArchiveServer(ThreadingHTTPServer):
    content = b""
    announced: int | None = None
    status = 200
    requests = 0


class ArchiveHandler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.announced or len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    with ArchiveServer(("127.0.0.1", 0), ArchiveHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(demo_module, "CIFAR10_URL", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        offer(server, monkeypatch, cifar10_archive(IMAGES, BATCHES))
        yield server
        server.shutdown()
        thread.join()


def offer(server: ArchiveServer, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    server.content = content
    monkeypatch.setattr(demo_module, "CIFAR10_MD5", hashlib.md5(content).hexdigest())


def test_cifar10_is_downloaded_and_converted(tmp_path: Path, server: ArchiveServer) -> None:
    lines: list[str] = []
    demo = make_demo(tmp_path, NOWHERE, report=lines.append)
    assert (demo.corpus_name, demo.origin, demo.tags) == ("demo-cifar10", "cifar10", CIFAR10_TAGS)
    np.testing.assert_array_equal(images_of(demo), IMAGES)
    labelled = read_labelled_set(demo.labelled_path)
    np.testing.assert_array_equal(labelled.images, np.concatenate([IMAGES] * 5))
    assert labelled.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert demo.test_path is not None
    np.testing.assert_array_equal(read_labelled_set(demo.test_path).images, IMAGES)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".bin", ".json", ".lock"] + [".parquet"] * 3
    assert lines


def test_cifar10_is_downloaded_once(tmp_path: Path, server: ArchiveServer) -> None:
    first = make_demo(tmp_path, NOWHERE, report=lambda _: None)
    assert make_demo(tmp_path, NOWHERE, report=lambda _: None) == first
    assert server.requests == 1


def drawn_instead(folder: Path) -> str:
    """Make the demo, which must fall back to drawn shapes, and return its first message about the download."""
    lines: list[str] = []
    demo = make_demo(folder, NOWHERE, report=lines.append)
    assert demo.origin == "drawn"
    assert not [path.name for path in folder.iterdir() if "cifar" in path.name or path.suffix == ".part"]
    return "\n".join(lines)


def test_a_wrong_checksum_is_not_used(tmp_path: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "CIFAR10_MD5", "0" * 32)
    assert "MD5" in drawn_instead(tmp_path)


def test_a_download_that_breaks_off_is_not_used(tmp_path: Path, server: ArchiveServer) -> None:
    server.announced = len(server.content)
    server.content = server.content[:-1000]
    assert "cannot be downloaded" in drawn_instead(tmp_path)


def test_an_error_page_is_not_used(tmp_path: Path, server: ArchiveServer) -> None:
    server.status = 404
    assert "cannot be downloaded" in drawn_instead(tmp_path)


@pytest.mark.parametrize("missing", ["test_batch.bin", "data_batch_3.bin"])
def test_an_archive_without_a_batch_is_not_used(
    tmp_path: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    offer(server, monkeypatch, cifar10_archive(IMAGES, tuple(name for name in BATCHES if name != missing)))
    assert missing in drawn_instead(tmp_path)


def test_what_is_no_archive_is_not_used(tmp_path: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(server, monkeypatch, b"<html>log in</html>")
    assert "is not CIFAR-10's binary version" in drawn_instead(tmp_path)


def test_without_a_network_shapes_are_drawn(tmp_path: Path) -> None:
    assert "cannot be downloaded" in drawn_instead(tmp_path)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), ArchiveHandler) as silent:  # accepts, but nobody serves
        monkeypatch.setattr(demo_module, "CIFAR10_URL", f"http://127.0.0.1:{silent.server_port}/cifar.tar.gz")
        monkeypatch.setattr(demo_module, "DOWNLOAD_TIMEOUT", httpx.Timeout(0.2))
        assert "Timeout" in drawn_instead(tmp_path)


def test_nothing_is_downloaded_unless_allowed(tmp_path: Path, server: ArchiveServer) -> None:
    assert make_demo(tmp_path, NOWHERE, report=lambda _: None, download=False).origin == "drawn"
    assert server.requests == 0
