from __future__ import annotations

import subprocess
import sys

import limbeck


def test_every_public_name_is_there_and_no_other() -> None:
    assert sorted(limbeck.__all__) == sorted(limbeck._HOMES)
    assert all(getattr(limbeck, name) is not None for name in limbeck.__all__)
    assert set(limbeck.__all__) <= set(dir(limbeck))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(limbeck, "nothing")


def test_importing_limbeck_imports_nothing_heavy() -> None:
    code = "import limbeck, sys; print([m for m in ('torch', 'numpy', 'timm', 'accelerate', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
