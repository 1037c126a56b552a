//! Why a program cannot be executed: the kernel's two words for it (`ENOEXEC`, and an `ENOENT` that means another file)
//! leave out what matters, and a look at the file tells it.

use crate::error::Error;
use crate::plan::{Plan, Program};
use ctr_isolation::Error as Cause;
use ctr_isolation::mount::What;
use ctr_isolation::root::Root;
use oci_spec::runtime::Spec;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where the program of a container is looked for, from outside: what it mounts itself we do not see.
#[derive(Debug)]
pub struct Place {
    rootfs: PathBuf,
    /// Where, and what of the host, in the order of mounting; other mounts have nothing.
    mounts: Vec<(PathBuf, Option<PathBuf>)>,
    program: Program,
}

impl Place {
    /// That of a plan.
    pub fn of_plan(plan: &Plan) -> Option<Place> {
        let rootfs = plan.init.rootfs.as_ref()?;
        let source = |what: &What| match what {
            What::Bind { source, .. } => Some(source.clone()),
            _ => None,
        };
        let mounts = rootfs.mounts.iter().map(|mount| (mount.target.clone(), source(&mount.what)));
        Some(Place {
            rootfs: rootfs.path.clone(),
            mounts: mounts.collect(),
            program: plan.init.program.clone(),
        })
    }

    /// That of a container made before.
    pub fn of_spec(rootfs: &Path, spec: &Spec) -> Option<Place> {
        let process = spec.process().as_ref()?;
        let mounts = spec.mounts().iter().flatten().map(|mount| {
            let is_bind =
                mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
            (mount.destination().clone(), mount.source().clone().filter(|_| is_bind))
        });
        Some(Place {
            rootfs: rootfs.to_owned(),
            mounts: mounts.collect(),
            program: Program {
                args: process.args().clone().unwrap_or_default(),
                env: process.env().clone().unwrap_or_default(),
                cwd: process.cwd().clone(),
                may_make_cwd: false,
                keep_fds: 0,
            },
        })
    }

    fn open(&self, path: &Path) -> Option<File> {
        let (root, rest) = match self.mounts.iter().rev().find(|(target, _)| path.starts_with(target)) {
            Some((target, source)) => (source.as_deref()?, path.strip_prefix(target).ok()?),
            None => (self.rootfs.as_path(), path),
        };
        if rest.as_os_str().is_empty() {
            return File::open(root).ok();
        }
        Root::open(root).ok()?.open_with(rest, libc::O_RDONLY | libc::O_NONBLOCK).ok().map(File::from)
    }

