//! Takes fetched records from librdkafka many at a time.
//!
//! Partitions that are read are diverted to a queue of our own, which is drained by a callback. Only records and errors
//! of partitions come this way; rebalances, group errors and callbacks stay on the consumer's queue, which must still be
//! polled.
//!
//! Of the three ways to drain a queue (librdkafka 2.12.1):
//! - `rd_kafka_consume_batch_queue` isn't used: after an end of partition it moves the application's position one *past*
//!   that end (rdkafka_queue.c:828), and librdkafka resumes from that position when a rebalance is over: a record is
//!   skipped, or the offset found out of range. The test `a_partition_leaves_only_once_its_revoke_is_acknowledged` fails
//!   with it.
//! - `rd_kafka_consume_queue` moves the position with records only (rdkafka_op.c, `rd_kafka_fetch_op_app_prepare`), but
//!   takes the queue's lock and reads the clock twice for each.
//! - `rd_kafka_consume_callback_queue` moves the position by that same function, record by record, and takes the whole
//!   queue at once; a marker of a transaction that was fetched before a seek moves it too, which is why partitions are
//!   sought again at every rebalance (consumer/state.rs, `seek_where_read`). It is deprecated without a successor;
//!   should it go, this won't link, and `rd_kafka_consume_queue` in a loop does the same.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::os::raw::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as sys;

use crate::kafka::positions;
use crate::offsets::{LeaderEpoch, Offset, Partition};

/// The queue that all diverted partitions deliver to.
pub(crate) struct FetchQueue<C: ConsumerContext + 'static> {
    queue: *mut sys::rd_kafka_queue_t,
    records_max: usize,
    bytes_max: usize,
    /// Declared last: the queue is destroyed in `drop`, before this reference to its client goes.
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues may be used from any thread (rdkafka.h, "Threads and callbacks"). The type holds
// nothing else that is bound to a thread.
unsafe impl<C: ConsumerContext + 'static> Send for FetchQueue<C> {}

impl<C: ConsumerContext + 'static> FetchQueue<C> {
    /// Makes an empty queue on `consumer`; one take returns up to `records_max`, and ends with the record whose key and value
    /// reach `bytes_max`.
    pub(crate) fn new(consumer: Arc<BaseConsumer<C>>, records_max: usize, bytes_max: usize) -> Self {
        // SAFETY: the client pointer is valid while `consumer` lives, which this value keeps alive. The new queue is
        // ours and is destroyed once, in `drop`.
        let queue = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
        assert!(!queue.is_null(), "librdkafka allocates or aborts");
        FetchQueue {
            queue,
            records_max: records_max.max(1),
            bytes_max,
            consumer,
        }
    }

    /// The consumer that the queue belongs to.
    pub(crate) fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Returns how many entries wait in the queue.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the queue is valid until `drop`.
        unsafe { sys::rd_kafka_queue_length(self.queue) }
    }

    /// Makes what is fetched from a partition come to this queue, from now on and over later assignments.
    ///
    /// Returns false while librdkafka doesn't know the partition, which is at the latest once it is assigned.
    pub(crate) fn divert(&self, topic: &str, partition: Partition) -> bool {
        let Ok(topic) = CString::new(topic) else { return false };
        // SAFETY: client and name are valid for the call. The returned reference, if any, is destroyed right after; the
        // forward itself keeps its own references to both queues (rdkafka_queue.c, rd_kafka_q_fwd_set0).
        unsafe {
            let source =
                sys::rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), topic.as_ptr(), partition.0);
            if source.is_null() {
                return false;
            }
            sys::rd_kafka_queue_forward(source, self.queue);
            sys::rd_kafka_queue_destroy(source);
        }
        true
    }

    /// Hands over what has been fetched, in order for each partition, up to the maximum; waits up to `timeout` for the
    /// first.
    ///
    /// What the callback is given has been read, as far as librdkafka goes: only a seek brings it back.
    ///
    /// # Panics
    /// If `each` does, once librdkafka has returned.
    pub(crate) fn drain<F: FnMut(Entry<'_>)>(&mut self, timeout: Duration, each: F) {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let mut drain = Drain {
            each,
            left: self.records_max,
            bytes_left: self.bytes_max,
            client: self.consumer.client().native_ptr(),
            panic: None,
        };
        // SAFETY: the queue is valid until `drop`; `hand_over` is called during this call only, on this thread, with the
        // pointer to `drain`, which nothing else uses meanwhile and whose type parameter is the same.
        unsafe {
            let drain = ptr::from_mut(&mut drain).cast::<c_void>();
            sys::rd_kafka_consume_callback_queue(self.queue, timeout_ms, Some(hand_over::<F>), drain);
        }
        if let Some(panic) = drain.panic {
            resume_unwind(panic);
        }
    }
}

