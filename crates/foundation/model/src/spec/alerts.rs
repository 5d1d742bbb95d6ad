//! `alerts`: who is told when something is wrong.

use crate::reader::{one_key, section};
use crate::{Reference, Secret, TimeSpan};

section! {
    /// Who is told, and of what.
    pub struct Alerts {
        /// The ways out.
        channels: Vec<Channel>,
        /// From when on something is wrong.
        rules: Option<AlertRules>,
    }
}

one_key! {
    /// A way out.
    pub enum Channel {
        /// An HTTP POST.
        Webhook(Webhook) = "webhook",
        /// A mail.
        Email(Email) = "email",
        /// An Amazon SNS topic.
        Sns(Sns) = "sns",
        /// A program.
        Command(CommandChannel) = "command",
    }
}

section! {
    /// An HTTP POST.
    pub struct Webhook {
        /// Where to; it often holds a token, so write it as ${NAME}.
        url: Reference,
    }
}

section! {
    /// A mail.
    pub struct Email {
        /// The mail server: HOST:PORT.
        server: Reference,
        /// The sender.
        from: String,
        /// The receivers.
        to: Vec<String>,
        /// The user at the mail server.
        user: Option<Reference>,
        /// The password at the mail server.
        password: Option<Secret>,
    }
}

section! {
    /// An Amazon SNS topic.
    pub struct Sns {
        /// Its ARN.
        topic: Reference,
    }
}

section! {
    /// A program that gets the alert as JSON on standard input.
    pub struct CommandChannel {
        /// The program and its arguments; there is no shell.
        argv: Vec<String>,
    }
}

section! {
    /// From when on something is wrong.
    pub struct AlertRules {
        /// The lag of a repository or receiver.
        lag: Option<TimeSpan>,
        /// The age of the last backup.
        backup_age: Option<TimeSpan>,
        /// The age of the last proof.
        proof_age: Option<TimeSpan>,
    }
}
