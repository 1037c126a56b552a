//! What follows the help text of a verb: a few lines to copy.

/// The examples of a verb, told of the program by the name it was called by.
pub(super) fn of(verb: &str, program: &str) -> Option<String> {
    let (_, lines) = EXAMPLES.iter().find(|(name, _)| *name == verb)?;
    let lines = lines.iter().map(|(what, line)| format!("\n  # {what}\n  {program} {line}\n"));
    Some(format!("Examples:{}", lines.collect::<String>()))
}

/// A verb; what each line does, and the line without the program's name.
type Examples = (&'static str, &'static [(&'static str, &'static str)]);

const EXAMPLES: &[Examples] = &[
    (
        "run",
        &[
            (
                "A shell in a container made of this machine's own userland, as root or not",
                "run --rm -it --image host -- sh",
            ),
            (
                "A test, with its input to read and its results to write",
                "run --rm --image host -v ./results:/results -- ./my-test /results",
            ),
            (
                "A test within limits, which must not need more than expected",
                "run --rm --image host --memory 64M --swap 0 --pids 32 --timeout 30s --expect 'memory.peak<48M,no-oom' -- ./my-test",
            ),
            (
                "A server that stays; see logs, attach, stop and restart",
                "run -d --image host --network host --name web -- python3 -m http.server",
            ),
            ("An OCI bundle, as runc does", "run --bundle ./bundle demo"),
        ],
    ),
    (
        "exec",
        &[
            ("A shell in a running container", "exec -t demo sh"),
            (
                "As another user, elsewhere, with a variable of its own",
                "exec -u 1000:1000 --cwd /tmp -e LANG=C demo id",
            ),
            ("A process as config.json words it", "exec --process process.json demo"),
        ],
    ),
    (
        "create",
        &[(
            "A container from ./bundle/config.json, whose program runs at start",
            "create --bundle ./bundle demo",
        )],
    ),
    ("start", &[("Run the program of a created container", "start demo")]),
    ("state", &[("The status alone, for a script", "state demo | jq -r .status")]),
    ("kill", &[("Ask the first process to end", "kill demo"), ("By name or number", "kill demo KILL")]),
    (
        "delete",
        &[
            ("Remove a container that has ended", "delete demo"),
            ("Remove it in whatever state it is, and succeed if there is none", "delete --force demo"),
        ],
    ),
    ("list", &[("As a table", "list"), ("As JSON", "list --format json")]),
    (
        "ps",
        &[
            ("The processes, with columns of ps(1)", "ps demo -o pid,user,args"),
            ("Their ids, as JSON", "ps --format json demo"),
        ],
    ),
    ("pause", &[("Stop all of a container, and let it run on", "pause demo")]),
    ("resume", &[("Let a paused container run on", "resume demo")]),
    (
        "spec",
        &[
            ("A bundle to begin with", "spec --bundle ./bundle"),
            ("One that an ordinary user can run", "spec --rootless --bundle ./bundle"),
        ],
    ),
    (
        "checkpoint",
        &[
            ("Is there anything that could not be saved?", "checkpoint --check web"),
            ("Save it; then it is gone, but for the files", "checkpoint --image-path /var/tmp/web web"),
            (
                "Most of its memory first, while it runs on, and then the rest",
                "checkpoint --pre-dump --image-path /var/tmp/1 web && checkpoint --image-path /var/tmp/2 --parent-path ../1 web",
            ),
        ],
    ),
    (
        "restore",
        &[
            (
                "Bring it back, in the background",
                "restore --detach --bundle ./bundle --image-path /var/tmp/web web",
            ),
            (
                "With its connections, which must have been saved with the same flag",
                "restore --tcp-established --bundle ./bundle --image-path /var/tmp/web web",
            ),
        ],
    ),
    ("features", &[("Does it know idmapped mounts?", "features | jq .linux.mountExtensions.idmap.enabled")]),
    (
        "plan",
        &[
            ("What would this bundle have done to this machine?", "plan create --bundle ./bundle demo"),
            ("The same, for a program to read", "plan --format json run --image host -- true"),
        ],
    ),
    (
        "doctor",
        &[
            ("What works here and what does not; the status is 1 when something is a problem", "doctor"),
            (
                "The commands that would mend what is a problem",
                "doctor --json | jq -r '.findings[] | select(.verdict == \"problem\") | .mend'",
            ),
        ],
    ),
    (
        "setup",
        &[
            ("Let Docker know this runtime: docker run --runtime ctr ...", "setup docker"),
            ("Let podman use it for all that it starts from now on", "setup podman --as-default"),
            ("What would it write?", "setup containerd --print"),
            ("Does it work?", "setup docker --check"),
            ("As it was before", "setup docker --undo"),
        ],
    ),
    (
        "limits",
        &[
            ("What was asked for, what holds, what was used", "limits web"),
            ("For a program", "limits --json web"),
        ],
    ),
    (
        "update",
        &[
            ("More memory; all else stays as it is", "update --memory 128M --memory-swap 128M web"),
            ("Limits as config.json words them, below linux.resources", "update --resources limits.json web"),
        ],
    ),
    (
        "events",
        &[
            ("What it uses, every second", "events --interval 1s web"),
            ("Once", "events --stats web | jq .data.memory.usage"),
        ],
    ),
    (
        "fit",
        &[
            ("How little does this test do with?", "fit -- ./my-test"),
            (
                "Of one that writes, for a program",
                "fit --json --volume ./results:/results -- ./my-test /results",
            ),
        ],
    ),
    ("logs", &[("The last ten lines, and what comes", "logs --tail 10 --follow web")]),
    (
        "why",
        &[
            ("Why did it end?", "why web"),
            ("Each time that it did", "why --all web"),
            (
                "For a script: was it for want of memory?",
                "why --json web | jq -e '.cause == \"out-of-memory\"'",
            ),
        ],
    ),
    (
        "mounts",
        &[
            (
                "A directory of the host, read-only",
                r#"mounts add web - <<< '[{"destination": "/data", "source": "./data", "options": ["rbind", "ro"]}]'"#,
            ),
            ("And gone again", r#"mounts remove web - <<< '[{"destination": "/data"}]'"#),
        ],
    ),
    (
        "trace",
        &[
            ("What was done to it, and when", "trace web"),
            ("With each phase of a start", "--trace start web"),
        ],
    ),
    ("stuck", &[("Why does it not end?", "stuck web"), ("Deeper", "stuck --stack web")]),
    (
        "image",
        &[
            ("Fetch an image; `run --image debian:13` does it by itself", "image pull debian:13"),
            ("What is here, and how much of it is shared", "image ls"),
            ("Of an archive that docker save has written", "image load --input images.tar"),
            ("A directory becomes an image", "image import ./rootfs registry.example/me/app:1"),
            ("It is sent where its name says", "image push registry.example/me/app:1"),
            ("For a machine of another kind", "image pull --platform linux/arm64 alpine"),
            ("Into an archive", "image save alpine --output alpine.tar"),
        ],
    ),
    ("attach", &[("Join a terminal; ctrl-p ctrl-q leaves it", "attach web")]),
    ("stop", &[("With half a minute to end in good order", "stop --time 30 web")]),
    ("restart", &[("Stop it and start it anew", "restart web")]),
    ("completion", &[("For bash, in this shell", "completion bash > ctr.bash && . ./ctr.bash")]),
];
