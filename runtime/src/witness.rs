//! Looking at a container's end: its cgroup before that is removed, its first process before that is reaped, and the
//! cgroups above, whose counters are noted at the beginning.

use crate::container::Container;
use crate::death::{Above, Amount, Cpu, Death, Exit, Level, Memory, Sent, Usage};
use crate::state::{self, Entry, Record, file};
use crate::stuck;
use ctr_isolation::cgroup::Cgroup;
use ctr_isolation::cgroup::stat::{self, Counters, Limit};
use ctr_isolation::sys::fs;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Everything.
    Whole,
    /// What fits into the time that an engine's `delete` has: no more than a handful of files unless one of them tells
    /// of something out of the order.
    Brief,
}

/// What the cgroups above count now, to be compared at the end; those without counters are left out.
pub fn above(cgroup: &Cgroup) -> Vec<Level> {
    let level = |cgroup: Cgroup| {
        let exhausted = cgroup.exhausted();
        let pids = cgroup.counters("pids.events.local");
        let any = exhausted.is_some() || pids.is_some();
        any.then(|| Level {
            exhausted: exhausted.unwrap_or(0),
            refused: count(pids.as_ref(), "max"),
            cgroup: cgroup.dir().to_owned(),
        })
    };
    cgroup.ancestors().filter_map(level).collect()
}

/// What has been counted above since `before`.
fn risen(cgroup: &Cgroup, before: &[Level]) -> Above {
    let since = |now: Level| {
        let then = before.iter().find(|then| then.cgroup == now.cgroup)?;
        let exhausted = now.exhausted.saturating_sub(then.exhausted);
        let refused = now.refused.saturating_sub(then.refused);
        (exhausted + refused > 0).then_some(Level { exhausted, refused, ..now })
    };
    let highest = cgroup.ancestors().last();
    Above {
        risen: above(cgroup).into_iter().filter_map(since).collect(),
        // Only the root of all has no type. In version 1 a limit that was reached before may be reached again unseen.
        hidden: highest.is_none_or(|highest| highest.text("cgroup.type").is_some())
            || cgroup.v1().contains_key("memory"),
    }
}

fn count(counters: Option<&Counters>, name: &str) -> u64 {
    counters.and_then(|counters| counters.get(name)).copied().unwrap_or_default()
}

/// What the processes of `cgroup` have used. A controller that is not there leaves out what it would have told.
pub fn usage(cgroup: &Cgroup, look: Look) -> Usage {
    let whole = look == Look::Whole;
    let read = |file: &str| cgroup.text(file);
    Usage {
        memory: memory(&read, whole),
        swap: whole.then(|| swap(&read)).flatten(),
        pids: pids(&read, whole),
        cpu: cpu(&read),
        huge_pages: if whole { huge_pages(cgroup) } else { BTreeMap::new() },
        pressure: if whole { pressure(cgroup) } else { BTreeMap::new() },
    }
}

/// Reads a file of a cgroup, however that is at hand.
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

fn memory(read: Read<'_>, whole: bool) -> Option<Memory> {
    let events = counters(read, "memory.events")?;
    let events = |name: &str| count(Some(&events), name);
    let more = whole || events("oom") + events("oom_kill") > 0;
    let peak = number(read, "memory.peak");
    // Where these are not there, the cgroup has just gone: half of it would tell of another's limit.
    let (own, limit) = match more {
        true => (Some(counters(read, "memory.events.local")?), stat::limit(&read("memory.max")?)),
        false => (None, None),
    };
    Some(Memory {
        peak,
        limit: limit.and_then(Limit::value),
        reached: events("max"),
        exhausted: events("oom"),
        exhausted_own: count(own.as_ref(), "oom"),
        killed: events("oom_kill"),
        outlived: 0,
    })
}

