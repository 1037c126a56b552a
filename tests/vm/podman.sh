#!/bin/bash
# What podman's users do, done with one OCI runtime as its default; checks.sh says how to run it, as root or as an ordinary user.
# podman's settings are examples/podman/50-ctr.conf with this runtime's path; CGROUPS=cgroupfs makes it use that cgroup
# manager, not systemd.
# shellcheck source=tests/vm/checks.sh
. "$(dirname "$0")/checks.sh"

ALONE="many_at_once system_prune nothing_left"
IMAGE=localhost/box
RUN=${XDG_RUNTIME_DIR:-/run}
export IMAGE RUN

sed "s,/usr/bin/ctr-runtime,$RUNTIME," "$HERE/../../examples/podman/50-ctr.conf" >"$ALL/containers.conf"
cat >"$ALL/here.conf" <<-END
	[containers]
	log_driver = "k8s-file"
	[engine]
	events_logger = "file"
	cgroup_manager = "${CGROUPS:-systemd}"
END
export CONTAINERS_CONF=$ALL/containers.conf CONTAINERS_CONF_OVERRIDE=$ALL/here.conf

set_up() { root_tar | podman import -q - $IMAGE >/dev/null; }

tidy() {
	p rm -fa -t 0
	p pod rm -fa -t 0
}

p() { podman "$@"; }

# Most checks are about the container itself, and a network costs a second.
run() { p run --rm --network none "$@"; }

background() { # NAME [OPTION ...] -- COMMAND ...: a container that stays
	local name=$1 options words
	split "${@:2}"
	p run -d --network none --name "$name" "${options[@]}" $IMAGE "${words[@]}" >/dev/null
}

gone() { # NAME ...: removes what a check has made
	p rm -f -t 0 "$@" >/dev/null
}

in_state() { [ "$(p inspect -f '{{.State.Status}}' "$1")" = "$2" ]; }

logged() { case $(p logs "$1" 2>&1) in *"$2"*) ;; *) false ;; esac; } # CONTAINER TEXT


