#!/usr/bin/env python3
"""Debian guests with systemd and pure cgroup v2, under QEMU's emulation.

  tests/vm/guest.py build trixie bookworm        make the images (minutes, once)
  tests/vm/guest.py run trixie -- uname -r       run one command in a fresh guest (seconds)
  tests/vm/guest.py run trixie --user tester --push target/x:/opt/x -- /opt/x --flag
  tests/vm/guest.py shell trixie                 root's shell on the serial console (ends with: poweroff)

Images and saved states are kept in $CTR_TEST_CACHE (/var/cache/ctr-tests).  A guest forgets everything
when its command ends.  Exit status: the command's own; 124 after --timeout; 125 if the guest failed.
"""

import argparse
import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import host
import image
import qemu

HERE = Path(__file__).resolve().parent
# What the saved state is made of: a change in any of these means another guest.
INGREDIENTS = ("agent.py", "image.py", "qemu.py")
WARM_UP = [
    ("root", "systemctl is-system-running --wait; systemctl --failed --no-legend"),
    ("root", "for c in podman crun runc python3 strace; do $c --version; done >/dev/null 2>&1; true"),
    # Through machined and the user's own manager, as the tests will come.
    ("tester", "id; cat /proc/self/cgroup"),
]


def say(text: str):
    print(f"guest: {text}", file=sys.stderr, flush=True)


def key(suite: str) -> str:
    parts = [suite, json.dumps(image.PACKAGES[suite]), host.qemu_version()]
    parts += [(HERE / name).read_text() for name in INGREDIENTS] + [repr(WARM_UP)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def ready(suite: str) -> Path:
    """The folder of a built image, which is built first if need be."""
    host.need_qemu()
    folder = host.cache() / f"{suite}-{key(suite)}"
    if not (folder / "ready").exists():
        with host.lock(host.cache() / f"{suite}.lock", f"another build of {suite}"):
            if not (folder / "ready").exists():
                build(suite, folder)
    with contextlib.suppress(OSError):
        (folder / "ready").touch()
    return folder


def build(suite: str, folder: Path):
    start = time.monotonic()
    say(f"building {suite}")
    prune(suite)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    image.make(suite, folder)
    say(f"{suite}: image made after {time.monotonic() - start:.0f} s, booting it")
    boot_and_save(folder)
    (folder / "ready").touch()
    size = sum(file.stat().st_blocks * 512 for file in folder.iterdir()) >> 20
    say(f"{suite}: ready after {time.monotonic() - start:.0f} s, {size} MiB")


def prune(suite: str):
    """Removes images that nothing has used for a week; another checkout may still want the others."""
    for old in host.cache().glob(f"{suite}-*"):
        stamp = old / "ready" if (old / "ready").exists() else old
        if time.time() - stamp.stat().st_mtime > 7 * 86400:
            shutil.rmtree(old, ignore_errors=True)


def boot_and_save(folder: Path):
    with one_at_a_time(), workplace() as work:
        guest = qemu.Guest(folder, work, throwaway=False)
        try:
            for user, script in WARM_UP:
                words = bytearray()
                status = guest.run(
                    ["sh", "-c", script], lambda _, data: words.extend(data), user=user, timeout=300, answer=300
                )
                say(f"{user}: {words.decode(errors='replace').strip()}")
                if status != 0:
                    raise qemu.Dead(f"warming up failed with status {status}: {script}")
            try:
                guest.save(folder / "state")
            except qemu.Dead as error:
                # Slower, but it works: every run boots.
                say(f"no saved state: {error}")
                (folder / "state").unlink(missing_ok=True)
        except (qemu.Dead, TimeoutError):
            print(guest.console_tail(), file=sys.stderr)
            raise
        finally:
            guest.kill()


def one_at_a_time():
    return host.lock(host.cache() / "guest.lock", "the guest that is running")


@contextlib.contextmanager
def workplace():
    with tempfile.TemporaryDirectory(prefix="run-", dir=host.cache()) as folder:
        yield Path(folder)


def start(folder: Path, work: Path, push: list, cold: bool) -> qemu.Guest:
    """A guest that answers, resumed if possible."""
    state = folder / "state"
    if state.exists() and not cold:
        guest = None
        try:
            guest = qemu.Guest(folder, work, state=state)
            guest.push(push)
            guest.run(["true"], lambda *_: None, timeout=60, answer=30)
            return guest
        except (qemu.Dead, OSError) as error:
            say(f"cannot resume the saved state ({error}), booting")
            if guest:
                guest.kill()
    guest = qemu.Guest(folder, work)
    guest.push(push)
    guest.run(["true"], lambda *_: None, timeout=300, answer=300)
    return guest


def run(options) -> int:
    folder = ready(options.suite)
    streams = {"o": sys.stdout.buffer, "e": sys.stderr.buffer}

    def output(kind, data):
        streams[kind].write(data)
        streams[kind].flush()

    with one_at_a_time(), workplace() as work:
        guest = start(folder, work, options.push, options.cold)
        try:
            return guest.run(
                options.command, output, options.user, dict(options.env), options.cwd,
                push=bool(options.push), timeout=options.timeout, answer=60,
            )  # fmt: skip
        except (qemu.Dead, OSError) as error:
            late = isinstance(error, TimeoutError)
            say(f"no end after {options.timeout} s" if late else f"the guest failed: {error}")
            print(f"--- serial console ---\n{guest.console_tail()}", file=sys.stderr)
            return 124 if late else 125
        finally:
            guest.kill()


def shell(options) -> int:
    folder = ready(options.suite)
    with one_at_a_time(), workplace() as work:
        state = folder / "state"
        say("press Enter for a prompt; `poweroff -f` ends it")
        guest = qemu.Guest(folder, work, state=state if state.exists() else None, shell=True)
        try:
            if options.push:
                guest.push(options.push)
                guest.run(["true"], lambda *_: None, push=True, timeout=300, answer=300)
            return guest.process.wait()
        finally:
            guest.kill()
            # QEMU, killed, leaves the terminal raw.
            subprocess.run(["stty", "sane"], check=False)


def pair(separator: str):
    def parse(text: str):
        left, found, right = text.partition(separator)
        if not found:
            raise argparse.ArgumentTypeError(f"{text}: expected LEFT{separator}RIGHT")
        return left, right

    return parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    suites = sorted(image.PACKAGES)
    builder = verbs.add_parser("build")
    builder.add_argument("suites", nargs="+", choices=suites)
    for name in ("run", "shell"):
        verb = verbs.add_parser(name)
        verb.add_argument("suite", choices=suites)
        verb.add_argument("--push", type=pair(":"), action="append", default=[], metavar="PATH:DEST")
    runner = verbs.choices["run"]
    runner.add_argument("--user", default="root", help="root or tester")
    runner.add_argument("--env", type=pair("="), action="append", default=[], metavar="NAME=VALUE")
    runner.add_argument("--cwd", help="working directory in the guest")
    runner.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    runner.add_argument("--cold", action="store_true", help="boot, do not resume the saved state")
    runner.add_argument("command", nargs="+", metavar="-- COMMAND")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    try:
        if options.verb == "build":
            for suite in options.suites:
                ready(suite)
            return 0
        return run(options) if options.verb == "run" else shell(options)
    except (host.Missing, qemu.Dead, TimeoutError) as error:
        say(str(error) or "timed out")
        return 125


if __name__ == "__main__":
    sys.exit(main())
