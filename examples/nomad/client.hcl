# A Nomad client whose Docker has the runtime (examples/docker/daemon.json). Tasks of the podman driver need nothing here:
# they get podman's own default (examples/podman/50-ctr.conf).
client {
  enabled = true
}

plugin "docker" {
  config {
    allow_runtimes = ["runc", "ctr"]
  }
}
