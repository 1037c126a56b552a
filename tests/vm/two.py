#!/usr/bin/env python3
"""Two guests on a network of their own as a Docker Swarm, with one OCI runtime as the default on both.

  tests/vm/two.py target/x86_64-unknown-linux-gnu/release/ctr      or: crun, runc

A service is spread over both, one guest is killed, and its tasks start on the other. By hand: it takes ten minutes.
Prints "ok NAME" or "not ok NAME: why", and the plan.
"""

import os
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import guest
import host
import qemu

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLACE = "/opt/ctr-tests"
RUNTIME = "/usr/local/bin/ctr"

SET_UP = r"""
set -eu
hostname node$1
modprobe virtio_net
ip addr add 10.99.0.$1/24 dev eth0
ip link set eth0 up
mkdir -p /etc/docker
jq --arg path "$2" '.runtimes.ctr.path = $path | ."storage-driver" = "overlay2"' \
    /opt/ctr-tests/examples/docker/daemon.json >/etc/docker/daemon.json
systemctl start docker
mkdir -p /tmp/root/bin /tmp/root/tmp
# Itself is one of them.
for applet in $(busybox --list); do ln -sf busybox "/tmp/root/bin/$applet"; done
cp --remove-destination /usr/bin/busybox /tmp/root/bin
tar -C /tmp/root -c . | docker import - box >/dev/null
"""
# The task answers with the name of its node.
SERVICE = """docker service create -d --no-resolve-image --name web --replicas 4 --network mesh --restart-delay 1s \
    --hostname '{{.Node.Hostname}}' --limit-memory 64M --limit-pids 33 box \
    sh -c 'hostname >/tmp/index.html; exec httpd -f -h /tmp'"""
ON = "docker service ps web --filter desired-state=running --format '{{.Node}} {{.CurrentState}}'"


class Node:
    def __init__(self, number: int, folder: Path, work: Path, port: int):
        network = f"socket,id=net,mcast=230.7.7.7:{port},localaddr=127.0.0.1"
        card = f"virtio-net-pci,netdev=net,mac=52:54:00:00:00:0{number}"
        self.number, self.name = number, f"node{number}"
        self.guest = qemu.Guest(folder, work, devices=["-netdev", network, "-device", card])

    def set_up(self, push: list, runtime: str):
        self.guest.push(push)
        self.guest.run(["true"], lambda *_: None, push=True, timeout=600, answer=600)
        self.sh(SET_UP, str(self.number), runtime, timeout=600)

    def sh(self, script: str, *arguments: str, timeout=120) -> str:
        words = bytearray()
        job = ["sh", "-c", script, "sh", *arguments]
        status = self.guest.run(job, lambda _, data: words.extend(data), timeout=timeout, answer=timeout)
        text = words.decode(errors="replace").strip()
        assert status == 0, f"{self.name}: {script[:60]}: status {status}: {text[-400:]}"
        return text

    def eventually(self, script: str, true, seconds: float) -> str:
        end = time.monotonic() + seconds
        while True:
            text = self.sh(script)
            if true(text):
                return text
            assert time.monotonic() < end, f"never true: {script}: {text[-400:]}"
            time.sleep(2)


def spread(text: str) -> dict:
    """How many tasks run on each node."""
    running = [line.split()[0] for line in text.splitlines() if " Running" in line]
    return {name: running.count(name) for name in set(running)}


def joined(first: Node, second: Node):
    first.sh("docker swarm init --advertise-addr 10.99.0.1")
    token = first.sh("docker swarm join-token -q worker")
    second.sh(f"docker swarm join --token {token} --advertise-addr 10.99.0.2 10.99.0.1:2377")
    first.eventually("docker node ls --format '{{.Status}}'", lambda text: text.split() == ["Ready"] * 2, 60)


def spread_over_both(first: Node, second: Node):
    first.sh("docker network create -d overlay --attachable mesh")
    first.sh(SERVICE)
    first.eventually(ON, lambda text: spread(text) == {"node1": 2, "node2": 2}, 180)


def run_by_it(first: Node, second: Node):
    for node in (first, second):
        runtimes = node.sh("docker ps -q | xargs docker inspect -f '{{.HostConfig.Runtime}}'").split()
        assert runtimes == ["ctr", "ctr"], f"{node.name}: {runtimes}"


def reached_across(first: Node, second: Node):
    """By the service's one address, from one node: the tasks of both answer."""
    ask = "docker run --rm --network mesh box sh -c 'for i in 1 2 3 4 5 6 7 8; do wget -q -T 5 -O - http://web/; done'"
    first.eventually(ask, lambda text: set(text.split()) >= {"node1", "node2"}, 120)


def started_on_the_other(first: Node, second: Node):
    start = time.monotonic()
    second.guest.kill()
    first.eventually("docker node ls --format '{{.Hostname}} {{.Status}}'", lambda text: "node2 Down" in text, 180)
    print(f"# its death was noticed after {time.monotonic() - start:.0f} s", flush=True)
    first.eventually(ON, lambda text: spread(text) == {"node1": 4}, 180)
    print(f"# all four run on the other after {time.monotonic() - start:.0f} s", flush=True)
    limits = first.sh("docker exec $(docker ps -q | head -n 1) cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max")
    assert limits.split() == ["67108864", "33"], limits


def tell_why(node: Node):
    """What the daemon says of the tasks."""
    script = "docker service ps --no-trunc web; journalctl -u docker -n 40 --no-pager -o cat; uptime"
    try:
        for line in node.sh(script).splitlines():
            print(f"# {line}", flush=True)
    except (AssertionError, qemu.Dead, OSError) as error:
        print(f"# {error}", flush=True)


CHECKS = [joined, spread_over_both, run_by_it, reached_across, started_on_the_other]


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    push = [(str(ROOT / folder), f"{PLACE}/{folder}") for folder in ("tests/vm", "examples")]
    runtime = {"crun": "/usr/bin/crun", "runc": "/usr/sbin/runc"}.get(sys.argv[1])
    if not runtime:
        push.append((sys.argv[1], RUNTIME))
        runtime = RUNTIME
    folder = guest.ready("trixie")
    failed = False
    with guest.one_at_a_time(), guest.workplace() as work, guest.workplace() as other:
        # Nobody else's guests shall hear ours.
        port = 17000 + os.getpid() % 10000
        nodes = [Node(1, folder, work, port), Node(2, folder, other, port)]
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda node: node.set_up(push, runtime), nodes))
            for check in CHECKS:
                try:
                    check(*nodes)
                    print(f"ok {check.__name__}", flush=True)
                except (AssertionError, qemu.Dead, OSError) as error:
                    print(f"not ok {check.__name__}: {shlex.quote(str(error))}", flush=True)
                    tell_why(nodes[0])
                    failed = True
                    break
        finally:
            for node in nodes:
                node.guest.kill()
    print(f"1..{len(CHECKS)}")
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (host.Missing, qemu.Dead) as error:
        sys.exit(str(error))