fn swap(read: Read<'_>) -> Option<Amount> {
    let events = counters(read, "memory.swap.events")?;
    let limit = limit(read, "memory.swap.max");
    Some(Amount {
        limit,
        // Only since Linux 6.5 is it told; but there is no peak where none is allowed.
        peak: number(read, "memory.swap.peak").or(limit.filter(|limit| *limit == 0)),
        refused: count(Some(&events), "fail"),
        refused_own: None,
    })
}

fn pids(read: Read<'_>, whole: bool) -> Option<Amount> {
    let refused = count(Some(&counters(read, "pids.events")?), "max");
    let more = whole || refused > 0;
    // Only since Linux 6.11.
    let own = more.then(|| counters(read, "pids.events.local")).flatten();
    let peak = number(read, "pids.peak");
    let limit = if more { stat::limit(&read("pids.max")?) } else { None };
    Some(Amount {
        peak,
        limit: limit.and_then(Limit::value),
        refused,
        refused_own: own.map(|own| count(Some(&own), "max")),
    })
}

fn cpu(read: Read<'_>) -> Option<Cpu> {
    let stat = counters(read, "cpu.stat")?;
    Some(Cpu {
        used: count(Some(&stat), "usage_usec"),
        throttled: count(Some(&stat), "nr_throttled"),
        throttled_time: count(Some(&stat), "throttled_usec"),
    })
}

fn huge_pages(cgroup: &Cgroup) -> BTreeMap<String, u64> {
    let refused = |size: String| {
        let events = cgroup.counters(&format!("hugetlb.{size}.events"))?;
        Some((size, count(Some(&events), "max")))
    };
    cgroup.huge_page_sizes().into_iter().filter_map(refused).collect()
}

fn pressure(cgroup: &Cgroup) -> BTreeMap<String, (u64, u64)> {
    let total = |kind: &str| {
        let pressure = cgroup.pressure(&format!("{kind}.pressure"))?;
        Some((kind.to_owned(), (pressure.some.total, pressure.full.map_or(0, |full| full.total))))
    };
    ["cpu", "memory", "io"].into_iter().filter_map(total).collect()
}

fn counters(read: Read<'_>, file: &str) -> Option<Counters> {
    read(file).map(|text| stat::counters(&text))
}

fn number(read: Read<'_>, file: &str) -> Option<u64> {
    read(file)?.trim().parse().ok()
}

fn limit(read: Read<'_>, file: &str) -> Option<u64> {
    stat::limit(&read(file)?).and_then(Limit::value)
}

