//! `ctr doctor`: what it says and how, that what it says to do helps, and that nothing of it stays.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Terminal, is_root, program, require_root, skip, spawn};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where one examination takes place: its store is not there yet.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::Builder::new().prefix("ctr-test-").tempdir_in("/tmp").unwrap());
        fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn store(&self) -> PathBuf {
        self.path().join("data/store")
    }

    /// `before`, words that start another program, and `ctr doctor` with `flags`.
    fn command(&self, before: &[&str], flags: &[&str]) -> Command {
        let program = program();
        let words = [before, &[program.to_str().unwrap(), "doctor"], flags].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("CTR_STORE", self.store()).stdin(Stdio::null());
        command.env_remove("CTR_BIN").env_remove("CTR_TEST_SKIPS");
        command
    }

    #[track_caller]
    fn report(&self, before: &[&str]) -> Report {
        self.report_of(self.command(before, &["--json"]))
    }

    #[track_caller]
    fn report_of(&self, mut command: Command) -> Report {
        let running = spawn(self.path(), &mut command);
        let pid = running.child.id();
        let out = running.wait();
        assert_eq!(out.stderr, "");
        let document = serde_json::from_str(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out:?}"));
        Report { document, status: out.status, pid }
    }
}

struct Report {
    document: Value,
    status: i32,
    pid: u32,
}

impl Report {
    fn findings(&self) -> &[Value] {
        self.document["findings"].as_array().unwrap()
    }

    /// The finding `GROUP/NAME`.
    #[track_caller]
    fn finding(&self, name: &str) -> &Value {
        let found = self.findings().iter().find(|finding| full_name(finding) == name);
        found.unwrap_or_else(|| panic!("no {name}: {:#}", self.document))
    }

    #[track_caller]
    fn verdict(&self, name: &str) -> &str {
        self.finding(name)["verdict"].as_str().unwrap()
    }

    #[track_caller]
    fn problem(&self, name: &str) -> (&str, &str, &str) {
        let finding = self.finding(name);
        assert_eq!(finding["verdict"], "problem", "{finding:#}");
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        (text("found"), text("reason"), text("mend"))
    }
}

fn full_name(finding: &Value) -> String {
    format!("{}/{}", finding["group"].as_str().unwrap(), finding["name"].as_str().unwrap())
}

/// Findings that there are on every host, in order.
const ALWAYS: [&str; 19] = [
    "cgroups/version",
    "cgroups/pressure",
    "systemd/system",
    "namespaces/user",
    "namespaces/namespaces",
    "namespaces/cgroup",
    "namespaces/time",
    "ids/overlaps",
    "ids/mapping",
    "store/directory",
    "store/overlay",
    "store/idmap",
    "store/quota",
    "store/loop",
    "store/fuse",
    "security/lsm",
    "security/seccomp",
    "security/seccomp-notify",
    "tools/criu",
];

/// And those that depend on the host, the user, or other findings.
const SOMETIMES: [&str; 8] = [
    "cgroups/cgroup",
    "cgroups/controllers",
    "cgroups/limits",
    "systemd/user",
    "systemd/scope",
    "ids/ranges",
    "ids/newuidmap",
    "ids/newgidmap",
];

