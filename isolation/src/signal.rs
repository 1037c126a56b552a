//! Signals by name and number (signal(7)).

/// The first real-time signal a program may use: two below it glibc keeps for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

#[rustfmt::skip]
const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP), ("INT", libc::SIGINT), ("QUIT", libc::SIGQUIT), ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP), ("ABRT", libc::SIGABRT), ("BUS", libc::SIGBUS), ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL), ("USR1", libc::SIGUSR1), ("SEGV", libc::SIGSEGV), ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE), ("ALRM", libc::SIGALRM), ("TERM", libc::SIGTERM), ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD), ("CONT", libc::SIGCONT), ("STOP", libc::SIGSTOP), ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN), ("TTOU", libc::SIGTTOU), ("URG", libc::SIGURG), ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ), ("VTALRM", libc::SIGVTALRM), ("PROF", libc::SIGPROF), ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO), ("PWR", libc::SIGPWR), ("SYS", libc::SIGSYS),
    // Other names for the same; a number is named by the first.
    ("IOT", libc::SIGABRT), ("CLD", libc::SIGCHLD), ("POLL", libc::SIGIO), ("UNUSED", libc::SIGSYS),
    ("RTMIN", RTMIN), ("RTMAX", RTMAX),
];

/// The number of a signal given as a number (0 to 64; 0 only asks whether the process is there), or as a name in
/// any case with or without `SIG`; real-time signals also as `RTMIN+n` and `RTMAX-n`.
#[must_use]
pub fn parse(text: &str) -> Option<i32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (0..=RTMAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named.or_else(|| real_time(name))
}

fn real_time(name: &str) -> Option<i32> {
    let from_min = name.strip_prefix("RTMIN+").and_then(plain).map(|up| RTMIN.saturating_add(up));
    let from_max = || name.strip_prefix("RTMAX-").and_then(plain).map(|down| RTMAX - down);
    from_min.or_else(from_max).filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// A number in digits alone.
fn plain(digits: &str) -> Option<i32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The name of a signal, with `SIG`; `None` for a number that is none, 32 and 33 among them, which glibc keeps.
#[must_use]
pub fn name(number: i32) -> Option<String> {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => Some(format!("SIG{name}")),
        None if (RTMIN..=RTMAX).contains(&number) => Some(format!("SIGRTMIN+{}", number - RTMIN)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// runc kill(8): "number or name, with or without SIG".
    #[test]
    fn spellings() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("term", 15),
            ("sigKill", 9),
            ("9", 9),
            ("0", 0),
            ("64", 64),
            ("SIGPOLL", 29),
            ("IOT", 6),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("SIGRTMAX", 64),
            ("RTMIN+30", 64),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in [
            "",
            "SIG",
            "65",
            "-1",
            "+9",
            "SIGFOO",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN+",
            "RTMAX-31",
            "9x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    /// A name that is printed can be given back.
    #[test]
    fn names_read_back() {
        for number in 1..=RTMAX {
            match name(number) {
                Some(name) => assert_eq!(parse(&name), Some(number), "{name}"),
                None => assert!(matches!(number, 32 | 33), "{number}"),
            }
        }
        assert_eq!(name(37).as_deref(), Some("SIGRTMIN+3"));
        assert_eq!(name(0), None);
    }

    proptest! {
        #[test]
        fn any_text_parses(text in "(SIG)?(RTM(IN|AX))?[+-]?[0-9]{0,12}|\\PC{0,12}") {
            if let Some(number) = parse(&text) {
                prop_assert!((0..=64).contains(&number));
            }
        }
    }
}
