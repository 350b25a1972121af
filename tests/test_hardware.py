"""Settings of the process: what they change is probed, refused where it is wrong, and undone."""

import ctypes
import subprocess
import sys
import types

import pytest
import torch

from priors.errors import ConfigError
from vsae import hardware
from vsae.hardware import faster_matmul, matmul_error, tune_allocator


@pytest.fixture
def setting():
    """The setting of torch, in whatever state the test leaves it, put back."""
    if not hasattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision"):
        pytest.skip("before torch 2.9")
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    yield setting
    setting.fp32_precision = before


@pytest.fixture
def exact(monkeypatch):
    """As on a CPU that does not take bfloat16: others refuse, which is not what is tested."""
    monkeypatch.setattr(hardware, "matmul_error", lambda: 0.0)


def test_the_probe_tells_float32_from_bfloat16(monkeypatch):
    assert matmul_error() < hardware.INACCURATE
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, w: linear(x.bfloat16(), w.bfloat16()).float()
    )
    assert matmul_error() > 100 * hardware.INACCURATE


def test_on_this_cpu_products_are_accurate_or_refused(setting):
    """With AMX the offer of bfloat16 is taken: an error then, and products as before."""
    random, refused = torch.get_rng_state(), None
    try:
        with faster_matmul():
            assert matmul_error() <= hardware.INACCURATE
    except ConfigError as error:
        refused = error.code
    assert refused in (None, "hardware.inaccurate")
    assert matmul_error() <= hardware.INACCURATE
    assert torch.equal(random, torch.get_rng_state())


def test_a_block_restores_what_it_found(setting, exact):
    before = setting.fp32_precision
    with faster_matmul():
        assert setting.fp32_precision == "bf16"
        with faster_matmul():
            assert setting.fp32_precision == "bf16"
        assert setting.fp32_precision == "bf16"
    assert setting.fp32_precision == before


def test_a_block_that_fails_restores_too(setting, exact):
    before = setting.fp32_precision
    with pytest.raises(KeyError), faster_matmul():
        raise KeyError
    assert setting.fp32_precision == before


def test_a_call_is_for_good(setting, exact):
    faster_matmul()  # whatever becomes of its result
    assert setting.fp32_precision == "bf16"


@pytest.mark.parametrize("error", [3e-3, float("nan")])
def test_a_cpu_that_rounds_is_refused_and_nothing_has_changed(error, monkeypatch, setting):
    before = setting.fp32_precision
    monkeypatch.setattr(hardware, "matmul_error", lambda: error)
    with pytest.raises(ConfigError, match="rounds its inputs") as info:
        faster_matmul()
    assert info.value.code == "hardware.inaccurate"
    assert setting.fp32_precision == before


def test_a_torch_without_the_setting(monkeypatch):
    older = types.SimpleNamespace(is_available=lambda: True)
    monkeypatch.setattr(torch.backends, "mkldnn", older)
    with pytest.raises(ConfigError, match=r"expected 2\.9 or later") as info:
        faster_matmul()
    assert info.value.code == "hardware.unavailable"


def test_a_torch_without_onednn(monkeypatch, setting):
    before = setting.fp32_precision
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(ConfigError) as info:
        faster_matmul()
    assert info.value.code == "hardware.unavailable"
    assert setting.fp32_precision == before


class Refusing:
    """A C library whose mallopt knows none of the options."""

    def mallopt(self, option, value):
        return 0


@pytest.mark.parametrize("library", [Refusing(), object()])
def test_an_allocator_that_cannot_be_tuned(library, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    with pytest.raises(ConfigError, match="expected glibc") as info:
        tune_allocator()
    assert info.value.code == "hardware.allocator"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_kept():
    """Page faults of ten blocks of 64 MB, in a process of their own: those of one, not of ten."""
    program = """
import resource, sys, torch
from vsae.hardware import tune_allocator
if sys.argv[1] == "tuned":
    tune_allocator()
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {}
    for how in ("tuned", "plain"):
        command = [sys.executable, "-c", program, how]
        # The least of three: a kernel short of memory takes pages back, which are faults again.
        tries = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in "123"]
        faults[how] = min(int(done.stdout) for done in tries)
    assert 10 * faults["tuned"] < faults["plain"]
