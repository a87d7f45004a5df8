/* Shared by yaml.c and yaml_decode.c alone. */
#ifndef BALM_CONFIG_YAML_IMPL_H
#define BALM_CONFIG_YAML_IMPL_H

#include "config/yaml.h"

/* Of a file's own text in a message: leaves room for the sentence around it. */
#define YAML_QUOTED_MAX 60

/* A file's text as it may stand in a message: short, one line, nothing a terminal would act on. Returns
 * ret_text. */
const char *yaml_quoted(struct strview text, char ret_text[YAML_QUOTED_MAX + 4]);
/* Same, for a place that is no node: a key. */
enum status yaml_error_at(const struct yaml_document *doc, size_t line, size_t column, struct error *err,
                          const char *fmt, ...) PRINTF_LIKE(5, 6);

#endif
