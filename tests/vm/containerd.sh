#!/bin/bash
# What containerd's own client asks of one OCI runtime, through the runc shim and with both cgroup drivers; checks.sh
# says how to run it, as root. What Kubernetes asks of containerd is cri.py.
# shellcheck source=tests/vm/checks.sh
. "$(dirname "$0")/checks.sh"

ALONE="many_at_once shim_killed nothing_left"
IMAGE=docker.io/library/box:latest
export IMAGE

set_up() {
	mkdir -p /etc/containerd
	sed "s,/usr/bin/ctr-runtime,$RUNTIME," "$HERE/../../examples/containerd/config-v2.toml" >/etc/containerd/config.toml
	systemctl start containerd
	root_tar | python3 "$HERE/archive.py" $IMAGE >"$ALL/box.tar"
	c image import "$ALL/box.tar" >/dev/null
}

tidy() {
	c task ls -q | xargs -r -n 1 /usr/bin/ctr task rm -f
	c container ls -q | xargs -r -n 1 /usr/bin/ctr container rm
}

# Ours may come first in the PATH.
c() { /usr/bin/ctr "$@"; }
shim() { # [OPTION ...] IMAGE ID COMMAND ...
	c run --runtime io.containerd.runc.v2 --runc-binary "$RUNTIME" "$@"
}
run() { shim --rm "$@"; }
background() { # ID [OPTION ...] -- COMMAND ...
	local id=$1 options words
	split "${@:2}"
	shim -d --null-io "${options[@]}" $IMAGE "$id" "${words[@]}"
}
in_systemd() { # ID: options for the other driver
	echo "--runc-systemd-cgroup --cgroup system.slice:test:$1"
}
task() { c task ls | awk -v id="$1" '$1 == id { print $3 }'; } # ID: its state
is() { [ "$(task "$1")" = "$2" ]; }
pid() { c task ls | awk -v id="$1" '$1 == id { print $2 }'; }
cgroup_of() { echo "/sys/fs/cgroup$(awk -F: '{ print $3 }' "/proc/$(pid "$1")/cgroup")"; }
inside() { # ID COMMAND ...: a further process
	c task exec --exec-id "e$RANDOM$RANDOM" "$@"
}
gone() { # ID ...
	local id
	for id; do
		c task rm -f "$id" >/dev/null 2>&1
		c container rm "$id"
	done
}

