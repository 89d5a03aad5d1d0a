//! The URL of a database, taken apart.
//!
//! ```text
//! postgres://user:password@host:5432,host:5432/database?name=value&name=value
//!            up to the last @
//! ```
//!
//! The rules are libpq's, but for the `@`: libpq ends the password at the first
//! one. An `@` in the user, or behind the hosts, has to be percent-encoded, since
//! there it is mostly one that ends a password with `/` or `?` in it. No error
//! quotes a part of the URL that may belong to a password.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::{ConfigError, URL};
use crate::config::{Secret, redact_url};

const EXPECTED: &str = "postgres://user@host:5432/database";
const ENCODE: &str = "percent-encode @ : / ? and % in the user, the password and the parameters, \
                      such as %40 for @, or use postgres.password";
const DEFAULT_PORT: u16 = 5432;

/// The URL of a database, which shows itself without user and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PostgresUrl(String);

impl From<String> for PostgresUrl {
    fn from(url: String) -> Self {
        PostgresUrl(url)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.0))
    }
}

impl Serialize for PostgresUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redact_url(&self.0))
    }
}

/// Where the database is, and as whom to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresAddress {
    /// In the order in which they are tried; at least one.
    pub hosts: Vec<PostgresHost>,
    pub user: String,
    pub password: Secret,
    pub database: String,
    /// Whether a standby is passed over: what is needed is on the primary.
    pub needs_primary: bool,
    /// Settings of the session, as command-line options of the server.
    pub options: Option<String>,
    /// Parameters that are for the client library.
    pub parameters: Vec<(String, String)>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresHost {
    /// A name, an address, or the directory of a socket.
    pub name: String,
    pub port: u16,
}

impl PostgresHost {
    /// Whether it is a socket of this machine.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.name.starts_with('/')
    }
}

impl fmt::Display for PostgresHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

impl PostgresUrl {
    /// `parameters` are all those that the address itself does not take.
    ///
    /// # Errors
    /// When it is no URL of a database.
    pub(super) fn address(&self) -> Result<PostgresAddress, ConfigError> {
        parse(self.0.trim()).map_err(|reason| ConfigError::invalid(URL, reason))
    }
}

fn parse(url: &str) -> Result<PostgresAddress, String> {
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| format!("is no URL: expected {EXPECTED}"))?;
    if !matches!(scheme, "postgres" | "postgresql") {
        let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+');
        let shown = if is_scheme { format!("scheme `{scheme}`: ") } else { String::new() };
        return Err(format!("{shown}expected {EXPECTED}"));
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    if tail.contains('@') || user.contains('@') {
        return Err(format!("has an @ where none is expected; {ENCODE}"));
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let mut address = PostgresAddress {
        hosts: hosts
            .split(',')
            .filter(|_| !hosts.is_empty())
            .map(host)
            .collect::<Result<_, _>>()?,
        user: decoded(user)?,
        password: Secret::from(decoded(password)?),
        database: decoded(path.trim_start_matches('/'))?,
        ..PostgresAddress::default()
    };
    let (mut ports, mut session) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("has a parameter that is not name=value; {ENCODE}"))?;
        let (name, value) = (decoded(name)?, decoded(value)?);
        match name.as_str() {
            "user" => address.user = value,
            "password" => address.password = Secret::from(value),
            "dbname" => address.database = value,
            "options" => address.options = Some(value),
            "host" => {
                let named = |name: &str| PostgresHost { name: name.to_owned(), port: DEFAULT_PORT };
                address.hosts = value.split(',').map(named).collect();
            }
            "port" => ports = Some(value.split(',').map(port).collect::<Result<Vec<_>, _>>()?),
            "target_session_attrs" => session = Some(needs_primary(&value)?),
            _ => address.parameters.push((name, value)),
        }
    }
    if let Some(ports) = ports {
        if ports.len() != 1 && ports.len() != address.hosts.len() {
            return Err(format!("names {} ports for {} hosts", ports.len(), address.hosts.len()));
        }
        for (host, port) in address.hosts.iter_mut().zip(ports.iter().cycle()) {
            host.port = *port;
        }
    }
    if address.hosts.is_empty() || address.hosts.iter().any(|host| host.name.is_empty()) {
        return Err(format!("names no host: expected {EXPECTED}, or ?host=/run/postgresql"));
    }
    if address.user.is_empty() {
        return Err(format!("names no user: expected {EXPECTED}"));
    }
    if address.database.is_empty() {
        address.database.clone_from(&address.user);
    }
    // Nobody who names several wants whichever answers first.
    address.needs_primary = session.unwrap_or(address.hosts.len() > 1);
    Ok(address)
}

