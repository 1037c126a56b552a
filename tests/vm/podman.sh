#!/bin/bash
# What podman's users do, done with one OCI runtime; run it as root or as an ordinary user inside the guest:
#
#   podman.sh RUNTIME [CHECK ...]        RUNTIME: crun, runc, or a path
#
# Each check prints "ok NAME", "not ok NAME: why" or "skip NAME: why"; the last line is the plan, "1..N".
# CGROUPS=cgroupfs makes podman use that cgroup manager, not systemd.  To try it by hand:
#   tests/vm/guest.py run trixie --push tests/vm/podman.sh:/opt/podman.sh -- /opt/podman.sh crun
set -euo pipefail

RUNTIME=$(command -v "${1:?usage: podman.sh RUNTIME [CHECK ...]}")
shift
IMAGE=localhost/box
LIMIT=90 # seconds for one check
RUN=${XDG_RUNTIME_DIR:-/run}
WORK=$(mktemp -d)
export RUNTIME IMAGE WORK

cat >"$WORK/containers.conf" <<-END
	[containers]
	log_driver = "k8s-file"
	[engine]
	events_logger = "file"
	cgroup_manager = "${CGROUPS:-systemd}"
	# podman knows by their names what runtimes can do.
	runtime_supports_json = ["$(basename "$RUNTIME")"]
	# (Not nocgroups, as its manual says: the key it reads has no s.)
	runtime_supports_nocgroup = ["crun", "ctr"]
END
export CONTAINERS_CONF=$WORK/containers.conf

# --- words that the checks use ---

p() { podman --runtime "$RUNTIME" "$@"; }

# Most checks are about the container itself, and a network costs a second.
run() { p run --rm --network none "$@"; }

background() { # NAME [OPTION ...] -- COMMAND ...: a container that stays
	local name=$1 options=()
	shift
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	p run -d --network none --name "$name" "${options[@]}" $IMAGE "$@" >/dev/null
}

gone() { # NAME ...: removes what a check has made
	p rm -f -t 0 "$@" >/dev/null
}

die() {
	echo "$*" >&2
	exit 1
}

same() { # WANT GOT
	[ "$1" = "$2" ] || die "wanted '$1', got '$2'"
}

differ() { # FORBIDDEN GOT
	[ "$1" != "$2" ] || die "got '$2'"
}

status_is() { # WANT COMMAND ...
	local want=$1 got=0 output
	shift
	output=$("$@" 2>&1) || got=$?
	[ "$want" = "$got" ] || die "wanted status $want, got $got: $output"
}

refused() { # COMMAND ...: must fail
	if output=$("$@" 2>&1); then die "was not refused: $* ($output)"; fi
}

has() { # TEXT PART
	case $1 in *"$2"*) ;; *) die "'$2' is not in '$1'" ;; esac
}

eventually() { # COMMAND ...: succeeds within ten seconds
	local i
	for i in $(seq 50); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.2
	done
	echo "never true: $*" >&2
	return 1
}

in_state() { [ "$(p inspect -f '{{.State.Status}}' "$1")" = "$2" ]; }

logged() { p logs "$1" 2>&1 | grep -q "$2"; } # CONTAINER TEXT

# --- the checks: functions named check_*, run in the order they stand here ---

check_runtime_is_ours() {
	background which -- sleep 100
	same "$RUNTIME" "$(p inspect -f '{{.OCIRuntime}}' which)"
	gone which
}

check_info() { has "$(p info -f '{{.Host.OCIRuntime.Version}}')" version; }

check_run_output() {
	same out "$(run $IMAGE sh -c 'echo out; echo err >&2' 2>"$WORK/err")"
	same err "$(cat "$WORK/err")"
}

check_exit_status() { status_is 7 run $IMAGE sh -c 'exit 7'; }
check_exit_by_signal() {
	# From outside: the kernel shields a first process from its own signals.
	run --name shot $IMAGE sh -c 'echo up; sleep 100' >"$WORK/shot" &
	eventually grep -q up "$WORK/shot"
	p kill shot >/dev/null
	local got=0
	wait $! || got=$?
	same 137 $got
}
check_exit_not_found() { status_is 127 run $IMAGE /no/such/program; }
check_exit_not_in_path() { status_is 127 run $IMAGE no-such-program; }
check_exit_not_executable() {
	# Podman gives 126 for many errors, so the words count too.
	status_is 126 run $IMAGE /etc/passwd
	has "$(run $IMAGE /etc/passwd 2>&1 || true)" 'ermission denied'
}
check_exit_of_detached() {
	background failing -- sh -c 'exit 9'
	same 9 "$(p wait failing)"
	gone failing
}

