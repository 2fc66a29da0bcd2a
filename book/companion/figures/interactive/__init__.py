"""Figures that a reader can move: each one piece of HTML, with a picture for where scripts do not run."""

from companion.figures.interactive.atlas import atlas, atlas_data
from companion.figures.interactive.costs import costs, costs_picture
from companion.figures.interactive.fragment import Interactive
from companion.figures.interactive.lab import lab, lab_data, lab_picture
from companion.figures.interactive.own_runs import own_runs, own_runs_picture
from companion.figures.interactive.person import (
    census_person,
    census_person_picture,
    person_inputs,
    person_model,
    person_reach,
)
from companion.figures.interactive.runs import census_runs, runs_data
from companion.figures.interactive.slide import slide_data, slide_p, slide_p_picture
from companion.figures.interactive.universes import universes, universes_data

__all__ = [
    "Interactive",
    "atlas",
    "atlas_data",
    "census_person",
    "census_person_picture",
    "census_runs",
    "costs",
    "costs_picture",
    "lab",
    "lab_data",
    "lab_picture",
    "own_runs",
    "own_runs_picture",
    "person_inputs",
    "person_model",
    "person_reach",
    "runs_data",
    "slide_data",
    "slide_p",
    "slide_p_picture",
    "universes",
    "universes_data",
]
