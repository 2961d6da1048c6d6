//! librdkafka's errors, sorted by what comes next.

use std::fmt;

use es_core::log::{LogError, LogErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What comes next after an error of librdkafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again, with the same client: nothing happened, and waiting may help.
    Retry,
    /// It may or may not have happened: replace the client, and ask the log.
    Doubt,
    /// Give up until somebody changes the settings of the client, the topic or the broker.
    Settings,
    /// Give up: the log does not hold what it held, or can't be read.
    Lost,
}

impl Next {
    pub(crate) fn kind(self) -> LogErrorKind {
        match self {
            Self::Retry | Self::Doubt => LogErrorKind::Unavailable,
            Self::Settings => LogErrorKind::Settings,
            Self::Lost => LogErrorKind::Lost,
        }
    }
}

/// Sorts every error code. What is not known is doubtful, which is safe: the producer is replaced and the log is asked.
pub(crate) fn next(code: RDKafkaErrorCode) -> Next {
    use RDKafkaErrorCode as Code;
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::NetworkException
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NotEnoughReplicas
        | Code::KafkaStorageError
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::ListenerNotFound
        | Code::ThrottlingQuotaExceeded
        | Code::QueueFull
        | Code::WaitingForCoordinator
        | Code::NotController
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator => Next::Retry,

        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL
        | Code::SecurityDisabled
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::InvalidGroupId
        | Code::ClusterAuthorizationFailed
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::PolicyViolation
        | Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::MessageBatchTooLarge
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidRequiredAcks
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedCompressionType
        | Code::InvalidArgument => Next::Settings,

        Code::AutoOffsetReset
        | Code::OffsetOutOfRange
        | Code::LogTruncation
        | Code::BadMessage
        | Code::InvalidMessage
        | Code::BadCompression
        | Code::UnknownTopicId => Next::Lost,

        _ => Next::Doubt,
    }
}

/// The same for a reader that is open. Its topic was there and could be read when it was opened, and a broker that has
/// just started, or that the topic moved to, may deny both once: whoever opens the reader again learns whether it lasts.
pub(crate) fn next_while_reading(code: RDKafkaErrorCode) -> Next {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => Next::Doubt,
        code if is_missing(code) => Next::Doubt,
        code => next(code),
    }
}

/// Whether a broker does not know the topic or the partition.
pub(crate) fn is_missing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(code, UnknownPartition | UnknownTopic | UnknownTopicOrPartition)
}

/// The code of an error that carries one.
pub(crate) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// A failure of librdkafka as an error of the log; the message says verb, object and values.
pub(crate) fn failed(message: impl Into<String>, error: KafkaError) -> LogError {
    let kind = match (&error, code_of(&error)) {
        (_, Some(code)) => next(code).kind(),
        (KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_), None) => {
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

    #[track_caller]
    fn all(codes: &[Code], expected: Next, kind: LogErrorKind) {
        for &code in codes {
            assert_eq!(next(code), expected, "{code:?}");
            assert_eq!(next(code).kind(), kind, "{code:?}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_tried_again() {
        let codes = [Code::AllBrokersDown, Code::NotLeaderForPartition, Code::NotEnoughReplicas, Code::QueueFull];
        all(&codes, Next::Retry, LogErrorKind::Unavailable);
    }

    #[test]
    fn what_may_have_been_written_is_doubtful_and_so_is_the_unknown() {
        let codes = [
            Code::MessageTimedOut,
            Code::PurgeInflight,
            Code::PurgeQueue,
            Code::Fatal,
            Code::OutOfOrderSequenceNumber,
            Code::DuplicateSequenceNumber,
            Code::InvalidProducerEpoch,
            Code::NotEnoughReplicasAfterAppend,
            Code::Unknown,
        ];
        all(&codes, Next::Doubt, LogErrorKind::Unavailable);
    }

    #[test]
    fn what_somebody_must_change_is_settings() {
        let codes = [
            Code::SaslAuthenticationFailed,
            Code::SSL,
            Code::TopicAuthorizationFailed,
            Code::UnknownTopicOrPartition,
            Code::MessageSizeTooLarge,
            Code::InvalidTimestamp,
        ];
        all(&codes, Next::Settings, LogErrorKind::Settings);
    }

    #[test]
    fn what_one_answer_says_of_a_topic_ends_no_open_reader_for_good() {
        for code in
            [Code::UnknownTopicOrPartition, Code::UnknownTopic, Code::UnknownPartition, Code::TopicAuthorizationFailed]
        {
            assert_eq!(next(code).kind(), LogErrorKind::Settings, "{code:?} when opening");
            assert_eq!(next_while_reading(code).kind(), LogErrorKind::Unavailable, "{code:?} when open");
        }
        for code in [Code::SaslAuthenticationFailed, Code::OffsetOutOfRange, Code::NotLeaderForPartition] {
            assert_eq!(next_while_reading(code), next(code), "{code:?}");
        }
    }

    #[test]
    fn what_is_gone_or_broken_is_lost() {
        let codes = [Code::AutoOffsetReset, Code::OffsetOutOfRange, Code::LogTruncation, Code::BadMessage];
        all(&codes, Next::Lost, LogErrorKind::Lost);
    }

    #[test]
    fn the_value_of_a_refused_property_is_not_shown() {
        let error = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "not allowed".into(),
            "ssl.key.pem".into(),
            "hunter2".into(),
        );
        let error = failed("creating a client", error);
        assert_eq!(error.kind(), LogErrorKind::Settings);
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("ssl.key.pem"), "{text}");
    }
}
