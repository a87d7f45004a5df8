/* The two header values of gRPC that have a form of their own. */
#include "grpc/grpc_impl.h"

#define TIMEOUT_DIGITS_MAX 8

static int64_t unit_ns(char unit)
{
    switch (unit) {
    case 'H':
        return 3600 * NS_PER_S;
    case 'M':
        return 60 * NS_PER_S;
    case 'S':
        return NS_PER_S;
    case 'm':
        return NS_PER_MS;
    case 'u':
        return 1000;
    case 'n':
        return 1;
    default:
        return 0;
    }
}

enum status grpc_timeout_parse(struct strview text, int64_t *ret_ns)
{
    uint64_t value;
    if (text.len < 2 || text.len > TIMEOUT_DIGITS_MAX + 1) return STATUS_INVALID_ARGUMENT;
    int64_t unit = unit_ns(text.ptr[text.len - 1]);
    if (unit == 0 || sv_parse_u64(sv_sub(text, 0, text.len - 1), &value) != STATUS_OK)
        return STATUS_INVALID_ARGUMENT;
    /* 8 digits of hours are 11 000 years, more than 64 bits of nanoseconds hold. */
    *ret_ns = (int64_t)value > GRPC_NO_TIMEOUT / unit ? GRPC_NO_TIMEOUT : (int64_t)value * unit;
    return STATUS_OK;
}

void grpc_message_escape(struct strview message, struct buf *io_text)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < message.len;) {
        size_t n = sv_utf8_sequence(sv_sub(message, i, message.len));
        if (n == 0) n = 1; /* no UTF-8: its byte alone */
        if (io_text->len + 3 * n > io_text->max_bytes) return;
        for (size_t end = i + n; i < end; i++) {
            unsigned char c = (unsigned char)message.ptr[i];
            if (c >= 0x20 && c <= 0x7e && c != '%')
                buf_append_char(io_text, (char)c);
            else
                buf_append(io_text, sv_n((char[]){'%', hex[c >> 4], hex[c & 15]}, 3));
        }
    }
}