/// Makes each fetch that a client begins from now on ask for `bytes` at most; a broker gives the first batch whole all the same.
///
/// - `bytes`: up to what `fetch.max.bytes` was when the client was made: other limits followed from it.
///
/// librdkafka has no function for it. Its client reads the one number for each request that it makes (2.12.1, rdkafka_fetcher.c,
/// `rd_kafka_broker_fetch_toppars`; nothing else does once the client is made), so it may change in between.
pub(crate) fn limit_fetch<C: ConsumerContext>(consumer: &BaseConsumer<C>, bytes: usize) {
    let value = CString::new(bytes.to_string()).expect("digits");
    let mut why = [0; 256];
    // SAFETY: the client is valid while `consumer` lives, and its configuration as long; texts are NUL-terminated, and `why` is as
    // long as is said. What is written is one aligned `int` that is read as one, on another thread, by either value.
    let answer = unsafe {
        let config = sys::rd_kafka_conf(consumer.client().native_ptr()).cast_mut();
        sys::rd_kafka_conf_set(
            config,
            c"fetch.max.bytes".as_ptr(),
            value.as_ptr(),
            why.as_mut_ptr(),
            why.len(),
        )
    };
    debug_assert!(answer == sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK, "{answer:?}");
}

/// One call of [`FetchQueue::drain`].
struct Drain<F> {
    each: F,
    left: usize,
    bytes_left: usize,
    client: *mut sys::rd_kafka_t,
    /// What `each` panicked with: no panic may pass through C.
    panic: Option<Box<dyn std::any::Any + Send>>,
}

/// Called by librdkafka for each entry, which is only valid until this returns.
///
/// # Safety
/// `message` is valid, and `drain` points to a `Drain<F>` that nobody else uses.
unsafe extern "C" fn hand_over<F: FnMut(Entry<'_>)>(message: *mut sys::rd_kafka_message_t, drain: *mut c_void) {
    // SAFETY: the caller's promise.
    let drain = unsafe { &mut *drain.cast::<Drain<F>>() };
    // SAFETY: the caller's promise; the client lives while its queue is drained.
    let entry = unsafe { entry(message, drain.client) };
    let bytes = match &entry {
        Entry::Record(record) => record.message.key_len + record.message.len,
        Entry::End { .. } | Entry::Error { .. } => 0,
    };
    drain.panic = catch_unwind(AssertUnwindSafe(|| (drain.each)(entry))).err();
    drain.left = drain.left.saturating_sub(1);
    drain.bytes_left = drain.bytes_left.saturating_sub(bytes);
    if drain.left == 0 || drain.bytes_left == 0 || drain.panic.is_some() {
        // SAFETY: the client lives, and this is one of its callbacks. What wasn't handed over goes back to the queue's head.
        unsafe { sys::rd_kafka_yield(drain.client) };
    }
}

impl<C: ConsumerContext + 'static> Drop for FetchQueue<C> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed only here, and its client still lives. No message of it is held: an `Entry`
        // doesn't outlive its callback.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) }
    }
}

