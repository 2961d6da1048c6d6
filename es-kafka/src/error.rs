//! librdkafka's errors, sorted by what comes next. `docs/kafka.md` has the same table.

use std::fmt;

use es_core::log::{LogError, LogErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What was asked of Kafka. One code means different things: a right that is missing at a start is told to whoever starts
/// the process, while that of a process at work was there before and may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Connecting, and making or looking at a topic for the first time.
    Start,
    /// Whatever a process at work asks: metadata, offsets, reading, opening a reader or writer, the group.
    Work,
    /// The report about a record that the client had taken: it was sent, or will be, or neither.
    Report,
}

/// What comes next after an error of librdkafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait: the same client tries again by itself, or may be asked again.
    Wait,
    /// Replace the client and try again. Of a record it is unknown whether it is in the log: the log is asked.
    Renew,
    /// Give up until somebody changes the settings of the client, the topic or the broker.
    Settings,
    /// Give up: the log does not hold what it held, or can't be read.
    Lost,
}

impl Next {
    pub(crate) fn kind(self) -> LogErrorKind {
        match self {
            Self::Wait | Self::Renew => LogErrorKind::Unavailable,
            Self::Settings => LogErrorKind::Settings,
            Self::Lost => LogErrorKind::Lost,
        }
    }
}

/// What an error code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A broker, the network or an election: it passes by itself.
    Passing,
    /// The group went on without this member.
    Outside,
    /// The user lacks a right.
    Rights,
    /// The user could not log in, or no connection could be encrypted.
    Login,
    /// The broker does not know the topic or the partition. One that has just started, or to which the topic has moved,
    /// says so too.
    Missing,
    /// The request, the record, the topic or the client's settings are not what the broker takes.
    Unfit,
    /// The offset is not in the log.
    Gone,
    /// The record can't be read: its checksum or its compression is wrong.
    Damaged,
    /// All else, also what is not known here. To replace the client and to ask the log is safe after anything.
    Other,
}

/// Every code that is not [`Class::Other`].
const CODES: [(Class, &[RDKafkaErrorCode]); 8] = {
    use RDKafkaErrorCode::*;
    [
        (
            Class::Passing,
            &[
                BrokerTransportFailure,
                AllBrokersDown,
                Resolve,
                OperationTimedOut,
                TimedOutQueue,
                QueueFull,
                ISRInsufficient,
                WaitingForCoordinator,
                WaitCache,
                InProgress,
                Retry,
                Outdated,
                RequestTimedOut,
                NetworkException,
                LeaderNotAvailable,
                NotLeaderForPartition,
                BrokerNotAvailable,
                ReplicaNotAvailable,
                StaleControllerEpoch,
                CoordinatorLoadInProgress,
                CoordinatorNotAvailable,
                NotCoordinator,
                NotEnoughReplicas,
                NotController,
                KafkaStorageError,
                FetchSessionIdNotFound,
                InvalidFetchSessionEpoch,
                ListenerNotFound,
                FencedLeaderEpoch,
                UnknownLeaderEpoch,
                OffsetNotAvailable,
                PreferredLeaderNotAvailable,
                EligibleLeadersNotAvailable,
                UnstableOffsetCommit,
                ThrottlingQuotaExceeded,
                RebootstrapRequired,
            ],
        ),
        (
            Class::Outside,
            &[
                AssignmentLost,
                IllegalGeneration,
                UnknownMemberId,
                RebalanceInProgress,
                FencedInstanceId,
                FencedMemberEpoch,
                StaleMemberEpoch,
                UnreleasedInstanceId,
            ],
        ),
        (
            Class::Rights,
            &[
                TopicAuthorizationFailed,
                GroupAuthorizationFailed,
                ClusterAuthorizationFailed,
                TransactionalIdAuthorizationFailed,
                DelegationTokenAuthorizationFailed,
            ],
        ),
        (
            Class::Login,
            &[
                Authentication,
                SSL,
                UnsupportedSASLMechanism,
                IllegalSASLState,
                SaslAuthenticationFailed,
                SecurityDisabled,
                DelegationTokenAuthDisabled,
                DelegationTokenNotFound,
                DelegationTokenOwnerMismatch,
                DelegationTokenRequestNotAllowed,
                DelegationTokenExpired,
                InvalidPrincipalType,
                UnacceptableCredential,
                PrincipalDeserializationFailure,
            ],
        ),
        (Class::Missing, &[UnknownTopic, UnknownPartition, UnknownTopicOrPartition, UnknownTopicId]),
        (
            Class::Unfit,
            &[
                InvalidArgument,
                UnknownProtocol,
                NotImplemented,
                UnsupportedFeature,
                NotConfigured,
                InvalidMessageSize,
                MessageSizeTooLarge,
                MessageBatchTooLarge,
                InvalidRecord,
                InvalidTimestamp,
                UnsupportedForMessageFormat,
                UnsupportedCompressionType,
                InvalidRequiredAcks,
                InvalidTopic,
                InvalidPartitions,
                InvalidReplicationFactor,
                InvalidReplicaAssignment,
                InvalidConfig,
                PolicyViolation,
                InvalidRequest,
                UnsupportedVersion,
                InvalidGroupId,
                InvalidSessionTimeout,
                InconsistentGroupProtocol,
                UnsupportedAssignor,
                GroupMaxSizeReached,
                InvalidCommitOffsetSize,
                OffsetMetadataTooLarge,
            ],
        ),
        (Class::Gone, &[AutoOffsetReset, OffsetOutOfRange, LogTruncation]),
        (Class::Damaged, &[BadMessage, BadCompression, InvalidMessage]),
    ]
};

