"""Loading of what a command needs: garbage is collected again afterwards, and what was there before still is."""

import gc
import sys
from types import ModuleType

import pytest

from calmctl.cli.loading import loading


def test_garbage_is_left_alone_only_while_a_process_loads_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    kept = gc.get_freeze_count()
    with loading():
        assert gc.isenabled()
    assert gc.get_freeze_count() == kept
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(ImportError), loading():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled() and gc.get_freeze_count() > kept
