#!/bin/bash
# The Debian package, and `setup` for podman, Docker and containerd; checks.sh says how to run it, as root. The package is
# /opt/ctr.deb, and the runtime its /usr/bin/ctr-runtime.
set -euo pipefail

# What is on the disk, but for what other programs note for themselves.
everything() {
	find / -xdev \( -path /opt -o -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log -o \
		-path /var/lib/docker -o -path /var/lib/containerd -o -path /var/lib/containers -o -path /var/lib/dpkg -o \
		-path /var/cache -o -path '/root/.docker*' -o -path /var/lib/cni -o -path /etc/docker/key.json -o \
		-path /var/lib/systemd -o -path /var/tmp -o -path '*/__pycache__' \) -prune -o -print | sort
}
BEFORE=$(mktemp)
everything >"$BEFORE"
dpkg -i /opt/ctr.deb >/dev/null
# shellcheck source=tests/vm/checks.sh
. "$(dirname "$0")/checks.sh"

# One after the other: they are about the same files, and each does much.
BESIDE=1
LIMIT=300
ALONE=""
CTR=ctr-runtime
DAEMON=/etc/docker/daemon.json
DROP_IN=/etc/containers/containers.conf.d/50-ctr.conf
export BEFORE CTR DAEMON DROP_IN

set_up() { true; }
tidy() { true; }

run_docker() { # OPTION ...: a container of the machine's own shell, without a registry
	[ -n "$(docker images -q box)" ] || root_tar | docker import - box >/dev/null
	docker run --rm --network none "$@"
}

check_package() {
	[ "$(stat -c '%U %a' /usr/bin/ctr-runtime)" = "root 755" ] || die "$(ls -l /usr/bin/ctr-runtime)"
	has "$($CTR --version)" "ctr-runtime version $(dpkg-query -W -f '${Version}' ctr-runtime)"
	# containerd's client is where it was, and its own.
	has "$(/usr/bin/ctr --version)" containerd
	gzip -dc /usr/share/man/man1/ctr-runtime-setup.1.gz | grep -q 'ctr\\-runtime'
	bash -c '. /usr/share/bash-completion/completions/ctr-runtime && complete -p ctr-runtime' >/dev/null
	jq -e .runtimes.ctr /usr/share/doc/ctr-runtime/examples/docker/daemon.json >/dev/null
	same "" "$(cd / && md5sum --quiet -c /var/lib/dpkg/info/ctr-runtime.md5sums 2>&1)"
	status_is 0 $CTR run --rm --image host -- echo in
	has "$(cat "$WORK/output")" in
}

check_podman() {
	status_is 1 $CTR setup podman --check
	$CTR setup podman >"$WORK/said"
	has "$(cat "$WORK/said")" "it works"
	status_is 0 $CTR setup podman --check
	root_tar | podman import -q - localhost/box >/dev/null
	same in "$(podman --runtime ctr run --rm --network none localhost/box echo in)"
	differ ctr "$(podman info -f '{{.Host.OCIRuntime.Name}}')"
	$CTR setup podman --as-default >/dev/null
	same ctr "$(podman info -f '{{.Host.OCIRuntime.Name}}')"
	same true "$($CTR setup podman --check --json | jq '.is_default and .works and (.changed | not)')"
	$CTR setup podman --undo >/dev/null
	[ ! -e $DROP_IN ] || die "$DROP_IN is still there"
	differ ctr "$(podman info -f '{{.Host.OCIRuntime.Name}}')"
	podman rmi -f localhost/box >/dev/null
}
check_podman_another_s_file() {
	mkdir -p "$(dirname $DROP_IN)"
	echo '[engine]' >$DROP_IN
	status_is 125 $CTR setup podman
	has "$(cat "$WORK/output")" "not ours"
	same '[engine]' "$(cat $DROP_IN)"
	rm $DROP_IN
	rmdir --ignore-fail-on-non-empty "$(dirname $DROP_IN)"
}
check_podman_user() {
	# As an ordinary user, whose settings are their own.
	local as=(systemd-run --machine=tester@.host --user --quiet --pipe --wait --collect -p Delegate=yes --)
	has "$("${as[@]}" $CTR setup podman --as-default)" "it works"
	same ctr "$("${as[@]}" podman info -f '{{.Host.OCIRuntime.Name}}')"
	"${as[@]}" $CTR setup podman --undo >/dev/null
	same "" "$(find /home/tester/.config -name '50-ctr.conf')"
	differ ctr "$("${as[@]}" podman info -f '{{.Host.OCIRuntime.Name}}')"
	rm -rf /home/tester/.config /home/tester/.local /home/tester/.cache
}