/// One thing that a partition delivered.
pub(crate) enum Entry<'a> {
    Record(Record<'a>),
    /// All was read up to this offset, which lies past markers and aborted records.
    End {
        partition: Partition,
        at: Offset,
        /// That of the marker or record right before it, where that was handed over.
        leader_epoch: Option<LeaderEpoch>,
    },
    Error {
        partition: Partition,
        code: RDKafkaErrorCode,
        /// The offset that it is about: the first of a batch, where it is about one.
        at: Option<Offset>,
        reason: String,
    },
}

/// Sorts out what a message is.
///
/// # Safety
/// It comes of a queue of `client` that partitions are diverted to, and stays valid for `'a`.
unsafe fn entry<'a>(fetched: *const sys::rd_kafka_message_t, client: *mut sys::rd_kafka_t) -> Entry<'a> {
    // SAFETY: the caller's promise.
    let message = unsafe { &*fetched };
    let partition = Partition(message.partition);
    match RDKafkaErrorCode::from(message.err) {
        RDKafkaErrorCode::NoError => Entry::Record(Record { message, fetched }),
        RDKafkaErrorCode::PartitionEOF => {
            let at = Offset::new(message.offset);
            // SAFETY: an entry of a partition has a topic, whose name lives as long.
            let passed = unsafe { positions::passed(client, sys::rd_kafka_topic_name(message.rkt), partition) };
            Entry::End {
                partition,
                at,
                leader_epoch: passed
                    .filter(|passed| passed.offset == at)
                    .and_then(|at| at.leader_epoch),
            }
        }
        code => Entry::Error {
            partition,
            code,
            at: (message.offset >= 0).then(|| Offset::new(message.offset)),
            reason: reason(message),
        },
    }
}

fn reason(message: &sys::rd_kafka_message_t) -> String {
    // SAFETY: the message is valid; the text it returns is NUL-terminated and lives as long as the message.
    let text = unsafe { sys::rd_kafka_message_errstr(message) };
    if text.is_null() {
        return RDKafkaErrorCode::from(message.err).to_string();
    }
    // SAFETY: see above; it was just found not to be null.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A record in librdkafka's memory.
pub(crate) struct Record<'a> {
    message: &'a sys::rd_kafka_message_t,
    /// The same as it was handed over: librdkafka's own record goes on behind it.
    fetched: *const sys::rd_kafka_message_t,
}

impl<'a> Record<'a> {
    /// The same record as rdkafka has it, whose own headers panic at a name that isn't UTF-8.
    pub(crate) fn of(message: &'a BorrowedMessage<'_>) -> Record<'a> {
        let fetched: *const sys::rd_kafka_message_t = message.ptr();
        Record {
            // SAFETY: the message was fetched by a consumer, and is kept as long as it is borrowed.
            message: unsafe { &*fetched },
            fetched,
        }
    }

    pub(crate) fn partition(&self) -> Partition {
        Partition(self.message.partition)
    }

    pub(crate) fn offset(&self) -> Offset {
        Offset::new(self.message.offset)
    }

    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka sets pointer and length together; they are valid while the message is.
        unsafe { bytes(self.message.key.cast(), self.message.key_len) }
    }

    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.message.payload.cast(), self.message.len) }
    }

    /// Milliseconds since the epoch; `None` where the record has no timestamp.
    pub(crate) fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: message and out-parameter are valid for the call.
        let time = unsafe { sys::rd_kafka_message_timestamp(self.message, &mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && time != -1).then_some(time)
    }

    /// The epoch of the leader that took it; `None` from brokers that number none.
    #[inline]
    pub(crate) fn leader_epoch(&self) -> Option<LeaderEpoch> {
        // SAFETY: as for the headers; the second is asked with a valid message.
        positions::epoch(unsafe {
            match is_as_read() {
                true => (*self.fetched.cast::<Fetched>()).consumer.leader_epoch,
                false => sys::rd_kafka_message_leader_epoch(self.fetched),
            }
        })
    }

    /// Lists the headers in their order; a name that isn't UTF-8 has its bad bytes replaced.
    pub(crate) fn headers(&self) -> Headers<'a> {
        let mut headers = ptr::null_mut();
        // SAFETY: a record is a message that was fetched.
        if !unsafe { headless(self.fetched) } {
            // SAFETY: message and out-parameter are valid; the headers stay owned by the message.
            let answer = unsafe { sys::rd_kafka_message_headers(self.message, &mut headers) };
            if answer != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                headers = ptr::null_mut();
            }
        }
        Headers {
            headers,
            index: 0,
            record: PhantomData,
        }
    }
}

