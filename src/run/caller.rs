//! Who calls `run`: what a configuration depends on beside flags and settings.

use std::{collections::BTreeMap, fs, path::PathBuf};

use ctr_isolation::sys::fs::programs;
use nix::unistd::{getegid, geteuid};

use crate::settings;

/// Who calls: plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The effective user and group.
    pub uid: u32,
    #[allow(missing_docs)]
    pub gid: u32,
    /// Whether user ids here are not the machine's.
    pub in_user_namespace: bool,
    /// The user's ranges in /etc/subuid and /etc/subgid; empty without newuidmap and newgidmap, which map them.
    pub subuids: Vec<IdRange>,
    #[allow(missing_docs)]
    pub subgids: Vec<IdRange>,
    /// The ids there are in the caller's own user namespace; empty when that has all.
    pub uids: Vec<IdRange>,
    #[allow(missing_docs)]
    pub gids: Vec<IdRange>,
    /// The current directory, without links.
    pub directory: Option<PathBuf>,
    /// Every home directory that is known: the caller's, and those of accounts.
    pub homes: Vec<PathBuf>,
    /// The environment, as far as it is text.
    pub environment: BTreeMap<String, String>,
}

/// So many ids from a first one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct IdRange {
    pub first: u32,
    pub count: u32,
}

impl Caller {
    /// That of this process.
    pub fn of_process() -> Caller {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let can_map =
            uid != 0 && ["newuidmap", "newgidmap"].iter().all(|name| programs(name).next().is_some());
        let ranges = |file: &str| {
            let text = if can_map { fs::read_to_string(file).unwrap_or_default() } else { String::new() };
            ranges_of(&text, &user_name(&accounts, uid), uid)
        };
        let in_user_namespace = settings::in_user_namespace();
        let existing = |file: &str| {
            let text = if in_user_namespace { fs::read_to_string(file) } else { Ok(String::new()) };
            ranges_in(&text.unwrap_or_default())
        };
        Caller {
            uid,
            gid,
            in_user_namespace,
            uids: existing("/proc/self/uid_map"),
            gids: existing("/proc/self/gid_map"),
            subuids: ranges("/etc/subuid"),
            subgids: ranges("/etc/subgid"),
            directory: std::env::current_dir().ok(),
            homes: homes(&accounts),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        }
    }

    /// Whether a container of this caller needs a user namespace of its own.
    pub fn needs_user_namespace(&self) -> bool {
        self.uid != 0
    }
}

/// The name of a user: that of the account, or the environment's where accounts are elsewhere than in `passwd`
/// (a wrong one gets nothing: newuidmap looks it up anew).
///
/// getpwuid(3) would load its modules into this static program, and crash it.
pub(crate) fn user_name(passwd: &str, uid: u32) -> String {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let is_ours = |fields: &Vec<String>| fields.get(2).is_some_and(|id| id.parse() == Ok(uid));
    let account = passwd.lines().map(fields).find(is_ours).and_then(|fields| fields.into_iter().next());
    account.or_else(|| std::env::var("USER").ok()).unwrap_or_default()
}

/// The ranges that `text`, worded as subuid(5), gives to a user.
fn ranges_of(text: &str, name: &str, uid: u32) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let is_ours = owner == name || owner.parse() == Ok(uid);
        let range =
            IdRange { first: fields.next()?.parse().ok()?, count: fields.next()?.trim().parse().ok()? };
        (is_ours && range.count > 0).then_some(range)
    };
    text.lines().filter_map(range).collect()
}

/// The ids that exist in a namespace with `map`, worded as user_namespaces(7).
fn ranges_in(map: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut fields = line.split_whitespace();
        Some(IdRange { first: fields.next()?.parse().ok()?, count: fields.nth(1)?.parse().ok()? })
    };
    map.lines().filter_map(range).collect()
}

/// The home directories that hold more than the system's: those of `passwd` and the caller's.
fn homes(passwd: &str) -> Vec<PathBuf> {
    let accounts = passwd.lines().filter_map(|line| line.split(':').nth(5)).map(PathBuf::from);
    let own = std::env::var_os("HOME").map(PathBuf::from);
    accounts.chain(own).filter(|home| home.is_absolute()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_name_is_that_of_the_account() {
        assert_eq!(user_name("root:x:0:0::/:\nalice:x:1000:1000::/:\n", 1000), "alice");
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "root:1:2\nalice:100000:65536\n1000:300000:10\nalice:x:1\nalice:5:0\nbob:1:1\n";
        let expected = [IdRange { first: 100_000, count: 65536 }, IdRange { first: 300_000, count: 10 }];
        assert_eq!(ranges_of(text, "alice", 1000), expected);
        assert_eq!(ranges_of("", "alice", 1000), []);
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(ranges_in(map), [IdRange { first: 0, count: 1 }, IdRange { first: 1, count: 65536 }]);
    }
}
