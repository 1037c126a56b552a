//! What the tests of the program share: a container of its own for each test, and nothing of it left afterwards.

#![allow(dead_code, unreachable_pub, unused_macros, unused_imports, clippy::unwrap_used)]

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long any command may take.
pub const LIMIT: Duration = Duration::from_secs(60);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Leaves the test that it stands in, with the reason, which tests/suite.py reports.
macro_rules! skip {
    ($reason:expr) => {{
        fn here() {}
        $crate::common::note_skip(std::any::type_name_of_val(&here), &$reason.to_string());
        return;
    }};
}
pub(crate) use skip;

/// A container, or the test is skipped.
macro_rules! case {
    () => {
        match $crate::common::Case::new() {
            Ok(case) => case,
            Err(reason) => $crate::common::skip!(reason),
        }
    };
}
pub(crate) use case;

/// Skips the test for an ordinary user.
macro_rules! require_root {
    () => {
        if !$crate::common::is_root() {
            $crate::common::skip!("needs root");
        }
    };
}
pub(crate) use require_root;

/// Skips the test where the user has no cgroup of their own to make cgroups in.
macro_rules! require_cgroup {
    ($case:expr) => {
        if $case.cgroup().is_none() {
            assert!(!$crate::common::is_root(), "root has cgroups");
            $crate::common::skip!("no cgroup is delegated to this user");
        }
    };
}
pub(crate) use require_cgroup;

/// Writes the name of a test and why it was skipped to where the caller looks for it.
pub fn note_skip(place: &str, reason: &str) {
    let name = place.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    let name = name.rsplit("::").next().unwrap();
    eprintln!("skipped {name}: {reason}");
    if let Some(file) = std::env::var_os("CTR_TEST_SKIPS") {
        let mut file = File::options().append(true).create(true).open(file).unwrap();
        writeln!(file, "{name}\t{reason}").unwrap();
    }
}

pub fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

pub fn gid() -> u32 {
    nix::unistd::getegid().as_raw()
}

pub fn is_root() -> bool {
    uid() == 0
}

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("CTR_BIN").map_or_else(|| env!("CARGO_BIN_EXE_ctr").into(), PathBuf::from)
}

/// Where cgroup v2 is mounted.
pub fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    Some(line.split(' ').nth(1).unwrap().into())
}

/// What a command did.
#[derive(Debug)]
pub struct Output {
    /// Its exit status, or 128 + the signal that ended it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    out: PathBuf,
}

impl Output {
    /// Its standard output, when the status is 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its standard error, when it failed.
    #[track_caller]
    pub fn err(self) -> String {
        assert_ne!(self.status, 0, "it should have failed; stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }

    /// What is on its standard output by now: a container goes on after `create` and writes to the same file.
    pub fn later(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap()).into_owned()
    }
}

/// A process with its output in files, which nobody that outlives it can hold up.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Waits for the end, and ends it after [`LIMIT`].
    #[track_caller]
    pub fn wait(mut self) -> Output {
        use std::os::unix::process::ExitStatusExt;
        let until = Instant::now() + LIMIT;
        let mut pause = Duration::from_micros(500);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let read = |path| fs::read_to_string(path).unwrap_or_default();
                panic!("no end after {LIMIT:?}: stdout {:?}, stderr {:?}", read(&self.out), read(&self.err));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Output {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap()),
            stdout: read(&self.out),
            stderr: read(&self.err),
            out: self.out,
        }
    }
}

/// Starts a command with files in `dir` for its output.
pub fn spawn(dir: &Path, command: &mut Command) -> Running {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (out, err) = (dir.join(format!("out-{number}")), dir.join(format!("err-{number}")));
    let create = |path: &Path| File::create(path).unwrap();
    command.stdout(create(&out)).stderr(create(&err));
    let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    Running { child, out, err }
}

/// Tries until `done`, for at most 10 s.
#[track_caller]
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "waited 10 s for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// A static busybox of the host.
fn busybox() -> Result<&'static Path, String> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let is_static = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        // Program headers of a 64-bit ELF file: none of them names an interpreter (3).
        bytes.starts_with(b"\x7fELF\x02")
            && bytes[64..].chunks(56).take(bytes[56].into()).all(|part| part[0] != 3)
    };
    let find = || ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(is_static);
    FOUND
        .get_or_init(find)
        .as_deref()
        .ok_or_else(|| "no static busybox (apt install busybox-static)".to_owned())
}

fn applets() -> &'static [String] {
    static LIST: OnceLock<Vec<String>> = OnceLock::new();
    LIST.get_or_init(|| {
        let list = Command::new(busybox().unwrap()).arg("--list").output().unwrap();
        String::from_utf8(list.stdout).unwrap().lines().map(str::to_owned).collect()
    })
}

