//! Authentication, with a server that is honest, careless or false.

use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::hostile::{message, ready};
use super::transcript::{self, PASSWORD};
use crate::{ChannelBinding, Config, Error, Login, Methods, Protocol, Security, Step};

const SALT: &[u8] = b"sixteen bytes ok";

fn begin(config: &Config, security: Security) -> Protocol {
    let mut protocol = Protocol::new(Login::new(config, security)).unwrap();
    protocol.outbox().clear();
    protocol
}

fn scram_only() -> Config {
    let mut config = transcript::config();
    config.methods = Methods { none: false, scram: true, md5: false, cleartext: false };
    config
}

fn authentication(kind: u32, body: &[u8]) -> Bytes {
    message(b'R', &[&kind.to_be_bytes(), body].concat())
}

fn offer(mechanisms: &str) -> Bytes {
    let list: String = mechanisms.split(' ').map(|name| format!("{name}\0")).collect();
    authentication(10, format!("{list}\0").as_bytes())
}

/// Gives the server's message; what we answer, or why we do not.
fn say(protocol: &mut Protocol, bytes: &Bytes) -> Result<Vec<u8>, Error> {
    protocol.inbox().extend_from_slice(bytes);
    while protocol.step()?.is_some() {}
    Ok(protocol.outbox().split().to_vec())
}

fn refused(protocol: &mut Protocol, bytes: &Bytes) -> String {
    let error = say(protocol, bytes).unwrap_err();
    assert!(matches!(error, Error::Authentication(_)), "{error}");
    error.to_string()
}

/// What a server does that knows `password`.
struct Server {
    password: &'static str,
    iterations: u32,
    first_bare: String,
    first: String,
}

impl Server {
    fn new(password: &'static str) -> Self {
        Self { password, iterations: 4096, first_bare: String::new(), first: String::new() }
    }

    /// Reads SASLInitialResponse: mechanism, header of channel binding.
    fn challenge(&mut self, sent: &[u8]) -> (String, String, Bytes) {
        let end = sent.iter().skip(5).position(|byte| *byte == 0).unwrap() + 5;
        let mechanism = String::from_utf8(sent[5..end].to_vec()).unwrap();
        let text = String::from_utf8(sent[end + 5..].to_vec()).unwrap();
        let bare = text.find("n=,r=").unwrap();
        self.first_bare = text[bare..].to_owned();
        let nonce = &text[bare + 5..];
        let (salt, iterations) = (STANDARD.encode(SALT), self.iterations);
        self.first = format!("r={nonce}server,s={salt},i={iterations}");
        let header = text[..bare].to_owned();
        (mechanism, header, authentication(11, self.first.as_bytes()))
    }

    /// Reads SASLResponse: the channel binding that it holds, and our proof of the password.
    fn prove(&self, sent: &[u8]) -> (Vec<u8>, Bytes) {
        let text = String::from_utf8(sent[5..].to_vec()).unwrap();
        let (without_proof, _) = text.split_once(",p=").unwrap();
        let binding = text[2..].split(',').next().unwrap();
        let mut salted = [0; 32];
        let iterations = self.iterations.try_into().unwrap();
        let password = self.password.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, SALT, password, &mut salted);
        let sign = |key: &[u8], text: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
        };
        let message = format!("{},{},{without_proof}", self.first_bare, self.first);
        let signature = sign(&sign(&salted, b"Server Key"), message.as_bytes());
        let last = format!("v={}", STANDARD.encode(signature));
        (STANDARD.decode(binding).unwrap(), authentication(12, last.as_bytes()))
    }
}

#[test]
fn scram_proves_both_sides() {
    let mut protocol = begin(&scram_only(), Security::Plain);
    let mut server = Server::new(PASSWORD);
    let sent = say(&mut protocol, &offer("SCRAM-SHA-256")).unwrap();
    let (mechanism, header, challenge) = server.challenge(&sent);
    assert_eq!((mechanism.as_str(), header.as_str()), ("SCRAM-SHA-256", "n,,"));
    let sent = say(&mut protocol, &challenge).unwrap();
    let (binding, proof) = server.prove(&sent);
    assert_eq!(binding, b"n,,");
    say(&mut protocol, &proof).unwrap();
    say(&mut protocol, &authentication(0, b"")).unwrap();
    protocol.inbox().extend_from_slice(&ready());
    assert!(matches!(protocol.step(), Ok(Some(Step::Ready))));
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let mut protocol = begin(&scram_only(), Security::Plain);
    let mut server = Server::new("a guess");
    let sent = say(&mut protocol, &offer("SCRAM-SHA-256")).unwrap();
    let (_, _, challenge) = server.challenge(&sent);
    let sent = say(&mut protocol, &challenge).unwrap();
    let (_, proof) = server.prove(&sent);
    assert!(refused(&mut protocol, &proof).contains("does not know the password"));
}

