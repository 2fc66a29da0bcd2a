"""Where the tests of devices run: on the CPU always, on a GPU where there is one."""

import pytest
import torch

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn."""
    name: str = request.param
    return name


@pytest.fixture(params=[pytest.param("cuda", marks=GPU)])
def gpu(request: pytest.FixtureRequest) -> str:
    """The GPU alone."""
    name: str = request.param
    return name
