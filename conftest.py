"""Gives the tests, and the kernels that nbval starts, the same environment as the build gives its kernels.

Fixtures that tests of both packages share are named here, which pytest allows in this file alone.
"""

import os

from _scripts.kernels import prepare_environment

prepare_environment(os.environ)

pytest_plugins = ("census_fixtures",)
