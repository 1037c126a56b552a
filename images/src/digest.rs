//! Names of contents: by what hash, and its value (image-spec descriptor.md, "Digests").

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

/// A digest in its one canonical spelling: `sha256:` or `sha512:` and lower-case hexadecimal digits of the right
/// number. So it is safe as a part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The algorithms that the specification registers, and how many hexadecimal digits theirs have.
const ALGORITHMS: [(&str, usize); 2] = [("sha256", 64), ("sha512", 128)];

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new("sha256");
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of `bytes` by the same algorithm, to be compared with this one.
    pub fn recompute(&self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::like(self);
        hasher.update(bytes);
        hasher.finish()
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// The digits.
    pub fn hex(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// The first twelve digits, as people are shown them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole, as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let is_one = |(algorithm, length): &(&str, usize)| {
            text.strip_prefix(algorithm).and_then(|rest| rest.strip_prefix(':')).is_some_and(|hex| {
                hex.len() == *length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
        };
        match ALGORITHMS.iter().any(is_one) {
            true => Ok(Digest(text.to_owned())),
            false => Err(Error::damaged(format!(
                "{text:?} is no digest: expected sha256: or sha512: and 64 or 128 hexadecimal digits"
            ))),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Digest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digest that is being made.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// The first 32 bytes are the hash.
    Sha256(Sha256),
    /// All 64 are.
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// One of the algorithm `sha512`, or of `sha256` for any other name.
    pub fn new(algorithm: &str) -> Hasher {
        match algorithm {
            "sha512" => Hasher::Sha512(Box::default()),
            _ => Hasher::Sha256(Sha256::default()),
        }
    }

    /// One that makes a digest to be compared with `digest`.
    pub fn like(digest: &Digest) -> Hasher {
        Hasher::new(digest.algorithm())
    }

    /// Takes in more of what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Digest {
        let (name, bytes) = match self {
            Hasher::Sha256(hasher) => ("sha256", hasher.finalize().to_vec()),
            Hasher::Sha512(hasher) => ("sha512", hasher.finalize().to_vec()),
        };
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Digest(format!("{name}:{digits}"))
    }
}

/// A reader that checks what it passes on: at its end size and digest must be those that were promised, and it never
/// gives out more than the promised size.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    hasher: Option<Hasher>,
    digest: Digest,
    left: u64,
}

impl<R: Read> Verified<R> {
    /// Checks that `inner` has `size` bytes of the digest `digest`.
    pub fn new(inner: R, digest: &Digest, size: u64) -> Verified<R> {
        Verified { inner, hasher: Some(Hasher::like(digest)), digest: digest.clone(), left: size }
    }

    fn end(&mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::damaged(format!("{} ends {} bytes too early", self.digest, self.left)));
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.digest => {
                Err(Error::damaged(format!("the contents of {} have the digest {found}", self.digest)))
            }
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 {
            self.end()?;
            return Ok(0);
        }
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            Error::damaged(format!("the contents of {} are longer than they are said to be", self.digest))
        })?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn one_spelling_only() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap().short(), "e3b0c44298fc");
        for wrong in [
            "",
            "sha256:",
            &EMPTY.to_uppercase(),
            &EMPTY[..70],
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:../../../../../../../../../../../../../../../../../../../etc/passwd0",
            "sha512:e3b0",
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        assert_eq!(Hasher::new("sha512").finish().hex().len(), 128);
    }

    /// Reads `bytes` as something of `size` bytes that has the digest of `promised`.
    fn check(bytes: &[u8], promised: &[u8], size: u64) -> std::result::Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let mut reader = Verified::new(bytes, &Digest::of(promised), size);
        reader.read_to_end(&mut out).map(|_| out).map_err(|error| Error::from(error).to_string())
    }

    #[test]
    fn contents_are_those_that_were_promised() {
        assert_eq!(check(b"abc", b"abc", 3), Ok(b"abc".to_vec()));
        assert!(check(b"abd", b"abc", 3).unwrap_err().contains("have the digest sha256:a52d159f"));
        assert!(check(b"ab", b"abc", 3).unwrap_err().contains("1 bytes too early"));
        assert!(check(b"abcd", b"abc", 3).unwrap_err().contains("longer"));
    }
}
