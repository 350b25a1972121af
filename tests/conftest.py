"""float64, one thread, fixed seeds, validation on; the user's global state must survive a test."""

import os

os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import pyro
import pytest
import torch

hypothesis.settings.register_profile(
    "default",
    max_examples=500,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "nightly",
    parent=hypothesis.settings.get_profile("default"),
    max_examples=5000,
    derandomize=False,
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _global_state(request):
    float32 = request.node.get_closest_marker("float32") is not None
    torch.set_default_dtype(torch.float32 if float32 else torch.float64)
    torch.manual_seed(0)
    pyro.enable_validation(True)
    yield
    pyro.enable_validation(True)
    left = dict(pyro.get_param_store())
    pyro.clear_param_store()
    torch.set_default_dtype(torch.float32)
    assert not left, f"a test left parameters in the global store: {sorted(left)}"
