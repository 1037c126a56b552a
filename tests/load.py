#!/usr/bin/env python3
"""Many containers at once, and one after the other for long. By hand, as root; takes minutes.

  tests/load.py many [--count 500] [--program PATH]      made, listed, paused, resumed, killed by four callers at once
  tests/load.py soak [--minutes 30] [--program PATH]     create, start, exec, kill, delete; looks for what grows

On a machine whose cgroup v2 has no controllers, or none mounted: inside a mount namespace of its own, as tests/run does
it (PLAIN_CGROUP2 there). In a guest:
  tests/vm/guest.py run trixie --timeout 3000 --push target/x/release/ctr:/usr/local/bin/ctr \\
      --push tests/load.py:/opt/load.py -- /opt/load.py many
The exit status is 0 if nothing was lost, wrong, or left.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CALLERS = 4
RECORDS = 4 << 20  # [record] size of config.toml


class Wrong(Exception):
    pass


class Runtime:
    """The program, with state, store and bundle of its own."""

    def __init__(self, program: str, work: Path):
        self.program, self.work = program, work
        self.root, self.bundle = work / "state", work / "bundle"
        self.environment = dict(os.environ, CTR_STORE=str(work / "store"))
        self.make_bundle()

    def make_bundle(self):
        rootfs = self.bundle / "rootfs"
        for name in ("bin", "dev", "proc", "sys", "etc"):
            (rootfs / name).mkdir(parents=True)
        busybox = next(p for p in ("/usr/bin/busybox", "/bin/busybox") if os.path.exists(p))
        shutil.copy(busybox, rootfs / "bin/busybox")
        for applet in ("sh", "sleep", "true"):
            (rootfs / "bin" / applet).symlink_to("busybox")
        subprocess.run([self.program, "spec", "--bundle", self.bundle], check=True)
        config = json.loads((self.bundle / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": ["/bin/sleep", "100000"]}
        config["root"]["readonly"] = True
        (self.bundle / "config.json").write_text(json.dumps(config))

    def call(self, *words: str) -> str:
        # Files, not pipes: a container keeps its caller's output open.
        with tempfile.TemporaryFile("w+") as out:
            command = [self.program, "--root", str(self.root), *words]
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment, timeout=120
            ).returncode
            out.seek(0)
            text = out.read()
        if status != 0:
            raise Wrong(f"{' '.join(words)}: status {status}: {text.strip()}")
        return text

    def listed(self) -> dict:
        """What `list` says: id to entry."""
        entries = json.loads(self.call("list", "--format", "json")) or []
        return {entry["id"]: entry for entry in entries}

    def state(self, name: str) -> dict:
        return json.loads(self.call("state", name))


class Watcher(threading.Thread):
    """Compares `list` and `state` with what is known to hold, for as long as others change it."""

    def __init__(self, runtime: Runtime):
        super().__init__(daemon=True)
        self.runtime, self.lock = runtime, threading.Lock()
        self.settled = {}  # id: (status, since when)
        self.over, self.looks, self.wrong = False, 0, None

    def leaves(self, name: str):
        with self.lock:
            self.settled.pop(name, None)

    def holds(self, name: str, status: str):
        with self.lock:
            self.settled[name] = (status, time.monotonic())

    def run(self):
        try:
            while not self.over:
                self.look()
        except (Wrong, KeyError, ValueError, subprocess.SubprocessError) as error:
            self.wrong = f"{type(error).__name__}: {error}"

    def look(self):
        with self.lock:
            before = dict(self.settled)
        listed = self.runtime.listed()
        sample = random.sample(sorted(before), min(3, len(before)))
        states = {}
        for name in sample:
            with self.lock:
                is_still = self.settled.get(name) == before[name]
            if is_still:
                try:
                    states[name] = self.runtime.state(name)["status"]
                except Wrong as wrong:
                    states[name] = str(wrong)
        with self.lock:
            after = dict(self.settled)
        for name, known in before.items():
            if after.get(name) != known:
                continue
            found = listed.get(name, {}).get("status", "not listed")
            if found != known[0] or states.get(name, found) != found:
                raise Wrong(f"{name} is {known[0]}, list says {found}, state {states.get(name)}")
        self.looks += 1


def at_once(names, act):
    """Does it to all, by four callers; the time it took."""
    start = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(act, names))
    return time.monotonic() - start


def many(runtime: Runtime, count: int) -> list:
    names = [f"many-{number}" for number in range(count)]
    watcher = Watcher(runtime)
    watcher.start()

    def step(status, *calls):
        def act(name):
            watcher.leaves(name)
            for call in calls:
                call(name)
            if status:
                watcher.holds(name, status)

        return act

    def call(verb, *more, before=()):
        return lambda name: runtime.call(verb, *before, name, *more)

    phases = [
        ("created", step("created", call("create", before=("--bundle", str(runtime.bundle))))),
        ("running", step("running", call("start"))),
        ("paused", step("paused", call("pause"))),
        ("running", step("running", call("resume"))),
        ("stopped", step("stopped", call("kill", "KILL"), lambda name: stopped(runtime, name))),
        (None, step(None, call("delete"))),
    ]
    for status, act in phases:
        seconds = at_once(names, act)
        listed = runtime.listed()
        have = sorted(name for name in listed if status and listed[name]["status"] == status)
        if have != (sorted(names) if status else []) or (status is None and listed):
            raise Wrong(f"after {status or 'deleted'}: {len(have)} of {count}, list has {len(listed)}")
        pids = {entry["pid"] for entry in listed.values()}
        if status in ("created", "running", "paused") and len(pids) != count:
            raise Wrong(f"{len(pids)} processes for {count} containers")
        print(f"{count} {status or 'deleted'} in {seconds:.1f} s, {1000 * seconds / count:.1f} ms each", flush=True)
    watcher.over = True
    watcher.join()
    print(f"list and state compared {watcher.looks} times meanwhile")
    return [watcher.wrong] if watcher.wrong else []


def stopped(runtime: Runtime, name: str):
    end = time.monotonic() + 30
    while runtime.state(name)["status"] != "stopped":
        if time.monotonic() > end:
            raise Wrong(f"{name} does not end")
        time.sleep(0.002)


def left(runtime: Runtime) -> list:
    """What is still there that was made here."""
    end, words = time.monotonic() + 10, []
    while time.monotonic() < end:
        words = [f"state: {path}" for path in runtime.root.glob("*")] if runtime.root.exists() else []
        words += [f"mount: {line}" for line in mounts() if str(runtime.work) in line]
        words += [f"cgroup: {path}" for path in cgroups() if "many-" in path.name or "soak-" in path.name]
        words += [f"process: {pid}" for pid in processes(runtime)]
        if not words:
            break
        time.sleep(0.2)
    return words


def mounts() -> list:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def cgroups() -> list:
    found = []
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        found += [Path(folder) / name for name in names]
    return found


def processes(runtime: Runtime) -> list:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"/bin/sleep", b"100000"] or words[0] == runtime.program.encode():
            found.append(int(entry.name))
    return found


class Sample:
    """What must not grow."""

    def __init__(self, runtime: Runtime, supervisors: list):
        self.mounts, self.cgroups = len(mounts()), len(cgroups())
        # The records of what ended have a limit of their own, and a second file when they come to it.
        records = runtime.work / "store/ended"
        walk = [(len(files) + len(names), folder) for folder, names, files in os.walk(runtime.work)]
        self.files = sum(count for count, folder in walk if Path(folder) != records)
        self.records = sum(file.stat().st_size for file in records.iterdir())
        self.memory = sum(resident(pid) for pid in supervisors)
        self.descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in supervisors)

    def __str__(self):
        return (
            f"mounts {self.mounts}, cgroups {self.cgroups}, files {self.files}, "
            f"supervisors {self.memory} KiB with {self.descriptors} descriptors"
        )


def resident(pid: int) -> int:
    """What the process has for itself, in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = dict(line.split(":") for line in text.splitlines()[1:])
    return sum(int(lines[key].split()[0]) for key in ("Private_Clean", "Private_Dirty"))


