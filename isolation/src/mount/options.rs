//! Mount options by name: the table "Linux mount options" of the runtime specification (config.md), and crun's own.

use crate::problem::Problems;
use crate::sys::mount::attr;

/// What a mount's option strings ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Attributes (`attr::*`) to set on the mount.
    pub set: u64,
    /// Attributes to clear. All of `attr::ATIME_MASK` when an access time mode was chosen, as mount_setattr(2) wants.
    pub clear: u64,
    /// Attributes to set on the mount and all below it.
    pub set_recursive: u64,
    /// Attributes to clear on the mount and all below it.
    pub clear_recursive: u64,
    /// Propagation changes in order: one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` each, with
    /// `MS_REC` for the mounts below too.
    pub propagation: Vec<u64>,
    /// A bind of what is there already, not a new file system.
    pub bind: Option<Bind>,
    /// Change the flags of what is mounted there already.
    pub remount: bool,
    /// Flags of mount(2) that belong to the super block: `MS_SYNCHRONOUS`, `MS_DIRSYNC`, `MS_MANDLOCK`,
    /// `MS_I_VERSION`, `MS_LAZYTIME`, `MS_SILENT`.
    pub flags: u64,
    /// Shift owners by a user namespace.
    pub idmap: Option<Idmap>,
    /// Start a tmpfs with a copy of what its target held.
    pub copy_up: bool,
    /// What to do about a source or target that is a symbolic link.
    pub links: Links,
    /// What the file system itself must understand: `key` or `key=value`, in order.
    pub data: Vec<String>,
}

/// How much a bind mount takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// The one mount.
    One,
    /// The mounts below it too.
    Recursive,
}

/// A shift of owners (mount_setattr(2), "ID-mapped mounts").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Idmap {
    /// For the mounts below too.
    pub recursive: bool,
    /// User ids; when both lists are empty, the mount's own mappings or the container's user namespace decide.
    pub users: Vec<Range>,
    /// Group ids.
    pub groups: Vec<Range>,
}

/// One range of a custom mapping, crun's `idmap=uids=FILE-HOST-COUNT#...;gids=...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first id as the file system stores it.
    pub file: u32,
    /// The id it becomes on the host; with [`Range::relative`], in the container's user namespace.
    pub host: u32,
    /// How many follow one another; never 0.
    pub count: u32,
    /// Written with `@`: `host` is to be looked up in the container's user namespace.
    pub relative: bool,
}

/// crun's options for symbolic links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Links {
    /// `copy-symlink`: make the same link at the target instead of mounting what it leads to.
    pub copy: bool,
    /// `src-nofollow`: mount the link at the source itself.
    pub source_no_follow: bool,
    /// `dest-nofollow`: mount onto the link at the target itself.
    pub target_no_follow: bool,
}

/// Reads a mount's `options`.
///
/// A string that is no option of ours is data for the file system, which judges it. Where two options contradict
/// each other the later one wins; access time modes exclude one another.
///
/// # Errors
/// A malformed `idmap=`, `copy-symlink` together with an option that also decides about links; with pointers
/// relative to `options`.
pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Options, Problems> {
    let mut parsed = Options::default();
    let mut atime = None;
    let mut atime_recursive = None;
    let mut problems = Problems::default();
    for (i, option) in options.iter().enumerate() {
        let option = option.as_ref();
        match OPTIONS.binary_search_by(|(name, _)| (*name).cmp(option)) {
            Ok(row) => apply(&mut parsed, &mut atime, &mut atime_recursive, OPTIONS[row].1),
            Err(_) if option.is_empty() => {}
            Err(_) => match option.split_once('=') {
                Some((name @ ("idmap" | "ridmap"), mapping)) => match idmap(name == "ridmap", mapping) {
                    Ok(idmap) => parsed.idmap = Some(idmap),
                    Err(why) => problems.add(format!("/{i}"), why),
                },
                _ => parsed.data.push(option.to_owned()),
            },
        }
    }
    choose(&mut parsed.set, &mut parsed.clear, atime);
    choose(&mut parsed.set_recursive, &mut parsed.clear_recursive, atime_recursive);
    let links = parsed.links;
    if links.copy && (links.source_no_follow || links.target_no_follow) {
        problems.add("", "copy-symlink excludes src-nofollow and dest-nofollow");
    }
    problems.or(parsed)
}

