use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::Instant,
};

use tempfile::TempDir;

use super::*;

/// A host with Debian's layout, and something secret wherever something secret may be.
fn host() -> TempDir {
    let host = tempfile::tempdir().unwrap();
    let root = host.path();
    for (path, mode) in [
        ("usr/bin/sh", 0o755),
        ("usr/bin/bash", 0o755),
        ("usr/lib/os-release", 0o644),
        ("usr/local/bin/mine", 0o755),
        ("opt/tool/run", 0o755),
        ("etc/services", 0o644),
        ("etc/ld.so.cache", 0o644),
        ("etc/magic", 0o600),
        ("etc/default/locale", 0o644),
        ("etc/default/backup", 0o644),
        ("etc/python3.11/sitecustomize.py", 0o644),
        ("etc/java-17-openjdk/net.properties", 0o644),
        ("etc/java-17-openjdk/security/java.security", 0o644),
        ("etc/java-17-openjdk/management/jmxremote.password", 0o644),
        ("etc/ssl/certs/ca-certificates.crt", 0o644),
        ("etc/fonts/fonts.conf", 0o644),
        ("etc/fonts/conf.d/key", 0o600),
        ("etc/shadow", 0o640),
        ("etc/gshadow", 0o644),
        ("etc/machine-id", 0o444),
        ("etc/environment", 0o644),
        ("etc/profile.d/proxy.sh", 0o644),
        ("etc/wgetrc", 0o644),
        ("etc/ssh/ssh_host_ed25519_key", 0o644),
        ("etc/ssl/private/server.key", 0o644),
        ("root/.ssh/id_ed25519", 0o644),
        ("home/user/.aws/credentials", 0o644),
        ("var/lib/data", 0o644),
        ("run/secrets/token", 0o644),
        ("boot/key", 0o644),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let secret = path.components().any(|part| SECRETS.iter().any(|secret| part.as_os_str() == *secret));
        fs::write(&path, if secret || mode & 4 == 0 { "secret" } else { "public" }).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for (path, text) in [
        ("bin", "usr/bin"),
        ("etc/os-release", "../usr/lib/os-release"),
        ("etc/localtime", "/usr/share/zoneinfo/UTC"),
    ] {
        symlink(text, root.join(path)).unwrap();
    }
    host
}

const SECRETS: [&str; 13] = [
    "backup",
    "management",
    "shadow",
    "gshadow",
    "machine-id",
    "environment",
    "profile.d",
    "wgetrc",
    "ssh",
    "private",
    "root",
    "home",
    "var",
];

fn image(host: &Path) -> HostImage {
    let personal = Personal { hostname: "web".to_owned(), user: Some((1000, 100)), resolver: None };
    parts(&HostFacts::read(host).unwrap(), &personal)
}

fn installed(host: &Path) -> (HostImage, TempDir, Installed) {
    let (image, private) = (image(host), tempfile::tempdir().unwrap());
    let installed = install(&image, private.path()).unwrap();
    (image, private, installed)
}

/// Every file below `directory`, links not followed.
fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => walk(&entry.path(), found),
            _ => found.push(entry.path()),
        }
    }
}

#[test]
fn programs_are_lower_layers_and_links_stay_links() {
    let host = host();
    let image = image(host.path());
    let lowers: Vec<_> = image.lowers.iter().map(|lower| lower.destination.to_str().unwrap()).collect();
    assert_eq!(lowers, ["/opt", "/usr"]);
    assert!(image.links.contains(&("/bin".into(), "usr/bin".into())));
    fs::remove_file(host.path().join("bin")).unwrap();
    fs::create_dir(host.path().join("bin")).unwrap();
    fs::write(host.path().join("bin/ls"), "").unwrap();
    let facts = HostFacts::read(host.path()).unwrap();
    assert_eq!(parts(&facts, &Personal::default()).lowers[0].destination, Path::new("/bin"));
}

#[test]
fn software_can_be_installed_where_software_is() {
    let host = host();
    symlink("bin", host.path().join("usr/sbin")).unwrap();
    let (image, _private, installed) = installed(host.path());
    let number = image.lowers.iter().position(|lower| lower.destination == Path::new("/usr")).unwrap();
    let upper = &installed.layers[number].0;
    assert!(upper.join("bin").is_dir() && upper.join("local/bin").is_dir());
    assert!(!upper.join("sbin").exists(), "a directory above a link would hide it");
    assert!(!upper.join("include").exists(), "what the host has not is not made");
}

#[test]
fn etc_is_what_programs_need() {
    let host = host();
    let (image, _private, installed) = installed(host.path());
    for name in
        ["services", "ld.so.cache", "default/locale", "python3.11/sitecustomize.py", "fonts/fonts.conf"]
    {
        let copy = installed.rootfs.join("etc").join(name);
        assert_eq!(fs::read_to_string(&copy).unwrap(), "public", "{name}");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o644);
    }
    let binds: Vec<_> = image.binds.iter().map(|(inside, _)| inside.to_str().unwrap()).collect();
    assert_eq!(binds, ["/etc/ssl/certs", "/etc/java-17-openjdk/security"]);
    let link = |name: &str| fs::read_link(installed.rootfs.join("etc").join(name)).unwrap();
    assert_eq!(link("os-release"), Path::new("../usr/lib/os-release"));
    assert_eq!(link("localtime"), Path::new("/usr/share/zoneinfo/UTC"));
}

