"""Module.symvers: good ones of every age, and what is wrong with bad ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from autokmod.errors import FormatError
from autokmod.model import Export
from autokmod.observe.symvers import parse_symvers, read_symvers

GOOD = b"""\
0xa351f379\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t
0x0f2fab8e\tdevice_create\tvmlinux\tEXPORT_SYMBOL_GPL\t
0x12345678\tdma_buf_vmap\tdrivers/dma-buf/dma-buf\tEXPORT_SYMBOL_GPL\tDMA_BUF
0x00000000\tkvm_one\tvmlinux\tEXPORT_SYMBOL_GPL\tmodule:kvm-*,vfio
"""
LINE = b"0x00000001\ta\tvmlinux\tEXPORT_SYMBOL\t\n"


def test_lookup() -> None:
    found = parse_symvers(GOOD, "Module.symvers")
    assert len(found) == 4
    assert found["device_create"] == Export("device_create", 0x0F2FAB8E, "vmlinux", True, None)
    assert found["dma_buf_vmap"] == Export("dma_buf_vmap", 0x12345678, "drivers/dma-buf/dma-buf", True, "DMA_BUF")
    assert found["kvm_one"].namespace == "module:kvm-*,vfio"
    assert "strlcpy" not in found
    assert next(iter(found)) == "module_layout"
    assert found.exporters() == {"vmlinux", "drivers/dma-buf/dma-buf"}
    with pytest.raises(KeyError):
        found["strlcpy"]


def test_kernels_before_namespaces_and_old_kinds() -> None:
    data = b"0x00000001\ta\tvmlinux\tEXPORT_SYMBOL\n0x00000002\tb\tfs/c\tEXPORT_UNUSED_SYMBOL_GPL\n"
    found = parse_symvers(data, "old")
    assert found["a"] == Export("a", 1, "vmlinux", False, None)
    assert found["b"].gpl_only


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"\n", "line 1"),
        (LINE[:-1], "line 1 is truncated"),
        (LINE + LINE[:20].replace(b"a", b"b"), "line 2 is truncated"),
        (LINE + b"\x7fELF\x02\x01\n", "line 2 is not text"),
        (LINE + b"\0" * 100, "line 2 is truncated"),
        (LINE + b"one\ttwo\n", "line 2 has 2 fields instead of 5"),
        (LINE + b"0x1\tb\tvmlinux\tEXPORT_SYMBOL\t\n", "line 2 is not a symbol's"),
        (LINE + b"0x00000001\tb\tDMA_BUF\tvmlinux\tEXPORT_SYMBOL\n", "line 2 is not a symbol's"),  # 5.4's order
        (LINE + b"0x00000001\t\tvmlinux\tEXPORT_SYMBOL\t\n", "line 2 is not a symbol's"),
        (LINE + LINE.replace(b"a", b"b") + LINE, "line 3: a stands there twice"),
        ("0x00000001\tä\tvmlinux\tEXPORT_SYMBOL\t\n".encode(), "line 1 is not text"),
    ],
)
def test_what_is_wrong(data: bytes, what: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_symvers(data, "the/file")
    assert str(caught.value).startswith(f"the/file: {what}")


def test_compressed(tmp_path: Path) -> None:
    (tmp_path / "symvers.gz").write_bytes(gzip.compress(GOOD))
    assert len(read_symvers(tmp_path / "symvers.gz")) == 4
