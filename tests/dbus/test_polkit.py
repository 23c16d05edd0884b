"""The real polkitd on a private bus: who may change something, who is asked, and that nobody waits for the asking."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from autokmod.daemon.authorize import REQUIRED, Action, judge
from autokmod.daemon.bus import INTERFACE, NAME, PATH
from autokmod.errors import AutokmodError
from tests.dbus.busmachine import LIMIT_S, NOBODY, Machine
from tests.dbus.peers import password_prompt, running_polkitd
from tests.dbus.test_service import A
from tests.unit.handmade import add_kernel

pytestmark = [pytest.mark.dbus, pytest.mark.root]

RULE = """polkit.addRule(function(action, subject) {{
    if (subject.user == "nobody" && action.id == "{action}") return polkit.Result.{answer};
}});
"""


def rule(answer: str, action: Action = Action.RECONCILE) -> str:
    return RULE.format(action=action.value, answer=answer)


def asking(machine: Machine, method: str, *args: str) -> subprocess.CompletedProcess[str]:
    """A plain user's call that lets polkit ask somebody: busctl's default."""
    return machine.busctl("call", NAME, PATH, INTERFACE, method, *args, before=NOBODY)


@pytest.mark.parametrize(
    ("authorized", "challenge", "interactive", "name"),
    [
        (True, False, False, None),
        (True, True, True, None),
        (False, True, False, REQUIRED),
        (False, True, True, "NotAuthorized"),
        (False, False, False, "NotAuthorized"),
        (False, False, True, "NotAuthorized"),
    ],
)
def test_what_is_made_of_its_answer(authorized: bool, challenge: bool, interactive: bool, name: str | None) -> None:
    refusal = judge(Action.CANCEL, authorized=authorized, challenge=challenge, interactive=interactive)
    assert (refusal.dbus_name if isinstance(refusal, AutokmodError) else None) == name


def test_a_rule_permits_one_action_and_no_other(machine: Machine) -> None:
    add_kernel(machine.paths, A)
    with running_polkitd(machine, rule("YES")), machine.daemon(), machine.signals() as signals:
        machine.settled(A)
        done = asking(machine, "Reconcile", "asb", "1", A, "false")
        assert done.returncode == 0, done.stderr
        signals.until_told("JobRemoved", f"'reconcile-{A}', 'done'")
        name, text = machine.error("CancelJob", "1", before=NOBODY)
        assert (name, text) == (REQUIRED, "a password is needed to cancel jobs, and nobody may be asked for it")


def test_a_rule_forbids_it(machine: Machine) -> None:
    with running_polkitd(machine, rule("NO")), machine.daemon() as daemon:
        assert machine.error("Reconcile", "[]", "false", before=NOBODY)[0] == "NotAuthorized"
        done = asking(machine, "Reconcile", "asb", "0", "false")
        assert "not permitted to queue work: try it as root" in done.stderr
        assert "Traceback" not in daemon.log


def test_nobody_there_to_ask(machine: Machine) -> None:
    """The caller agrees, but no agent is at hand: that is a refusal, and no hint that asking would help."""
    with running_polkitd(machine), machine.daemon():
        assert machine.error("Reconcile", "[]", "false", before=NOBODY)[0] == REQUIRED
        assert "not permitted to queue work" in asking(machine, "Reconcile", "asb", "0", "false").stderr


def test_root_is_not_asked(machine: Machine) -> None:
    forbidden = "polkit.addRule(function(action, subject) { return polkit.Result.NO; });"
    with running_polkitd(machine, forbidden), machine.daemon():
        assert machine.call("Reconcile", "0", "false") == []


def test_without_polkit_only_root_may(machine: Machine) -> None:
    with machine.daemon() as daemon:
        assert machine.error("Reconcile", "[]", "false", before=NOBODY)[0] == "NotAuthorized"
        assert "not permitted to queue work" in asking(machine, "Reconcile", "asb", "0", "false").stderr
        assert machine.call("Reconcile", "0", "false") == []
        assert daemon.log == ""


def test_what_changes_nothing_needs_no_permission(machine: Machine) -> None:
    with running_polkitd(machine), machine.daemon():
        assert asking(machine, "CollectGarbage", "b", "true").returncode == 0
        assert machine.error("CollectGarbage", "false", before=NOBODY)[0] == REQUIRED


def test_a_person_is_asked_and_the_loop_goes_on(machine: Machine) -> None:
    """polkit's own agent asks for a password. Nobody types one; meanwhile all others are served."""
    add_kernel(machine.paths, A)
    call = f"exec busctl --system call {NAME} {PATH} {INTERFACE} Reconcile asb 0 false"
    argv = [*NOBODY, "sh", "-c", f"read go; {call}"]
    with (
        running_polkitd(machine),
        machine.daemon(),
        subprocess.Popen(argv, env=machine.env(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asker,
    ):
        assert asker.stdin is not None
        with password_prompt(machine, asker.pid) as terminal:
            asker.stdin.write("go\n")
            asker.stdin.flush()
            while "Password:" not in os.read(terminal, 4096).decode():
                pass
            assert asker.poll() is None
            machine.settled(A)
            assert machine.call("ListKernels")[0]["krel"] == A
            assert machine.call("Reconcile", "0", "false")
        _, said = asker.communicate(timeout=LIMIT_S)
        assert "not permitted to queue work" in said


def test_autokmodctl_brings_an_agent_to_a_terminal(machine: Machine) -> None:
    """Asked for a password, the person thinks better of it."""
    add_kernel(machine.paths, A)
    argv = [*NOBODY, sys.executable, "-m", "autokmod.ctl.main", "--root", str(machine.paths.root), "reconcile", A]
    with running_polkitd(machine), machine.daemon():
        machine.settled(A)
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe(argv[0], argv, machine.env())
        said = ""
        while "Password:" not in said:
            said += os.read(terminal, 4096).decode()
        assert "Authentication is required to build and place kernel modules" in said
        os.write(terminal, b"\x03")
        _, ended = os.waitpid(pid, 0)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(ended) in (1, 130)