/// How the process `pid`, which started at `start`, ended, while it waits to be reaped (proc_pid_stat(5)).
fn exit_of_zombie(pid: i32, start: u64) -> Option<Exit> {
    const STATE: usize = 0;
    const START: usize = 19;
    const SLEEPS: usize = 32;
    const EXIT: usize = 49;
    let text = fs::read_small(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // To whom may not look, the kernel says 0 for both: of one that has ended, that it sleeps is always true.
    let is_told =
        fields.get(STATE) == Some(&"Z") && number(START) == Some(start) && number(SLEEPS) == Some(1);
    is_told.then(|| number(EXIT)).flatten().map(|status| Exit::from_wait(status as i32))
}

impl Container {
    /// What can be told of its end now, by who has reaped it and knows how it ended, or by others.
    pub fn death(&self, reaped: Option<Exit>, look: Look) -> Death {
        let record = &self.record;
        let exit = || exit_of_zombie(record.pid, record.start_time);
        let cgroup = self.cgroup().filter(|_| record.pid != 0);
        let usage = cgroup.as_ref().map(|cgroup| usage(cgroup, look)).unwrap_or_default();
        let killed = usage.memory.as_ref().is_some_and(|memory| memory.killed > 0);
        let above = cgroup.filter(|_| killed || look == Look::Whole);
        Death {
            name: record.id.clone(),
            root: self.entry.root(),
            began: record.created,
            ended: state::now(),
            reaped: reaped.is_some(),
            exit: reaped.or_else(exit),
            failure: None,
            own_pids: record.own_pids,
            sent: signals(&self.entry),
            usage,
            early: false,
            above: above.map(|cgroup| risen(&cgroup, &record.above)),
        }
    }
}

/// Looks at a container while it runs: whether its first process outlives others of it that the kernel kills for want of
/// memory; and at all that is counted, where its cgroup may be gone before its end is known: systemd removes that of a
/// scope as soon as the last process has left it, and often is the first to be told. The kernel tells us, too, and of
/// what it counts in the files of events.
#[derive(Debug, Default)]
pub struct Watch {
    /// The first process.
    pid: i32,
    files: Vec<Watched>,
    saw_end: bool,
    outlived: u64,
}

#[derive(Debug)]
struct Watched {
    name: &'static str,
    /// Open all the time, for there may be little of it; closed when it is over.
    file: Option<File>,
    /// The same file of its slice, which counts what is below and is still there when it is gone.
    later: Option<File>,
    /// What it read last.
    text: Option<String>,
}

/// Whether there are processes in it.
const POPULATED: &str = "cgroup.events";
/// How many it killed for want of memory.
const KILLS: &str = "memory.events";
/// The files that the kernel tells of.
const POLLED: [&str; 3] = [POPULATED, KILLS, "pids.events"];
/// Those that count.
const TOLD: [&str; 2] = [KILLS, "pids.events"];
/// What rises and is not told of: seen before the end, it says nothing of the end.
const UNTOLD: [&str; 4] = ["memory.peak", "pids.peak", "memory.swap.peak", "cpu.stat"];
/// All that is read; first what cannot be had any other way.
const READ: [&str; 13] = [
    "memory.peak",
    "pids.peak",
    KILLS,
    "memory.events.local",
    "pids.events",
    "memory.swap.peak",
    "cpu.stat",
    "memory.swap.events",
    "pids.events.local",
    "memory.max",
    "memory.swap.max",
    "pids.max",
    POPULATED,
];

/// From when the kernel counts one that it kills until the signal is sent: much longer than it takes.
const AFTER_A_KILL: Duration = Duration::from_millis(5);

impl Watch {
    /// Begins to.
    pub fn new(container: &Container) -> Self {
        let record = &container.record;
        let names: &[_] = if record.unit.is_some() { &READ } else { &[KILLS] };
        let Some(cgroup) = container.cgroup() else { return Watch::default() };
        let slice = record.slice.as_ref().and_then(|_| cgroup.dir().parent()).map(Cgroup::at);
        Watch::of(&cgroup, slice.as_ref(), names, record.pid)
    }

    fn of(cgroup: &Cgroup, slice: Option<&Cgroup>, names: &[&'static str], pid: i32) -> Self {
        let open = |name: &&'static str| {
            let file = Some(File::open(cgroup.dir().join(name)).ok()?);
            let slice = slice.filter(|_| UNTOLD.contains(name) || TOLD.contains(name));
            let later = slice.and_then(|slice| File::open(slice.dir().join(name)).ok());
            Some(Watched { name, file, later, text: None })
        };
        let files = names.iter().filter_map(open).collect();
        let mut watch = Watch { pid, files, saw_end: false, outlived: 0 };
        watch.look(false);
        watch
    }

    /// What to wait for, as poll(2) calls it a priority event.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let polled = self.files.iter().filter(|watched| POLLED.contains(&watched.name));
        polled.filter_map(|watched| Some(watched.file.as_ref()?.as_fd()))
    }

    /// Something was counted, or all is over. Until its file is read, the kernel tells of it again and again.
    pub fn look(&mut self, ended: bool) {
        if self.files.iter().all(|watched| watched.file.is_none()) {
            return;
        }
        let read = |file: &File| {
            let mut bytes = [0; 4096];
            let count = file.read_at(&mut bytes, 0).ok()?;
            Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
        };
        let (mut is_gone, mut is_lost, mut only_later) = (false, false, Vec::new());
        for watched in &mut self.files {
            if let Some(text) = watched.file.as_ref().and_then(read) {
                watched.text = Some(text);
                continue;
            }
            is_gone = true;
            let is_untold = UNTOLD.contains(&watched.name);
            match watched.later.as_ref().and_then(read) {
                Some(text) => {
                    if !is_untold && watched.text.as_ref() != Some(&text) {
                        only_later.push(watched.name);
                    }
                    watched.text = Some(text);
                }
                None => {
                    is_lost |= is_untold || TOLD.contains(&watched.name);
                    watched.text.take_if(|_| is_untold);
                }
            }
        }
        for told in only_later {
            is_lost = true;
            self.judge_by_peak(told);
        }
        if !ended {
            self.see_who_outlives();
        }
        let is_empty = self.text(POPULATED).is_some_and(|text| text.starts_with("populated 0"));
        if ended || is_empty || is_gone {
            self.saw_end = !is_lost;
            self.files.iter_mut().for_each(|watched| (watched.file, watched.later) = (None, None));
        }
    }

    /// A last event that only the slice has seen: whose limit it was nobody counts any more. Its own, where that was reached.
    fn judge_by_peak(&mut self, told: &'static str) {
        let (local, peak, max) = match told {
            KILLS => ("memory.events.local", "memory.peak", "memory.max"),
            _ => ("pids.events.local", "pids.peak", "pids.max"),
        };
        let read = |name: &str| self.text(name).map(str::to_owned);
        let limit = limit(&read, max);
        if limit.is_some_and(|limit| number(&read, peak).is_some_and(|peak| peak >= limit)) {
            let text = read(told);
            self.files
                .iter_mut()
                .filter(|watched| watched.name == local)
                .for_each(|own| own.text.clone_from(&text));
        }
    }

    /// The kernel counts whom it kills, and then kills it.
    fn see_who_outlives(&mut self) {
        let killed = self.text(KILLS).map(|text| count(Some(&stat::counters(text)), "oom_kill"));
        if killed.is_none_or(|killed| killed <= self.outlived) {
            return;
        }
        std::thread::sleep(AFTER_A_KILL);
        let status = fs::read_small(Path::new(&format!("/proc/{}/status", self.pid))).unwrap_or_default();
        let lives = status.lines().any(|line| line.starts_with("State:") && !line.contains(['Z', 'X']));
        if lives && !stuck::is_killed(&status) {
            self.outlived = killed.unwrap_or_default();
        }
    }

    /// How many processes that the kernel killed for want of memory the first one has outlived.
    pub fn outlived(&self) -> u64 {
        self.outlived
    }

    /// Whether it was all still there when nothing could be counted any more.
    pub fn saw_end(&self) -> bool {
        self.saw_end
    }

    /// What was seen.
    pub fn last(&self) -> Usage {
        let read = |name: &str| self.text(name).map(str::to_owned);
        let memory = memory(&read, true).map(|memory| Memory {
            // At its limit it rises no more.
            peak: memory.peak.or(memory.limit.filter(|_| memory.exhausted_own > 0)),
            ..memory
        });
        Usage { memory, pids: pids(&read, true), cpu: cpu(&read), swap: swap(&read), ..Usage::default() }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.files.iter().find(|watched| watched.name == name)?.text.as_deref()
    }
}

