//! The way from the kernel to our `main`, without what Rust's runtime does before: it reads `/proc/self/maps`, maps a
//! stack for a message about a full one, and so on, which takes longer than all the rest of a short command.

use std::io::Write;

/// Makes the function `$main`, `fn() -> u8`, the program's entry; the crate has `#![no_main]`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: the one `main` of the program: the linker refuses a second.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> i32 {
            $crate::sys::entry::begin();
            let status: u8 = $main();
            $crate::sys::entry::end();
            i32::from(status)
        }
    };
}

/// What of the runtime's beginning we need: nobody else may get descriptor 0, 1 or 2 (`stdin` and so on would then be
/// a file of ours), and a reader that goes away is an error, not our end.
pub fn begin() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array outlives the call and its length is given.
    unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    for _ in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
        // The lowest number that is free is the one that was closed. The container's program gets it, too.
        // SAFETY: the path is a C string.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
    // SAFETY: SIG_IGN installs no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// What of the runtime's end we need.
pub fn end() {
    let _ = std::io::stdout().flush();
}
