//! Whether the caller's current directory may appear in a container from `host`.

use std::path::{Path, PathBuf};

use super::Caller;

/// Where programs are: it is there already.
const SHOWN: [&str; 7] = ["/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// Neither these nor anything in them: there the host keeps what the image hides.
const HIDDEN: [&str; 7] = ["/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var"];

/// Directories in [`HIDDEN`] in which people nevertheless work.
const WORKPLACES: [&str; 3] = ["/var/home", "/var/tmp", "/var/www"];

/// Not these themselves, but what is in them.
const COMMON: [&str; 7] = ["/", "/home", "/root", "/srv", "/tmp", "/var/home", "/var/tmp"];

/// What becomes of the current directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Appearance {
    /// It is part of the image.
    Present(PathBuf),
    /// It is shown at its own path.
    Bound(PathBuf),
    /// It would show what the image hides.
    Refused(PathBuf),
    /// There is none.
    Unknown,
}

/// Decides about the caller's current directory.
pub(super) fn appearance(caller: &Caller) -> Appearance {
    let Some(directory) = caller.directory.clone().filter(|directory| directory.is_absolute()) else {
        return Appearance::Unknown;
    };
    match () {
        () if is_in(&directory, &SHOWN) => Appearance::Present(directory),
        () if exposes(&directory, &caller.homes) => Appearance::Refused(directory),
        () => Appearance::Bound(directory),
    }
}

fn is_in(path: &Path, directories: &[&str]) -> bool {
    directories.iter().any(|directory| path.starts_with(directory))
}

/// Whether a mount of `directory` would show secrets: a home directory or one that holds it, the hidden parts of
/// a home directory (.ssh, .config), or a place of the system's data.
fn exposes(directory: &Path, homes: &[PathBuf]) -> bool {
    let is_home_of_somebody = |home: &Path| home.starts_with(directory);
    let is_any_home =
        directory.parent().is_some_and(|parent| ["/home", "/var/home"].map(Path::new).contains(&parent));
    COMMON.map(Path::new).contains(&directory)
        || is_in(directory, &HIDDEN) && !is_in(directory, &WORKPLACES)
        || is_any_home
        || homes.iter().filter(|home| is_personal(home)).any(|home| is_home_of_somebody(home))
        || is_hidden_in_home(directory, homes)
}

/// Accounts of daemons have /bin or / for a home: that says nothing of what is in it.
fn is_personal(home: &Path) -> bool {
    !is_in(home, &SHOWN) && !is_in(home, &["/dev", "/proc", "/nonexistent"]) && home != Path::new("/")
}

/// Whether a path in a home directory has a component that begins with a dot.
fn is_hidden_in_home(directory: &Path, homes: &[PathBuf]) -> bool {
    let is_hidden = |path: &Path| path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."));
    let homes = homes.iter().map(PathBuf::as_path).filter(|home| is_personal(home));
    let homes = homes.chain(["/home", "/root", "/var/home"].map(Path::new));
    homes.filter_map(|home| directory.strip_prefix(home).ok()).any(is_hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(directory: &str) -> Appearance {
        let homes =
            ["/home/alice", "/root", "/data/people/bob", "/bin", "/nonexistent"].map(PathBuf::from).to_vec();
        appearance(&Caller { directory: Some(directory.into()), homes, ..Caller::default() })
    }

    #[test]
    fn a_project_is_bound() {
        for directory in [
            "/home/alice/src/tool",
            "/root/tool",
            "/data/people/bob/tool",
            "/data/build",
            "/tmp/test",
            "/var/tmp/x",
            "/var/www/site",
            "/srv/www",
            "/work",
            "/etcetera",
            "/media/disk/x",
        ] {
            assert_eq!(check(directory), Appearance::Bound(directory.into()));
        }
    }

    #[test]
    fn what_the_image_hides_is_not_bound() {
        for directory in [
            "/",
            "/etc",
            "/etc/ssh",
            "/var",
            "/var/lib/docker",
            "/var/log",
            "/var/home/carol",
            "/root",
            "/root/.ssh",
            "/home",
            "/home/alice",
            "/home/carol",
            "/home/alice/.gnupg/private-keys-v1.d",
            "/data/people/bob",
            "/data/people/bob/.config/x",
            "/data/people",
            "/data",
            "/proc/self",
            "/sys/fs",
            "/dev",
            "/run/user/1000",
            "/boot",
            "/tmp",
        ] {
            assert_eq!(check(directory), Appearance::Refused(directory.into()));
        }
    }

    #[test]
    fn what_is_there_already_is_left_alone() {
        assert_eq!(check("/usr/src/x"), Appearance::Present("/usr/src/x".into()));
        assert_eq!(appearance(&Caller::default()), Appearance::Unknown);
    }
}
