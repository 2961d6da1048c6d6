//! Who may ask: what a page of another site, or a name that was bent to this address, would send is refused.
//!
//! A browser sends requests for any page that it shows, to any address that it reaches. So a name that is not ours is refused
//! wherever it may be read, and what changes something is taken only as JSON and not from a page of another site.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::connection::Peer;
use super::problem::Problem;

/// How long an answer to a GET may take. Those to commands have the bus's deadline.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// What the operator says of names and of whom to believe.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Trust {
    /// A name by which this bank may be asked, as bank.example or bank.example:8443. IP addresses, localhost and the name in
    /// --listen may always
    #[arg(long = "allowed-host", env = "BANK_ALLOWED_HOSTS", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Believe the header X-Actor of whoever reaches this process, or only of these addresses: those of proxies that know who
    /// asks. Nobody's unless given, and then events have no actor
    #[arg(
        long = "trust-actor-header",
        env = "BANK_TRUST_ACTOR_HEADER",
        value_name = "ADDRESS,…",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "anyone",
        value_delimiter = ','
    )]
    actors_from: Vec<From>,
}

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Anyone,
    Address(IpAddr),
}

impl std::str::FromStr for From {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "anyone" => Ok(Self::Anyone),
            address => address.parse().map(Self::Address).map_err(|_| {
                format!("{address:?} is not an IP address: give those of proxies, or nothing for anyone's word")
            }),
        }
    }
}

impl Trust {
    /// Whether X-Actor counts from there.
    pub(super) fn believes(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        self.actors_from.iter().any(|from| *from == From::Anyone || *from == From::Address(address))
    }
}

/// The names by which this bank may be asked.
#[derive(Debug)]
pub(super) struct Names {
    /// Without a port, any will do.
    hosts: HashSet<String>,
    /// Those that the operator named: pages from there are ours, too.
    given: HashSet<String>,
}

impl Names {
    /// `listen` is the address as it was asked for, `NAME:PORT`.
    pub(super) fn new(trust: &Trust, listen: &str) -> Self {
        let given: HashSet<String> = trust.hosts.iter().map(|host| host.trim().to_ascii_lowercase()).collect();
        let listen = without_port(listen).to_ascii_lowercase();
        let hosts = given.iter().cloned().chain(["localhost".into(), listen]).collect();
        Self { hosts, given }
    }

    /// An address is no name that somebody could bend to another address.
    fn are(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = without_port(&authority);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok() || host.ends_with(".localhost") || self.hosts.contains(host) || self.hosts.contains(&authority)
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are within brackets.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// Looks at a request before anything else does.
pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if let Err(problem) = check(&app.names, request.method(), request.uri(), request.headers()) {
        return problem.into_response();
    }
    let peer = request.extensions().get::<Peer>().copied();
    if !peer.is_some_and(|Peer(address)| app.trust.believes(address)) {
        request.headers_mut().remove("x-actor");
    }
    if !request.method().is_safe() {
        return next.run(request).await;
    }
    let answered = tokio::time::timeout(READ_WITHIN, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let detail = format!("the answer took longer than {READ_WITHIN:?}: try again");
        Problem::try_again("too-slow", detail).into_response()
    })
}

fn check(names: &Names, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let host = one(headers, header::HOST.as_str())?;
    let for_operators = matches!(uri.path(), "/healthz" | "/readyz" | "/metrics");
    if !for_operators {
        let host = host.or(uri.authority().map(|authority| authority.as_str()));
        let host = host.ok_or_else(|| Problem::bad_request("Host: it is missing"))?;
        if !names.are(host) || uri.authority().is_some_and(|authority| !names.are(authority.as_str())) {
            let detail =
                format!("this bank is not asked by the name {host:?}: its operator can allow that with --allowed-host");
            return Err(Problem::new(421, "unknown-host", detail));
        }
    }
    if method.is_safe() { Ok(()) } else { check_site(names, host, headers) }
}

