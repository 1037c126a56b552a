use super::*;

fn words(line: &str) -> Vec<OsString> {
    ["/usr/bin/ctr"].into_iter().chain(line.split_whitespace()).map(OsString::from).collect()
}

fn verb(line: &str) -> Verb {
    parse(words(line)).unwrap_or_else(|exit| panic!("{line}: {}", exit.text())).1
}

fn exit(line: &str) -> (u8, String) {
    match parse(words(line)) {
        Ok(parsed) => panic!("{line}: {parsed:?}"),
        Err(exit) => (exit.status(), exit.text()),
    }
}

/// clap's own consistency checks, over every verb and flag.
#[test]
fn the_tree_is_consistent() {
    tree("ctr").debug_assert();
}

#[test]
fn the_whole_tree_reads_what_the_short_way_reads() {
    for line in ["state x", "--root /r --log-format json create -b b id", "exec -it x sh -c true", "list -q"]
    {
        let short = parse(words(line)).map(|parsed| format!("{parsed:?}"));
        let whole = read_whole("ctr", &words(line)).map(|parsed| format!("{parsed:?}"));
        assert_eq!(short.ok(), whole.ok(), "{line}");
    }
}

/// Every line of up to so many of these words that the plain way reads, clap reads the same.
#[test]
fn the_plain_way_reads_what_clap_reads() {
    let verbs = ["state", "start", "pause", "resume", "list", "kill", "delete", "create", "run", "exec"];
    let before = [
        "",
        "--root /r",
        "--root /r --log /l --log-format json --systemd-cgroup",
        "--debug",
        "--root",
        "--log -x",
    ];
    let after = [
        "",
        "id",
        "id KILL",
        "id 9 x",
        "--force id",
        "-f id",
        "-f",
        "id -f",
        "-b /b id",
        "--bundle /b --pid-file /p id",
        "--bundle /b --bundle /c id",
        "-d id",
        "--detach -b /b --console-socket /c id",
        "id -b /b",
        "id sh -c x --",
        "id -t sh",
        "id -- sh",
        "-- id",
        "-b -x id",
        "id true --root /r",
        "--keep id",
        "--image host id",
    ];
    let mut plain_ones = 0;
    for (verb, before, after) in verbs
        .iter()
        .flat_map(|verb| before.iter().map(move |b| (verb, b)))
        .flat_map(|(v, b)| after.iter().map(move |a| (v, b, a)))
    {
        let line = format!("{before} {verb} {after}");
        let Some(plain) = plain::parse(&words(&line)) else { continue };
        let whole = read_whole("ctr", &words(&line)).unwrap_or_else(|exit| panic!("{line}: {}", exit.text()));
        assert_eq!(format!("{plain:?}"), format!("{whole:?}"), "{line}");
        plain_ones += 1;
    }
    assert!(plain_ones > 50, "{plain_ones}");
}

#[test]
fn what_containerd_sends_is_read() {
    let line = "--root /run/x --log /l.json --log-format json --systemd-cgroup create --bundle /b \
                --pid-file /p --console-socket /c -no-subreaper id";
    let (global, verb) = parse(words(line)).unwrap();
    assert_eq!(global.log_format, global::LogFormat::Json);
    assert!(global.systemd_cgroup);
    let Verb::Create(create) = verb else { panic!("{verb:?}") };
    assert!(create.bundle.no_subreaper);
    assert_eq!((create.id.as_str(), create.bundle.bundle.to_str()), ("id", Some("/b")));
}

#[test]
fn one_dash_suffices_for_a_long_flag_but_not_in_the_payload() {
    let Verb::Exec(exec) = verb("-root /r exec -it -no-new-privs -cap CAP_X -env A=-tty x find -tty -- y")
    else {
        panic!()
    };
    assert!(exec.no_new_privs && exec.tty && exec.interactive);
    assert_eq!((exec.cap, exec.env), (vec!["CAP_X".into()], vec!["A=-tty".into()]));
    assert_eq!(exec.command, ["find", "-tty", "--", "y"]);
    let Verb::Ps(ps) = verb("ps -format json x -format %p") else { panic!() };
    assert_eq!((ps.format, ps.options), (oci::Format::Json, vec!["-format".into(), "%p".into()]));
}

/// Go's flag package: the last value counts, and a switch may be given a truth value.
#[test]
fn flags_are_repeated_and_switched_off_as_in_go() {
    let (global, delete) = parse(words("--root /a --debug --debug --root /b delete -force=false x")).unwrap();
    assert_eq!((global.root, global.debug), (Some("/b".into()), true));
    assert!(matches!(delete, Verb::Delete(oci::Delete { force: false, .. })), "{delete:?}");
    let Verb::Run(run) = verb("run --detach=true -keep=1 --bundle /a --bundle /b x") else { panic!() };
    assert!(run.detach && run.keep && run.bundle.bundle.ends_with("b"));
    let Verb::Exec(exec) = verb("exec --env A=1 --env A=2 --tty=0 x echo --tty=true") else { panic!() };
    assert_eq!((exec.env.len(), exec.tty, exec.command.len()), (2, false, 2));
}