check_runtime_is_ours() {
	background which -- sleep 100
	same "ctr $RUNTIME" "$(p inspect -f '{{.OCIRuntime}}' which) $(p info -f '{{.Host.OCIRuntime.Path}}')"
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
	has "$(cat "$WORK/output")" 'ermission denied'
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

check_tty() {
	has "$(run -t $IMAGE sh -c 'tty; test -c /dev/console && echo written >/dev/console')" /dev/pts/0
}
check_tty_interactive() {
	local out
	out=$(echo 'echo sum $((40 + 2)); exit 3' |
		script -qec "podman run --rm --network none -it $IMAGE sh" /dev/null) || same 3 $?
	has "$out" 'sum 42'
}
check_tty_size() {
	local out
	out=$(script -qec "stty rows 33 cols 77; podman run --rm --network none -it $IMAGE \
		sh -c 'sleep 1; stty size'" /dev/null </dev/null)
	has "$out" '33 77'
}

check_process_settings() {
	local out
	out=$(run -e 'X=a b' -w /tmp --hostname deep -u 1234:5678 --group-add 4242 --umask 0027 --ulimit nofile=123:456 \
		--sysctl kernel.shmmax=12345 --oom-score-adj 700 $IMAGE sh -c '
		cat; echo "$X $(pwd) $(hostname) $(id -u):$(id -g) $(id -G) $(umask) $(ulimit -n) $$"
		cat /proc/sys/kernel/shmmax /proc/self/oom_score_adj; grep CapEff /proc/self/status')
	same "a b /tmp deep 1234:5678 5678 4242 0027 123 1" "$(sed -n 1p <<<"$out")"
	same "12345 700" "$(sed -n 2,3p <<<"$out" | xargs)"
	# Who is not root has no capabilities.
	has "$out" 0000000000000000
}
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
	same '1234 /tmp v' "$(p exec -u 1234 -w /tmp -e K=v long sh -c 'echo $(id -u) $(pwd) $K')"
	p exec -d long sh -c 'echo made >/made'
	eventually podman exec long grep made /made
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
	background asleep -- sleep 100
	p pause asleep >/dev/null
	gone asleep
	refused p inspect asleep
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
	podman run --rm --network none --name proxy $IMAGE \
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
	echo text >"$WORK/one file"
	p volume create kept >/dev/null
	local out
	out=$(run -v "$WORK/volume:/v" -v "$WORK/volume:/ro:ro" -v "$WORK/one file:/etc/one file:ro" -v kept:/kept \
		-v "$WORK/volume:/o:ro,nosuid,nodev,noexec,rslave" $IMAGE sh -c '
		echo inside >/v/file; cat "/etc/one file"; echo stays >/kept/file
		! touch /ro/new; grep " /o " /proc/self/mountinfo')
	has "$out" text
	has "$out" ro,nosuid,nodev,noexec
	same inside "$(cat "$WORK/volume/file")"
	[ ! -e "$WORK/volume/new" ] || die "a read-only volume was written to"
	same stays "$(run -v kept:/kept $IMAGE cat /kept/file)"
	p volume rm kept >/dev/null
}
check_volume_idmap() {
	[ "$(id -u)" = 0 ] || skip "rootful podman only"
	mkdir -p "$WORK/mapped"
	touch "$WORK/mapped/file"
	same 0 "$(run --uidmap 0:200000:65536 -v "$WORK/mapped:/v:idmap" $IMAGE stat -c %u /v/file)"
}

check_tmpfs() {
	local out
	out=$(run --tmpfs /scratch:rw,size=2m,mode=1770,noexec --tmpfs /etc $IMAGE \
		sh -c 'grep " /scratch " /proc/self/mountinfo; stat -c %a /scratch; ls /etc')
	has "$out" tmpfs
	has "$out" size=2048k
	has "$out" noexec
	has "$out" 1770
	# What was there is copied up.
	has "$out" passwd
}
check_read_only() {
	run --read-only $IMAGE sh -c '! touch /file && touch /tmp/file'
	refused run --read-only --read-only-tmpfs=false $IMAGE touch /tmp/file
}

check_cap_drop() {
	# Bit 25, CAP_SYS_TIME.
	has "$(run --cap-drop all --cap-add sys_time $IMAGE grep CapEff /proc/self/status)" 0000000002000000
	refused run --cap-drop chown $IMAGE chown 1:1 /tmp
}
check_privileged() {
	has "$(run --privileged $IMAGE sh -c 'mount -t tmpfs none /mnt && grep Seccomp: /proc/self/status')" 0
}
check_seccomp_default() {
	same "1 2" "$(run --security-opt no-new-privileges $IMAGE \
		awk '/^NoNewPrivs:|^Seccomp:/ { print $2 }' /proc/self/status | xargs)"
}
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
	same "" "$(run $IMAGE sh -c 'echo 1 >/proc/sys/kernel/panic && echo written; cat /proc/kcore | head -c 1' 2>/dev/null)"
	has "$(run --security-opt unmask=ALL $IMAGE sh -c 'grep -c /proc/ /proc/self/mountinfo || true')" 0
}

check_device() {
	run --device /dev/fuse --device /dev/null:/dev/mine $IMAGE sh -ec '
		for d in null zero full random urandom tty fuse; do test -c /dev/$d; done
		test -L /dev/fd; test -L /dev/stdin; test -L /dev/ptmx
		echo x >/dev/mine'
}
check_device_denied() {
	[ "$(id -u)" = 0 ] || skip "device rules need root"
	run --cap-add mknod --device-cgroup-rule 'c 1:3 rwm' --device /dev/loop-control:/dev/lc:r $IMAGE sh -c '
		mknod /tmp/n c 1 3 && echo x >/tmp/n && (: </dev/lc) && ! (: >/dev/lc) &&
		mknod /tmp/vda b 254 0 && ! head -c 1 /tmp/vda'
}

check_userns_keep_id() {
	[ "$(id -u)" != 0 ] || skip "rootless podman only"
	same "$(id -u):$(id -g)" "$(run --userns keep-id $IMAGE sh -c 'echo "$(id -u):$(id -g)"')"
	mkdir -p "$WORK/mine"
	run --userns keep-id -v "$WORK/mine:/v" $IMAGE touch /v/file
	same "$(id -u)" "$(stat -c %u "$WORK/mine/file")"
}
check_userns_auto() {
	[ "$(id -u)" = 0 ] || skip "rootful podman only"
	local out
	out=$(run --userns auto $IMAGE awk '{ print $1; print $2; exit }' /proc/self/uid_map)
	same 0 "${out%%$'\n'*}"
	differ 0 "${out##*$'\n'}"
}
check_userns_uidmap() {
	local first=1
	if [ "$(id -u)" = 0 ]; then first=200000; fi
	local out
	out=$(run --uidmap 0:$first:1000 --gidmap 0:$first:1000 $IMAGE sh -c 'cat /proc/self/uid_map; id -u' | xargs)
	case $out in "0 "*" 1000 0") ;; *) die "its map and user are '$out'" ;; esac
}
check_userns_nomap() {
	[ "$(id -u)" != 0 ] || skip "rootless podman only"
	run --userns nomap $IMAGE true
}

