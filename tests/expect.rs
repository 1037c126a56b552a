//! Tests of what a program needs: `run --timeout`, `--expect`, `--report`, `--junit`, `fit`, and the library.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, case, cgroup2, is_root, program, skip};
use ctr::container::{Container, Verdict};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Whether what a container of ours uses is counted here.
fn is_counted(case: &Case) -> bool {
    let report = report(case, &[], "true").1;
    report["memoryPeak"].is_u64() && report["pidsPeak"].is_u64()
}

/// Runs a script in the image `host`; its exit status, and the report.
fn report(case: &Case, flags: &[&str], script: &str) -> (i32, Value) {
    let path = case.path("report.json");
    let report = format!("--report={}", path.display());
    let out = case.host(&[&[report.as_str(), "--limits=best-effort"], flags].concat(), script);
    (out.status, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
}

/// systemd removes the cgroup of a scope before anybody can read what it has counted, but not that of a slice.
#[test]
fn a_slice_of_systemd_s_goes_with_its_container() {
    let mut case = case!();
    case.id += "+x";
    let out = case.host(&["--detach", "--memory=64M"], "sleep 1000");
    let record = common::record(&case.store().join(&case.id)).filter(|record| record["slice"].is_string());
    let Some(record) = record else { skip!(format!("no scope of systemd's is used here: {}", out.stderr)) };
    let scope = PathBuf::from(record["cgroup"].as_str().unwrap());
    let slice = scope.parent().unwrap().to_owned();
    assert!(slice.to_str().unwrap().ends_with("\\x2bx.slice"), "{record}");
    assert!(scope.join("cgroup.procs").exists());
    case.ctr(&["delete", "--force", &case.id]).ok();
    assert!(!slice.exists());
}

#[test]
fn a_program_that_takes_too_long_is_ended() {
    let case = case!();
    let (status, report) = report(&case, &["--timeout", "200ms"], "trap '' TERM; sleep 1000");
    assert_eq!(
        (status, &report["timedOut"], &report["passed"]),
        (124, &true.into(), &false.into()),
        "{report}"
    );
    assert!(report["seconds"].as_f64().unwrap() < 60.0 && report["signal"] == 9, "{report}");
    let (status, report) = self::report(&case, &["--timeout", "1h"], "exit 3");
    assert_eq!((status, &report["status"], &report["timedOut"]), (3, &3.into(), &false.into()), "{report}");
}

#[test]
fn what_was_expected_decides_the_exit_status() {
    let case = case!();
    assert_eq!(report(&case, &["--expect", "time<1h"], "true").0, 0);
    let junit = case.path("junit.xml");
    let flag = format!("--junit={}", junit.display());
    let (status, report) = report(&case, &["--expect", "time<1h,time<1ms", &flag], "sleep .01");
    assert_eq!((status, &report["passed"]), (123, &false.into()));
    assert_eq!(report["expectations"][0]["passed"], true, "{report}");
    assert_eq!(report["expectations"][1]["expected"], "time<1ms", "{report}");
    let text = fs::read_to_string(&junit).unwrap();
    assert!(text.contains("tests=\"3\" failures=\"1\"") && text.contains("name=\"time&lt;1ms\""), "{text}");
    // A program that fails says more than what was expected of it.
    assert_eq!(self::report(&case, &["--expect", "time<1ms"], "sleep .01; exit 7").0, 7);
    let out = case.host(&["--expect", "memory.peak"], "true");
    assert!(out.status == 125 && out.stderr.contains("no expectation"), "{out:?}");
    let out = case.ctr(&case.hosting(&["--detach", "--expect", "no-oom"], &["true"]));
    assert!(out.status == 125 && out.stderr.contains("--detach"), "{out:?}");
}

#[test]
fn a_program_that_never_began_is_reported() {
    let case = case!();
    let path = case.path("report.json");
    let flag = format!("--report={}", path.display());
    let out = case.ctr(&case.hosting(&["--rm", &flag, "--limits=best-effort"], &["/no/such/program"]));
    assert_eq!(out.status, 127, "{out:?}");
    let report: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(
        report["failure"].as_str().unwrap().contains("no such file") && report["passed"] == false,
        "{report}"
    );
}

/// Where it cannot be written nothing has run; what is no file is not followed and not waited for.
#[test]
fn a_report_that_cannot_be_written_is_known_before() {
    let case = case!();
    let victim = case.path("victim");
    fs::write(&victim, "mine").unwrap();
    std::os::unix::fs::symlink(&victim, case.path("link")).unwrap();
    nix::unistd::mkfifo(&case.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for place in ["link", "pipe", "missing/report", "."] {
        for flag in ["--report", "--junit"] {
            let flag = format!("{flag}={}", case.path(place).display());
            let out = case.host(&[&flag, "--limits=best-effort"], "echo ran");
            assert!(out.status == 125 && out.stdout.is_empty(), "{flag}: {out:?}");
        }
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    let both = format!("{}", case.path("both").display());
    let out = case.host(&["--report", &both, "--junit", &both], "echo ran");
    assert!(out.status == 125 && out.stderr.contains("the same file"), "{out:?}");
    let left: Vec<_> = fs::read_dir(case.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{left:?}");
}

#[test]
fn what_cannot_be_counted_is_not_taken_for_nothing() {
    let case = case!();
    if is_counted(&case) {
        skip!("everything is counted here");
    }
    let (status, report) = report(&case, &["--expect", "no-oom"], "true");
    assert_eq!((status, &report["expectations"][0]["found"]), (123, &Value::Null), "{report}");
}

#[test]
fn what_a_program_used_is_counted() {
    let case = case!();
    if !is_counted(&case) {
        skip!("no cgroup with controllers can be had here");
    }
    let expected = "memory.peak>20M,memory.peak<40M,pids.peak=3,no-oom,no-swap,no-refused";
    let limits = ["--memory", "64M", "--swap", "0", "--pids", "32", "--cpus", "0.5", "--expect", expected];
    let script = "sleep .1 & dd if=/dev/zero of=/dev/null bs=24M count=1 & wait";
    let (status, report) = report(&case, &limits, script);
    assert_eq!(status, 0, "{report}");
    let (status, report) =
        self::report(&case, &["--memory", "16M", "--swap", "0", "--expect", "no-oom"], script);
    assert!(status != 0 && report["oomKills"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn fit_finds_what_a_command_needs() {
    let case = case!();
    if !is_counted(&case) {
        skip!("no cgroup with controllers can be had here");
    }
    // dd needs its buffer, and next to nothing besides; the shell waits for two.
    let script = "dd if=/dev/zero of=/dev/null bs=32M count=1 & first=$!; sleep .2 & second=$!; wait $first && wait $second";
    let out = case.ctr(&["fit", "--tries", "1", "--json", "--", "sh", "-c", script]).ok();
    let found: Value = serde_json::from_str(&out).unwrap();
    let (memory, need) = (found["memory"].as_f64().unwrap(), f64::from(32 << 20));
    assert!(memory >= need && memory <= need * 1.1, "{found}");
    assert_eq!(found["pids"], 3, "{found}");
    let error = case.ctr(&["fit", "--", "sh", "-c", "echo no luck >&2; exit 3"]).err();
    assert!(error.contains("status 3") && error.contains("no luck"), "{error}");
}

#[test]
fn the_library_runs_containers_from_a_program_with_threads() {
    let case = case!();
    let counted = is_counted(&case);
    let threads: Vec<_> = (0..4)
        .map(|number| {
            std::thread::spawn(move || {
                let container = Container::host().program(program()).flag("--limits", "best-effort");
                let outcome = container.timeout(Duration::from_secs(50)).run([
                    "sh",
                    "-c",
                    &format!("echo {number}; exit {number}"),
                ]);
                (number, outcome.unwrap())
            })
        })
        .collect();
    for thread in threads {
        let (number, outcome) = thread.join().unwrap();
        assert_eq!((outcome.status, outcome.stdout), (number, format!("{number}\n").into_bytes()));
        assert_eq!(outcome.verdict.passed(), number == 0);
        assert_eq!(outcome.peaks.pids.is_some(), counted);
    }
    let slow = Container::host()
        .program(program())
        .flag("--limits", "best-effort")
        .timeout(Duration::from_millis(100));
    let outcome = slow.run(["sleep", "100"]).unwrap();
    assert_eq!(
        (outcome.status, outcome.verdict),
        (124, Verdict::Failed(vec!["it was ended by --timeout".into()]))
    );
    let error = Container::host().program("/no/such/ctr").run(["true"]).unwrap_err();
    assert!(error.to_string().contains("CTR_BIN"), "{error}");
    if !is_root() && cgroup2().is_some() && !counted {
        let outcome = Container::host().program(program()).memory("64M").run(["true"]).unwrap();
        assert!(outcome.status == 125 && outcome.report.failure.is_some(), "{outcome:?}");
    }
}
