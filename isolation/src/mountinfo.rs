//! What is mounted where: the lines of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use crate::sys::fs;
use crate::{Context, Result};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Point {
    /// Its number, as long as it is mounted.
    pub id: i32,
    /// The file system: major and minor number.
    pub device: String,
    /// What of the file system is mounted.
    pub root: PathBuf,
    /// Where, from the root directory of the process.
    pub target: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// What the file system is made of, in its own words.
    pub source: String,
}

/// The mounts that process `pid` sees; `self` is us.
///
/// # Errors
/// When there is no such process, or it is not ours to look at.
pub fn points(pid: &str) -> Result<Vec<Point>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    Ok(text.lines().filter_map(point).collect())
}

fn point(line: &str) -> Option<Point> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let id = fields.next()?.parse().ok()?;
    let device = fields.nth(1)?.to_owned();
    let (root, target) = (unescape(fields.next()?), unescape(fields.next()?));
    let mut fields = after.split(' ');
    let kind = fields.next()?.to_owned();
    let source = fields.next().map(|source| unescape(source).to_string_lossy().into_owned());
    Some(Point { id, device, root, target, kind, source: source.unwrap_or_default() })
}

/// Blanks and the like are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The number of the mount that `fd` is on.
pub fn mount_of(fd: BorrowedFd<'_>) -> Option<i32> {
    mount_id(&fs::read_small(Path::new(&format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))).ok()?)
}

/// The same from the text of a file in `/proc/PID/fdinfo` (proc_pid_fdinfo(5)).
pub fn mount_id(info: &str) -> Option<i32> {
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_line_is_read() {
        let line =
            r"36 35 98:0 /mnt\0401 /a\040b\134c rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let expected = Point {
            id: 36,
            device: "98:0".into(),
            root: "/mnt 1".into(),
            target: r"/a b\c".into(),
            kind: "ext3".into(),
            source: "/dev/root".into(),
        };
        assert_eq!(point(line), Some(expected));
        assert_eq!(point("36 35 98:0"), None);
    }

    #[test]
    fn the_mount_of_a_file_is_found() {
        let proc = fs::open(Path::new("/proc"), fs::O_DIRECTORY).unwrap();
        let id = mount_of(proc.as_fd()).unwrap();
        let points = points("self").unwrap();
        assert_eq!(points.iter().find(|point| point.id == id).unwrap().kind, "proc");
    }
}
