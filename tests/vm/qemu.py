"""One QEMU: its command line, its control socket, and the line to the agent inside."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import tarfile
import time
from pathlib import Path

# The size of a device must not change between saving a state and resuming it; the file is sparse.
PUSH_DISK = 4 << 30
BOOT = "root=/dev/vda rw console=ttyS0 loglevel=4 panic=-1 mitigations=off net.ifnames=0 apparmor=1"


class Dead(Exception):
    """The guest is gone, or does not answer."""


def command_line(image: Path, work: Path, throwaway: bool) -> list:
    # /dev/kvm may exist and fail, `-cpu max` crashes guests, so: emulation, and an old processor.
    snapshot = "on" if throwaway else "off"
    return [
        "qemu-system-x86_64", "-machine", "q35,accel=tcg,vmport=off", "-cpu", "Nehalem", "-m", "4G", "-smp", "2",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", f"{image}/kernel", "-initrd", f"{image}/initrd", "-append", BOOT,
        "-drive", f"file={image}/disk,if=none,id=root,format=raw,cache=unsafe,snapshot={snapshot}",
        "-device", "virtio-blk-pci,drive=root,serial=root",
        "-drive", f"file={work}/push,if=none,id=push,format=raw,cache=unsafe",
        "-device", "virtio-blk-pci,drive=push,serial=push",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,path={work}/agent,server=on,wait=off",
        "-device", "virtserialport,chardev=agent,name=ctr.agent",
        "-qmp", f"unix:{work}/qmp,server=on,wait=off",
    ]  # fmt: skip


class Guest:
    """A running QEMU in a folder of its own, which holds its sockets and the log of its console."""

    def __init__(
        self, image: Path, work: Path, throwaway=True, state: Path | None = None, shell=False, devices: list = ()
    ):
        self.work, self.console = work, work / "console"
        with open(work / "push", "ab") as push:
            push.truncate(PUSH_DISK)
        # A saved state fits the devices it was saved with: others want a boot.
        command = command_line(image, work, throwaway) + list(devices)
        command += ["-serial", "stdio" if shell else f"file:{self.console}"]
        if state:
            command += ["-incoming", f"exec:cat {state}"]
        # The overlay of a throwaway disk goes where TMPDIR says, and QEMU dies with us.
        environment = dict(os.environ, TMPDIR=str(work))
        with open(work / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=environment,
                stdin=None if shell else subprocess.DEVNULL,
                stdout=None if shell else log,
                stderr=log,
            )
        self.control = self.connect("qmp").makefile("rw")
        self.control.readline()
        self.execute("qmp_capabilities")
        if state:
            self.wait_status("inmigrate", 60)
            self.execute("cont")
        self.agent = self.connect("agent")

    def connect(self, name: str) -> socket.socket:
        for _ in range(200):
            with contextlib.suppress(OSError):
                line = socket.socket(socket.AF_UNIX)
                # A relative name: a socket's path has at most 107 bytes, and the cache may lie deep.
                line.connect(os.path.relpath(self.work / name))
                return line
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise Dead(f"QEMU did not start: {(self.work / 'qemu.log').read_text().strip()}")

    def execute(self, command: str, **arguments):
        self.control.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.control.flush()
        for line in self.control:
            answer = json.loads(line)
            if "error" in answer:
                raise Dead(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise Dead(f"QEMU ended during {command}")

    def wait_status(self, leave: str, seconds: float):
        """Waits until the machine is no longer in the state `leave`."""
        end = time.monotonic() + seconds
        while self.execute("query-status")["status"] == leave:
            if time.monotonic() > end:
                raise Dead(f"the guest is still {leave} after {seconds} s")
            time.sleep(0.05)

    def save(self, state: Path):
        """Saves the stopped machine; a state saved so comes up stopped."""
        self.agent.close()
        self.execute("stop")
        self.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.execute("migrate", uri=f"exec:cat>{state}")
        while True:
            status = self.execute("query-migrate").get("status")
            if status == "completed":
                break
            if status in ("failed", "cancelled"):
                raise Dead("QEMU could not save the state of the guest")
            time.sleep(0.1)
        self.execute("quit")
        self.process.wait(60)

    def push(self, files: list):
        """Writes (source, destination) pairs as a tar to the second disk; the next job unpacks it."""
        with open(self.work / "push", "r+b") as disk, tarfile.open(fileobj=disk, mode="w") as tar:
            for source, destination in files:
                tar.add(source, destination.lstrip("/"), filter=owned_by_root)

    def run(self, argv: list, output, user="root", env=None, cwd=None, push=False, timeout=60, answer=60) -> int:
        """Runs a job; `output(kind, data)` gets what it prints ("o" and "e"). Returns its exit status."""
        nonce = secrets.token_hex(8)
        job = {"nonce": nonce, "argv": argv, "user": user, "env": env or {}, "cwd": cwd, "push": push}
        self.agent.sendall(json.dumps(job | {"time": time.time()}).encode() + b"\n")
        end = time.monotonic() + timeout
        self.agent.settimeout(min(answer, timeout))
        for kind, data in self.frames(nonce):
            if kind == "x":
                return int(data)
            if kind in "oe":
                output(kind, data)
            if time.monotonic() >= end:
                raise TimeoutError
            self.agent.settimeout(end - time.monotonic())
        raise Dead("the guest ended")

    def frames(self, nonce: str):
        buffer = b""
        while True:
            while b"\n" in buffer:
                header, rest = buffer.split(b"\n", 1)
                name, kind, length = header.decode().split(" ")
                if len(rest) < int(length):
                    break
                data, buffer = rest[: int(length)], rest[int(length) :]
                # What an earlier job left in the line is not for us.
                if name == nonce:
                    yield kind, data
            chunk = self.agent.recv(65536)
            if not chunk:
                return
            buffer += chunk

    def console_tail(self, lines=40) -> str:
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        log = (self.work / "qemu.log").read_text(errors="replace")
        return "\n".join((text + log).splitlines()[-lines:])

    def kill(self):
        self.process.kill()
        self.process.wait()


def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