/// The names of all options, sorted, for `ctr features`.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

/// The change of propagation a name stands for (`rootfsPropagation`, or a mount option): an `MS_*` flag, with
/// `MS_REC` for the mounts below too.
#[must_use]
pub fn propagation(name: &str) -> Option<u64> {
    let row = OPTIONS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    match OPTIONS[row].1 {
        Propagate(kind) => Some(kind),
        _ => None,
    }
}

/// What one option does.
#[derive(Debug, Clone, Copy)]
enum Effect {
    /// Nothing: it names the default.
    Nothing,
    /// Sets an attribute of the mount.
    Set(u64),
    /// Clears one.
    Clear(u64),
    /// Sets an attribute of the mount and all below.
    SetAll(u64),
    /// Clears one on all.
    ClearAll(u64),
    /// Chooses an access time mode.
    Atime(u64),
    /// Takes an access time mode back, if it is the one in force.
    NoAtime(u64),
    /// Chooses an access time mode for the mount and all below.
    AtimeAll(u64),
    /// Takes it back for all.
    NoAtimeAll(u64),
    /// Changes propagation.
    Propagate(u64),
    Bind(Bind),
    Remount,
    /// Sets a flag of the super block.
    Flag(u64),
    /// Clears one.
    NoFlag(u64),
    /// Shifts owners; recursively or not.
    Idmap(bool),
    CopyUp,
    CopyLink,
    SourceLink,
    TargetLink,
}

use Effect::*;

/// MOUNT_ATTR_RELATIME (mount_setattr(2)): the kernel's default mode has no bit.
const RELATIME: u64 = 0;

