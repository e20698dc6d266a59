"""README.md and docs/ have the recorded figures, and a place for each of them."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.experiment_tables import NOTES, RESULTS
from benchmarks.pages.__main__ import PAGES, difference
from benchmarks.pages.blocks import FIGURE, PLACE, ROOT
from benchmarks.score_table import SCORES, WALKS
from benchmarks.tutorial import PAGE, RECORD, runnable


@pytest.mark.slow
def test_pages_have_the_recorded_figures():
    assert not difference(), "run python -m benchmarks.pages"


def test_every_result_has_its_place():
    """Each experiment, each table of scores and each behaviour is in a page."""
    text = "\n".join(page.read_text() for page in PAGES)
    places = {(place[1], *place[2].split()[:1]) for place in PLACE.finditer(text)}
    assert {("experiment", path.stem) for path in RESULTS.glob("*.json")} <= places
    assert {("walks", path.name) for path in WALKS.iterdir()} <= places
    assert {("scores", path.stem) for path in SCORES.glob("*.json")} <= places
    behaviours = [path.stem for path in SCORES.glob("*.json") if "behaviour" in json.loads(path.read_text())]
    figures = {(place[1], place[2]) for place in FIGURE.finditer(text)}
    assert behaviours and {("behaviour", name) for name in behaviours} <= figures


def test_pictures_of_the_notes_are_there():
    for page in NOTES.glob("*.md"):
        for link in re.findall(r"\]\((\S+\.png)\)", page.read_text()):
            assert (NOTES / link).is_file(), f"{page.name}: {link}"


def test_the_tutorial_shows_what_its_own_blocks_printed():
    recorded = [row["code"] for row in json.loads(RECORD.read_text())["blocks"]]
    assert recorded == [block.text for block in runnable()], f"{PAGE.name}: run python -m benchmarks.tutorial"


def test_readme_and_results_are_short():
    for name, most in (("README.md", 900), ("docs/results.md", 800)):
        text = re.sub(r"<!--.*?-->", "", (ROOT / name).read_text())
        assert len([word for word in text.split() if any(map(str.isalnum, word))]) <= most, name
