//! Resource limits by name and number (getrlimit(2)).

use oci_spec::runtime::PosixRlimitType;

/// In the order of their numbers, which are the same on x86 and ARM.
#[rustfmt::skip]
const NAMES: [&str; 16] = [
    "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
    "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
];

/// The number of a limit named in a configuration.
#[must_use]
pub fn number(kind: PosixRlimitType) -> u32 {
    parse(&kind.to_string()).unwrap_or_else(|| unreachable!("{kind} is in the table, as a test shows"))
}

/// The number of the limit of that name, in any case, with or without `RLIMIT_`.
#[must_use]
pub fn parse(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("RLIMIT_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == name).and_then(|number| u32::try_from(number).ok())
}

/// The name of a limit, with `RLIMIT_`.
#[must_use]
pub fn name(number: u32) -> Option<String> {
    NAMES.get(usize::try_from(number).ok()?).map(|name| format!("RLIMIT_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use PosixRlimitType::*;

    /// runtime-spec config.md, `process.rlimits`: every type that can be configured has its number.
    #[test]
    fn numbers_are_the_kernels() {
        for (kind, expected) in [
            (RlimitCpu, libc::RLIMIT_CPU),
            (RlimitFsize, libc::RLIMIT_FSIZE),
            (RlimitData, libc::RLIMIT_DATA),
            (RlimitStack, libc::RLIMIT_STACK),
            (RlimitCore, libc::RLIMIT_CORE),
            (RlimitRss, libc::RLIMIT_RSS),
            (RlimitNproc, libc::RLIMIT_NPROC),
            (RlimitNofile, libc::RLIMIT_NOFILE),
            (RlimitMemlock, libc::RLIMIT_MEMLOCK),
            (RlimitAs, libc::RLIMIT_AS),
            (RlimitLocks, libc::RLIMIT_LOCKS),
            (RlimitSigpending, libc::RLIMIT_SIGPENDING),
            (RlimitMsgqueue, libc::RLIMIT_MSGQUEUE),
            (RlimitNice, libc::RLIMIT_NICE),
            (RlimitRtprio, libc::RLIMIT_RTPRIO),
            (RlimitRttime, libc::RLIMIT_RTTIME),
        ] {
            assert_eq!(number(kind), expected, "{kind}");
            assert_eq!(name(number(kind)), Some(kind.to_string()));
        }
        assert_eq!(parse("nofile"), Some(7));
        assert_eq!(parse("RLIMIT_FOO"), None);
        assert_eq!(name(16), None);
    }
}
