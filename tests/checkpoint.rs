//! Containers saved and brought back by CRIU; what is in the way of it, and that the container goes on then.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, require_root, skip, wait_for};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A CRIU that works here, or the test is skipped.
macro_rules! require_criu {
    () => {
        require_root!();
        if let Err(reason) = criu_works() {
            skip!(reason);
        }
    };
}

fn criu_works() -> Result<(), String> {
    let check =
        Command::new("criu").arg("check").output().map_err(|_| "no criu (apt install criu)".to_owned())?;
    let said = String::from_utf8_lossy(&check.stderr).lines().next().unwrap_or_default().to_owned();
    if check.status.success() { Ok(()) } else { Err(format!("criu cannot work on this kernel: {said}")) }
}

fn has_feature(name: &str) -> bool {
    Command::new("criu").args(["check", "--feature", name]).output().is_ok_and(|out| out.status.success())
}

/// Runs the program with a pipe for its output, as engines do: a container has it from then on. Its other end.
#[track_caller]
fn piped(case: &Case, args: &[&str]) -> PipeReader {
    piped_by(case.command(args), args)
}

#[track_caller]
fn piped_by(mut command: Command, what: impl std::fmt::Debug) -> PipeReader {
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let status = command.status().unwrap();
    drop(command);
    if !status.success() {
        // Not to the end: somebody who is left may have the other one open.
        let mut said = [0; 4096];
        let length = std::io::Read::read(&mut &reader, &mut said).unwrap();
        panic!("{what:?}: {status}: {}", String::from_utf8_lossy(&said[..length]));
    }
    reader
}

#[track_caller]
fn run(case: &Case, more: &[&str]) -> PipeReader {
    let bundle = case.bundle();
    piped(case, &case.making("run", bundle.to_str().unwrap(), &[&["--detach"], more].concat()))
}

fn images(case: &Case, name: &str) -> String {
    case.path(name).to_str().unwrap().to_owned()
}

#[track_caller]
fn checkpoint(case: &Case, flags: &[&str]) {
    let images = images(case, "images");
    case.ctr(&[&["checkpoint", "--image-path", &images], flags, &[case.id.as_str()]].concat()).ok();
}

#[track_caller]
fn restore(case: &Case, flags: &[&str]) -> PipeReader {
    let (images, bundle) = (images(case, "images"), images(case, "bundle"));
    let before = ["restore", "--detach", "--bundle", &bundle, "--image-path", &images];
    piped(case, &[&before, flags, &[case.id.as_str()]].concat())
}

/// What a program counts in the root file system.
fn count(case: &Case) -> u64 {
    fs::read_to_string(case.rootfs().join("tmp/count")).unwrap_or_default().trim().parse().unwrap_or_default()
}

const COUNTING: &str =
    "n=0; while :; do n=$((n+1)); echo $n >/tmp/new; mv /tmp/new /tmp/count; echo $n; sleep .05; done";

#[track_caller]
fn counts_on(case: &Case, from: u64) {
    wait_for("it counts on", || count(case) > from + 3);
    assert!(count(case) < from + 1000);
}

#[test]
fn a_counting_process_goes_on_from_where_it_was() {
    require_criu!();
    let mut case = case!();
    let volume = case.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "of the host").unwrap();
    case.mount("bind", &volume, "/mnt", &["rbind", "ro"]).sh(COUNTING);
    let mut output = BufReader::new(run(&case, &[]));
    wait_for("it counts", || count(&case) > 3);
    let cgroup = case.cgroup().unwrap();
    checkpoint(&case, &[]);
    // As with runc, nothing is left of it but the images.
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
    assert!(!cgroup.exists());
    let reached = count(&case);
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");

    let output = restore(&case, &["--pid-file", &images(&case, "pid")]);
    let mut lines = BufReader::new(output).lines();
    let next: u64 = lines.next().unwrap().unwrap().parse().unwrap();
    assert!((reached..reached + 3).contains(&next), "{next} after {reached}");
    counts_on(&case, reached);
    assert_eq!(case.status(), "running");
    assert_eq!(fs::read_to_string(case.path("pid")).unwrap(), case.pid().to_string());
    assert_eq!(case.cgroup().unwrap(), cgroup);
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    assert!(pids.lines().any(|pid| pid == case.pid().to_string()), "{pids}");
    assert_eq!(case.exec(&["cat", "/mnt/file"]).ok(), "of the host");
    assert!(case.exec(&["touch", "/mnt/new"]).err().contains("Read-only"));
    assert!(case.exec(&["cat", "/proc/keys"]).ok().is_empty());
    assert!(case.exec(&["ip", "addr"]).ok().contains("127.0.0.1"));
    case.ctr(&["pause", &case.id]).ok();
    assert_eq!(case.status(), "paused");
    case.ctr(&["resume", &case.id]).ok();
    case.ctr(&["kill", &case.id, "KILL"]).ok();
    case.wait_status("stopped");
    case.ctr(&["delete", &case.id]).ok();
    assert!(!cgroup.exists());
    // Nothing of the host's, and nothing mounted.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(case.dir().to_str().unwrap()), "{mounts}");
}

