#!/usr/bin/env python3
"""What Kubernetes asks of a node, through containerd's CRI plugin with one OCI runtime; run it as root inside the guest:

  cri.py RUNTIME [TEXT ...]        RUNTIME: crun, runc, or a path; only checks whose name contains a TEXT

containerd's settings are examples/containerd/config-v2.toml with this runtime's path. Each check prints "ok NAME",
"not ok NAME: why" or "skip NAME: why"; the last line is the plan, "1..N".
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlparse

import grpc
from google.protobuf import json_format

HERE = Path(__file__).resolve().parent
BOX, PAUSE = "docker.io/library/box:latest", "docker.io/library/pause:latest"
LIMIT = 90  # seconds for one check
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge", "bridge": "cni0", "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}  # fmt: skip


class Skip(Exception):
    pass


def shell(script: str) -> str:
    return subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True).stdout.strip()


def compiled():
    """The messages of cri.proto."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["protoc", f"-I{HERE}", f"--python_out={folder}", HERE / "cri.proto"], check=True)
        sys.path.insert(0, folder)
        import cri_pb2

        return cri_pb2


class Node:
    """containerd, set up to use one runtime, and the connection to its CRI plugin."""

    def __init__(self, runtime: str):
        self.runtime, self.messages = runtime, compiled()
        self.work = Path(tempfile.mkdtemp(prefix="cri-"))
        Path("/etc/cni/net.d").mkdir(parents=True, exist_ok=True)
        Path("/etc/cni/net.d/10-pods.conflist").write_text(json.dumps(NETWORK))
        self.configure(systemd=True)
        self.import_images()

    def configure(self, systemd: bool):
        self.systemd = systemd
        example = HERE / "../../examples/containerd/config-v2.toml"
        text = example.read_text().replace("/usr/bin/ctr-runtime", self.runtime)
        text = text.replace("SystemdCgroup = true", f"SystemdCgroup = {str(systemd).lower()}")
        cri = f'[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "{PAUSE}"\n'
        cri += '[plugins."io.containerd.grpc.v1.cri".cni]\n  bin_dir = "/usr/lib/cni"\n'
        Path("/etc/containerd").mkdir(exist_ok=True)
        Path("/etc/containerd/config.toml").write_text(text + cri)
        subprocess.run(["systemctl", "restart", "containerd"], check=True)
        self.channel = grpc.insecure_channel("unix:///run/containerd/containerd.sock")
        grpc.channel_ready_future(self.channel).result(60)

    def import_images(self):
        root = self.work / "root"
        for name in ("bin", "dev", "etc", "mnt", "proc", "root", "sys", "tmp"):
            (root / name).mkdir(parents=True)
        shutil.copy("/usr/bin/busybox", root / "bin")
        for applet in shell("busybox --list").split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        (root / "tmp").chmod(0o1777)
        for name, command in ((BOX, "sh"), (PAUSE, "sleep 1000000")):
            shell(f"tar -C {root} -c . | {HERE}/archive.py {name} {command} | /usr/bin/ctr -n k8s.io image import -")

    def call(self, method: str, /, **fields):
        request = getattr(self.messages, f"{method}Request")
        answer = getattr(self.messages, f"{method}Response")
        stub = self.channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}", request.SerializeToString, answer.FromString
        )
        return stub(json_format.ParseDict(fields, request()), timeout=LIMIT)

    def clean(self):
        for item in self.call("ListPodSandbox").items:
            self.call("StopPodSandbox", pod_sandbox_id=item.id)
            self.call("RemovePodSandbox", pod_sandbox_id=item.id)