/// What is wrong with a number is that it is one below zero, not how it was given.
#[test]
fn a_negative_number_is_a_value() {
    for line in ["update --cpu-share -1 x", "run --image host --swap -1", "events --interval -1 x"] {
        let text = exit(line).1;
        assert!(text.contains("invalid value '-1'") && !text.contains("-- -1"), "{line}: {text}");
    }
    let Verb::Run(run) = verb("run --image host --cpu-quota -1 -- true") else { panic!() };
    assert_eq!(run.limits.cpu_quota, Some(-1));
    assert!(matches!(verb("kill x -9"), Verb::Kill(oci::Kill { signal, .. }) if signal == "-9"));
}

#[test]
fn run_serves_both_doors() {
    let Verb::Run(run) = verb("run -d -b /b x") else { panic!() };
    assert!(!run.is_image_door() && run.detach);
    let Verb::Run(run) = verb("run --rm --image host demo -- sh -c id") else { panic!() };
    assert!(run.is_image_door() && run.image.rm);
    assert_eq!((run.name(), run.command.join(" ")), (Some("demo"), "sh -c id".to_owned()));
    let Verb::Run(run) = verb("run --rootfs / --security-opt seccomp=unconfined --name n -- id") else {
        panic!()
    };
    assert_eq!(run.image.security_opt, [run::SecurityOption::Seccomp(run::Seccomp::Unconfined)]);
    assert_eq!(run.name(), Some("n"));
}

#[test]
fn a_mistake_ends_with_the_status_of_the_door_it_was_made_at() {
    for (line, status) in [
        ("", 1),
        ("state", 1),
        ("run", 1),
        ("create --bundle", 1),
        ("--bogus state x", 1),
        ("run --image host --bundle x", 125),
        ("run --rootfs", 125),
        ("run --rm --image=host --bogus x", 125),
        ("run --rm --imag host", 125),
        ("run --bogus -- --image", 1),
        ("logs", 125),
        ("--version", 0),
        ("run --help", 0),
        ("help exec", 0),
    ] {
        assert_eq!(exit(line).0, status, "{line}");
    }
}

#[test]
fn a_mistyped_verb_or_flag_is_answered_with_the_right_one() {
    assert!(exit("sate x").1.contains("'state'"));
    assert!(exit("delete --forse x").1.contains("'--force'"));
}

/// podman's crutils.CRRuntimeSupportsPodCheckpointRestore and CRRuntimeSupportsCheckpointRestore.
#[test]
fn podman_finds_that_checkpoints_are_supported() {
    let (status, text) = exit("restore --lsm-mount-context");
    assert!(status == 1 && text.contains("flag needs an argument"), "{text}");
    assert_eq!(exit("checkpoint --help").0, 0);
}

#[test]
fn the_flags_of_checkpoint_and_restore_are_runc_s_and_crun_s() {
    let Verb::Checkpoint(flags) = verb(
        "checkpoint --image-path i --work-path w --parent-path ../p --leave-running --tcp-established \
         --tcp-skip-in-flight --ext-unix-sk --shell-job --lazy-pages --status-fd 5 --page-server [::1]:99 --file-locks \
         --pre-dump --manage-cgroups-mode full --empty-ns network --auto-dedup --link-remap --network-lock nftables x",
    ) else {
        panic!()
    };
    assert_eq!((flags.status_fd, flags.page_server), (5, Some(("::1".into(), 99))));
    assert_eq!(flags.common.image_path.to_str(), Some("i"));
    assert!(matches!(verb("checkpoint --leave-running --leave-running x"), Verb::Checkpoint(_)));
    assert!(exit("checkpoint --page-server 99 x").1.contains("ADDRESS:PORT"));
    assert!(exit("checkpoint --json x").1.contains("--check"));
    let Verb::Restore(flags) = verb(
        "restore -b b -d --image-path i --work-path w --pid-file p --console-socket s --tcp-established --ext-unix-sk \
         --shell-job --file-locks --manage-cgroups-mode ignore --lsm-profile apparmor:x --lsm-mount-context c \
         -no-subreaper --no-pivot --empty-ns network --auto-dedup --lazy-pages --tcp-close --network-lock skip x",
    ) else {
        panic!()
    };
    assert!(flags.detach && flags.no_subreaper && flags.tcp_close);
}

#[test]
fn texts_use_the_name_the_program_was_called_by() {
    let line = ["/opt/zones", "exec", "--help"].map(OsString::from);
    let text = parse(line.into()).unwrap_err().text();
    assert!(text.contains("Usage: zones exec") && text.contains("\n  zones exec -t demo sh"), "{text}");
}

/// The first word of the first line is skipped by callers, the last line is searched by podman.
#[test]
fn version_has_the_lines_callers_look_for() {
    let text = exit("--version").1;
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("ctr version "), "{text}");
    assert!(lines.contains(&"spec: 1.3.0"), "{text}");
    assert!(lines.last().unwrap().starts_with("+") && text.contains("+SECCOMP"), "{text}");
    assert_eq!(text, exit("-v").1);
    assert_eq!(text, exit("-V").1);
}
