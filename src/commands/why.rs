//! `why`.

use super::context::Context;
use crate::cli::why::Why;
use crate::{output, time};
use anyhow::{Result, bail};
use ctr_isolation::signal;
use ctr_runtime::Status;
use ctr_runtime::death::{Above, Amount, Cause, Death, Exit, Killer, Memory, Time, Verdict, Whose};
use serde_json::{Value, json};

/// Tells why a container ended.
///
/// # Errors
/// When nothing is known of the end of one of that name.
pub fn why(context: &Context, flags: &Why) -> Result<()> {
    let running = notice(context, flags.id.as_deref())?;
    let mut deaths = context.ended().deaths(&context.root(), flags.id.as_deref())?;
    deaths.reverse();
    if deaths.is_empty() {
        bail!("{}", unknown(context, flags.id.as_deref(), running));
    }
    if let (Some(status), Some(id)) = (running, &flags.id) {
        tracing::warn!("container {id:?} is {status} now; this was before");
    }
    if !flags.all {
        deaths.truncate(1);
    }
    if flags.json {
        let mut values: Vec<Value> = deaths.iter().map(to_json).collect();
        let printed = if flags.all { output::json(&values) } else { output::json(&values.remove(0)) };
        return Ok(printed?);
    }
    let texts: Vec<String> = deaths.iter().map(to_text).collect();
    Ok(output::print(&texts.join("\n"))?)
}

/// Sees to it that who has just ended is recorded; the status of the one that is asked for, if it has not.
fn notice(context: &Context, id: Option<&str>) -> Result<Option<Status>> {
    let names = match id {
        Some(id) => vec![id.to_owned()],
        None => context.store.list()?,
    };
    let mut running = None;
    for name in names {
        let Ok(container) = context.container(&name) else { continue };
        match container.status() {
            Status::Stopped if context.is_noted_soon(&container) => {}
            Status::Stopped => context.notice(&container),
            status => running = Some(status),
        }
    }
    Ok(running)
}

fn unknown(context: &Context, id: Option<&str>, running: Option<Status>) -> String {
    let place = context.ended().directory().display().to_string();
    match (id, running) {
        (Some(id), Some(status)) => format!("container {id:?} has not ended: it is {status}"),
        (Some(id), None) => {
            format!("nothing is known of the end of a container {id:?}: {place} has no record of one")
        }
        (None, _) => format!("nothing is known of the end of any container: {place} has no record"),
    }
}

/// What is said first.
fn sentence(death: &Death) -> String {
    let name = &death.name;
    let at = at(death.ended);
    let verdict = death.verdict();
    match &death.failure {
        Some(failure) => {
            let memory = verdict.limit.as_ref().map(|whose| format!("; {}", out_of_memory(death, whose)));
            format!("{name} did not start, at {at}: {}{}", failure.error, memory.unwrap_or_default())
        }
        None if death.exit.is_none() => format!("{name} had ended by {at}: {}", reason(death, &verdict)),
        None if death.reaped => {
            format!("{name} ended at {at} after {}: {}", duration(death), reason(death, &verdict))
        }
        None => format!("{name} had ended by {at}: {}", reason(death, &verdict)),
    }
}

