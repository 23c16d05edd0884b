"""What a person would type on the machine, and what has to be true afterwards."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from autokmod.events import Event
from tests.vmsys.machine import Machine
from tests.vmsys.protocol import Answer

# As the sources' recipes have them.
MODULES = {"vpoll": "vpoll", "acpi-call": "acpi_call"}
ANYBODY = "anybody"  # whose modules they are does not matter
SPOOL = "/var/lib/autokmod/spool"
EVENT_S = 600  # for what nobody can say when it will be done


@dataclass
class Guest:
    machine: Machine

    def run(self, command: str) -> Answer:
        return self.machine.run(command)

    def sh(self, command: str) -> str:
        """The output of what must succeed."""
        return self.machine.run(command).ok

    def apt(self, *words: str) -> str:
        return self.sh(f"apt-get -q -y {shlex.join(words)}")

    def reboot(self, into: str, command: str = "systemctl reboot") -> None:
        self.machine.reboot(into, command)
        self.come_to_rest()

    def cut_power(self, then: str) -> None:
        """In the middle of whatever it does; `then` is booted next."""
        self.machine.cut_power()
        self.machine.power_on(then)

    def load_in_initrd(self, module: str) -> None:
        """From the next image on, which is counted, whoever has it made."""
        counter = '#!/bin/sh\n[ "$1" = prereqs ] || logger -t initrd-made "$version"\n'
        hook = "/etc/initramfs-tools/hooks/counter"
        self.sh(f"printf %s {shlex.quote(counter)} >{hook} && chmod +x {hook}")
        self.sh(f"echo {module} >>/etc/initramfs-tools/modules")

    def come_to_rest(self) -> None:
        """After a boot: every unit has started, none has failed, and nothing is queued any more."""
        state = self.run("systemctl is-system-running --wait").output.strip()
        assert state == "running", f"{state}\n{self.run('systemctl --failed --no-legend').output}\n{self.tell()}"
        self.wait()

    # ---- looking

    def status(self, krel: str) -> dict[str, Any]:
        answer = self.run(f"autokmodctl status {krel} --json=short")
        assert answer.status in (0, 3), answer.output
        (kernel,) = json.loads(answer.output)["kernels"]
        return dict(kernel)

    def placements(self, krel: str) -> dict[str, Any]:
        return {p["package"]: p for p in self.status(krel)["placements"]}

    def journal(self, event: Event, **fields: str) -> list[dict[str, Any]]:
        """Of every boot."""
        matches = [f"MESSAGE_ID={event}", *(f"AUTOKMOD_{k.upper()}={v}" for k, v in fields.items())]
        lines = self.sh(f"journalctl --no-pager -q -o json {shlex.join(matches)}").splitlines()
        return [json.loads(line) for line in lines]

    def booted(self, krel: str) -> dict[str, str]:
        """What autokmod says of the running kernel's modules, in this boot."""
        check = self.status(krel)["booted"]
        assert check["boot_id"] == self.sh("cat /proc/sys/kernel/random/boot_id").strip()
        return {m["module"]: m["state"] for m in check["modules"]}

    def initrds_made(self, krel: str) -> int:
        return self.sh("journalctl --no-pager -q -o cat -t initrd-made").split().count(krel)

    # ---- waiting

    def wait(self) -> None:
        """Until nothing is queued. For what the daemon has to notice first there is `until`."""
        self.run("autokmodctl wait --quiet")

    def until(self, condition: str, limit_s: int = EVENT_S) -> None:
        """A condition of bash, asked again and again."""
        loop = f"SECONDS=0; until {condition}; do ((SECONDS < {limit_s})) || exit 1; sleep 0.2; done"
        assert self.run(loop).status == 0, f"not within {limit_s} s: {condition}\n{self.tell()}"

    def until_examined(self, krel: str, version: str) -> None:
        """The record of the kernel speaks of this version of a package, and nothing is queued any more."""
        self.until(f"""grep -q '"version": "{version}"' /var/lib/autokmod/kernels/{krel}.json""")
        self.wait()

    # ---- judging

    def prove(
        self, owner: str | None = None, packages: Sequence[str] = tuple(MODULES), event: Event | None = None
    ) -> None:
        """On the running kernel every module loads: its own, or `owner`'s; status and journal say the same."""
        krel = self.machine.krel
        placements = self.placements(krel)
        for package in packages:
            placement = placements[package]
            assert (placement["verified"], placement["failed"]) == (True, False), placement
            found = placement["link_from"]
            assert owner in (found, ANYBODY), placement
            self._prove_module(krel, MODULES[package], found)
            kind = event or (Event.PACKAGE_LINKED if found else Event.PACKAGE_BUILT)
            about = {} if event else {"package": package}
            assert self.journal(kind, kernel=krel, **about), f"the journal has no {kind.name} of {package}"
        self.sh(f"modprobe -r {' '.join(MODULES[p] for p in packages)}")

    def _prove_module(self, krel: str, module: str, owner: str | None) -> None:
        self.sh(f"modprobe {module} && test -d /sys/module/{module}")
        path = PurePosixPath(self.sh(f"modinfo -F filename {module}").strip())
        room = "weak-updates" if owner else "updates"
        assert path.is_relative_to(f"/lib/modules/{krel}/{room}/autokmod"), path
        real = PurePosixPath(self.sh(f"readlink -e {path}").strip())
        assert real.is_relative_to(f"/usr/lib/modules/{owner or krel}/updates/autokmod"), real

    def prove_early(self, module: str) -> None:
        """It was loaded before the root file system was mounted, and is the one that stands on disk."""
        said = self.sh("journalctl --no-pager -q -k -b -o cat").splitlines()
        loaded, mounted = f"{module}: loading out-of-tree module taints kernel.", "EXT4-fs (vda): mounted filesystem"
        marks = [mark for line in said for mark in (loaded, mounted) if line.startswith(mark)]
        assert marks == [loaded, mounted], said
        note = ".note.gnu.build-id"
        self.sh(f"objcopy --dump-section {note}=/run/id $(modinfo -F filename {module}) /dev/null")
        self.sh(f"cmp /run/id /sys/module/{module}/notes/{note}")

    def nothing_dangles(self) -> None:
        assert self.sh("find /lib/modules/ -xtype l -path '*autokmod*'") == ""

    def nothing_is_left_over(self) -> None:
        """Of an interrupted publication; each is one file under a name of its own, or a spool's entry."""
        assert self.sh(f"find /lib/modules/ -path '*autokmod*' -name '.*'; ls -A {SPOOL}") == ""

    def tell(self) -> str:
        """What a person would look at first."""
        answers = [self.run(c) for c in ("autokmodctl status", "journalctl -b -q --no-pager -n 60", "ls -la " + SPOOL)]
        return "\n".join(f"$ {a.command}\n{a.output}" for a in answers)
