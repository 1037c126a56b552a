//! User and group ids: the ranges that users have for containers, and whether they can be mapped.

use std::{os::unix::fs::MetadataExt, path::Path};

use ctr_isolation::{Error, attempt::attempt, sys::fs::has_attribute};
use ctr_runtime::{
    launch::{map_ids, own_maps},
    plan::IdMaps,
};
use oci_spec::runtime::LinuxIdMappingBuilder;

use super::{
    Finding,
    host::{Host, find_program, quote, read},
    namespaces::{allow, is_about_namespaces},
};

/// What a user of a container needs: the ids of a whole machine, as images have them.
const ENOUGH: u64 = 65536;
/// Where distributions begin to give ranges.
const FIRST: u64 = 100_000;
/// The last id is no id.
const END: u64 = u32::MAX as u64;

/// The two files of ranges, with those that name the owners of single ids.
const FILES: [(&str, &str); 2] = [("/etc/subuid", "/etc/passwd"), ("/etc/subgid", "/etc/group")];

pub(super) fn probe(host: &Host) -> Vec<Finding> {
    let lists = FILES
        .map(|(file, accounts)| (file, ranges(&read(file), &accounts_of(&read("/etc/passwd"))), accounts));
    let mut findings = vec![overlaps(host, &lists)];
    if !host.is_root() {
        findings.push(own_ranges(host, &lists));
        findings.extend(["newuidmap", "newgidmap"].map(|program| helper(host, program)));
    }
    findings.push(mapping(host));
    findings
}

/// A line of subuid(5) or subgid(5).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    /// The line itself.
    line: String,
    /// The user, by name where there is an account.
    owner: String,
    first: u64,
    count: u64,
}

impl Range {
    fn end(&self) -> u64 {
        self.first + self.count
    }

    fn meets(&self, other: &Range) -> bool {
        self.first < other.end() && other.first < self.end()
    }
}

/// Names and ids in the text of passwd(5) or group(5).
fn accounts_of(text: &str) -> Vec<(String, u64)> {
    let account = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(account).collect()
}

/// The ranges in `text`; an owner that is a number is the account of that number.
fn ranges(text: &str, accounts: &[(String, u64)]) -> Vec<Range> {
    let range = |line: &str| {
        let [owner, first, count] = line.split(':').collect::<Vec<_>>().try_into().ok()?;
        let named = accounts.iter().find(|(_, id)| owner.parse() == Ok(*id)).map(|(name, _)| name.as_str());
        let (first, count) =
            (first.trim().parse().ok()?, count.trim().parse().ok().filter(|count| *count > 0)?);
        Some(Range { line: line.to_owned(), owner: named.unwrap_or(owner).to_owned(), first, count })
    };
    text.lines().filter_map(range).collect()
}

/// The first range that has ids of another's: which range, and what it meets.
fn overlap<'a>(ranges: &'a [Range], accounts: &[(String, u64)]) -> Option<(&'a Range, String)> {
    let with_range = |(number, range): (usize, &'a Range)| {
        let other = ranges[..number].iter().find(|other| other.owner != range.owner && other.meets(range))?;
        let (from, to) = (range.first.max(other.first), range.end().min(other.end()) - 1);
        Some((range, format!("{} and {} both have {from} to {to}", other.owner, range.owner)))
    };
    let with_account = |range: &'a Range| {
        let inside = |id: u64| range.first <= id && id < range.end();
        let (name, id) = accounts.iter().find(|(name, id)| *name != range.owner && inside(*id))?;
        Some((range, format!("the range of {} has {id}, which is {name} itself", range.owner)))
    };
    ranges.iter().enumerate().find_map(with_range).or_else(|| ranges.iter().find_map(with_account))
}

/// The first of `count` ids that are in none of `ranges`, and of no account.
fn free(ranges: &[Range], accounts: &[(String, u64)], count: u64) -> u64 {
    let mut first = FIRST;
    let singles = accounts.iter().map(|(_, id)| (*id, id + 1));
    let mut taken: Vec<(u64, u64)> =
        ranges.iter().map(|range| (range.first, range.end())).chain(singles).collect();
    taken.sort_unstable();
    for (begin, end) in taken {
        if begin < first + count && first < end {
            first = end;
        }
    }
    if first + count <= END { first } else { FIRST }
}

type List = (&'static str, Vec<Range>, &'static str);

