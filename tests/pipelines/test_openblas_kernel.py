"""Prepared bytes must not depend on the processor: one OpenBLAS kernel, unless the user names one."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="another kind of processor"
)

KERNELS = """
import pipelines.assemble, numpy
from threadpoolctl import threadpool_info
print({lib["architecture"] for lib in threadpool_info() if lib["internal_api"] == "openblas"})
"""


@pytest.mark.parametrize(("asked", "used"), [("", "Haswell"), ("Nehalem", "Nehalem")])
def test_numpy_uses_the_kernel(asked: str, used: str) -> None:
    pytest.importorskip("threadpoolctl")
    environ = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    if asked:
        environ["OPENBLAS_CORETYPE"] = asked
    found = subprocess.run(
        [sys.executable, "-c", KERNELS], env=environ, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [f"{{'{used}'}}"]
