//! The last hop: a tiny program of our own that makes the last calls and becomes the container's program.
//!
//! Whoever runs inside a container can name the program that starts it: through `/proc/self/exe` as its own entry
//! point, as a `#!` or as an ELF interpreter (CVE-2019-5736). That must never be the host's `ctr`. So before the
//! container's program there is always this one: some hundred bytes in a sealed anonymous file, without libc, which
//! starts in a tenth of the time of anything else. It makes the calls it is given (the filter last, so that the
//! filter need not allow what comes before), then execve(2), and reports an errno when one fails.

use super::process::CapabilitySets;
use super::seccomp::Instruction;
use crate::Result;
use crate::sys::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A call that the hop makes before it becomes the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The number of the call.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 5],
}

/// What the hop does before it becomes the program, in this order.
#[derive(Debug, Clone, Copy)]
pub struct Steps<'a> {
    /// Calls without pointers.
    pub calls: &'a [Call],
    /// The capabilities it is to have from then on.
    pub capabilities: Option<CapabilitySets>,
    /// A filter and its flags (seccomp(2)).
    pub filter: Option<(&'a [Instruction], u32)>,
}

/// What the hop reports when a call fails: which one, counted from 0 (`calls` being execve), and the errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The index of the call.
    pub index: u32,
    /// The kernel's reason.
    pub errno: i32,
}

impl Failure {
    /// Reads a report.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (index, errno) = (bytes.get(0..4)?, bytes.get(4..8)?);
        Some(Failure {
            index: u32::from_ne_bytes(index.try_into().ok()?),
            errno: i32::from_ne_bytes(errno.try_into().ok()?),
        })
    }
}

/// Where the one segment of the hop lies in its memory: above `vm.mmap_min_addr`, below everything else.
const BASE: u64 = 0x20_0000;
const HEADERS: usize = 64 + 56;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.ctr_hop,\"a\",@progbits",
    ".global ctr_hop_start",
    ".hidden ctr_hop_start",
    "ctr_hop_start:",
    "mov rbx, rsp",                 // argc, argv, envp as execve left them
    "lea r12, [rip + ctr_hop_end]", // behind the code: count, descriptor for reports, calls
    "mov r13d, [r12]",
    "mov r14d, [r12 + 4]",
    "add r12, 8",
    "xor r15d, r15d",
    "2:",
    "cmp r15d, r13d",
    "je 3f",
    "mov rax, [r12]",
    "mov rdi, [r12 + 8]",
    "mov rsi, [r12 + 16]",
    "mov rdx, [r12 + 24]",
    "mov r10, [r12 + 32]",
    "mov r8, [r12 + 40]",
    "syscall",
    "cmp rax, -4095",
    "jae 4f",
    "add r12, 48",
    "inc r15d",
    "jmp 2b",
    "3:", // execve(argv[0], argv + 1, envp)
    "mov rdx, [rbx]",
    "lea rdx, [rbx + rdx * 8 + 16]",
    "mov rdi, [rbx + 8]",
    "lea rsi, [rbx + 16]",
    "mov eax, 59",
    "syscall",
    "4:", // write(descriptor, {index, errno}, 8); exit_group(127)
    "neg eax",
    "shl rax, 32",
    "mov ecx, r15d",
    "or rax, rcx",
    "push rax",
    "mov edi, r14d",
    "mov rsi, rsp",
    "mov edx, 8",
    "mov eax, 1",
    "syscall",
    "mov edi, 127",
    "mov eax, 231",
    "syscall",
    "hlt",
    ".balign 8",
    ".global ctr_hop_end",
    ".hidden ctr_hop_end",
    "ctr_hop_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.ctr_hop,\"a\",@progbits",
    ".balign 8",
    ".global ctr_hop_start",
    ".hidden ctr_hop_start",
    "ctr_hop_start:",
    "mov x19, sp",
    "adr x20, ctr_hop_end",
    "ldp w21, w22, [x20], #8",
    "mov w23, #0",
    "2:",
    "cmp w23, w21",
    "b.eq 3f",
    "ldp x8, x0, [x20]",
    "ldp x1, x2, [x20, #16]",
    "ldp x3, x4, [x20, #32]",
    "svc #0",
    "cmn x0, #4095",
    "b.cs 4f",
    "add x20, x20, #48",
    "add w23, w23, #1",
    "b 2b",
    "3:",
    "ldr x2, [x19]",
    "add x2, x19, x2, lsl #3",
    "add x2, x2, #16",
    "ldr x0, [x19, #8]",
    "add x1, x19, #16",
    "mov x8, #221",
    "svc #0",
    "4:",
    "neg w0, w0",
    "stp w23, w0, [sp, #-16]!",
    "mov w0, w22",
    "mov x1, sp",
    "mov x2, #8",
    "mov x8, #64",
    "svc #0",
    "mov x0, #127",
    "mov x8, #94",
    "svc #0",
    "brk #0",
    ".balign 8",
    ".global ctr_hop_end",
    ".hidden ctr_hop_end",
    "ctr_hop_end:",
    ".popsection",
);

