"""Pictures decoded in processes: the same result, in order, and no process outlives the one that started it."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import psutil
import pytest
from PIL import Image

from tinytags_tasks.corpus.pictures import decoder as picture_decoder
from tinytags_tasks.corpus.pictures.decoder import PictureDecoder
from tinytags_tasks.corpus.pictures.prepare import Target, prepare_picture
from tinytags_tasks.corpus.reader import Batch
from tinytags_tasks.errors import BadInputError, TransientError

TARGET = Target(16, 24)

# Decodes in two processes, with a __main__ that must not run twice, and prints what it started.
PARENT = """
    import io, os, threading, time
    from PIL import Image
    from tinytags_tasks.corpus.pictures import decoder as picture_decoder
    from tinytags_tasks.corpus.pictures.prepare import Target

    picture_decoder._FEW_BYTES = -1
    sink = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(sink, "PNG")
    target = Target(32, 32)

    def decode():
        decoder = picture_decoder.PictureDecoder(target, 2)
        pixels, reasons = decoder.decode([sink.getvalue()] * 20)
        print(pixels.min(), len(reasons), *(worker._process.pid for worker in decoder._started), flush=True)
"""


def png(seed: int, side: int = 30) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(sink, "PNG")
    return sink.getvalue()


PICTURES = [png(seed, 20 + seed % 9) for seed in range(300)]
PICTURES[7], PICTURES[255], PICTURES[256] = b"no picture", b"", PICTURES[3][:200]


def expected(pictures):
    pixels, reasons = np.zeros((len(pictures), 16, 24, 3), dtype=np.uint8), {}
    for place, picture in enumerate(pictures):
        try:
            pixels[place] = prepare_picture(picture, 16, 24)
        except BadInputError as error:
            reasons[place] = str(error)
    return pixels, reasons


@pytest.fixture
def start_at_once(monkeypatch):
    monkeypatch.setattr(picture_decoder, "_FEW_BYTES", -1)


@pytest.fixture
def run_script(tmp_path):
    def start(tail):
        path = tmp_path / "script"  # without an ending, as installed console scripts are
        path.write_text(textwrap.dedent(PARENT) + textwrap.dedent(tail))
        return subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True)

    return start


def wait_until_gone(pids):
    give_up = time.monotonic() + 60
    while alive := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        assert time.monotonic() < give_up, f"{alive} still run"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_pictures_are_the_same_wherever_they_are_decoded(start_at_once, workers):
    with closing(PictureDecoder(TARGET, workers)) as decoder:
        pixels, reasons = decoder.decode(PICTURES)
        assert len(decoder._started) == (workers if workers > 1 else 0)
    wanted_pixels, wanted_reasons = expected(PICTURES)
    np.testing.assert_array_equal(pixels, wanted_pixels)
    assert reasons == wanted_reasons
    assert sorted(reasons) == [7, 255, 256]


def test_a_few_pictures_start_no_process():
    with closing(PictureDecoder(TARGET)) as decoder:
        np.testing.assert_array_equal(decoder.decode(PICTURES)[0], expected(PICTURES)[0])
        assert not decoder._started


def test_many_small_batches_start_processes_in_the_end(monkeypatch):
    monkeypatch.setattr(picture_decoder, "_FEW_BYTES", 100_000)
    with closing(PictureDecoder(TARGET, 2)) as decoder:
        found = [decoder.decode(PICTURES[at : at + 20])[0] for at in range(0, 300, 20)]
        assert len(decoder._started) == 2
    np.testing.assert_array_equal(np.concatenate(found), expected(PICTURES)[0])


def test_no_pictures_are_no_pixels(start_at_once):
    with closing(PictureDecoder(TARGET, 2)) as decoder:
        pixels, reasons = decoder.decode([])
    assert pixels.shape == (0, 16, 24, 3)
    assert reasons == {}


def test_batches_keep_their_order_and_what_was_known_of_them(start_at_once):
    sizes = [40, 1, 100, 59, 100]
    starts = np.cumsum([0, *sizes]).tolist()
    unreadable = {1_000 + 255: "left out"}
    batches = [
        Batch(1_000 + start, size, None, unreadable if start == 200 else {}, [], PICTURES[start : start + size])
        for start, size in zip(starts, sizes, strict=False)
    ]
    with closing(PictureDecoder(TARGET, 2)) as decoder:
        found = list(decoder.decode_batches(batches))
    wanted, reasons = expected(PICTURES)
    assert [batch.first for batch in found] == [batch.first for batch in batches]
    assert [batch.encoded for batch in found] == [batch.encoded for batch in batches]
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in found]), wanted)
    assert found[2].unreadable == {}
    assert found[4].unreadable == {1_255: "left out", 1_256: reasons[256]}


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_only_a_few_batches_are_read_before_they_are_wanted(start_at_once, taken):
    read = []

    def batches():
        for first in range(100):
            read.append(first)
            yield Batch(first, 1, None, encoded=PICTURES[:1])

    with closing(PictureDecoder(TARGET, 2)) as decoder, closing(decoder.decode_batches(batches())) as decoded:
        for _ in range(taken):
            next(decoded)
        assert len(read) <= taken + 4


def test_what_reading_raises_is_raised(start_at_once):
    def batches():
        yield Batch(0, 1, None, encoded=PICTURES[:1])
        raise BadInputError("birds.tar has changed")

    with (
        closing(PictureDecoder(TARGET, 2)) as decoder,
        pytest.raises(BadInputError, match=r"birds\.tar has changed"),
    ):
        list(decoder.decode_batches(batches()))


def test_a_dead_process_is_worth_a_retry(start_at_once):
    with closing(PictureDecoder(TARGET, 2)) as decoder:
        decoder.decode(PICTURES)
        os.kill(decoder._started[0]._process.pid, signal.SIGKILL)
        with pytest.raises(TransientError, match=r"a picture decoder ended with exit code -9 over \d+ pictures"):
            for _ in range(20):
                decoder.decode(PICTURES)


def test_closing_ends_the_processes_and_a_closed_decoder_starts_anew(start_at_once):
    decoder = PictureDecoder(TARGET, 2)
    for _ in range(2):
        np.testing.assert_array_equal(decoder.decode(PICTURES)[0], expected(PICTURES)[0])
        pids = [worker._process.pid for worker in decoder._started]
        decoder.close()
        assert len(pids) == 2
        assert not any(psutil.pid_exists(pid) for pid in pids)


def test_no_process_outlives_a_killed_parent(run_script):
    script = run_script("decode(); time.sleep(60)")
    with script:
        least, broken, *pids = map(int, script.stdout.readline().split())
        script.kill()
    assert (least, broken, len(pids)) == (255, 0, 2)
    wait_until_gone(pids)


def test_it_works_in_a_forked_process_with_threads_and_ends_with_it(run_script):
    with run_script("""
        threading.Thread(target=time.sleep, args=(0.5,)).start()
        decode()
        if os.fork() == 0:
            decode()
            os._exit(0)  # without closing its decoder
        os.wait()
    """) as script:
        lines = [line.split() for line in script.stdout.read().splitlines()]
    assert script.returncode == 0
    assert [line[:2] for line in lines] == [["255", "0"]] * 2
    wait_until_gone([int(pid) for line in lines for pid in line[2:]])


def test_its_preparation_says_what_became_of_the_pictures():
    for resize, way in (("crop", "middle cut out, box filter to 24x16"), ("none", "only pictures of 24x16")):
        decoder = PictureDecoder(replace(TARGET, resize=resize))
        assert decoder.preparation.startswith("JPEG/PNG/WebP decoded by Pillow 1")
        assert decoder.preparation.endswith(way)


def test_batches_of_large_images_are_small():
    assert PictureDecoder(TARGET).most_batch_images == 1_024
    large = Target(1_024, 1_024)
    assert PictureDecoder(large).most_batch_images == 10