pub(crate) fn class(code: RDKafkaErrorCode) -> Class {
    CODES.iter().find(|(_, codes)| codes.contains(&code)).map_or(Class::Other, |(class, _)| *class)
}

/// What comes next after this code in answer to this call.
///
/// Only a start ends because of what a broker says of rights, topics and settings. A process at work had them before:
/// it tries again, with growing pauses, and tells why each time. And no report says that a record is not in the log: what
/// was sent before the answer that failed may still be on its way.
pub(crate) fn next(call: Call, code: RDKafkaErrorCode) -> Next {
    match (call, class(code)) {
        (Call::Report, _) => Next::Renew,
        (_, Class::Passing) => Next::Wait,
        (_, Class::Gone | Class::Damaged) => Next::Lost,
        (Call::Start, Class::Rights | Class::Login | Class::Missing | Class::Unfit) => Next::Settings,
        (_, Class::Rights | Class::Login | Class::Missing | Class::Unfit | Class::Outside | Class::Other) => {
            Next::Renew
        }
    }
}

/// The code of an error that carries one.
pub(crate) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// Whether the error says that the broker does not know the topic or the partition.
pub(crate) fn is_missing(error: &KafkaError) -> bool {
    code_of(error).is_some_and(|code| class(code) == Class::Missing)
}

/// A failure of librdkafka as an error of the log; the message says verb, object and values.
pub(crate) fn failed(call: Call, message: impl Into<String>, error: KafkaError) -> LogError {
    let kind = match (&error, code_of(&error)) {
        (_, Some(code)) => next(call, code).kind(),
        // A process at work has made such clients before: it has no thread or no file left for one more.
        (KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_), None)
            if call == Call::Start =>
        {
            LogErrorKind::Settings
        }
        _ => LogErrorKind::Unavailable,
    };
    LogError::new(kind, message).with_source(ClientError::from(error))
}

/// What librdkafka says, without values of the configuration, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientError(String);

