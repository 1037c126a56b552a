//! System call names and numbers.
//!
//! The numbers are facts of the kernel's ABI and never change once released; the table ends with Linux 7.0.

use super::arch::Arch;
use super::table::{ABSENT, TABLE};

/// Calls that ARM keeps outside the table (`__ARM_NR_*`, arch/arm/include/uapi/asm/unistd.h).
const ARM_PRIVATE: &[(&str, u32)] = &[
    ("breakpoint", 0x0f_0001),
    ("cacheflush", 0x0f_0002),
    ("usr26", 0x0f_0003),
    ("usr32", 0x0f_0004),
    ("set_tls", 0x0f_0005),
    ("get_tls", 0x0f_0006),
];

/// Twice the names, at a power of two: a look-up meets little else before what it seeks.
const SLOTS: usize = 1024;
const EMPTY: u16 = u16::MAX;

/// Rows of [`TABLE`] by the hash of their name, the next free slot where two meet. A container's profile has
/// hundreds of names; found by bisection they would take more time than all the rest of compiling it.
static INDEX: [u16; SLOTS] = {
    assert!(TABLE.len() < SLOTS / 2 + SLOTS / 4);
    let mut index = [EMPTY; SLOTS];
    let mut row = 0;
    while row < TABLE.len() {
        let mut slot = hash(TABLE[row].0.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = row as u16;
        row += 1;
    }
    index
};

/// FNV-1a, folded.
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 16)) as usize % SLOTS
}

fn row_of(name: &str) -> Option<usize> {
    let mut slot = hash(name.as_bytes());
    while INDEX[slot] != EMPTY {
        let row = usize::from(INDEX[slot]);
        if TABLE[row].0 == name {
            return Some(row);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// One system call: its number on each architecture that has it.
#[derive(Debug, Clone, Copy)]
pub struct Syscall(Numbers);

#[derive(Debug, Clone, Copy)]
enum Numbers {
    Table(&'static [u16; 5]),
    ArmPrivate(u32),
}

impl Syscall {
    /// The call of that name, if any of our architectures has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Syscall> {
        if let Some(row) = row_of(name) {
            return Some(Syscall(Numbers::Table(&TABLE[row].1)));
        }
        let (_, number) = ARM_PRIVATE.iter().find(|(candidate, _)| *candidate == name)?;
        Some(Syscall(Numbers::ArmPrivate(*number)))
    }

    /// Its number in `seccomp_data.nr`, if `arch` has this call. For x32 it includes [`X32_BIT`](crate::seccomp::X32_BIT).
    #[must_use]
    pub fn number(self, arch: Arch) -> Option<u32> {
        let numbers = match self.0 {
            Numbers::Table(numbers) => numbers,
            Numbers::ArmPrivate(number) => return (arch == Arch::Arm).then_some(number),
        };
        let (column, bit) = match arch {
            Arch::X86_64 => (0, 0),
            Arch::I386 => (1, 0),
            Arch::X32 => (2, crate::seccomp::X32_BIT),
            Arch::Aarch64 => (3, 0),
            Arch::Arm => (4, 0),
        };
        match numbers[column] {
            ABSENT => None,
            number => Some(u32::from(number) | bit),
        }
    }

    /// Whether `number` is one of ARM's private calls, which lie far above the table.
    #[must_use]
    pub(super) fn is_arm_private(self) -> bool {
        matches!(self.0, Numbers::ArmPrivate(_))
    }
}

/// The name of a system call number, for messages. Slow: a search through the table.
#[must_use]
pub fn name_of(arch: Arch, number: u32) -> Option<&'static str> {
    let all = TABLE.iter().map(|(name, _)| *name).chain(ARM_PRIVATE.iter().map(|(name, _)| *name));
    all.into_iter().find(|name| Syscall::named(name).and_then(|call| call.number(arch)) == Some(number))
}

/// The number the call `name` has among those that i386 multiplexes through `socketcall` or `ipc`
/// (socketcall(2), ipc(2)), and the name of the multiplexer.
#[must_use]
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    let socket = |number| Some(("socketcall", number));
    let ipc = |number| Some(("ipc", number));
    match name {
        "socket" => socket(1),
        "bind" => socket(2),
        "connect" => socket(3),
        "listen" => socket(4),
        "accept" => socket(5),
        "getsockname" => socket(6),
        "getpeername" => socket(7),
        "socketpair" => socket(8),
        "send" => socket(9),
        "recv" => socket(10),
        "sendto" => socket(11),
        "recvfrom" => socket(12),
        "shutdown" => socket(13),
        "setsockopt" => socket(14),
        "getsockopt" => socket(15),
        "sendmsg" => socket(16),
        "recvmsg" => socket(17),
        "accept4" => socket(18),
        "recvmmsg" => socket(19),
        "sendmmsg" => socket(20),
        "semop" => ipc(1),
        "semget" => ipc(2),
        "semctl" => ipc(3),
        "semtimedop" => ipc(4),
        "msgsnd" => ipc(11),
        "msgrcv" => ipc(12),
        "msgget" => ipc(13),
        "msgctl" => ipc(14),
        "shmat" => ipc(21),
        "shmdt" => ipc(22),
        "shmget" => ipc(23),
        "shmctl" => ipc(24),
        _ => None,
    }
}
