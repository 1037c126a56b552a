#!/bin/bash
# Images built with RUN steps by buildah and podman, with one OCI runtime; checks.sh says how to run it, as root or as an
# ordinary user. What Docker builds is in docker.sh.
# shellcheck source=tests/vm/checks.sh
. "$(dirname "$0")/checks.sh"

ALONE="nothing_left"
LIMIT=240 # a container for each step
IMAGE=localhost/box
export IMAGE BUILDAH_ISOLATION=oci BUILDAH_RUNTIME=$RUNTIME

cat >"$ALL/containers.conf" <<-END
	[containers]
	log_driver = "k8s-file"
	[engine]
	events_logger = "file"
	# Builds do not hear of --runtime: the engine's own is theirs.
	runtime = "tested"
	[engine.runtimes]
	tested = ["$RUNTIME"]
END
export CONTAINERS_CONF=$ALL/containers.conf

set_up() { root_tar | podman import -q - $IMAGE >/dev/null; }
tidy() { buildah rm -a; }

# Most builds are about what is run, and a network costs a second.
build() { # TAG [OPTION ...]: from $WORK/Containerfile
	buildah build -q --runtime "$RUNTIME" --isolation oci --network none --layers=false -t "$@" "$WORK" >/dev/null
}
file() { cat >"$WORK/Containerfile"; }
content() { # IMAGE FILE ...: files of an image, seen without a runtime
	local image=$1 container
	shift
	container=$(buildah from "$image")
	# shellcheck disable=SC2016
	buildah unshare sh -ec 'cd "$(buildah mount "$0")"; cat "$@"' "$container" "$@"
	buildah rm "$container" >/dev/null
}
# As root no namespace is needed to mount.
if [ "$(id -u)" = 0 ]; then
	content() {
		local image=$1 container
		shift
		container=$(buildah from "$image")
		(cd "$(buildah mount "$container")" && cat "$@")
		buildah rm "$container" >/dev/null
	}
fi

check_run_steps() {
	file <<-END
		FROM $IMAGE
		ENV A=b
		RUN echo \$A \$(id -u) >/built
		WORKDIR /tmp
		RUN ["sh", "-c", "pwd >>/built"]
		USER 1:1
		RUN id -u >/tmp/user
	END
	build steps
	same "b 0 /tmp 1" "$(content steps built tmp/user | xargs)"
}
check_run_failure() {
	printf 'FROM %s\nRUN exit 9\n' $IMAGE | file
	refused build never
	has "$output" 'exit status 9'
	printf 'FROM %s\nRUN ["/no/such/program"]\n' $IMAGE | file
	refused build never
	has "$output" 'o such file or directory'
}
check_run_mounts() {
	echo given >"$WORK/given"
	echo secret >"$WORK/secret"
	file <<-END
		FROM $IMAGE
		RUN --mount=type=bind,source=given,target=/given cat /given >/a
		RUN --mount=type=tmpfs,target=/t touch /t/x && grep -q ' /t ' /proc/self/mountinfo && echo tmpfs >/b
		RUN --mount=type=secret,id=word cat /run/secrets/word >/c
		RUN --mount=type=cache,target=/cache echo x >/cache/y
		RUN --mount=type=cache,target=/cache cat /cache/y >/d
	END
	build mounts --secret "id=word,src=$WORK/secret"
	same "given tmpfs secret x" "$(content mounts a b c d | xargs)"
}
check_run_volume() {
	mkdir "$WORK/v"
	printf 'FROM %s\nRUN echo out >/v/file\n' $IMAGE | file
	build volumes -v "$WORK/v:/v"
	same out "$(cat "$WORK/v/file")"
}
check_run_capabilities() {
	printf 'FROM %s\nRUN grep CapEff /proc/self/status >/tmp/caps\n' $IMAGE | file
	build caps --cap-drop all --cap-add chown
	has "$(content caps tmp/caps)" 0000000000000001
}
check_run_limits() {
	printf 'FROM %s\nRUN cat /sys/fs/cgroup/memory.max >/max; ulimit -n >>/max\n' $IMAGE | file
	build limited --memory 64m --ulimit nofile=123:456
	same "67108864 123" "$(content limited max | xargs)"
}
check_run_network_host() {
	printf 'FROM %s\nRUN readlink /proc/self/ns/net >/net\n' $IMAGE | file
	buildah build -q --runtime "$RUNTIME" --isolation oci --network host --layers=false -t hosted "$WORK" >/dev/null
	same "$(readlink /proc/self/ns/net)" "$(content hosted net)"
}
check_layers_cached() {
	printf 'FROM %s\nRUN echo $RANDOM$RANDOM >/number\nRUN echo more >/more\n' $IMAGE | file
	buildah build -q --runtime "$RUNTIME" --isolation oci --network none --layers -t first "$WORK" >/dev/null
	buildah build -q --runtime "$RUNTIME" --isolation oci --network none --layers -t second "$WORK" >/dev/null
	same "$(content first number)" "$(content second number)"
}
check_multi_stage() {
	file <<-END
		FROM $IMAGE AS one
		RUN echo made >/made
		FROM $IMAGE
		COPY --from=one /made /kept
		RUN cat /kept >/read
	END
	build staged
	same made "$(content staged read)"
}
check_buildah_run() {
	local container
	container=$(buildah from $IMAGE)
	same hi "$(buildah run --runtime "$RUNTIME" --isolation oci --network none "$container" -- echo hi)"
	same heard "$(echo heard | buildah run --runtime "$RUNTIME" --isolation oci --network none "$container" -- cat)"
	status_is 7 buildah run --runtime "$RUNTIME" --isolation oci --network none "$container" -- sh -c 'exit 7'
	has "$(script -qec "buildah run -t --runtime $RUNTIME --isolation oci --network none $container -- tty" /dev/null </dev/null)" /dev/pts/
	buildah rm "$container" >/dev/null
}
check_user_namespace() {
	printf 'FROM %s\nRUN cat /proc/self/uid_map >/map; touch /file; stat -c %%u /file >>/map\n' $IMAGE | file
	local first=1
	if [ "$(id -u)" = 0 ]; then first=200000; fi
	build mapped --userns-uid-map 0:$first:1000 --userns-gid-map 0:$first:1000
	same "0 $first 1000 0" "$(content mapped map | xargs)"
}
check_podman_build() {
	printf 'FROM %s\nRUN echo $(id -u) >/built\n' $IMAGE | file
	podman build -q --isolation oci --network none --layers=false -t podded "$WORK" >/dev/null
	same 0 "$(content podded built)"
	printf 'FROM %s\nRUN exit 9\n' $IMAGE | file
	refused podman build --isolation oci --network none --layers=false "$WORK"
	has "$output" 'exit status 9'
}
check_runtime_is_called() {
	# By a runtime that says so and does nothing: the builders did not take another.
	printf '#!/bin/sh\necho called as "$@" >&2\nexit 1\n' >"$WORK/runtime"
	chmod +x "$WORK/runtime"
	printf 'FROM %s\nRUN true\n' $IMAGE | file
	refused buildah build --runtime "$WORK/runtime" --isolation oci --network none --layers=false "$WORK"
	has "$output" 'called as'
}

check_nothing_left() {
	same "" "$(buildah containers -q)"
	same "" "$(pgrep -a -f "^$RUNTIME " || true)"
	same "" "$(find /sys/fs/cgroup -type d -name '*buildah*' 2>/dev/null || true)"
}

main "$@"
