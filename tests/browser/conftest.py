"""Debian's Chromium, driven by Playwright, without a network; without them tests are skipped, or fail if asked for.

``make browser`` installs what they need and sets COMMONWEIGHT_BROWSER, so that nothing is skipped unseen.
"""

import os
import shutil
from pathlib import Path

import pytest

from commonweight.report.html import REPORT, render

AXE = Path(__file__).parents[2] / ".browser" / "node_modules" / "axe-core" / "axe.min.js"


def _missing(what):
    sentence = f"the report is not tested in a browser: {what} is missing; make browser installs it"
    (pytest.fail if os.environ.get("COMMONWEIGHT_BROWSER") else pytest.skip)(sentence)


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core."""
    if not AXE.is_file():
        _missing("axe-core")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def chromium():
    """A browser for all tests."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        _missing("playwright")
    place = shutil.which("chromium")
    if place is None:
        _missing("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium, tmp_path):
    """Open a page from a file, offline; fails at the end if it asked for anything or said anything."""
    said, contexts = [], []

    def opened(page, *, scheme="light", width=1280, height=900, bypass=False, listen=True):
        place = tmp_path / REPORT
        place.write_text(page if isinstance(page, str) else render(page), encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            offline=True,
            accept_downloads=True,
            bypass_csp=bypass,
        )
        contexts.append(context)
        tab = context.new_page()
        if listen:
            tab.on("console", lambda message: said.append(message.text))
            tab.on("pageerror", lambda error: said.append(str(error)))
            tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
            tab.on("request", lambda request: said.append(request.url))
        tab.goto(place.as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    asked_for = (tmp_path / REPORT).as_uri()
    assert [each for each in said if each != asked_for and not each.startswith(("data:", "blob:"))] == []
