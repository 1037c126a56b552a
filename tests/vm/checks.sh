# What the scripts of all clients share: the words of their checks, and what runs these inside a guest.
#
#   CLIENT.sh RUNTIME [TEXT ...]        RUNTIME: crun, runc, or a path; only checks whose name contains a TEXT
#
# A script sources this, defines functions check_*, which are run in the order they stand in, `set_up` and `tidy`
# (called when a check has failed: the next shall not stumble over what it left), and ends with `main "$@"`. Two checks
# are run at a time; what ALONE names is run by itself, after all before it. A check may write to $WORK, its own.
# Each prints "ok NAME", "not ok NAME: why" or "skip NAME: why"; the last line is the plan, "1..N".
# To try one by hand:  tests/vm/guest.py run trixie --push tests/vm:/opt/vm -- /opt/vm/docker.sh crun exec
# shellcheck shell=bash
set -euo pipefail

RUNTIME=$(command -v "${1:?usage: $0 RUNTIME [TEXT ...]}")
shift
HERE=$(cd "$(dirname "$0")" && pwd)
LIMIT=90 # seconds for one check
BESIDE=2
ALL=$(mktemp -d)
# The root file system of the image `box`.
ROOT=$ALL/root
export RUNTIME HERE ALL ROOT

die() {
	echo "$*" >&2
	exit 1
}

skip() { # WHY
	echo "$*"
	exit 77
}

same() { # WANT GOT
	[ "$1" = "$2" ] || die "wanted '$1', got '$2'"
}

differ() { # FORBIDDEN GOT
	[ "$1" != "$2" ] || die "got '$2'"
}

has() { # TEXT PART
	case $1 in *"$2"*) ;; *) die "'$2' is not in '$1'" ;; esac
}

status_is() { # WANT COMMAND ...: its words are in $WORK/output then
	local want=$1 got=0
	shift
	"$@" >"$WORK/output" 2>&1 || got=$?
	[ "$want" = "$got" ] || die "wanted status $want, got $got: $(cat "$WORK/output")"
}

refused() { # COMMAND ...: must fail
	if output=$("$@" 2>&1); then die "was not refused: $* ($output)"; fi
}

eventually() { # COMMAND ...: succeeds within twenty seconds
	local i
	for i in $(seq 100); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.2
	done
	echo "never true: $*" >&2
	return 1
}

split() { # [OPTION ...] -- COMMAND ...: into the arrays `options` and `words` of who calls it
	options=()
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	words=("$@")
}

four_at_once() { # COMMAND ...: with a number from 1 to 4 behind it, which is to be its status
	local i got pids=()
	for i in 1 2 3 4; do
		"$@" "$i" &
		pids+=($!)
	done
	for i in 1 2 3 4; do
		got=0
		wait "${pids[i - 1]}" || got=$?
		same "$i" "$got"
	done
}

make_root() { # the root file system: static busybox
	local applet
	mkdir -p "$ROOT"/{bin,dev,etc,mnt,proc,root,sys,tmp}
	cp /usr/bin/busybox "$ROOT/bin/"
	for applet in $(busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$ROOT/bin/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n' >"$ROOT/etc/passwd"
	printf 'root:x:0:\ndaemon:x:1:\n' >"$ROOT/etc/group"
	chmod 1777 "$ROOT/tmp"
}

root_tar() { tar -C "$ROOT" --owner 0 --group 0 -c .; }

# --- running the checks ---

one() { # CHECK: runs it with a time limit and prints its line
	local name=$1 status=0 why watch
	mkdir "$ALL/$name.d"
	(
		# Not by sleep(1): checks look for sleeping processes that are left.
		exec {never}<> <(:)
		read -rt $((LIMIT - 3)) -u "$never" || true
		ps -eo pid,ppid,stat,etimes,wchan:24,args --forest | cut -c 1-200 | grep -v '\]$' >"$ALL/$name.processes"
	) &
	watch=$!
	# shellcheck disable=SC2016
	WORK=$ALL/$name.d timeout -k 5 $LIMIT bash -c 'set -euo pipefail; "check_$1"' bash "$name" \
		>"$ALL/$name.said" 2>&1 </dev/null || status=$?
	kill "$watch" 2>/dev/null || true
	wait "$watch" 2>/dev/null || true
	why=$(tail -n 3 "$ALL/$name.said" | tr '\n' ' ' | cut -c 1-400)
	case $status in
	0) echo "ok $name" ;;
	77) echo "skip $name: $why" ;;
	124 | 137)
		echo "not ok $name: no end after $LIMIT s, $why"
		sed 's/^/# /' "$ALL/$name.processes"
		;;
	*) echo "not ok $name: ${why:-status $status}" ;;
	esac
	case $status in 0 | 77) ;; *) touch "$ALL/failed" "$ALL/untidy" ;; esac
}

alone() {
	wait
	if [ -e "$ALL/untidy" ]; then
		tidy >/dev/null 2>&1 || true
		rm "$ALL/untidy"
	fi
}

main() {
	local names name wanted
	wanted=$(printf '%s\n' "$@")
	mapfile -t names < <(sed -n 's/^check_\([a-z0-9_]*\)() {.*/\1/p' "$0" | grep -F "$wanted")
	make_root
	set_up
	# shellcheck disable=SC2046
	export -f $(declare -F | awk '{ print $3 }')
	for name in "${names[@]}"; do
		case " $ALONE " in
		*" $name "*)
			alone
			one "$name"
			;;
		*)
			while [ "$(jobs -rp | wc -l)" -ge $BESIDE ]; do wait -n; done
			one "$name" &
			;;
		esac
	done
	alone
	chmod -R u+rwX "$ALL"
	local failed=0
	[ ! -e "$ALL/failed" ] || failed=1
	rm -rf "$ALL"
	echo "1..${#names[@]}"
	exit $failed
}
