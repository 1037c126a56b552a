//! The program.

#![no_main]

#[global_allocator]
static MEMORY: ctr_isolation::sys::arena::Arena = ctr_isolation::sys::arena::Arena::new();

ctr_isolation::entry!(run);

/// Does what the arguments say; the status to end with.
fn run() -> u8 {
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let program = ctr::cli::program_name(&argv);
    let (global, verb) = match ctr::cli::parse(argv) {
        Ok(parsed) => parsed,
        Err(exit) => return exit.print(),
    };
    let own_error = verb.own_error_status();
    match ctr::commands::dispatch(global.clone(), verb, &program) {
        Ok(status) => status,
        Err(error) => {
            ctr::log::failure(
                &global,
                &error,
                ctr::hint::of(&error, &global, &program, own_error == 125).as_deref(),
            );
            if own_error == 125 { ctr::commands::run_image::status(&error) } else { own_error }
        }
    }
}
