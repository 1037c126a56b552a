#!/usr/bin/env python3
"""Says whether the licence of every crate we build with is on the list, and whether each comes from a registry.

Prints a line for each that is not; exit status 1 if there is one.
"""

import json
import re
import subprocess
import sys

ALLOWED = """
    0BSD Apache-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0 ISC MIT MIT-0 MPL-2.0 Unicode-3.0 Unicode-DFS-2016
    Unlicense Zlib
""".split()
EXCEPTIONS = ["LLVM-exception"]


def allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met with allowed licences alone."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    value, rest = either(words)
    return value and not rest


def either(words):
    value, words = both(words)
    while words and words[0] == "OR":
        other, words = both(words[1:])
        value = value or other
    return value, words


def both(words):
    value, words = one(words)
    while words and words[0] == "AND":
        other, words = one(words[1:])
        value = value and other
    return value, words


def one(words):
    if not words:
        return False, []
    if words[0] == "(":
        value, words = either(words[1:])
        return value, words[1:]
    value, words = words[0] in ALLOWED, words[1:]
    if words and words[0] == "WITH":
        value, words = value and words[1] in EXCEPTIONS, words[2:]
    return value, words


def complaint(package: dict):
    name = f"{package['name']} {package['version']}"
    if not allowed(package["license"] or ""):
        return f"{name}: licence {package['license']!r} is not on the list"
    source = package["source"]
    # None is a crate of our own workspace.
    if source is not None and not source.startswith(("registry+", "sparse+")):
        return f"{name}: comes from {source}, not from a registry"
    return None


def main() -> int:
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    platform = re.search(r"^host: (\S+)", version, re.M)[1]
    command = ["cargo", "metadata", "--format-version=1", f"--filter-platform={platform}"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    packages = [package for package in metadata["packages"] if package["id"] in used]
    complaints = [text for text in map(complaint, packages) if text]
    print("\n".join(complaints or [f"{len(packages)} crates, all licences on the list"]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