impl ClientError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<KafkaError> for ClientError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, reason, property, _) => Self(format!("property {property}: {reason}")),
            error => Self(error.to_string()),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode as Code;

    /// Every code that librdkafka has.
    fn codes() -> impl Iterator<Item = Code> {
        let raw = (-200..200).filter_map(|number| rdkafka::types::RDKafkaRespErr::try_from(number).ok());
        raw.map(Code::from).filter(|code| !matches!(code, Code::Begin | Code::End | Code::EndAll | Code::NoError))
    }

    #[track_caller]
    fn all(call: Call, of: &[Class], expected: Next, kind: LogErrorKind) {
        for code in codes().filter(|code| of.contains(&class(*code))) {
            assert_eq!(next(call, code), expected, "{code:?} of {call:?}");
            assert_eq!(next(call, code).kind(), kind, "{code:?} of {call:?}");
        }
    }

    #[test]
    fn each_code_stands_in_one_class() {
        let named: Vec<Code> = CODES.iter().flat_map(|(_, codes)| codes.iter().copied()).collect();
        let all: Vec<Code> = codes().collect();
        assert!(named.iter().all(|code| all.contains(code)) && all.len() > 150);
        assert!((1..named.len()).all(|place| !named[..place].contains(&named[place])));
        assert_eq!(class(Code::TopicAuthorizationFailed), Class::Rights);
        assert_eq!(class(Code::PurgeInflight), Class::Other);
    }

    #[test]
    fn what_passes_by_itself_is_waited_for() {
        for call in [Call::Start, Call::Work] {
            all(call, &[Class::Passing], Next::Wait, LogErrorKind::Unavailable);
        }
    }

    #[test]
    fn what_somebody_must_change_ends_a_start() {
        let classes = [Class::Rights, Class::Login, Class::Missing, Class::Unfit];
        all(Call::Start, &classes, Next::Settings, LogErrorKind::Settings);
    }

    /// A broker that has just started denies what it allowed before, and knows no topics; passwords are changed, and
    /// rights given back.
    #[test]
    fn a_process_at_work_gives_up_only_where_the_log_lost_something() {
        for code in codes() {
            let lost = matches!(class(code), Class::Gone | Class::Damaged);
            let expected = if lost { LogErrorKind::Lost } else { LogErrorKind::Unavailable };
            assert_eq!(next(Call::Work, code).kind(), expected, "{code:?}");
            let error = failed(Call::Work, "reading", KafkaError::MessageConsumption(code));
            assert_eq!(error.kind(), expected, "{code:?}");
        }
        let error = |call| failed(call, "opening", KafkaError::ClientCreation("no thread is left".into()));
        assert_eq!(error(Call::Work).kind(), LogErrorKind::Unavailable);
        assert_eq!(error(Call::Start).kind(), LogErrorKind::Settings);
    }

    #[test]
    fn no_report_says_that_a_record_is_not_in_the_log() {
        for code in codes() {
            assert_eq!(next(Call::Report, code), Next::Renew, "{code:?}");
        }
    }

    #[test]
    fn what_is_gone_or_broken_is_lost_and_the_unknown_is_doubtful() {
        for call in [Call::Start, Call::Work] {
            all(call, &[Class::Gone, Class::Damaged], Next::Lost, LogErrorKind::Lost);
            all(call, &[Class::Other, Class::Outside], Next::Renew, LogErrorKind::Unavailable);
        }
    }

    /// The table of the page is that of the code: where this fails, it says what the page must have.
    #[test]
    fn the_page_lists_every_class_with_its_codes() {
        let page = include_str!("../../docs/kafka.md");
        for (class, codes) in CODES {
            let codes: Vec<String> = codes.iter().map(|code| format!("{code:?}")).collect();
            let line = format!("- **{class:?}**: {}.", codes.join(", "));
            assert!(page.replace("\n  ", " ").contains(&line), "docs/kafka.md lacks: {line}");
        }
    }

    #[test]
    fn the_value_of_a_refused_property_is_not_shown() {
        let error = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "not allowed".into(),
            "ssl.key.pem".into(),
            "hunter2".into(),
        );
        let error = failed(Call::Start, "creating a client", error);
        assert_eq!(error.kind(), LogErrorKind::Settings);
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("ssl.key.pem"), "{text}");
    }
}
