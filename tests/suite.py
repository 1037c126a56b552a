#!/usr/bin/env python3
"""Runs test programs built by cargo, one after another, and prints one line for each test:

    ok NAME            not ok NAME: WHY            skip NAME: REASON

and lines beginning with "# " for a person.  The last line is the plan, "1..N": without it the run was cut
short.  The same file runs on this machine and, with a copy of the programs, inside a guest.

    suite.py LIST [--after PROGRAM] [--filter TEXT] [--timeout SECONDS]

LIST is a JSON file: {"bin": FOLDER, "programs": [{"name", "file", "source"}]}; paths are relative to it.
A test that cannot run here appends "name<TAB>reason" to the file $CTR_TEST_SKIPS and returns.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

# Anywhere in the line: a child of a test may have written to the same output without a line's end.
RESULT = re.compile(r"test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)(?:, (.*))?$")
SUMMARY = re.compile(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")


def say(line: str):
    print(line, flush=True)


class Tally:
    """Counts what has been said."""

    def __init__(self):
        self.count = self.failed = 0

    def ok(self, name):
        self.count += 1
        say(f"ok {name}")

    def skip(self, name, reason):
        self.count += 1
        say(f"skip {name}: {reason or 'no reason given'}")

    def fail(self, name, why, details=()):
        self.count += 1
        self.failed += 1
        say(f"not ok {name}: {why}")
        for line in details:
            say(f"#     {line}")


def environment(here: Path, listed: dict, source: Path, skips: Path) -> dict:
    programs = (here / listed["bin"]).resolve()
    return dict(
        os.environ,
        CTR_BIN=str(programs / "ctr"),
        CTR_TEST_SKIPS=str(skips),
        # As cargo would; the copy in a guest lies elsewhere than where the program was compiled.
        CARGO_MANIFEST_DIR=str(source),
        INSTA_WORKSPACE_ROOT=str(workspace(source)),
        INSTA_UPDATE="no",
        RUST_BACKTRACE="0",
    )


def workspace(source: Path) -> Path:
    """The folder that the paths in a test program begin at: not the package's but the one with the lock file."""
    return next((folder for folder in (source, *source.parents) if (folder / "Cargo.lock").exists()), source)


def skipped(file: Path, test: str):
    """The reason that the test has left in the file of skips, or None."""
    for line in file.read_text(errors="replace").splitlines():
        name, _, reason = line.partition("\t")
        if test == name or test.endswith(f"::{name}"):
            return reason
    return None


def run(program: dict, here: Path, listed: dict, options, tally: Tally):
    name, source = program["name"], (here / program["source"]).resolve()
    with tempfile.NamedTemporaryFile(prefix="ctr-skips-") as skips:
        # A test may have changed its identity by the time it skips.
        os.chmod(skips.name, 0o666)
        process = subprocess.Popen(
            [str((here / program["file"]).resolve()), "--color=never", *options.filter],
            cwd=source,
            env=environment(here, listed, source, Path(skips.name)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        late = threading.Event()

        def stop():
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        alarm = threading.Timer(options.timeout, stop)
        alarm.daemon = True
        alarm.start()
        output = follow(process, name, Path(skips.name), tally)
        alarm.cancel()
    conclude(name, process.returncode, options.timeout if late.is_set() else None, output, tally)


class Output:
    """What a test program has printed, and what was understood of it."""

    def __init__(self):
        self.lines, self.failed, self.seen, self.summary = [], [], [0, 0, 0], None


def follow(process, program: str, skips: Path, tally: Tally) -> Output:
    output = Output()
    reader = threading.Thread(target=read, args=(process.stdout, program, skips, tally, output), daemon=True)
    reader.start()
    process.wait()
    # A process that a test left behind may hold the pipe open for ever; nothing follows the summary.
    for _ in range(100):
        reader.join(timeout=0.1)
        if output.summary or not reader.is_alive():
            break
    return output


def read(pipe, program: str, skips: Path, tally: Tally, output: Output):
    for raw in pipe:
        line = raw.decode(errors="replace").rstrip("\n")
        output.lines.append(line)
        if found := SUMMARY.search(line):
            output.summary = [int(number) for number in found.groups()]
        elif found := RESULT.search(line):
            note(found, program, skips, tally, output)


def note(found, program: str, skips: Path, tally: Tally, output: Output):
    test, result, reason = found.groups()
    name = f"{program}::{test}"
    output.seen[("ok", "FAILED", "ignored").index(result)] += 1
    if result == "FAILED":
        output.failed.append(test)
    elif result == "ignored":
        tally.skip(name, f"ignored{': ' + reason if reason else ''}")
    elif (why := skipped(skips, test)) is not None:
        tally.skip(name, why)
    else:
        tally.ok(name)


def conclude(program: str, status: int, limit, output: Output, tally: Tally):
    """Failures are told at the end, where the reasons stand."""
    for test in output.failed:
        details = failure(output.lines, test)
        tally.fail(f"{program}::{test}", first_words(details), details)
    if limit is not None:
        tally.fail(program, f"no end after {limit:.0f} s", output.lines[-20:])
    elif output.summary is None:
        tally.fail(program, f"died, status {status}", output.lines[-20:])
    else:
        # Results whose lines were torn by other output still count.
        passed, failed, _ = (told - seen for told, seen in zip(output.summary, output.seen))
        for number in range(passed):
            tally.ok(f"{program}::(unreadable {number + 1})")
        for number in range(failed):
            tally.fail(f"{program}::(unreadable {number + 1})", "see the log")
        if status != 0 and not output.summary[1]:
            tally.fail(program, f"all tests passed, yet its status is {status}")


def failure(lines: list, test: str) -> list:
    """The part of libtest's report that is about one test."""
    header = f"---- {test} stdout ----"
    if header not in lines:
        return []
    part = []
    for line in lines[lines.index(header) + 1 :]:
        if line.startswith("---- ") or line == "failures:":
            break
        part.append(line)
    return [line for line in part if line.strip()]


def first_words(details: list) -> str:
    """The message of a panic: it follows the line that says where."""
    for place, message in zip(details, details[1:]):
        if " panicked at " in place:
            return message[:300]
    return details[0][:300] if details else "see the log"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("list", type=Path)
    parser.add_argument("--after", help="leave out the programs up to and with this one")
    parser.add_argument("--filter", action="append", default=[], help="only tests whose name contains this")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for each program")
    options = parser.parse_args()
    # Who starts us in the background may ignore them, and then so would all that is tested.
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    here = options.list.resolve().parent
    listed = json.loads(options.list.read_text())
    programs = listed["programs"]
    if options.after:
        names = [program["name"] for program in programs]
        programs = programs[names.index(options.after) + 1 :]
    tally = Tally()
    for program in programs:
        say(f"# program {program['name']}")
        run(program, here, listed, options, tally)
    say(f"1..{tally.count}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    # Not sys.exit: a reader thread may still wait for a pipe that something left behind holds open.
    code = main()
    sys.stdout.flush()
    os._exit(code)
