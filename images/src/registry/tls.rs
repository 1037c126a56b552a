//! Whom we believe to be a host: this machine's list of authorities, and what it says of single registries.

use super::conf::entries;
use super::places::Places;
use super::settings::api_host;
use crate::error::{Context, Error, Result};
use crate::name::DOCKER;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Where distributions keep the list, below `/etc`: Debian and Arch, Fedora, SUSE, Alpine.
const BUNDLES: [&str; 5] = [
    "ssl/certs/ca-certificates.crt",
    "pki/tls/certs/ca-bundle.crt",
    "pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "ssl/ca-bundle.pem",
    "ssl/cert.pem",
];

/// How connections to `host` (with its port) are secured.
pub(super) fn config(places: &Places, host: &str, insecure: bool) -> Result<TlsConfig> {
    let mut roots = match insecure {
        true => Vec::new(),
        false => host_roots(places)?,
    };
    let mut client = None;
    for directory in directories(places, host) {
        for file in entries(&directory, "crt")? {
            roots.extend(certificates(&file)?);
        }
        if let Some(certificate) = entries(&directory, "cert")?.first() {
            client = client.or(Some(client_certificate(certificate)?));
        }
    }
    let builder = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .disable_verification(insecure);
    Ok(builder.client_cert(client).build())
}

/// Where certificates for `host` alone are (containers-certs.d(5)).
fn directories(places: &Places, host: &str) -> Vec<PathBuf> {
    let mut directories = places.containers("certs.d");
    directories.push(places.system.join("docker/certs.d"));
    // People know Docker's registry by another name than that of its interface.
    let host = if host == api_host(DOCKER) { DOCKER } else { host };
    directories.iter().map(|directory| directory.join(host)).collect()
}

/// This machine's list. None at all is an error only when a certificate is not known.
fn host_roots(places: &Places) -> Result<Vec<Certificate<'static>>> {
    let bundle = match &places.roots {
        Some(file) => Some(file.clone()),
        None => BUNDLES.iter().map(|name| places.system.join(name)).find(|file| file.exists()),
    };
    bundle.map_or_else(|| Ok(Vec::new()), |file| certificates(&file))
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let doing = || format!("read certificates of {}", file.display());
    let text = fs::read(file).doing(doing)?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|error| Error::damaged(error.to_string())).doing(doing)?
        {
            found.push(certificate);
        }
    }
    Ok(found)
}

/// What we show of ourselves: `NAME.cert`, and its key in `NAME.key`.
fn client_certificate(file: &Path) -> Result<ClientCert> {
    let key_file = file.with_extension("key");
    let doing = || format!("client certificate {} and key {}", file.display(), key_file.display());
    let chain = certificates(file)?;
    let text = fs::read(&key_file).doing(doing)?;
    check_pair(&chain, &text).doing(doing)?;
    let key = PrivateKey::from_pem(&text).map_err(|error| Error::damaged(error.to_string())).doing(doing)?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// Whether the key is one, and that of the certificate: `ureq` would panic over it later.
fn check_pair(chain: &[Certificate<'_>], key: &[u8]) -> Result<()> {
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| Error::damaged(error.to_string()))?;
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, key, &provider)
        .map(drop)
        .map_err(|error| Error::damaged(error.to_string()))
}