def soak(runtime: Runtime, minutes: float) -> list:
    staying = [f"soak-stays-{number}" for number in range(3)]
    for name in staying:
        words = ["--rootfs", str(runtime.bundle / "rootfs"), "--name", name, "--", "/bin/sleep", "100000"]
        runtime.call("run", "--detach", *words)
    pids = processes(runtime)
    supervisors = [pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(runtime.program.encode())]
    if len(supervisors) != len(staying):
        raise Wrong(f"{len(supervisors)} supervisors for {len(staying)} containers")
    end, rounds, trouble = time.monotonic() + minutes * 60, [0] * CALLERS, []

    def turn(caller: int):
        name = f"soak-{caller}"
        runtime.call("create", "--bundle", str(runtime.bundle), name)
        runtime.call("start", name)
        runtime.call("exec", name, "/bin/true")
        runtime.call("exec", random.choice(staying), "/bin/true")
        runtime.call("kill", name, "KILL")
        stopped(runtime, name)
        runtime.call("delete", name)
        rounds[caller] += 1

    def caller(number: int):
        while time.monotonic() < end and not trouble:
            try:
                turn(number)
            except (Wrong, subprocess.SubprocessError) as error:
                trouble.append(str(error))

    # The first rounds make what stays: directories, the log of the records.
    for number in range(CALLERS):
        for _ in range(25):
            turn(number)
    first = Sample(runtime, supervisors)
    print(f"at the start:       {first}", flush=True)
    threads = [threading.Thread(target=caller, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(60, max(0.1, end - time.monotonic())))
        print(f"{sum(rounds):6} rounds, {Sample(runtime, supervisors)}", flush=True)
    for thread in threads:
        thread.join()
    last = Sample(runtime, supervisors)
    print(f"at the end:         {last}")
    for what in ("mounts", "cgroups", "files", "descriptors"):
        if getattr(last, what) > getattr(first, what):
            trouble.append(f"{what} grew from {getattr(first, what)} to {getattr(last, what)}")
    if last.records > RECORDS:
        trouble.append(f"the records of what ended have {last.records} bytes")
    # A page or two may come in late.
    if last.memory > first.memory + 16 * len(supervisors):
        trouble.append(f"the supervisors grew from {first.memory} to {last.memory} KiB")
    for name in staying:
        runtime.call("delete", "--force", name)
    return trouble


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("many", "soak"))
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--program", default=shutil.which("ctr"))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="ctr-load-"))
    runtime = Runtime(os.path.abspath(options.program), work)
    try:
        trouble = many(runtime, options.count) if options.what == "many" else soak(runtime, options.minutes)
    except Wrong as wrong:
        trouble = [str(wrong)]
    finally:
        for name in runtime.listed():
            runtime.call("delete", "--force", name)
    trouble += left(runtime)
    shutil.rmtree(work, ignore_errors=True)
    for line in trouble:
        print(f"wrong: {line}")
    print("nothing lost, nothing left" if not trouble else f"{len(trouble)} wrong")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
