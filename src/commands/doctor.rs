//! `doctor`: what this host offers and withholds, and what mends it.

use anyhow::Result;
use ctr_isolation::sys::process;
use serde::Serialize;

use super::context::Context;
use crate::{
    cli::run::Doctor,
    doctor::{
        self, Finding, Group, Verdict,
        host::{Host, read},
    },
    output::{self, CYAN, GREEN, RED, YELLOW, paint},
};

/// Examines this host and prints the findings; 1 when there is a problem.
///
/// # Errors
/// When they cannot be printed.
pub fn doctor(context: &Context, flags: &Doctor, program: &str) -> Result<u8> {
    // Whoever is interrupted leaves nothing behind, too: that is heard when all is done.
    let held = process::signalfd(&[libc::SIGHUP, libc::SIGINT, libc::SIGTERM])?;
    let host = Host::look(program, &context.settings.store);
    let groups = doctor::examine(&host);
    drop(held);
    process::unblock_signals();
    if flags.json {
        output::json(&Document::new(&host, &groups))?;
    } else {
        output::print(&page(&host, &groups, output::is_coloured(&std::io::stdout())))?;
    }
    Ok(u8::from(doctor::count(&groups, "problem") > 0))
}

/// What `--json` prints. The keys stay; a finding has all of them.
#[derive(Serialize)]
struct Document<'a> {
    user: &'a str,
    uid: u32,
    user_namespace: bool,
    container: Option<&'a str>,
    kernel: String,
    store: &'a std::path::Path,
    ok: usize,
    warnings: usize,
    problems: usize,
    findings: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    group: &'a str,
    name: &'a str,
    verdict: &'a str,
    tried: &'a str,
    found: &'a str,
    reason: Option<&'a str>,
    loses: Option<&'a str>,
    mend: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn new(host: &'a Host, groups: &'a [Group]) -> Self {
        let lines =
            groups.iter().flat_map(|group| group.findings.iter().map(|found| Line::new(group.name, found)));
        Document {
            user: &host.user,
            uid: host.facts.uid,
            user_namespace: host.facts.in_user_namespace,
            container: host.container.as_deref(),
            kernel: kernel(),
            store: &host.store,
            ok: doctor::count(groups, "ok"),
            warnings: doctor::count(groups, "warning"),
            problems: doctor::count(groups, "problem"),
            findings: lines.collect(),
        }
    }
}

impl<'a> Line<'a> {
    fn new(group: &'a str, finding: &'a Finding) -> Self {
        let Finding { name, tried, found, reason, verdict } = finding;
        let (loses, mend) = verdict.trouble();
        Line { group, name, verdict: verdict.name(), tried, found, reason: reason.as_deref(), loses, mend }
    }
}

fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").trim().to_owned()
}

/// The page for people: a line for what is well, more for what is not.
fn page(host: &Host, groups: &[Group], coloured: bool) -> String {
    let inside =
        host.container.as_ref().map(|engine| format!(", in a container of {engine}")).unwrap_or_default();
    let namespace = if host.facts.in_user_namespace { ", in a user namespace" } else { "" };
    let mut page = format!("as {} on Linux {}{inside}{namespace}\n", host.user, kernel());
    let names = groups.iter().flat_map(|group| group.findings.iter().map(|found| found.name.len()));
    let width = names.max().unwrap_or(0);
    for group in groups {
        page += &format!("\n{}\n", paint(group.name, CYAN, coloured));
        for finding in &group.findings {
            page += &lines(finding, width, coloured);
        }
    }
    let count = |verdict| doctor::count(groups, verdict);
    page += &format!(
        "\n{}, {}, {}\n",
        counted(count("ok"), "ok", "ok"),
        counted(count("warning"), "warning", "warnings"),
        counted(count("problem"), "problem", "problems")
    );
    page
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn lines(finding: &Finding, width: usize, coloured: bool) -> String {
    let colour = match finding.verdict {
        Verdict::Ok => GREEN,
        Verdict::Warning { .. } => YELLOW,
        Verdict::Problem { .. } => RED,
    };
    let verdict = paint(&format!("{:7}", finding.verdict.name()), colour, coloured);
    let mut text = format!("  {verdict}  {:width$}  {}\n", finding.name, finding.found);
    let (loses, mend) = finding.verdict.trouble();
    let Some(loses) = loses else { return text };
    let more = [
        ("tried", Some(finding.tried.as_str())),
        ("reason", finding.reason.as_deref()),
        ("loses", Some(loses)),
        ("mend", mend),
    ];
    for (word, said) in more {
        text += &said.map(|said| format!("{:11}{word:width$}  {said}\n", "")).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(verdict: Verdict, reason: Option<&str>) -> Finding {
        let reason = reason.map(str::to_owned);
        Finding { name: "overlay", tried: "mounted it".into(), found: "so".into(), reason, verdict }
    }

    #[test]
    fn what_is_not_well_says_all() {
        let problem = Verdict::Problem { loses: "much".into(), mend: "mend it".into() };
        assert_eq!(
            lines(&finding(problem, Some("not permitted")), 8, false),
            "  problem  overlay   so\n           tried     mounted it\n           reason    not permitted\n           \
             loses     much\n           mend      mend it\n"
        );
        let warning = Verdict::Warning { loses: "little".into(), mend: None };
        assert_eq!(
            lines(&finding(warning, None), 8, false),
            "  warning  overlay   so\n           tried     mounted it\n           loses     little\n"
        );
        assert_eq!(
            lines(&finding(Verdict::Ok, None), 8, true),
            "  \u{1b}[1;32mok     \u{1b}[0m  overlay   so\n"
        );
    }
}
