"""What the test bed needs from the machine it runs on: packages, Debian's mirror, the cache folder."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path("/etc/apt/sources.list.d")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Missing(Exception):
    """Something the tests need is not here and cannot be installed; the text says what and why."""


def cache() -> Path:
    """The folder that outlives a run: images and saved states of the guests."""
    path = Path(os.environ.get("CTR_TEST_CACHE", "/var/cache/ctr-tests"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def lock(path: Path, waiting_for: str):
    """Takes a lock that lasts until the returned file is closed."""
    if not path.exists():
        path.touch()
    # Read-only is enough for flock, and lets an ordinary user share root's cache.
    file = open(path, "r")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for {waiting_for}", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def mirror() -> str:
    """The Debian mirror this machine itself uses."""
    found = []
    for file in sorted(SOURCES.glob("*.sources")):
        found += re.findall(r"^URIs:\s*(\S+/debian)/?\s*$", file.read_text(), re.M)
    listed = [Path("/etc/apt/sources.list"), *sorted(SOURCES.glob("*.list"))]
    for file in filter(Path.exists, listed):
        found += re.findall(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+/debian)/?\s", file.read_text(), re.M)
    if not found:
        raise Missing("no Debian mirror in apt's sources (*.sources or *.list)")
    return found[0]


def apt_get(*arguments: str):
    """Runs apt-get quietly; its words appear only if it fails."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    command = ["apt-get", "-q", "-y", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300", *arguments]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise Missing(f"apt-get {' '.join(arguments)} failed:\n{tail}")


def installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout == "installed"


def need(*packages: str, suite: str | None = None):
    """Installs Debian packages that are not there yet."""
    absent = [name for name in packages if not installed(name)]
    if absent:
        install(absent, suite)


def install(packages: list, suite: str | None = None):
    if shutil.which("apt-get") is None:
        raise Missing(f"needs {' '.join(packages)}, and there is no apt-get to install it with")
    if os.geteuid() != 0:
        raise Missing(f"needs {' '.join(packages)}; run as root once: apt-get install {' '.join(packages)}")
    print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
    target = ["-t", suite] if suite else []
    arguments = ["install", "--no-install-recommends", *target, *packages]
    try:
        apt_get(*arguments)
    except Missing:
        # A fresh machine has no package lists yet, or old ones.
        apt_get("update")
        apt_get(*arguments)


def need_qemu():
    """QEMU 10: the 7.2 of Debian 12 panics guests that have two processors."""
    if qemu_major() >= 10:
        return
    suite = None
    if debian_release() == "bookworm":
        suite = "bookworm-backports"
        add_backports(suite)
    # `installed` is no question here: an older version may be there.
    install(["qemu-system-x86", "qemu-utils", "seabios"], suite)
    if qemu_major() < 10:
        raise Missing(f"needs QEMU 10 or newer, apt gave {qemu_version()}")


def qemu_version() -> str:
    if shutil.which("qemu-system-x86_64") is None:
        return ""
    return subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.split("\n")[0]


def qemu_major() -> int:
    found = re.search(r"version (\d+)", qemu_version())
    return int(found[1]) if found else 0


def debian_release() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)
    return found[1] if found else ""


def add_backports(suite: str):
    if any(suite in file.read_text() for file in SOURCES.glob("*.sources")):
        return
    if os.geteuid() != 0:
        raise Missing(f"needs QEMU 10 from {suite}; run as root once")
    entry = f"Types: deb\nURIs: {mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    (SOURCES / "ctr-tests-backports.sources").write_text(entry)
    apt_get("update")
