//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let program = ctr::cli::program_name(&argv);
    let (global, verb) = match ctr::cli::parse(argv) {
        Ok(parsed) => parsed,
        Err(exit) => return exit.print(),
    };
    let own_error = verb.own_error_status();
    match ctr::commands::dispatch(global.clone(), verb, &program) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            ctr::log::failure(&global, &error, None);
            ExitCode::from(if own_error == 125 {
                ctr::commands::run_image::status(&error)
            } else {
                own_error
            })
        }
    }
}