check_limits() {
	same "67108864 50331648 33 50000 100000 1" "$(run --memory 64m --cgroup-conf memory.high=50331648 --pids-limit 33 \
		--cpus 0.5 --cpuset-cpus 1 $IMAGE \
		sh -c 'cd /sys/fs/cgroup; cat memory.max memory.high pids.max cpu.max cpuset.cpus.effective' | xargs)"
}
check_oom_killed() {
	# The first process outlives its greedy child for a moment: conmon looks at the cgroup while it is there.
	background greedy --memory 24m --memory-swap 24m -- \
		sh -c 'sh -c "x=a; while :; do x=\$x\$x; done"; status=$?; sleep 2; exit $status'
	same 137 "$(p wait greedy)"
	same true "$(p inspect -f '{{.State.OOMKilled}}' greedy)"
	gone greedy
}
check_update() {
	background grows --memory 64m -- sleep 100
	p update --memory 128m --pids-limit 44 grows >/dev/null
	same 134217728 "$(p exec grows cat /sys/fs/cgroup/memory.max)"
	same 44 "$(p exec grows cat /sys/fs/cgroup/pids.max)"
	gone grows
}
check_cgroupfs_manager() {
	same 33 "$(podman --cgroup-manager cgroupfs run --rm --network none --pids-limit 33 \
		$IMAGE cat /sys/fs/cgroup/pids.max)"
}
check_cgroups_disabled() {
	[ "$(basename "$RUNTIME")" != runc ] || skip "runc cannot"
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
	[ "$(id -u)" = 0 ] || skip "needs pasta and an outer network"
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
check_runtime_inside() {
	case $(basename "$RUNTIME") in crun | runc) skip "only a static program runs in this image" ;; esac
	mkdir "$WORK/bundle"
	"$RUNTIME" spec --bundle "$WORK/bundle"
	jq '.process.terminal = false | .process.args = ["hostname"] | .hostname = "inner"' "$WORK/bundle/config.json" \
		>"$WORK/inner.json"
	mv "$WORK/inner.json" "$WORK/bundle/config.json"
	same inner "$(run --privileged -v "$RUNTIME:/runtime:ro" -v "$WORK/bundle:/bundle" -v "$ROOT:/bundle/rootfs" \
		$IMAGE /runtime run --bundle /bundle inner)"
}
# As far as CRIU goes: it wants root.
saving() {
	[ "$(id -u)" = 0 ] || { echo "CRIU wants root"; exit 77; }
	command -v criu >/dev/null || { echo "no criu"; exit 77; }
	"$RUNTIME" checkpoint --help >/dev/null 2>&1 || { echo "$(basename "$RUNTIME") was built without CRIU"; exit 77; }
}
export counting='n=0; while :; do n=$((n+1)); echo count-$n; sleep 0.1; done'
counts() { p logs "$1" 2>&1 | sed -n 's/^count-//p' | tail -n 1; }

check_checkpoint_restore() {
	saving
	background saved -- sh -c "$counting"
	eventually logged saved count-5
	p container checkpoint saved >/dev/null
	in_state saved exited
	local before
	before=$(counts saved)
	p container restore saved >/dev/null
	in_state saved running
	eventually logged saved "count-$((before + 5))"
	same 1 "$(p logs saved 2>&1 | grep -c '^count-5$')"
	same hi "$(p exec saved echo hi)"
	gone saved
}
check_checkpoint_export_import() {
	saving
	background moved -- sh -c "echo kept >/kept; $counting"
	eventually logged moved count-5
	p container checkpoint --export "$WORK/moved.tar" moved >/dev/null
	gone moved
	p container restore --import "$WORK/moved.tar" >/dev/null
	in_state moved running
	same kept "$(p exec moved cat /kept)"
	eventually logged moved count-
	[ "$(counts moved)" -gt 5 ] || die "it counts from $(counts moved)"
	gone moved
}
check_checkpoint_leave_running() {
	saving
	background stays -- sh -c "$counting"
	eventually logged stays count-5
	p container checkpoint --leave-running stays >/dev/null
	in_state stays running
	local before
	before=$(counts stays)
	eventually logged stays "count-$((before + 5))"
	gone stays
}
check_checkpoint_terminal() {
	saving
	p run -dt --network none --name talks $IMAGE sh -c "$counting" >/dev/null
	eventually logged talks count-5
	p container checkpoint talks >/dev/null
	p container restore talks >/dev/null
	in_state talks running
	has "$(p exec talks ls -l /proc/1/fd/1)" /dev/pts/0
	gone talks
}
check_checkpoint_tcp() {
	saving
	p run -d --name server $IMAGE nc -ll -p 7007 -e cat >/dev/null
	local address
	address=$(p inspect -f '{{.NetworkSettings.IPAddress}}' server)
	[ -n "$address" ] || address=$(p inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' server)
	eventually sh -c "echo | busybox nc -w 1 $address 7007"
	coproc CLIENT { busybox nc "$address" 7007; }
	echo before >&"${CLIENT[1]}"
	local line
	read -r -t 10 line <&"${CLIENT[0]}"
	same before "$line"
	refused p container checkpoint server
	p container checkpoint --tcp-established server >/dev/null
	p container restore --tcp-established server >/dev/null
	echo after >&"${CLIENT[1]}"
	read -r -t 20 line <&"${CLIENT[0]}"
	same after "$line"
	kill "$CLIENT_PID"
	gone server
}
check_system_prune() { p container prune -f >/dev/null; }

exits() { run $IMAGE sh -c "exit $1"; } # STATUS
check_many_at_once() { four_at_once exits; }

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

main "$@"