fn reason(death: &Death, verdict: &Verdict) -> String {
    let exited = match death.exit {
        Some(Exit::Status(status)) => format!("its program exited with status {status}"),
        _ => String::new(),
    };
    match verdict.cause {
        Cause::Ended => match &verdict.limit {
            Some(whose) => format!("{exited}; {}", out_of_memory(death, whose)),
            None => exited,
        },
        Cause::Failed => exited + &shells_meaning(death.exit),
        Cause::OutOfMemory => {
            let why = verdict.limit.as_ref().map(|whose| want(death, whose)).unwrap_or_default();
            match exited.as_str() {
                "" => format!("killed by the kernel, because {why}"),
                exited => {
                    format!("{exited}, after the kernel had killed {} of it, because {why}", processes(death))
                }
            }
        }
        Cause::PidsExhausted => {
            let pids = death.usage.pids.clone().unwrap_or_default();
            let whose = match &verdict.limit {
                Some(Whose::Own) => {
                    format!("it had used up its own pids limit{}", in_brackets(&of_limit(&pids)))
                }
                Some(Whose::Inside) => "a pids limit made inside of it was used up".to_owned(),
                Some(Whose::Hidden | Whose::Ancestor(_) | Whose::Host) => {
                    "the pids limit of a cgroup above its own was used up".to_owned()
                }
                Some(Whose::NotObserved) | None => "whose pids limit, was not observed".to_owned(),
            };
            format!("{exited}, after it was refused a new process {}: {whose}", times(pids.refused))
        }
        Cause::Signal => by_signal(death, verdict),
        Cause::NotObserved => {
            let mut text = "how was not observed, because another program reaped it".to_owned();
            if let Some(whose) = &verdict.limit {
                text += &format!("; {}", out_of_memory(death, whose));
            }
            for sent in &death.sent {
                text += &format!("; `ctr {}` had sent it {}", sent.by, signal_name(sent.signal));
            }
            text
        }
        Cause::NotStarted => String::new(),
    }
}

fn by_signal(death: &Death, verdict: &Verdict) -> String {
    let Some(number) = death.exit.and_then(Exit::signal) else { return String::new() };
    let name = signal_name(number);
    let dumped = if matches!(death.exit, Some(Exit::Dumped(_))) { " (core dumped)" } else { "" };
    let kill = number == libc::SIGKILL;
    match verdict.killer {
        Some(Killer::Ctr) => {
            let by = death.sent.iter().find(|sent| sent.signal == number).map_or("", |sent| sent.by.as_str());
            let how = if by == "run" { "was sent and passed on" } else { "sent" };
            format!("ended by {name}, which `ctr {by}` {how}")
        }
        Some(Killer::Kernel) => format!("ended by {name} from the kernel{}{dumped}", fault(number)),
        Some(Killer::Outside) if verdict.limit.is_some() => format!(
            "killed by {name} from outside: no ctr has noted that it sent it, and it was not the kernel, which had killed {} of it before for want of \
             memory",
            processes(death)
        ),
        Some(Killer::Outside) => {
            format!(
                "killed by {name} from outside: no ctr has noted that it sent it, and it was not the kernel for want of memory"
            )
        }
        _ if kill && verdict.limit.is_some() => {
            let why = verdict.limit.as_ref().map(|whose| out_of_memory(death, whose)).unwrap_or_default();
            format!(
                "killed by {name}, which ctr did not send: {why}; whether that was this process, was not observed"
            )
        }
        _ if kill && death.early => format!(
            "killed by {name}, which ctr did not send; whether the kernel did, for want of memory, was not observed: \
             systemd had removed its cgroup"
        ),
        _ if kill => format!(
            "killed by {name}, which ctr did not send; whether the kernel did, for want of memory, was not observed: it \
             had no cgroup with the memory controller"
        ),
        _ => format!("ended by {name}{}{dumped}; who sent it was not observed", fault(number)),
    }
}

/// Why the kernel sends such a signal.
fn fault(number: i32) -> &'static str {
    match number {
        libc::SIGSEGV => ", as for memory that is not its own",
        libc::SIGBUS => ", as for memory with nothing behind it",
        libc::SIGFPE => ", as for a division by zero",
        libc::SIGILL => ", as for an instruction that the processor does not have",
        libc::SIGSYS => ", as for a system call that its filter forbids",
        _ => "",
    }
}

/// What shells mean by a status.
fn shells_meaning(exit: Option<Exit>) -> String {
    match exit {
        Some(Exit::Status(127)) => " (of a shell: a command was not found)".to_owned(),
        Some(Exit::Status(126)) => " (of a shell: a command could not be executed)".to_owned(),
        Some(Exit::Status(status @ 129..=192)) => signal::name(status - 128)
            .map_or_else(String::new, |name| format!(" (of a shell: its command was ended by {name})")),
        _ => String::new(),
    }
}

fn out_of_memory(death: &Death, whose: &Whose) -> String {
    format!("the kernel had killed {} of it, because {}", processes(death), want(death, whose))
}

