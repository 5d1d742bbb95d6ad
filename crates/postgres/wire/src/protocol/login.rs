//! Who we are, and who the server is.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl;
use postgres_protocol::message::backend::{self, AuthenticationSaslBody};
use postgres_protocol::message::frontend;

use super::message::{Message, unexpected};
use crate::{ChannelBinding, Config, Error, Password};

/// What protects the bytes on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Nothing.
    Plain,
    /// They never leave the machine.
    Socket,
    /// TLS; with the digest that channel binding needs, if the certificate allows one.
    Tls(Option<Vec<u8>>),
}

/// The opening of a session.
pub struct Login {
    user: String,
    application_name: String,
    options: Option<String>,
    password: Option<Password>,
    methods: crate::Methods,
    channel_binding: ChannelBinding,
    security: Security,
    proof: Proof,
}

/// What has been proved.
enum Proof {
    Nothing,
    /// A password went out.
    Password,
    /// SCRAM is under way.
    Scram(Box<sasl::ScramSha256>),
    /// The server has shown that it knows the password too.
    Mutual,
    /// AuthenticationOk came.
    Accepted,
}

impl Login {
    /// A login as `config` says, over a connection that is protected by `security`.
    pub fn new(config: &Config, security: Security) -> Self {
        Self {
            user: config.user.clone(),
            application_name: config.application_name.clone(),
            options: config.options.clone(),
            password: config.password.clone(),
            methods: config.methods,
            channel_binding: config.tls.channel_binding,
            security,
            proof: Proof::Nothing,
        }
    }

    pub(super) fn begin(&self, outbox: &mut BytesMut) -> Result<(), Error> {
        let mut parameters = vec![
            ("user", self.user.as_str()),
            ("replication", "true"),
            ("application_name", self.application_name.as_str()),
        ];
        parameters.extend(self.options.as_deref().map(|options| ("options", options)));
        frontend::startup_message(parameters, outbox).map_err(zero_byte)
    }

    /// Takes a message; true when the session is open.
    pub(super) fn proceed(
        &mut self,
        message: Message,
        outbox: &mut BytesMut,
    ) -> Result<bool, Error> {
        use backend::Message as Known;
        let Message::Known(message) = message else { return Err(unexpected(&message, "login")) };
        match (&mut self.proof, message) {
            (Proof::Nothing, Known::AuthenticationSasl(body)) => self.sasl(&body, outbox)?,
            (Proof::Scram(scram), Known::AuthenticationSaslContinue(body)) => {
                scram.update(body.data()).map_err(untrusted)?;
                frontend::sasl_response(scram.message(), outbox).map_err(zero_byte)?;
            }
            (Proof::Scram(scram), Known::AuthenticationSaslFinal(body)) => {
                scram.finish(body.data()).map_err(untrusted)?;
                self.proof = Proof::Mutual;
            }
            (Proof::Nothing, Known::AuthenticationMd5Password(body)) => {
                let password = self.weak(self.methods.md5, "an MD5 digest of the password")?;
                let digest = md5_hash(self.user.as_bytes(), password.as_bytes(), body.salt());
                frontend::password_message(digest.as_bytes(), outbox).map_err(zero_byte)?;
                self.proof = Proof::Password;
            }
            (Proof::Nothing, Known::AuthenticationCleartextPassword) => {
                let password = self.weak(self.methods.cleartext, "the password itself")?;
                frontend::password_message(password.as_bytes(), outbox).map_err(zero_byte)?;
                self.proof = Proof::Password;
            }
            (_, Known::AuthenticationOk) => self.accept()?,
            (Proof::Accepted, Known::BackendKeyData(_)) => {}
            (Proof::Accepted, Known::ReadyForQuery(_)) => return Ok(true),
            (
                Proof::Nothing,
                Known::AuthenticationGss
                | Known::AuthenticationSspi
                | Known::AuthenticationKerberosV5
                | Known::AuthenticationScmCredential,
            ) => return Err(refuse("the server asks for Kerberos, GSSAPI or SSPI")),
            (_, message) => return Err(unexpected(&Message::Known(message), "login")),
        }
        Ok(false)
    }

    /// The server is satisfied. Are we?
    fn accept(&mut self) -> Result<(), Error> {
        match self.proof {
            // Only Mutual after binding: see `sasl`.
            Proof::Mutual => {}
            _ if self.channel_binding == ChannelBinding::Require => {
                return Err(refuse("channel binding is required, but the server did not use it"));
            }
            Proof::Password => {}
            Proof::Nothing if self.methods.none => {}
            Proof::Nothing => return Err(refuse("the server asks for no proof at all")),
            Proof::Scram(_) => return Err(refuse("the server did not prove itself")),
            Proof::Accepted => return Err(Error::protocol("authentication succeeded twice")),
        }
        self.proof = Proof::Accepted;
        Ok(())
    }

    fn sasl(&mut self, body: &AuthenticationSaslBody, outbox: &mut BytesMut) -> Result<(), Error> {
        if !self.methods.scram {
            return Err(refuse("the server asks for SCRAM, which the configuration excludes"));
        }
        let malformed = |_| Error::protocol("a list of mechanisms cannot be read");
        let (mut plain, mut plus) = (false, false);
        let mut mechanisms = body.mechanisms();
        while let Some(mechanism) = mechanisms.next().map_err(malformed)? {
            plain |= mechanism == sasl::SCRAM_SHA_256;
            plus |= mechanism == sasl::SCRAM_SHA_256_PLUS;
        }
        let (mechanism, binding) = self.mechanism(plain, plus)?;
        let scram = sasl::ScramSha256::new(self.password()?.as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), outbox).map_err(zero_byte)?;
        self.proof = Proof::Scram(Box::new(scram));
        Ok(())
    }

    /// Which mechanism, and what to say about channel binding: as libpq decides.
    fn mechanism(
        &self,
        plain: bool,
        plus: bool,
    ) -> Result<(&'static str, sasl::ChannelBinding), Error> {
        let wanted = self.channel_binding != ChannelBinding::Disable;
        match &self.security {
            Security::Tls(Some(digest)) if plus && wanted => {
                let binding = sasl::ChannelBinding::tls_server_end_point(digest.clone());
                Ok((sasl::SCRAM_SHA_256_PLUS, binding))
            }
            _ if self.channel_binding == ChannelBinding::Require => {
                Err(refuse("channel binding is required, but it is not possible here"))
            }
            Security::Plain | Security::Socket if plus => {
                Err(refuse("the server offers channel binding without TLS"))
            }
            _ if !plain => Err(refuse("the server offers no mechanism that is known")),
            // "I could have": if somebody removed the better offer on its way, the server notices.
            Security::Tls(Some(_)) if wanted => {
                Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()))
            }
            _ => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        }
    }

    fn weak(&self, allowed: bool, what: &str) -> Result<&Password, Error> {
        if !allowed {
            return Err(refuse(format!(
                "the server asks for {what}: use SCRAM, or allow it with require_auth"
            )));
        }
        if self.security == Security::Plain {
            return Err(refuse(format!("{what} must not leave the machine without TLS")));
        }
        self.password()
    }

    fn password(&self) -> Result<&Password, Error> {
        self.password
            .as_ref()
            .ok_or_else(|| refuse("the server asks for a password; none is given"))
    }
}

fn refuse(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::Authentication(what.into())
}

fn untrusted(error: std::io::Error) -> Error {
    refuse(format!("the server does not know the password: {error}"))
}

fn zero_byte(_: std::io::Error) -> Error {
    Error::Config("the user, the password or an option holds a zero byte".into())
}
