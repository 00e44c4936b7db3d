// All log out in the same second, half of them here and half at the provider (back-channel logout). From then on every
// replica refuses the session, also with a copy of the cookie.
import { check, sleep } from 'k6';

import { isMine, newUser } from './lib/login.js';
import { SESSIONS, TIMED, VUS, allOf, common, journeys, thresholds } from './lib/profile.js';
import { API, TARGETS, counted, counters, logoutElsewhere, until, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = { ...common, scenarios: { storm: journeys('storm') }, thresholds: thresholds(allOf()) };

/** Sessions of each browser. */
const EACH = Math.max(1, Math.ceil(SESSIONS / VUS / 4));
/** Seconds until all refuse. */
const WITHIN = Number(__ENV.LOGOUT_WITHIN || (TIMED ? 1 : 5));

export const setup = () => ({ at: Date.now() / 1000 + Number(__ENV.LEAD || 6 + (EACH * VUS) / 20) });

export const storm = whole(({ at }) => {
  const users = [];
  for (let place = 0; place < EACH; place += 1) users.push(newUser(__VU * 10_000 + place));
  sleep(Math.max(0, at - 1 - Date.now() / 1000));
  // Every replica knows them now.
  for (const user of users) {
    for (const answer of user.everywhere(API, 'api')) check(answer, { 'before: 200': isMine(user) });
  }
  sleep(Math.max(0, at - Date.now() / 1000));
  users.forEach((user, place) => {
    const copy = { ...user.cookies() };
    if (counted && place % 2) logoutElsewhere(user.who.name);
    else check(user.post('/auth/logout', 'logout'), { 'logout: is done': ({ status }) => status === 200 });
    Object.assign(user.cookies(), copy);
    const refused = until(() => user.everywhere(API, 'api: after').every(({ status }) => status === 401), WITHIN, 0.05);
    check(refused, { [`after: refused everywhere within ${WITHIN} s`]: Boolean });
    Object.assign(user.cookies(), copy);
  });
  for (const user of users) {
    for (const answer of user.everywhere(API, 'api: later')) check(answer, { 'later: still refused': ({ status }) => status === 401 });
  }
});

export function teardown() {
  const seen = counters();
  if (seen) check(seen, {
    'provider: every logout token was taken': ({ provider }) => provider.logout_tokens_refused === 0,
    'provider: there were some': ({ provider }) => provider.logout_tokens > 0 || EACH < 2,
    'replicas: more than one': () => TARGETS.length > 1,
  });
}
