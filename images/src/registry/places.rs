//! Where on this host is said how registries are reached: directories and variables, read once and passed on.

use std::env;
use std::path::{Path, PathBuf};

/// The places that are looked at. The default is this process's environment.
#[derive(Clone, PartialEq, Eq)]
pub struct Places {
    /// `/etc`.
    pub system: PathBuf,
    /// `$XDG_CONFIG_HOME`, or `.config` in the home directory.
    pub config: Option<PathBuf>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`, or `/run/containers/UID` below which containers-auth.json(5) looks where that is
    /// missing.
    pub runtime: PathBuf,
    /// `$REGISTRY_AUTH_FILE`.
    pub auth_file: Option<PathBuf>,
    /// `$DOCKER_CONFIG`.
    pub docker_config: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF`.
    pub registries_conf: Option<PathBuf>,
    /// Where podman keeps what a person has chosen for a short name.
    pub aliases: Option<PathBuf>,
    /// `$SSL_CERT_FILE`.
    pub roots: Option<PathBuf>,
    /// `$HTTPS_PROXY`, for connections with TLS.
    pub https_proxy: Option<String>,
    /// `$HTTP_PROXY`, for those without.
    pub http_proxy: Option<String>,
    /// `$NO_PROXY`.
    pub no_proxy: String,
}

impl std::fmt::Debug for Places {
    /// Without the proxies, whose addresses may have a password in them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places")
            .field("system", &self.system)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Default for Places {
    fn default() -> Places {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // Both cases are in use, and the lower one is the older (curl(1), ENVIRONMENT).
        let either = |name: &str| {
            [name.to_lowercase(), name.to_owned()]
                .iter()
                .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        };
        let home = path("HOME");
        let cache = path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
        let uid = nix::unistd::geteuid();
        Places {
            system: "/etc".into(),
            config: path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config"))),
            home,
            runtime: path("XDG_RUNTIME_DIR").map_or_else(
                || format!("/run/containers/{uid}").into(),
                |directory| directory.join("containers"),
            ),
            auth_file: path("REGISTRY_AUTH_FILE"),
            docker_config: path("DOCKER_CONFIG"),
            registries_conf: path("CONTAINERS_REGISTRIES_CONF"),
            aliases: (if uid.is_root() { Some("/var/cache".into()) } else { cache })
                .map(|cache: PathBuf| cache.join("containers/short-name-aliases.conf")),
            roots: path("SSL_CERT_FILE"),
            https_proxy: either("HTTPS_PROXY").or_else(|| either("ALL_PROXY")),
            http_proxy: either("HTTP_PROXY").or_else(|| either("ALL_PROXY")),
            no_proxy: either("NO_PROXY").unwrap_or_default(),
        }
    }
}

impl Places {
    /// All of them below one directory, and none from the environment.
    pub fn below(directory: &Path) -> Places {
        Places {
            system: directory.join("etc"),
            config: Some(directory.join("config")),
            home: Some(directory.to_owned()),
            runtime: directory.join("run/containers"),
            auth_file: None,
            docker_config: None,
            registries_conf: None,
            aliases: None,
            roots: None,
            https_proxy: None,
            http_proxy: None,
            no_proxy: String::new(),
        }
    }

    /// The user's own part of containers' configuration, and the system's: in the order in which they count.
    pub(super) fn containers(&self, name: &str) -> Vec<PathBuf> {
        let own = self.config.iter().map(|config| config.join("containers").join(name));
        own.chain([self.system.join("containers").join(name)]).collect()
    }

    /// Where credentials are read from, first what counts most (containers-auth.json(5)).
    pub(super) fn auth_files(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.auth_file {
            return vec![file.clone()];
        }
        let docker =
            self.docker_config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".docker")));
        [self.runtime.join("auth.json")]
            .into_iter()
            .chain(self.config.iter().map(|config| config.join("containers/auth.json")))
            .chain(docker.map(|directory| directory.join("config.json")))
            .collect()
    }

    /// Where a login is written.
    pub(super) fn auth_file(&self) -> PathBuf {
        self.auth_file.clone().unwrap_or_else(|| self.runtime.join("auth.json"))
    }

    /// The proxy for `host`, if there is one.
    pub(super) fn proxy(&self, is_tls: bool, host: &str) -> Option<&str> {
        let proxy = if is_tls { self.https_proxy.as_deref() } else { self.http_proxy.as_deref() };
        proxy.filter(|_| !is_direct(&self.no_proxy, host))
    }
}

/// Whether `list`, a value of `NO_PROXY`, or the host itself says that no proxy is to be asked for it. A name
/// means its subdomains too, unless it begins with a dot: then it means only those.
fn is_direct(list: &str, authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address: Option<std::net::IpAddr> = host.parse().ok();
    // No proxy reaches what is only on this machine.
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        match entry.split_once('/') {
            _ if entry == "*" || entry.eq_ignore_ascii_case(authority) => true,
            Some((network, length)) => is_in(address, network, length),
            None => {
                let (host, entry) = (host.to_lowercase(), entry.to_lowercase());
                let entry = entry.strip_prefix('*').unwrap_or(&entry);
                let dotted = if entry.starts_with('.') { entry.to_owned() } else { format!(".{entry}") };
                host == entry || host.ends_with(&dotted)
            }
        }
    })
}

/// Whether `address` is in the network `network`/`length`.
fn is_in(address: Option<std::net::IpAddr>, network: &str, length: &str) -> bool {
    use std::net::IpAddr::{V4, V6};
    let (Some(address), Ok(network), Ok(length)) = (address, network.parse(), length.parse::<u32>()) else {
        return false;
    };
    let same = |a: u128, b: u128, width: u32| {
        let drop = width.saturating_sub(length);
        a.checked_shr(drop).unwrap_or(0) == b.checked_shr(drop).unwrap_or(0)
    };
    match (address, network) {
        (V4(a), V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (V6(a), V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_names_hosts_domains_and_networks() {
        for (list, host, expected) in [
            ("", "quay.io", false),
            ("", "localhost:5000", true),
            ("", "127.0.0.1:5000", true),
            ("", "[::1]:5000", true),
            ("*", "quay.io", true),
            ("quay.io", "quay.io:443", true),
            ("quay.io", "cdn.quay.io", true),
            ("quay.io", "notquay.io", false),
            (".quay.io", "quay.io", false),
            ("*.quay.io", "cdn.QUAY.io", true),
            ("a.b, 10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("fd00::/8", "[fd12::1]", true),
            ("0.0.0.0/0", "8.8.8.8", true),
        ] {
            assert_eq!(is_direct(list, host), expected, "{list} {host}");
        }
    }

    #[test]
    fn a_password_of_a_proxy_is_not_shown() {
        let mut places = Places::below(Path::new("/x"));
        places.https_proxy = Some("http://me:secret@proxy:3128".into());
        assert!(!format!("{places:?}").contains("secret"));
        assert_eq!(places.proxy(true, "quay.io"), places.https_proxy.as_deref());
        assert_eq!(places.proxy(false, "quay.io"), None);
    }
}
