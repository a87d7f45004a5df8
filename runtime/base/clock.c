#include "base/clock.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/list.h"

static int64_t read_clock(clockid_t id)
{
    struct timespec now;
    int failed = clock_gettime(id, &now);
    assert(failed == 0);
    (void)failed;
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t clock_monotonic_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_unix_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

#define SLEW_MAX_PART 10 /* chrony slews by a twelfth at most, adjtime(3) by far less */
#define STEADY_NS     (NS_PER_S / 4)

void clock_boot_id(char ret_id[CLOCK_BOOT_ID_MAX + 1])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, ret_id, CLOCK_BOOT_ID_MAX) : 0;
    if (fd >= 0) (void)close(fd);
    ret_id[n > 0 ? n : 0] = '\0';
}

int64_t clock_elapsed_ns(int64_t from_ns, int64_t to_ns)
{
    int64_t ns;
    if (!__builtin_sub_overflow(to_ns, from_ns, &ns)) return ns;
    return from_ns < 0 ? INT64_MAX : INT64_MIN;
}

int64_t clock_add_ns(int64_t unix_ns, int64_t ns)
{
    int64_t sum;
    if (!__builtin_add_overflow(unix_ns, ns, &sum)) return sum;
    return ns < 0 ? INT64_MIN : INT64_MAX;
}

int64_t clock_watch_look(struct clock_watch *w, int64_t monotonic_ns, int64_t unix_ns)
{
    int64_t follow_ns = (monotonic_ns - w->looked_ns) / SLEW_MAX_PART;
    w->looked_ns = monotonic_ns;
    w->apart_ns = unix_ns - monotonic_ns - w->offset_ns;
    if (w->apart_ns > CLOCK_JUMP_NS || w->apart_ns < -CLOCK_JUMP_NS) {
        int64_t jump_ns = w->apart_ns;
        w->offset_ns += jump_ns;
        w->apart_ns = 0;
        return jump_ns;
    }
    if (follow_ns > w->apart_ns && w->apart_ns >= 0) follow_ns = w->apart_ns;
    if (w->apart_ns < 0) follow_ns = -follow_ns < w->apart_ns ? w->apart_ns : -follow_ns;
    w->offset_ns += follow_ns;
    w->apart_ns -= follow_ns;
    return 0;
}

bool clock_watch_is_steady(const struct clock_watch *w)
{
    return w->apart_ns < STEADY_NS && w->apart_ns > -STEADY_NS;
}

/* Calendar arithmetic on eras of 400 years that begin on 1 March, so that the leap day is a year's last day.
 * Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (days_from_civil, civil_from_days) */
int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
    if (month <= 2) year--;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + (int64_t)day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

void civil_from_days(int64_t days, unsigned *ret_year, unsigned *ret_month, unsigned *ret_day)
{
    /* int64_t nanoseconds reach 1677 … 2262 only: in this range the shifted day count is positive. */
    uint32_t z = (uint32_t)(days + 719468);
    uint32_t era = z / 146097, day_of_era = z % 146097;
    uint32_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint32_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint32_t shifted_month = (5 * day_of_year + 2) / 153;
    *ret_day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    *ret_month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    *ret_year = year_of_era + era * 400 + (*ret_month <= 2);
}

static void put2(char *at, unsigned v)
{
    at[0] = (char)('0' + v / 10);
    at[1] = (char)('0' + v % 10);
}

void rfc3339_format(int64_t unix_ns, char ret_text[RFC3339_LEN + 1])
{
    int64_t seconds = unix_ns / NS_PER_S, nanos = unix_ns % NS_PER_S;
    if (nanos < 0) {
        nanos += NS_PER_S;
        seconds--;
    }
    int64_t days = seconds / SECONDS_PER_DAY, of_day = seconds % SECONDS_PER_DAY;
    if (of_day < 0) {
        of_day += SECONDS_PER_DAY;
        days--;
    }
    unsigned year, month, day, second = (unsigned)of_day;
    civil_from_days(days, &year, &month, &day);
    memcpy(ret_text, "0000-00-00T00:00:00.000000000Z", RFC3339_LEN + 1);
    put2(ret_text, year / 100);
    put2(ret_text + 2, year % 100);
    put2(ret_text + 5, month);
    put2(ret_text + 8, day);
    put2(ret_text + 11, second / 3600);
    put2(ret_text + 14, second / 60 % 60);
    put2(ret_text + 17, second % 60);
    uint32_t fraction = (uint32_t)nanos;
    for (char *at = ret_text + 28; at >= ret_text + 20; at--) {
        *at = (char)('0' + fraction % 10);
        fraction /= 10;
    }
}