/// What machines can rely on.
#[track_caller]
fn check_form(report: &Report) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let document = &report.document;
    let expected = [
        "user",
        "uid",
        "user_namespace",
        "container",
        "kernel",
        "store",
        "ok",
        "warnings",
        "problems",
        "findings",
    ];
    assert_eq!(keys(document), set(&expected));
    assert!(
        document["user"].is_string() && document["uid"].is_u64() && document["user_namespace"].is_boolean()
    );

    let mut counted = BTreeMap::from([("ok", 0), ("warning", 0), ("problem", 0)]);
    let mut names = BTreeSet::new();
    for finding in report.findings() {
        let expected = ["group", "name", "verdict", "tried", "found", "reason", "loses", "mend"];
        assert_eq!(keys(finding), set(&expected), "{finding:#}");
        let is_said = |key: &str| finding[key].as_str().is_some_and(|text| !text.trim().is_empty());
        assert!(is_said("tried") && is_said("found"), "{finding:#}");
        let verdict = finding["verdict"].as_str().unwrap();
        *counted.get_mut(verdict).unwrap() += 1;
        match verdict {
            "ok" => {
                assert!(["reason", "loses", "mend"].iter().all(|key| finding[key].is_null()), "{finding:#}")
            }
            "warning" => assert!(is_said("loses"), "{finding:#}"),
            _ => assert!(is_said("loses") && is_said("mend"), "every red line has its command: {finding:#}"),
        }
        assert!(finding["mend"].is_null() || is_said("mend"), "{finding:#}");
        assert!(names.insert(full_name(finding)), "twice: {finding:#}");
    }
    let count = |key: &str| document[key].as_u64().unwrap();
    assert_eq!(
        (count("ok"), count("warnings"), count("problems")),
        (counted["ok"], counted["warning"], counted["problem"])
    );
    assert_eq!(report.status, i32::from(count("problems") > 0));
    let always: Vec<String> =
        report.findings().iter().map(full_name).filter(|name| !SOMETIMES.contains(&name.as_str())).collect();
    if names.contains("store/overlay") {
        assert_eq!(always, ALWAYS);
    }
}

/// Every cgroup there is, of whatever version.
fn cgroups(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            cgroups(&entry.path(), found);
        }
    }
}

/// What is left of the examination by the process `pid`. Others may be at work on the same machine: what is theirs does
/// not count.
fn left(place: &Place, pid: u32) -> Vec<String> {
    let mut all = Vec::new();
    cgroups(Path::new("/sys/fs/cgroup"), &mut all);
    let name = format!("doctor-{pid}");
    let is_ours = |path: &PathBuf| path.to_string_lossy().contains(&name);
    let mut left: Vec<String> =
        all.iter().filter(|path| is_ours(path)).map(|path| path.display().to_string()).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = place.path().to_str().unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(path) || line.contains(&name)).map(str::to_owned));
    if place.path().join("data").exists() {
        left.push("the store".to_owned());
    }
    left
}

/// The file in which CRIU notes what the machine can do: not its caller's to leave.
fn criu_notes() -> bool {
    let own = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| "/nowhere".to_owned());
    [Path::new("/run"), Path::new(&own)].iter().any(|dir| dir.join("criu.kdat").exists())
}

#[test]
fn it_examines_this_host_and_leaves_nothing() {
    let (place, notes) = (Place::new(), criu_notes());
    let report = place.report(&[]);
    println!("{:#}", report.document);
    check_form(&report);
    assert_eq!(left(&place, report.pid), [""; 0]);
    assert_eq!(criu_notes(), notes);
    // What the other tests need as well.
    for name in
        ["namespaces/user", "namespaces/namespaces", "store/directory", "store/overlay", "security/seccomp"]
    {
        assert_eq!(report.verdict(name), "ok", "{:#}", report.finding(name));
    }
}