#[rustfmt::skip]
const OPTIONS: &[(&str, Effect)] = &[
    ("async",          NoFlag(libc::MS_SYNCHRONOUS)),
    ("atime",          NoAtime(attr::NOATIME)),
    ("bind",           Bind(Bind::One)),
    ("copy-symlink",   CopyLink),
    ("defaults",       Nothing),
    ("dest-nofollow",  TargetLink),
    ("dev",            Clear(attr::NODEV)),
    ("diratime",       Clear(attr::NODIRATIME)),
    ("dirsync",        Flag(libc::MS_DIRSYNC)),
    ("exec",           Clear(attr::NOEXEC)),
    ("idmap",          Idmap(false)),
    ("iversion",       Flag(libc::MS_I_VERSION)),
    ("lazytime",       Flag(libc::MS_LAZYTIME)),
    ("loud",           NoFlag(libc::MS_SILENT)),
    ("mand",           Flag(libc::MS_MANDLOCK)),
    ("noatime",        Atime(attr::NOATIME)),
    ("nodev",          Set(attr::NODEV)),
    ("nodiratime",     Set(attr::NODIRATIME)),
    ("noexec",         Set(attr::NOEXEC)),
    ("noiversion",     NoFlag(libc::MS_I_VERSION)),
    ("nolazytime",     NoFlag(libc::MS_LAZYTIME)),
    ("nomand",         NoFlag(libc::MS_MANDLOCK)),
    ("norelatime",     Nothing), // Since Linux 2.6.30 relatime is what remains without any mode: mount(2).
    ("nostrictatime",  NoAtime(attr::STRICTATIME)),
    ("nosuid",         Set(attr::NOSUID)),
    ("nosymfollow",    Set(attr::NOSYMFOLLOW)),
    ("private",        Propagate(libc::MS_PRIVATE)),
    ("ratime",         NoAtimeAll(attr::NOATIME)),
    ("rbind",          Bind(Bind::Recursive)),
    ("rdev",           ClearAll(attr::NODEV)),
    ("rdiratime",      ClearAll(attr::NODIRATIME)),
    ("relatime",       Atime(RELATIME)),
    ("remount",        Remount),
    ("rexec",          ClearAll(attr::NOEXEC)),
    ("ridmap",         Idmap(true)),
    ("rnoatime",       AtimeAll(attr::NOATIME)),
    ("rnodev",         SetAll(attr::NODEV)),
    ("rnodiratime",    SetAll(attr::NODIRATIME)),
    ("rnoexec",        SetAll(attr::NOEXEC)),
    ("rnorelatime",    Nothing), // As norelatime.
    ("rnostrictatime", NoAtimeAll(attr::STRICTATIME)),
    ("rnosuid",        SetAll(attr::NOSUID)),
    ("rnosymfollow",   SetAll(attr::NOSYMFOLLOW)),
    ("ro",             Set(attr::RDONLY)),
    ("rprivate",       Propagate(libc::MS_PRIVATE | libc::MS_REC)),
    ("rrelatime",      AtimeAll(RELATIME)),
    ("rro",            SetAll(attr::RDONLY)),
    ("rrw",            ClearAll(attr::RDONLY)),
    ("rshared",        Propagate(libc::MS_SHARED | libc::MS_REC)),
    ("rslave",         Propagate(libc::MS_SLAVE | libc::MS_REC)),
    ("rstrictatime",   AtimeAll(attr::STRICTATIME)),
    ("rsuid",          ClearAll(attr::NOSUID)),
    ("rsymfollow",     ClearAll(attr::NOSYMFOLLOW)),
    ("runbindable",    Propagate(libc::MS_UNBINDABLE | libc::MS_REC)),
    ("rw",             Clear(attr::RDONLY)),
    ("shared",         Propagate(libc::MS_SHARED)),
    ("silent",         Flag(libc::MS_SILENT)),
    ("slave",          Propagate(libc::MS_SLAVE)),
    ("src-nofollow",   SourceLink),
    ("strictatime",    Atime(attr::STRICTATIME)),
    ("suid",           Clear(attr::NOSUID)),
    ("symfollow",      Clear(attr::NOSYMFOLLOW)),
    ("sync",           Flag(libc::MS_SYNCHRONOUS)),
    ("tmpcopyup",      CopyUp),
    ("unbindable",     Propagate(libc::MS_UNBINDABLE)),
];

fn apply(parsed: &mut Options, atime: &mut Option<u64>, atime_recursive: &mut Option<u64>, effect: Effect) {
    match effect {
        Nothing => {}
        Set(bit) => toggle(&mut parsed.set, &mut parsed.clear, bit),
        Clear(bit) => toggle(&mut parsed.clear, &mut parsed.set, bit),
        SetAll(bit) => toggle(&mut parsed.set_recursive, &mut parsed.clear_recursive, bit),
        ClearAll(bit) => toggle(&mut parsed.clear_recursive, &mut parsed.set_recursive, bit),
        Atime(mode) => *atime = Some(mode),
        NoAtime(mode) => take_back(atime, mode),
        AtimeAll(mode) => *atime_recursive = Some(mode),
        NoAtimeAll(mode) => take_back(atime_recursive, mode),
        Propagate(kind) => parsed.propagation.push(kind),
        // As runc, whose flags add up: `bind` after `rbind` takes nothing back.
        Bind(Bind::One) => _ = parsed.bind.get_or_insert(Bind::One),
        Bind(Bind::Recursive) => parsed.bind = Some(Bind::Recursive),
        Remount => parsed.remount = true,
        Flag(flag) => parsed.flags |= flag,
        NoFlag(flag) => parsed.flags &= !flag,
        Idmap(recursive) => parsed.idmap = Some(Idmap { recursive, ..Idmap::default() }),
        CopyUp => parsed.copy_up = true,
        CopyLink => parsed.links.copy = true,
        SourceLink => parsed.links.source_no_follow = true,
        TargetLink => parsed.links.target_no_follow = true,
    }
}

