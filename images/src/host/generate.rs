//! The files of /etc that are the container's own.

use std::path::PathBuf;

use super::{HostFacts, Resolver};

/// For whom the image is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Personal {
    /// The container's host name.
    pub hostname: String,
    /// A user and group that get an account, beside root and nobody.
    pub user: Option<(u32, u32)>,
    /// How names are resolved; none without a network.
    pub resolver: Option<Resolver>,
}

/// The user and group that files of unknown owners show.
const NOBODY: u32 = 65534;

/// The group of terminals, which devpts is mounted with.
const TTY: u32 = 5;

const NSSWITCH: &str = "\
passwd:    files
group:     files
shadow:    files
hosts:     files dns
networks:  files
protocols: files
services:  files
ethers:    files
rpc:       files
";

const PROFILE: &str = "\
# For login shells of POSIX kind.
export PATH=\"${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}\"
if [ -n \"$BASH\" ] && [ -r /etc/bash.bashrc ]; then
    . /etc/bash.bashrc
fi
";

const BASHRC: &str = "\
# For interactive shells.
[ -z \"$PS1\" ] || PS1='\\u@\\h:\\w\\$ '
";

pub(super) fn files(facts: &HostFacts, personal: &Personal) -> Vec<(PathBuf, String)> {
    let resolver = personal.resolver.clone().unwrap_or_default();
    let files = [
        ("passwd", passwd(facts, personal)),
        ("group", group(personal)),
        ("hostname", format!("{}\n", personal.hostname)),
        ("hosts", hosts(&personal.hostname, &resolver.hosts)),
        ("resolv.conf", resolver.resolv_conf),
        ("nsswitch.conf", NSSWITCH.to_owned()),
        ("profile", PROFILE.to_owned()),
        ("bash.bashrc", BASHRC.to_owned()),
    ];
    files.map(|(name, text)| (PathBuf::from("/etc").join(name), text)).to_vec()
}

/// Nobody has a password, and there is no shadow to put one in.
fn passwd(facts: &HostFacts, personal: &Personal) -> String {
    let shell = if facts.has_bash { "/bin/bash" } else { "/bin/sh" };
    let mut text = format!("root:*:0:0:root:/root:{shell}\n");
    if let Some((uid, gid)) = personal.user.filter(|(uid, _)| ![0, NOBODY].contains(uid)) {
        text += &format!("user{uid}:*:{uid}:{gid}:container user:/home:{shell}\n");
    }
    text + &format!("nobody:*:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin\n")
}

fn group(personal: &Personal) -> String {
    let mut text = format!("root:*:0:\ntty:*:{TTY}:\n");
    if let Some((_, gid)) = personal.user.filter(|(_, gid)| ![0, TTY, NOBODY].contains(gid)) {
        text += &format!("group{gid}:*:{gid}:\n");
    }
    text + &format!("nogroup:*:{NOBODY}:\n")
}

/// The container's own name, before what the network's owner says.
fn hosts(hostname: &str, others: &str) -> String {
    format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback {hostname}\n{others}")
}
