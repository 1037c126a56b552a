//! Has the linker put the functions that short commands use side by side (see benches/order), and leave out the names.

fn main() {
    println!("cargo:rerun-if-changed=benches/startup-order");
    println!("cargo:rerun-if-env-changed=CTR_SYMBOLS");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Rust's own linker, the default here, knows the option; others may not.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu") && is("PROFILE", "release")
    {
        let order = format!("{}/benches/startup-order", env!("CARGO_MANIFEST_DIR"));
        println!("cargo:rustc-link-arg-bins=-Wl,--symbol-ordering-file={order},--no-warn-symbol-ordering");
        // Not by the profile's `strip`: that is part of every name, and the order then one of names that are not there.
        if std::env::var_os("CTR_SYMBOLS").is_none() {
            println!("cargo:rustc-link-arg-bins=-Wl,--strip-all");
        }
    }
}
