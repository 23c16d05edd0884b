"""What a kernel release says of its flavour and of the distribution's stream that it belongs to.

    6.1.0-56-cloud-amd64               flavour cloud-amd64    stream 6.1
    6.12.117+deb12-amd64               flavour amd64          stream 6.12 deb12
    6.8.0-1015-aws                     flavour aws            stream 6.8
    6.4.0-150600.23.25-default         flavour default        stream 6.4 150600 (SUSE Linux Enterprise 15 SP6)
    4.18.0-425.10.1.el8_7.x86_64       flavour x86_64         stream 4.18 el8
    5.14.0-427.13.1.el9_4.x86_64+debug flavour x86_64-debug   stream 5.14 el9_4

In RHEL 7 and 8 the symbols of one major release are kept stable, from 9 on those of a minor release
(access.redhat.com/solutions/444773, 6971500).
"""

from __future__ import annotations

import re
from functools import lru_cache

PER_MINOR = 9  # the first major release of RHEL without stability over its minor releases
_SERIES = re.compile(r"(\d+\.\d+)[\d.]*")
_RHEL = re.compile(r"\.el(?P<major>\d+)(?P<variant>[a-z]*)(?:_(?P<minor>\d+))?(?=[.+]|$)")
_TAG = re.compile(r"[-.+~](fc\d+|amzn\d+|deb\d+|bpo\d*|azl\d+|mga\d+)(?![a-z0-9])")
_SUSE = re.compile(r"[\d.]+-(\d+)\.\d[\d.]*-[a-z]")
# Parts of a release that are versions: of the build, the distribution, the source.
_VERSIONS = re.compile(r"\d+|rc\d+|el\d+\w*|fc\d+|amzn\d+|deb\d+\w*|bpo\d*|azl\d+|mga\d+|g[0-9a-f]{7,}")
_NUMBERED = re.compile(r"^(rt|arch|zen|hardened|xanmod|lqx)\d+$")


@lru_cache(maxsize=256)
def stream_of(krel: str) -> str:
    """Kernels of one stream are meant to load one another's modules, as far as their CRCs agree."""
    found = _SERIES.match(krel)
    series = found[1] if found else krel
    if rhel := _RHEL.search(krel):
        minor = f"_{rhel['minor']}" if rhel["minor"] and int(rhel["major"]) >= PER_MINOR else ""
        return f"{series} el{rhel['major']}{rhel['variant']}{minor}"
    tag = _TAG.search(krel) or _SUSE.match(krel)
    return f"{series} {tag[1]}" if tag else series


@lru_cache(maxsize=256)
def flavour_of(krel: str) -> str:
    """What is left without versions; empty where the release is nothing but a version."""
    found = _SERIES.match(krel)
    parts = re.split(r"[-.+~]", krel[found.end() :] if found else krel)
    names = (_NUMBERED.sub(r"\1", part) for part in parts if part and not _VERSIONS.fullmatch(part))
    return "-".join(dict.fromkeys(names))


def rhel_release(krel: str) -> tuple[int, int | None, str] | None:
    """Major and minor release and architecture, of kernels of RHEL and its rebuilds."""
    found = _RHEL.search(krel)
    if found is None or found["variant"]:
        return None
    arch = re.match(r"[.](?:centos[.]plus[.])?(\w+)", krel[found.end() :])
    minor = int(found["minor"]) if found["minor"] else None
    return (int(found["major"]), minor, arch[1]) if arch else None