#[test]
fn accounts_are_the_container_s_own() {
    let host = host();
    let (_, _private, installed) = installed(host.path());
    let read = |name: &str| fs::read_to_string(installed.rootfs.join("etc").join(name)).unwrap();
    assert_eq!(
        read("passwd"),
        "root:*:0:0:root:/root:/bin/bash\nuser1000:*:1000:100:container user:/home:/bin/bash\n\
         nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    assert_eq!(read("group"), "root:*:0:\ntty:*:5:\ngroup100:*:100:\nnogroup:*:65534:\n");
    assert_eq!(read("hostname"), "web\n");
    assert!(read("hosts").starts_with("127.0.0.1\tlocalhost web\n"));
    assert_eq!(read("resolv.conf"), "");
    assert!(!installed.rootfs.join("etc/shadow").exists());
}

#[test]
fn nothing_secret_is_reachable() {
    let host = host();
    let (image, _private, installed) = installed(host.path());
    let mut files = Vec::new();
    walk(&installed.rootfs, &mut files);
    for (_, shown) in &image.binds {
        walk(shown, &mut files);
    }
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        assert_ne!(text, "secret", "{}", file.display());
        assert!(!file.ends_with("machine-id"));
    }
    for (path, source) in image.binds.iter().chain(&image.copies) {
        assert!(path.starts_with("/etc") && source.starts_with(host.path().join("etc")));
    }
    let programs = ["usr", "opt"].map(|name| host.path().join(name));
    assert!(image.lowers.iter().all(|lower| programs.contains(&lower.source)));
}

/// What would be shown of the machine the test runs on.
#[test]
fn nothing_secret_of_this_machine_is_named() {
    let image = parts(&HostFacts::read(Path::new("/")).unwrap(), &Personal::default());
    let sources = image.binds.iter().chain(&image.copies).map(|(_, source)| source);
    for source in sources {
        for secret in
            ["shadow", "gshadow", "machine-id", "ssh", "private", "sudoers", "environment", "gitconfig"]
        {
            assert!(!source.iter().any(|part| part == secret), "{}", source.display());
        }
        assert!(source.starts_with("/etc"), "{}", source.display());
    }
}

/// A link on the allow-list is copied as a link: what it leads to is never read.
#[test]
fn links_lead_nowhere_but_inside() {
    let host = host();
    let etc = host.path().join("etc");
    for (name, text) in [
        ("mime.types", "/root/.ssh/id_ed25519"),
        ("protocols", "shadow"),
        ("alternatives", "../home"),
        ("pki", "/root"),
    ] {
        symlink(text, etc.join(name)).unwrap();
    }
    fs::remove_dir_all(etc.join("fonts")).unwrap();
    symlink("ssh", etc.join("fonts")).unwrap();
    let (image, _private, installed) = installed(host.path());
    for name in ["mime.types", "protocols", "alternatives", "fonts", "pki"] {
        let path = installed.rootfs.join("etc").join(name);
        assert!(path.symlink_metadata().unwrap().is_symlink(), "{name}");
        assert!(
            !image
                .copies
                .iter()
                .chain(&image.binds)
                .any(|(inside, _)| inside.starts_with(Path::new("/etc").join(name)))
        );
    }
}

/// Between looking and copying a file became a link, then a fifo.
#[test]
fn a_file_that_changed_its_kind_is_left_out() {
    let host = host();
    let image = image(host.path());
    let services = host.path().join("etc/services");
    fs::remove_file(&services).unwrap();
    symlink("shadow", &services).unwrap();
    let cache = host.path().join("etc/ld.so.cache");
    fs::remove_file(&cache).unwrap();
    nix::unistd::mkfifo(&cache, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    let private = tempfile::tempdir().unwrap();
    let rootfs = install(&image, private.path()).unwrap().rootfs;
    assert!(!rootfs.join("etc/services").exists() && !rootfs.join("etc/ld.so.cache").exists());
    assert!(rootfs.join("etc/default/locale").exists());
}

/// Whoever could put a link where the image goes cannot make it go elsewhere.
#[test]
fn an_image_is_only_made_where_nothing_was() {
    let host = host();
    let (private, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(elsewhere.path(), private.path().join("rootfs")).unwrap();
    assert!(install(&image(host.path()), private.path()).is_err());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn modes_do_not_depend_on_the_caller_s_umask() {
    let host = host();
    // This thread's alone from now on: the other tests are threads of the same process.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let (image, _private, installed) = installed(host.path());
    for (path, mode) in &image.directories {
        let made = fs::metadata(installed.rootfs.join(path.strip_prefix("/").unwrap())).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, *mode, "{}", path.display());
    }
}

#[test]
fn a_host_without_usr_is_refused() {
    let host = tempfile::tempdir().unwrap();
    assert!(HostFacts::read(host.path()).is_err());
}

/// Not a benchmark: it fails where something has gone wrong by an order of magnitude.
#[test]
fn the_image_of_this_machine_takes_milliseconds() {
    let private = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let facts = HostFacts::read(Path::new("/")).unwrap();
    let looked = begin.elapsed();
    install(&parts(&facts, &Personal::default()), private.path()).unwrap();
    println!("looked {looked:?}, all {:?}", begin.elapsed());
    assert!(begin.elapsed().as_millis() < 300);
}