/// `name`, `name:port` or `[address]:port`.
fn host(text: &str) -> Result<PostgresHost, String> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    let (name, after) = match bracketed {
        Some((name, after)) => (name, after.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    Ok(PostgresHost {
        name: decoded(name)?,
        port: after.map_or(Ok(DEFAULT_PORT), |text| port(&decoded(text)?))?,
    })
}

fn port(text: &str) -> Result<u16, String> {
    match text {
        "" => Ok(DEFAULT_PORT),
        text => text.parse().map_err(|_| format!("has a port that is no number; {ENCODE}")),
    }
}

fn needs_primary(attributes: &str) -> Result<bool, String> {
    match attributes {
        "any" => Ok(false),
        "read-write" | "primary" => Ok(true),
        "read-only" | "standby" | "prefer-standby" => Err(format!(
            "target_session_attrs={attributes}: the outbox is written and read on the primary; \
             use read-write"
        )),
        _ => Err("target_session_attrs: expected any, read-write or primary".to_owned()),
    }
}

/// With every `%41` as what it stands for. A plus is a plus here.
fn decoded(text: &str) -> Result<String, String> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = digit(bytes.get(at + 1)).zip(digit(bytes.get(at + 2)));
        match pair.filter(|_| *byte == b'%') {
            Some((high, low)) => {
                decoded.extend(u8::try_from(high << 4 | low));
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).map_err(|_| format!("is not UTF-8 once it is decoded; {ENCODE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> PostgresAddress {
        parse(url).unwrap()
    }

    fn hosts(url: &str) -> Vec<String> {
        address(url).hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_password_ends_at_the_last_at_sign_and_may_be_encoded() {
        let found = address("postgres://pwd:Sec@ret1@host/db");
        assert_eq!((found.user.as_str(), found.password.expose()), ("pwd", "Sec@ret1"));
        assert_eq!(found.hosts, [PostgresHost { name: "host".into(), port: 5432 }]);
        for (written, meant) in [
            ("a%40b%2Fc%3Fd", "a@b/c?d"),
            ("a:b#c", "a:b#c"),
            ("100%25", "100%"),
            ("5%of+", "5%of+"),
        ] {
            let found = address(&format!("postgresql://u:{written}@h/"));
            assert_eq!(found.password.expose(), meant);
            assert_eq!(found.database, "u");
        }
    }

    #[test]
    fn sockets_and_several_hosts_are_taken_as_libpq_takes_them() {
        for url in [
            "postgres:///shop?host=/run/postgresql&user=u&port=6432",
            "postgres://u@/shop?host=%2Frun%2Fpostgresql&port=6432",
            "postgres://u@%2Frun%2Fpostgresql:6432/shop",
        ] {
            let found = address(url);
            assert!(found.hosts[0].is_socket() && !found.needs_primary, "{url}");
            assert_eq!(
                (hosts(url), found.database.as_str()),
                (vec!["/run/postgresql:6432".into()], "shop")
            );
        }
        assert_eq!(hosts("postgres://u@a:1,b,[::1]:3/x"), ["a:1", "b:5432", "[::1]:3"]);
        assert_eq!(hosts("postgres://u@/x?host=a,b&port=1,"), ["a:1", "b:5432"]);
        assert!(address("postgres://u@a,b/x").needs_primary);
        assert!(!address("postgres://u@a,b/x?target_session_attrs=any").needs_primary);
        assert!(address("postgres://u@a/x?target_session_attrs=read-write").needs_primary);
        let found = address("postgres://u@a/x?options=-c%20search_path%3Dapp&keepalives=0");
        assert_eq!(found.options.unwrap(), "-c search_path=app");
        assert_eq!(found.parameters, [("keepalives".to_owned(), "0".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said_without_a_part_of_the_password() {
        let encode = "percent-encode";
        for (url, part) in [
            ("postgres://u:hunter/2@host/db", encode),
            ("postgres://u:hunter?2@host/db", encode),
            ("postgres://u:hunter?a=2@host/db", encode),
            ("postgres://u:a@hunter?b=2@host/db", encode),
            ("postgres://hunter@2:x@host/db", encode),
            ("postgres://u:hunter", encode),
            ("postgres://u:a@b:hunter/db", encode),
            ("postgres://u:%ffhunter@host/db", encode),
            ("postgres://u@host/db?hunter", encode),
            ("u:hunter@host/db", "is no URL"),
            ("u:hunter://2@host/db", "expected postgres://"),
            ("host=h password=hunter", "is no URL"),
            ("mysql://u:hunter@host/db", "scheme `mysql`"),
            ("postgres://:hunter@host/db", "names no user"),
            ("postgres:///db?user=u&password=hunter", "names no host"),
            ("postgres://u@a,b/db?port=1,2,3", "3 ports for 2 hosts"),
            ("postgres://u@a/db?target_session_attrs=standby", "primary"),
            ("postgres://u@a/db?target_session_attrs=hunter", "read-write"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(part) && !error.contains("hunter"), "{url}: {error}");
        }
    }
}