fn overlaps(host: &Host, lists: &[List]) -> Finding {
    let tried = "compared the ranges of all users in /etc/subuid and /etc/subgid, and with accounts";
    for (file, ranges, accounts) in lists {
        let accounts = accounts_of(&read(accounts));
        if let Some((range, what)) = overlap(ranges, &accounts) {
            let first = free(ranges, &accounts, range.count);
            let owner = range.line.split(':').next().unwrap_or_default();
            let edit = format!("s/^{}$/{owner}:{first}:{}/", range.line, range.count);
            let loses = "the wall between the two: a container of one reads and kills what is the other's";
            let mend = host.as_root(&format!("sed -i {} {file}", quote(&edit)));
            return Finding::problem("overlaps", tried, format!("{file}: {what}"), loses, mend);
        }
    }
    let count = lists.iter().map(|(_, ranges, _)| ranges.len()).sum::<usize>();
    Finding::ok("overlaps", tried, format!("none among {count} ranges"))
}

fn own_ranges(host: &Host, lists: &[List]) -> Finding {
    let tried = format!("looked for {} in /etc/subuid and /etc/subgid", host.user);
    let own = |ranges: &[Range]| {
        ranges.iter().filter(|range| range.owner == host.user).map(|range| range.count).sum()
    };
    let [uids, gids]: [u64; 2] = [own(&lists[0].1), own(&lists[1].1)];
    let found = format!("{uids} user ids and {gids} group ids");
    if uids.min(gids) >= ENOUGH {
        return Finding::ok("ranges", tried, found);
    }
    let both: Vec<Range> = lists.iter().flat_map(|(_, ranges, _)| ranges.clone()).collect();
    let accounts: Vec<_> = lists.iter().flat_map(|(_, _, accounts)| accounts_of(&read(accounts))).collect();
    let first = free(&both, &accounts, ENOUGH);
    let range = format!("{first}-{}", first + ENOUGH - 1);
    let mend = host.as_root(&format!("usermod --add-subuids {range} --add-subgids {range} {}", host.user));
    let loses = "users of a container beside its root: packages that make users, servers that drop privileges, images";
    match uids.min(gids) {
        0 => Finding::problem("ranges", tried, found, loses, mend),
        _ => Finding::warning("ranges", tried, found, loses, Some(mend)),
    }
}

/// One of the two programs that map ranges for ordinary users.
fn helper(host: &Host, program: &'static str) -> Finding {
    let tried = format!("looked for {program} along PATH, and for its privilege");
    let loses = "the ranges of ids above one's own";
    let package =
        [("dnf", "shadow-utils"), ("zypper", "shadow"), ("pacman", "shadow"), ("apk", "shadow-subids")];
    let Some(path) = find_program(program) else {
        let mend = host.install("uidmap", &package);
        return Finding::problem(program, tried, "not found", loses, mend);
    };
    let shown = path.display();
    if !is_privileged(&path) {
        let mend = host.as_root(&format!("chown root {shown} && chmod u+s {shown}"));
        let found = format!("{shown} has neither the set-user-ID bit of root nor capabilities");
        return Finding::problem(program, tried, found, loses, mend);
    }
    Finding::ok(program, tried, format!("{shown}, privileged"))
}

fn is_privileged(path: &Path) -> bool {
    let set_user_id = path.metadata().is_ok_and(|file| file.mode() & 0o4000 != 0 && file.uid() == 0);
    set_user_id || has_attribute(path, c"security.capability")
}

/// Maps all ids that there are, as a container's are mapped.
fn mapping(host: &Host) -> Finding {
    let by = if host.is_root() { "" } else { ", with newuidmap and newgidmap" };
    let tried = format!("mapped all we have in a user namespace{by}, and read the map");
    let maps = if host.is_root() { same() } else { own_maps(&host.facts) };
    let map = |pid| map_ids(pid, &maps, &host.facts);
    let result = attempt(libc::CLONE_NEWUSER, None, map, || Ok(read("/proc/self/uid_map")));
    let loses = "users of a container beside its root";
    match result.map(|map| count(&map)) {
        Ok(mapped) if mapped < ENOUGH && host.facts.in_user_namespace => {
            let mend = format!("unshare --user --map-root-user --map-auto {} ...", host.program);
            let found = format!("{mapped} user ids are mapped, all that our own user namespace has");
            Finding::warning("mapping", tried, found, loses, Some(mend))
        }
        Ok(mapped) => Finding::ok("mapping", tried, format!("{mapped} user ids are mapped")),
        Err(error) => {
            let mend = let_map(host, &error);
            Finding::problem("mapping", tried, "they cannot be mapped", loses, mend).because(error)
        }
    }
}