class Pod:
    """A sandbox; in a `with`, it is stopped and removed at the end."""

    count = 0

    def __init__(self, node: Node, host_network=True, handler="", namespaces=None, **more):
        Pod.count += 1
        self.node, name = node, f"pod{Pod.count}"
        options = {"network": "NODE"} if host_network else {}
        # As the kubelet words it for either driver.
        parent = f"/kubepods.slice/kubepods-{name}.slice" if node.systemd else f"/kubepods/{name}"
        linux = {"cgroup_parent": parent}
        linux["security_context"] = {"namespace_options": options | (namespaces or {}), "privileged": True}
        linux.update(more.pop("linux", {}))
        self.logs = node.work / name
        self.config = {
            "metadata": {"name": name, "uid": name, "namespace": "default"},
            "log_directory": str(self.logs),
            "linux": linux,
        } | more
        if not host_network:
            self.config.setdefault("hostname", name)
        self.id = node.call("RunPodSandbox", config=self.config, runtime_handler=handler).pod_sandbox_id

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.node.call("RemovePodSandbox", pod_sandbox_id=self.id)

    def stop(self):
        self.node.call("StopPodSandbox", pod_sandbox_id=self.id)

    def status(self):
        return self.node.call("PodSandboxStatus", pod_sandbox_id=self.id, verbose=True)

    def create(self, *command: str, name="main", resources=None, security=None, **more):
        config = {
            "metadata": {"name": name},
            "image": {"image": BOX},
            "command": list(command),
            "log_path": f"{name}.log",
            "linux": {"resources": resources or {}, "security_context": security or {}},
        } | more
        made = self.node.call("CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return Container(self, made.container_id, name)

    def start(self, *command: str, **more):
        container = self.create(*command, **more)
        self.node.call("StartContainer", container_id=container.id)
        return container

    def says(self, script: str, **more) -> str:
        """Runs a container to its end; what it has printed."""
        container = self.start("sh", "-c", script, **more)
        container.wait()
        text = container.log()
        container.remove()
        return text


class Container:
    def __init__(self, pod: Pod, id: str, name: str):
        self.pod, self.node, self.id, self.name = pod, pod.node, id, name

    def status(self):
        return self.node.call("ContainerStatus", container_id=self.id, verbose=True)

    def state(self) -> str:
        return self.node.messages.ContainerState.Name(self.status().status.state).removeprefix("CONTAINER_")

    def pid(self) -> int:
        return json.loads(self.status().info["info"])["pid"]

    def exec(self, *command: str, timeout=0):
        answer = self.node.call("ExecSync", container_id=self.id, cmd=list(command), timeout=timeout)
        return answer.stdout.decode().strip(), answer.exit_code

    def out(self, script: str) -> str:
        text, code = self.exec("sh", "-c", script)
        same(0, code)
        return text

    def wait(self) -> int:
        eventually(lambda: self.state() == "EXITED")
        return self.status().status.exit_code

    def log(self) -> str:
        lines = (self.pod.logs / f"{self.name}.log").read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)

    def stop(self, timeout=0):
        self.node.call("StopContainer", container_id=self.id, timeout=timeout)

    def remove(self):
        self.node.call("RemoveContainer", container_id=self.id)

    def update(self, **resources):
        self.node.call("UpdateContainerResources", container_id=self.id, linux=resources)

    def cgroup(self) -> Path:
        line = Path(f"/proc/{self.pid()}/cgroup").read_text().strip()
        return Path(f"/sys/fs/cgroup{line.split(':', 2)[2]}")

    def limits(self, *files: str) -> list:
        return [(self.cgroup() / file).read_text().strip() for file in files]


def same(want, got):
    assert want == got, f"wanted {want!r}, got {got!r}"


def has(text: str, part: str):
    assert part in text, f"{part!r} is not in {text!r}"