check_stdin() { same hello "$(echo hello | run -i $IMAGE cat)"; }
check_stdin_large() {
	head -c 3000000 /dev/zero >"$WORK/zeros"
	same 3000000 "$(run -i $IMAGE wc -c <"$WORK/zeros")"
}
check_stdin_closed() { same end "$(run $IMAGE sh -c 'cat; echo end')"; }

check_tty() { has "$(run -t $IMAGE tty)" /dev/pts/0; }
check_tty_interactive() {
	local out
	out=$(echo 'echo sum $((40 + 2)); exit 3' |
		script -qec "podman --runtime $RUNTIME run --rm --network none -it $IMAGE sh" /dev/null) || same 3 $?
	has "$out" 'sum 42'
}
check_tty_size() {
	local out
	out=$(script -qec "stty rows 33 cols 77; podman --runtime $RUNTIME run --rm --network none -it $IMAGE \
		sh -c 'sleep 1; stty size'" /dev/null </dev/null)
	has "$out" '33 77'
}
check_console_device() { run -t $IMAGE sh -c 'test -c /dev/console && echo x >/dev/console'; }

check_environment() { same "a b" "$(run -e 'X=a b' $IMAGE sh -c 'echo "$X"')"; }
check_workdir() { same /tmp "$(run -w /tmp $IMAGE pwd)"; }
check_hostname() { same deep "$(run --hostname deep $IMAGE hostname)"; }
check_user() { same 1234:5678 "$(run -u 1234:5678 $IMAGE sh -c 'echo "$(id -u):$(id -g)"')"; }
check_groups() { has "$(run --group-add 4242 $IMAGE id)" 4242; }
check_umask() { same 0027 "$(run --umask 0027 $IMAGE sh -c umask)"; }
check_ulimit() { same 123 "$(run --ulimit nofile=123:456 $IMAGE sh -c 'ulimit -n')"; }
check_sysctl() { same 12345 "$(run --sysctl kernel.shmmax=12345 $IMAGE cat /proc/sys/kernel/shmmax)"; }
check_oom_score() { same 700 "$(run --oom-score-adj 700 $IMAGE cat /proc/self/oom_score_adj)"; }
check_pid_one() { same 1 "$(run $IMAGE sh -c 'echo $$')"; }
check_init() { has "$(run --init $IMAGE cat /proc/1/comm)" init; }
check_shm_size() { has "$(run --shm-size 3m $IMAGE df -k /dev/shm)" 3072; }
check_preserve_fds() {
	echo kept >"$WORK/kept"
	same kept "$(run --preserve-fds 1 $IMAGE sh -c 'cat <&3' 3<"$WORK/kept")"
}

check_create_start() {
	p create --name later --network none $IMAGE sh -c 'echo started; exit 4' >/dev/null
	in_state later created
	status_is 4 p start -a later
	has "$(p logs later)" started
	gone later
}
check_init_phase() {
	p create --name phase --network none $IMAGE sleep 100 >/dev/null
	p init phase >/dev/null
	in_state phase initialized
	p start phase >/dev/null
	in_state phase running
	gone phase
}
check_logs() {
	background talks -- sh -c 'echo one; echo two >&2'
	p wait talks >/dev/null
	has "$(p logs talks 2>&1)" one
	has "$(p logs talks 2>&1)" two
	gone talks
}
check_attach() {
	background hears --interactive -- sh -c 'read x; echo "heard $x"; exit 5'
	local out
	out=$(echo word | p attach hears) || same 5 $?
	has "$out" 'heard word'
	gone hears
}
check_restart() {
	background again -- sh -c 'echo turn; sleep 100'
	p restart -t 0 again >/dev/null
	eventually sh -c "[ \$(podman logs again | grep -c turn) = 2 ]"
	gone again
}

