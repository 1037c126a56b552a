//! Users and groups of a container, by its own passwd and group.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use ctr_isolation::root::Root;
use ctr_isolation::sys::fs;

/// The container's passwd and group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Accounts {
    pub passwd: String,
    pub group: String,
}

/// As whom a program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

/// No account list is larger.
const LARGEST: u64 = 16 << 20;

impl Accounts {
    /// Those of the root file system `rootfs`, which may hold any link or device: none of them is followed out.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read(rootfs: &Path) -> Result<Accounts> {
        let root =
            Root::open(rootfs).with_context(|| format!("open the root file system {}", rootfs.display()))?;
        Ok(Accounts { passwd: read_in(&root, "etc/passwd")?, group: read_in(&root, "etc/group")? })
    }

    /// Those of an image, from the uppermost of its layers that has them; `trees` are the layers, the lowest first.
    ///
    /// # Errors
    /// As [`Accounts::read`].
    pub fn of_layers(trees: &[PathBuf]) -> Result<Accounts> {
        Ok(Accounts { passwd: read_above(trees, "passwd")?, group: read_above(trees, "group")? })
    }

    /// Looks up `user`: `UID[:GID]` or `NAME[:GROUP]`. A name of digits is a number if no account has it.
    pub(super) fn find(&self, user: &str) -> Result<Identity> {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let account = self.account(user);
        let uid = match (account, user.parse()) {
            (Some(account), _) => account.uid,
            (None, Ok(uid)) => uid,
            (None, Err(_)) => bail!("the container's /etc/passwd has no user {user:?}"),
        };
        let gid = match group {
            Some(group) => self.group(group)?,
            None => account.map_or(0, |account| account.gid),
        };
        let groups = match (group, account) {
            (None, Some(account)) => self.groups_of(account.name),
            _ => Vec::new(),
        };
        let home = account.map_or("/", |account| account.home).to_owned();
        Ok(Identity { uid, gid, groups: groups.into_iter().filter(|other| *other != gid).collect(), home })
    }

    fn account(&self, user: &str) -> Option<Account<'_>> {
        let accounts = || self.passwd.lines().filter_map(Account::parse);
        let by_name = accounts().find(|account| account.name == user);
        by_name.or_else(|| accounts().find(|account| Ok(account.uid) == user.parse()))
    }

    fn group(&self, group: &str) -> Result<u32> {
        let named = self.group.lines().find(|line| line.split(':').next() == Some(group));
        let gid = named.and_then(|line| line.split(':').nth(2)).unwrap_or(group);
        gid.parse().with_context(|| format!("the container's /etc/group has no group {group:?}"))
    }

    /// The groups that list `user` as a member.
    fn groups_of(&self, user: &str) -> Vec<u32> {
        let gid = |line: &str| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == user).then_some(gid)
        };
        self.group.lines().filter_map(gid).collect()
    }
}

/// A line of passwd.
#[derive(Clone, Copy)]
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Account<'a>> {
        let fields: Vec<_> = line.split(':').collect();
        let &[name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    }
}

/// The text of a file below `root`; empty if there is none.
fn read_in(root: &Root, path: &str) -> Result<String> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = match root.open_with(Path::new(path), flags.bits()) {
        Ok(file) => File::from(file),
        Err(error) if [libc::ENOENT, libc::ENOTDIR].contains(&error.errno) => {
            return Ok(String::new());
        }
        Err(error) => return Err(error).with_context(|| format!("read the container's /{path}")),
    };
    read_text(file).with_context(|| format!("read the container's /{path}"))
}

