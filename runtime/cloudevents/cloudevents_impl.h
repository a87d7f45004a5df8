/* Shared by runtime/cloudevents/ only. */
#ifndef BALM_CLOUDEVENTS_IMPL_H
#define BALM_CLOUDEVENTS_IMPL_H

#include "cloudevents/cloudevents.h"

/* Sets attribute `name` of *e; each at most once, of legal characters, valid UTF-8 without control
 * characters. */
enum status cloudevent_set(struct cloudevent *e, struct strview name, struct strview value,
                           struct error *err) MUST_USE;
/* The four required attributes are there and specversion is 1.0. */
enum status cloudevent_check(const struct cloudevent *e, struct error *err) MUST_USE;
/* Structured mode and batch, in the arena. */
enum status cloudevent_decode_json(struct strview body, struct arena *a, struct cloudevent *ret_event,
                                   struct error *err) MUST_USE;
enum status cloudevent_decode_batch(struct strview body, struct arena *a,
                                    const struct cloudevent **ret_events, size_t *ret_n,
                                    struct error *err) MUST_USE;
/* Media type without parameters and outer white space. */
struct strview media_type(struct strview content_type);
/* No type, or a subtype of json or …+json: data is a JSON value (formats/json-format.md). */
bool media_type_is_json(struct strview content_type);

#endif