#[test]
fn attached_the_status_is_the_program_s() {
    require_criu!();
    let mut case = case!();
    case.sh("while ! [ -e /tmp/go ]; do sleep .05; done; exit 7");
    drop(run(&case, &[]));
    checkpoint(&case, &[]);
    fs::write(case.rootfs().join("tmp/go"), "").unwrap();
    let (images, bundle) = (images(&case, "images"), images(&case, "bundle"));
    let args = ["restore", "--bundle", &bundle, "--image-path", &images, &case.id];
    assert_eq!(case.ctr(&args).status, 7);
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
}

/// A network namespace that outlives the containers in it.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let mut sleep = Command::new("unshare");
        let network = Network(sleep.args(["--net", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        wait_for("a network namespace", || fs::read_link(network.path()).is_ok_and(|there| there != own));
        assert!(network.enter("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        network
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_established_connection_goes_on() {
    require_criu!();
    let mut case = case!();
    let network = Network::new();
    case.namespace("network", Some(&network.path())).args(&["nc", "-ll", "-p", "7007", "-e", "cat"]);
    drop(run(&case, &[]));
    let listens = |table: &str| {
        fs::read_to_string(format!("/proc/{}/net/{table}", case.pid())).unwrap().contains(":1B5F")
    };
    wait_for("it listens", || listens("tcp") || listens("tcp6"));
    let mut client = network.enter("busybox");
    client.args(["nc", "127.0.0.1", "7007"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.spawn().unwrap();
    let (mut to, mut from) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
    let mut says = |text: &str| {
        to.write_all(text.as_bytes()).unwrap();
        let limit = Some(Duration::from_secs(20));
        let answers = ctr_isolation::sys::process::poll(&[from.get_ref().as_fd()], limit).unwrap();
        assert!(answers.is_some(), "no answer to {text:?}");
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(line, text);
    };
    says("before\n");
    let refused = case.ctr(&["checkpoint", "--check", &case.id]);
    assert!(refused.status == 1 && refused.stdout.contains("--tcp-established"), "{refused:?}");
    case.ctr(&["checkpoint", "--check", "--tcp-established", &case.id]).ok();
    checkpoint(&case, &["--tcp-established"]);
    drop(restore(&case, &["--tcp-established"]));
    says("after\n");
    client.kill().unwrap();
    client.wait().unwrap();
}

/// Where a terminal is sent to.
struct ConsoleSocket(OwnedFd);

impl ConsoleSocket {
    fn new(path: &Path) -> Self {
        ConsoleSocket(
            ctr_isolation::sys::socket::listen(path, ctr_isolation::sys::socket::Kind::Stream).unwrap(),
        )
    }

    fn take(self) -> File {
        let connection = ctr_isolation::sys::socket::accept(self.0.as_fd()).unwrap();
        let (_, mut fds) = ctr_isolation::sys::socket::receive(connection.as_fd(), 4096).unwrap();
        File::from(fds.pop().unwrap())
    }
}

/// Types `text` and waits until `expected` is shown.
#[track_caller]
fn types(terminal: &mut File, text: &str, expected: &str) {
    terminal.write_all(text.as_bytes()).unwrap();
    let mut reader = BufReader::new(terminal.try_clone().unwrap());
    let mut seen = String::new();
    while !seen.contains(expected) {
        let polled =
            ctr_isolation::sys::process::poll(&[terminal.as_fd()], Some(Duration::from_secs(10))).unwrap();
        assert!(polled.is_some(), "{expected:?} is not in {seen:?}");
        let part = reader.fill_buf().unwrap();
        seen.push_str(&String::from_utf8_lossy(part));
        let length = part.len();
        reader.consume(length);
    }
}

#[test]
fn a_tree_of_processes_keeps_its_terminal() {
    require_criu!();
    let mut case = case!();
    case.set("/process/terminal", json!(true));
    case.sh("tail -f /dev/null & sh -c 'tail -f /dev/null; :' & x=kept; while read line; do echo $x-$line-$(tty); done");
    let (first, second) = (case.path("console-1"), case.path("console-2"));
    let console = ConsoleSocket::new(&first);
    drop(run(&case, &["--console-socket", first.to_str().unwrap()]));
    let mut terminal = console.take();
    types(&mut terminal, "one\n", "kept-one-/dev/pts/0");
    let processes = || case.exec(&["ps", "-o", "pid,args"]).ok();
    // Of a busybox's applet that has only begun ps tells that it is one of `exe`.
    wait_for("its applets have begun", || !processes().contains("{exe}"));
    let before = processes();
    checkpoint(&case, &[]);
    drop(terminal);
    let console = ConsoleSocket::new(&second);
    drop(restore(&case, &["--console-socket", second.to_str().unwrap()]));
    let mut terminal = console.take();
    types(&mut terminal, "two\n", "kept-two-/dev/pts/0");
    let tails =
        |text: &str| text.lines().filter(|line| line.contains("tail")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(tails(&processes()), tails(&before));
    // Two, and two shells whose arguments name them.
    assert_eq!(tails(&before).len(), 4, "{before}");
    // Without anybody to have it, a terminal cannot be restored.
    case.ctr(&["delete", "--force", &case.id]).ok();
    let (images, bundle) = (images(&case, "images"), images(&case, "bundle"));
    let out = case.ctr(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &case.id]);
    assert!(out.err().contains("--console-socket"));
}

#[test]
fn it_can_go_on_afterwards() {
    require_criu!();
    let mut case = case!();
    case.sh(COUNTING);
    let _output = run(&case, &[]);
    wait_for("it counts", || count(&case) > 3);
    checkpoint(&case, &["--leave-running"]);
    let then = count(&case);
    counts_on(&case, then);
    assert_eq!(case.status(), "running");
    // The same name, or cgroup, is not taken away from it.
    let (images, bundle) = (images(&case, "images"), images(&case, "bundle"));
    let out = case.ctr(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &case.id]);
    assert!(out.err().contains("already exists"));
    let out = case.ctr(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, "other"]);
    assert!(out.err().contains("is not empty"));
    case.ctr(&["delete", "--force", &case.id]).ok();
    let _output = restore(&case, &["--manage-cgroups-mode", "ignore"]);
    counts_on(&case, then);
}

#[test]
fn only_what_has_changed_is_saved_after_a_pre_dump() {
    require_criu!();
    let mut case = case!();
    case.sh(COUNTING);
    let _output = run(&case, &[]);
    let (first, second) = (images(&case, "pre"), images(&case, "images"));
    let pre = case.ctr(&["checkpoint", "--pre-dump", "--image-path", &first, &case.id]);
    if !has_feature("mem_dirty_track") {
        assert!(pre.err().contains("CONFIG_MEM_SOFT_DIRTY"));
        skip!("this kernel does not track changes of memory (CONFIG_MEM_SOFT_DIRTY)");
    }
    pre.ok();
    assert_eq!(case.status(), "running");
    for wrong in [first.as_str(), "../none"] {
        let out = case.ctr(&["checkpoint", "--image-path", &second, "--parent-path", wrong, &case.id]);
        assert!(out.err().contains("--parent-path"));
    }
    checkpoint(&case, &["--parent-path", "../pre"]);
    let pages = |dir: &str| fs::metadata(Path::new(dir).join("pages-1.img")).unwrap().len();
    assert!(pages(&second) < pages(&first), "{} of {}", pages(&second), pages(&first));
    let then = count(&case);
    let _output = restore(&case, &[]);
    counts_on(&case, then);
}

/// A port that nobody listens on.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[test]
fn memory_can_be_sent_to_a_page_server() {
    require_criu!();
    let mut case = case!();
    case.sh(COUNTING);
    let _output = run(&case, &[]);
    let (images, port) = (images(&case, "images"), free_port());
    fs::create_dir(&images).unwrap();
    let mut server = Command::new("criu");
    server.args(["page-server", "--images-dir", &images, "--port", &port, "--address", "127.0.0.1"]);
    let mut server = server.args(["--log-file", "server.log"]).spawn().unwrap();
    let log = || fs::read_to_string(case.path("images/server.log")).unwrap_or_default();
    wait_for("the page server", || listening(&port) || log().contains("Error"));
    checkpoint(&case, &["--page-server", &format!("127.0.0.1:{port}")]);
    assert!(server.wait().unwrap().success(), "{}", log());
    let then = count(&case);
    let _output = restore(&case, &[]);
    counts_on(&case, then);
}

fn listening(port: &str) -> bool {
    let wanted = format!(":{:04X}", port.parse::<u16>().unwrap());
    let text = fs::read_to_string("/proc/self/net/tcp").unwrap();
    text.lines().any(|line| line.contains(&wanted) && line.contains(" 0A "))
}

#[test]
fn memory_can_follow_when_it_is_used() {
    require_criu!();
    if !has_feature("uffd-noncoop") {
        skip!("this kernel has no userfaultfd of the kind that lazy pages need");
    }
    let mut case = case!();
    case.sh(COUNTING);
    let _output = run(&case, &[]);
    let (images, port) = (images(&case, "images"), free_port());
    let server = format!("127.0.0.1:{port}");
    let (mut ready, status) = std::io::pipe().unwrap();
    let number = status.as_raw_fd().to_string();
    let args = [
        "checkpoint",
        "--image-path",
        &images,
        "--lazy-pages",
        "--page-server",
        &server,
        "--status-fd",
        &number,
    ];
    ctr_isolation::sys::process::keep_across_exec(status.as_raw_fd()).unwrap();
    let saving = case.spawn(&[&args[..], &[&case.id]].concat());
    drop(status);
    let told = ctr_isolation::sys::process::poll(&[ready.as_fd()], Some(Duration::from_secs(20))).unwrap();
    assert!(told.is_some(), "nothing is written to --status-fd");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut ready, &mut bytes).unwrap();
    if bytes != [0] {
        panic!("{:?}", saving.wait());
    }
    let then = count(&case);
    let mut daemon = Command::new("criu");
    daemon.args([
        "lazy-pages",
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        &port,
        "--images-dir",
        &images,
    ]);
    let mut daemon = daemon.args(["--work-dir", &images, "--log-file", "lazy.log"]).spawn().unwrap();
    wait_for("the daemon", || Path::new(&images).join("lazy-pages.socket").exists());
    // The old one is still there to be asked for its memory.
    let (bundle, new) = (case.bundle(), format!("{}-new", case.id));
    let mut config = case.config.clone();
    config["linux"]["cgroupsPath"] = json!(format!("/ctr-test-{new}"));
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let args = [
        "restore",
        "--detach",
        "--bundle",
        bundle.to_str().unwrap(),
        "--image-path",
        &images,
        "--lazy-pages",
    ];
    let _output = piped(&case, &[&args[..], &[&new]].concat());
    counts_on(&case, then);
    saving.wait().ok();
    assert!(daemon.wait().unwrap().success());
}

/// A file that a container has from its caller as descriptor 3, and what `--check` calls it.
struct Held {
    kind: &'static str,
    file: OwnedFd,
    /// What must stay open outside.
    _others: Vec<OwnedFd>,
}

fn held(kind: &'static str, file: impl Into<OwnedFd>) -> Held {
    Held { kind, file: file.into(), _others: Vec::new() }
}

fn raw(fd: i64) -> Option<OwnedFd> {
    // SAFETY: the kernel has just opened it for us, or it is negative.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn io_uring() -> Option<OwnedFd> {
    let mut parameters = [0_u8; 120];
    // SAFETY: the kernel writes a struct io_uring_params, which has 120 bytes.
    raw(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) })
}

/// Everything that this machine has of what CRIU cannot save.
fn blockers(case: &Case) -> Vec<Held> {
    let mut all = Vec::new();
    all.extend(io_uring().map(|ring| held("io_uring", ring)));
    // SAFETY: takes no pointers.
    let odd = [libc::AF_VSOCK, libc::AF_ALG]
        .map(|family| unsafe { libc::socket(family, libc::SOCK_SEQPACKET | libc::SOCK_STREAM, 0) });
    let odd = odd.into_iter().find_map(|fd| raw(fd.into()));
    all.extend(odd.map(|socket| held("socket", socket)));
    let device = ["/dev/loop-control", "/dev/fuse", "/dev/hpet", "/dev/rtc0"]
        .iter()
        .find_map(|path| File::open(path).ok());
    all.extend(device.map(|device| held("device", device)));
    let path = case.path("host-file");
    all.push(held("host-file", File::options().append(true).create(true).mode(0o644).open(&path).unwrap()));
    let locked = File::create(case.rootfs().join("tmp/locked")).unwrap();
    ctr_isolation::sys::fs::lock(locked.as_fd()).unwrap();
    all.push(held("file-lock", locked));
    let (inside, outside) = std::os::unix::net::UnixStream::pair().unwrap();
    all.push(Held { kind: "unix-socket", file: inside.into(), _others: vec![outside.into()] });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    all.push(Held { kind: "tcp", file: client.into(), _others: vec![server.into()] });
    let terminal = nix::pty::openpty(None, None).unwrap();
    all.push(Held { kind: "terminal", file: terminal.slave, _others: vec![terminal.master] });
    all
}

/// The same command with `file` as its descriptor 3.
fn with_descriptor_3(command: &Command, file: &OwnedFd) -> Command {
    ctr_isolation::sys::process::keep_across_exec(file.as_raw_fd()).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("exec \"$@\" 3<&{}", file.as_raw_fd()), "bash"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    shell
}

/// What `--check` tells before anything is touched is what CRIU would have refused; and the container goes on.
#[test]
fn what_is_in_the_way_is_told_beforehand() {
    require_criu!();
    let mut case = case!();
    // A connection is seen from the network namespace that it is in.
    case.without_namespace("network").sh(COUNTING);
    let wanted = ["io_uring", "socket", "device", "host-file", "file-lock", "unix-socket", "tcp", "terminal"];
    let all = blockers(&case);
    let missing: Vec<_> = wanted.iter().filter(|kind| !all.iter().any(|held| held.kind == **kind)).collect();
    assert!(missing.len() <= 2, "this machine has no {missing:?}");
    for held in all {
        let bundle = case.bundle();
        let run = case.making("run", bundle.to_str().unwrap(), &["--detach", "--preserve-fds", "1"]);
        let _output = piped_by(with_descriptor_3(&case.command(&run), &held.file), held.kind);

        let checked = case.ctr(&["checkpoint", "--check", "--json", &case.id]);
        let told: Value = serde_json::from_str(&checked.stdout).unwrap();
        assert_eq!((checked.status, &told["possible"]), (1, &json!(false)), "{}: {told}", held.kind);
        let blockers = told["blockers"].as_array().unwrap();
        assert!(blockers.iter().any(|blocker| blocker["pid"] == case.pid()), "{told}");
        for blocker in blockers {
            assert_eq!((&blocker["kind"], &blocker["descriptor"]), (&json!(held.kind), &json!(3)), "{told}");
            assert!(
                !blocker["what"].as_str().unwrap().is_empty()
                    && !blocker["remedy"].as_str().unwrap().is_empty()
            );
        }
        let text = case.ctr(&["checkpoint", "--check", &case.id]);
        assert!(text.status == 1 && text.stdout.contains("descriptor 3: "), "{text:?}");
        assert!(!case.path("checkpoint").exists());

        let images = images(&case, "images");
        let error = case.ctr(&["checkpoint", "--image-path", &images, &case.id]).err();
        assert!(error.contains("CRIU could not save the container: (criu/"), "{}: {error}", held.kind);
        assert!(error.contains("images/dump.log"), "{error}");
        let then = count(&case);
        counts_on(&case, then);
        case.ctr(&["delete", "--force", &case.id]).ok();
    }
}

#[test]
fn nothing_is_in_the_way_of_a_plain_container() {
    require_criu!();
    let mut case = case!();
    case.sh(COUNTING);
    let _output = run(&case, &[]);
    let checked = case.ctr(&["checkpoint", "--check", "--json", &case.id]).ok();
    assert_eq!(
        serde_json::from_str::<Value>(&checked).unwrap(),
        json!({"id": case.id, "possible": true, "blockers": []})
    );
    assert!(case.ctr(&["checkpoint", "--check", &case.id]).ok().starts_with("nothing is seen"));
}

#[test]
fn where_criu_cannot_the_reason_is_told() {
    let mut case = case!();
    case.up();
    let images = images(&case, "images");
    let without =
        |args: &[&str]| common::spawn(case.dir(), case.command(args).env("PATH", "/nonexistent")).wait();
    let error = without(&["checkpoint", "--image-path", &images, &case.id]).err();
    // An ordinary user would not be helped by it.
    let reason = if common::is_root() { "apt install criu" } else { "CRIU must be root" };
    assert!(error.contains(reason), "{error}");
    let checked = without(&["checkpoint", "--check", "--json", &case.id]);
    let told: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((checked.status, &told["blockers"][0]["kind"]), (1, &json!("criu")));
    assert_eq!(case.status(), "running");
}

#[test]
fn what_does_not_run_cannot_be_saved() {
    let mut case = case!();
    case.sh("sleep 1000").create().ok();
    for flags in [&["checkpoint"][..], &["checkpoint", "--check"]] {
        let error = case.ctr(&[flags, &[case.id.as_str()]].concat()).err();
        assert!(error.contains("cannot checkpoint container") && error.contains("it is created"), "{error}");
    }
    assert!(case.ctr(&["checkpoint", "none"]).err().contains("does not exist"));
}

#[test]
fn images_that_are_none_are_refused_and_nothing_is_left() {
    require_criu!();
    let mut case = case!();
    case.sh("sleep 1000").write_config();
    let (images, bundle) = (images(&case, "images"), images(&case, "bundle"));
    let restore =
        || case.ctr(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &case.id]);
    assert!(restore().err().contains("no such file"));
    fs::create_dir(&images).unwrap();
    assert!(restore().err().contains("is it the directory of a checkpoint?"));
    fs::write(case.path("images/descriptors.json"), "[\"pipe:[1]\", \"\", \"\"]").unwrap();
    let error = restore().err();
    assert!(
        error.contains("CRIU could not restore the container: ") && error.contains("restore.log"),
        "{error}"
    );
    assert_eq!(case.ctr(&["list", "-q"]).ok(), "");
    let cgroup = common::cgroup2().unwrap().join(format!("ctr-test-{}", case.id));
    assert!(!cgroup.exists());
}

/// Whatever is killed, and when: `delete --force` leaves nothing.
#[test]
fn killed_at_any_moment_nothing_is_left() {
    require_criu!();
    let mut case = case!();
    case.sh(COUNTING);
    let (images, bundle) = (images(&case, "images"), images(&case, "bundle"));
    let cgroup = common::cgroup2().unwrap().join(format!("ctr-test-{}", case.id));
    let nothing_left = |point: &str| {
        case.ctr(&["delete", "--force", &case.id]).ok();
        assert_eq!(case.ctr(&["list", "-q"]).ok(), "", "{point}");
        assert!(!cgroup.exists(), "{point}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(case.dir().to_str().unwrap()), "{point}: {mounts}");
    };
    for delay in [5, 20, 50, 100, 200, 400] {
        let _output = run(&case, &[]);
        let mut saving = case.spawn(&["checkpoint", "--image-path", &images, &case.id]);
        std::thread::sleep(Duration::from_millis(delay));
        let _ = saving.child.kill();
        saving.wait();
        nothing_left(&format!("checkpoint, {delay} ms"));
    }
    let _output = run(&case, &[]);
    checkpoint(&case, &[]);
    for delay in [5, 20, 50, 100, 200, 400] {
        let (_reader, writer) = std::io::pipe().unwrap();
        let mut command =
            case.command(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &case.id]);
        let mut restoring = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        let _ = restoring.kill();
        restoring.wait().unwrap();
        nothing_left(&format!("restore, {delay} ms"));
    }
}