/// The text of the file `name` of /etc in the uppermost layer that has it; empty if none has, or one hides it.
fn read_above(trees: &[PathBuf], name: &str) -> Result<String> {
    for tree in trees.iter().rev() {
        let root = Root::open(tree).with_context(|| format!("open the layer {}", tree.display()))?;
        let path = Path::new("etc").join(name);
        // A name that overlayfs hides is a device there.
        let kind = |path: &Path| {
            let found = root.open_with(path, libc::O_PATH | libc::O_NOFOLLOW);
            found.and_then(|found| fs::fstat(found.as_fd())).map(|stat| stat.kind())
        };
        match kind(&path) {
            Ok(libc::S_IFCHR) => return Ok(String::new()),
            Ok(_) => return read_in(&root, &format!("etc/{name}")),
            Err(_) if kind(Path::new("etc")).is_ok_and(|kind| kind != libc::S_IFDIR) => break,
            Err(_) if is_opaque(&tree.join("etc")) => break,
            Err(_) => {}
        }
    }
    Ok(String::new())
}

fn is_opaque(directory: &Path) -> bool {
    [c"trusted.overlay.opaque", c"user.overlay.opaque"].iter().any(|key| fs::has_attribute(directory, key))
}

fn read_text(file: File) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_uppermost_layer_has_the_accounts() {
        let directory = tempfile::tempdir().unwrap();
        let trees = ["0", "1", "2"].map(|name| directory.path().join(name));
        for (tree, text) in trees.iter().zip(["lowest", "middle"]) {
            std::fs::create_dir_all(tree.join("etc")).unwrap();
            std::fs::write(tree.join("etc/passwd"), text).unwrap();
        }
        std::fs::create_dir(&trees[2]).unwrap();
        let passwd = |trees: &[PathBuf]| Accounts::of_layers(trees).unwrap().passwd;
        assert_eq!((passwd(&trees).as_str(), passwd(&trees[..1]).as_str()), ("middle", "lowest"));
        std::fs::write(trees[2].join("etc"), "a file hides a directory").unwrap();
        assert_eq!(passwd(&trees), "");
    }

    fn accounts() -> Accounts {
        Accounts {
            passwd:
                "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n7:x:70:71::/seven:\nbroken:x\n"
                    .into(),
            group: "root:x:0:\nweb:x:34:\nlog:x:4:other,web\nadm:x:40:web\nseven:x:71:web\n".into(),
        }
    }

    fn found(user: &str) -> (u32, u32, Vec<u32>, String) {
        let identity = accounts().find(user).unwrap();
        (identity.uid, identity.gid, identity.groups, identity.home)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(found("web"), (33, 34, vec![4, 40, 71], "/srv".into()));
        assert_eq!(found("33"), found("web"));
        assert_eq!(found("web:log"), (33, 4, vec![], "/srv".into()));
        assert_eq!(found("1000"), (1000, 0, vec![], "/".into()));
        assert_eq!(found("1000:1000"), (1000, 1000, vec![], "/".into()));
        assert_eq!(found("7"), (70, 71, vec![], "/seven".into()), "a name may be a number");
    }

    /// CVE-2026-30892: what is no number must not become user 0.
    #[test]
    fn what_is_no_user_is_refused() {
        for user in
            ["", "nobody", "-1", "4294967296", "web:", "web:nogroup", "0x0", "broken", "web:34:1", ":0"]
        {
            assert!(accounts().find(user).is_err(), "{user}");
        }
    }

    #[test]
    fn a_link_in_the_root_file_system_stays_in_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(directory.path().join("etc/real"), "x:x:1:1::/:\n").unwrap();
        symlink("/etc/real", directory.path().join("etc/passwd")).unwrap();
        symlink("/etc/hostname", directory.path().join("etc/group")).unwrap();
        let accounts = Accounts::read(directory.path()).unwrap();
        assert_eq!((accounts.passwd.as_str(), accounts.group.as_str()), ("x:x:1:1::/:\n", ""));
        std::fs::remove_file(directory.path().join("etc/group")).unwrap();
        std::fs::create_dir(directory.path().join("etc/group")).unwrap();
        assert!(Accounts::read(directory.path()).is_err());
    }
}