/// A store that is there is as it was.
#[test]
fn the_store_stays_as_it_is() {
    let place = Place::new();
    fs::create_dir_all(place.store().join("containers/web")).unwrap();
    fs::write(place.store().join("containers/web/log"), "x").unwrap();
    place.report(&[]);
    let names = |path: PathBuf| {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(names(place.store()), ["containers"]);
    assert_eq!(names(place.store().join("containers/web")), ["log"]);
}

/// Whoever has had enough of it is heard when all is put away.
#[test]
fn an_interrupted_examination_leaves_nothing() {
    let place = Place::new();
    for pause in [0, 2, 5] {
        let running = spawn(place.path(), &mut place.command(&[], &[]));
        let pid = running.child.id();
        std::thread::sleep(Duration::from_millis(pause));
        // It may have ended before: then nothing is to be interrupted.
        let _ = ctr_isolation::sys::process::kill(pid.cast_signed(), libc::SIGTERM);
        running.wait();
        assert_eq!(left(&place, pid), [""; 0], "{pause} ms");
    }
}

/// In the guests, which are set up as machines should be, nothing is red; and limits are real.
#[test]
fn nothing_is_red_on_a_machine_that_has_all() {
    if !Path::new("/usr/local/lib/ctr-agent.py").exists() {
        skip!("needs a guest of tests/vm");
    }
    let place = Place::new();
    let report = place.report(&[]);
    let problems: Vec<_> =
        report.findings().iter().filter(|finding| finding["verdict"] == "problem").collect();
    assert!(problems.is_empty(), "{problems:#?}");
    for name in ["cgroups/cgroup", "cgroups/controllers", "systemd/system", "systemd/scope", "ids/mapping"] {
        assert_ne!(report.verdict(name), "problem");
    }
    let limits = report.finding("cgroups/limits")["found"].as_str().unwrap();
    assert!(limits.contains("memory.max") && limits.contains("pids.max"), "{limits}");
}

#[test]
fn people_read_the_same() {
    let place = Place::new();
    let out = spawn(place.path(), &mut place.command(&[], &[])).wait();
    let report = place.report(&[]);
    assert_eq!(out.status, report.status);
    assert!(!out.stdout.contains('\x1b'), "no colour where nobody sees it");
    for finding in report.findings() {
        let text = |key: &str| finding[key].as_str().unwrap();
        let is_its_line = |line: &&str| {
            let mut words = line.split_whitespace();
            let first = (words.next(), words.next());
            first == (Some(text("verdict")), Some(text("name"))) && line.ends_with(text("found"))
        };
        assert!(out.stdout.lines().any(|line| is_its_line(&line)), "{finding:#}\n{}", out.stdout);
        if finding["mend"].is_string() {
            assert!(out.stdout.contains(text("mend")), "{finding:#}");
        }
    }
    let last = out.stdout.lines().last().unwrap();
    assert!(last.contains(" ok, ") && last.contains(" warning") && last.contains(" problem"), "{last}");
}

#[test]
fn a_terminal_gets_colours_unless_they_are_not_wanted() {
    let place = Place::new();
    let mut command = place.command(&[], &[]);
    command.env("TERM", "xterm");
    for (wanted, value) in [(true, ""), (false, "1")] {
        let mut terminal = Terminal::start(command.env("NO_COLOR", value));
        terminal.wait();
        terminal.expect(" problem");
        assert_eq!(terminal.seen().contains("\x1b[1;32mok"), wanted, "{}", terminal.seen());
    }
}

/// An error of our own is told apart from a problem of the host.
#[test]
fn statuses_are_told_apart() {
    let place = Place::new();
    assert_eq!(spawn(place.path(), &mut place.command(&[], &["--bogus"])).wait().status, 125);
    let mut command = place.command(&[], &["--json"]);
    let report = place.report_of({
        command.env("CTR_STORE", "/proc/nowhere");
        command
    });
    check_form(&report);
    let (found, reason, mend) = report.problem("store/directory");
    assert!(
        found.contains("nothing can be kept") && reason.contains("/proc/nowhere: no such file"),
        "{reason}"
    );
    assert!(mend.starts_with("export CTR_STORE="), "{mend}");
    assert_eq!(report.status, 1);
}

/// In another mount namespace, with files of /etc that are ours.
fn with_etc(script: &str, argument: &str) -> Command {
    let mut command = Command::new("unshare");
    let overlay = "mkdir \"$0/up\" \"$0/work\"; mount -t overlay -o \
                   lowerdir=/etc,upperdir=\"$0/up\",workdir=\"$0/work\" overlay /etc || exit 99\n";
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        &format!("{overlay}{script}"),
        argument,
    ]);
    command
}

