/* What was asked for through the API outlives a restart:
 *
 *   DIR/functions/NAME.json    the FunctionDeployment as it was sent
 *   DIR/functions/NAME.scale   how many replicas somebody wants, of whatever is deployed under that name */
#ifndef BALM_GATEWAY_DEPLOYED_H
#define BALM_GATEWAY_DEPLOYED_H

#include "gateway/gateway_impl.h"

/* FunctionDeployment (contracts/openfaas.md §2.4) -> spec. Borrows from `body`. STATUS_INVALID_ARGUMENT names
 * the member. */
enum status deployed_parse(const json_t *body, struct arena *a, struct deployment_spec *ret_spec,
                           struct error *err) MUST_USE;
/* Durable when it returns: deployed again at the next start. */
enum status deployed_store(struct gateway *g, struct strview name, const json_t *body,
                           struct error *err) MUST_USE;
/* The same of how many replicas somebody asked for. */
enum status deployed_store_scale(struct gateway *g, struct strview name, unsigned n,
                                 struct error *err) MUST_USE;
/* Durable when it returns: not deployed at the next start. After a failure it still is, unless the power
 * fails as well. A function that was never stored is fine. */
enum status deployed_forget(struct gateway *g, struct strview name, struct error *err) MUST_USE;
/* Both suspend, and the file and who has the name change together: one change at a time. STATUS_CANCELLED,
 * STATUS_DEADLINE_EXCEEDED: it is not this one's turn, and nothing is to be ended. */
enum status deployed_change_begin(struct gateway *g, struct error *err) MUST_USE;
void deployed_change_end(struct gateway *g);
/* Deploys all that are stored, with one replica each, as a deploy does. One that cannot be is logged and
 * left: the others must not suffer. */
enum status deployed_load(struct gateway *g, struct error *err) MUST_USE;
/* Once all is deployed: each has the replicas that somebody wants, and what is stored of others goes. */
void deployed_load_scales(struct gateway *g);

#endif
