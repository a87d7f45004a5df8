/* Shared by yaml.c and yaml_decode.c alone. */
#ifndef BALM_CONFIG_YAML_IMPL_H
#define BALM_CONFIG_YAML_IMPL_H

#include "config/yaml.h"

/* yaml_error() for a place that is no node: a key. */
enum status yaml_error_at(const struct yaml_document *doc, size_t line, size_t column, struct error *err,
                          const char *fmt, ...) PRINTF_LIKE(5, 6);

#endif