check_exec() {
	background long -- sleep 1000
	same hi "$(p exec long echo hi)"
	status_is 6 p exec long sh -c 'exit 6'
	status_is 127 p exec long /no/such/program
	status_is 126 p exec long /etc/passwd
	same piped "$(echo piped | p exec -i long cat)"
	has "$(p exec -t long tty)" /dev/pts/
	same 1234 "$(p exec -u 1234 long id -u)"
	same /tmp "$(p exec -w /tmp long pwd)"
	same v "$(p exec -e K=v long sh -c 'echo $K')"
	p exec -d long sh -c 'echo made >/made'
	eventually podman --runtime "$RUNTIME" exec long grep made /made
	gone long
}
check_exec_same_namespaces() {
	background spaces -- sh -c 'for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; sleep 100'
	eventually logged spaces 'uts:'
	same "$(p logs spaces)" \
		"$(p exec spaces sh -c 'for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done')"
	gone spaces
}
check_exec_privileged() {
	background caps --cap-drop all -- sleep 100
	has "$(p exec caps grep CapEff /proc/self/status)" 0000000000000000
	differ 0000000000000000 "$(p exec --privileged caps awk '/CapEff/ { print $2 }' /proc/self/status)"
	gone caps
}
check_exec_stopped() {
	background over -- true
	p wait over >/dev/null
	refused p exec over true
	gone over
}

check_pause() {
	background frozen -- sh -c 'while :; do date +%s >/tick; sleep 0.2; done'
	p pause frozen >/dev/null
	in_state frozen paused
	refused p exec frozen true
	local cgroup
	cgroup=/sys/fs/cgroup$(p inspect -f '{{.State.CgroupPath}}' frozen)
	grep -rqs --include=cgroup.events 'frozen 1' "$cgroup" || die "its cgroup is not frozen"
	p unpause frozen >/dev/null
	in_state frozen running
	p exec frozen true
	gone frozen
}
check_remove_paused() {
	background frozen -- sleep 100
	p pause frozen >/dev/null
	gone frozen
	refused p inspect frozen
}

check_kill() {
	background victim -- sleep 100
	p kill victim >/dev/null
	same 137 "$(p wait victim)"
	gone victim
}
check_kill_signal() {
	background trap -- sh -c 'trap "echo got; exit 11" USR1; echo set; while :; do sleep 0.1; done'
	eventually logged trap set
	p kill -s USR1 trap >/dev/null
	same 11 "$(p wait trap)"
	has "$(p logs trap)" got
	gone trap
}
check_signal_proxy() {
	podman --runtime "$RUNTIME" run --rm --network none --name proxy $IMAGE \
		sh -c 'trap "exit 12" TERM; echo set; while :; do sleep 0.1; done' >"$WORK/proxy" &
	eventually grep -q set "$WORK/proxy"
	kill -TERM $!
	local got=0
	wait $! || got=$?
	same 12 $got
}
check_stop() {
	background polite -- sh -c 'trap "exit 0" TERM; echo set; while :; do sleep 0.1; done'
	eventually logged polite set
	p stop -t 20 polite >/dev/null
	same 0 "$(p inspect -f '{{.State.ExitCode}}' polite)"
	gone polite
}
check_stop_stubborn() {
	background stubborn -- sleep 1000
	p stop -t 1 stubborn >/dev/null
	same 137 "$(p inspect -f '{{.State.ExitCode}}' stubborn)"
	gone stubborn
}
check_remove_force() {
	background going -- sh -c 'sleep 1000 & sleep 1000 & wait'
	local pid
	pid=$(p inspect -f '{{.State.Pid}}' going)
	p rm -f -t 0 going >/dev/null
	refused p inspect going
	[ ! -e "/proc/$pid" ] || die "process $pid is still there"
}