fn toggle(on: &mut u64, off: &mut u64, bit: u64) {
    *on |= bit;
    *off &= !bit;
}

/// Leaves the kernel's default mode in place of `mode`, but another chosen mode alone.
fn take_back(atime: &mut Option<u64>, mode: u64) {
    if atime.is_none_or(|chosen| chosen == mode) {
        *atime = Some(RELATIME);
    }
}

/// Puts the access time mode in the attributes. The whole field must be cleared, or the kernel refuses the call.
fn choose(set: &mut u64, clear: &mut u64, atime: Option<u64>) {
    if let Some(mode) = atime {
        *set |= mode;
        *clear |= attr::ATIME_MASK;
    }
}

/// Reads `uids=FILE-HOST-COUNT#...;gids=...`.
fn idmap(recursive: bool, mapping: &str) -> Result<Idmap, String> {
    let mut idmap = Idmap { recursive, ..Idmap::default() };
    for part in mapping.split(';') {
        let (list, ranges) = match part.split_once('=') {
            Some(("uids", ranges)) => (&mut idmap.users, ranges),
            Some(("gids", ranges)) => (&mut idmap.groups, ranges),
            _ => return Err(format!("{part:?} is neither uids=... nor gids=...")),
        };
        for text in ranges.split('#') {
            list.push(range(text).ok_or_else(|| format!("{text:?} is not [@]FILE-HOST-COUNT"))?);
        }
    }
    Ok(idmap)
}

