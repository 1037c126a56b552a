#!/bin/bash
# What Docker's users do, done with one OCI runtime as the daemon's default; checks.sh says how to run it, as root.
# The daemon's settings are examples/docker/daemon.json with this runtime's path.
# shellcheck source=tests/vm/checks.sh
. "$(dirname "$0")/checks.sh"

ALONE="many_at_once nothing_left live_restore other_daemon remapped build_buildkit"
IMAGE=box
export IMAGE

set_up() {
	configure '.'
	systemctl start docker
	root_tar | docker import - $IMAGE >/dev/null
}

configure() { # FILTER: the example's settings, the path of the runtime, what the guest needs, and a change
	mkdir -p /etc/docker
	jq --arg path "$RUNTIME" '.runtimes.ctr.path = $path | ."storage-driver" = "overlay2" | '"$1" \
		"$HERE/../../examples/docker/daemon.json" >/etc/docker/daemon.json
}

tidy() {
	docker ps -aq | xargs -r docker rm -f
	docker network prune -f
}

# Most checks are about the container itself, and a network costs a second.
run() { docker run --rm --network none "$@"; }

background() { # NAME [OPTION ...] -- COMMAND ...: a container that stays
	local name=$1 options words
	split "${@:2}"
	docker run -d --network none --name "$name" "${options[@]}" $IMAGE "${words[@]}" >/dev/null
}

gone() { docker rm -f "$@" >/dev/null; } # NAME ...
look() { docker inspect -f "$2" "$1"; }  # NAME FORMAT
looks() { [ "$(look "$1" "$2")" = "$3" ]; }  # NAME FORMAT WANT
in_state() { [ "$(look "$1" '{{.State.Status}}')" = "$2" ]; }
logged() { case $(docker logs "$1" 2>&1) in *"$2"*) ;; *) false ;; esac; } # NAME TEXT
cgroup_of() { # NAME
	local path
	path=$(awk -F: '{ print $3 }' "/proc/$(look "$1" '{{.State.Pid}}')/cgroup")
	echo "/sys/fs/cgroup$path"
}

check_info() {
	same "ctr systemd 2" "$(docker info -f '{{.DefaultRuntime}} {{.CgroupDriver}} {{.CgroupVersion}}')"
	has "$(docker info 2>&1)" ctr
}
check_runtime_is_ours() {
	background which -- sleep 100
	same ctr "$(look which '{{.HostConfig.Runtime}}')"
	has "$("$RUNTIME" --root /run/docker/runtime-runc/moby list -q)" "$(look which '{{.Id}}')"
	gone which
}

check_run_output() {
	same out "$(run $IMAGE sh -c 'echo out; echo err >&2' 2>"$WORK/err")"
	same err "$(cat "$WORK/err")"
}
check_exit_status() { status_is 7 run $IMAGE sh -c 'exit 7'; }
check_exit_by_signal() {
	background shot -- sleep 100
	docker kill shot >/dev/null
	same 137 "$(docker wait shot)"
	gone shot
}
check_exit_not_found() {
	status_is 127 run $IMAGE /no/such/program
	has "$(cat "$WORK/output")" 'no such file or directory'
}
check_exit_not_in_path() {
	status_is 127 run $IMAGE no-such-program
	has "$(cat "$WORK/output")" 'executable file not found'
}
check_exit_not_executable() {
	status_is 126 run $IMAGE /etc/passwd
	has "$(cat "$WORK/output")" 'permission denied'
}
check_exit_is_directory() { status_is 126 run $IMAGE /etc; }
check_exit_of_start() {
	docker create --network none --name missing $IMAGE /no/such/program >/dev/null
	refused docker start missing
	same "127 created" "$(look missing '{{.State.ExitCode}} {{.State.Status}}')"
	gone missing
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
		script -qec "docker run --rm --network none -it $IMAGE sh" /dev/null) || same 3 $?
	has "$out" 'sum 42'
}
check_tty_size() {
	local out
	out=$(script -qec "stty rows 33 cols 77; docker run --rm --network none -it $IMAGE sh -c 'sleep 2; stty size'" \
		/dev/null </dev/null)
	has "$out" '33 77'
}