check_volume() {
	mkdir "$WORK/volume"
	run -v "$WORK/volume:/v" $IMAGE sh -c 'echo inside >/v/file'
	same inside "$(cat "$WORK/volume/file")"
	refused run -v "$WORK/volume:/v:ro" $IMAGE touch /v/new
}
check_volume_named() {
	p volume create kept >/dev/null
	run -v kept:/v $IMAGE sh -c 'echo stays >/v/file'
	same stays "$(run -v kept:/v $IMAGE cat /v/file)"
	p volume rm kept >/dev/null
}
check_volume_file() {
	echo text >"$WORK/one file"
	same text "$(run -v "$WORK/one file:/etc/one file:ro" $IMAGE cat '/etc/one file')"
}
check_volume_options() {
	mkdir -p "$WORK/options"
	has "$(run -v "$WORK/options:/v:ro,nosuid,nodev,noexec" $IMAGE grep ' /v ' /proc/self/mountinfo)" \
		ro,nosuid,nodev,noexec
}
check_volume_propagation() {
	mkdir -p "$WORK/slave"
	has "$(run -v "$WORK/slave:/v:rslave" $IMAGE grep ' /v ' /proc/self/mountinfo)" /v
}
check_volume_idmap() {
	[ "$(id -u)" = 0 ] || { echo "rootful podman only"; exit 77; }
	mkdir -p "$WORK/mapped"
	touch "$WORK/mapped/file"
	same 0 "$(run --uidmap 0:200000:65536 -v "$WORK/mapped:/v:idmap" $IMAGE stat -c %u /v/file)"
}
check_tmpfs() {
	local line
	line=$(run --tmpfs /scratch:rw,size=2m,mode=1770,noexec $IMAGE grep ' /scratch ' /proc/self/mountinfo)
	has "$line" tmpfs
	has "$line" size=2048k
	has "$line" noexec
	same 1770 "$(run --tmpfs /scratch:mode=1770 $IMAGE stat -c %a /scratch)"
}
check_tmpfs_copy_up() {
	has "$(run --tmpfs /etc $IMAGE ls /etc)" passwd
}
check_read_only() {
	refused run --read-only $IMAGE touch /file
	run --read-only $IMAGE touch /tmp/file
	refused run --read-only --read-only-tmpfs=false $IMAGE touch /tmp/file
}

check_cap_drop() {
	has "$(run --cap-drop all $IMAGE grep CapEff /proc/self/status)" 0000000000000000
	refused run --cap-drop chown $IMAGE chown 1:1 /tmp
}
check_cap_add() {
	# Bit 25, CAP_SYS_TIME.
	has "$(run --cap-drop all --cap-add sys_time $IMAGE grep CapEff /proc/self/status)" 0000000002000000
}
check_cap_user() {
	has "$(run -u 1000 $IMAGE grep CapEff /proc/self/status)" 0000000000000000
}
check_privileged() {
	has "$(run --privileged $IMAGE grep Seccomp: /proc/self/status)" 0
	run --privileged $IMAGE mount -t tmpfs none /mnt
}
check_no_new_privileges() {
	same 1 "$(run --security-opt no-new-privileges $IMAGE awk '/NoNewPrivs/ { print $2 }' /proc/self/status)"
}
check_seccomp_default() { same 2 "$(run $IMAGE awk '/^Seccomp:/ { print $2 }' /proc/self/status)"; }
check_seccomp_unconfined() {
	same 0 "$(run --security-opt seccomp=unconfined $IMAGE awk '/^Seccomp:/ { print $2 }' /proc/self/status)"
}
check_seccomp_profile() {
	echo '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
		"syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}' >"$WORK/profile.json"
	local out
	out=$(run --security-opt "seccomp=$WORK/profile.json" $IMAGE mkdir /tmp/x 2>&1) && die "mkdir was allowed"
	# 28 is ENOSPC: the errno of the profile, not a plain EPERM.
	has "$out" "No space left"
}
check_masked_paths() {
	same "" "$(run $IMAGE cat /proc/kcore 2>/dev/null | head -c 1)"
	refused run $IMAGE sh -c 'echo 1 >/proc/sys/kernel/panic'
	has "$(run --security-opt unmask=ALL $IMAGE sh -c 'grep -c /proc/ /proc/self/mountinfo || true')" 0
}

check_device() {
	same c "$(run --device /dev/fuse $IMAGE sh -c 'test -c /dev/fuse && echo c')"
	run --device /dev/null:/dev/mine $IMAGE sh -c 'echo x >/dev/mine'
}
check_device_denied() {
	[ "$(id -u)" = 0 ] || { echo "device rules need root"; exit 77; }
	refused run --cap-add mknod $IMAGE sh -c 'mknod /tmp/vda b 254 0 && head -c 1 /tmp/vda'
	run --cap-add mknod --device-cgroup-rule 'c 1:3 rwm' $IMAGE sh -c 'mknod /tmp/n c 1 3 && echo x >/tmp/n'
	run --device /dev/loop-control:/dev/lc:r $IMAGE sh -c ': </dev/lc'
	refused run --device /dev/loop-control:/dev/lc:r $IMAGE sh -c ': >/dev/lc'
}
check_default_devices() {
	run $IMAGE sh -c 'for d in null zero full random urandom tty; do test -c /dev/$d || exit 1; done
		test -L /dev/fd && test -L /dev/stdin && test -L /dev/ptmx'
}