#[test]
fn ranges_of_two_users_that_meet_are_found_and_set_apart() {
    require_root!();
    let place = Place::new();
    // So that its overlay may be mounted where / is one.
    let layers = place.path().join("layers");
    fs::create_dir(&layers).unwrap();
    let ctr = program();
    let ctr = ctr.display();
    let script = format!(
        "printf 'alice:200000:65536\\nbob:265535:65536\\n' > /etc/subuid; cp /etc/subuid /etc/subgid\n\
         for i in 1 2 3; do {ctr} doctor --json > $0/report || :\n\
         jq -r '.findings[] | select(.name == \"overlaps\") | .verdict, .found, .mend' $0/report > $0/lines\n\
         cat $0/lines; sh -c \"$(sed -n 3p $0/lines | grep -v null)\"; done"
    );
    if Command::new("jq").arg("--version").output().is_err() {
        skip!("no jq");
    }
    let mut command = with_etc(&script, layers.to_str().unwrap());
    let out = spawn(place.path(), command.env("CTR_STORE", place.store())).wait();
    if out.status == 99 {
        skip!("an overlay on /etc cannot be mounted here");
    }
    let text = out.ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 9, "{text}");
    assert_eq!(lines[..2], ["problem", "/etc/subuid: alice and bob both have 265535 to 265535"]);
    assert_eq!(lines[2], "sed -i 's/^bob:265535:65536$/bob:100000:65536/' /etc/subuid");
    assert!(lines[4].starts_with("/etc/subgid: alice and bob"), "the first is mended: {text}");
    assert_eq!(lines[6..9], ["ok", "none among 4 ranges", "null"]);
}

/// user_namespaces(7): the limit is one of each user namespace, so that of one of our own can be changed.
#[test]
fn a_host_without_user_namespaces_is_told_the_sysctl() {
    let place = Place::new();
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    let before = ["unshare", "--user", "--map-root-user", "sh", "-ec", script, "sh"];
    let report = place.report(&before);
    check_form(&report);
    assert_eq!(report.document["user_namespace"], true);
    let (found, reason, mend) = report.problem("namespaces/user");
    assert!(found.ends_with("may not use them"), "{found}");
    assert!(reason.contains("no space left on device (user.max_user_namespaces is 0)"), "{reason}");
    assert!(mend.contains("sysctl -w 'user.max_user_namespaces=15000'"), "{mend}");
    assert_eq!(left(&place, report.pid), [""; 0]);

    // The part of the command that changes the running kernel.
    let set = mend.split(" && ").last().unwrap();
    let set = format!("PATH=$PATH:/usr/sbin:/sbin {set} > /dev/null");
    let script = format!("echo 0 > /proc/sys/user/max_user_namespaces; {set}; exec \"$@\"");
    let before = ["unshare", "--user", "--map-root-user", "sh", "-ec", &script, "sh"];
    assert_eq!(place.report(&before).verdict("namespaces/user"), "ok");
}

#[test]
fn helpers_that_are_missing_or_powerless_are_told() {
    if is_root() {
        skip!("needs an ordinary user");
    }
    let place = Place::new();
    let mut command = place.command(&[], &["--json"]);
    command.env("PATH", "/nowhere");
    let report = place.report_of(command);
    for name in ["ids/newuidmap", "ids/newgidmap"] {
        let (found, _, mend) = report.problem(name);
        assert_eq!(found, "not found");
        assert!(mend.starts_with("su") && mend.contains("install"), "{mend}");
    }
    let report = place.report(&["setpriv", "--no-new-privs"]);
    let (_, reason, mend) = report.problem("ids/mapping");
    assert!(reason.contains("newuidmap") && mend.contains("no_new_privs"), "{reason}: {mend}");
    assert_eq!(
        left(&place, report.pid),
        [""; 0],
        "though what was made inside cannot be removed from inside"
    );
}

