#!/usr/bin/python3
"""Runs inside the guest: takes jobs from the host over a virtio-serial port, one at a time.

A job is one line of JSON.  The answer is a row of frames, each a header line "NONCE KIND LENGTH"
and LENGTH bytes: h (job accepted), o (standard output), e (standard error), x (exit status, the last).
"""

import json
import os
import selectors
import subprocess
import time

PORT = "/dev/virtio-ports/ctr.agent"
DISK = "/dev/disk/by-id/virtio-push"


def jobs(port):
    """Yields what the host asks for; survives the host hanging up, which a saved state looks like."""
    buffer = b""
    while True:
        chunk = os.read(port, 65536)
        if not chunk:
            buffer = b""
            time.sleep(0.1)
            continue
        buffer += chunk
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            yield json.loads(line)


def send(port, nonce, kind, data=b""):
    frame = f"{nonce} {kind} {len(data)}\n".encode() + data
    while frame:
        frame = frame[os.write(port, frame) :]


def unpack():
    """Unpacks the tar that the host wrote to the second disk behind the kernel's back."""
    subprocess.run(["blockdev", "--flushbufs", DISK], check=True)
    subprocess.run(["tar", "-C", "/", "--no-overwrite-dir", "-xpf", DISK], check=True)


def command(job):
    """Each job is a unit of its own with a delegated cgroup, as a session or a service would have."""
    words = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec", "-pDelegate=yes"]
    if job["user"] == "root":
        words += ["-EHOME=/root", "-EUSER=root"]
    else:
        words += [f"--machine={job['user']}@.host", "--user"]
    words += ["-ELANG=C.UTF-8"] + [f"-E{name}={value}" for name, value in job["env"].items()]
    if job["cwd"]:
        words.append(f"--working-directory={job['cwd']}")
    # systemd would expand $NAME in the words of a command.
    return words + ["--"] + [word.replace("$", "$$") for word in job["argv"]]


def run(port, job):
    process = subprocess.Popen(
        command(job), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ, "o")
    selector.register(process.stderr, selectors.EVENT_READ, "e")
    # Something left behind may hold the pipes open for ever: what is in them at the end is enough.
    while selector.get_map():
        ready = selector.select(timeout=0.2)
        if not ready and process.poll() is not None:
            break
        for key, _ in ready:
            data = os.read(key.fd, 65536)
            if data:
                send(port, job["nonce"], key.data, data)
            else:
                selector.unregister(key.fileobj)
    return process.wait()


def serve(port, job):
    send(port, job["nonce"], "h")
    time.clock_settime(time.CLOCK_REALTIME, job["time"])
    try:
        if job["push"]:
            unpack()
        status = run(port, job)
    except (OSError, subprocess.SubprocessError) as error:
        send(port, job["nonce"], "e", f"agent: {error}\n".encode())
        status = 125
    send(port, job["nonce"], "x", str(status).encode())


def main():
    while not os.path.exists(PORT):
        time.sleep(0.1)
    port = os.open(PORT, os.O_RDWR)
    for job in jobs(port):
        serve(port, job)


if __name__ == "__main__":
    main()
