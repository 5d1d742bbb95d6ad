//! Every failure that a user can see has one stable code and one page, `docs/errors/CODE.md`.

/// What a failure asks the reader to do; decides the exit code (DESIGN section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It did not work; try again once the cause is gone. Exit 1.
    Failed,
    /// The command line or the spec is wrong. Exit 2.
    Usage,
    /// Stored data is damaged or missing, or a proof failed. Exit 3.
    Damage,
    /// Refused because it could destroy something. Exit 4.
    Refused,
    /// Done, but something was skipped and is named. Exit 5.
    Partial,
    /// A person or the system stopped it. Exit 130.
    Interrupted,
}

impl Kind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Damage => 3,
            Self::Refused => 4,
            Self::Partial => 5,
            Self::Interrupted => 130,
        }
    }
}

macro_rules! codes {
    ($($(#[$section:meta])* $name:ident = $text:literal, $kind:ident, $title:literal;)*) => {
        /// A stable error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All codes, in order.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The code as printed, as in `LB1001`.
            pub fn text(self) -> &'static str {
                match self { $(Code::$name => $text),* }
            }

            /// What the failure asks for.
            pub fn kind(self) -> Kind {
                match self { $(Code::$name => Kind::$kind),* }
            }

            /// One line that names the failure.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title),* }
            }

            /// The page that `lifeboat explain` prints.
            pub fn page(self) -> &'static str {
                match self {
                    $(Code::$name =>
                        include_str!(concat!("../../../../docs/errors/", $text, ".md"))),*
                }
            }
        }
    };
}

