"""What is said while the machine goes down: on the console, and on plymouth's screen as soon as there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokmod.daemon import bounded
from autokmod.daemon.bounded import Screen
from autokmod.run import ENV

# Stands in for the client: its daemon is up when the file "up" is there, and hangs when "hangs" is.
PLYMOUTH = """\
#!/bin/sh
echo "$@" >>{directory}/asked
[ ! -e {directory}/hangs ] || exec sleep 60
[ -e {directory}/up ] || exit 1
echo "$2" >>{directory}/shown
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, which comes first where commands are looked for; a real plymouth is not found."""
    (tmp_path / "sleep").symlink_to("/bin/sleep")
    monkeypatch.setattr("autokmod.run.ENV", {**ENV, "PATH": str(tmp_path)})
    return tmp_path


def install(tools: Path) -> None:
    program = tools / "plymouth"
    program.write_text(PLYMOUTH.format(directory=tools))
    program.chmod(0o755)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_its_daemon_comes_up_later(tools: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(tools)
    screen = Screen()
    screen.say("first")
    (tools / "up").touch()
    screen.say("second")
    (tools / "up").unlink()
    screen.say("third")
    (tools / "up").touch()
    screen.say("fourth")
    assert lines(tools / "shown") == ["--text=autokmod: second", "--text=autokmod: fourth"]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"autokmod: {word}" for word in ("first", "second", "third", "fourth")]


def test_without_it_nothing_is_looked_for_again(tools: Path) -> None:
    screen = Screen()
    screen.say("first")
    install(tools)
    (tools / "up").touch()
    screen.say("second")
    assert lines(tools / "asked") == []


def test_one_that_hangs_holds_up_one_line(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "PLYMOUTH_S", 2.0)
    install(tools)
    (tools / "hangs").touch()
    screen = Screen()
    for word in ("first", "second"):
        screen.say(word)
    assert len(lines(tools / "asked")) == 1