fn want(death: &Death, whose: &Whose) -> String {
    let memory = death.usage.memory.clone().unwrap_or_default();
    match whose {
        Whose::Own => format!("it used up its own memory limit{}", in_brackets(&memory_of_limit(&memory))),
        Whose::Inside => "a memory limit made inside of it was used up".to_owned(),
        Whose::Ancestor(cgroup) => {
            format!("the memory limit of a cgroup above its own was used up: {}", cgroup.display())
        }
        Whose::Host => "the host's memory was used up, no limit of its own or above".to_owned(),
        Whose::Hidden => "the host's memory, or a limit above what is seen here, was used up".to_owned(),
        Whose::NotObserved => "memory was used up (whose was not observed)".to_owned(),
    }
}

fn processes(death: &Death) -> String {
    match death.usage.memory.as_ref().map_or(0, |memory| memory.killed) {
        1 => "1 process".to_owned(),
        killed => format!("{killed} processes"),
    }
}

/// Behind a blank, unless nothing is known.
fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

fn memory_of_limit(memory: &Memory) -> String {
    let limit = memory.limit.map(bytes);
    let peak = memory.peak.map(|peak| format!("peak {}", bytes(peak)));
    [limit, peak].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn of_limit(amount: &Amount) -> String {
    let limit = amount.limit.map(|limit| limit.to_string());
    let peak = amount.peak.map(|peak| format!("peak {peak}"));
    [limit, peak].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn to_text(death: &Death) -> String {
    let mut text = sentence(death) + "\n";
    for (name, fact) in facts(death) {
        text += &format!("  {name:<11}{fact}\n");
    }
    output::printable(&text).into_owned()
}

fn facts(death: &Death) -> Vec<(&'static str, String)> {
    let usage = &death.usage;
    let mut facts = Vec::new();
    if let Some(failure) = &death.failure {
        facts.push(("phase", failure.phase.clone()));
    } else {
        facts.push(("began", rfc3339(death.began)));
        let exit = match death.exit {
            Some(Exit::Status(status)) => format!("status {status}"),
            Some(Exit::Signal(number)) => signal_name(number),
            Some(Exit::Dumped(number)) => format!("{}, core dumped", signal_name(number)),
            None => "not observed".to_owned(),
        };
        facts.push(("exit", exit));
    }
    for sent in &death.sent {
        let name = signal_name(sent.signal);
        facts.push(("signal", format!("{name} by `ctr {}` at {}", sent.by, at(sent.at))));
    }
    let is_made = death.failure.is_none() || *usage != Default::default();
    facts.extend(is_made.then(|| ("memory", usage.memory.as_ref().map_or_else(not_observed, memory_fact))));
    facts.extend(usage.swap.as_ref().map(|swap| ("swap", amount_fact(swap, bytes))));
    facts.extend(is_made.then(|| {
        let number = |number: u64| number.to_string();
        ("pids", usage.pids.as_ref().map_or_else(not_observed, |pids| amount_fact(pids, number)))
    }));
    facts.extend(usage.cpu.as_ref().map(|cpu| {
        let throttled = match cpu.throttled {
            0 => "never throttled".to_owned(),
            count => format!("throttled {}, for {} in all", times(count), seconds(cpu.throttled_time)),
        };
        ("cpu", format!("{} used, {throttled}", seconds(cpu.used)))
    }));
    for (size, refused) in usage.huge_pages.iter().filter(|(_, refused)| **refused > 0) {
        facts.push(("huge pages", format!("of {size} refused {}", times(*refused))));
    }
    if !usage.pressure.is_empty() {
        let waited = |(kind, (some, _)): (&String, &(u64, u64))| format!("{kind} {}", seconds(*some));
        let waited: Vec<String> = usage.pressure.iter().map(waited).collect();
        facts.push(("pressure", format!("waited for {}", waited.join(", "))));
    }
    if death.early {
        facts.push(("note", "systemd had removed its cgroup by the end: amounts are of before".to_owned()));
    }
    facts.extend(death.above.iter().flat_map(above_facts));
    facts
}

fn not_observed() -> String {
    "not observed: it had no cgroup with this controller, or that was gone".to_owned()
}

fn memory_fact(memory: &Memory) -> String {
    let mut parts = vec![peak_of(memory.peak, memory.limit, bytes)];
    if memory.reached > 0 {
        parts.push(format!("limit reached {}", times(memory.reached)));
    }
    if memory.exhausted > 0 {
        parts.push(format!("used up {}", times(memory.exhausted)));
    }
    if memory.killed > 0 {
        parts.push(format!("{} killed", memory.killed));
    }
    parts.join(", ")
}

fn amount_fact(amount: &Amount, show: impl Fn(u64) -> String) -> String {
    let peak = peak_of(amount.peak, amount.limit, show);
    if amount.refused == 0 { peak } else { format!("{peak}, refused {}", times(amount.refused)) }
}

fn peak_of(peak: Option<u64>, limit: Option<u64>, show: impl Fn(u64) -> String) -> String {
    match (peak, limit) {
        (Some(peak), Some(limit)) => format!("peak {} of {}", show(peak), show(limit)),
        (Some(peak), None) => format!("peak {}", show(peak)),
        (None, Some(limit)) => format!("limit {}, peak not observed", show(limit)),
        (None, None) => "peak not observed".to_owned(),
    }
}

fn above_facts(above: &Above) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    for level in &above.risen {
        let cgroup = level.cgroup.display();
        if level.exhausted > 0 {
            facts.push(("above", format!("memory of {cgroup} used up {} meanwhile", times(level.exhausted))));
        }
        if level.refused > 0 {
            let count = times(level.refused);
            facts.push((
                "above",
                format!("pids limit of {cgroup} reached {count} meanwhile, by it or others"),
            ));
        }
    }
    facts
}

/// For programs: every key is always there, `null` where nothing was observed.
fn to_json(death: &Death) -> Value {
    let verdict = death.verdict();
    let number = death.exit.and_then(Exit::signal);
    let status = match death.exit {
        Some(Exit::Status(status)) => Some(status),
        _ => None,
    };
    let (limit, cgroup) = match verdict.limit {
        None => (None, None),
        Some(Whose::Own) => (Some("own"), None),
        Some(Whose::Inside) => (Some("inside"), None),
        Some(Whose::Ancestor(cgroup)) => (Some("ancestor"), Some(cgroup)),
        Some(Whose::Host) => (Some("host"), None),
        Some(Whose::Hidden) => (Some("above"), None),
        Some(Whose::NotObserved) => (Some("not-observed"), None),
    };
    let sent: Vec<Value> = death
        .sent
        .iter()
        .map(|sent| json!({"signal": signal_name(sent.signal), "at": rfc3339(sent.at), "by": sent.by}))
        .collect();
    let usage = &death.usage;
    let pressure: serde_json::Map<String, Value> = usage
        .pressure
        .iter()
        .map(|(kind, (some, full))| {
            (kind.clone(), json!({"someMicroseconds": some, "fullMicroseconds": full}))
        })
        .collect();
    json!({
        "name": death.name,
        "root": death.root,
        "cause": verdict.cause,
        "killer": verdict.killer,
        "limit": limit,
        "limitCgroup": cgroup,
        "sentence": sentence(death),
        "began": rfc3339(death.began),
        "ended": rfc3339(death.ended),
        "reaped": death.reaped,
        "exitStatus": status,
        "signal": number.map(signal_name),
        "coreDumped": matches!(death.exit, Some(Exit::Dumped(_))),
        "phase": death.failure.as_ref().map(|failure| &failure.phase),
        "error": death.failure.as_ref().map(|failure| &failure.error),
        "sent": sent,
        "memory": usage.memory.as_ref().map(|memory| json!({
            "limit": memory.limit, "peak": memory.peak, "reached": memory.reached, "exhausted": memory.exhausted,
            "killed": memory.killed, "outlived": memory.outlived,
        })),
        "swap": usage.swap.as_ref().map(amount_json),
        "pids": usage.pids.as_ref().map(amount_json),
        "cpu": usage.cpu.as_ref().map(|cpu| json!({
            "usedMicroseconds": cpu.used, "throttled": cpu.throttled, "throttledMicroseconds": cpu.throttled_time,
        })),
        "hugePagesRefused": usage.huge_pages,
        "usageSeenEarly": death.early,
        "pressure": pressure,
        "above": death.above.as_ref().map(|above| above.risen.iter().map(|level| json!({
            "cgroup": level.cgroup, "memoryExhausted": level.exhausted, "pidsRefused": level.refused,
        })).collect::<Vec<Value>>()),
    })
}

fn amount_json(amount: &Amount) -> Value {
    json!({"limit": amount.limit, "peak": amount.peak, "refused": amount.refused})
}

pub(super) fn signal_name(number: i32) -> String {
    signal::name(number).unwrap_or_else(|| format!("signal {number}"))
}

fn rfc3339(time: Time) -> String {
    time::rfc3339_nanos(time::at(time))
}

/// `2026-11-25 12:03:04 UTC`.
fn at(time: Time) -> String {
    time::rfc3339(time::at(time)).replace('T', " ").replace('Z', " UTC")
}

fn duration(death: &Death) -> String {
    let lived = time::at(death.ended).duration_since(time::at(death.began)).unwrap_or_default();
    seconds(lived.as_micros() as u64)
}

/// As many digits as are of interest: `0.004 s`, `3.2 s`, `75 s`, `2 h 05 min`.
fn seconds(micros: u64) -> String {
    let whole = micros / 1_000_000;
    match whole {
        0 => format!("{:.3} s", micros as f64 / 1e6),
        1..10 => format!("{:.1} s", micros as f64 / 1e6),
        10..120 => format!("{whole} s"),
        120..7200 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// `64 MiB`, `1.4 GiB`.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    let amount = bytes as f64 / (1_u64 << (10 * power)) as f64;
    let text = format!("{amount:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[power as usize])
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctr_runtime::death::{Cpu, Failure, Level, Sent, Usage};

    fn death(exit: Exit) -> Death {
        let memory = Memory { limit: Some(64 << 20), peak: Some(64 << 20), ..Memory::default() };
        Death {
            name: "web".into(),
            root: "/run/ctr".into(),
            began: (1_798_761_590, 0),
            ended: (1_798_761_593, 250_000_000),
            reaped: true,
            exit: Some(exit),
            own_pids: true,
            usage: Usage { memory: Some(memory), ..Usage::default() },
            above: Some(Above::default()),
            ..Death::default()
        }
    }

    fn with(death: Death, change: impl Fn(&mut Death)) -> Death {
        let mut death = death;
        change(&mut death);
        death
    }

    fn starved(exit: Exit, own: u64) -> Death {
        with(death(exit), |death| {
            if let Some(memory) = &mut death.usage.memory {
                (memory.killed, memory.exhausted, memory.exhausted_own) = (1, own, own);
            }
        })
    }

    #[test]
    fn the_first_sentence_says_it() {
        let killed = Exit::Signal(libc::SIGKILL);
        let ended = "web ended at 2026-12-31 23:59:53 UTC after 3.2 s: ";
        let sent = |signal, by: &str| {
            with(death(Exit::Signal(signal)), |death| {
                death.sent = vec![Sent { signal, at: death.ended, by: by.into() }];
            })
        };
        for (death, expected) in [
            (death(Exit::Status(0)), "its program exited with status 0"),
            (death(Exit::Status(3)), "its program exited with status 3"),
            (
                death(Exit::Status(139)),
                "its program exited with status 139 (of a shell: its command was ended by SIGSEGV)",
            ),
            (
                starved(killed, 1),
                "killed by the kernel, because it used up its own memory limit (64 MiB, peak 64 MiB)",
            ),
            (
                starved(Exit::Status(137), 1),
                "its program exited with status 137, after the kernel had killed 1 process of it, because it used up \
                 its own memory limit (64 MiB, peak 64 MiB)",
            ),
            (
                starved(killed, 0),
                "killed by the kernel, because the host's memory was used up, no limit of its own or above",
            ),
            (
                with(starved(killed, 0), |death| {
                    let level = Level { cgroup: "/sys/fs/cgroup/slice".into(), exhausted: 1, refused: 0 };
                    death.above = Some(Above { risen: vec![level], hidden: false });
                }),
                "killed by the kernel, because the memory limit of a cgroup above its own was used up: \
                 /sys/fs/cgroup/slice",
            ),
            (
                death(killed),
                "killed by SIGKILL from outside: no ctr has noted that it sent it, and it was not the kernel for want of memory",
            ),
            (
                with(death(killed), |death| death.usage.memory = None),
                "killed by SIGKILL, which ctr did not send; whether the kernel did, for want of memory, was not \
                 observed: it had no cgroup with the memory controller",
            ),
            (sent(libc::SIGTERM, "stop"), "ended by SIGTERM, which `ctr stop` sent"),
            (sent(libc::SIGINT, "run"), "ended by SIGINT, which `ctr run` was sent and passed on"),
            (
                death(Exit::Dumped(libc::SIGSEGV)),
                "ended by SIGSEGV from the kernel, as for memory that is not its own (core dumped)",
            ),
            (
                with(death(Exit::Status(2)), |death| {
                    death.usage.pids =
                        Some(Amount { limit: Some(5), peak: Some(5), refused: 4, refused_own: Some(4) });
                }),
                "its program exited with status 2, after it was refused a new process 4 times: it had used up its own \
                 pids limit (5, peak 5)",
            ),
        ] {
            assert_eq!(sentence(&death), format!("{ended}{expected}"));
        }
        let unseen = with(sent(libc::SIGTERM, "kill"), |death| (death.exit, death.reaped) = (None, false));
        assert_eq!(
            sentence(&unseen),
            "web had ended by 2026-12-31 23:59:53 UTC: how was not observed, because another program reaped it; `ctr \
             kill` had sent it SIGTERM"
        );
        let failed = with(death(killed), |death| {
            death.failure = Some(Failure { phase: "exec".into(), error: "exec: \"x\": not found".into() });
            death.exit = None;
        });
        assert_eq!(
            sentence(&failed),
            "web did not start, at 2026-12-31 23:59:53 UTC: exec: \"x\": not found"
        );
    }

    #[test]
    fn facts_follow() {
        let mut death = starved(Exit::Signal(libc::SIGKILL), 1);
        death.usage.cpu = Some(Cpu { used: 1_200_000, throttled: 5, throttled_time: 400_000 });
        death.usage.pressure.insert("io".into(), (2000, 0));
        let text = to_text(&death);
        let facts: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            facts,
            [
                "  began      2026-12-31T23:59:50.000000000Z",
                "  exit       SIGKILL",
                "  memory     peak 64 MiB of 64 MiB, used up once, 1 killed",
                "  pids       not observed: it had no cgroup with this controller, or that was gone",
                "  cpu        1.2 s used, throttled 5 times, for 0.400 s in all",
                "  pressure   waited for io 0.002 s",
            ]
        );
    }

    /// What a hook printed must not move the reader's cursor, or worse.
    #[test]
    fn nothing_said_reaches_the_terminal_as_a_command() {
        let mut death = death(Exit::Status(0));
        death.failure = Some(Failure { phase: "hook prestart".into(), error: "a\x1b[2Jb\u{9b}c\nd".into() });
        let text = to_text(&death);
        assert!(text.contains("a\\u{1b}[2Jb\\u{9b}c\nd"), "{text}");
    }

    #[test]
    fn programs_find_every_key() {
        let value = to_json(&starved(Exit::Signal(libc::SIGKILL), 1));
        let expected = json!({
            "cause": "out-of-memory", "killer": "kernel", "limit": "own", "signal": "SIGKILL", "exitStatus": null,
            "coreDumped": false, "phase": null, "error": null, "pids": null, "limitCgroup": null,
        });
        for (key, value_expected) in expected.as_object().unwrap() {
            assert_eq!(value.get(key), Some(value_expected), "{key}");
        }
        assert_eq!(value["memory"]["peak"], 64 << 20);
    }

    #[test]
    fn amounts() {
        for (number, text) in
            [(0, "0 bytes"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (u64::MAX, "16777216 TiB")]
        {
            assert_eq!(bytes(number), text);
        }
        for (micros, text) in
            [(4000, "0.004 s"), (3_250_000, "3.2 s"), (75_000_000, "75 s"), (7_500_000_000, "2 h 05 min")]
        {
            assert_eq!(seconds(micros), text);
        }
    }
}
