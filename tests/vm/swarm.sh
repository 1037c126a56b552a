#!/bin/bash
# What a Docker Swarm of one node does with one OCI runtime as the daemon's default; checks.sh says how to run it, as root.
# The settings are examples/docker/daemon.json and examples/swarm/stack.yaml. two.py has a swarm of two nodes.
# shellcheck source=tests/vm/checks.sh
. "$(dirname "$0")/checks.sh"

ALONE="stack drain nothing_left"
# A swarm takes its time over each task.
LIMIT=240
IMAGE=box
ADDRESS=10.99.0.1
export IMAGE ADDRESS

set_up() {
	mkdir -p /etc/docker
	jq --arg path "$RUNTIME" '.runtimes.ctr.path = $path | ."storage-driver" = "overlay2"' \
		"$HERE/../../examples/docker/daemon.json" >/etc/docker/daemon.json
	systemctl start docker
	root_tar | docker import - $IMAGE >/dev/null
	ip link add swarm0 type dummy
	ip addr add $ADDRESS/24 dev swarm0
	ip link set swarm0 up
	docker swarm init --advertise-addr $ADDRESS >/dev/null
}

tidy() {
	docker service ls -q | xargs -r docker service rm
	docker stack rm web
}

service() { # NAME [OPTION ...] -- COMMAND ...
	local name=$1 options words
	split "${@:2}"
	docker service create -d --no-resolve-image --name "$name" --restart-delay 1s --stop-grace-period 1s "${options[@]}" \
		$IMAGE "${words[@]}" >/dev/null
}
gone() { docker service rm "$@" >/dev/null; }
containers() { docker ps -q --no-trunc -f "label=com.docker.swarm.service.name=$1"; } # SERVICE
count() { containers "$1" | wc -l; }
runs() { [ "$(count "$1")" = "$2" ]; } # SERVICE HOW-MANY
tasks() { docker service ps --no-trunc --format '{{.CurrentState}} {{.Error}}' "$1"; }
inside() { # SERVICE COMMAND ...
	local service=$1
	shift
	docker exec "$(containers "$service" | head -n 1)" "$@"
}

