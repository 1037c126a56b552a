//! Capabilities by name and number (capabilities(7)).

use caps::Capability;

/// A set of capabilities read from names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// One bit for each capability, by number.
    pub mask: u64,
    /// Names that stand for nothing here, as they were given: to be warned of, not refused (runtime-spec
    /// config.md, `process.capabilities`).
    pub unknown: Vec<String>,
}

/// The capability of that name, in any case, with or without `CAP_`.
#[must_use]
pub fn parse(name: &str) -> Option<Capability> {
    caps::to_canonical(name).parse().ok()
}

/// Reads names, for a kernel whose highest capability is number `last` (/proc/sys/kernel/cap_last_cap). One that
/// this kernel does not have is as unknown as one nobody has.
pub fn read<S: AsRef<str>>(names: impl IntoIterator<Item = S>, last: u8) -> Named {
    let mut named = Named::default();
    for name in names {
        let name = name.as_ref();
        match parse(name).filter(|capability| capability.index() <= last) {
            Some(capability) => named.mask |= capability.bitmask(),
            None => named.unknown.push(name.to_owned()),
        }
    }
    named
}

/// Every capability of a kernel whose highest is number `last`, those included that have no name here yet.
#[must_use]
pub fn all(last: u8) -> u64 {
    u64::MAX >> 63_u8.saturating_sub(last)
}

/// The names in a mask, lowest number first; a number without a name is written as such.
#[must_use]
pub fn names(mask: u64) -> Vec<String> {
    let known = KNOWN.map(|capability| (capability.index(), capability.to_string()));
    let name = |number: u8| {
        let named = known.iter().find(|(index, _)| *index == number).map(|(_, name)| name.clone());
        named.unwrap_or_else(|| number.to_string())
    };
    (0..64).filter(|number| mask & (1 << number) != 0).map(name).collect()
}

/// Every capability with a name, by number.
pub const KNOWN: [Capability; 41] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_LINUX_IMMUTABLE,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_BROADCAST,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_IPC_OWNER,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_PACCT,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_BOOT,
    Capability::CAP_SYS_NICE,
    Capability::CAP_SYS_RESOURCE,
    Capability::CAP_SYS_TIME,
    Capability::CAP_SYS_TTY_CONFIG,
    Capability::CAP_MKNOD,
    Capability::CAP_LEASE,
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_AUDIT_CONTROL,
    Capability::CAP_SETFCAP,
    Capability::CAP_MAC_OVERRIDE,
    Capability::CAP_MAC_ADMIN,
    Capability::CAP_SYSLOG,
    Capability::CAP_WAKE_ALARM,
    Capability::CAP_BLOCK_SUSPEND,
    Capability::CAP_AUDIT_READ,
    Capability::CAP_PERFMON,
    Capability::CAP_BPF,
    Capability::CAP_CHECKPOINT_RESTORE,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// linux/capability.h: the numbers are the ABI.
    #[test]
    fn numbers_are_the_kernels() {
        assert!(
            KNOWN.iter().enumerate().all(|(number, capability)| usize::from(capability.index()) == number)
        );
        for (name, number) in [("CAP_CHOWN", 0), ("CAP_SYS_ADMIN", 21), ("CAP_CHECKPOINT_RESTORE", 40)] {
            assert_eq!(parse(name).map(|capability| capability.index()), Some(number), "{name}");
        }
    }

    /// Names as OCI, podman and oci-spec write them.
    #[test]
    fn any_spelling() {
        for name in ["CAP_NET_RAW", "cap_net_raw", "NET_RAW", "net_raw", "Cap_Net_Raw"] {
            assert_eq!(parse(name), Some(Capability::CAP_NET_RAW), "{name}");
        }
        assert_eq!(
            parse(&oci_spec::runtime::Capability::SysAdmin.to_string()),
            Some(Capability::CAP_SYS_ADMIN)
        );
        for name in ["", "CAP_", "CAP_CAP_KILL", "CAP_FOO", "CAP_KILL "] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    /// runtime-spec config.md: capabilities that cannot be mapped are warned of, not refused.
    #[test]
    fn unknown_capability_is_a_warning() {
        let named = read(["CAP_KILL", "CAP_FOO", "CAP_BPF"], 37);
        assert_eq!(named.mask, 1 << 5);
        assert_eq!(named.unknown, ["CAP_FOO", "CAP_BPF"]);
    }

    #[test]
    fn all_ends_with_the_kernels_last() {
        assert_eq!(all(0), 1);
        assert_eq!(all(40), (1 << 41) - 1);
        assert_eq!(all(63), u64::MAX);
        assert_eq!(all(200), u64::MAX);
        assert_eq!(names(1 << 5 | 1 << 50), ["CAP_KILL", "50"]);
    }
}