/// Browsers say what page a request comes from. Who says nothing is no browser.
fn check_site(names: &Names, host: Option<&str>, headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |what: String| {
        Problem::new(403, "cross-site", format!("{what}: pages of other sites can't change anything here"))
    };
    if let Some(site) = one(headers, "sec-fetch-site")?
        && !matches!(site, "same-origin" | "none")
    {
        return Err(refuse(format!("Sec-Fetch-Site is {site:?}")));
    }
    let Some(origin) = one(headers, header::ORIGIN.as_str())? else { return Ok(()) };
    let authority =
        origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")).map(str::to_ascii_lowercase);
    let ours = authority.is_some_and(|authority| {
        names.given.contains(&authority) || host.is_some_and(|host| host.eq_ignore_ascii_case(&authority))
    });
    if ours { Ok(()) } else { Err(refuse(format!("Origin is {origin:?}"))) }
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.map(Some).ok_or_else(|| Problem::bad_request(format!("{name}: it is given twice, or is no text")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        trust: Trust,
    }

    fn trust(args: &[&str]) -> Trust {
        Alone::try_parse_from(["bank"].iter().chain(args)).unwrap().trust
    }

    fn status(names: &Names, method: &Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        check(names, method, &path.parse().unwrap(), &map).map_or_else(|problem| problem.status(), |()| 200)
    }

    #[test]
    fn a_name_that_is_not_ours_is_refused() {
        let names = Names::new(&trust(&["--allowed-host", "bank.example,teller.example:8443"]), "bank-1:8080");
        let at = |host| status(&names, &Method::GET, "/api/accounts", &[("host", host)]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "a.localhost",
            "127.0.0.1",
            "127.0.0.1:9",
            "[::1]",
            "[::1]:8080",
            "bank-1:80",
            "bank.example",
            "Bank.Example:444",
            "teller.example:8443",
        ] {
            assert_eq!(at(host), 200, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "teller.example",
            "bank.example.evil",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert_eq!(at(host), 421, "{host}");
        }
        assert_eq!(status(&names, &Method::GET, "/api/accounts", &[]), 400);
        assert_eq!(status(&names, &Method::GET, "/readyz", &[("host", "10-0-0-1.pods")]), 200);
        let absolute = "http://evil.example/api/accounts";
        assert_eq!(status(&names, &Method::GET, absolute, &[("host", "localhost")]), 421);
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let names = Names::new(&trust(&["--allowed-host", "bank.example"]), "0.0.0.0:8080");
        let with = |method: Method, headers: &[(&str, &str)]| {
            let all = [&[("host", "127.0.0.1:8080")], headers].concat();
            status(&names, &method, "/api/accounts/a/deposits", &all)
        };
        for headers in [
            &[][..],
            &[("origin", "http://127.0.0.1:8080")],
            &[("origin", "https://bank.example")],
            &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8080")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(with(Method::POST, headers), 200, "{headers:?}");
        }
        for headers in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://127.0.0.1:3000")],
            &[("origin", "http://127.0.0.1:8080.evil.example")],
            &[("origin", "https://bank.example:9")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
        ] {
            for method in [Method::POST, Method::PUT, Method::DELETE] {
                assert_eq!(with(method, headers), 403, "{headers:?}");
            }
            assert_eq!(with(Method::GET, headers), 200, "{headers:?}");
        }
        assert_eq!(with(Method::POST, &[("origin", "http://127.0.0.1:8080"), ("origin", "http://evil.example")]), 400);
    }

    #[test]
    fn an_actor_is_believed_only_from_whom_the_operator_trusts() {
        let from = |address: &str| address.parse::<SocketAddr>().unwrap();
        assert!(!trust(&[]).believes(from("127.0.0.1:7")));
        assert!(trust(&["--trust-actor-header"]).believes(from("192.0.2.7:7")));
        let proxies = trust(&["--trust-actor-header=192.0.2.1,::1"]);
        for (address, believed) in [
            ("192.0.2.1:7", true),
            ("[::ffff:192.0.2.1]:7", true),
            ("[::1]:7", true),
            ("192.0.2.2:7", false),
            ("127.0.0.1:7", false),
        ] {
            assert_eq!(proxies.believes(from(address)), believed, "{address}");
        }
        assert!(Alone::try_parse_from(["bank", "--trust-actor-header=proxy.example"]).is_err());
    }
}
