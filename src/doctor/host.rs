//! Who asks and where: what all probes know, and the commands that differ from one distribution to another.

use std::path::{Path, PathBuf};

use ctr_isolation::attempt::map_root;
use ctr_isolation::{
    cgroup::systemd::{self, Bus},
    sys::{
        fs::{is_program, programs, read_small},
        process::prctl,
    },
};
use ctr_runtime::facts::Facts;

use crate::run::caller;

/// Who asks and where.
#[derive(Clone, Debug)]
pub struct Host {
    /// What the program was called by.
    pub program: String,
    /// What containers depend on.
    pub facts: Facts,
    /// The user's name, or number.
    pub user: String,
    /// Where images and root file systems are kept; empty if nowhere.
    pub store: PathBuf,
    /// What made the container that we are in, if we are in one.
    pub container: Option<String>,
    /// Nothing that we execute gains privileges.
    pub no_new_privileges: bool,
    /// systemd runs this machine.
    pub has_systemd: bool,
    /// What the user's own systemd says its version is, or why it does not answer; none is asked for root.
    pub user_systemd: Option<Result<String, String>>,
}

/// Managers of packages, each with its command.
const MANAGERS: [(&str, &str); 5] = [
    ("apt-get", "apt-get install"),
    ("dnf", "dnf install"),
    ("zypper", "zypper install"),
    ("pacman", "pacman -S"),
    ("apk", "apk add"),
];

impl Host {
    /// Looks around.
    pub fn look(program: &str, store: &Path) -> Host {
        let mut facts = Facts::read();
        facts.ask_for_cgroups();
        let accounts = read("/etc/passwd");
        let user = caller::user_name(&accounts, facts.uid);
        let user = if user.is_empty() { facts.uid.to_string() } else { user };
        let user_systemd =
            (!facts.is_root()).then(|| systemd::version(Bus::User).map_err(|error| error.to_string()));
        Host {
            program: program.to_owned(),
            user,
            store: store.to_owned(),
            container: container(),
            no_new_privileges: prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0).is_ok_and(|is_set| is_set == 1),
            has_systemd: Path::new("/run/systemd/system").is_dir(),
            user_systemd,
            facts,
        }
    }

    /// Whether we are root, if only of a user namespace.
    pub fn is_root(&self) -> bool {
        self.facts.is_root()
    }

    /// Whether an ordinary user's own systemd answers.
    pub fn has_user_systemd(&self) -> bool {
        self.user_systemd.as_ref().is_some_and(Result::is_ok)
    }

    /// The namespaces to try something in that needs `wanted`: an ordinary user needs one of users, too.
    pub fn namespaces(&self, wanted: i32) -> i32 {
        if self.is_root() { wanted } else { wanted | libc::CLONE_NEWUSER }
    }

    /// Maps us to root in `namespaces`, if there is one of users among them.
    pub fn map(&self, namespaces: i32, pid: i32) -> ctr_isolation::Result<()> {
        if namespaces & libc::CLONE_NEWUSER == 0 {
            Ok(())
        } else {
            map_root(pid, self.facts.uid, self.facts.gid)
        }
    }

    /// A command that root must give, worded for who asks.
    pub fn as_root(&self, command: &str) -> String {
        match (self.is_root(), find_program("sudo")) {
            (true, _) => command.to_owned(),
            (false, Some(_)) if !command.contains(['|', '>', '&', ';']) => format!("sudo {command}"),
            _ => format!("{} {}", self.root_shell(), quote(command)),
        }
    }

    /// What a script for root's shell is an argument to.
    pub fn root_shell(&self) -> &'static str {
        match (self.is_root(), find_program("sudo")) {
            (true, _) => "sh -c",
            (false, Some(_)) => "sudo sh -c",
            (false, None) => "su -c",
        }
    }

    /// Installs a package: `name`, or what a manager of packages calls it.
    pub fn install(&self, name: &str, called: &[(&str, &str)]) -> String {
        let found = MANAGERS.iter().find(|(manager, _)| find_program(manager).is_some());
        let (manager, command) = found.unwrap_or(&MANAGERS[0]);
        let name = called.iter().find(|(other, _)| other == manager).map_or(name, |(_, name)| *name);
        self.as_root(&format!("{command} {name}"))
    }

    /// Sets a sysctl, now and after every boot.
    pub fn sysctl(&self, setting: &str) -> String {
        self.as_root(&format!("echo '{setting}' >> /etc/sysctl.d/60-ctr.conf && sysctl -w '{setting}'"))
    }

    /// Boots with one more word on the kernel's command line.
    pub fn boot_with(&self, word: &str) -> String {
        let is_there = |path: &str| Path::new(path).exists();
        let grub = format!("sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{word} /' /etc/default/grub");
        let command = match () {
            () if find_program("grubby").is_some() => {
                format!("grubby --update-kernel=ALL --args={word} && reboot")
            }
            () if is_there("/etc/default/grub") && find_program("update-grub").is_some() => {
                format!("{grub} && update-grub && reboot")
            }
            () if is_there("/etc/default/grub") => {
                format!("{grub} && grub2-mkconfig -o /boot/grub2/grub.cfg && reboot")
            }
            () if is_there("/boot/firmware/cmdline.txt") => {
                format!("sed -i '1s/$/ {word}/' /boot/firmware/cmdline.txt && reboot")
            }
            () if is_there("/etc/kernel/cmdline") => {
                format!("sed -i '1s/$/ {word}/' /etc/kernel/cmdline && kernel-install add-all && reboot")
            }
            // Whoever starts this machine has its command line.
            () => return format!("{} # with {word} on the kernel's command line", self.as_root("reboot")),
        };
        self.as_root(&command)
    }
}

/// A word of a shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Where along PATH, and where root's programs are, the program `name` is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let usual = ["/usr/sbin", "/sbin"].map(|directory| Path::new(directory).join(name));
    programs(name).chain(usual.into_iter().filter(|path| is_program(path))).next()
}

/// A small file of the kernel's or the system's; empty where it cannot be read.
pub fn read(path: &str) -> String {
    read_small(Path::new(path)).unwrap_or_default()
}

/// The number in a small file.
pub fn read_number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

/// The first namespaces of a machine (`*_NS_INIT_INO` of linux/nsfs.h).
const INITIAL: [(&str, &str); 2] =
    [("/proc/self/ns/pid", "pid:[4026531836]"), ("/proc/self/ns/uts", "uts:[4026531838]")];

/// What made the container that we are in.
fn container() -> Option<String> {
    // Images leave the marks of who built them, also where they are the root of a whole machine.
    let is_initial =
        |(path, name): &(&str, &str)| std::fs::read_link(path).is_ok_and(|is| is.as_os_str() == *name);
    if INITIAL.iter().all(is_initial) {
        return None;
    }
    let marks = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];
    let mark = marks.iter().find(|(path, _)| Path::new(path).exists()).map(|(_, name)| (*name).to_owned());
    let told = read("/run/systemd/container").trim().to_owned();
    mark.or_else(|| Some(told).filter(|name| !name.is_empty()))
        .or_else(|| std::env::var("container").ok().filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_shell_is_quoted() {
        assert_eq!(quote("a 'b' c"), r"'a '\''b'\'' c'");
    }
}