/// Signals by which a program may go on, or is meant to.
const HARMLESS: [i32; 9] = [
    0,
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
];

/// The most that is kept of the signals sent.
const SIGNALS_MAX: u64 = 4096;

/// Notes that the verb `by` is about to send `signal`: whoever reaps the process will want to know.
pub fn note_signal(entry: &Entry, signal: i32, by: &str) {
    if HARMLESS.contains(&signal) {
        return;
    }
    let sent = Sent { signal, at: state::now(), by: by.to_owned() };
    let noted = serde_json::to_string(&sent).map_err(std::io::Error::other).and_then(|line| {
        let path = entry.path(file::SIGNALS);
        let mut file = File::options().append(true).create(true).mode(0o600).open(path)?;
        if file.metadata()?.size() > SIGNALS_MAX {
            file.set_len(0)?;
        }
        file.write_all(format!("{line}\n").as_bytes())
    });
    if let Err(error) = noted {
        tracing::warn!(
            "the signal is sent, but that it was cannot be noted, so `why` will not know: write {}: {error}",
            entry.path(file::SIGNALS).display()
        );
    }
}

/// The signals that were sent to the container of `entry`.
pub fn signals(entry: &Entry) -> Vec<Sent> {
    let text = fs::read_small(&entry.path(file::SIGNALS)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Whether the end of the container whose directory is `directory` has been written down.
pub fn is_noted(directory: &Path) -> bool {
    directory.join(file::NOTED).exists()
}

/// Marks it as written down; true for the first who does.
pub fn claim(directory: &Path) -> bool {
    File::options().write(true).create_new(true).mode(0o600).open(directory.join(file::NOTED)).is_ok()
}

/// What the container of `record`, which could not be made, has used until then.
pub fn of_failed(record: &Record) -> (Usage, Option<Above>) {
    let Some(cgroup) = record.own_cgroup().filter(|_| record.pid != 0) else {
        return Default::default();
    };
    (usage(&cgroup, Look::Whole), Some(risen(&cgroup, &record.above)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctr_isolation::sys::process;
    use std::os::fd::AsFd;

    /// proc_pid_stat(5), of children of our own, who may be looked at.
    #[test]
    fn one_that_nobody_has_reaped_tells_how_it_ended() {
        for (script, exit) in
            [("exit 3", Exit::Status(3)), ("exit 0", Exit::Status(0)), ("kill -TERM $$", Exit::Signal(15))]
        {
            let mut child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let pid = child.id() as i32;
            let (start, _) = state::start_time(pid).unwrap();
            process::poll(&[process::pidfd_open(pid).unwrap().as_fd()], None).unwrap();
            assert_eq!(exit_of_zombie(pid, start), Some(exit), "{script}");
            assert_eq!(exit_of_zombie(pid, start + 1), None, "another of the same number");
            child.wait().unwrap();
            assert_eq!(exit_of_zombie(pid, start), None);
        }
        let me = std::process::id() as i32;
        assert_eq!(exit_of_zombie(me, state::start_time(me).unwrap().0), None, "it has not ended");
    }

    #[test]
    fn signals_that_end_are_noted_and_their_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let entry = crate::Store::new(dir.path()).reserve("a").unwrap();
        note_signal(&entry, libc::SIGCONT, "kill");
        assert_eq!(signals(&entry), []);
        note_signal(&entry, libc::SIGTERM, "stop");
        note_signal(&entry, libc::SIGKILL, "stop");
        let found: Vec<_> = signals(&entry).iter().map(|sent| (sent.signal, sent.by.clone())).collect();
        assert_eq!(found, [(libc::SIGTERM, "stop".to_owned()), (libc::SIGKILL, "stop".to_owned())]);
        for _ in 0..1000 {
            note_signal(&entry, libc::SIGHUP, "kill");
        }
        assert!(entry.path(file::SIGNALS).metadata().unwrap().size() <= SIGNALS_MAX + 100);
        assert_eq!(signals(&entry).last().unwrap().signal, libc::SIGHUP);
    }

    /// What a controller that is not enabled would have told is left out; the rest is there.
    #[test]
    fn a_cgroup_is_read_as_far_as_it_tells() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let cgroup = Cgroup::at(dir.path());
        assert_eq!(usage(&cgroup, Look::Whole), Usage::default());
        write("memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 0\n");
        write("memory.events.local", "oom 1\noom_kill 2\n");
        write("memory.max", "67108864\n");
        write("memory.peak", "67108000\n");
        write("cpu.stat", "usage_usec 9\nnr_throttled 2\nthrottled_usec 5\n");
        write("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
        let expected = Memory {
            limit: Some(67_108_864),
            peak: Some(67_108_000),
            reached: 7,
            exhausted: 1,
            exhausted_own: 1,
            killed: 2,
            outlived: 0,
        };
        for look in [Look::Whole, Look::Brief] {
            let found = usage(&cgroup, look);
            assert_eq!(found.memory.as_ref(), Some(&expected), "{look:?}");
            assert_eq!(found.cpu, Some(Cpu { used: 9, throttled: 2, throttled_time: 5 }));
            assert_eq!((found.pids, found.swap), (None, None));
            assert_eq!(found.pressure.contains_key("io"), look == Look::Whole);
        }
    }

    /// A cgroup with limits of memory and pids.
    fn limited() -> (tempfile::TempDir, impl Fn(&str, &str)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let write = move |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
        write("cgroup.events", "populated 1\nfrozen 0\n");
        write("memory.max", "8192\n");
        write("memory.events.local", "oom 0\n");
        write("memory.events", "oom 0\noom_kill 0\n");
        write("memory.peak", "4096\n");
        write("pids.events", "max 0\n");
        write("pids.peak", "7\n");
        write("pids.max", "9\n");
        write("cpu.stat", "usage_usec 9\n");
        (dir, write)
    }

    /// What was seen at the end holds, and what comes later is another's.
    #[test]
    fn what_was_watched_is_remembered() {
        for (populated, ended) in [("populated 1\n", true), ("populated 0\n", false)] {
            let (dir, write) = limited();
            let mut watch = Watch::of(&Cgroup::at(dir.path()), None, &READ, 0);
            assert_eq!(watch.files().count(), 3);
            write("memory.events", "oom 1\noom_kill 1\n");
            watch.look(false);
            assert_eq!((watch.files().count(), watch.saw_end()), (3, false));
            write("memory.peak", "8192\n");
            write("cgroup.events", populated);
            watch.look(ended);
            write("memory.peak", "12288\n");
            watch.look(true);
            let memory = watch.last().memory.unwrap();
            assert_eq!((memory.killed, memory.peak, memory.limit), (1, Some(8192), Some(8192)));
            assert!(watch.saw_end() && watch.files().count() == 0);
        }
        let (dir, _) = limited();
        std::fs::remove_file(dir.path().join("memory.events.local")).unwrap();
        assert_eq!(usage(&Cgroup::at(dir.path()), Look::Whole).memory, None, "it goes as we look");
    }

    #[test]
    fn who_outlives_others_is_seen() {
        let (dir, write) = limited();
        let me = std::process::id() as i32;
        for (pid, outlived) in [(me, 2), (i32::MAX, 0)] {
            write("memory.events", "oom 1\noom_kill 0\n");
            let mut watch = Watch::of(&Cgroup::at(dir.path()), None, &[KILLS], pid);
            assert_eq!((watch.files().count(), watch.outlived()), (1, 0));
            write("memory.events", "oom 1\noom_kill 2\n");
            watch.look(false);
            write("memory.events", "oom 1\noom_kill 3\n");
            watch.look(true);
            assert_eq!(watch.outlived(), outlived);
            assert_eq!(watch.last(), Usage::default());
        }
    }

    #[test]
    fn what_was_used_is_read_where_it_is_still_counted() {
        let ((scope, write_scope), (slice, write)) = (limited(), limited());
        write_scope("pids.peak", "6\n");
        for (kills, saw_end) in [(0, true), (1, false)] {
            let mut watch = Watch::of(&Cgroup::at(scope.path()), Some(&Cgroup::at(slice.path())), &READ, 0);
            assert_eq!(watch.last().pids.unwrap().peak, Some(6));
            for Watched { name, file, .. } in &mut watch.files {
                *file = Some(File::options().write(true).open(scope.path().join(name)).unwrap());
            }
            write("memory.events", &format!("oom 0\noom_kill {kills}\n"));
            watch.look(false);
            assert_eq!((watch.files().count(), watch.saw_end()), (0, saw_end));
            let (memory, pids) = (watch.last().memory.unwrap(), watch.last().pids.unwrap());
            assert_eq!((memory.peak, memory.killed, pids.peak), (Some(4096), kills, Some(7)));
        }
    }

    /// What only the slice has counted says not whose limit it was: the peak does.
    #[test]
    fn whose_limit_it_was_the_peak_tells() {
        for (peak, own) in [(9, Some(1)), (7, Some(0))] {
            let ((scope, write_scope), (slice, write)) = (limited(), limited());
            write_scope("pids.events.local", "max 0\n");
            let mut watch = Watch::of(&Cgroup::at(scope.path()), Some(&Cgroup::at(slice.path())), &READ, 0);
            for Watched { name, file, .. } in &mut watch.files {
                *file = Some(File::options().write(true).open(scope.path().join(name)).unwrap());
            }
            write("pids.peak", &format!("{peak}\n"));
            write("pids.events", "max 1\n");
            watch.look(false);
            let pids = watch.last().pids.unwrap();
            assert_eq!((pids.refused, pids.refused_own), (1, own));
        }
    }

    /// A peak of before the end is no peak, unless it was at the limit.
    #[test]
    fn peaks_of_before_the_end_are_forgotten() {
        for (exhausted, peak) in [(0, None), (3, Some(8192))] {
            let (dir, write) = limited();
            write("memory.events.local", &format!("oom {exhausted}\n"));
            let mut watch = Watch::of(&Cgroup::at(dir.path()), None, &READ, 0);
            for Watched { name, file, .. } in &mut watch.files {
                // As the kernel does once the cgroup is removed: nothing can be read.
                *file = Some(File::options().write(true).open(dir.path().join(name)).unwrap());
            }
            watch.look(true);
            let last = watch.last();
            let (memory, pids) = (last.memory.unwrap(), last.pids.unwrap());
            assert_eq!((memory.peak, memory.limit), (peak, Some(8192)));
            assert_eq!((pids.peak, pids.limit, last.cpu.is_none()), (None, Some(9), true));
            assert!(!watch.saw_end());
        }
    }

    /// As on Linux 6.1, which tells no peak of swap.
    #[test]
    fn where_no_swap_is_allowed_none_was_used() {
        let read = |limit: &'static str| {
            move |file: &str| match file {
                "memory.swap.events" => Some("max 0\nfail 2\n".to_owned()),
                "memory.swap.max" => Some(limit.to_owned()),
                _ => None,
            }
        };
        assert_eq!(swap(&read("0\n")).unwrap().peak, Some(0));
        assert_eq!(swap(&read("4096\n")).unwrap().peak, None);
        assert_eq!(swap(&read("max\n")).unwrap().peak, None);
    }

    #[test]
    fn only_what_rose_meanwhile_counts_above() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("far/near/own");
        std::fs::create_dir_all(&inner).unwrap();
        for name in ["far", "far/near"] {
            std::fs::write(dir.path().join(name).join("cgroup.procs"), "").unwrap();
            std::fs::write(dir.path().join(name).join("memory.events.local"), "oom 4\n").unwrap();
        }
        let cgroup = Cgroup::at(&inner);
        let before = above(&cgroup);
        assert_eq!(risen(&cgroup, &before), Above { risen: Vec::new(), hidden: false });
        std::fs::write(dir.path().join("far/memory.events.local"), "oom 6\n").unwrap();
        std::fs::write(dir.path().join("far/cgroup.type"), "domain\n").unwrap();
        let after = risen(&cgroup, &before);
        let expected = Level { cgroup: dir.path().join("far"), exhausted: 2, refused: 0 };
        assert_eq!(after, Above { risen: vec![expected], hidden: true });
    }
}