#[test]
fn a_server_that_skips_its_own_proof_is_refused() {
    let mut protocol = begin(&scram_only(), Security::Plain);
    assert!(refused(&mut protocol, &authentication(0, b"")).contains("no proof"));
    let mut protocol = begin(&scram_only(), Security::Plain);
    let mut server = Server::new(PASSWORD);
    let sent = say(&mut protocol, &offer("SCRAM-SHA-256")).unwrap();
    let (_, _, challenge) = server.challenge(&sent);
    say(&mut protocol, &challenge).unwrap();
    assert!(refused(&mut protocol, &authentication(0, b"")).contains("did not prove itself"));
}

#[test]
fn a_server_cannot_make_us_count_for_ever() {
    let mut protocol = begin(&scram_only(), Security::Plain);
    let mut server = Server { iterations: 2_000_000_000, ..Server::new(PASSWORD) };
    let sent = say(&mut protocol, &offer("SCRAM-SHA-256")).unwrap();
    let (_, _, challenge) = server.challenge(&sent);
    refused(&mut protocol, &challenge);
}

#[test]
fn channel_binding_is_used_where_it_can_be() {
    let tls = || Security::Tls(Some(b"digest".to_vec()));
    let both = "SCRAM-SHA-256-PLUS SCRAM-SHA-256";
    let mut asked = scram_only();
    let mut answer = |mode, security, mechanisms: &str| {
        asked.tls.channel_binding = mode;
        let mut protocol = begin(&asked, security);
        let sent = say(&mut protocol, &offer(mechanisms))?;
        let mut server = Server::new(PASSWORD);
        let (mechanism, header, challenge) = server.challenge(&sent);
        let sent = say(&mut protocol, &challenge)?;
        let binding = String::from_utf8(server.prove(&sent).0).unwrap();
        assert!(binding.starts_with(&header));
        Ok::<_, Error>(format!("{mechanism} {binding}"))
    };
    let plus = "SCRAM-SHA-256-PLUS p=tls-server-end-point,,digest";
    assert_eq!(answer(ChannelBinding::Prefer, tls(), both).unwrap(), plus);
    assert_eq!(answer(ChannelBinding::Require, tls(), both).unwrap(), plus);
    let downgraded = answer(ChannelBinding::Prefer, tls(), "SCRAM-SHA-256").unwrap();
    assert_eq!(downgraded, "SCRAM-SHA-256 y,,");
    let without = "SCRAM-SHA-256 n,,";
    assert_eq!(answer(ChannelBinding::Disable, tls(), both).unwrap(), without);
    let no_digest = answer(ChannelBinding::Prefer, Security::Tls(None), both).unwrap();
    assert_eq!(no_digest, without);
    answer(ChannelBinding::Require, tls(), "SCRAM-SHA-256").unwrap_err();
    answer(ChannelBinding::Require, Security::Tls(None), both).unwrap_err();
    answer(ChannelBinding::Require, Security::Plain, "SCRAM-SHA-256").unwrap_err();
    // Nobody but a man in the middle offers this without TLS.
    answer(ChannelBinding::Prefer, Security::Plain, both).unwrap_err();
    answer(ChannelBinding::Prefer, tls(), "SCRAM-SHA-1").unwrap_err();
}

#[test]
fn required_binding_takes_no_other_proof() {
    let mut config = transcript::config();
    config.tls.channel_binding = ChannelBinding::Require;
    let tls = || Security::Tls(Some(b"digest".to_vec()));
    assert!(refused(&mut begin(&config, tls()), &authentication(0, b"")).contains("binding"));
    let mut protocol = begin(&config, tls());
    say(&mut protocol, &authentication(5, b"salt")).unwrap();
    assert!(refused(&mut protocol, &authentication(0, b"")).contains("binding"));
}

#[test]
fn weak_passwords_need_a_word_and_a_private_way() {
    let (md5, cleartext) = (authentication(5, b"salt"), authentication(3, b""));
    let mut config = transcript::config();
    config.methods = Methods::default();
    assert!(refused(&mut begin(&config, Security::Socket), &md5).contains("require_auth"));
    assert!(refused(&mut begin(&config, Security::Socket), &cleartext).contains("require_auth"));
    config.methods = Methods { md5: true, cleartext: true, ..Methods::default() };
    assert!(refused(&mut begin(&config, Security::Plain), &md5).contains("without TLS"));
    assert!(refused(&mut begin(&config, Security::Plain), &cleartext).contains("without TLS"));
    for security in [Security::Socket, Security::Tls(None)] {
        let sent = say(&mut begin(&config, security.clone()), &cleartext).unwrap();
        assert_eq!(sent, message(b'p', format!("{PASSWORD}\0").as_bytes()));
        let sent = say(&mut begin(&config, security), &md5).unwrap();
        // md5(md5(password role) salt), as any other tool computes it.
        assert_eq!(sent, message(b'p', b"md5d44ca7e85be6dc86f9fc8e962724bc94\0"));
    }
    config.password = None;
    assert!(refused(&mut begin(&config, Security::Socket), &cleartext).contains("none is given"));
    assert!(
        refused(&mut begin(&config, Security::Socket), &authentication(7, b"")).contains("GSS")
    );
}
