"""The search page behind a real proxy: https outside, below a path, and the proxy's own host inside."""

import asyncio
import html
import re
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import aiohttp
import httpx
import pytest
import uvicorn
from aiohttp import web
from certificates import make_certificate
from pages_of_world import PASSWORD, Pages, make_settings
from published_runs import World
from small_run import CORPUS

from tinytags_tasks.search.client import Client

BASE = "/tags"
ACCOUNT = ("reviewer", PASSWORD)
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "host", "content-length"}


@contextmanager
def served(app: object) -> Iterator[str]:
    """Serve the page as the service does, on a port of its own; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, proxy_headers=False, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


async def _forward(
    session: aiohttp.ClientSession, inside: str, says: dict[str, str], request: web.Request
) -> web.Response:
    assert request.path.startswith(f"{BASE}/"), f"{request.path} leads out of the base path"
    _, _, port = request.host.partition(":")
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
    headers += [(name, value.format(host=request.host, port=port)) for name, value in says.items()]
    async with session.request(
        request.method,
        inside + request.raw_path.removeprefix(BASE),
        data=await request.read(),
        headers=headers,
        allow_redirects=False,
    ) as answer:
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
        return web.Response(status=answer.status, body=await answer.read(), headers=kept)


@contextmanager
def proxied(inside: str, certificate: Path, says: dict[str, str]) -> Iterator[str]:
    """Serve what is inside below a path over https, as a proxy that strips the path; yield the address of the path.

    In what it says, ``{host}`` and ``{port}`` are what was asked for.
    """
    address: Future[str] = Future()
    ended = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        app = web.Application()
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            app.router.add_route("*", "/{path:.*}", partial(_forward, session, inside, says))
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            address.set_result(f"https://127.0.0.1:{runner.addresses[0][1]}{BASE}")
            await ended.wait()
            await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        yield address.result(20)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


SAYS_ALL = {
    "X-Forwarded-Prefix": BASE,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "{host}",
    "X-Forwarded-For": "192.0.2.1",
}


@pytest.fixture
def pages(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    settings = make_settings(tmp_path, monkeypatch).model_copy(update={"search_trusted_proxies": "127.0.0.1"})
    found = Pages(made.copy(tmp_path / "copy"), settings, monkeypatch)
    yield found
    found.app.state.context.applier.stop()


@contextmanager
def browsing(pages: Pages, folder: Path, says: dict[str, str]) -> Iterator[httpx.Client]:
    """Yield what asks as a browser that knows no fetch metadata; ``base_url`` is the path outside."""
    certificate = make_certificate(folder)
    with (
        served(pages.app) as inside,
        proxied(inside, certificate, says) as outside,
        httpx.Client(
            base_url=outside, auth=ACCOUNT, verify=ssl.create_default_context(cafile=certificate), timeout=60
        ) as browser,
    ):
        yield browser


def origin_of(browser: httpx.Client) -> str:
    return str(browser.base_url).removesuffix("/").removesuffix(BASE)


def first_look(browser: httpx.Client, run: str) -> dict[str, str]:
    """Return the fields that a browser sends for the first picture of a review."""
    page = browser.get(f"/review/{run}/one", follow_redirects=True)
    assert page.status_code == 200, page.text
    (form,) = re.findall(r'<form id="look".*?</form>', page.text, re.S)
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
    return {name: html.unescape(value) for name, value in hidden} | {"answer": "unclear"}


def post_look(browser: httpx.Client, run: str, fields: dict[str, str], origin: str) -> httpx.Response:
    return browser.post(f"/review/{run}/look", data=fields, headers={"Origin": origin})


@pytest.mark.parametrize(
    "says",
    [
        {},
        {"X-Forwarded-Host": "127.0.0.1", "X-Forwarded-Port": "{port}"},
        {"X-Forwarded-Host": "{host}, inner.example:8080", "X-Forwarded-Proto": "https, http"},
    ],
    ids=["as asked", "port apart", "two proxies"],
)
def test_the_whole_way_through_a_proxy(pages: Pages, tmp_path: Path, says: dict[str, str]) -> None:
    run = pages.world.runs[0].name
    with browsing(pages, tmp_path, SAYS_ALL | says) as browser:
        outside = str(browser.base_url).removesuffix("/")
        assert f'href="{BASE}/search' in browser.get("/").text
        found = browser.get("/search?tag=cat").text
        picture = re.findall(rf'href="{BASE}(/pictures/{CORPUS}/\d+)', found)[0]
        page = browser.get(picture)
        image = re.findall(rf'src="{BASE}(/pictures/[^"]+\.png[^"]*)"', page.text)[0]
        assert browser.get(html.unescape(image)).content.startswith(b"\x89PNG")
        answer = post_look(browser, run, first_look(browser, run), origin_of(browser))
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"].startswith(f"{BASE}/review/{run}/one")
        assert [word["verdict"] for word in pages.words()] == ["unclear"]
        (described,) = browser.get("/api/openapi.json").json()["servers"]
        assert described == {"url": BASE}
        with Client(outside, *ACCOUNT, http=browser) as tinytags:
            assert tinytags.health().status == "ok"
            image = next(tinytags.search())
            assert image.picture == f"{BASE}/api/v1/images/{image.id}.png"
            assert tinytags.picture(image.id).startswith(b"\x89PNG")


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.0/8"])
def test_a_form_of_another_site_or_through_a_strange_proxy_is_refused_and_the_log_says_why(
    pages: Pages, tmp_path: Path, caplog: pytest.LogCaptureFixture, trusted: str
) -> None:
    pages.settings = pages.settings.model_copy(update={"search_trusted_proxies": trusted, "search_base_path": BASE})
    pages.app.state.context.applier.stop()
    pages.restart()
    with browsing(pages, tmp_path, SAYS_ALL) as browser:
        own = origin_of(browser)
        is_trusted = trusted == "127.0.0.1"
        others = ["https://evil.example", "https://127.0.0.1", "null", *([] if is_trusted else [own])]
        run = pages.world.runs[0].name
        fields = first_look(browser, run)
        for origin in others:
            assert post_look(browser, run, fields, origin).status_code == 403
    assert pages.words() == []
    told = [line for line in caplog.messages if "TINYTAGS_SEARCH_TRUSTED_PROXIES" in line]
    assert len(told) == len(others)