struct strview rfc3339_text(struct arena *a, int64_t unix_ns)
{
    char text[RFC3339_LEN + 1];
    rfc3339_format(unix_ns, text);
    return arena_copy(a, sv_n(text, RFC3339_LEN));
}

static void skip(struct strview *rest, size_t n)
{
    rest->ptr += n;
    rest->len -= n;
}

/* `n` digits off the front of *rest. */
static bool take_digits(struct strview *rest, size_t n, unsigned *ret_value)
{
    if (rest->len < n) return false;
    *ret_value = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned digit = (unsigned)(unsigned char)rest->ptr[i] - '0';
        if (digit > 9) return false;
        *ret_value = *ret_value * 10 + digit;
    }
    skip(rest, n);
    return true;
}

static bool take_char(struct strview *rest, char c)
{
    if (rest->len == 0 || (rest->ptr[0] != c && !(c >= 'A' && c <= 'Z' && rest->ptr[0] == c + ('a' - 'A'))))
        return false;
    skip(rest, 1);
    return true;
}

static bool take_fraction(struct strview *rest, unsigned *ret_nanos)
{
    *ret_nanos = 0;
    if (!take_char(rest, '.')) return true;
    unsigned scale = 100000000;
    size_t n = 0;
    for (; n < rest->len && rest->ptr[n] >= '0' && rest->ptr[n] <= '9'; n++) {
        *ret_nanos += (unsigned)(rest->ptr[n] - '0') * scale;
        scale /= 10; /* 0 after nine digits: the rest adds nothing */
    }
    skip(rest, n);
    return n > 0;
}

/* "Z" or "+hh:mm" at the very end, as seconds to subtract. */
static bool take_offset(struct strview *rest, int64_t *ret_seconds)
{
    *ret_seconds = 0;
    if (take_char(rest, 'Z')) return rest->len == 0;
    bool is_west = take_char(rest, '-');
    unsigned hours, minutes;
    if (!is_west && !take_char(rest, '+')) return false;
    if (!take_digits(rest, 2, &hours) || !take_char(rest, ':') || !take_digits(rest, 2, &minutes))
        return false;
    if (hours > 23 || minutes > 59 || rest->len > 0) return false;
    int64_t seconds = hours * INT64_C(3600) + minutes * INT64_C(60);
    *ret_seconds = is_west ? -seconds : seconds;
    return true;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && is_leap ? 29 : days[month - 1];
}

enum status rfc3339_parse(struct strview text, int64_t *ret_unix_ns)
{
    unsigned year, month, day, hour, minute, second, nanos;
    int64_t offset;
    if (!take_digits(&text, 4, &year) || !take_char(&text, '-') || !take_digits(&text, 2, &month) ||
        !take_char(&text, '-') || !take_digits(&text, 2, &day) || !take_char(&text, 'T') ||
        !take_digits(&text, 2, &hour) || !take_char(&text, ':') || !take_digits(&text, 2, &minute) ||
        !take_char(&text, ':') || !take_digits(&text, 2, &second) || !take_fraction(&text, &nanos) ||
        !take_offset(&text, &offset))
        return STATUS_INVALID_ARGUMENT;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 ||
        second > 60)
        return STATUS_INVALID_ARGUMENT;
    int64_t seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY + hour * INT64_C(3600) +
                      minute * INT64_C(60) + second - offset;
    /* Second 60 exists only as the last one of a UTC day; it is counted as the first of the next, as POSIX
     * does. */
    if (second == 60 && seconds % SECONDS_PER_DAY != 0) return STATUS_INVALID_ARGUMENT;
    bool is_unset = seconds < days_from_civil(1678, 1, 1) * SECONDS_PER_DAY ||
                    seconds >= days_from_civil(2262, 1, 1) * SECONDS_PER_DAY;
    *ret_unix_ns = is_unset ? 0 : seconds * NS_PER_S + nanos;
    return STATUS_OK;
}

