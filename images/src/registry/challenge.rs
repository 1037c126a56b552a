//! How a server wants to be told who asks: `WWW-Authenticate` (RFC 9110, 11.6.1).

/// One challenge: the scheme in lower case, and its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The parameter `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header. Challenges and their parameters are parted by the same comma, so a word that
/// no `=` follows begins a challenge. What cannot be read ends the list.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = rest.split_at(rest.find(|c| !is_token(c)).unwrap_or(rest.len()));
        if word.is_empty() {
            return challenges;
        }
        match (after.trim_start().strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = value_of(value.trim_start()) else { return challenges };
                challenge.parameters.push((word.to_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

/// A token or a quoted string, and what is behind it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// RFC 9110, 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: &[&str]) {
        let show = |challenge: &Challenge| {
            let parameters = challenge.parameters.iter().map(|(key, value)| format!(" {key}={value}"));
            challenge.scheme.clone() + &parameters.collect::<String>()
        };
        assert_eq!(parse(header).iter().map(show).collect::<Vec<_>>(), expected, "{header}");
    }

    #[test]
    fn challenges_are_read() {
        check(
            r#"Bearer realm="https://a/token",service="s",scope="repository:a/b:pull,push""#,
            &["bearer realm=https://a/token service=s scope=repository:a/b:pull,push"],
        );
        check(r#"Basic realm="a \"b\", c""#, &[r#"basic realm=a "b", c"#]);
        check(
            r#"Negotiate, Basic realm=x, BEARER Realm = "r" , service=s"#,
            &["negotiate", "basic realm=x", "bearer realm=r service=s"],
        );
        check("Negotiate", &["negotiate"]);
        check("", &[]);
        check("realm=x", &[]);
        check(r#"Bearer realm="no end"#, &["bearer"]);
        check("Bearer realm=\"\\", &["bearer"]);
    }
}
