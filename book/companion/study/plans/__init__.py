"""The studies, each an object in a file of its own."""

from companion.study.plans.atlas import ATLAS
from companion.study.plans.census import CENSUS
from companion.study.plans.extensions import EXTENSIONS
from companion.study.plans.kuairand import KUAIRAND
from companion.study.plans.synthetic import SYNTHETIC
from companion.study.plans.universes import NEAREST, UNIVERSES

STUDIES = {
    study.name: study for study in (SYNTHETIC, NEAREST, UNIVERSES, CENSUS, ATLAS, KUAIRAND, EXTENSIONS)
}
"""By name."""

__all__ = ["STUDIES"]