/// The command that gives an ordinary user a cgroup, where no systemd does, does so.
#[test]
fn an_ordinary_user_is_given_a_cgroup_by_hand() {
    require_root!();
    if Path::new("/run/systemd/system").exists() {
        skip!("systemd gives it here");
    }
    let place = Place::new();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let report = place.report(&nobody);
    let (_, reason, mend) = report.problem("cgroups/cgroup");
    assert!(reason.ends_with("permission denied"), "{reason}");
    // Neither program is needed, for we are root.
    let command = mend.strip_prefix("sudo sh").or(mend.strip_prefix("su")).unwrap();
    let script = format!("sh {command}; exec \"$@\"");
    let given = place.report(&[&["sh", "-ec", &script, "sh"], nobody.as_slice()].concat());
    let dir = mend.split_whitespace().find(|word| word.ends_with("/shell")).unwrap();
    let hybrid = report.finding("cgroups/version")["found"].as_str().unwrap().starts_with("hybrid");
    if hybrid {
        let (_, reason, mend) = report.problem("cgroups/controllers");
        assert!(
            reason.contains("version 1") && mend.contains("reboot"),
            "that a cgroup is not enough is told: {reason}"
        );
    }
    assert_eq!(given.verdict("cgroups/cgroup"), "ok", "{:#}", given.finding("cgroups/cgroup"));
    assert_eq!(left(&place, given.pid), [""; 0]);
    for dir in [Path::new(dir), Path::new(dir).parent().unwrap()] {
        fs::remove_dir(dir).unwrap();
    }
}

/// Root has what version 1 has.
#[test]
fn controllers_of_version_1_are_roots() {
    require_root!();
    let place = Place::new();
    let report = place.report(&[]);
    let version = report.finding("cgroups/version")["found"].as_str().unwrap().to_owned();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    if !version.starts_with("hybrid") || !mounts.contains(",memory 0 0") {
        skip!("no memory controller of cgroup version 1 beside version 2");
    }
    assert_eq!(report.verdict("cgroups/controllers"), "ok");
    let found = report.finding("cgroups/controllers")["found"].as_str().unwrap().to_owned();
    assert!(found.contains("in version 1, which root may use: ") && found.contains("memory"), "{found}");
}

/// In another mount namespace, where nothing is mounted for cgroups until the command has been given.
#[test]
fn cgroups_that_are_not_mounted_are_told() {
    require_root!();
    let place = Place::new();
    let without = |then: &str| {
        let script = format!("umount -R -l /sys/fs/cgroup; {then}; exec \"$@\"");
        place.report(&["unshare", "--mount", "--propagation", "private", "sh", "-ec", &script, "sh"])
    };
    let report = without("true");
    check_form(&report);
    let (found, _, mend) = report.problem("cgroups/version");
    // Where version 1 has its cgroups, /proc tells, mounted or not.
    if found == "cgroup v1 alone" {
        assert!(mend.contains("reboot"), "{mend}");
    } else {
        assert_eq!(found, "no cgroups are mounted");
        assert_eq!(without(mend).verdict("cgroups/version"), "ok");
    }
}

/// A file system that is unmounted again.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().unwrap();
    }
}

/// The command that gives the store quota does so.
#[test]
fn a_store_is_given_quota() {
    require_root!();
    let place = Place::new();
    let report = place.report(&[]);
    let finding = report.finding("store/quota");
    let Some(mend) = finding["mend"].as_str() else { skip!(format!("nothing gives it here: {finding}")) };
    assert_eq!(finding["verdict"], "warning");
    let program = if mend.contains("mkfs.btrfs") { "mkfs.btrfs" } else { "mkfs.ext4" };
    if Command::new(program).arg("-V").output().is_err() {
        skip!(format!("no {program}"));
    }
    let out = spawn(place.path(), Command::new("sh").args(["-ec", mend])).wait();
    let mounted = Mounted(place.store());
    assert_eq!(out.status, 0, "{mend}: {}", out.stderr);
    let after = place.report(&[]);
    let finding = after.finding("store/quota");
    assert_eq!(finding["verdict"], "ok", "{finding:#}");
    assert_eq!(after.verdict("store/overlay"), "ok");
    drop(mounted);
}
