//! The architectures a filter on this kernel can be asked about.

use oci_spec::runtime::Arch as OciArch;

/// An instruction set whose system calls have numbers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86 programs, on a 32- or 64-bit kernel.
    I386,
    /// 32-bit pointers on 64-bit x86: the audit architecture of `X86_64`, numbers with [`X32_BIT`] set.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI).
    Arm,
}

/// Set in the system call number of every x32 call (`__X32_SYSCALL_BIT`, <asm/unistd.h>).
pub const X32_BIT: u32 = 0x4000_0000;

// linux/audit.h: the ELF machine, with __AUDIT_ARCH_64BIT (0x8000_0000) and __AUDIT_ARCH_LE (0x4000_0000).
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

impl Arch {
    /// What this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Arch = Arch::X86_64;
    /// What this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Arch = Arch::Aarch64;

    /// The value of `seccomp_data.arch` (seccomp(2)) while such a program runs.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => AUDIT_ARCH_X86_64,
            Arch::I386 => AUDIT_ARCH_I386,
            Arch::Aarch64 => AUDIT_ARCH_AARCH64,
            Arch::Arm => AUDIT_ARCH_ARM,
        }
    }

    /// Whether arguments are compared as 64-bit values. So they are for x32, which passes whole registers
    /// (libseccomp compares the low halves there).
    #[must_use]
    pub const fn wide(self) -> bool {
        matches!(self, Arch::X86_64 | Arch::X32 | Arch::Aarch64)
    }

    /// The architectures whose programs a kernel for `self` can run, `self` first.
    #[must_use]
    pub const fn family(self) -> &'static [Arch] {
        match self {
            Arch::X86_64 => &[Arch::X86_64, Arch::I386, Arch::X32],
            Arch::Aarch64 => &[Arch::Aarch64, Arch::Arm],
            Arch::I386 => &[Arch::I386],
            Arch::X32 => &[Arch::X32],
            Arch::Arm => &[Arch::Arm],
        }
    }

    /// The OCI name of an architecture we have a table for; `native` stands for `SCMP_ARCH_NATIVE`.
    #[must_use]
    pub const fn from_oci(arch: OciArch, native: Arch) -> Option<Arch> {
        Some(match arch {
            OciArch::ScmpArchNative => native,
            OciArch::ScmpArchX86_64 => Arch::X86_64,
            OciArch::ScmpArchX86 => Arch::I386,
            OciArch::ScmpArchX32 => Arch::X32,
            OciArch::ScmpArchAarch64 => Arch::Aarch64,
            OciArch::ScmpArchArm => Arch::Arm,
            _ => return None,
        })
    }
}
