//! The capabilities of a container from an image, as masks by number.

use anyhow::{Result, anyhow, bail};
use ctr_isolation::capabilities::{KNOWN, names, parse};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, LinuxCapabilitiesBuilder};

/// What a container is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Granted {
    /// What it may ever have.
    pub bounding: u64,
    /// What was asked for by name, and is for users other than root too.
    pub added: u64,
}

impl Granted {
    /// The defaults, less what is dropped, and what is added; `all` stands for every capability.
    pub(super) fn new(defaults: &[String], add: &[String], drop: &[String]) -> Result<Granted> {
        let (add_all, add) = read(add)?;
        let (drop_all, drop) = read(drop)?;
        let (_, defaults) = read(defaults)?;
        if add & drop != 0 {
            bail!("{} is both added and dropped", names(add & drop).join(", "));
        }
        let begin = match (add_all, drop_all) {
            (_, true) => 0,
            (true, false) => KNOWN.iter().fold(0, |mask, capability| mask | capability.bitmask()),
            (false, false) => defaults,
        };
        let bounding = begin & !drop | add;
        Ok(Granted { bounding, added: if add_all && !drop_all { bounding } else { add } })
    }

    /// The five sets of a process. Root's program has all; another user's only what was added by name, which
    /// the ambient set carries through execve(2).
    pub(super) fn of_user(self, uid: u32) -> Result<LinuxCapabilities> {
        let (effective, ambient) = if uid == 0 { (self.bounding, 0) } else { (self.added, self.added) };
        Ok(LinuxCapabilitiesBuilder::default()
            .bounding(oci(self.bounding)?)
            .effective(oci(effective)?)
            .permitted(oci(effective)?)
            .inheritable(oci(ambient)?)
            .ambient(oci(ambient)?)
            .build()?)
    }
}

/// Whether `all` is among the names, and the mask of the others.
fn read(words: &[String]) -> Result<(bool, u64)> {
    let (mut has_all, mut mask) = (false, 0);
    for word in words {
        if word.eq_ignore_ascii_case("all") {
            has_all = true;
        } else {
            mask |= parse(word).ok_or_else(|| anyhow!("{word:?} is not a capability"))?.bitmask();
        }
    }
    Ok((has_all, mask))
}

fn oci(mask: u64) -> Result<Capabilities> {
    let one = |name: String| {
        let short = name.strip_prefix("CAP_").unwrap_or(&name);
        short.parse().map_err(|_| anyhow!("{name} is not a capability of the specification"))
    };
    names(mask).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(add: &[&str], drop: &[&str]) -> Granted {
        let strings = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        Granted::new(&strings(&["CHOWN", "KILL"]), &strings(add), &strings(drop)).unwrap()
    }

    #[test]
    fn names_are_taken_in_any_form() {
        let granted = granted(&["cap_net_raw", "SYS_TIME", "Cap_Mknod"], &["cap_kill"]);
        assert_eq!(names(granted.bounding), ["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_TIME", "CAP_MKNOD"]);
    }

    #[test]
    fn all_but_some_and_none_but_some() {
        assert_eq!(names(granted(&["all"], &["CHOWN"]).bounding).len(), KNOWN.len() - 1);
        assert_eq!(names(granted(&["NET_RAW"], &["ALL"]).bounding), ["CAP_NET_RAW"]);
    }

    #[test]
    fn contradictions_and_unknown_names_are_refused() {
        let refused = |add: &str, drop: &str| Granted::new(&[], &[add.into()], &[drop.into()]).is_err();
        assert!(refused("CHOWN", "cap_chown"));
        assert!(refused("CHOWNED", "KILL"));
    }

    #[test]
    fn a_user_who_is_not_root_has_only_what_was_added() {
        let user = granted(&["NET_RAW"], &[]).of_user(1000).unwrap();
        assert_eq!(user.effective().as_ref().map(|set| set.len()), Some(1));
        assert_eq!(user.ambient(), user.effective());
        assert_eq!(user.bounding().as_ref().map(|set| set.len()), Some(3));
        let root = granted(&["NET_RAW"], &[]).of_user(0).unwrap();
        assert_eq!(root.effective(), root.bounding());
        assert_eq!(root.ambient().as_ref().map(|set| set.len()), Some(0));
    }

    /// Every capability with a name must be one that a configuration can name.
    #[test]
    fn the_specification_has_them_all() {
        assert_eq!(oci(granted(&["all"], &[]).bounding).unwrap().len(), KNOWN.len());
    }
}