/// A root file system with busybox in it.
pub fn make_rootfs(path: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "tmp", "etc", "root", "mnt", "sbin"] {
        fs::create_dir_all(path.join(dir)).unwrap();
    }
    fs::copy(busybox().unwrap(), path.join("bin/busybox")).unwrap();
    for name in applets().iter().filter(|name| *name != "busybox") {
        symlink("busybox", path.join("bin").join(name)).unwrap();
    }
    fs::write(path.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
        .unwrap();
    fs::write(path.join("etc/group"), "root:x:0:\n").unwrap();
}

/// One test's container, with a store, a bundle and a cgroup of its own.
#[derive(Debug)]
pub struct Case {
    dir: tempfile::TempDir,
    /// The container's name.
    pub id: String,
    /// What becomes of config.json.
    pub config: Value,
}

impl Case {
    pub fn new() -> Result<Self, String> {
        busybox()?;
        let dir = tempfile::Builder::new().prefix("ctr-test-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let id = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = default_config(&id);
        let case = Case { dir, id, config };
        make_rootfs(&case.rootfs());
        Ok(case)
    }

    /// A directory for whatever the test needs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path("bundle/rootfs")
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Sets the value at a JSON pointer, with the objects on the way; `-` appends to a list.
    #[track_caller]
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut place = &mut self.config;
        for part in pointer.split('/').skip(1) {
            if place.is_null() {
                *place = if part == "-" { json!([]) } else { json!({}) };
            }
            place = match place {
                Value::Array(list) => {
                    if part == "-" {
                        list.push(Value::Null);
                    }
                    let index = part.parse().unwrap_or(list.len() - 1);
                    &mut list[index]
                }
                other => &mut other[part],
            };
        }
        *place = value;
        self
    }

    /// The program is a script for sh.
    pub fn sh(&mut self, script: &str) -> &mut Self {
        self.set("/process/args", json!(["sh", "-c", script]))
    }

    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", json!(args))
    }

    /// One more mount.
    pub fn mount(&mut self, kind: &str, source: impl AsRef<Path>, to: &str, options: &[&str]) -> &mut Self {
        let mount = json!({"type": kind, "source": source.as_ref(), "destination": to, "options": options});
        self.set("/mounts/-", mount)
    }

    /// Leaves where its cgroup is to be to the program, which names it after the container.
    pub fn without_cgroup_path(&mut self) -> &mut Self {
        self.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        self
    }

    /// Leaves a namespace out.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|found| found["type"] != kind);
        self
    }

    /// Joins a namespace, or makes a new one where there is no path.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Self {
        self.without_namespace(kind);
        let mut namespace = json!({"type": kind});
        if let Some(path) = path {
            namespace["path"] = json!(path);
        }
        self.set("/linux/namespaces/-", namespace)
    }

    /// A new user namespace, with ids of the host from `first` on; as an ordinary user there is one already.
    pub fn user_namespace(&mut self, first: u32, count: u32) -> &mut Self {
        self.namespace("user", None);
        for key in ["uidMappings", "gidMappings"] {
            let map = json!([{"containerID": 0, "hostID": first, "size": count}]);
            self.set(&format!("/linux/{key}"), map);
        }
        self
    }

    pub fn write_config(&self) {
        fs::write(self.bundle().join("config.json"), serde_json::to_vec_pretty(&self.config).unwrap())
            .unwrap();
    }

    /// A command of the program, ready to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("--root").arg(self.store()).args(args).stdin(Stdio::null());
        // They are ours, not settings of the program.
        command.env_remove("CTR_BIN").env_remove("CTR_TEST_SKIPS");
        command.env("CTR_STORE", self.path("private"));
        command
    }

    pub fn spawn(&self, args: &[&str]) -> Running {
        spawn(self.dir(), &mut self.command(args))
    }

    /// Runs the program.
    #[track_caller]
    pub fn ctr(&self, args: &[&str]) -> Output {
        self.spawn(args).wait()
    }

    /// The same with `input` on its standard input.
    #[track_caller]
    pub fn ctr_with_input(&self, args: &[&str], input: &str) -> Output {
        let path = self.path("input");
        fs::write(&path, input).unwrap();
        spawn(self.dir(), self.command(args).stdin(File::open(path).unwrap())).wait()
    }

    /// Arguments of a verb that makes the container, with the configuration written.
    pub fn making<'a>(&'a self, verb: &'a str, bundle: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        self.write_config();
        let mut args = vec![verb, "--bundle", bundle];
        args.extend(more);
        args.push(&self.id);
        args
    }

    #[track_caller]
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    #[track_caller]
    pub fn run_with(&self, more: &[&str]) -> Output {
        let bundle = self.bundle();
        self.ctr(&self.making("run", bundle.to_str().unwrap(), more))
    }

    /// What a script prints when it is the container's program.
    #[track_caller]
    pub fn prints(&mut self, script: &str) -> String {
        self.sh(script).run().ok().trim_end().to_owned()
    }

    #[track_caller]
    pub fn create(&self) -> Output {
        self.create_with(&[])
    }

    #[track_caller]
    pub fn create_with(&self, more: &[&str]) -> Output {
        let bundle = self.bundle();
        self.ctr(&self.making("create", bundle.to_str().unwrap(), more))
    }

    /// A container that runs until it is killed.
    #[track_caller]
    pub fn up(&mut self) -> &mut Self {
        // As a PID namespace's init it must ask for a signal to get it.
        self.sh("trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done").start_up()
    }

    /// Arguments that run the image `host` under the container's name.
    pub fn hosting<'a>(&'a self, flags: &[&'a str], program: &[&'a str]) -> Vec<&'a str> {
        let before = ["run", "--image", "host", "--name", self.id.as_str()];
        [&before, flags, &["--"], program].concat()
    }

    /// Runs a script in the image `host`.
    #[track_caller]
    pub fn host(&self, flags: &[&str], script: &str) -> Output {
        self.ctr(&self.hosting(&[&["--rm"], flags].concat(), &["sh", "-c", script]))
    }

    /// Runs a script in the image `host`, detached.
    #[track_caller]
    pub fn detach(&self, flags: &[&str], script: &str) {
        let out = self.ctr(&self.hosting(&[&["--detach"], flags].concat(), &["sh", "-c", script]));
        assert_eq!(out.ok(), format!("{}\n", self.id));
    }

    /// The pid of the supervisor, from the record.
    #[track_caller]
    pub fn supervisor(&self) -> i32 {
        let record = fs::read(self.store().join(&self.id).join("state.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        record["supervisor"][0].as_i64().unwrap() as i32
    }

    /// Creates and starts what is configured.
    #[track_caller]
    pub fn start_up(&mut self) -> &mut Self {
        self.create().ok();
        self.ctr(&["start", &self.id]).ok();
        self
    }

    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Output {
        self.exec_with(&[], args)
    }

    #[track_caller]
    pub fn exec_with(&self, flags: &[&str], args: &[&str]) -> Output {
        let all: Vec<&str> = [&["exec"], flags, &[self.id.as_str()], args].concat();
        self.ctr(&all)
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ctr(&["state", &self.id]).ok()).unwrap()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().unwrap() as i32
    }

    #[track_caller]
    pub fn wait_status(&self, wanted: &str) {
        wait_for(wanted, || self.status() == wanted);
    }

    /// The cgroup of the container, from its record.
    pub fn cgroup(&self) -> Option<PathBuf> {
        record(&self.store().join(&self.id))?["cgroup"].as_str().map(PathBuf::from)
    }
}

