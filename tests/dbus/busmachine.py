"""A bus of our own under the shipped policy, the real daemon on it, and clients that know only the XML."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autokmod.daemon.bus import INTERFACE, NAME, PATH
from autokmod.paths import Paths

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 60.0  # for what hangs
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
# The base of every system bus (dbus-daemon's system.conf), with the policy that is installed beside it.
BUS_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
  </policy>
  <policy user="root"><allow send_destination="org.freedesktop.DBus"/></policy>
  <include>{policy}</include>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.login1.conf</include>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.systemd1.conf</include>
</busconfig>
"""


@dataclass(frozen=True)
class PrivateBus:
    address: str
    process: subprocess.Popen[str]


@contextmanager
def running_bus(directory: Path) -> Iterator[PrivateBus]:
    """Everybody may connect, so every directory above the socket must be passable."""
    path, config = directory / "bus", directory / "bus.conf"
    config.write_text(BUS_CONFIG.format(socket=path, policy=CHECKOUT / f"systemd/{NAME}.conf"))
    argv = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("unix:")
            yield PrivateBus(f"unix:path={path}", process)
        finally:
            process.terminate()


class Notifications:
    """systemd's side of sd_notify: reads all the time, so that nobody waits for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self.seen: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while (data := self._sock.recv(4096)) != b"":
            with self._more:
                self.seen += data.decode().splitlines()
                self._more.notify_all()

    def until(self, line: str, times: int = 1) -> None:
        with self._more:
            assert self._more.wait_for(lambda: self.seen.count(line) >= times, LIMIT_S), self.seen

    def count(self, line: str) -> int:
        """How often it was sent until now."""
        before = self.seen.count("X_TEST=1")
        self._send(b"X_TEST=1")
        self.until("X_TEST=1", before + 1)
        return self.seen.count(line)

    def _send(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(data, str(self.path))

    def close(self) -> None:
        self._send(b"")
        self._reader.join()
        self._sock.close()


class Daemon:
    def __init__(self, process: subprocess.Popen[str], log: Path, notifications: Notifications) -> None:
        self.process, self._log, self.notifications = process, log, notifications

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


class Machine:
    """A root directory, a bus, and one daemon after another."""

    def __init__(self, directory: Path, bus: str, root: Path | None = None) -> None:
        """`root`: a system that is there already."""
        directory.mkdir(exist_ok=True)
        self.directory, self.bus = directory, bus
        self.paths = Paths(root or directory / "root")
        if root is None:
            self.paths.root.mkdir()
            (self.paths.root / "lib").symlink_to("usr/lib")
            self.paths.modules.mkdir(parents=True)
        self._count = 0

    def env(self, **more: str) -> dict[str, str]:
        mine = {"PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8", "DBUS_SYSTEM_BUS_ADDRESS": self.bus}
        return {"PATH": os.environ["PATH"], **mine, **more}

    def argv(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "autokmod.daemon.main", "--root", str(self.paths.root), *options]

    @contextmanager
    def daemon(self, *options: str, ready: bool = True, stderr: int | None = None, **env: str) -> Iterator[Daemon]:
        """When it is left, the daemon must have ended well, unless the test ended it. `stderr`: instead of the log."""
        self._count += 1
        log = self.directory / f"daemon{self._count}.log"
        notifications = Notifications(self.directory / f"notify{self._count}")
        argv = self.argv(*options)
        env = self.env(NOTIFY_SOCKET=str(notifications.path), **env)
        with (
            open(log, "w") as out,
            subprocess.Popen(argv, env=env, stderr=out if stderr is None else stderr, stdout=out, text=True) as process,
        ):
            daemon = Daemon(process, log, notifications)
            try:
                if ready:
                    notifications.until("READY=1")
                yield daemon
                if process.poll() is None:
                    assert daemon.stop() == 0, daemon.log
            except BaseException:
                print(daemon.log)
                raise
            finally:
                process.kill()
                notifications.close()

    def known(self) -> set[str]:
        """The kernels that a job has looked at."""
        return {f.stem for f in self.paths.kernels.glob("*.json")}

    def settled(self, *krels: str) -> None:
        """The daemon's own look after its start is over."""
        until(lambda: self.known() == set(krels) and self.get("NJobs") == 0)

    # ---- clients that know only the XML ----

    def busctl(self, *args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return self._run([*before, "busctl", "--system", "--json=short", *args])

    def call(self, method: str, *args: str) -> Any:
        """What a method returns, by busctl."""
        shape = [SHAPES[method], *args] if method in SHAPES else []
        done = self.busctl("call", NAME, PATH, INTERFACE, method, *shape)
        assert done.returncode == 0, done.stderr
        return plain(json.loads(done.stdout)["data"][0]) if done.stdout.strip() else None

    def error(
        self, method: str, *args: str, before: tuple[str, ...] = (), interface: str = INTERFACE
    ) -> tuple[str, str]:
        """Name and text of the error that a method answers with, by gdbus."""
        target = ["--dest", NAME, "--object-path", PATH, "--method", f"{interface}.{method}"]
        done = self._run([*before, "gdbus", "call", "--system", *target, *args])
        assert done.returncode != 0, done.stdout
        found = re.match(r"Error: GDBus\.Error:([\w.]+): (.*)", done.stderr)
        assert found, done.stderr
        return found[1].removeprefix(f"{NAME}.Error."), found[2]

    def get(self, name: str) -> Any:
        done = self.busctl("get-property", NAME, PATH, INTERFACE, name)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["data"]

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env=self.env(), capture_output=True, text=True, timeout=LIMIT_S)

    @contextmanager
    def signals(self) -> Iterator[Signals]:
        argv = ["gdbus", "monitor", "--system", "--dest", NAME, "--object-path", PATH]
        with subprocess.Popen(argv, env=self.env(), stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                signals = Signals(process.stdout.fileno())
                signals.until_told("is owned by")
                yield signals
            finally:
                process.terminate()


class Signals:
    """Each line as `gdbus monitor` prints it, without the object's path."""

    def __init__(self, fd: int) -> None:
        self._fd, self._rest = fd, b""
        self._todo: list[str] = []
        self.lines: list[str] = []

    def until_told(self, *words: str) -> str:
        """The next line with all of these words. Lines before it are passed over."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            while not self._todo:
                self._read(deadline)
            line = self._todo.pop(0)
            if all(word in line for word in words):
                return line

    def _read(self, deadline: float) -> None:
        ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"not told; told were: {self.lines}"
        data = os.read(self._fd, 65536)
        assert data, "the monitor ended"
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._todo += [line.decode().removeprefix(f"{PATH}: {INTERFACE}.") for line in whole]
        self.lines += self._todo[-len(whole) :] if whole else []


def until(condition: Callable[[], object]) -> None:
    """For what nobody tells about."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def plain(value: Any) -> Any:
    """busctl's JSON without the types that it gives for each variant."""
    if isinstance(value, dict) and set(value) == {"type", "data"}:
        return plain(value["data"])
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


SHAPES = {"GetJob": "u", "Explain": "ss", "CancelJob": "u", "Reconcile": "asb", "CollectGarbage": "b"}
SHAPES |= {"RestoreInitrd": "s", "Verify": "as"}