check_userns_keep_id() {
	[ "$(id -u)" != 0 ] || { echo "rootless podman only"; exit 77; }
	same "$(id -u):$(id -g)" "$(run --userns keep-id $IMAGE sh -c 'echo "$(id -u):$(id -g)"')"
	mkdir -p "$WORK/mine"
	run --userns keep-id -v "$WORK/mine:/v" $IMAGE touch /v/file
	same "$(id -u)" "$(stat -c %u "$WORK/mine/file")"
}
check_userns_auto() {
	[ "$(id -u)" = 0 ] || { echo "rootful podman only"; exit 77; }
	same 0 "$(run --userns auto $IMAGE id -u)"
	differ 0 "$(run --userns auto $IMAGE awk '{ print $2; exit }' /proc/self/uid_map)"
}
check_userns_uidmap() {
	local first=1
	if [ "$(id -u)" = 0 ]; then first=200000; fi
	has "$(run --uidmap 0:$first:1000 --gidmap 0:$first:1000 $IMAGE cat /proc/self/uid_map | tr -s ' ')" "0 "
	same 0 "$(run --uidmap 0:$first:1000 --gidmap 0:$first:1000 $IMAGE id -u)"
}
check_userns_nomap() {
	[ "$(id -u)" != 0 ] || { echo "rootless podman only"; exit 77; }
	run --userns nomap $IMAGE true
}

check_memory() {
	same 67108864 "$(run --memory 64m $IMAGE cat /sys/fs/cgroup/memory.max)"
}
check_oom_killed() {
	# The first process outlives its greedy child for a moment: conmon looks at the cgroup while it is there.
	background greedy --memory 24m --memory-swap 24m -- \
		sh -c 'sh -c "x=a; while :; do x=\$x\$x; done"; status=$?; sleep 2; exit $status'
	same 137 "$(p wait greedy)"
	same true "$(p inspect -f '{{.State.OOMKilled}}' greedy)"
	gone greedy
}
check_pids_limit() { same 33 "$(run --pids-limit 33 $IMAGE cat /sys/fs/cgroup/pids.max)"; }
check_cpus() { same "50000 100000" "$(run --cpus 0.5 $IMAGE cat /sys/fs/cgroup/cpu.max)"; }
check_cpuset() { same 1 "$(run --cpuset-cpus 1 $IMAGE cat /sys/fs/cgroup/cpuset.cpus.effective)"; }
check_cgroup_raw() {
	same 67108864 "$(run --cgroup-conf memory.high=67108864 $IMAGE cat /sys/fs/cgroup/memory.high)"
}
check_update() {
	background grows --memory 64m -- sleep 100
	p update --memory 128m --pids-limit 44 grows >/dev/null
	same 134217728 "$(p exec grows cat /sys/fs/cgroup/memory.max)"
	same 44 "$(p exec grows cat /sys/fs/cgroup/pids.max)"
	gone grows
}
check_cgroupfs_manager() {
	same 33 "$(podman --runtime "$RUNTIME" --cgroup-manager cgroupfs run --rm --network none --pids-limit 33 \
		$IMAGE cat /sys/fs/cgroup/pids.max)"
}
check_cgroups_disabled() {
	[ "$(basename "$RUNTIME")" != runc ] || { echo "runc cannot"; exit 77; }
	run --cgroups disabled $IMAGE sh -c 'exit 0'
}
check_cgroup_namespace() {
	same 0::/ "$(run $IMAGE cat /proc/self/cgroup)"
	differ 0::/ "$(run --cgroupns host $IMAGE cat /proc/self/cgroup)"
}

check_top_and_stats() {
	background busy -- sleep 1000
	has "$(p top busy)" sleep
	has "$(p stats --no-stream --format '{{.PIDs}}' busy)" 1
	gone busy
}
check_join_namespaces() {
	background host_of -- sleep 100
	has "$(run --pid container:host_of --ipc container:host_of --uts container:host_of $IMAGE ps)" 'sleep 100'
	gone host_of
}
check_pid_host() { has "$(run --pid host $IMAGE cat /proc/1/comm)" systemd; }
check_network_host() {
	same "$(readlink /proc/self/ns/net)" "$(p run --rm --network host $IMAGE readlink /proc/self/ns/net)"
}
check_network_bridge() {
	[ "$(id -u)" = 0 ] || { echo "needs pasta and an outer network"; exit 77; }
	has "$(p run --rm $IMAGE ip addr)" eth0
}
check_pod() {
	p pod create --name pod --network none >/dev/null
	p run -d --pod pod --name first $IMAGE sleep 100 >/dev/null
	same "$(p exec first readlink /proc/self/ns/ipc)" "$(p run --rm --pod pod $IMAGE readlink /proc/self/ns/ipc)"
	p pod rm -f -t 0 pod >/dev/null
}
check_healthcheck() {
	background healthy --health-cmd 'test -e /etc/passwd' --health-interval disable -- sleep 100
	p healthcheck run healthy
	gone healthy
}
check_system_prune() { p container prune -f >/dev/null; }

