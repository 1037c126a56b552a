//! `--volume`, `--mount` and `--tmpfs`: podman's words for mounts, as the specification's.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use oci_spec::runtime::{Mount, MountBuilder};

use crate::size::Size;

/// A mount, by its parts.
pub(super) fn mount(destination: &Path, kind: &str, source: &Path, options: Vec<String>) -> Result<Mount> {
    let mount = MountBuilder::default().destination(destination).typ(kind).source(source).options(options);
    Ok(mount.build()?)
}

/// The options as strings.
pub(super) fn options(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Reads `SRC:DST[:OPTS]`; a relative SRC is in `directory`.
pub(super) fn volume(text: &str, directory: Option<&Path>) -> Result<Mount> {
    let parts: Vec<_> = text.split(':').collect();
    let (source, target, words) = match parts.as_slice() {
        [source, target] => (source, target, ""),
        [source, target, words] => (source, target, *words),
        _ => bail!("--volume {text}: expected SRC:DST or SRC:DST:OPTS"),
    };
    let fault = |why: anyhow::Error| why.context(format!("--volume {text}"));
    if !source.contains('/') && *source != "." && *source != ".." {
        bail!("--volume {text}: {source:?} is not a path, and there are no named volumes: write ./{source}");
    }
    let source = absolute(source, directory).map_err(fault)?;
    let target = destination(target).map_err(fault)?;
    mount(&target, "bind", &source, bind_options(words.split(',')).map_err(fault)?)
}

/// Reads `DST[:OPTS]`.
pub(super) fn tmpfs(text: &str) -> Result<Mount> {
    let (target, words) = text.split_once(':').unwrap_or((text, ""));
    let target = destination(target).map_err(|why| why.context(format!("--tmpfs {text}")))?;
    let words: Vec<_> = words.split(',').filter(|word| !word.is_empty()).collect();
    mount(&target, "tmpfs", Path::new("tmpfs"), tmpfs_options(&words))
}

/// Reads `type=bind|tmpfs,src=..,dst=..[,OPTION..]`.
pub(super) fn worded(text: &str, directory: Option<&Path>) -> Result<Mount> {
    read_worded(text, directory).map_err(|why| why.context(format!("--mount {text}")))
}

fn read_worded(text: &str, directory: Option<&Path>) -> Result<Mount> {
    let (mut kind, mut source, mut target, mut words) = ("bind", None, None, Vec::new());
    for word in text.split(',') {
        match word.split_once('=') {
            Some(("type", value)) => kind = value,
            Some(("src" | "source", value)) => source = Some(value),
            Some(("dst" | "destination" | "target", value)) => target = Some(value),
            Some(("bind-propagation", value)) => words.push(value.to_owned()),
            Some(("tmpfs-size", value)) => words.push(format!("size={value}")),
            Some(("tmpfs-mode", value)) => words.push(format!("mode={value}")),
            Some(("ro" | "readonly", "true")) => words.push("ro".to_owned()),
            Some(("ro" | "readonly", "false")) => {}
            None if word == "readonly" => words.push("ro".to_owned()),
            _ => words.push(word.to_owned()),
        }
    }
    let Some(target) = target else { bail!("dst= is missing") };
    let target = destination(target)?;
    match (kind, source) {
        ("bind", Some(source)) => {
            let words = bind_options(words.iter().map(String::as_str))?;
            mount(&target, "bind", &absolute(source, directory)?, words)
        }
        ("bind", None) => bail!("src= is missing"),
        ("tmpfs", None) => {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            mount(&target, "tmpfs", Path::new("tmpfs"), tmpfs_options(&words))
        }
        ("tmpfs", Some(_)) => bail!("a tmpfs has no source"),
        _ => bail!("type={kind} is not one of bind and tmpfs"),
    }
}

/// What a bind mount may be asked for. `z`, `Z` and `U` change the host's files, which a mount should not.
const BIND_WORDS: [&str; 19] = [
    "bind", "rbind", "ro", "rw", "rro", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "private",
    "rprivate", "shared", "rshared", "slave", "rslave", "idmap", "ridmap",
];

const PROPAGATION: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// The options of a bind mount: podman's defaults, unless the words say the opposite. `ro` holds for the mounts
/// below too.
fn bind_options<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    if let Some(unknown) = words.iter().find(|word| !BIND_WORDS.contains(word)) {
        bail!("{unknown:?} is not an option of a bind mount: expected one of {}", BIND_WORDS.join(", "));
    }
    let has = |among: &[&str]| words.iter().any(|word| among.contains(word));
    let defaults = [
        ("rbind", has(&["bind", "rbind"])),
        ("rprivate", has(&PROPAGATION)),
        ("nosuid", has(&["suid", "nosuid"])),
        ("nodev", has(&["dev", "nodev"])),
    ];
    let defaults = defaults.into_iter().filter(|(_, said)| !said).map(|(word, _)| word);
    let words = words.iter().map(|word| if *word == "ro" { "rro" } else { word });
    Ok(defaults.chain(words).map(str::to_owned).collect())
}

