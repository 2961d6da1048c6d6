//! Reading a record's headers.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_message_headers, rd_kafka_resp_err_t};
use rdkafka::message::BorrowedMessage;

/// Calls `each` with name and value of every header, in order.
///
/// rdkafka's own way panics at a name that is not UTF-8, and anybody may write one.
#[allow(unsafe_code)]
pub(crate) fn for_each(message: &BorrowedMessage<'_>, mut each: impl FnMut(&CStr, &[u8])) {
    let mut headers = ptr::null_mut();
    // SAFETY: the message is alive while it is borrowed; librdkafka parses the headers and keeps owning them.
    let found = unsafe { rd_kafka_message_headers(message.ptr(), &mut headers) };
    if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return;
    }
    for index in 0.. {
        let (mut name, mut value, mut size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0);
        // SAFETY: the headers live as long as their message.
        let found = unsafe { rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) };
        if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        // SAFETY: names end in a zero byte, and a value that is not null has `size` bytes.
        let (name, value) = unsafe {
            let value = if value.is_null() { &[] } else { std::slice::from_raw_parts(value.cast::<u8>(), size) };
            (CStr::from_ptr(name), value)
        };
        each(name, value);
    }
}
