"""What the areas of the search page share: settings, clients, templates, what is live, and what people said."""

from dataclasses import dataclass, field
from functools import partial

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse

from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.all_votes import AllVotes
from tinytags_tasks.search.applying import Applier
from tinytags_tasks.search.embedder import Embedder
from tinytags_tasks.search.forms import form_token
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.live import LiveRun as LiveRun
from tinytags_tasks.search.live import LiveRuns
from tinytags_tasks.search.measured import MeasuredRuns
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.searches import Searches
from tinytags_tasks.search.shown_pictures import ShownPictures
from tinytags_tasks.search.source_places import SourcePlaces
from tinytags_tasks.search.stored_images import StoredImages
from tinytags_tasks.search.waiting import Waiting
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.settings import Settings

AGAIN_SECONDS = 2
"""After how long a browser asks again for what is being prepared."""


@dataclass(frozen=True)
class PageContext:
    """What each area's ``add_routes(app, context)`` gets."""

    settings: Settings
    runtime: Runtime
    templates: Environment = field(repr=False)
    stored_images: StoredImages = field(repr=False)
    pictures: ShownPictures = field(repr=False)
    live: LiveRuns = field(repr=False)
    logs: WordLogs = field(repr=False)
    applier: Applier = field(repr=False)
    measured: MeasuredRuns = field(repr=False)
    source_places: SourcePlaces = field(repr=False)
    searches: Searches = field(repr=False)
    waiting: Waiting = field(repr=False, default_factory=Waiting)
    embedder: Embedder = field(repr=False, default_factory=Embedder)
    all_votes: AllVotes = field(repr=False, default_factory=AllVotes)

    @property
    def grid(self) -> str:
        """The address of the grid of blocks in Airflow; empty if Airflow's is not known."""
        address = self.settings.airflow_page
        return f"{address}/tinytags/" if address else ""

    def hidden(self) -> Hidden:
        """Return what readers do not see of the live index.

        Raises
        ------
        EngineDownError
            If it was never known, and cannot be.
        """
        return self.logs.hidden().at_least(self.live.least_confidence)

    def render(self, request: Request, template: str, *, status: int = 200, **values: object) -> HTMLResponse:
        """Return a page made by a template.

        Templates always have ``account``, who is signed in, ``token``, the hidden field of forms, and ``url(path)``,
        which puts the base path before a path of ours: every link goes through it. ``has_vectors`` says whether
        pictures can be compared.
        """
        has_vectors = any(live.run.similar for live in self.live.known)
        page = self.templates.get_template(template).render(
            account=request.state.account,
            token=form_token(request),
            url=partial(url, request),
            has_vectors=has_vectors,
            **values,
        )
        return HTMLResponse(page, status_code=status)

    def render_wait(self, request: Request, template: str, **values: object) -> HTMLResponse:
        """Return a page that says that something is being prepared, and that a browser asks for again by itself.

        It holds no text that somebody could be in the middle of, so that it may go away without being asked; a link on
        it does the same where the header is not heeded.
        """
        page = self.render(request, template, status=202, **values)
        page.headers["Refresh"] = str(AGAIN_SECONDS)
        return page