fn range(text: &str) -> Option<Range> {
    let (relative, text) = match text.strip_prefix('@') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut numbers = text.split('-').map(|number| number.parse::<u32>().ok());
    let range = Range { file: numbers.next()??, host: numbers.next()??, count: numbers.next()??, relative };
    // The last id must exist too; 4294967295 is no id (user_namespaces(7)).
    let last = |first: u32| first.checked_add(range.count - 1).is_some_and(|last| last != u32::MAX);
    let sound = numbers.next().is_none() && range.count > 0 && last(range.file) && last(range.host);
    sound.then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(options: &str) -> Options {
        parse(&options.split(',').collect::<Vec<_>>()).unwrap()
    }

    fn check(options: &str, expected: &Options) {
        assert_eq!(&read(options), expected, "{options}");
    }

    fn none() -> Options {
        Options::default()
    }

    /// runtime-spec 1.3, config.md, "Linux mount options": every name of the table is known, and none twice.
    #[test]
    fn the_whole_table_is_known() {
        let table = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
            nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime \
            rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime \
            rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
            rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap \
            ridmap";
        assert!(names().is_sorted_by(|a, b| a < b));
        for name in table.split_whitespace() {
            assert!(names().any(|known| known == name), "{name}");
            assert!(read(name).data.is_empty(), "{name}");
        }
        let extras: Vec<_> =
            names().filter(|name| !table.split_whitespace().any(|other| other == *name)).collect();
        assert_eq!(extras, ["copy-symlink", "dest-nofollow", "src-nofollow"]);
    }

    /// runtime-spec: what is no option of the table goes to the file system, in order.
    #[test]
    fn the_rest_is_data() {
        let data = vec!["mode=755".to_owned(), "size=65536k".to_owned(), "usrquota".to_owned()];
        check("nosuid,mode=755,size=65536k,,usrquota", &Options { set: attr::NOSUID, data, ..none() });
    }

    /// The later of two contradicting options wins, as in runc and mount(8).
    #[test]
    fn the_later_option_wins() {
        check("ro,rw", &Options { clear: attr::RDONLY, ..none() });
        check("rw,ro", &Options { set: attr::RDONLY, ..none() });
        check("rro,rrw", &Options { clear_recursive: attr::RDONLY, ..none() });
        check("sync,async,lazytime", &Options { flags: libc::MS_LAZYTIME, ..none() });
        check("rro,rw", &Options { set_recursive: attr::RDONLY, clear: attr::RDONLY, ..none() });
    }

    /// mount_setattr(2): an access time mode is one value, and choosing one clears the whole field.
    #[test]
    fn access_time_modes_exclude_each_other() {
        let mode = |set| Options { set, clear: attr::ATIME_MASK, ..none() };
        check("noatime", &mode(attr::NOATIME));
        check("noatime,strictatime", &mode(attr::STRICTATIME));
        check("strictatime,relatime", &mode(RELATIME));
        check("strictatime,atime", &mode(attr::STRICTATIME));
        check("noatime,atime", &mode(RELATIME));
        check("atime", &mode(RELATIME));
        check("norelatime", &none());
        check("nodiratime,noatime", &mode(attr::NOATIME | attr::NODIRATIME));
        let all = |set_recursive| Options { set_recursive, clear_recursive: attr::ATIME_MASK, ..none() };
        check("rstrictatime", &all(attr::STRICTATIME));
        check("ratime", &all(RELATIME));
    }

    /// runc adds the flags of `bind` and `rbind` up.
    #[test]
    fn binds() {
        check("bind", &Options { bind: Some(Bind::One), ..none() });
        check("rbind,bind", &Options { bind: Some(Bind::Recursive), ..none() });
        let propagation = vec![libc::MS_PRIVATE | libc::MS_REC, libc::MS_SHARED];
        check("rbind,rprivate,shared", &Options { bind: Some(Bind::Recursive), propagation, ..none() });
        assert_eq!(super::propagation("rslave"), Some(libc::MS_SLAVE | libc::MS_REC));
        assert_eq!(super::propagation("ro"), None);
    }

    /// crun.1 and podman-run.1, `idmap`: custom mappings, several ranges, relative ones.
    #[test]
    fn custom_idmaps() {
        let range = |file, host, count, relative| Range { file, host, count, relative };
        let idmap = Idmap {
            recursive: false,
            users: vec![range(0, 1, 10, false), range(10, 11, 10, false)],
            groups: vec![range(0, 100, 10, true)],
        };
        check("idmap=uids=0-1-10#10-11-10;gids=@0-100-10", &Options { idmap: Some(idmap), ..none() });
        check("ridmap", &Options { idmap: Some(Idmap { recursive: true, ..Default::default() }), ..none() });
        for wrong in [
            "idmap=",
            "idmap=uids=",
            "idmap=uids=0-1",
            "idmap=uids=0-1-0",
            "idmap=uids=0-1-2-3",
            "idmap=users=0-1-2",
            "idmap=uids=0-4294967295-1",
            "idmap=uids=0--1-1",
        ] {
            let problems = parse(&["ro", wrong]).unwrap_err();
            assert!(problems.iter().all(|problem| problem.pointer == "/1"), "{wrong}: {problems}");
        }
    }

    /// crun refuses `copy-symlink` with `src-nofollow` or `dest-nofollow`.
    #[test]
    fn links() {
        let links = Links { source_no_follow: true, target_no_follow: true, copy: false };
        check("src-nofollow,dest-nofollow", &Options { links, ..none() });
        assert!(parse(&["copy-symlink", "src-nofollow"]).is_err());
    }

    proptest! {
        /// No string panics; an attribute is never both set and cleared, the access time field aside.
        #[test]
        fn any_options_parse(options in proptest::collection::vec(
            prop_oneof![
                3 => proptest::sample::select(OPTIONS).prop_map(|(name, _)| name.to_owned()),
                1 => any::<String>(),
                1 => "r?idmap=([ugids=@#;0-9-]{0,20})",
            ], 0..12)) {
            if let Ok(parsed) = parse(&options) {
                prop_assert_eq!(parsed.set & parsed.clear & !attr::ATIME_MASK, 0);
                prop_assert_eq!(parsed.set_recursive & parsed.clear_recursive & !attr::ATIME_MASK, 0);
                prop_assert!(parsed.set & attr::ATIME_MASK != attr::NOATIME | attr::STRICTATIME);
            }
        }
    }
}
