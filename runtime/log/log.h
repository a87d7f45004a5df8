/* JSON lines on stderr: timestamp level logger message, then fields. One line is one write(2), at most
 * LOG_LINE_MAX.
 *
 *   log_info("gateway", "function started", LOG_STR("function", name), LOG_INT("pid", pid));
 *   {"timestamp":"2026-11-22T14:01:24.123456789Z","level":"INFO","logger":"gateway",
 *    "message":"function started","function":"echo","pid":12}                         (on one line)
 *
 * Who decides what happens next logs, once; library code returns errors. error: someone must act. warn: went
 * wrong, we went on. info: life cycle. debug: per step. Any thread. On a terminal (log_set_terminal) the same
 * calls print lines for people: "14:01:24 function started  function=echo pid=12" (local time, colour only
 * if the descriptor is a terminal and NO_COLOR is unset).
 *
 * A full non-blocking descriptor is waited for once, at most 100 ms; then the line is lost and the next one
 * that is written carries `lines_lost`. */
#ifndef BALM_LOG_LOG_H
#define BALM_LOG_LOG_H

#include <stdint.h>

#include "base/strview.h"

/* Longer messages and values are cut; one write stays whole in a pipe up to PIPE_BUF. */
#define LOG_LINE_MAX 8192

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

struct log_field {
    const char *name; /* NULL ends the list */
    enum { LOG_FIELD_TEXT, LOG_FIELD_INT, LOG_FIELD_BOOL } type;
    struct strview text;
    int64_t number;
};

#define LOG_STR(n, cstr) ((struct log_field){.name = (n), .type = LOG_FIELD_TEXT, .text = sv(cstr)})
#define LOG_SV(n, view)  ((struct log_field){.name = (n), .type = LOG_FIELD_TEXT, .text = (view)})
#define LOG_INT(n, v)    ((struct log_field){.name = (n), .type = LOG_FIELD_INT, .number = (int64_t)(v)})
#define LOG_BOOL(n, v)   ((struct log_field){.name = (n), .type = LOG_FIELD_BOOL, .number = (v)})

void log_set_level(enum log_level level); /* default INFO */
void log_set_fd(int fd);                  /* default 2 */
void log_set_terminal(bool is_terminal);  /* default false */
/* DEBUG, INFO, WARNING, ERROR in any case. */
enum status log_level_parse(struct strview text, enum log_level *ret_level) MUST_USE;
/* fields: array ended by a field with name NULL. Use the macros below. */
void log_write(enum log_level level, const char *logger, const char *message, const struct log_field *fields);

#ifdef __CPPCHECK__ /* its preprocessor does not know __VA_OPT__, and it need not see the fields */
#define LOG_FIELDS(...) NULL
#else
#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.name = NULL}})
#endif
#define log_debug(logger, message, ...) log_write(LOG_LEVEL_DEBUG, logger, message, LOG_FIELDS(__VA_ARGS__))
#define log_info(logger, message, ...)  log_write(LOG_LEVEL_INFO, logger, message, LOG_FIELDS(__VA_ARGS__))
#define log_warn(logger, message, ...)  log_write(LOG_LEVEL_WARNING, logger, message, LOG_FIELDS(__VA_ARGS__))
#define log_error(logger, message, ...) log_write(LOG_LEVEL_ERROR, logger, message, LOG_FIELDS(__VA_ARGS__))

#endif