check_docker_without_daemon() {
	status_is 125 $CTR setup docker
	has "$(cat "$WORK/output")" "docker"
	[ ! -e $DAEMON ] || die "$DAEMON was left: $(cat $DAEMON)"
	same "" "$(find /var/lib/ctr -name docker.json 2>/dev/null)"
	$CTR setup docker --only-write >/dev/null
	same "$(readlink -f "$(command -v $CTR)")" "$(jq -r .runtimes.ctr.path $DAEMON)"
	$CTR setup docker --undo >/dev/null
	[ ! -e $DAEMON ] || die "$DAEMON was left: $(cat $DAEMON)"
}
check_docker() {
	mkdir -p /etc/docker
	printf '{\n    "storage-driver":   "overlay2",\n    "labels": ["a=b"]\n}\n' >$DAEMON
	chmod 600 $DAEMON
	cp $DAEMON "$WORK/before"
	systemctl start docker
	run_docker -d --name stays box sleep 1000 >/dev/null
	status_is 1 $CTR setup docker --check
	same "$($CTR setup docker --print | jq -c 'keys')" '["labels","runtimes","storage-driver"]'
	cmp $DAEMON "$WORK/before"
	has "$($CTR setup docker)" "it works"
	same in "$(run_docker --runtime ctr box echo in)"
	same runc "$(docker info -f '{{.DefaultRuntime}}')"
	has "$($CTR setup docker --as-default)" "it works"
	same ctr "$(docker info -f '{{.DefaultRuntime}}')"
	same in "$(run_docker box echo in)"
	same "600 overlay2" "$(stat -c %a $DAEMON) $(jq -r '."storage-driver"' $DAEMON)"
	status_is 0 $CTR setup docker --check
	# What was there ran on.
	same true "$(docker inspect -f '{{.State.Running}}' stays)"
	$CTR setup docker --undo >"$WORK/said"
	cmp $DAEMON "$WORK/before"
	same 600 "$(stat -c %a $DAEMON)"
	# Without a restart.
	same "runc null" "$(docker info -f '{{.DefaultRuntime}} {{json .Runtimes.ctr}}')"
	same true "$(docker inspect -f '{{.State.Running}}' stays)"
	same "" "$(docker images -q ctr-setup)"
	docker rm -f stays >/dev/null
}
check_docker_edited_since() {
	$CTR setup docker --as-default >/dev/null
	jq '.debug = true' $DAEMON >"$WORK/edited"
	cp "$WORK/edited" $DAEMON
	has "$($CTR setup docker --undo)" "only our part"
	same '{"debug":true,"labels":["a=b"],"storage-driver":"overlay2"}' "$(jq -Sc . $DAEMON)"
}
check_docker_malformed() {
	cp $DAEMON "$WORK/good"
	printf '{ "debug": true, }' >$DAEMON
	cp $DAEMON "$WORK/before"
	status_is 125 $CTR setup docker
	has "$(cat "$WORK/output")" "line 1 column"
	cmp $DAEMON "$WORK/before"
	# What Docker itself would not take.
	echo '{ "no-such-setting": 1 }' >$DAEMON
	cp $DAEMON "$WORK/before"
	status_is 125 $CTR setup docker
	has "$(cat "$WORK/output")" no-such-setting
	cmp $DAEMON "$WORK/before"
	cp "$WORK/good" $DAEMON
}
check_docker_in_the_way() {
	# A flag of the daemon that says the same: it would not start again with the change.
	mkdir -p /etc/systemd/system/docker.service.d
	printf '[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// --default-runtime runc\n' \
		>/etc/systemd/system/docker.service.d/flags.conf
	systemctl daemon-reload
	systemctl restart docker
	cp $DAEMON "$WORK/before"
	status_is 125 $CTR setup docker --as-default
	has "$(cat "$WORK/output")" "taken back"
	cmp $DAEMON "$WORK/before"
	rm /etc/systemd/system/docker.service.d/flags.conf
	rmdir /etc/systemd/system/docker.service.d
	systemctl daemon-reload
	systemctl restart docker
}
check_docker_killed() {
	# At whatever moment: the file is the old or the new one, and can be undone.
	cp $DAEMON "$WORK/before"
	local i
	for i in 1 2 3 4 5 6 7 8; do
		$CTR setup docker >/dev/null 2>&1 &
		sleep 0.$((RANDOM % 9))
		kill -KILL $! 2>/dev/null || true
		wait $! 2>/dev/null || true
		jq -e . $DAEMON >/dev/null || die "half a file: $(cat $DAEMON)"
		$CTR setup docker --undo >/dev/null
		cmp $DAEMON "$WORK/before"
	done
	rm -rf /var/lib/ctr/.setup-* /etc/docker/.daemon.json.ctr-setup
	docker rmi -f ctr-setup:proof >/dev/null 2>&1 || true
	docker ps -aq | xargs -r docker rm -f >/dev/null
}
check_program_of_another() {
	install -o tester -m 755 /usr/bin/ctr-runtime /home/tester/mine
	status_is 125 /home/tester/mine setup docker
	has "$(cat "$WORK/output")" "others than root"
	rm /home/tester/mine
}