check_info() {
	# The CRI plugin, from the example, knows it.
	c plugin ls | grep -q 'io.containerd.grpc.v1 *cri .*ok'
	same "$RUNTIME" "$(containerd config dump | awk -F '"' '/BinaryName/ && $2 != "" { print $2; exit }')"
}
check_run_output() { same out "$(run $IMAGE output sh -c 'echo out; echo err >&2' 2>/dev/null)"; }
check_exit_status() { status_is 7 run $IMAGE status sh -c 'exit 7'; }
check_exit_not_found() {
	refused run $IMAGE missing /no/such/program
	has "$output" 'no such file or directory'
	same "" "$(task missing)"
}
check_exit_not_in_path() {
	refused run $IMAGE unfound no-such-program
	has "$output" 'executable file not found'
}
check_exit_not_executable() {
	refused run $IMAGE denied /etc/passwd
	has "$output" 'permission denied'
}
check_stdin() {
	mkfifo "$WORK/in"
	run $IMAGE input cat <"$WORK/in" >"$WORK/out" &
	local client=$!
	exec 9>"$WORK/in"
	echo hello >&9
	# The client misses an end of its input that comes before the container has started.
	eventually grep -q hello "$WORK/out"
	exec 9>&-
	wait "$client"
	same hello "$(cat "$WORK/out")"
}
check_tty() {
	local out
	out=$(script -qec "stty rows 33 cols 77; /usr/bin/ctr run --rm -t --runtime io.containerd.runc.v2 \
		--runc-binary $RUNTIME $IMAGE terminal sh -c 'sleep 1; tty; stty size; exit 3'" /dev/null </dev/null) || same 3 $?
	has "$out" /dev/pts/0
	has "$out" '33 77'
}
check_process_settings() {
	local out
	out=$(run --env 'X=a b' --cwd /tmp --user 1234:5678 --hostname deep $IMAGE settings \
		sh -c 'echo "$X $(pwd) $(id -u):$(id -g) $(hostname)"')
	same "a b /tmp 1234:5678 deep" "$out"
}
check_capabilities() {
	local has
	has=$(run --cap-add CAP_SYS_TIME $IMAGE adds awk '/^CapEff/ { print $2 }' /proc/self/status)
	same 1 $((0x$has >> 25 & 1))
	run --cap-drop CAP_CHOWN $IMAGE drops sh -c '! chown 1:1 /tmp'
}
check_privileged() { run --privileged $IMAGE mighty mount -t tmpfs none /mnt; }
check_seccomp() {
	same 2 "$(run --seccomp $IMAGE filtered awk '/^Seccomp:/ { print $2 }' /proc/self/status)"
}
check_apparmor() {
	[ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ] || skip "AppArmor is off"
	has "$(run --apparmor-default-profile tested $IMAGE armoured cat /proc/self/attr/current)" tested
}
check_mounts() {
	mkdir "$WORK/volume"
	run --mount "type=bind,src=$WORK/volume,dst=/v,options=rbind:rw" \
		--mount "type=bind,src=$WORK/volume,dst=/ro,options=rbind:ro" \
		--mount 'type=tmpfs,src=tmpfs,dst=/scratch,options=size=2m' $IMAGE mounts sh -ec '
		echo inside >/v/file; ! touch /ro/new; grep " /scratch " /proc/self/mountinfo | grep size=2048k'
	same inside "$(cat "$WORK/volume/file")"
}
check_read_only() { run --read-only $IMAGE fixed sh -c '! touch /file'; }
check_device() { run --device /dev/fuse $IMAGE device test -c /dev/fuse; }
check_host_network() {
	same "$(readlink /proc/self/ns/net)" "$(run --net-host $IMAGE hostnet readlink /proc/self/ns/net)"
}
check_join_namespace() {
	background owner -- sleep 1000
	local net
	net=/proc/$(pid owner)/ns/net
	same "$(readlink "$net")" "$(run --with-ns "network:$net" $IMAGE joiner readlink /proc/self/ns/net)"
	gone owner
}
check_rootfs() {
	# A folder in an image's place, which the runtime gets as it is.
	same in "$(run --rootfs "$ROOT" folder echo in)"
}
check_pid_file() {
	background filed --pid-file "$WORK/pid" -- sleep 1000
	same "$(pid filed)" "$(cat "$WORK/pid")"
	gone filed
}

