// Calls of an API by browsers with sessions, at a steady rate (or what PROFILE makes of it). The same calls past the proxy
// are the measure: LATENCY_RATIO bounds how many times longer the median through the proxy may be.
import { check } from 'k6';
import http from 'k6/http';

import { isMine, newUser } from './lib/login.js';
import { arriving, common, keptUp, some, thresholds } from './lib/profile.js';
import { API, API_POST, DIRECT, checkUpstream, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = {
  ...common,
  scenarios: arriving('api', 'warm'),
  thresholds: thresholds({
    ...keptUp, ...some('api'), 'http_req_duration{name:api}': ['max>=0'], 'http_req_duration{name:direct}': ['max>=0'],
  }),
};

/** The API of these tests reads tokens and does not verify them. */
const UNCHECKED = { Authorization: 'Bearer e30.eyJleHAiOjk5OTk5OTk5OTl9.x' };

let user = null;

export const warm = whole(() => { user ??= newUser(__VU); });

export const api = whole(() => {
  user ??= newUser(__VU);
  if (__ITER % 10 === 9) {
    check(user.post(API_POST, 'api: post', '{"n":1}'), { 'api: POST is 2xx': ({ status }) => status >= 200 && status < 300 });
  } else {
    check(user.call('GET', API, 'api'), { 'api: 200, and for this user': isMine(user) });
  }
  // In turn with the others, so that both see the same machine.
  if (DIRECT) http.get(DIRECT + API, { tags: { name: 'direct' }, headers: UNCHECKED });
});

export const teardown = () => { checkUpstream(); };
