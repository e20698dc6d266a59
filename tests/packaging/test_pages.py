"""README.md and docs/ have the recorded figures, and a place for each of them."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.experiment_tables import RESULTS
from benchmarks.pages.__main__ import PAGES, difference
from benchmarks.pages.blocks import PLACE, ROOT
from benchmarks.score_table import SCORES, WALKS


@pytest.mark.slow
def test_pages_have_the_recorded_figures():
    assert not difference(), "run python -m benchmarks.pages"


def test_every_result_has_its_place():
    places = {(place[1], *place[2].split()[:1]) for page in PAGES
              for place in PLACE.finditer(page.read_text())}
    assert {("experiment", path.stem) for path in RESULTS.glob("*.json")} <= places
    assert {("walks", path.name) for path in WALKS.iterdir()} <= places
    behaviours = [path.stem for path in SCORES.glob("*.json") if "behaviour" in json.loads(path.read_text())]
    assert behaviours and {("behaviour", name) for name in behaviours} <= places


def test_pictures_of_the_experiments_are_there():
    page = (ROOT / "docs" / "experiments.md").read_text()
    assert all((ROOT / "docs" / link).is_file() for link in re.findall(r"\]\((experiments/.*?)\)", page))