/// The maps of root, whose ids a container may have for its own.
fn same() -> IdMaps {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (inside, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        LinuxIdMappingBuilder::default().container_id(inside).host_id(inside).size(count).build().ok()
    };
    let map = |file: &str| read(file).lines().filter_map(line).collect();
    IdMaps { uids: map("/proc/self/uid_map"), gids: map("/proc/self/gid_map") }
}

/// How many ids a map, worded as user_namespaces(7), maps.
fn count(map: &str) -> u64 {
    map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// Lets the two programs do their work.
fn let_map(host: &Host, error: &Error) -> String {
    let is_nosuid = find_program("newuidmap").is_some_and(|path| {
        ctr_isolation::sys::fs::open(&path, libc::O_PATH)
            .and_then(|file| ctr_isolation::sys::fs::mount_flags(std::os::fd::AsFd::as_fd(&file)))
            .is_ok_and(|flags| flags & libc::ST_NOSUID != 0)
    });
    match () {
        () if host.is_root() || is_about_namespaces(error) => allow(host, error),
        () if host.no_new_privileges && host.has_user_systemd() => {
            format!(
                "systemd-run --user --pty {} doctor # without no_new_privs, which we were started with",
                host.program
            )
        }
        () if host.no_new_privileges => {
            "exec su --login # without no_new_privs, which we were started with".to_owned()
        }
        () if is_nosuid => host.as_root("mount -o remount,suid /usr"),
        () => host.install(
            "--reinstall uidmap",
            &[("dnf", "shadow-utils"), ("zypper", "shadow"), ("pacman", "shadow"), ("apk", "shadow-subids")],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Vec<(String, u64)> {
        accounts_of("root:x:0:0::/:\nalice:x:1000:1000::/:\nbob:x:1001:1001::/:\nbroken\n")
    }

    fn list(text: &str) -> Vec<Range> {
        ranges(text, &accounts())
    }

    #[test]
    fn ranges_are_read() {
        let range = |line: &str, owner: &str, first, count| Range {
            line: line.into(),
            owner: owner.into(),
            first,
            count,
        };
        assert_eq!(
            list("alice:100000:65536\n1001:300000:10\nalice:x:1\nalice:5:0\n\n#c\ncontainers:1:2\n"),
            [
                range("alice:100000:65536", "alice", 100_000, 65536),
                range("1001:300000:10", "bob", 300_000, 10),
                range("containers:1:2", "containers", 1, 2),
            ]
        );
    }

    #[test]
    fn ids_of_two_users_are_found() {
        let what =
            |text: &str| overlap(&list(text), &accounts()).map(|(range, what)| (range.line.clone(), what));
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(line, what)| (line.to_owned(), what.to_owned()));
            assert_eq!(what(text), expected, "{text}");
        };
        check("", None);
        check("alice:100000:65536\nbob:165536:65536\n", None);
        check("alice:100000:65536\nalice:100000:65536\n1000:100001:1\n", None);
        check(
            "alice:100000:65536\nbob:165535:65536\n",
            Some(("bob:165535:65536", "alice and bob both have 165535 to 165535")),
        );
        check(
            "bob:200000:10\nalice:100000:65536\ncontainers:90000:100000\n",
            Some(("containers:90000:100000", "alice and containers both have 100000 to 165535")),
        );
        check(
            "alice:500:1000\n",
            Some(("alice:500:1000", "the range of alice has 1001, which is bob itself")),
        );
        check("alice:1000:1\n", None);
    }

    #[test]
    fn a_free_range_is_found() {
        let first = |text: &str, count| free(&list(text), &accounts(), count);
        assert_eq!(first("", ENOUGH), FIRST);
        assert_eq!(first("a:100000:65536\nb:231072:65536\n", ENOUGH), 165_536);
        assert_eq!(first("b:165536:65536\na:100000:65536\n", ENOUGH), 231_072);
        assert_eq!(first("a:100001:1\n", 2), 100_002);
        assert_eq!(free(&[], &[("x".into(), 100_005)], 10), 100_006);
    }
}
