//! What of the host appears in the image. Whatever is not named here does not.

/// Where programs are, and what they run with. A link among them (/bin, mostly) stays a link.
pub(super) const PROGRAMS: [&str; 8] = ["bin", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "usr"];

/// Where software is installed to. In an ordinary user's container these belong to nobody, and nobody's directory
/// is not even root's to write to: so each gets an upper layer of its own.
pub(super) const PLACES: [&str; 15] = [
    "usr/bin",
    "usr/include",
    "usr/lib",
    "usr/libexec",
    "usr/local",
    "usr/local/bin",
    "usr/local/etc",
    "usr/local/include",
    "usr/local/lib",
    "usr/local/sbin",
    "usr/local/share",
    "usr/local/src",
    "usr/sbin",
    "usr/share",
    "usr/src",
];

/// What programs look for in /etc. A `*` stands for any letters of one name.
///
/// Left out, though harmless on most hosts, is what administrators put passwords into: environment, profile,
/// profile.d, wgetrc, gitconfig, pip.conf, npmrc, php.ini and the like. Accounts, hosts, resolv.conf and
/// nsswitch.conf are the container's own.
pub(super) const ETC: &[&str] = &[
    // What this userland is.
    "etc/alpine-release",
    "etc/arch-release",
    "etc/debian_version",
    "etc/fedora-release",
    "etc/gentoo-release",
    "etc/lsb-release",
    "etc/os-release",
    "etc/redhat-release",
    "etc/system-release",
    // The dynamic linker.
    "etc/ld-musl-*.path",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    // Names that stand for one of several programs.
    "etc/alternatives",
    // Tables of numbers.
    "etc/ethertypes",
    "etc/gai.conf",
    "etc/host.conf",
    "etc/networks",
    "etc/protocols",
    "etc/rpc",
    "etc/services",
    // Kinds of files.
    "etc/magic",
    "etc/magic.mime",
    "etc/mime.types",
    "etc/xattr.conf",
    // Place and language.
    "etc/default/locale",
    "etc/locale.alias",
    "etc/locale.conf",
    "etc/localtime",
    "etc/timezone",
    "etc/vconsole.conf",
    // Terminals, shells and accounts' rules (not the accounts).
    "etc/inputrc",
    "etc/login.defs",
    "etc/shells",
    "etc/terminfo",
    // Certificates of authorities, never private keys.
    "etc/ca-certificates.conf",
    "etc/ca-certificates/extracted",
    "etc/crypto-policies",
    "etc/pki/ca-trust/extracted",
    "etc/pki/tls/cert.pem",
    "etc/pki/tls/certs",
    "etc/pki/tls/openssl.cnf",
    "etc/ssl/cert.pem",
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
    // Languages and libraries.
    "etc/fonts",
    "etc/java-*-openjdk/*.cfg",
    "etc/java-*-openjdk/*.properties",
    "etc/java-*-openjdk/images",
    "etc/java-*-openjdk/jfr",
    "etc/java-*-openjdk/security",
    "etc/manpath.config",
    "etc/mke2fs.conf",
    "etc/perl/Net/libnet.cfg",
    "etc/python*/debian_config",
    "etc/python*/sitecustomize.py",
];

/// Whether `name` is one that `pattern` stands for.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        }
    }
}
