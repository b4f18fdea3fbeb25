//! URLs of the scheme `http` (RFC 9110, section 4.2.1; RFC 3986).

use alloc::string::String;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::UrlError;
use crate::http::head::is_host;

/// The port of the scheme (RFC 9110, section 4.2.1).
const PORT: u16 = 80;

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Host and port as the Host field has them.
    pub(super) authority: String,
    /// Where that is; `None` for names.
    pub(super) address: Option<SocketAddr>,
    /// Path and query.
    pub(super) target: String,
}

impl Url {
    /// Reads a URL. Its fragment is left out.
    pub(super) fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_at_checked("http://".len()).ok_or(UrlError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http://") {
            return Err(UrlError::Scheme);
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlError::Character);
        }
        let (host, port) = split_port(authority)?;
        let mut target = String::with_capacity(path.len() + 1);
        if !path.starts_with('/') {
            target.push('/');
        }
        target.push_str(path);
        Ok(Self { authority: authority.into(), address: address(host)?.map(|address| SocketAddr::new(address, port)), target })
    }
}

/// Checks what a Host field may say, and splits the port off.
pub(super) fn split_port(authority: &str) -> Result<(&str, u16), UrlError> {
    let end = match authority.starts_with('[') {
        true => authority.find(']').ok_or(UrlError::Host)? + 1,
        false => 0,
    };
    let (host, port) = match authority[end..].find(':') {
        Some(colon) => {
            (&authority[..end + colon], authority[end + colon + 1..].parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?)
        }
        None => (authority, PORT),
    };
    if host.is_empty() || !is_host(host.as_bytes()) {
        return Err(UrlError::Host);
    }
    Ok((host, port))
}

fn address(host: &str) -> Result<Option<IpAddr>, UrlError> {
    match host.strip_prefix('[') {
        Some(literal) => {
            let literal = literal.strip_suffix(']').ok_or(UrlError::Host)?;
            literal.parse::<Ipv6Addr>().map(|address| Some(address.into())).map_err(|_| UrlError::Host)
        }
        None if host.contains(['[', ']']) => Err(UrlError::Host),
        None => Ok(host.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn urls_say_where_and_what() {
        for (url, authority, address, target) in [
            ("http://10.0.0.2", "10.0.0.2", Some("10.0.0.2:80"), "/"),
            ("HTTP://10.0.0.2:8080/a?b=c#d", "10.0.0.2:8080", Some("10.0.0.2:8080"), "/a?b=c"),
            ("http://a.example?b", "a.example", None, "/?b"),
            ("http://a.example:1/?#", "a.example:1", None, "/?"),
            ("http://[::1]:9/x", "[::1]:9", Some("[::1]:9"), "/x"),
        ] {
            let expected = Url { authority: authority.into(), address: address.map(|text| text.parse().unwrap()), target: target.into() };
            assert_eq!(Url::parse(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (url, error) in [
            ("", UrlError::Scheme),
            ("https://a", UrlError::Scheme),
            ("a/b", UrlError::Scheme),
            ("httpü//a", UrlError::Scheme),
            ("http://", UrlError::Host),
            ("http:///a", UrlError::Host),
            ("http://u@a", UrlError::Host),
            ("http://a\r\nx", UrlError::Host),
            ("http://[::1", UrlError::Host),
            ("http://::1]", UrlError::Port),
            ("http://a:", UrlError::Port),
            ("http://a:0", UrlError::Port),
            ("http://a:65536", UrlError::Port),
            ("http://a:80\r\nx: y", UrlError::Port),
            ("http://a/b c", UrlError::Character),
            ("http://a/ HTTP/1.1\r\nx: y", UrlError::Character),
            ("http://a/ü", UrlError::Character),
        ] {
            assert_eq!(Url::parse(url), Err(error), "{url:?}");
        }
    }

    proptest! {
        /// Nothing in a URL reaches the wire that could end a line or a word there.
        #[test]
        fn no_url_forges_a_head(url in prop_oneof![".*", "http://[a-z\\[\\]:@/?# \r\n]{0,20}"]) {
            if let Ok(url) = Url::parse(&url) {
                let text = url.authority + &url.target.to_string();
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{}", text);
            }
        }
    }
}
