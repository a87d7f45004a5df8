/* A function's OpenAPI 3.1 document, from its manifest (function/manifest.h): what POST / takes and what may
 * come back. The parameters' schema in it is the manifest's own, which was made from the same table as the
 * decoder.
 *
 * `balm generate bot` puts it into the executable, which answers GET /openapi.json with it; the gateway makes
 * the same bytes from what it was told at deploy time (--describe), so that no process has to run. Its server
 * is ".": relative to wherever the document was read, the function itself or the gateway's /function/NAME/.
 */
#ifndef BALM_FUNCTION_OPENAPI_H
#define BALM_FUNCTION_OPENAPI_H

#include "base/json.h"

/* Where it is answered, below a function's root: GET and HEAD. */
#define OPENAPI_PATH "/openapi.json"

/* Owned by the caller. Only of a manifest that has its schema: a function in another way of its own may say
 * less, see openapi_is_known(). */
json_t *openapi_document(const json_t *manifest);
/* Does the manifest say enough? */
bool openapi_is_known(const json_t *manifest);

#endif