unsafe extern "C" {
    static ctr_hop_start: u8;
    static ctr_hop_end: u8;
}

fn code() -> &'static [u8] {
    // SAFETY: both symbols mark one piece of our read-only data, the first its begin and the second its end.
    unsafe {
        let (start, end) = (&raw const ctr_hop_start, &raw const ctr_hop_end);
        std::slice::from_raw_parts(start, end.offset_from(start) as usize)
    }
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Makes the hop: a sealed file to be given to [`fexecve`](super::process::fexecve), with the path of the program as
/// first argument and the program's own arguments after it.
///
/// # Errors
/// The kernel's.
pub fn make(steps: Steps<'_>, report: BorrowedFd<'_>) -> Result<OwnedFd> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let image = image(steps, report.as_raw_fd());
    let mut file = std::fs::File::from(fs::memfd("ctr")?);
    crate::Context::doing(file.write_all(&image), || "write the last hop")?;
    fs::seal(file.as_fd())?;
    Ok(file.into())
}

fn image(steps: Steps<'_>, report: i32) -> Vec<u8> {
    let Steps { calls, capabilities, filter } = steps;
    let code = code();
    let count = calls.len() + usize::from(capabilities.is_some()) + usize::from(filter.is_some());
    // Behind the calls lies what they point to: the words of capset, struct sock_fprog, and what that points to.
    let words = HEADERS + code.len() + 8 + count * size_of::<Call>();
    let sock_fprog = words + capabilities.map_or(0, |sets| size_of_val(&sets.words()));
    let total = sock_fprog + filter.map_or(0, |(program, _)| 16 + program.len() * 8);
    let address = |offset: usize| BASE + offset as u64;
    let mut image = Vec::with_capacity(total);
    elf_headers(&mut image, total as u64);
    image.extend_from_slice(code);
    image.extend_from_slice(&(count as u32).to_ne_bytes());
    image.extend_from_slice(&report.to_ne_bytes());
    for call in calls {
        put_call(&mut image, *call);
    }
    if capabilities.is_some() {
        let arguments = [address(words), address(words + 8), 0, 0, 0];
        put_call(&mut image, Call { number: libc::SYS_capset, arguments });
    }
    if let Some((_, flags)) = filter {
        let set_mode_filter = 1;
        let arguments = [set_mode_filter, u64::from(flags), address(sock_fprog), 0, 0];
        put_call(&mut image, Call { number: libc::SYS_seccomp, arguments });
    }
    for word in capabilities.iter().flat_map(|sets| sets.words()) {
        image.extend_from_slice(&word.to_ne_bytes());
    }
    if let Some((program, _)) = filter {
        // struct sock_fprog: length, padding, pointer to what follows it.
        image.extend_from_slice(&(program.len() as u64).to_ne_bytes());
        image.extend_from_slice(&address(sock_fprog + 16).to_ne_bytes());
        for instruction in program {
            image.extend_from_slice(&instruction.code.to_ne_bytes());
            image.extend_from_slice(&[instruction.jt, instruction.jf]);
            image.extend_from_slice(&instruction.k.to_ne_bytes());
        }
    }
    image
}

fn put_call(image: &mut Vec<u8>, call: Call) {
    image.extend_from_slice(&call.number.to_ne_bytes());
    for argument in call.arguments {
        image.extend_from_slice(&argument.to_ne_bytes());
    }
}

/// The headers of an ELF executable with one segment, all of the file, to be read and executed (elf(5)).
fn elf_headers(image: &mut Vec<u8>, size: u64) {
    let entry = BASE + HEADERS as u64;
    image.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2, MACHINE] {
        image.extend_from_slice(&half.to_ne_bytes());
    }
    image.extend_from_slice(&1_u32.to_ne_bytes());
    for word in [entry, 64, 0] {
        image.extend_from_slice(&word.to_ne_bytes());
    }
    image.extend_from_slice(&0_u32.to_ne_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        image.extend_from_slice(&half.to_ne_bytes());
    }
    // The program header: PT_LOAD, readable and executable.
    for half in [1_u32, 5] {
        image.extend_from_slice(&half.to_ne_bytes());
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        image.extend_from_slice(&word.to_ne_bytes());
    }
}
