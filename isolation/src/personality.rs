//! Execution domains by name (personality(2)).

use oci_spec::runtime::LinuxPersonalityDomain;

/// The value for personality(2) of a domain in a configuration (runtime-spec config-linux.md, "Personality").
#[must_use]
pub const fn domain(domain: LinuxPersonalityDomain) -> u64 {
    match domain {
        LinuxPersonalityDomain::PerLinux => 0x0,   // PER_LINUX
        LinuxPersonalityDomain::PerLinux32 => 0x8, // PER_LINUX32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// linux/personality.h
    #[test]
    fn values_are_the_kernels() {
        assert_eq!(domain(LinuxPersonalityDomain::PerLinux), 0);
        assert_eq!(domain(LinuxPersonalityDomain::PerLinux32), 8);
    }
}
