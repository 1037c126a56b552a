"""Makes the disk of a guest: a Debian tree with the packages below, an ext4 image, a kernel, a small initrd."""

import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import host

HERE = Path(__file__).resolve().parent

BASE = """
    systemd systemd-sysv dbus dbus-user-session libpam-systemd udev linux-image-cloud-amd64 busybox-static
    iproute2 procps kmod uidmap libcap2-bin strace python3 util-linux psmisc acl attr
""".split()

CLIENTS = """
    nftables iptables passt slirp4netns fuse-overlayfs crun runc podman netavark aardvark-dns catatonit containerd
    docker.io docker-cli docker-buildx containernetworking-plugins python3-grpcio python3-protobuf protobuf-compiler
    skopeo buildah criu libcriu2 jq xfsprogs e2fsprogs quota apparmor systemd-container lsof
""".split()

# The oldest CRIU that checkpoints are tested with is bookworm's; it locks networks with iptables.
PACKAGES = {"trixie": BASE + CLIENTS, "bookworm": BASE + ["criu", "iptables", "runc", "crun"]}

# Units that cost time at boot, or at any moment later, and that no test wants unasked.
UNWANTED = """
    multi-user.target.wants/containerd.service multi-user.target.wants/docker.service
    multi-user.target.wants/e2scrub_reap.service multi-user.target.wants/remote-fs.target
    sockets.target.wants/docker.socket sockets.target.wants/netavark-dhcp-proxy.socket
    default.target.wants/netavark-dhcp-proxy.service getty.target.wants/getty@tty1.service
    sysinit.target.wants/systemd-pstore.service timers.target.wants
""".split()

FILES = {
    "etc/fstab": "/dev/vda / ext4 rw,relatime 0 1\n",
    "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
    "etc/hostname": "guest\n",
    # A fixed one: an empty one means "first boot", and systemd would then apply its presets.
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/modules-load.d/ctr-tests.conf": "overlay\nloop\ntun\nveth\ndummy\n",
    "etc/subuid": "tester:100000:65536\ncontainers:2147483648:1048576\n",
    "etc/subgid": "tester:100000:65536\ncontainers:2147483648:1048576\n",
    "etc/systemd/journald.conf.d/ctr-tests.conf": "[Journal]\nStorage=volatile\n",
    "etc/systemd/system/user@.service.d/ctr-tests.conf": "[Service]\nDelegate=cpu cpuset io memory pids\n",
    "etc/systemd/system/serial-getty@.service.d/ctr-tests.conf": (
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200 %I linux\n"
    ),
    # No OOMScoreAdjust here: containers inherit it, and with -1000 nothing is ever killed.
    "etc/systemd/system/ctr-agent.service": (
        "[Unit]\nDescription=jobs from the host\n"
        "[Service]\nExecStart=/usr/bin/python3 /usr/local/lib/ctr-agent.py\nRestart=always\n"
    ),
    "var/lib/systemd/linger/tester": "",
}

INITRD = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for m in /modules/*; do /bin/busybox insmod $m; done
while ! [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""


def make(suite: str, target: Path):
    """Leaves disk, kernel and initrd in `target`."""
    if os.geteuid() != 0:
        raise host.Missing("building a guest image needs root; once built, anyone may run it")
    host.need("mmdebstrap", "e2fsprogs", "debian-archive-keyring")
    tree = target / "tree"
    bootstrap(suite, tree)
    configure(tree)
    shutil.copy(next(tree.glob("boot/vmlinuz-*")), target / "kernel")
    make_initrd(tree, target)
    make_disk(tree, target / "disk")
    shutil.rmtree(tree)


def bootstrap(suite: str, tree: Path):
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--skip=check/qemu"]
    command += ["--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Retries \"5\""]
    command += [f"--include={','.join(PACKAGES[suite])}", suite, str(tree), host.mirror()]
    for attempt in (1, 2):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode == 0:
            return
        # It has failed once for no visible reason, and worked the next time.
        print(f"mmdebstrap {suite} failed, attempt {attempt} of 2", file=sys.stderr)
        shutil.rmtree(tree, ignore_errors=True)
    raise host.Missing(f"mmdebstrap {suite} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))


def configure(tree: Path):
    add_user = ["useradd", "--create-home", "--uid", "1000", "--shell", "/bin/bash", "tester"]
    subprocess.run(["chroot", str(tree), *add_user], check=True, stdin=subprocess.DEVNULL)
    for name, text in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in UNWANTED:
        remove(tree / "etc/systemd/system" / name)
    shutil.copy(HERE / "agent.py", tree / "usr/local/lib/ctr-agent.py")
    (tree / "etc/systemd/system/multi-user.target.wants/ctr-agent.service").symlink_to("../ctr-agent.service")


def remove(path: Path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_initrd(tree: Path, target: Path):
    """Busybox and the drivers of the disk: boots seconds faster than Debian's own initrd."""
    work = target / "initrd.d"
    for folder in ("bin", "dev", "root", "modules"):
        (work / folder).mkdir(parents=True)
    shutil.copy(tree / "usr/bin/busybox", work / "bin/busybox")
    for number, module in enumerate(modules(tree, "virtio_pci", "virtio_blk", "ext4")):
        data = module.read_bytes()
        if module.suffix == ".xz":
            data = lzma.decompress(data)
        (work / f"modules/{number:02}.ko").write_bytes(data)
    (work / "init").write_text(INITRD)
    (work / "init").chmod(0o755)
    with open(target / "initrd", "wb") as out:
        pack = "find . | bin/busybox cpio -o -H newc"
        subprocess.run(["sh", "-c", pack], cwd=work, check=True, stdout=out, stderr=subprocess.DEVNULL)
    shutil.rmtree(work)


def modules(tree: Path, *names: str) -> list:
    """The files of these modules and of all they need, in the order to load them; built-in ones have none."""
    folder = next(tree.glob("lib/modules/*"))
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        file, _, rest = line.partition(":")
        needs[Path(file).name.split(".")[0]] = (folder / file, [Path(n).name.split(".")[0] for n in rest.split()])
    order = []

    def add(name):
        file, before = needs.get(name, (None, []))
        for other in before:
            add(other)
        if file and file not in order:
            order.append(file)

    for name in names:
        add(name)
    return order


def make_disk(tree: Path, disk: Path):
    with open(disk, "wb") as file:
        file.truncate(8 << 30)
    command = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-L", "root", "-d", str(tree), str(disk)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
