// Logins, one after the other and many at once: the whole chain of redirects, and nobody gets the session of somebody else.
import { check } from 'k6';

import { isMine, newUser, problem } from './lib/login.js';
import { SECONDS, VUS, common, thresholds } from './lib/profile.js';
import { API, counters, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = {
  ...common,
  scenarios: { login: { executor: 'constant-vus', vus: VUS, duration: `${SECONDS}s`, gracefulStop: '60s' } },
  thresholds: thresholds(),
};

const seen = new Set();

export default whole(() => {
  // Another user each time; those of other browsers log in meanwhile.
  const user = newUser(__VU * 1000 + (__ITER % 1000));
  const session = Object.entries(user.cookies()).find(([name]) => name.endsWith('session'))?.[1];
  check(session, { 'login: a session of its own': (value) => Boolean(value) && !seen.has(value) });
  seen.add(session);
  for (const answer of [...user.everywhere(API, 'api'), ...user.everywhere(API, 'api')]) {
    check(answer, { 'api: answers this user as this user': isMine(user) });
  }
  check(user.call('GET', '/auth/userinfo', 'userinfo'), {
    'userinfo: is this user’s': (answer) => answer.status === 200 && answer.json('preferred_username') === user.who.name,
  });
  check(user.call('GET', '/auth/session', 'session'), {
    'session: is there': (answer) => answer.status === 200 && answer.json('authenticated') === true,
    'session: shows no token': ({ body }) => !/eyJ[\w-]+\.eyJ/.test(body),
  });
  check(user.post('/auth/logout', 'logout'), { 'logout: is done': ({ status }) => status === 200 });
  check(user.call('GET', API, 'api'), { 'api: 401 after logout': problem(401, 'session_missing') });
});

export function teardown() {
  const seen = counters();
  if (seen) check(seen, { 'provider: nothing refused': ({ provider }) => provider.refused === 0 });
}