containerd_undone() { # CONFIG: what is there, version 2 or nothing
	local config=/etc/containerd/config.toml
	cp $config "$WORK/before"
	systemctl start containerd
	/usr/bin/ctr namespace ls >/dev/null
	has "$($CTR setup containerd --as-default)" "it works"
	same "$(readlink -f "$(command -v $CTR)")" "$(containerd config dump | awk -F '"' '/BinaryName/ && $2 != "" { print $2; exit }')"
	has "$(containerd config dump)" 'default_runtime_name = "ctr"'
	status_is 0 $CTR setup containerd --check
	$CTR setup containerd --undo >/dev/null
	cmp $config "$WORK/before"
	same "" "$(containerd config dump | grep ctr-runtime || true)"
}
check_containerd() {
	cp /etc/containerd/config.toml "$WORK/debian" 2>/dev/null || true
	mkdir -p /etc/containerd
	printf '# mine\nversion = 2\n\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\n  SystemdCgroup = true # so it is\n' \
		>/etc/containerd/config.toml
	containerd_undone
	$CTR setup containerd --print >"$WORK/printed"
	grep -q '# so it is' "$WORK/printed"
	same 2 "$(grep -c 'SystemdCgroup = true' "$WORK/printed")"
	# Another's mistake is told, and left.
	echo 'version = ' >/etc/containerd/config.toml
	status_is 125 $CTR setup containerd
	same 'version = ' "$(cat /etc/containerd/config.toml)"
	rm /etc/containerd/config.toml
	[ ! -e "$WORK/debian" ] || cp "$WORK/debian" /etc/containerd/config.toml
}

# Last: the package goes, and what it was told to do with it.
check_removed() {
	cp $DAEMON "$WORK/before"
	$CTR setup docker --as-default >/dev/null
	$CTR setup podman --as-default >/dev/null
	dpkg -P ctr-runtime >/dev/null
	cmp $DAEMON "$WORK/before"
	same runc "$(docker info -f '{{.DefaultRuntime}}')"
	docker rmi -f box >/dev/null
	systemctl stop docker docker.socket containerd
	rm $DAEMON
	everything >"$WORK/after"
	same "" "$(diff "$BEFORE" "$WORK/after" | grep '^[<>]' | xargs)"
}

main "$@"
