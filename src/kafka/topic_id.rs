//! The id of a topic, which changes when it is deleted and created again.
//!
//! rdkafka 0.39 has no DescribeTopics, so this goes to librdkafka itself.

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

/// A zero id is what brokers before Kafka 2.8 answer with.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// How long a cluster that was just reached may take to name its controller.
const CONTROLLER_WAIT_MS: i32 = 2000;

/// Destroys what librdkafka made when the scope ends.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the maker that belongs to this destructor, and only this value destroys it.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// Asks for the id of `topic`, in base 64 as Kafka's tools print it; `None` where the broker has no ids.
///
/// - `brokers`: the ids of those that the cluster's metadata lists.
///
/// # Errors
/// The code and the words of the broker or of librdkafka.
///
/// # Safety
/// `client` must be a valid librdkafka client for the whole call.
pub(crate) unsafe fn describe(
    client: *mut sys::rd_kafka_t,
    topic: &str,
    brokers: &[i32],
    timeout: Duration,
) -> Result<Option<String>, (RDKafkaErrorCode, String)> {
    let Ok(name) = CString::new(topic) else {
        return Err((RDKafkaErrorCode::InvalidTopic, "a topic's name holds no NUL".to_owned()));
    };
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut names = [name.as_ptr()];
    // SAFETY: the client is valid by the caller's promise. Queue, options, topics and event are made here, checked for
    // null where they can be, and destroyed by `Owned` in reverse order: the event, whose parts are read below, goes
    // first. All text is NUL-terminated and copied before that.
    unsafe {
        // DescribeTopics waits for the controller until the timeout. Who names one that isn't among the brokers (rdkafka's
        // mock cluster) can't be asked; KRaft brokers always name a live one (KIP-590).
        if !brokers.contains(&sys::rd_kafka_controllerid(client, CONTROLLER_WAIT_MS.min(timeout_ms))) {
            return Ok(None);
        }
        let queue = Owned(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy);
        let options = Owned(
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        );
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, std::ptr::null_mut(), 0);
        let topics = Owned(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        );
        sys::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        let event = Owned(
            sys::rd_kafka_queue_poll(queue.0, timeout_ms.saturating_add(1000)),
            sys::rd_kafka_event_destroy,
        );
        if event.0.is_null() {
            return Err((RDKafkaErrorCode::OperationTimedOut, "no answer in time".to_owned()));
        }
        let code = RDKafkaErrorCode::from(sys::rd_kafka_event_error(event.0));
        if code == RDKafkaErrorCode::UnsupportedFeature || code == RDKafkaErrorCode::UnsupportedVersion {
            return Ok(None);
        }
        if code != RDKafkaErrorCode::NoError {
            return Err((code, text(sys::rd_kafka_event_error_string(event.0))));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Ok(None);
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 || descriptions.is_null() {
            return Ok(None);
        }
        let description = *descriptions;
        let error = sys::rd_kafka_TopicDescription_error(description);
        let code = RDKafkaErrorCode::from(sys::rd_kafka_error_code(error));
        if code != RDKafkaErrorCode::NoError {
            return Err((code, text(sys::rd_kafka_error_string(error))));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return Ok(None);
        }
        let id = text(sys::rd_kafka_Uuid_base64str(id));
        Ok((!id.is_empty() && id != NO_ID).then_some(id))
    }
}

/// # Safety
/// If not null, `pointer` is NUL-terminated and lives for the call.
unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