check_many_at_once() {
	local i pids=()
	for i in 1 2 3 4; do
		run $IMAGE sh -c "exit $i" &
		pids+=($!)
	done
	for i in 1 2 3 4; do
		local got=0
		wait "${pids[i - 1]}" || got=$?
		same $i $got
	done
}

# Last: all of the above must have left nothing.
check_nothing_left() {
	same "" "$(p ps -aq)"
	eventually nothing_runs || die "processes: $(left_processes)"
	eventually no_cgroups || die "cgroups: $(left_cgroups)"
	same "" "$(left_mounts)"
	same "" "$(left_state)"
}

nothing_runs() { [ -z "$(left_processes)" ]; }
no_cgroups() { [ -z "$(left_cgroups)" ]; }
left_processes() { pgrep -a -x 'conmon|sleep' || pgrep -a -f "^$RUNTIME " || true; }
left_cgroups() { find /sys/fs/cgroup -type d -name '*libpod-*' ! -name '*.slice' 2>/dev/null || true; }
# A rootless podman mounts in a namespace of its own.
left_mounts() {
	local inside=()
	[ "$(id -u)" = 0 ] || inside=(podman unshare)
	"${inside[@]}" cat /proc/self/mountinfo | awk '$5 ~ /\/[0-9a-f]{64}/ || $5 ~ /\/merged$/ { print $5 }'
}
# Runtimes name the folder of a container by its id; podman's own folders are podman's business.
left_state() {
	find "$RUN" /tmp -regextype egrep -regex '.*/[0-9a-f]{64}' ! -path '*/containers/*' ! -path '*/libpod/*' \
		! -path "$RUN/user/*" ! -path '*/.cache/*' 2>/dev/null || true
}

# --- running them ---

make_image() {
	local root=$WORK/root applet
	mkdir -p "$root"/{bin,dev,etc,mnt,proc,root,sys,tmp}
	cp /usr/bin/busybox "$root/bin/"
	for applet in $(busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n' >"$root/etc/passwd"
	printf 'root:x:0:\ndaemon:x:1:\n' >"$root/etc/group"
	chmod 1777 "$root/tmp"
	tar -C "$root" --owner 0 --group 0 -c . | podman import -q - $IMAGE >/dev/null
}

one() { # CHECK: runs it with a time limit and prints its line
	local name=$1 status=0 why
	# shellcheck disable=SC2016
	timeout -k 5 $LIMIT bash -c 'set -euo pipefail; "check_$1"' bash "$name" >"$WORK/said" 2>&1 </dev/null || status=$?
	why=$(tail -n 3 "$WORK/said" | tr '\n' ' ' | cut -c 1-400)
	case $status in
	0) echo "ok $name" ;;
	77) echo "skip $name: $why" ;;
	124 | 137) echo "not ok $name: no end after $LIMIT s, $why" ;;
	*) echo "not ok $name: ${why:-status $status}" ;;
	esac
	if [ $status != 0 ] && [ $status != 77 ]; then
		# The next check shall not stumble over what this one left.
		podman --runtime "$RUNTIME" rm -fa -t 0 >/dev/null 2>&1 || true
		podman --runtime "$RUNTIME" pod rm -fa -t 0 >/dev/null 2>&1 || true
		return 1
	fi
}

main() {
	local names=("$@") failed=0 name
	# shellcheck disable=SC2207
	[ $# != 0 ] || names=($(sed -n 's/^check_\([a-z_]*\)() {.*/\1/p' "$0"))
	# shellcheck disable=SC2046
	export -f $(declare -F | awk '{ print $3 }')
	export RUN
	make_image
	for name in "${names[@]}"; do one "$name" || failed=1; done
	chmod -R u+rwX "$WORK" && rm -rf "$WORK"
	echo "1..${#names[@]}"
	exit $failed
}

main "$@"
