"""Flavours and streams, by the releases that distributions really have."""

from __future__ import annotations

import pytest

from autokmod.release import flavour_of, rhel_release, stream_of

KERNELS = [
    ("6.1.0-56-amd64", "amd64", "6.1"),
    ("6.1.0-56-cloud-amd64", "cloud-amd64", "6.1"),
    ("6.1.0-56-rt-amd64", "rt-amd64", "6.1"),
    ("6.1.0-0.deb11.13-amd64", "amd64", "6.1 deb11"),
    ("6.12.117+deb12-amd64", "amd64", "6.12 deb12"),
    ("6.12.22+bpo-cloud-amd64", "cloud-amd64", "6.12 bpo"),
    ("6.1.0-30-686-pae", "pae", "6.1"),
    ("6.8.0-45-generic", "generic", "6.8"),
    ("6.8.0-1015-aws", "aws", "6.8"),
    ("6.8.0-45-generic-64k", "generic-64k", "6.8"),
    ("6.8.12-2-pve", "pve", "6.8"),
    ("6.4.0-150600.23.25-default", "default", "6.4 150600"),
    ("5.14.21-150500.55.83-azure", "azure", "5.14 150500"),
    ("4.12.14-122.231-default", "default", "4.12 122"),
    ("6.11.3-1-default", "default", "6.11"),
    ("3.10.0-1160.el7.x86_64", "x86_64", "3.10 el7"),
    ("4.18.0-425.3.1.el8.x86_64", "x86_64", "4.18 el8"),
    ("4.18.0-425.10.1.el8_7.x86_64", "x86_64", "4.18 el8"),
    ("4.18.0-372.9.1.rt7.166.el8.x86_64", "rt-x86_64", "4.18 el8"),
    ("4.18.0-553.el8_10.x86_64+debug", "x86_64-debug", "4.18 el8"),
    ("4.18.0-348.el8.centos.plus.x86_64", "centos-plus-x86_64", "4.18 el8"),
    ("5.14.0-427.13.1.el9_4.x86_64", "x86_64", "5.14 el9_4"),
    ("5.14.0-427.13.1.el9_4.aarch64+64k", "aarch64-64k", "5.14 el9_4"),
    ("5.14.0-503.el9.x86_64", "x86_64", "5.14 el9"),
    ("6.12.0-55.9.1.el10_0.x86_64+rt", "x86_64-rt", "6.12 el10_0"),
    ("5.15.0-100.96.32.el8uek.x86_64", "x86_64", "5.15 el8uek"),
    ("5.4.284-1.el8.elrepo.x86_64", "elrepo-x86_64", "5.4 el8"),
    ("6.11.4-301.fc41.x86_64", "x86_64", "6.11 fc41"),
    ("6.1.115-126.197.amzn2023.x86_64", "x86_64", "6.1 amzn2023"),
    ("6.11.3-arch1-1", "arch", "6.11"),
    ("6.11.3-zen1-1-zen", "zen", "6.11"),
    ("6.6.54-1-lts", "lts", "6.6"),
    ("6.13.0-rc4", "", "6.13"),
    ("6.6.1", "", "6.6"),
    ("6.6.1-mine", "mine", "6.6"),
    ("nonsense", "nonsense", "nonsense"),
]


@pytest.mark.parametrize(("krel", "flavour", "stream"), KERNELS, ids=[k[0] for k in KERNELS])
def test_flavour_and_stream(krel: str, flavour: str, stream: str) -> None:
    assert (flavour_of(krel), stream_of(krel)) == (flavour, stream)


@pytest.mark.parametrize(
    ("krel", "release"),
    [
        ("5.14.0-427.13.1.el9_4.x86_64", (9, 4, "x86_64")),
        ("4.18.0-553.el8_10.x86_64+debug", (8, 10, "x86_64")),
        ("4.18.0-425.3.1.el8.aarch64", (8, None, "aarch64")),
        ("4.18.0-348.el8.centos.plus.x86_64", (8, None, "x86_64")),
        ("5.15.0-100.96.32.el8uek.x86_64", None),
        ("6.11.4-301.fc41.x86_64", None),
        ("6.1.0-56-amd64", None),
    ],
)
def test_rhel(krel: str, release: tuple[int, int | None, str] | None) -> None:
    assert rhel_release(krel) == release