check_process_settings() {
	local out
	out=$(run -e 'X=a b' -w /made/here --hostname deep --domainname example.org -u 1234:5678 --group-add 4242 \
		--ulimit nofile=123:456 --sysctl kernel.shmmax=12345 --oom-score-adj 700 --add-host there:10.1.2.3 $IMAGE sh -c '
		echo "$X $(pwd) $(hostname) $(id -u):$(id -g) $(id -G) $(ulimit -n) $$"
		cat /proc/sys/kernel/shmmax /proc/self/oom_score_adj /proc/sys/kernel/domainname
		grep CapEff /proc/self/status; grep there /etc/hosts')
	same "a b /made/here deep 1234:5678 5678 4242 123 1" "$(sed -n 1p <<<"$out")"
	same "12345 700 example.org" "$(sed -n 2,4p <<<"$out" | xargs)"
	# Who is not root has no capabilities.
	has "$out" 0000000000000000
	has "$out" 10.1.2.3
}
check_init() { has "$(run --init $IMAGE cat /proc/1/comm)" init; }
check_shm_size() { has "$(run --shm-size 3m $IMAGE df -k /dev/shm)" 3072; }
check_entrypoint() { same "a b" "$(run --entrypoint /bin/echo $IMAGE a b)"; }
check_env_file_and_label() {
	echo 'FROM=file' >"$WORK/env"
	background labelled --env-file "$WORK/env" --label x=y -- sleep 100
	same y "$(look labelled '{{index .Config.Labels "x"}}')"
	same file "$(docker exec labelled sh -c 'echo $FROM')"
	gone labelled
}

check_create_start() {
	docker create --name later --network none $IMAGE sh -c 'echo started; exit 4' >/dev/null
	in_state later created
	status_is 4 docker start -a later
	has "$(docker logs later)" started
	gone later
}
check_logs() {
	background talks -- sh -c 'echo one; echo two >&2'
	docker wait talks >/dev/null
	same "one two" "$(docker logs talks 2>&1 | sort | xargs)"
	gone talks
}
check_attach() {
	background hears --interactive -- sh -c 'read x; echo "heard $x"; exit 5'
	# Its client may be gone before the answer comes: the log has it.
	echo word | docker attach hears >/dev/null || same 5 $?
	eventually logged hears 'heard word'
	same 5 "$(docker wait hears)"
	gone hears
}
check_restart() {
	background again -- sh -c 'echo turn; sleep 100'
	docker restart -t 0 again >/dev/null
	eventually sh -c "[ \$(docker logs again | grep -c turn) = 2 ]"
	gone again
}
check_restart_on_failure() {
	background failing --restart on-failure:2 -- sh -c 'exit 3'
	eventually looks failing '{{.RestartCount}} {{.State.ExitCode}} {{.State.Status}}' "2 3 exited"
	gone failing
}
check_restart_always() {
	background undying --restart always -- sh -c 'echo turn; sleep 2; exit 0'
	eventually sh -c "[ \$(docker logs undying | grep -c turn) -ge 2 ]"
	docker stop -t 0 undying >/dev/null
	sleep 2
	in_state undying exited
	gone undying
}
check_state_told() {
	background told -- sleep 100
	local pid
	pid=$(look told '{{.State.Pid}}')
	same sleep "$(cat "/proc/$pid/comm")"
	same "running true false" "$(look told '{{.State.Status}} {{.State.Running}} {{.State.Paused}}')"
	gone told
	[ ! -e "/proc/$pid" ] || die "process $pid is still there"
}

check_exec() {
	background long -- sleep 1000
	same hi "$(docker exec long echo hi)"
	status_is 6 docker exec long sh -c 'exit 6'
	same piped "$(echo piped | docker exec -i long cat)"
	has "$(docker exec -t long tty)" /dev/pts/
	same '1234 /tmp v' "$(docker exec -u 1234 -w /tmp -e K=v long sh -c 'echo $(id -u) $(pwd) $K')"
	docker exec -d long sh -c 'echo made >/made'
	eventually docker exec long grep made /made
	gone long
}
check_exec_missing() {
	background lacks -- sleep 1000
	# Docker's status is 126 for whatever an exec could not start.
	status_is 126 docker exec lacks /no/such/program
	has "$(cat "$WORK/output")" 'no such file or directory'
	status_is 126 docker exec lacks no-such-program
	has "$(cat "$WORK/output")" 'executable file not found'
	status_is 126 docker exec lacks /etc/passwd
	has "$(cat "$WORK/output")" 'permission denied'
	gone lacks
}
check_exec_same_namespaces() {
	background spaces -- sh -c 'for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; sleep 100'
	eventually logged spaces 'uts:'
	same "$(docker logs spaces)" \
		"$(docker exec spaces sh -c 'for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done')"
	gone spaces
}
check_exec_privileged() {
	background caps --cap-drop all -- sleep 100
	has "$(docker exec caps grep CapEff /proc/self/status)" 0000000000000000
	differ 0000000000000000 "$(docker exec --privileged caps awk '/CapEff/ { print $2 }' /proc/self/status)"
	gone caps
}
check_exec_outlives() {
	# Its processes end with the container, and the client hears of it.
	background short -- sleep 1000
	docker exec short sleep 900 &
	eventually sh -c 'docker top short | grep -q "sleep 900"'
	docker kill short >/dev/null
	local got=0
	wait $! || got=$?
	same 137 $got
	gone short
}
check_exec_stopped() {
	background over -- true
	docker wait over >/dev/null
	refused docker exec over true
	gone over
}

check_pause() {
	background frozen -- sh -c 'while :; do date +%s >/tick; sleep 0.2; done'
	docker pause frozen >/dev/null
	in_state frozen paused
	refused docker exec frozen true
	same 1 "$(awk '/frozen/ { print $2 }' "$(cgroup_of frozen)/cgroup.events")"
	docker unpause frozen >/dev/null
	in_state frozen running
	docker exec frozen true
	gone frozen
}
check_remove_paused() {
	background asleep -- sleep 100
	docker pause asleep >/dev/null
	gone asleep
	refused docker inspect asleep
}
check_kill_signal() {
	background trap -- sh -c 'trap "echo got; exit 11" USR1; echo set; while :; do sleep 0.1; done'
	eventually logged trap set
	docker kill -s USR1 trap >/dev/null
	same 11 "$(docker wait trap)"
	has "$(docker logs trap)" got
	gone trap
}
check_signal_proxy() {
	docker run --rm --network none --name proxy $IMAGE \
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
	docker stop -t 20 polite >/dev/null
	same 0 "$(look polite '{{.State.ExitCode}}')"
	gone polite
}
check_stop_signal() {
	background quits --stop-signal QUIT -- sh -c 'trap "exit 13" QUIT; echo set; while :; do sleep 0.1; done'
	eventually logged quits set
	docker stop -t 20 quits >/dev/null
	same 13 "$(look quits '{{.State.ExitCode}}')"
	gone quits
}
check_stop_timeout() {
	background stubborn --stop-timeout 1 -- sleep 1000
	local before=$SECONDS
	docker stop stubborn >/dev/null
	same 137 "$(look stubborn '{{.State.ExitCode}}')"
	[ $((SECONDS - before)) -lt 9 ] || die "took $((SECONDS - before)) s"
	gone stubborn
}
check_remove_running() {
	background going -- sh -c 'sleep 1000 & sleep 1000 & wait'
	refused docker rm going
	gone going
	refused docker inspect going
}

check_volume() {
	mkdir "$WORK/volume"
	echo text >"$WORK/one file"
	local out
	out=$(run -v "$WORK/volume:/v" -v "$WORK/volume:/ro:ro" -v "$WORK/one file:/etc/one file:ro" -v kept:/kept \
		--mount "type=bind,src=$WORK/volume,dst=/o,ro,bind-propagation=rslave" $IMAGE sh -c '
		echo inside >/v/file; cat "/etc/one file"; echo stays >/kept/file
		! touch /ro/new; grep " /o " /proc/self/mountinfo')
	has "$out" text
	has "$out" master:
	same inside "$(cat "$WORK/volume/file")"
	[ ! -e "$WORK/volume/new" ] || die "a read-only volume was written to"
	same stays "$(run -v kept:/kept $IMAGE cat /kept/file)"
	docker volume rm kept >/dev/null
}
check_volume_propagation() {
	mkdir "$WORK/shared"
	mount --bind "$WORK/shared" "$WORK/shared"
	mount --make-shared "$WORK/shared"
	background shares --privileged -v "$WORK/shared:/s:rshared" -- sh -c 'mkdir /s/in && mount -t tmpfs none /s/in; sleep 100'
	eventually mountpoint "$WORK/shared/in"
	mkdir "$WORK/shared/out"
	mount -t tmpfs none "$WORK/shared/out"
	docker exec shares grep -q ' /s/out ' /proc/self/mountinfo
	gone shares
	umount -R "$WORK/shared"
}
check_volume_recursive_read_only() {
	mkdir -p "$WORK/tree/below"
	mount -t tmpfs none "$WORK/tree/below"
	run -v "$WORK/tree:/t:ro" $IMAGE sh -c '! touch /t/below/new'
	umount "$WORK/tree/below"
}
check_volumes_from() {
	docker create --name gives -v /data $IMAGE true >/dev/null
	run --volumes-from gives $IMAGE touch /data/file
	run --volumes-from gives:ro $IMAGE sh -c 'test -e /data/file && ! touch /data/other'
	docker rm -v gives >/dev/null
}
check_tmpfs() {
	local out
	out=$(run --tmpfs /scratch:rw,size=2m,mode=1770,noexec --mount type=tmpfs,dst=/etc/new $IMAGE \
		sh -c 'grep -e " /scratch " -e " /etc/new " /proc/self/mountinfo; stat -c %a /scratch')
	has "$out" size=2048k
	has "$out" noexec
	has "$out" 1770
	has "$out" /etc/new
}
check_read_only() {
	run --read-only --tmpfs /tmp $IMAGE sh -c '! touch /file && touch /tmp/file'
}
check_names_of_network() {
	same "3" "$(docker run --rm --dns 10.9.8.7 $IMAGE sh -c 'grep -c -e /etc/hosts -e /etc/hostname -e /etc/resolv.conf /proc/self/mountinfo')"
	has "$(docker run --rm --dns 10.9.8.7 $IMAGE cat /etc/resolv.conf)" 10.9.8.7
}

check_cap_drop() {
	# Bit 25, CAP_SYS_TIME.
	has "$(run --cap-drop all --cap-add sys_time $IMAGE grep CapEff /proc/self/status)" 0000000002000000
	refused run --cap-drop chown $IMAGE chown 1:1 /tmp
}
check_privileged() {
	run --privileged $IMAGE sh -ec 'mount -t tmpfs none /mnt; grep -q "Seccomp:.0" /proc/self/status
		test -c /dev/loop-control; echo 1 >/proc/sys/kernel/printk_ratelimit; touch /sys/fs/cgroup/x 2>/dev/null || mkdir /sys/fs/cgroup/sub'
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
check_apparmor() {
	[ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ] || skip "AppArmor is off"
	background armoured -- sleep 100
	has "$(cat "/proc/$(look armoured '{{.State.Pid}}')/attr/current")" docker-default
	has "$(docker exec armoured cat /proc/self/attr/current)" docker-default
	gone armoured
	same unconfined "$(run --security-opt apparmor=unconfined $IMAGE cat /proc/self/attr/current)"
	# The profile forbids it, whatever the capabilities.
	refused run --cap-add sys_admin $IMAGE mount -t tmpfs none /mnt
}
check_apparmor_unknown() {
	refused run --security-opt apparmor=no-such-profile $IMAGE true
	has "$output" no-such-profile
}
check_masked_paths() {
	same "" "$(run $IMAGE sh -c 'echo 1 >/proc/sys/kernel/panic && echo written; cat /proc/kcore | head -c 1' 2>/dev/null)"
	has "$(run --security-opt systempaths=unconfined $IMAGE sh -c 'grep -c " /proc/" /proc/self/mountinfo || true')" 0
}

check_device() {
	run --device /dev/fuse --device /dev/null:/dev/mine $IMAGE sh -ec '
		for d in null zero full random urandom tty fuse; do test -c /dev/$d; done
		test -L /dev/fd; test -L /dev/stdin; test -L /dev/ptmx
		echo x >/dev/mine'
}
check_device_denied() {
	run --cap-add mknod --device-cgroup-rule 'c 1:3 rwm' --device /dev/loop-control:/dev/lc:r $IMAGE sh -c '
		mknod /tmp/n c 1 3 && echo x >/tmp/n && (: </dev/lc) && ! (: >/dev/lc) &&
		mknod /tmp/vda b 254 0 && ! head -c 1 /tmp/vda'
}

check_limits() {
	same "67108864 67108864 50331648 33 50000 100000 1" "$(run --memory 64m --memory-swap 128m --memory-reservation 48m \
		--pids-limit 33 --cpus 0.5 --cpuset-cpus 1 $IMAGE sh -c 'cd /sys/fs/cgroup
		cat memory.max memory.swap.max memory.low pids.max cpu.max cpuset.cpus.effective' | xargs)"
}
check_limits_weights() {
	# 2048 shares are a weight of 79, or since runc 1.3, which counts 1024 as 100, of 174.
	case $(run --cpu-shares 2048 $IMAGE cat /sys/fs/cgroup/cpu.weight) in 79 | 174) ;; *) die "another weight" ;; esac
}
check_oom_killed() {
	background greedy --memory 24m --memory-swap 24m -- sh -c 'x=a; while :; do x=$x$x; done'
	same 137 "$(docker wait greedy)"
	same true "$(look greedy '{{.State.OOMKilled}}')"
	gone greedy
}
check_oom_of_child() {
	# The first process lives on: the daemon hears of it all the same.
	background survives --memory 24m --memory-swap 24m -- sh -c 'sh -c "x=a; while :; do x=\$x\$x; done"; sleep 2; exit 5'
	same 5 "$(docker wait survives)"
	same true "$(look survives '{{.State.OOMKilled}}')"
	gone survives
}
check_pids_limit_holds() {
	has "$(run --pids-limit 5 $IMAGE sh -c 'for i in 1 2 3 4 5 6; do sleep 5 & done; wait' 2>&1)" "can't fork"
}
check_update() {
	background grows --memory 64m --memory-swap 64m -- sleep 100
	docker update --memory 128m --memory-swap 256m --cpus 1.5 --pids-limit 44 --cpuset-cpus 0 grows >/dev/null
	same "134217728 134217728 44 150000 100000 0" "$(docker exec grows sh -c 'cd /sys/fs/cgroup
		cat memory.max memory.swap.max pids.max cpu.max cpuset.cpus.effective' | xargs)"
	docker update --pids-limit -1 grows >/dev/null
	same max "$(docker exec grows cat /sys/fs/cgroup/pids.max)"
	docker update --restart always grows >/dev/null
	same always "$(look grows '{{.HostConfig.RestartPolicy.Name}}')"
	gone grows
}
check_stats() {
	background busy --memory 64m -- sh -c 'while :; do :; done'
	local out
	out=$(docker stats --no-stream --format '{{.PIDs}} {{.MemUsage}} {{.CPUPerc}}' busy)
	has "$out" "1 "
	has "$out" "/ 64MiB"
	differ 0.00% "${out##* }"
	gone busy
}
check_top() {
	background topped -- sleep 1000
	has "$(docker top topped)" 'sleep 1000'
	has "$(docker top topped -o pid,comm)" sleep
	gone topped
}
check_cgroup_parent() {
	background below --cgroup-parent mine.slice -- sleep 100
	has "$(cgroup_of below)" /mine.slice/docker-
	gone below
}
check_cgroup_namespace() {
	same 0::/ "$(run $IMAGE cat /proc/self/cgroup)"
	differ 0::/ "$(run --cgroupns host $IMAGE cat /proc/self/cgroup)"
}

check_join_namespaces() {
	background host_of --ipc shareable -- sleep 100
	has "$(run --pid container:host_of --ipc container:host_of $IMAGE ps)" 'sleep 100'
	same "$(docker exec host_of readlink /proc/self/ns/net)" \
		"$(docker run --rm --network container:host_of $IMAGE readlink /proc/self/ns/net)"
	gone host_of
}
check_host_namespaces() {
	same "systemd $(readlink /proc/self/ns/ipc) $(readlink /proc/self/ns/uts) $(readlink /proc/self/ns/net)" \
		"$(docker run --rm --pid host --ipc host --uts host --network host $IMAGE \
			sh -c 'cd /proc/self/ns; echo $(cat /proc/1/comm) $(readlink ipc) $(readlink uts) $(readlink net)')"
}
check_userns_host() {
	same "$(readlink /proc/self/ns/user)" "$(run --userns host $IMAGE readlink /proc/self/ns/user)"
}
check_network_none() { same lo "$(run $IMAGE ls /sys/class/net)"; }
check_network_bridge() {
	docker run -d --name web -p 127.0.0.1:8080:80 $IMAGE sh -c 'mkdir /w; echo page >/w/index.html; httpd -f -h /w' >/dev/null
	eventually busybox wget -q -O "$WORK/page" http://127.0.0.1:8080/
	same page "$(cat "$WORK/page")"
	gone web
}
check_network_named() {
	docker network create mine >/dev/null
	docker run -d --network mine --name served $IMAGE sh -c 'echo page >/index.html; httpd -f -h /' >/dev/null
	# By its name, from the daemon's own name server.
	same page "$(docker run --rm --network mine $IMAGE sh -c 'sleep 1; wget -q -O - http://served/')"
	gone served
	docker network rm mine >/dev/null
}
check_network_connect() {
	docker network create second >/dev/null
	docker run -d --name joins $IMAGE sleep 100 >/dev/null
	docker network connect second joins
	has "$(docker exec joins ls /sys/class/net)" eth1
	docker network disconnect second joins
	gone joins
	docker network rm second >/dev/null
}

check_healthcheck() {
	background healthy --health-cmd 'test -e /etc/passwd' --health-interval 1s -- sleep 100
	background ailing --health-cmd false --health-interval 1s --health-retries 1 -- sleep 100
	eventually looks healthy '{{.State.Health.Status}}' healthy
	eventually looks ailing '{{.State.Health.Status}}' unhealthy
	gone healthy ailing
}
check_cp_diff_commit() {
	background changes -- sh -c 'echo new >/made; rm /etc/group; sleep 100'
	echo sent >"$WORK/sent"
	docker cp "$WORK/sent" changes:/received
	same sent "$(docker exec changes cat /received)"
	docker cp changes:/made "$WORK/got"
	same new "$(cat "$WORK/got")"
	has "$(docker diff changes)" "A /made"
	has "$(docker diff changes)" "D /etc/group"
	docker commit -c 'CMD ["cat", "/made"]' changes kept-changes >/dev/null
	gone changes
	same new "$(run kept-changes)"
	docker rmi kept-changes >/dev/null
}
check_build() {
	# Without BuildKit RUN is a container of the default runtime.
	printf 'FROM box\nRUN echo built >/built && id -u >>/built\nUSER 1234\nWORKDIR /tmp\nRUN id -u >/tmp/user; ! false\nCMD ["cat", "/built", "/tmp/user"]\n' >"$WORK/Dockerfile"
	DOCKER_BUILDKIT=0 docker build -q --network none -t built "$WORK" >/dev/null 2>&1
	same "built 0 1234" "$(run built | xargs)"
	printf 'FROM box\nRUN exit 9\n' >"$WORK/Dockerfile"
	refused env DOCKER_BUILDKIT=0 docker build --network none "$WORK"
	has "$output" "non-zero code: 9"
	docker rmi built >/dev/null
}
has_died() { # NAME
	[[ $(docker events --since 1m --until 0s --filter "container=$1" --format '{{.Action}}' | xargs) = *'create start die'* ]]
}
check_wait_and_events() {
	background waited -- sleep 1
	same 0 "$(docker wait waited)"
	# Whoever waits may hear of the end before it is among the events.
	eventually has_died waited
	gone waited
}
exits() { run $IMAGE sh -c "exit $1"; } # STATUS
check_many_at_once() { four_at_once exits; }

# BuildKit calls what this variable of the daemon names, by `run` and with a bundle of its own.
check_build_buildkit() {
	mkdir -p /etc/systemd/system/docker.service.d
	printf '[Service]\nEnvironment=DOCKER_BUILDKIT_RUNC_COMMAND=%s\n' "$RUNTIME" >/etc/systemd/system/docker.service.d/test.conf
	systemctl daemon-reload
	systemctl restart docker
	printf 'FROM box\nRUN echo built >/built && id -u >>/built\nRUN --mount=type=tmpfs,target=/t touch /t/x\nUSER 1234\nRUN id -u >/tmp/user\nCMD ["cat", "/built", "/tmp/user"]\n' >"$WORK/Dockerfile"
	docker buildx build -q --load --network none -t kitted "$WORK"
	same "built 0 1234" "$(run kitted | xargs)"
	printf 'FROM box\nRUN exit 9\n' >"$WORK/Dockerfile"
	refused docker buildx build --network none "$WORK"
	has "$output" "exit code: 9"
	docker rmi kitted >/dev/null
	rm /etc/systemd/system/docker.service.d/test.conf
	systemctl daemon-reload
}
check_live_restore() {
	configure '."live-restore" = true'
	systemctl reload docker
	background stays -- sleep 1000
	local pid
	pid=$(look stays '{{.State.Pid}}')
	systemctl restart docker
	same "running $pid" "$(look stays '{{.State.Status}} {{.State.Pid}}')"
	docker exec stays true
	docker stop -t 0 stays >/dev/null
	same 137 "$(look stays '{{.State.ExitCode}}')"
	gone stays
}

# The other cgroup driver, and every container in a user namespace.
check_other_daemon() {
	systemctl stop docker
	configure '."exec-opts" = ["native.cgroupdriver=cgroupfs"] | ."userns-remap" = "default"'
	systemctl start docker
	same cgroupfs "$(docker info -f '{{.CgroupDriver}}')"
	root_tar | docker import - $IMAGE >/dev/null
	background other --memory 64m --pids-limit 33 -- sleep 1000
	same "67108864 33" "$(docker exec other cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max | xargs)"
	has "$(cgroup_of other)" "/sys/fs/cgroup/docker/$(look other '{{.Id}}')"
	docker update --memory 128m --memory-swap 256m other >/dev/null
	same 134217728 "$(docker exec other cat /sys/fs/cgroup/memory.max)"
	docker pause other >/dev/null
	docker unpause other >/dev/null
	has "$(docker stats --no-stream --format '{{.MemUsage}}' other)" "/ 128MiB"
	gone other
}
check_remapped() {
	[ "$(docker info -f '{{.CgroupDriver}}')" = cgroupfs ] || skip "other_daemon has not been run"
	local out
	out=$(run $IMAGE sh -c 'id -u; touch /file; stat -c %u /file; awk "{ print \$2 }" /proc/self/uid_map')
	same "0 0" "$(head -n 2 <<<"$out" | xargs)"
	differ 0 "$(tail -n 1 <<<"$out")"
	same "$(readlink /proc/self/ns/user)" "$(run --userns host $IMAGE readlink /proc/self/ns/user)"
	same ok "$(docker run --rm --sysctl net.ipv4.ip_forward=1 $IMAGE echo ok)"
	status_is 127 run $IMAGE /no/such/program
}

# Last: all of the above must have left nothing.
check_nothing_left() {
	same "" "$(docker ps -aq)"
	eventually nothing_runs || die "processes: $(left_processes)"
	eventually no_cgroups || die "cgroups: $(left_cgroups)"
	same "" "$(awk '$5 ~ "/overlay2/[^/]*/merged|/netns/[0-9a-f]+$" { print $5 }' /proc/self/mountinfo)"
	same "" "$(find /run/docker/runtime-runc /run/containerd/runc /run/containerd/io.containerd.runtime.v2.task \
		-mindepth 2 2>/dev/null || true)"
}
nothing_runs() { [ -z "$(left_processes)" ]; }
no_cgroups() { [ -z "$(left_cgroups)" ]; }
left_processes() { pgrep -a -f 'containerd-shim|^sleep |^/sbin/docker-init' || pgrep -a -f "^$RUNTIME " || true; }
left_cgroups() { find /sys/fs/cgroup -type d \( -name 'docker-*.scope' -o -path '*/docker/*' \) 2>/dev/null || true; }

main "$@"
