//! What a program answers, without installing it.

use super::arch::Arch;
use super::assemble::{AND, ARCH, ARGS, JUMP, JUMP_AT_LEAST, JUMP_EQUAL, JUMP_GREATER, JUMP_SET};
use super::assemble::{LOAD, NR, RETURN};
use crate::sys::seccomp::Instruction;

/// The value `program` returns for a system call: a `SECCOMP_RET_*` action with its data.
///
/// It knows the instructions [`compile`](super::compile) writes. Any other, and a jump out of the program, answer
/// SECCOMP_RET_KILL_PROCESS: so would the kernel, by refusing the program.
#[must_use]
pub fn simulate(program: &[Instruction], arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    run(program, arch.audit(), number, args).unwrap_or(libc::SECCOMP_RET_KILL_PROCESS)
}

fn run(program: &[Instruction], audit: u32, number: u32, args: [u64; 6]) -> Option<u32> {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let holds = match code {
            LOAD => {
                accumulator = load(k, audit, number, args)?;
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at = at.checked_add(usize::try_from(k).ok()?)?;
                continue;
            }
            RETURN => return Some(k),
            JUMP_EQUAL => accumulator == k,
            JUMP_GREATER => accumulator > k,
            JUMP_AT_LEAST => accumulator >= k,
            JUMP_SET => accumulator & k != 0,
            _ => return None,
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// A word of `struct seccomp_data`; we do not filter by instruction pointer.
fn load(offset: u32, audit: u32, number: u32, args: [u64; 6]) -> Option<u32> {
    match offset {
        NR => Some(number),
        ARCH => Some(audit),
        _ => {
            let word = offset.checked_sub(ARGS).filter(|byte| byte % 4 == 0)? / 4;
            let arg = args.get(usize::try_from(word / 2).ok()?)?;
            Some((arg >> (32 * (word % 2))) as u32)
        }
    }
}
