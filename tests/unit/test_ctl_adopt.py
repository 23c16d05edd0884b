"""autokmodctl adopt and release, and what status says of neighbours: the program as it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokmod.jobs.spool import Spool
from autokmod.paths import Paths
from tests.unit.dkmshere import DEBIAN, debian, write
from tests.unit.handmade import add_kernel, add_source
from tests.unit.test_ctl import A, as_nobody, ctl, daemon_lock, data

ACTIVE = """\
DKMS is active as well: it builds for new kernels and packages; what it installs is left alone
  → 'autokmodctl adopt dkms' leaves all of it to autokmod
"""
ADOPTED = "DKMS is adopted: it builds nothing by itself until 'autokmodctl release dkms'\n"

__all__ = ["as_nobody"]  # a fixture


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    add_kernel(paths, A)
    debian(paths)
    return paths


def queued(paths: Paths) -> list[tuple[str, str]]:
    return [(job.name, job.why) for job in Spool(paths).jobs()]


def test_there_and_back(paths: Paths) -> None:
    assert ctl(paths, "status").stdout.endswith(ACTIVE)
    done = ctl(paths, "adopt", "dkms")
    assert done.returncode == 0
    assert done.stdout == (
        "masked /etc/kernel/postinst.d/dkms\n"
        "masked /etc/kernel/header_postinst.d/dkms\n"
        "masked /usr/lib/dkms/common.postinst (by /etc/dkms/no-autoinstall)\n"
    )
    assert "DKMS is adopted: autokmod alone builds and links its packages from now on.\n" in done.stderr
    assert "Queued: a look at every kernel. autokmodd is not running" in done.stderr
    assert queued(paths) == [("rescan-all", "admin")]
    assert ctl(paths, "status").stdout.endswith(ADOPTED)
    (paths.spool / "rescan-all.json").unlink()

    again = ctl(paths, "adopt", "dkms")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == "DKMS is adopted already: nothing to do.\n"
    assert queued(paths) == []
    paths.at(DEBIAN[0]).chmod(0o755)
    assert "postinst.d/dkms came back\n  → 'autokmodctl adopt dkms' masks that again\n" in ctl(paths, "status").stdout
    again = ctl(paths, "adopt", "dkms")
    assert again.stdout == "masked /etc/kernel/postinst.d/dkms\n"
    assert "what had come back is masked again" in again.stderr

    given = ctl(paths, "release", "dkms")
    masked = done.stdout.splitlines()
    assert given.returncode == 0
    assert sorted(given.stdout.splitlines()) == sorted(line.replace("masked", "gave back") for line in masked)
    assert given.stderr == "DKMS is released: it builds for new kernels and packages again.\n"
    assert ctl(paths, "status").stdout.endswith(ACTIVE)
    again = ctl(paths, "release", "dkms")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "DKMS is not adopted: nothing to do.\n")


def test_dry_runs(paths: Paths, as_nobody: tuple[str, ...]) -> None:
    """Anybody may ask what would be done."""
    seen = ctl(paths, "adopt", "dkms", "--dry-run", before=as_nobody)
    assert (seen.returncode, seen.stderr) == (0, "Nothing was changed.\n")
    assert seen.stdout.splitlines()[0] == "would mask /etc/kernel/postinst.d/dkms"
    assert not paths.adopted.exists()
    ctl(paths, "adopt", "dkms", "--quiet")
    add_source(paths, "new", "1")
    seen = ctl(paths, "release", "dkms", "--dry-run", before=as_nobody)
    assert (seen.returncode, seen.stderr) == (0, "Nothing was changed.\n")
    assert seen.stdout.splitlines()[-1] == "would tell DKMS of new/1"
    assert paths.adopted.exists()


@pytest.mark.parametrize("verb", ["adopt", "release"])
def test_only_root_may(paths: Paths, as_nobody: tuple[str, ...], verb: str) -> None:
    done = ctl(paths, verb, "dkms", before=as_nobody)
    assert (done.returncode, done.stderr) == (1, f"autokmodctl: not permitted to {verb} DKMS: try it as root\n")


def test_json(paths: Paths) -> None:
    (told,) = data(ctl(paths, "status", "--json"))["neighbours"]
    assert (told["name"], told["adopted"], told["reason"]["kind"]) == ("dkms", False, "neighbour-active")
    assert told["triggers"][0] == {"way": "hook", "path": "/etc/kernel/postinst.d/dkms"}
    seen = data(ctl(paths, "adopt", "dkms", "--dry-run", "--json"))
    assert (seen["adopted"], seen["changed"], seen["dry_run"]) == (False, True, True)
    done = data(ctl(paths, "adopt", "dkms", "--json"))
    assert (done["adopted"], done["changed"], len(done["masks"])) == (True, True, 3)
    assert done["masks"][0]["mode"] == 0o755
    again = data(ctl(paths, "adopt", "dkms", "--json"))
    assert (again["adopted"], again["changed"], again["masks"]) == (True, False, [])
    (told,) = data(ctl(paths, "status", "--json"))["neighbours"]
    assert (told["adopted"], told["triggers"]) == (True, [])
    assert "neighbours" not in data(ctl(paths, "status", A, "--json"))
    seen = data(ctl(paths, "release", "dkms", "--dry-run", "--json"))
    assert (seen["adopted"], seen["masks"]) == (True, done["masks"])
    given = data(ctl(paths, "release", "dkms", "--json"))
    assert (given["adopted"], given["changed"], given["masks"], given["left"]) == (False, True, done["masks"], [])
    again = data(ctl(paths, "release", "dkms", "--json"))
    assert (again["adopted"], again["changed"]) == (False, False)


def test_what_stays_as_somebody_changed_it(paths: Paths) -> None:
    ctl(paths, "adopt", "dkms")
    paths.at("etc/dkms/no-autoinstall").write_text("mine\n")
    done = ctl(paths, "release", "dkms")
    assert done.returncode == 0
    assert "/etc/dkms/no-autoinstall was changed since: it stays as it is now\n" in done.stderr
    assert "no-autoinstall" not in done.stdout


def test_who_is_not_there(paths: Paths) -> None:
    paths.at("usr/sbin/dkms").unlink()
    done = ctl(paths, "adopt", "dkms")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "autokmodctl: DKMS is not installed: there is nothing to adopt\n"
    assert ctl(paths, "adopt", "akmods").returncode == 2
    assert ctl(paths, "adopt").returncode == 2


def test_a_running_daemon_takes_it_up(paths: Paths) -> None:
    with daemon_lock(paths):
        assert ctl(paths, "adopt", "dkms").stderr.endswith("Queued: a look at every kernel\n")


def test_other_neighbours(paths: Paths) -> None:
    paths.at("usr/sbin/dkms").unlink()
    write(paths, "usr/sbin/weak-modules")
    assert ctl(paths, "status").stdout.endswith(
        "weak-modules is active as well: packages have it link their modules into other kernels; that is left alone\n"
        "  → it may stay: nothing is linked twice\n"
    )