static const struct duration_unit {
    const char *name;
    int64_t ns;
} duration_units[] = {
    {"h", 3600 * NS_PER_S},   {"m", 60 * NS_PER_S},        {"s", NS_PER_S},
    {"ms", NS_PER_MS},        {"us", NS_PER_US},           {"ns", 1},
    {"\xC2\xB5s", NS_PER_US}, /* U+00B5 and U+03BC: Go reads both and writes the first */
    {"\xCE\xBCs", NS_PER_US}, {"d", 24 * 3600 * NS_PER_S}, /* last: read, never written */
};

static int64_t find_unit(struct strview name)
{
    for (size_t i = 0; i < ARRAY_LEN(duration_units); i++)
        if (sv_eq(name, sv(duration_units[i].name))) return duration_units[i].ns;
    return 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* One "1.5h" off the front of *rest. */
static bool take_duration_part(struct strview *rest, int64_t *ret_ns)
{
    size_t whole = 0, fraction, unit;
    while (whole < rest->len && is_digit(rest->ptr[whole]))
        whole++;
    fraction = whole;
    if (fraction < rest->len && rest->ptr[fraction] == '.')
        for (fraction++; fraction < rest->len && is_digit(rest->ptr[fraction]);)
            fraction++;
    size_t n_fraction = fraction > whole ? fraction - whole - 1 : 0;
    if (whole + n_fraction == 0) return false;
    for (unit = fraction; unit < rest->len && !is_digit(rest->ptr[unit]) && rest->ptr[unit] != '.';)
        unit++;
    int64_t unit_ns = find_unit(sv_sub(*rest, fraction, unit));
    uint64_t count = 0, part = 0;
    if (unit_ns == 0 || (whole > 0 && sv_parse_u64(sv_sub(*rest, 0, whole), &count) != STATUS_OK))
        return false;
    /* 15 digits of the largest unit are below a nanosecond: more cannot matter. */
    size_t n_used = n_fraction < 15 ? n_fraction : 15;
    if (n_used > 0 && sv_parse_u64(sv_sub(*rest, whole + 1, whole + 1 + n_used), &part) != STATUS_OK)
        return false;
    uint64_t scale = 1;
    for (size_t i = 0; i < n_used; i++)
        scale *= 10;
    uint64_t ns;
    if (__builtin_mul_overflow(count, (uint64_t)unit_ns, &ns) ||
        __builtin_add_overflow(ns, (uint64_t)((unsigned __int128)part * (uint64_t)unit_ns / scale), &ns) ||
        ns > INT64_MAX)
        return false;
    *ret_ns = (int64_t)ns;
    *rest = sv_sub(*rest, unit, rest->len);
    return true;
}

enum status duration_parse(struct strview text, int64_t *ret_ns)
{
    (void)take_char(&text, '+');
    if (text.len == 0) return STATUS_INVALID_ARGUMENT;
    uint64_t seconds;
    if (sv_parse_u64(text, &seconds) == STATUS_OK) {
        if (seconds > (uint64_t)(INT64_MAX / NS_PER_S)) return STATUS_INVALID_ARGUMENT;
        *ret_ns = (int64_t)seconds * NS_PER_S;
        return STATUS_OK;
    }
    int64_t sum = 0, part;
    while (text.len > 0)
        if (!take_duration_part(&text, &part) || __builtin_add_overflow(sum, part, &sum))
            return STATUS_INVALID_ARGUMENT;
    *ret_ns = sum;
    return STATUS_OK;
}

const char *duration_format(int64_t ns, char ret_text[DURATION_TEXT_MAX])
{
    size_t used = 0;
    uint64_t left = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    if (ns < 0) ret_text[used++] = '-';
    for (size_t i = 0; i < 6; i++) { /* h … ns, without the other spellings of us */
        uint64_t count = left / (uint64_t)duration_units[i].ns;
        left %= (uint64_t)duration_units[i].ns;
        if (count == 0) continue;
        used += (size_t)snprintf(ret_text + used, DURATION_TEXT_MAX - used, "%" PRIu64 "%s", count,
                                 duration_units[i].name);
    }
    if (used == 0) memcpy(ret_text, "0s", 3);
    return ret_text;
}