/// The record in the directory of a container: the last line that is whole.
pub fn record(dir: &Path) -> Option<Value> {
    let text = fs::read_to_string(dir.join("state.json")).ok()?;
    text.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

impl Drop for Case {
    fn drop(&mut self) {
        let names = self.command(&["list", "--quiet"]).output().map(|out| out.stdout).unwrap_or_default();
        for name in String::from_utf8_lossy(&names).lines() {
            let done = self.command(&["delete", "--force", name]).output();
            if !done.as_ref().is_ok_and(|done| done.status.success()) {
                eprintln!("cannot delete {name}: {done:?}");
            }
        }
    }
}

/// What most containers are given; for an ordinary user with a user namespace of their one id.
fn default_config(id: &str) -> Value {
    let caps = json!([
        "CAP_AUDIT_WRITE",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_MKNOD"
    ]);
    let mut config = json!({
        "ociVersion": "1.3.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "ctr",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                           {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]}
        }
    });
    if is_root() {
        config["linux"]["cgroupsPath"] = json!(format!("/ctr-test-{id}"));
        return config;
    }
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": uid(), "size": 1}]);
    config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": gid(), "size": 1}]);
    config
}

/// A terminal of the test's own, with a program that has it for its controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    seen: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Terminal {
    /// Starts `command` in a new session on a new terminal of 24 rows and 80 columns.
    pub fn start(command: &Command) -> Self {
        let size = nix::pty::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).unwrap();
        let slave = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let child = session.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let (master, seen) = (File::from(pty.master), std::sync::Arc::<std::sync::Mutex<String>>::default());
        let (mut reader, all) = (master.try_clone().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = std::io::Read::read(&mut reader, &mut buffer) {
                all.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Terminal { master, child, seen }
    }

    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// All that was printed.
    pub fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until `text` was printed.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.seen().contains(text) {
            assert!(Instant::now() < until, "waited 10 s for {text:?} in {:?}", self.seen());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// The pid of the program.
    pub fn pid(&self) -> i32 {
        // setsid(1) only forks where it leads a process group, which our child does not.
        self.child.id() as i32
    }

    /// Changes the size, as a window does.
    pub fn resize(&self, rows: u16, columns: u16) {
        ctr_isolation::sys::terminal::set_size(std::os::fd::AsFd::as_fd(&self.master), rows, columns)
            .unwrap();
    }

    /// Whether keys are echoed and make lines and signals, as in a terminal that nobody has changed.
    pub fn is_cooked(&self) -> bool {
        use nix::sys::termios::LocalFlags;
        let flags = nix::sys::termios::tcgetattr(&self.master).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    /// Waits for the end of the program; its status.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                panic!("no end: {:?}", self.seen());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}