def eventually(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "never true"
        time.sleep(0.1)


@contextlib.contextmanager
def refused(part: str):
    try:
        yield
    except grpc.RpcError as error:
        has(error.details(), part)
    else:
        raise AssertionError("was not refused")


def stream(url: str, timeout=20) -> dict:
    """What comes on the channels of an `exec`, over a web socket: 1 is standard output, 3 how it ended."""
    place = urlparse(url)
    line = socket.create_connection((place.hostname, place.port), timeout=timeout)
    line.sendall(
        f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nOrigin: http://{place.netloc}\r\n\r\n".encode()
    )
    answer = line.makefile("rb")
    has(answer.readline().decode(), "101")
    while answer.readline().strip():
        pass
    channels = {}
    while len(head := answer.read(2)) == 2 and head[0] & 15 != 8:
        length = head[1]
        if length >= 126:
            length = int.from_bytes(answer.read(2 if length == 126 else 8), "big")
        data = answer.read(length)
        if data:
            channels[data[0]] = channels.get(data[0], b"") + data[1:]
    return channels


# The checks, in their order: each gets the node.


def check_status(node):
    conditions = {c.type: c for c in node.call("Status").status.conditions}
    assert conditions["RuntimeReady"].status and conditions["NetworkReady"].status, conditions


def check_sandbox(node):
    with Pod(node) as pod:
        same(0, pod.status().status.state)
        info = json.loads(pod.status().info["info"])
        same("io.containerd.runc.v2", info["runtimeType"])
        same(node.runtime, info["runtimeOptions"]["binary_name"])
        pod.stop()
        same(1, pod.status().status.state)


def check_runtime_handler(node):
    with Pod(node, handler="ctr") as pod:
        same("in", pod.says("echo in"))
    with refused("no runtime for"):
        Pod(node, handler="no-such-handler")


def lifecycle(node):
    """All that a container goes through, with the cgroup driver that is set."""
    with Pod(node) as pod:
        container = pod.create(
            "sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done",
            resources={"memory_limit_in_bytes": 64 << 20, "cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 2048},
        )  # fmt: skip
        same("CREATED", container.state())
        node.call("StartContainer", container_id=container.id)
        same("RUNNING", container.state())
        eventually(lambda: "up" in container.log())
        same([str(64 << 20), "50000 100000"], container.limits("memory.max", "cpu.max"))
        has(str(container.cgroup()), pod.config["metadata"]["name"])
        same(("hi", 0), container.exec("echo", "hi"))
        same(("", 6), container.exec("sh", "-c", "exit 6"))
        container.update(memory_limit_in_bytes=128 << 20, cpu_quota=150000, cpu_period=100000)
        same([str(128 << 20), "150000 100000"], container.limits("memory.max", "cpu.max"))
        stats = node.call("ContainerStats", container_id=container.id).stats
        assert stats.cpu.usage_core_nano_seconds.value > 0 and stats.memory.working_set_bytes.value > 0, stats
        cgroup = container.cgroup()
        container.stop(timeout=20)
        same(("EXITED", 7), (container.state(), container.status().status.exit_code))
        container.remove()
        assert not cgroup.exists(), f"{cgroup} is still there"


def check_lifecycle_systemd(node):
    lifecycle(node)


def check_systemd_properties(node):
    with Pod(node) as pod:
        container = pod.start("sleep", "1000", resources={"memory_limit_in_bytes": 64 << 20})
        unit = container.cgroup().name
        has(unit, "cri-containerd-")
        same(str(64 << 20), shell(f"systemctl show -P MemoryMax {unit}"))
        container.update(memory_limit_in_bytes=96 << 20)
        same(str(96 << 20), shell(f"systemctl show -P MemoryMax {unit}"))
        # What systemd would set anew.
        shell("systemctl daemon-reload")
        same([str(96 << 20)], container.limits("memory.max"))


def check_stop_stubborn(node):
    with Pod(node) as pod:
        # In the pod's process namespace it is not the first, which no signal would end.
        container = pod.start("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
        container.stop(timeout=1)
        same(137, container.status().status.exit_code)


def check_exit_codes(node):
    with Pod(node) as pod:
        container = pod.start("sh", "-c", "exit 9")
        same(9, container.wait())
        same("Error", container.status().status.reason)
        same(0, pod.start("true", name="second").wait())


def check_missing_program(node):
    with Pod(node) as pod:
        for name, program, words in (
            ("path", "/no/such/program", "no such file or directory"),
            ("name", "no-such-program", "executable file not found"),
            ("data", "/etc/passwd", "permission denied"),
        ):
            container = pod.create(program, name=name)
            with refused(words):
                node.call("StartContainer", container_id=container.id)
            same(("EXITED", 128, "StartError"), (container.state(), *started(container)))


def started(container):
    status = container.status().status
    return status.exit_code, status.reason


def check_exec_missing(node):
    with Pod(node) as pod:
        container = pod.start("sleep", "1000")
        with refused("no such file or directory"):
            container.exec("/no/such/program")
        with refused("executable file not found"):
            container.exec("no-such-program")
        same(("still", 0), container.exec("echo", "still"))


def check_exec_timeout(node):
    with Pod(node) as pod:
        container = pod.start("sleep", "1000")
        with refused("timeout"):
            container.exec("sleep", "977", timeout=2)
        eventually(lambda: "sleep 977" not in container.out("ps"))


def check_exec_stream(node):
    with Pod(node) as pod:
        container = pod.start("sleep", "1000")
        ask = dict(container_id=container.id, stdout=True)
        url = node.call("Exec", cmd=["sh", "-c", "echo out; echo err >&2; exit 5"], stderr=True, **ask).url
        channels = stream(url)
        same((b"out\n", b"err\n"), (channels[1], channels[2]))
        has(channels[3].decode(), '"message":"5"')
        # What ends at once is not always heard, whatever the runtime: the plugin attaches to it when it runs.
        url = node.call("Exec", cmd=["sh", "-c", "tty; sleep 2"], tty=True, **ask).url
        has(stream(url)[1].decode(), "/dev/pts/")


def check_exec_many(node):
    # As probes come.
    with Pod(node) as pod:
        container = pod.start("sleep", "1000")
        request = node.messages.ExecSyncRequest
        stub = node.channel.unary_unary(
            "/runtime.v1.RuntimeService/ExecSync", request.SerializeToString, node.messages.ExecSyncResponse.FromString
        )
        calls = [
            stub.future(request(container_id=container.id, cmd=["sh", "-c", f"exit {n}"]), timeout=60) for n in range(6)
        ]
        same(list(range(6)), [call.result().exit_code for call in calls])


def check_limits(node):
    with Pod(node) as pod:
        container = pod.start(
            "sleep", "1000",
            resources={
                "memory_limit_in_bytes": 64 << 20, "memory_swap_limit_in_bytes": 96 << 20, "cpuset_cpus": "1",
                "cpu_shares": 2048, "oom_score_adj": 700, "unified": {"memory.high": str(48 << 20), "pids.max": "33"},
            },
        )  # fmt: skip
        same(
            [str(64 << 20), str(32 << 20), str(48 << 20), "33", "1"],
            container.limits("memory.max", "memory.swap.max", "memory.high", "pids.max", "cpuset.cpus"),
        )
        # Since runc 1.3, which counts 1024 shares as 100, another number than before.
        assert container.limits("cpu.weight")[0] in ("79", "174")
        same("700", Path(f"/proc/{container.pid()}/oom_score_adj").read_text().strip())
        container.update(unified={"memory.high": str(40 << 20)}, cpuset_cpus="0")
        same([str(40 << 20), "0", "33"], container.limits("memory.high", "cpuset.cpus", "pids.max"))


def check_oom_killed(node):
    with Pod(node) as pod:
        container = pod.start(
            "sh", "-c", "x=a; while :; do x=$x$x; done",
            resources={"memory_limit_in_bytes": 24 << 20, "memory_swap_limit_in_bytes": 24 << 20},
        )  # fmt: skip
        same(137, container.wait())
        eventually(lambda: container.status().status.reason == "OOMKilled")


def check_pod_network(node):
    with Pod(node, host_network=False) as web, Pod(node, host_network=False) as other:
        server = web.start("sh", "-c", "echo page >/tmp/index.html; exec httpd -f -h /tmp")
        ip = web.status().status.network.ip
        has(ip, "10.88.")
        # From beside it in its pod, from another pod, from the node.
        same("page", web.says("sleep 1; wget -q -O - http://127.0.0.1/", name="beside"))
        same("page", other.says(f"wget -q -O - http://{ip}/"))
        same("page", shell(f"busybox wget -q -O - http://{ip}/"))
        same(web.config["hostname"], server.out("hostname"))


def check_host_port(node):
    ports = [{"container_port": 80, "host_port": 8081}]
    with Pod(node, host_network=False, port_mappings=ports) as pod:
        pod.start("sh", "-c", "echo page >/tmp/index.html; exec httpd -f -h /tmp")
        gateway = shell("ip -4 -o addr show cni0 | awk '{ print $4 }'").split("/")[0]
        same("page", shell(f"sleep 1; busybox wget -q -O - http://{gateway}:8081/"))


def check_shared_namespaces(node):
    spaces = "cd /proc/self/ns; echo $(readlink net) $(readlink ipc) $(readlink uts)"
    with Pod(node, host_network=False) as pod:
        first, second = pod.start("sleep", "1000", name="first"), pod.start("sleep", "1000", name="second")
        same(first.out(spaces), second.out(spaces))
        # One process namespace for all, as shareProcessNamespace has it.
        has(second.out("ps"), "sleep 1000000")
        own = pod.start("sleep", "1000", name="own", security={"namespace_options": {"pid": "CONTAINER"}})
        same("sleep", own.out("cat /proc/1/comm"))
        assert "1000000" not in own.out("ps")
        # `kubectl debug`: the namespace of another container.
        target = {"namespace_options": {"pid": "TARGET", "target_id": own.id}}
        has(pod.says("ps", name="debug", security=target), "sleep 1000")


def check_host_namespaces(node):
    host = {"network": "NODE", "pid": "NODE", "ipc": "NODE"}
    with Pod(node, namespaces=host) as pod:
        text = pod.says("cat /proc/1/comm; readlink /proc/self/ns/ipc", security={"namespace_options": host})
        same(f"systemd\n{os.readlink('/proc/self/ns/ipc')}", text)


def check_user_namespace(node):
    users = {"mode": "POD", "uids": [{"host_id": 200000, "container_id": 0, "length": 65536}]}
    users["gids"] = users["uids"]
    options = {"network": "POD", "userns_options": users}
    linux = {"security_context": {"namespace_options": options}}
    with Pod(node, host_network=False, linux=linux) as pod:
        container = pod.start("sleep", "1000", security={"namespace_options": options})
        same("0 200000 65536", " ".join(container.out("cat /proc/self/uid_map").split()))
        same("0", container.out("id -u; touch /file").split()[0])


def check_users_and_groups(node):
    security = {"run_as_user": {"value": 1234}, "run_as_group": {"value": 5678}, "supplemental_groups": [4242]}
    with Pod(node) as pod:
        same("1234 5678 5678 4242", pod.says("echo $(id -u) $(id -g) $(id -G)", security=security))


def check_capabilities(node):
    with Pod(node) as pod:
        change = {"capabilities": {"add_capabilities": ["SYS_TIME"], "drop_capabilities": ["ALL"]}}
        has(pod.says("grep CapEff /proc/self/status", security=change), "0000000002000000")


def check_privileged(node):
    with Pod(node) as pod:
        text = pod.says("mount -t tmpfs none /mnt && test -c /dev/loop-control && echo done", security={"privileged": True})
        same("done", text)


def check_confinement(node):
    with Pod(node) as pod:
        default = {"seccomp": {"profile_type": "RuntimeDefault"}, "no_new_privs": True}
        same("1 2", pod.says("echo $(awk '/^NoNewPrivs:|^Seccomp:/ { print $2 }' /proc/self/status)", security=default))
        same("0", pod.says("awk '/^Seccomp:/ { print $2 }' /proc/self/status", name="free", security={"seccomp": {"profile_type": "Unconfined"}}))  # fmt: skip


def check_apparmor(node):
    if Path("/sys/module/apparmor/parameters/enabled").read_text().strip() != "Y":
        raise Skip("AppArmor is off")
    with Pod(node) as pod:
        default = {"apparmor": {"profile_type": "RuntimeDefault"}}
        has(pod.says("cat /proc/self/attr/current", security=default), "cri-containerd.apparmor.d")


def check_read_only(node):
    with Pod(node) as pod:
        same("fixed", pod.says("touch /file 2>/dev/null || echo fixed", security={"readonly_rootfs": True}))


def check_masked_paths(node):
    paths = {"masked_paths": ["/proc/kcore", "/etc/group"], "readonly_paths": ["/proc/sys", "/tmp"]}
    with Pod(node) as pod:
        text = pod.says("cat /etc/group; echo 1 >/proc/sys/kernel/panic || touch /tmp/x || echo kept", security=paths)
        same("kept", text.splitlines()[-1])
        assert "root" not in text


def check_sysctls(node):
    linux = {"sysctls": {"kernel.shmmax": "12345", "net.ipv4.ip_unprivileged_port_start": "7"}}
    with Pod(node, host_network=False, linux=linux) as pod:
        same("12345 7", pod.says("echo $(cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_unprivileged_port_start)"))


def check_mounts(node):
    volume = node.work / "volume"
    volume.mkdir()
    mounts = [
        {"container_path": "/v", "host_path": str(volume)},
        {"container_path": "/ro", "host_path": str(volume), "readonly": True},
    ]
    with Pod(node) as pod:
        pod.says("echo inside >/v/file; touch /ro/new; true", mounts=mounts)
    same("inside", (volume / "file").read_text().strip())
    assert not (volume / "new").exists(), "a read-only volume was written to"


def check_mount_propagation(node):
    folder = node.work / "shared"
    folder.mkdir()
    shell(f"mount --bind {folder} {folder}; mount --make-shared {folder}; mkdir {folder}/out {folder}/in")
    mount = {"container_path": "/s", "host_path": str(folder)}
    try:
        with Pod(node) as pod:
            gets = pod.start("sleep", "1000", name="gets", mounts=[mount | {"propagation": "PROPAGATION_HOST_TO_CONTAINER"}])
            gives = pod.start(
                "sleep", "1000", name="gives", security={"privileged": True},
                mounts=[mount | {"propagation": "PROPAGATION_BIDIRECTIONAL"}],
            )  # fmt: skip
            shell(f"mount -t tmpfs none {folder}/out")
            gets.out("grep -q ' /s/out ' /proc/self/mountinfo")
            gives.out("mount -t tmpfs none /s/in")
            shell(f"mountpoint {folder}/in")
    finally:
        shell(f"umount -R {folder}")


def check_devices(node):
    device = {"container_path": "/dev/mine", "host_path": "/dev/null", "permissions": "rw"}
    with Pod(node) as pod:
        same("done", pod.says("echo x >/dev/mine && echo done", devices=[device]))


def check_environment(node):
    with Pod(node) as pod:
        text = pod.says("echo $KEY $(pwd)", envs=[{"key": "KEY", "value": "a b"}], working_dir="/made/here")
        same("a b /made/here", text)


def check_terminal(node):
    with Pod(node) as pod:
        has(pod.says("tty", tty=True), "/dev/pts/")


def check_daemon_restart(node):
    with Pod(node) as pod:
        container = pod.start("sleep", "1000")
        pid = container.pid()
        node.configure(systemd=True)
        same(("RUNNING", pid), (container.state(), container.pid()))
        same(("still", 0), container.exec("echo", "still"))


def check_sandbox_stop_ends_all(node):
    with Pod(node) as pod:
        container = pod.start("sh", "-c", "sleep 1000 & wait")
        pid = container.pid()
        pod.stop()
        same("EXITED", container.state())
        assert not Path(f"/proc/{pid}").exists(), f"process {pid} is still there"


def check_sandbox_killed(node):
    # What the kubelet finds after the pause process died: a sandbox to be replaced.
    with Pod(node) as pod:
        os.kill(json.loads(pod.status().info["info"])["pid"], signal.SIGKILL)
        eventually(lambda: pod.status().status.state == 1)


def check_lifecycle_cgroupfs(node):
    node.configure(systemd=False)
    lifecycle(node)


def check_nothing_left(node):
    same(0, len(node.call("ListPodSandbox").items) + len(node.call("ListContainers").containers))
    eventually(lambda: not shell("pgrep -a -f '[c]ontainerd-shim|^sleep ' || true"))
    same("", shell("awk '$5 ~ \"io.containerd|/netns/\" { print $5 }' /proc/self/mountinfo"))
    same("", shell("find /run/containerd/runc /run/containerd/io.containerd.runtime.v2.task -mindepth 2 2>/dev/null || true"))
    same("", shell("find /sys/fs/cgroup -type d -name '*cri-containerd*'; ls /sys/fs/cgroup/k8s.io 2>/dev/null || true"))


def late(*_):
    raise TimeoutError(f"no end after {LIMIT} s")


def one(node, name: str) -> bool:
    signal.alarm(LIMIT)
    try:
        globals()[f"check_{name}"](node)
        print(f"ok {name}", flush=True)
        return True
    except Skip as why:
        print(f"skip {name}: {why}", flush=True)
        return True
    except Exception as error:
        why = error.details() if isinstance(error, grpc.RpcError) else str(error)
        if isinstance(error, subprocess.CalledProcessError):
            why += f" {error.stderr}"
        where = [frame.tb_lineno for frame in frames(error)]
        print(f"not ok {name}: line {where}: {type(error).__name__} {' '.join(why.split())[:400]}", flush=True)
        return False
    finally:
        signal.alarm(0)


def frames(error):
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == __file__:
            yield trace
        trace = trace.tb_next


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    wanted = sys.argv[2:] or [""]
    names = re.findall(r"^def check_(\w+)\(node\)", Path(__file__).read_text(), re.M)
    names = [name for name in names if any(text in name for text in wanted)]
    signal.signal(signal.SIGALRM, late)
    node = Node(shutil.which(sys.argv[1]) or sys.exit(f"{sys.argv[1]}: not found"))
    failed = False
    for name in names:
        if not one(node, name):
            failed = True
            with contextlib.suppress(grpc.RpcError):
                node.clean()
    shutil.rmtree(node.work)
    print(f"1..{len(names)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