/// The options of a tmpfs; the file system itself judges those it is left with.
fn tmpfs_options(words: &[&str]) -> Vec<String> {
    let has = |among: &[&str]| words.iter().any(|word| among.contains(word));
    let defaults = [
        ("nosuid", has(&["suid", "nosuid"])),
        ("nodev", has(&["dev", "nodev"])),
        ("tmpcopyup", has(&["tmpcopyup", "notmpcopyup"])),
    ];
    let defaults = defaults.into_iter().filter(|(_, said)| !said).map(|(word, _)| word);
    defaults.chain(words.iter().copied().filter(|word| *word != "notmpcopyup")).map(str::to_owned).collect()
}

/// The options of /dev/shm.
pub(super) fn shm_options(size: Size) -> Vec<String> {
    let mut words = options(&["nosuid", "noexec", "nodev", "mode=1777"]);
    words.push(format!("size={}", size.0));
    words
}

/// A path inside: absolute, without `..`, not the root directory itself.
pub(super) fn destination(text: &str) -> Result<PathBuf> {
    let path: PathBuf = Path::new(text).components().collect();
    if !path.is_absolute() {
        bail!("the path inside, {text:?}, is not absolute");
    }
    if path.components().any(|part| part == Component::ParentDir) || path == Path::new("/") {
        bail!("{text:?} cannot be mounted on");
    }
    Ok(path)
}

fn absolute(text: &str, directory: Option<&Path>) -> Result<PathBuf> {
    let path = Path::new(text);
    match directory {
        _ if path.is_absolute() => Ok(path.to_owned()),
        Some(directory) => Ok(directory.join(path)),
        None => bail!("{text:?} is relative, and the current directory is gone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(mount: Result<Mount>) -> String {
        match mount {
            Ok(mount) => format!(
                "{} {} {} {}",
                mount.typ().as_deref().unwrap_or_default(),
                mount.source().as_deref().unwrap_or(Path::new("")).display(),
                mount.destination().display(),
                mount.options().as_deref().unwrap_or_default().join(","),
            ),
            Err(error) => format!("{error:#}"),
        }
    }

    fn at_home() -> Option<&'static Path> {
        Some(Path::new("/home/u"))
    }

    #[test]
    fn volumes() {
        for (text, expected) in [
            ("/a:/b", "bind /a /b rbind,rprivate,nosuid,nodev"),
            ("./a:/b/:ro", "bind /home/u/./a /b rbind,rprivate,nosuid,nodev,rro"),
            ("/a:/b:rw,rshared,suid,dev,bind", "bind /a /b rw,rshared,suid,dev,bind"),
        ] {
            assert_eq!(told(volume(text, at_home())), expected);
        }
        for (text, part) in [
            ("/a", "expected SRC:DST"),
            ("a:/b", "write ./a"),
            ("/a:b", "not absolute"),
            ("/a:/", "cannot be mounted on"),
            ("/a:/b/../..", "cannot be mounted on"),
            ("/a:/b:Z", "\"Z\" is not an option"),
        ] {
            assert!(told(volume(text, at_home())).contains(part), "{text}");
        }
        assert!(told(volume("./a:/b", None)).contains("current directory is gone"));
    }

    #[test]
    fn mounts() {
        for (text, expected) in [
            ("type=bind,src=/a,dst=/b,ro", "bind /a /b rbind,rprivate,nosuid,nodev,rro"),
            ("source=/a,target=/b,readonly=true", "bind /a /b rbind,rprivate,nosuid,nodev,rro"),
            (
                "src=/a,destination=/b,ro=false,bind-propagation=rslave",
                "bind /a /b rbind,nosuid,nodev,rslave",
            ),
            (
                "type=tmpfs,dst=/t,tmpfs-size=1m,noexec",
                "tmpfs tmpfs /t nosuid,nodev,tmpcopyup,size=1m,noexec",
            ),
        ] {
            assert_eq!(told(worded(text, at_home())), expected);
        }
        for (text, part) in [
            ("type=bind,dst=/b", "src= is missing"),
            ("src=/a", "dst= is missing"),
            ("type=volume,src=a,dst=/b", "not one of bind and tmpfs"),
            ("type=tmpfs,src=/a,dst=/b", "has no source"),
            ("type=bind,src=/a,dst=/b,size=1", "is not an option"),
        ] {
            assert!(told(worded(text, at_home())).contains(part), "{text}");
        }
    }

    #[test]
    fn tmpfs_mounts() {
        assert_eq!(told(tmpfs("/t")), "tmpfs tmpfs /t nosuid,nodev,tmpcopyup");
        assert_eq!(told(tmpfs("/t:size=1m,suid,notmpcopyup")), "tmpfs tmpfs /t nodev,size=1m,suid");
    }
}