check_replicas() {
	service many --replicas 3 -- sleep 1000
	eventually runs many 3
	# The default runtime is what a service gets.
	containers many | while read -r id; do
		same ctr "$(docker inspect -f '{{.HostConfig.Runtime}}' "$id")"
		has "$("$RUNTIME" --root /run/docker/runtime-runc/moby list -q)" "$id"
	done
	docker service scale -d many=1 >/dev/null
	eventually runs many 1
	gone many
	eventually runs many 0
}
check_limits() {
	# What is reserved is for the scheduler alone: no runtime is told of it.
	service bound --limit-memory 64M --limit-cpu 0.5 --limit-pids 33 --reserve-memory 48M -- sleep 1000
	eventually runs bound 1
	same "67108864 50000 100000 33" "$(inside bound sh -c 'cd /sys/fs/cgroup
		cat memory.max cpu.max pids.max' | xargs)"
	gone bound
}
check_killed_task_restarted() {
	service undying -- sleep 1000
	eventually runs undying 1
	local id
	id=$(containers undying)
	kill -KILL "$(docker inspect -f '{{.State.Pid}}' "$id")"
	eventually sh -c '[ -n "$(docker ps -q --no-trunc -f label=com.docker.swarm.service.name=undying)" ] &&
		! docker ps -q --no-trunc | grep -q '"$id"
	has "$(tasks undying)" 'non-zero exit (137)'
	gone undying
}
check_oom_restarted() {
	service greedy --limit-memory 24M -- sh -c 'sleep 1; x=a; while :; do x=$x$x; done'
	eventually sh -c 'docker service ps --no-trunc greedy | grep -q "non-zero exit (137)"'
	gone greedy
}
check_failure_told() {
	service fails --restart-condition none -- sh -c 'exit 3'
	service lacks --restart-condition none -- /no/such/program
	eventually sh -c 'docker service ps --no-trunc fails | grep -q "non-zero exit (3)"'
	eventually sh -c 'docker service ps --no-trunc lacks | grep -q "no such file or directory"'
	gone fails lacks
}
check_update_and_rollback() {
	service changes --replicas 2 --env V=1 --update-delay 0s -- sleep 1000
	eventually runs changes 2
	docker service update -d --no-resolve-image --env-add V=2 --limit-memory 64M changes >/dev/null
	eventually sh -c 'docker service inspect -f "{{.UpdateStatus.State}}" changes | grep -q completed'
	eventually runs changes 2
	same "2 67108864" "$(inside changes sh -c 'echo $V $(cat /sys/fs/cgroup/memory.max)')"
	docker service rollback -d changes >/dev/null
	eventually sh -c 'docker service inspect -f "{{.UpdateStatus.State}}" changes | grep -q rollback_completed'
	eventually runs changes 2
	same "1 max" "$(inside changes sh -c 'echo $V $(cat /sys/fs/cgroup/memory.max)')"
	gone changes
}
check_overlay() {
	docker network create -d overlay --attachable mesh >/dev/null
	service web --replicas 2 --network mesh -- sh -c 'echo page >/tmp/index.html; exec httpd -f -h /tmp'
	eventually runs web 2
	# By the service's address, and by those of its tasks.
	eventually docker run --rm --network mesh $IMAGE wget -q -T 3 -O - http://web/
	same 2 "$(docker run --rm --network mesh $IMAGE nslookup tasks.web | grep -c '^Address.*10\.0\.')"
	gone web
	eventually docker network rm mesh
}
check_published_port() {
	service open --publish 8082:80 -- sh -c 'echo page >/tmp/index.html; exec httpd -f -h /tmp'
	eventually runs open 1
	eventually busybox wget -q -T 3 -O "$WORK/page" http://$ADDRESS:8082/
	same page "$(cat "$WORK/page")"
	gone open
}
check_secret_and_config() {
	echo hidden | docker secret create word - >/dev/null
	echo told | docker config create text - >/dev/null
	service knows --secret source=word,mode=0400 --config source=text,target=/etc/text -- sleep 1000
	eventually runs knows 1
	same "hidden told" "$(inside knows cat /run/secrets/word /etc/text | xargs)"
	gone knows
	eventually runs knows 0
	docker secret rm word >/dev/null
	docker config rm text >/dev/null
}
check_options() {
	service odd --init --read-only --mount type=tmpfs,dst=/tmp --user 1234 --cap-drop ALL --hostname '{{.Task.Slot}}-x' \
		--ulimit nofile=123:456 --sysctl net.ipv4.ip_forward=1 --env A=b -- sleep 1000
	eventually runs odd 1
	same "1-x 1234 123 b" "$(inside odd sh -c '! touch /file 2>/dev/null && echo $(hostname) $(id -u) $(ulimit -n) $A')"
	has "$(inside odd cat /proc/1/comm)" init
	gone odd
}
check_health() {
	service well --health-cmd 'test -e /etc/passwd' --health-interval 1s -- sleep 1000
	eventually sh -c 'docker service ps well | grep -q Running'
	gone well
	service ill --health-cmd false --health-interval 1s --health-retries 1 -- sleep 1000
	eventually sh -c 'docker service ps --no-trunc ill | grep -q unhealthy'
	gone ill
}
check_global_and_job() {
	service everywhere --mode global -- sleep 1000
	eventually runs everywhere 1
	gone everywhere
	docker service create -d --no-resolve-image --name job --mode replicated-job --replicas 2 $IMAGE sh -c 'exit 0' >/dev/null
	eventually sh -c '[ "$(docker service ps job | grep -c Complete)" = 2 ]'
	gone job
}
check_stack() {
	docker stack deploy -d=true --resolve-image never -c "$HERE/../../examples/swarm/stack.yaml" web >/dev/null
	eventually runs web_site 2
	same "67108864 33" "$(inside web_site cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max | xargs)"
	eventually docker run --rm --network web_mesh $IMAGE wget -q -T 3 -O - http://site/
	docker stack rm web >/dev/null
	eventually runs web_site 0
}
check_drain() {
	service moves -- sleep 1000
	eventually runs moves 1
	docker node update --availability drain "$(hostname)" >/dev/null
	eventually runs moves 0
	docker node update --availability active "$(hostname)" >/dev/null
	eventually runs moves 1
	gone moves
}

# Last: all of the above must have left nothing.
check_nothing_left() {
	docker service ls -q | xargs -r docker service rm
	docker swarm leave --force
	docker ps -aq | xargs -r docker rm -f
	eventually sh -c '! pgrep -f "[c]ontainerd-shim|^sleep "'
	same "" "$(find /sys/fs/cgroup -type d -name 'docker-*.scope')"
	same "" "$(find /run/docker/runtime-runc /run/containerd/io.containerd.runtime.v2.task -mindepth 2 2>/dev/null || true)"
}

main "$@"
