"""Fuzz the readers under atheris (libFuzzer), at low priority, with a corpus that grows in the cache.

    /usr/bin/python3 -m venv --system-site-packages DIR && DIR/bin/pip install atheris
    DIR/bin/python -m tests.fuzz [--seconds 120] [TARGET…]

Each target runs in a process of its own: a crash, ten seconds without an answer, or 1 GiB of memory is a finding. It
is kept beside the corpus, and belongs into the unit tests before it is mended. Exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.corpus import Corpus
from tests.fuzz.seeds import seed
from tests.fuzz.targets import TARGETS

OPTIONS = ("-timeout=10", "-rss_limit_mb=1024", "-max_len=65536", "-print_final_stats=1", "-close_fd_mask=0")


def main() -> int:
    args = parse_args()
    corpus = Corpus()
    directory = corpus.directory / "fuzz"
    seed(corpus, directory)
    os.nice(19)
    print(f"{'target':<12} {'executions':>11} {'a second':>9} {'inputs kept':>12} {'peak MiB':>9}  findings")
    findings = [finding for target in args.targets for finding in fuzz(target, directory, args.seconds)]
    print("\n".join(["", *map(str, findings)]) if findings else "nothing found")
    return 1 if findings else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=120, help="for each target")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    args = parser.parse_args()
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}")
    return args


def fuzz(target: str, directory: Path, seconds: int) -> list[Path]:
    found = directory / "findings"
    found.mkdir(exist_ok=True)
    before = set(found.iterdir())
    options = (*OPTIONS, f"-max_total_time={seconds}", f"-artifact_prefix={found}/{target}-")
    command = [sys.executable, "-m", "tests.fuzz.one", target, *options, str(directory / target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    findings = sorted(set(found.iterdir()) - before)
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    if done.returncode != 0 and not findings:
        raise SystemExit(f"{target} did not run:\n{done.stderr[-2000:]}")
    numbers = [int(stats.get(f"{n}", 0)) for n in ("number_of_executed_units", "average_exec_per_sec")]
    kept, peak = len(list((directory / target).iterdir())), int(stats.get("peak_rss_mb", 0))
    print(f"{target:<12} {numbers[0]:>11} {numbers[1]:>9} {kept:>12} {peak:>9}  {len(findings)}", flush=True)
    for finding in findings:
        finding.with_suffix(".txt").write_text(done.stderr[-6000:])
    return findings


if __name__ == "__main__":
    raise SystemExit(main())