/// The release of librdkafka whose [`Fetched`] was copied down: 2.12.1.
const FETCHED_OF: c_int = 0x020c_01ff;

/// The beginning of librdkafka's own record, which a fetched message is the first part of: `rd_kafka_msg_t` of rdkafka_msg.h,
/// where `rd_kafka_message_headers` looks too.
#[repr(C)]
struct Fetched {
    message: sys::rd_kafka_message_t,
    link: [*const c_void; 2],
    flags: c_int,
    timestamp_kind: c_int,
    timestamp: i64,
    headers: *const sys::rd_kafka_headers_t,
    status: c_int,
    broker: i32,
    consumer: FetchedByConsumer,
}

#[repr(C)]
struct FetchedByConsumer {
    headers: Unparsed,
    leader_epoch: i32,
}

/// `rd_kafkap_bytes_t` of rdkafka_proto.h.
#[repr(C)]
struct Unparsed {
    len: i32,
    bytes: *const u8,
    inline: [u8; 1],
}

/// Says whether [`Fetched`] is how the linked release lays a record out.
#[inline]
fn is_as_read() -> bool {
    // SAFETY: returns a constant of the library.
    unsafe { sys::rd_kafka_version() == FETCHED_OF }
}

/// Says whether a record surely has no headers; `false` where that isn't known.
///
/// To find none, `rd_kafka_message_headers` allocates and frees a buffer: half the instructions of the thread that reads, for most
/// topics. What it would parse is a record's end in Kafka's format, the number of headers first, and a 0 is one byte.
///
/// # Safety
/// The message is valid and was fetched by a consumer.
#[inline]
unsafe fn headless(message: *const sys::rd_kafka_message_t) -> bool {
    if !is_as_read() {
        return false;
    }
    // SAFETY: in this release every fetched message is the first field of such a record (rdkafka_op.c,
    // `rd_kafka_message_get`), and `unparsed` points to so many bytes that live as long as the message.
    unsafe {
        let fetched = &*message.cast::<Fetched>();
        let unparsed = &fetched.consumer.headers;
        fetched.headers.is_null() && unparsed.len == 1 && *unparsed.bytes == 0
    }
}

/// The headers of one record.
pub(crate) struct Headers<'a> {
    headers: *mut sys::rd_kafka_headers_t,
    index: usize,
    record: PhantomData<&'a sys::rd_kafka_message_t>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (Cow<'a, str>, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers are owned by a message that outlives `'a`; the out-parameters are valid.
        let answer = unsafe { sys::rd_kafka_header_get_all(self.headers, self.index, &mut name, &mut value, &mut len) };
        if answer != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.index += 1;
        // SAFETY: on success the name is NUL-terminated, and value and length belong together; both live as long as the
        // message.
        unsafe { Some((CStr::from_ptr(name).to_string_lossy(), bytes(value.cast(), len))) }
    }
}

/// Reads a pointer and a length as bytes; a null pointer is Kafka's null.
///
/// # Safety
/// If not null, `start` points to `len` bytes that live and don't change for `'a`.
unsafe fn bytes<'a>(start: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start, len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linked_librdkafka_is_the_one_that_was_read() {
        // SAFETY: returns a constant of the library.
        let linked = unsafe { sys::rd_kafka_version() };
        assert_eq!(
            linked, FETCHED_OF,
            "compare `Fetched` with rdkafka_msg.h, then say so in `FETCHED_OF`"
        );
    }
}