codes! {
    // 10xx: command line and spec.
    Usage = "LB1001", Usage, "the command line is wrong";
    SpecNotFound = "LB1002", Usage, "no spec was found";
    SpecInvalid = "LB1003", Usage, "the spec has errors";
    SpecUnsafe = "LB1004", Refused, "the spec is unsafe";
    SecretUnavailable = "LB1005", Usage, "a secret reference cannot be resolved";
    RegionUnknown = "LB1006", Usage, "the region of this process is not known";
    DatabaseUnknown = "LB1007", Usage, "the database is not in the spec";
    NotProtectedYet = "LB1008", Failed, "the spec asks for protection that this version lacks";
    CheckFailed = "LB1009", Failed, "a check found something to change";
    Internal = "LB1099", Failed, "Lifeboat met a state that it holds for impossible";

    // 20xx: objects in a store.
    StoreUnavailable = "LB2001", Failed, "the store does not answer";
    StoreDenied = "LB2002", Failed, "the store refuses the credentials";
    ObjectMissing = "LB2003", Damage, "an object is missing";
    ObjectConflict = "LB2004", Refused, "an object of that name holds other content";
    StoreUnfit = "LB2005", Refused, "the store cannot create exclusively";
    StoreFull = "LB2006", Failed, "the store or disk is full";
    ObjectTooLarge = "LB2007", Failed, "an object would exceed its maximum size";

    // 30xx: repository, keys, format.
    RepositoryMissing = "LB3001", Failed, "there is no repository at that place";
    FormatUnreadable = "LB3002", Refused, "the repository's format object cannot be read";
    FormatNewer = "LB3003", Refused, "the repository was written by a newer version";
    VaultMismatch = "LB3004", Refused, "the repository belongs to another vault";
    ObjectDamaged = "LB3005", Damage, "an object is damaged";
    SignatureInvalid = "LB3006", Damage, "a signature does not hold";
    KeyUnavailable = "LB3007", Failed, "no key opens this repository";
    PassphraseWrong = "LB3008", Failed, "the passphrase opens no slot";
    WriterKeyMissing = "LB3009", Failed, "this host has no writer key";
    WriterKeyIncomplete = "LB3010", Failed, "the writer key is not yet bound to the database";
    BindingConflict = "LB3011", Refused, "the database is bound to another cluster";
    BackupMissing = "LB3012", Failed, "there is no such backup";
    RepositoryDamaged = "LB3013", Damage, "the repository has damage";
    SessionRevoked = "LB3014", Failed, "the writer session was ended by the maintainer";
    LimitExceeded = "LB3015", Damage, "a stored value exceeds its written maximum";

    // 40xx: PostgreSQL.
    ClusterUnreachable = "LB4001", Failed, "PostgreSQL cannot be reached";
    ClusterPermission = "LB4002", Failed, "PostgreSQL refuses this role";
    ClusterUnsupported = "LB4003", Failed, "this PostgreSQL version is not supported";
    ClusterMismatch = "LB4004", Refused, "the data directory and the server are not the same cluster";
    ControlFileInvalid = "LB4005", Damage, "pg_control cannot be read";
    ClusterSettings = "LB4006", Failed, "a setting of PostgreSQL does not allow this";
    DataDirectoryInvalid = "LB4007", Failed, "the directory is not a PostgreSQL data directory";
    SourceFileUnreadable = "LB4008", Failed, "a file of the cluster cannot be read";
    PageCorrupt = "LB4009", Damage, "a page of the cluster fails its checksum";
    WalInvalid = "LB4010", Failed, "a WAL file is not what its name says";
    SlotUnusable = "LB4011", Failed, "the replication slot cannot be used";
    ServerUntrusted = "LB4012", Refused, "the server has not proved who it is";
    NotPrimary = "LB4013", Failed, "the server is a standby";

    // 50xx: backup and WAL.
    BackupRunning = "LB5001", Refused, "another backup of this database is running";
    BackupAborted = "LB5002", Failed, "the backup was aborted";
    WalNotArchived = "LB5003", Failed, "the WAL of the backup did not reach the repository";
    RegionSkipped = "LB5004", Partial, "a region was skipped";
    CloneRefused = "LB5005", Refused, "this data directory may not write into this archive";
    SplitBrain = "LB5006", Refused, "the archive holds other WAL under this name";
    WalAbsent = "LB5007", Failed, "the archive does not have this WAL file";
    WalGap = "LB5008", Damage, "the archive has a gap";
    DeadlineExceeded = "LB5009", Failed, "the deadline passed";
    PageDamageStored = "LB5010", Damage, "the backup is complete but holds damaged pages";
    ReceiverRunning = "LB5011", Refused, "another receiver of this database is running here";
    ReceiverSealed = "LB5012", Refused, "the receiver is sealed for this epoch";
    TimelineForeign = "LB5013", Refused, "the server's timeline does not descend from what was received";
    AcknowledgeRefused = "LB5014", Refused, "commits cannot be made to wait for these receivers";

    // 60xx: restore.
    TargetUnreachable = "LB6001", Refused, "the target is outside the recoverability window";
    TargetDirectory = "LB6002", Refused, "the target directory cannot be used";
    NoBackup = "LB6003", Failed, "there is no backup to restore from";
    PathUnsafe = "LB6004", Damage, "a stored path points outside the target";
    RestoreIncomplete = "LB6005", Failed, "the restore did not finish";
    TargetAmbiguous = "LB6006", Usage, "the target is not a clear moment";

    // 70xx: moving a service.
    QuorumUnavailable = "LB7001", Failed, "the quorum store does not answer";
    QuorumDenied = "LB7002", Failed, "the quorum store refuses this process";
    QuorumRegressed = "LB7003", Refused, "the quorum store went back in time";
    QuorumUnusable = "LB7004", Usage, "the quorum store cannot be asked as the spec says";
    EpochTaken = "LB7005", Refused, "the epoch was given to another holder";
    IdentityUnusable = "LB7006", Usage, "a process cannot prove who it is";
    EnrollmentRefused = "LB7007", Refused, "the token was not accepted";
    MoveRefused = "LB7040", Refused, "the service cannot be moved as things are";
    RunMissing = "LB7041", Failed, "there is no such run";
    RunStopped = "LB7042", Failed, "the run waits for a person";
    MoveAborted = "LB7043", Failed, "the move was given up";
    AgentRunning = "LB7044", Refused, "another agent of this node is running here";

    GuardSilent = "LB7010", Failed, "the guard does not answer";
    GuardRefused = "LB7011", Refused, "the guard cannot do this now";
    GuardDeadline = "LB7012", Refused, "the guard does not take this deadline";
    GuardStart = "LB7013", Failed, "the guard could not start PostgreSQL";
    GuardUnmanaged = "LB7014", Refused, "the data directory is not managed";
    GuardLeft = "LB7015", Failed, "killed processes have not ended yet";
    GuardRunning = "LB7016", Refused, "another guard or server holds this data directory";
    LabMissing = "LB7060", Failed, "there is no lab in that directory";
    LabInTheWay = "LB7061", Refused, "the lab's directory is taken";
    LabPart = "LB7062", Failed, "a part of the lab does not work";
    LabNetwork = "LB7063", Failed, "the lab's network cannot be used";
    LabFaultUnknown = "LB7064", Usage, "the lab does not know this fault or part";
    LabFaultRefused = "LB7065", Refused, "this lab cannot inject that fault";
    OracleViolated = "LB7066", Damage, "what clients were told does not hold";
    OracleBlind = "LB7067", Failed, "the oracle could not check everything";
    ObjectiveMissed = "LB7068", Failed, "a recovery objective was missed";

    InstanceOther = "LB7020", Refused, "the connection leads to another PostgreSQL instance";
    InstanceRole = "LB7021", Refused, "the data directory cannot take the role that is wanted";
    StandbyMissing = "LB7022", Refused, "no standby streams from the primary";
    Diverged = "LB7023", Refused, "the data directory holds WAL that the primary does not have";
    RewindFailed = "LB7024", Failed, "the data directory could not be rewound";
    SalvageFailed = "LB7025", Failed, "what the old primary wrote could not be set apart";
    ReceiverEnded = "LB7026", Failed, "the receiver of a region has ended";
    SalvagePartial = "LB7027", Partial, "some of what the old primary wrote could not be compared";
    TrafficSilent = "LB7030", Failed, "no server of a traffic record answers";
    TrafficSuperseded = "LB7031", Refused, "the traffic record carries a later epoch";
    TrafficForeign = "LB7032", Refused, "the traffic record is somebody else's";
    TrafficKeyRefused = "LB7033", Failed, "the server refuses the key that signs updates";
    TrafficClock = "LB7034", Failed, "the server's clock is too far from ours";
    TrafficDenied = "LB7035", Failed, "the server does not let the record be changed";
    TrafficZone = "LB7036", Failed, "the server does not hold the zone";
    TrafficAnswer = "LB7037", Failed, "the server's answer is of no use";
    TrafficContested = "LB7038", Failed, "something else changes the traffic record";
    TrafficProxy = "LB7039", Failed, "the load balancer refuses a command";

    // 90xx: the process itself.
    Interrupted = "LB9001", Interrupted, "the command was interrupted";
    LocalState = "LB9002", Failed, "the local state directory cannot be used";
    LocalFile = "LB9003", Failed, "a local file cannot be read or written";
    Failpoint = "LB9004", Failed, "a test asked for this failure";
    SpoolFailed = "LB9005", Failed, "the receiver's spool cannot be written or read";
}

impl Code {
    /// What to do where nobody knew better: damage is found deep below whoever knows the command.
    pub(crate) fn usual_hint(self) -> Option<&'static str> {
        match self {
            Self::ObjectMissing
            | Self::ObjectDamaged
            | Self::SignatureInvalid
            | Self::LimitExceeded => Some(
                "`lifeboat repo check --read-data` names all damage. Another region holds the \
                 same bytes: --here reads it first.",
            ),
            _ => None,
        }
    }

    /// Finds a code by its text, in any case.
    pub fn find(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.text().eq_ignore_ascii_case(text))
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.text())
    }
}