lifecycle() { # ID [OPTION ...]: all that a task goes through
	local id=$1 cgroup
	shift
	background "$id" --memory-limit 67108864 --cpus 0.5 "$@" -- sh -c 'trap "exit 11" USR1; while :; do sleep 0.1; done'
	is "$id" RUNNING
	cgroup=$(cgroup_of "$id")
	same "67108864 50000 100000" "$(cat "$cgroup/memory.max" "$cgroup/cpu.max" | xargs)"
	same "$("$RUNTIME" --root /run/containerd/runc/default state "$id" | jq .pid)" "$(pid "$id")"
	same hi "$(inside "$id" echo hi)"
	status_is 6 inside "$id" sh -c 'exit 6'
	refused inside "$id" /no/such/program
	has "$(c task ps "$id")" "$(pid "$id")"
	same 67108864 "$(c task metrics --format json "$id" | jq '.memory.usage_limit // .usage_limit')"
	c task pause "$id"
	is "$id" PAUSED
	refused inside "$id" true
	c task resume "$id"
	is "$id" RUNNING
	refused c task rm "$id"
	c task kill -s SIGUSR1 "$id"
	eventually is "$id" STOPPED
	has "$(c task rm "$id" 2>&1)" "exit code 11"
	c container rm "$id"
	[ ! -e "$cgroup" ] || die "$cgroup is still there"
}
check_lifecycle_cgroupfs() { lifecycle files; }
check_lifecycle_systemd() {
	# shellcheck disable=SC2046
	lifecycle scope $(in_systemd scope)
}
check_systemd_scope() {
	# shellcheck disable=SC2046
	background unit $(in_systemd unit) --memory-limit 67108864 -- sleep 1000
	same "67108864 active" "$(systemctl show -P MemoryMax -P ActiveState test-unit.scope | xargs)"
	gone unit
	eventually sh -c '! systemctl is-active -q test-unit.scope'
}
check_exec_tty() {
	background typed -- sleep 1000
	local out
	out=$(script -qec "/usr/bin/ctr task exec -t --exec-id typed1 typed sh -c 'tty; exit 3'" /dev/null </dev/null) || same 3 $?
	has "$out" /dev/pts/
	gone typed
}
check_exec_user() {
	background used -- sleep 1000
	same "1234 /tmp" "$(inside --user 1234 --cwd /tmp used sh -c 'echo $(id -u) $(pwd)')"
	gone used
}
check_exec_ends_with_init() {
	background short -- sleep 1000
	inside short sleep 900 &
	eventually sh -c '[ "$(/usr/bin/ctr task ps short | wc -l)" -ge 3 ]'
	c task kill -s KILL short
	local got=0
	wait $! || got=$?
	same 137 $got
	gone short
}
check_kill_all() {
	background several -- sh -c 'sleep 900 & sleep 900 & wait'
	eventually sh -c '[ "$(/usr/bin/ctr task ps several | wc -l)" -ge 4 ]'
	c task kill -a -s KILL several
	eventually is several STOPPED
	gone several
}
check_kill_all_host_pid() {
	# Without a PID namespace of its own the first process's end does not end the others.
	background shared --with-ns pid:/proc/1/ns/pid -- sh -c 'sleep 901 & sleep 901 & wait'
	eventually sh -c '[ "$(pgrep -c -f "^sleep 901")" = 2 ]'
	c task kill -s KILL shared
	eventually is shared STOPPED
	gone shared
	eventually sh -c '! pgrep -f "^sleep 901"'
}
oom() { # ID [OPTION ...]: its event is heard
	local id=$1
	shift
	timeout 60 /usr/bin/ctr events >"$WORK/events" &
	local listener=$!
	sleep 1
	background "$id" --memory-limit 16777216 "$@" -- sh -c 'sh -c "x=a; while :; do x=\$x\$x; done"; sleep 2; exit 5'
	eventually grep -q "/tasks/oom.*$id" "$WORK/events"
	kill $listener
	eventually is "$id" STOPPED
	gone "$id"
}
check_oom_event_cgroupfs() { oom greedy; }
check_oom_event_systemd() {
	# shellcheck disable=SC2046
	oom devours $(in_systemd devours)
}
exits() { run $IMAGE "many$1" sh -c "exit $1"; } # STATUS
check_many_at_once() { four_at_once exits; }
check_shim_killed() {
	# The client finds out; what it can do then is to remove it.
	background orphan -- sleep 902
	pkill -KILL -f 'containerd-shim-runc-v2 .*-id orphan '
	eventually sh -c '! /usr/bin/ctr task ls -q | grep -q orphan'
	c container rm orphan
	eventually sh -c '! pgrep -f "^sleep 902"'
}

# Last: all of the above must have left nothing.
check_nothing_left() {
	same "" "$(c task ls -q)$(c container ls -q)"
	eventually sh -c '! pgrep -f "[c]ontainerd-shim|^sleep [0-9]"'
	same "" "$(awk '$5 ~ "io.containerd.runtime.v2.task" { print $5 }' /proc/self/mountinfo)"
	same "" "$(find /run/containerd/runc /run/containerd/io.containerd.runtime.v2.task -mindepth 2 2>/dev/null || true)"
	same "" "$(find /sys/fs/cgroup/default /sys/fs/cgroup/system.slice -mindepth 1 -type d -name 'test-*' 2>/dev/null || true)"
	same "" "$(find /sys/fs/cgroup/default -mindepth 1 -type d 2>/dev/null || true)"
}

main "$@"
