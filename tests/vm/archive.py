#!/usr/bin/env python3
"""archive.py NAME [COMMAND ...] < ROOT.tar > IMAGE.tar: an OCI archive with one layer, as containerd's client imports it."""

import hashlib
import io
import json
import sys
import tarfile

MEDIA = "application/vnd.oci.image."


def main():
    archive = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")

    def add(name: str, data: bytes):
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o644
        archive.addfile(entry, io.BytesIO(data))

    def blob(kind: str, data: bytes) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        add(f"blobs/sha256/{digest}", data)
        return {"mediaType": MEDIA + kind, "digest": f"sha256:{digest}", "size": len(data)}

    layer = blob("layer.v1.tar", sys.stdin.buffer.read())
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": sys.argv[2:] or ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    config = blob("config.v1+json", json.dumps(image).encode())
    manifest = {"schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json", "config": config, "layers": [layer]}
    entry = blob("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": sys.argv[1]}
    add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    add("index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    archive.close()


if __name__ == "__main__":
    main()