    /// The first bytes of the program.
    fn head(&self) -> Option<Vec<u8>> {
        let name = self.program.args.first()?;
        let path =
            self.program.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("/bin");
        let directories: Vec<&str> = if name.contains('/') { vec![""] } else { path.split(':').collect() };
        let candidates = directories.iter().map(|dir| self.program.cwd.join(dir).join(name));
        let file = candidates
            .filter_map(|path| self.open(&path))
            .find(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
        let mut head = Vec::new();
        file.take(HEAD).read_to_end(&mut head).ok()?;
        Some(head)
    }
}

/// The path of an interpreter lies within so many bytes.
const HEAD: u64 = 4096;

/// Says more of `error`, if it is the kernel's refusal to execute the program and the file tells.
pub fn explain(error: Error, place: Option<Place>) -> Error {
    let Error::Failed(cause) = &error else { return error };
    if !matches!(cause.errno, libc::ENOEXEC | libc::ENOENT)
        || !cause.layers.iter().any(|layer| layer == REFUSED)
    {
        return error;
    }
    let why = place.as_ref().and_then(|place| {
        let name = place.program.args.first()?;
        Some((name, why(&place.head()?, cause.errno, std::env::consts::ARCH)?))
    });
    match why {
        Some((name, why)) => Cause::call(format!("exec: {name:?}: {why}"), cause.errno).into(),
        None => error,
    }
}

/// What is said of it where nothing more is known.
pub const REFUSED: &str = "exec: start the container's program";

/// What the first bytes of a program tell of the refusal `errno` (elf(5), execve(2)).
fn why(head: &[u8], errno: i32, machine: &str) -> Option<String> {
    match errno {
        libc::ENOEXEC => {
            let theirs = elf_machine(head)?;
            (theirs != machine)
                .then(|| format!("it is a program for {theirs}, and this machine is {machine}"))
        }
        _ => {
            let interpreter = script_interpreter(head).or_else(|| elf_interpreter(head))?;
            Some(format!("its interpreter {interpreter:?} is not in the container"))
        }
    }
}

/// `e_machine` and its usual names.
const MACHINES: [(u16, &str); 8] = [
    (3, "x86"),
    (8, "mips"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
];

fn elf_machine(head: &[u8]) -> Option<String> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let bytes = [*head.get(18)?, *head.get(19)?];
    let number = if head.get(5) == Some(&2) { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let name = MACHINES.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
    Some(name.unwrap_or_else(|| format!("machine {number}")))
}

fn script_interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    text.split_whitespace().next().map(str::to_owned)
}

/// The path in `PT_INTERP`, of a 64-bit file of this machine's byte order, where the first bytes have it.
fn elf_interpreter(head: &[u8]) -> Option<String> {
    if !head.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(head.get(at..at + size)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let part = (0..count).map(|index| table + index * size).find(|at| number(*at, 4) == Some(3))?;
    let (begin, length) = (number(part + 8, 8)?, number(part + 32, 8)?);
    let path = head.get(begin..begin.checked_add(length)?)?;
    Some(String::from_utf8_lossy(path.strip_suffix(b"\0").unwrap_or(path)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u8) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        file[18] = machine;
        file
    }

    #[test]
    fn what_a_file_tells() {
        let mut loaded = elf(62);
        (loaded[32], loaded[54], loaded[56]) = (64, 56, 1);
        loaded.extend([3_u32, 4].iter().flat_map(|word| word.to_le_bytes()));
        loaded.extend([120_u64, 0, 0, 9, 9, 1].iter().flat_map(|word| word.to_le_bytes()));
        loaded.extend(b"/lib/ld.\0");
        for (head, errno, expected) in [
            (elf(183), libc::ENOEXEC, Some("it is a program for aarch64, and this machine is x86_64")),
            (elf(99), libc::ENOEXEC, Some("it is a program for machine 99, and this machine is x86_64")),
            // Of this machine: something else is wrong with it.
            (elf(62), libc::ENOEXEC, None),
            (b"nonsense".to_vec(), libc::ENOEXEC, None),
            (
                b"#! /no/sh -e\nx".to_vec(),
                libc::ENOENT,
                Some("its interpreter \"/no/sh\" is not in the container"),
            ),
            (loaded, libc::ENOENT, Some("its interpreter \"/lib/ld.\" is not in the container")),
            (elf(62), libc::ENOENT, None),
            (b"\x7fELF".to_vec(), libc::ENOENT, None),
            (Vec::new(), libc::ENOENT, None),
        ] {
            assert_eq!(why(&head, errno, "x86_64").as_deref(), expected, "{head:?}");
        }
    }

    #[test]
    fn it_is_looked_for_where_the_container_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        make("root/usr/bin/a", "of the root");
        make("bound/a", "of the mount");
        make("root/hidden/a", "under a mount");
        std::os::unix::fs::symlink("/usr/bin", dir.path().join("root/bin")).unwrap();
        let place = |name: &str, path: &str| Place {
            rootfs: dir.path().join("root"),
            mounts: vec![("/work".into(), Some(dir.path().join("bound"))), ("/hidden".into(), None)],
            program: Program {
                args: vec![name.into()],
                env: vec![format!("PATH={path}")],
                cwd: "/work".into(),
                may_make_cwd: false,
                keep_fds: 0,
            },
        };
        for (name, path, expected) in [
            ("a", "/nowhere:/bin", Some("of the root")),
            ("a", "/work:/bin", Some("of the mount")),
            ("/bin/a", "/work", Some("of the root")),
            ("./a", "/bin", Some("of the mount")),
            ("/hidden/a", "/bin", None),
            ("b", "/bin", None),
        ] {
            let head = place(name, path).head().map(|head| String::from_utf8(head).unwrap());
            assert_eq!(head.as_deref(), expected, "{name} in {path}");
        }
    }
}
