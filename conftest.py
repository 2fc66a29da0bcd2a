"""Gives the tests, and the kernels that nbval starts, the same environment as the build gives its kernels."""

import os

from _scripts.kernels import prepare_environment

prepare_environment(os.environ)
