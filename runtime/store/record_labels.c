#include "store/record.h"

#include <string.h>

#include "base/hash.h"

struct strview record_label(const struct record_labels *labels, struct strview name)
{
    for (size_t i = 0; i < labels->n; i++)
        if (sv_eq(labels->items[i].name, name)) return labels->items[i].value;
    return (struct strview){NULL, 0};
}

void record_labels_sort(struct http_header *items, size_t *n)
{
    /* Insertion: sets are small (RECORD_LABELS_MAX) and nearly always sorted already. */
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        struct http_header item = items[i];
        size_t at = kept;
        int order = 1;
        while (at > 0 && (order = sv_cmp(item.name, items[at - 1].name)) < 0)
            at--;
        if (at > 0 && order == 0) {
            items[at - 1].value = item.value;
            continue;
        }
        memmove(&items[at + 1], &items[at], (kept - at) * sizeof(items[0]));
        items[at] = item;
        kept++;
    }
    *n = kept;
}

void record_fingerprint(const struct record_labels *labels, char ret_hex[17])
{
    uint64_t state = FNV1A_START;
    for (size_t i = 0; i < labels->n; i++) {
        state = fnv1a_add(state, labels->items[i].name);
        state = fnv1a_add(state, SV("\xFF"));
        state = fnv1a_add(state, labels->items[i].value);
        state = fnv1a_add(state, SV("\xFF"));
    }
    uint8_t big_endian[8];
    for (int i = 0; i < 8; i++)
        big_endian[i] = (uint8_t)(state >> (56 - 8 * i));
    hex_encode(big_endian, sizeof(big_endian), ret_hex);
}
